"""Pauses in the database: what they do to slots, when they end by themselves, and what makes up for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.model import OnResume, Pause
from cron_observer.store import pauses, pausing
from cron_observer.store.engine import Database, clock
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, events, make_slot, make_task, state

T = TypeVar("T")
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


async def within(database: Database, tenant: Tenant, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Do `work` in a transaction of the tenant."""
    async with database.transaction([tenant.tenant_id]) as conn:
        return await work(conn)


async def pause(tenant: Tenant, task: UUID, now: datetime | None = None, **changes: Any) -> str:
    """Pause a task as the API does."""
    given: dict[str, Any] = {"until": None, "reason": "night shift", "on_resume": OnResume.SKIP, "author": "key:a"}

    async def work(conn: AsyncConnection) -> str:
        at = now or await clock(conn)
        return await pausing.begin(conn, tenant.tenant_id, task, now=at, **(given | changes))

    return await within(tenant.database.api, tenant, work)


async def resume(tenant: Tenant, task: UUID, on_resume: OnResume | None = None) -> pausing.Resumed | None:
    """Resume a task as the API does."""
    return await within(
        tenant.database.api,
        tenant,
        lambda conn: pausing.end(conn, tenant.tenant_id, task, by="key:b", on_resume=on_resume),
    )


async def follow(tenant: Tenant, now: datetime) -> int:
    """Follow pauses as the scheduler does, whatever time it is."""
    return await within(tenant.database.scheduler, tenant, lambda conn: pauses.follow(conn, tenant.tenant_id, now))


async def in_force(tenant: Tenant, task: UUID, now: datetime) -> Pause | None:
    """Return the pause that a task's slots obey."""
    work = within(tenant.database.api, tenant, lambda conn: pauses.in_force(conn, tenant.tenant_id, [task], now))
    return (await work).get(task)


def pause_row(database: FreshDatabase, task: UUID) -> dict[str, Any]:
    """Return the newest pause of a task."""
    return database.rows("SELECT * FROM pauses WHERE task_uid = %s ORDER BY created_at DESC LIMIT 1", task)[0]


def repeats(database: FreshDatabase, task: UUID) -> list[dict[str, Any]]:
    """Return the runs that repeat slots of a task, in the order in which they fall due."""
    query = "SELECT * FROM executions WHERE task_uid = %s AND repeats IS NOT NULL ORDER BY fire_at"
    return database.rows(query, task)


def ahead(tenant: Tenant, task: UUID, now: datetime, minutes: int = 10) -> list[UUID]:
    """Insert forecasts of a task, one for each of the next minutes."""
    return [make_slot(tenant, task, now + n * MINUTE) for n in range(1, minutes + 1)]


async def test_a_pause_skips_what_is_not_yet_due_and_leaves_the_rest(database: FreshDatabase, tenant: Tenant) -> None:
    """Forecasts become SKIPPED(paused), without a history; what is due, and a run by hand, are left alone."""
    task, now = make_task(tenant), database_now(database)
    forecast = make_slot(tenant, task, now + 5 * MINUTE)
    due = make_slot(tenant, task, now - MINUTE)
    manual = make_slot(tenant, task, now + MINUTE, trigger="manual", plan_generation=None)
    assert await pause(tenant, task) == "pause"
    assert state(database, forecast) == ("SKIPPED", "paused")
    assert events(database, forecast) == []
    assert state(database, due) == ("PENDING", None)
    assert state(database, manual) == ("PENDING", None)
    assert await in_force(tenant, task, now) == Pause(pause_row(database, task)["since"], None)


async def test_a_pause_with_an_end_leaves_what_comes_after_it(database: FreshDatabase, tenant: Tenant) -> None:
    """Slots at and after `until` wait from the start; the one right before it is skipped."""
    task, now = make_task(tenant), database_now(database)
    before, at, after = (make_slot(tenant, task, now + n * MINUTE) for n in (4, 5, 6))
    await pause(tenant, task, until=now + 5 * MINUTE)
    assert [state(database, one)[0] for one in (before, at, after)] == ["SKIPPED", "PENDING", "PENDING"]


async def test_a_second_pause_replaces_the_first(database: FreshDatabase, tenant: Tenant) -> None:
    """One pause is in force: the second gives it another end and reason, and slots agree both ways; same is same."""
    task, now = make_task(tenant), database_now(database)
    slots_ahead = ahead(tenant, task, now, 4)
    first = {"until": now + 3 * MINUTE + timedelta(seconds=1)}
    assert await pause(tenant, task, **first) == "pause"
    assert await pause(tenant, task, **first) == "same"
    since = pause_row(database, task)["since"]
    assert (
        await pause(tenant, task, until=now + 90 * timedelta(seconds=1), reason="shorter", author="key:c") == "replace"
    )
    assert [state(database, one)[0] for one in slots_ahead] == ["SKIPPED", "PENDING", "PENDING", "PENDING"]
    row = pause_row(database, task)
    assert (row["since"], row["reason"], row["author"]) == (since, "shorter", "key:c")
    assert await pause(tenant, task, until=None) == "replace"
    assert [state(database, one)[0] for one in slots_ahead] == ["SKIPPED"] * 4
    assert database.value("SELECT count(*) FROM pauses") == 1


async def test_resuming_lets_slots_wait_again(database: FreshDatabase, tenant: Tenant) -> None:
    """From the end of the pause, a few seconds ahead, slots wait again; in the queue that the task has by now."""
    task, now = make_task(tenant), database_now(database)
    close, far = make_slot(tenant, task, now + timedelta(seconds=2)), make_slot(tenant, task, now + MINUTE)
    await pause(tenant, task)
    database.do("UPDATE task_plan SET queue = 'other', priority = 3 WHERE task_uid = %s", task)
    resumed = await resume(tenant, task)
    assert resumed is not None
    assert resumed.runs == 0
    assert state(database, close) == ("SKIPPED", "paused")
    assert state(database, far) == ("PENDING", None)
    (row,) = database.rows("SELECT queue, priority, finished_at FROM executions WHERE id = %s", far)
    assert row == {"queue": "other", "priority": 3, "finished_at": None}
    row = pause_row(database, task)
    assert row["ended_by"] == "key:b"
    assert timedelta() < row["ended_at"] - database_now(database) <= pausing.MARGIN
    assert await resume(tenant, task) is None


async def test_a_task_of_a_manifest_is_paused_and_resumed_by_the_api(database: FreshDatabase, tenant: Tenant) -> None:
    """The API's role, which may not touch the plan of a manifest's task, pauses and resumes it all the same."""
    task, now = make_task(tenant), database_now(database)
    database.do("UPDATE task_plan SET owner = 'manifest' WHERE task_uid = %s", task)
    forecast = make_slot(tenant, task, now + MINUTE)
    await pause(tenant, task)
    assert state(database, forecast) == ("SKIPPED", "paused")
    await resume(tenant, task)
    assert state(database, forecast) == ("PENDING", None)


async def test_a_pause_runs_out_by_itself(database: FreshDatabase, tenant: Tenant) -> None:
    """The scheduler ends it at `until`, however late it comes, writes that down, and has nothing left to do then."""
    task, now = make_task(tenant), database_now(database)
    await pause(tenant, task, until=now + MINUTE)
    assert await follow(tenant, now) == 1
    assert await follow(tenant, now) == 0
    assert await follow(tenant, now + 3 * HOUR) == 1
    row = pause_row(database, task)
    assert (row["ended_at"], row["ended_by"], row["runs"]) == (now + MINUTE, pausing.ITSELF, 0)
    assert await follow(tenant, now + 3 * HOUR) == 0
    assert await in_force(tenant, task, now + 3 * HOUR) is None
    (audited,) = database.rows("SELECT action, actor, target FROM audit_log")
    assert audited == {"action": "task.resume", "actor": pausing.ITSELF, "target": "task:default/export"}
