"""Pauses in the database: what they do to slots, when they end by themselves, and what makes up for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.model import OnResume, Pause
from cron_observer.store import pauses, pausing, plans
from cron_observer.store.engine import Database, clock, fetch
from support.databases import FreshDatabase, Tenant
from support.plans import begin, plan_all, slots, until_blocked
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
    asked = database_now(database)
    resumed = await resume(tenant, task)
    answered = database_now(database)
    assert resumed is not None
    assert resumed.runs == 0
    assert state(database, close) == ("SKIPPED", "paused")
    assert state(database, far) == ("PENDING", None)
    (row,) = database.rows("SELECT queue, priority, finished_at FROM executions WHERE id = %s", far)
    assert row == {"queue": "other", "priority": 3, "finished_at": None}
    row = pause_row(database, task)
    assert row["ended_by"] == "key:b"
    assert asked < row["ended_at"] - pausing.MARGIN < answered
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


async def test_the_newest_slots_run_when_the_pause_ends(database: FreshDatabase, tenant: Tenant) -> None:
    """`all` repeats the newest `maxRuns` slots, oldest first, once; each names its slot and keeps its outcome."""
    task, now = make_task(tenant, catchup={"policy": "last", "window": "1h", "maxRuns": 3}), database_now(database)
    await pause(tenant, task, now - HOUR, on_resume=OnResume.ALL)
    skipped = [
        make_slot(tenant, task, now - n * MINUTE, status="SKIPPED", reason="paused", finished_at=now - n * MINUTE)
        for n in (5, 4, 3, 2)
    ]
    other = make_slot(tenant, task, now - MINUTE, status="SKIPPED", reason="overlap", finished_at=now - MINUTE)
    resumed = await resume(tenant, task)
    assert resumed is not None
    assert resumed.runs == 3
    made = repeats(database, task)
    assert [row["repeats"] for row in made] == skipped[1:]
    assert {(row["trigger"], row["status"]) for row in made} == {("catchup", "PENDING")}
    assert [row["nominal_at"] for row in made] == [now - n * MINUTE for n in (4, 3, 2)]
    assert all(row["fire_at"] - resumed.at < timedelta(milliseconds=1) for row in made)
    assert [state(database, one) for one in skipped] == [("SKIPPED", "paused")] * 4
    assert state(database, other) == ("SKIPPED", "overlap")
    assert await follow(tenant, resumed.at) == 1
    assert len(repeats(database, task)) == 3
    assert pause_row(database, task)["runs"] == 3


async def test_a_resume_may_choose_another_policy(database: FreshDatabase, tenant: Tenant) -> None:
    """What the resume says wins over the pause: `last` runs the newest slot alone."""
    task, now = make_task(tenant), database_now(database)
    await pause(tenant, task, now - HOUR)
    for n in (3, 2):
        make_slot(tenant, task, now - n * MINUTE, status="SKIPPED", reason="paused", finished_at=now - n * MINUTE)
    await resume(tenant, task, OnResume.LAST)
    assert [row["nominal_at"] for row in repeats(database, task)] == [now - 2 * MINUTE]
    assert pause_row(database, task)["on_resume"] == "last"


async def test_a_waiting_slot_that_the_pause_ended_counts(database: FreshDatabase, tenant: Tenant) -> None:
    """A slot that fell due before the pause and was skipped in it is one that the pause left out."""
    task, now = make_task(tenant), database_now(database)
    older = make_slot(
        tenant, task, now - 2 * HOUR, status="SKIPPED", reason="paused", finished_at=now - MINUTE, event_seq=1
    )
    await pause(tenant, task, now - HOUR, on_resume=OnResume.LAST)
    await resume(tenant, task)
    assert [row["repeats"] for row in repeats(database, task)] == [older]


async def test_what_waits_when_the_pause_is_ended_counts(database: FreshDatabase, tenant: Tenant) -> None:
    """Who resumes a task ends what the pause kept from running and nobody looked at, and makes up for it.

    Slots from before the pause too: it holds for seconds more, and whoever looks would skip them uncounted.
    """
    task, now = make_task(tenant), database_now(database)
    older = make_slot(tenant, task, now - 2 * MINUTE)
    await pause(tenant, task, now - MINUTE, on_resume=OnResume.ALL)
    within_it = make_slot(tenant, task, now - MINUTE / 2)
    by_hand = make_slot(tenant, task, now - MINUTE / 3, trigger="manual")
    resumed = await resume(tenant, task)
    assert resumed is not None
    assert resumed.runs == 2
    assert [state(database, one) for one in (older, within_it)] == [("SKIPPED", "paused")] * 2
    assert [row["repeats"] for row in repeats(database, task)] == [older, within_it]
    assert state(database, by_hand) == ("PENDING", None)


async def test_a_repeat_that_another_pause_kept_waiting_counts(database: FreshDatabase, tenant: Tenant) -> None:
    """A repeat that has not begun when its task is paused again is made up for like a slot, under its slot's name."""
    task, now = make_task(tenant), database_now(database)
    slot = make_slot(tenant, task, now - HOUR, status="SKIPPED", reason="paused", finished_at=now - HOUR)
    make_slot(tenant, task, now - 2 * MINUTE, trigger="catchup", repeats=slot)
    await pause(tenant, task, now - MINUTE, on_resume=OnResume.LAST)
    await resume(tenant, task)
    assert [(row["repeats"], row["status"]) for row in repeats(database, task)] == [
        (slot, "SKIPPED"),
        (slot, "PENDING"),
    ]


async def test_a_slot_of_two_pauses_runs_once(database: FreshDatabase, tenant: Tenant) -> None:
    """Whoever pauses again before a pause has ended makes up once for the slots that both left out."""
    task, now = make_task(tenant), database_now(database)
    slot = make_slot(tenant, task, now - MINUTE, status="SKIPPED", reason="paused", finished_at=now - MINUTE)
    for _ in range(2):
        await pause(tenant, task, now - HOUR, on_resume=OnResume.ALL)
        assert await resume(tenant, task) is not None
    (made,) = repeats(database, task)
    assert (made["repeats"], made["status"]) == (slot, "PENDING")


async def test_a_pause_that_is_over_when_it_is_ended_leaves_what_is_not_its(
    database: FreshDatabase, tenant: Tenant
) -> None:
    """Of what waits, a pause whose time came before somebody ended it has kept only its own slots."""
    task, now = make_task(tenant), database_now(database)
    before = make_slot(tenant, task, now - 2 * HOUR)
    await pause(tenant, task, now - HOUR, until=now - MINUTE, on_resume=OnResume.LAST)
    held = make_slot(tenant, task, now - 30 * MINUTE)
    behind = make_slot(tenant, task, now - MINUTE / 2)
    await resume(tenant, task)
    assert [state(database, one)[0] for one in (before, held, behind)] == ["PENDING", "SKIPPED", "PENDING"]
    assert [row["repeats"] for row in repeats(database, task)] == [held]


async def test_what_somebody_is_skipping_at_the_moment_counts(database: FreshDatabase, tenant: Tenant) -> None:
    """A slot that another transaction is about to skip is waited for, not overlooked."""
    task, now = make_task(tenant), database_now(database)
    await pause(tenant, task, now - HOUR, on_resume=OnResume.LAST)
    slot = make_slot(tenant, task, now - MINUTE)
    async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
        skip = "UPDATE executions SET status = 'SKIPPED', reason = 'paused', finished_at = %(now)s WHERE id = %(id)s"
        await fetch(conn, skip, {"id": slot, "now": now})
        resuming = asyncio.create_task(resume(tenant, task))
        await until_blocked(database)
    resumed = await resuming
    assert resumed is not None
    assert resumed.runs == 1


async def test_make_up_waits_until_the_plan_reaches_the_end(database: FreshDatabase, tenant: Tenant) -> None:
    """While slots of the pause may be missing nothing is made up; the scheduler does it once they are planned."""
    task, now = make_task(tenant), database_now(database)
    begin(tenant, task, {"every": "1m"}, now - HOUR)
    await pause(tenant, task, now - HOUR, until=now - 10 * MINUTE, on_resume=OnResume.LAST)
    assert await follow(tenant, now) == 0
    assert await in_force(tenant, task, now) == Pause(pause_row(database, task)["since"], now - 10 * MINUTE)
    await plan_all(tenant, now)
    assert await follow(tenant, now) == 1
    (made,) = repeats(database, task)
    assert now - 11 * MINUTE <= made["nominal_at"] < now - 10 * MINUTE
    assert state(database, made["repeats"]) == ("SKIPPED", "paused")


async def test_what_fell_due_while_nobody_looked_is_skipped(database: FreshDatabase, tenant: Tenant) -> None:
    """A slot of the pause that still waits when it is followed ends as paused, with an event."""
    task, now = make_task(tenant), database_now(database)
    await pause(tenant, task, now - HOUR, until=now - MINUTE)
    slot = make_slot(tenant, task, now - 30 * MINUTE)
    late = make_slot(tenant, task, now - MINUTE)
    await follow(tenant, now)
    assert state(database, slot) == ("SKIPPED", "paused")
    assert events(database, slot) == ["skipped"]
    assert state(database, late) == ("PENDING", None)


async def test_a_planner_that_knew_nothing_of_a_pause_is_mended(database: FreshDatabase, tenant: Tenant) -> None:
    """Slots that a planner adds while the pause is being committed are skipped as soon as the pause is followed."""
    task, now = make_task(tenant), database_now(database)
    begin(tenant, task, {"every": "1m"}, now)
    async with database.scheduler.transaction([tenant.tenant_id]) as planner:
        await plans.plan_batch(planner, tenant.tenant_id, 100, now)
        await pause(tenant, task)
        assert await follow(tenant, now) == 0  # the plan is somebody else's at the moment
    assert {row["status"] for row in slots(database, task)} == {"PENDING"}
    at = database_now(database)
    assert await follow(tenant, at) == 1
    assert {row["status"] for row in slots(database, task) if row["fire_at"] > at} == {"SKIPPED"}


async def test_a_planner_that_knew_nothing_of_a_resume_is_mended(database: FreshDatabase, tenant: Tenant) -> None:
    """Slots that are planned as paused while the task is resumed wait again as soon as that is followed."""
    task, now = make_task(tenant), database_now(database)
    begin(tenant, task, {"every": "1m"}, now)
    await pause(tenant, task, now)
    async with database.scheduler.transaction([tenant.tenant_id]) as planner:
        await plans.plan_batch(planner, tenant.tenant_id, 100, now)
        resumed = await resume(tenant, task)
    assert resumed is not None
    assert {row["status"] for row in slots(database, task)} == {"SKIPPED"}
    assert await follow(tenant, resumed.at) == 1
    found = {row["fire_at"] < resumed.at: row["status"] for row in slots(database, task)}
    assert found.get(False) == "PENDING"
    assert found.get(True, "SKIPPED") == "SKIPPED"


async def test_a_claim_holds_what_a_pause_would_skip(database: FreshDatabase, tenant: Tenant) -> None:
    """A pause waits for a row that somebody holds, and leaves it alone when it runs by then."""
    task, now = make_task(tenant), database_now(database)
    slot = make_slot(tenant, task, now + 30 * MINUTE)
    async with database.scheduler.transaction([tenant.tenant_id]) as holder:
        query = "UPDATE executions SET status = 'RUNNING', fence = 1, lease_until = %(t)s, check_at = %(t)s"
        await fetch(holder, query + " WHERE id = %(id)s", {"t": now + HOUR, "id": slot})
        waiting = asyncio.ensure_future(pause(tenant, task))
        await until_blocked(database)
    await waiting
    assert state(database, slot) == ("RUNNING", None)


async def test_two_who_pause_at_once_make_one_pause(database: FreshDatabase, tenant: Tenant) -> None:
    """One begins the pause, the other replaces it."""
    task = make_task(tenant)
    done = await asyncio.gather(*(pause(tenant, task, reason=word) for word in ("a", "b")))
    assert sorted(done) == ["pause", "replace"]
    assert database.value("SELECT count(*) FROM pauses") == 1


async def test_ranges_of_a_paused_second_come_back(database: FreshDatabase, tenant: Tenant) -> None:
    """Of a task that every second would run, ranges are cut at the end of the pause and their slots wait again."""
    task, now = make_task(tenant), database_now(database)
    start = now - HOUR
    begin(tenant, task, {"every": "1s"}, start)
    database.do(
        "INSERT INTO plan_history (tenant_id, task_uid, generation, active, schedule, effective_from, created_at)"
        " SELECT tenant_id, task_uid, generation, active, schedule, effective_from, effective_from FROM task_plan"
        " ON CONFLICT DO NOTHING"
    )
    await pause(tenant, task, start, on_resume=OnResume.ALL)
    await plan_all(tenant, now)
    assert database.value("SELECT sum(slots) FROM slot_ranges") > 2000
    resumed = await resume(tenant, task)
    assert resumed is not None
    assert resumed.runs == 10
    assert database.value("SELECT max(last_at) FROM slot_ranges") < resumed.at
    ahead_ = [row for row in slots(database, task) if row["status"] == "PENDING" and row["repeats"] is None]
    assert len(ahead_) > 500
    assert min(row["fire_at"] for row in ahead_) >= resumed.at
    until = database.value("SELECT planned_until FROM task_plan WHERE task_uid = %s", task)
    first = resumed.at.replace(microsecond=0) + (timedelta(seconds=1) if resumed.at.microsecond else timedelta())
    assert len(ahead_) == (until - first).total_seconds() + 1
    made = repeats(database, task)
    assert [row["nominal_at"] for row in made] == sorted(row["nominal_at"] for row in made)
    assert resumed.at - timedelta(seconds=1) <= made[-1]["nominal_at"] < resumed.at
    assert await follow(tenant, resumed.at) == 1
    assert len(repeats(database, task)) == 10
