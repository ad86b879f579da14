"""Races of planners and edits. Each check also runs on a deliberately broken twin, and must catch it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from cron_observer.schedule import SlotMark
from cron_observer.store import plan_rows, plans
from cron_observer.store.engine import fetch
from cron_observer.store.plan_rows import Plan, evaluate, write_plans
from support.databases import FreshDatabase, Tenant
from support.plans import begin, edit, entry, make_unplanned, plan, plan_of, slots, until, until_blocked
from support.rows import database_now

MINUTELY = {"cron": "* * * * *"}
#: Of this nothing is planned, whatever day it is.
FAR = {"cron": "0 3 1 1 *", "startAt": "2200-01-01T00:00:00"}
GENERATION_GUARD = "AND p.generation = v.generation AND p.planned_until = v.planned_until"


async def read_due(tenant: Tenant, now: datetime) -> list[Plan]:
    """Read what is due as a planner does, in a transaction that then ends."""
    async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
        rows = await fetch(conn, plans._DUE, {"tenant": tenant.tenant_id, "now": now, "limit": 100})
        return [Plan(*row) for row in rows]


async def write(tenant: Tenant, read: list[Plan], now: datetime) -> int:
    """Write slots for plans that were read some time ago, as a planner does that has slept; return how many."""
    async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
        return (await write_plans(conn, tenant.tenant_id, read, now)).slots


def without_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the planner: it inserts whatever it has computed."""
    assert GENERATION_GUARD in " ".join(plan_rows._ADD_SLOTS.split())
    broken = " ".join(plan_rows._ADD_SLOTS.split()).replace(GENERATION_GUARD, "")
    monkeypatch.setattr(plan_rows, "_ADD_SLOTS", broken)


def duplicated(database: FreshDatabase) -> int:
    """Return how many slots exist more than once."""
    count: int = database.value(
        "SELECT count(*) FROM (SELECT FROM executions GROUP BY task_uid, nominal_at HAVING count(*) > 1) AS twice"
    )
    return count


def missing(database: FreshDatabase, uid: UUID, since: datetime) -> int:
    """Return how many minutes since then, up to where the plan says that it reaches, have no slot."""
    count: int = database.value(
        "SELECT count(*) FROM task_plan p, generate_series(date_trunc('minute', %s) + interval '1 minute', "
        "p.planned_until, interval '1 minute') AS minute WHERE p.task_uid = %s AND NOT EXISTS "
        "(SELECT FROM executions e WHERE e.task_uid = p.task_uid AND e.nominal_at = minute)",
        since,
        uid,
    )
    return count


@pytest.mark.parametrize("broken", [False, True], ids=["ours", "twin without guard"])
async def test_a_planner_with_an_old_generation_inserts_nothing(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """A planner that slept through an edit adds no slot of the schedule it had read."""
    uid, now = make_unplanned(tenant), database_now(database)
    begin(tenant, uid, MINUTELY, now)
    read = await read_due(tenant, now)
    await edit(tenant, entry(tenant, uid, FAR))
    row = plan_of(database, uid)
    if broken:
        without_guard(monkeypatch)
    written = await write(tenant, read, now)
    assert (written > 0) == broken
    assert plan_of(database, uid) == row


@pytest.mark.parametrize("broken", [False, True], ids=["ours", "twin without guard"])
async def test_a_planner_that_sleeps_past_retention_inserts_nothing(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """Slots that somebody else has planned, and that are gone since, do not come back."""
    uid, now = make_unplanned(tenant), database_now(database)
    begin(tenant, uid, MINUTELY, now)
    read = await read_due(tenant, now)
    await plan(tenant, now)
    assert database.do("DELETE FROM executions") > 60
    if broken:
        without_guard(monkeypatch)
    written = await write(tenant, read, now)
    assert (written > 0) == broken


@pytest.mark.parametrize("broken", [False, True], ids=["ours", "twin with random ids"])
async def test_two_planners_at_once_plan_each_slot_once(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """Two planners that work on the same tasks at the same time leave each slot once, and the second does not wait."""
    now = database_now(database)
    for number in range(3):
        begin(tenant, make_unplanned(tenant, f"task-{number}"), MINUTELY, now)
    if broken:
        without_guard(monkeypatch)
        monkeypatch.setattr(SlotMark, "id_of", lambda mark, _task: mark.digits + uuid4().hex[:20])
        monkeypatch.setattr(plans, "_DUE", plans._DUE.replace("FOR UPDATE SKIP LOCKED", ""))
    tenants = [tenant.tenant_id]
    async with database.scheduler.transaction(tenants) as first:
        done = await plans.plan_batch(first, tenant.tenant_id, 100, now)
        assert done.tasks == 3
        second = asyncio.create_task(plan(tenant, now))
        if not broken:
            assert (await second).tasks == 0
        else:
            await until_blocked(database)
    await second
    assert (duplicated(database) > 0) == broken


class CrashError(Exception):
    """The process is gone."""


def crash(*_: Any, **__: Any) -> Awaitable[Any]:
    raise CrashError


@pytest.mark.parametrize("step", ["forget", "add_slots", "advance", "quarantine"])
async def test_a_planner_may_die_anywhere(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whatever statement a planner dies before, the next planner leaves no hole."""
    uid, now = make_unplanned(tenant), database_now(database)
    begin(tenant, uid, MINUTELY, now)
    with monkeypatch.context() as dying:
        dying.setattr(plan_rows, step, crash)
        with pytest.raises(CrashError):
            await plan(tenant, now)
    await plan(tenant, now)
    assert len(slots(database, uid)) >= 60
    assert missing(database, uid, now) == 0


async def test_the_check_catches_a_planner_that_advances_first(database: FreshDatabase, tenant: Tenant) -> None:
    """The twin that notes its progress in one commit and inserts in the next loses what lies between."""
    uid, now = make_unplanned(tenant), database_now(database)
    begin(tenant, uid, MINUTELY, now)
    batch = evaluate(await read_due(tenant, now), now)
    async with database.scheduler.transaction([tenant.tenant_id]) as conn:
        await plan_rows.advance(conn, tenant.tenant_id, batch.planned)
    await plan(tenant, now)
    assert missing(database, uid, now) >= 60


def seen_due(database: FreshDatabase, uid: UUID) -> set[UUID]:
    """Return the slots that any worker would be offered now, by the rule of the claims."""
    return {
        row["id"]
        for row in database.rows(
            "SELECT e.id FROM executions e JOIN task_plan p USING (tenant_id, task_uid) WHERE e.task_uid = %s "
            "AND e.available_at <= clock_timestamp() "
            "AND (p.generation = e.plan_generation OR e.nominal_at <= p.effective_from)",
            uid,
        )
    }


async def slow_edit(tenant: Tenant, change: plans.PlanInput, seconds: float) -> tuple[set[UUID], int]:
    """Edit in a transaction that takes so long to commit; return the slots that others saw fall due, and the tries."""
    seen: set[UUID] = set()
    tries = 0

    async def work(conn: plans.Connection) -> None:
        nonlocal tries
        tries += 1
        started = database_now(tenant.database)
        await plans.register(conn, tenant.tenant_id, [change], started)
        while database_now(tenant.database) < started + timedelta(seconds=seconds):
            seen.update(seen_due(tenant.database, change.task_uid))
            await asyncio.sleep(0.02)

    await plans.in_transaction_with_margin(tenant.database.api, [tenant.tenant_id], work)
    return seen, tries


async def _no_check(*_: Any) -> None:
    """Stand in for the check of the margin in the broken twin."""


@pytest.mark.parametrize("broken", [False, True], ids=["ours", "twin without the check"])
async def test_an_edit_that_lands_while_a_slot_falls_due_loses_no_slot(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    """What a worker could have seen due before an edit was committed is still there after it."""
    monkeypatch.setattr(plans, "MARGIN", timedelta(seconds=0.2))
    monkeypatch.setattr(plans, "COMMIT", timedelta(seconds=0.1))
    uid = make_unplanned(tenant)
    begin(tenant, uid, {"every": "1s"}, database_now(database))
    await plan(tenant, database_now(database))
    if broken:
        monkeypatch.setattr(plans, "check_margin", _no_check)
    seen, tries = await slow_edit(tenant, entry(tenant, uid, FAR), 1.3)
    lost = seen - {slot["id"] for slot in slots(database, uid)}
    assert seen
    assert bool(lost) == broken
    assert tries == 1 if broken else tries >= 4  # of 0.2 s, 0.4 s and 0.8 s none is enough


async def test_a_commit_that_comes_too_late_is_tried_with_twice_the_margin(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit that cannot be committed within its margin is rolled back and done again, with a wider one."""
    monkeypatch.setattr(plans, "MARGIN", timedelta(seconds=0.3))
    monkeypatch.setattr(plans, "COMMIT", timedelta(0))
    uid, margins = make_unplanned(tenant), []

    async def work(conn: plans.Connection) -> datetime:
        started = database_now(database)
        at = await plans.register(conn, tenant.tenant_id, [entry(tenant, uid, FAR)], started)
        assert at is not None
        margins.append((at - started).total_seconds())
        await until(lambda: len(margins) == 4 or database_now(database) >= at)
        return at

    at = await plans.in_transaction_with_margin(database.api, [tenant.tenant_id], work)
    assert [0.3 * 2**tries <= margin < 0.6 * 2**tries for tries, margin in enumerate(margins)] == [True] * 4
    assert plan_of(database, uid)["effective_from"] == at
    assert plan_of(database, uid)["generation"] == 1
    assert database_now(database) < at


async def test_an_edit_of_many_tasks_has_a_margin_that_grows_with_them(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three times the tasks that the margin is meant for, the edit takes effect three margins later."""
    monkeypatch.setattr(plans, "MARGIN_TASKS", 2)
    entries = [entry(tenant, make_unplanned(tenant, f"t{number}"), FAR) for number in range(6)]

    async def work(conn: plans.Connection) -> tuple[datetime, datetime]:
        started = database_now(database)
        at = await plans.register(conn, tenant.tenant_id, entries, started)
        assert at is not None
        return started, at

    started, at = await plans.in_transaction_with_margin(database.api, [tenant.tenant_id], work)
    assert 3 * plans.MARGIN <= at - started < 4 * plans.MARGIN
    assert {plan_of(database, one.task_uid)["effective_from"] for one in entries} == {at}


async def test_edits_of_the_same_task_follow_each_other(database: FreshDatabase, tenant: Tenant) -> None:
    """Ten edits at once end in ten generations, one after the other, and one set of slots."""
    uid = make_unplanned(tenant)
    await edit(tenant, entry(tenant, uid, MINUTELY))
    changes = [entry(tenant, uid, MINUTELY, start_deadline_seconds=number + 1.0) for number in range(10)]
    await asyncio.gather(*(edit(tenant, change) for change in changes))
    row = plan_of(database, uid)
    assert row["generation"] == 11
    assert duplicated(database) == 0
    later = [slot for slot in slots(database, uid) if slot["fire_at"] > row["effective_from"]]
    assert len(later) >= 60
    assert {slot["plan_generation"] for slot in later} == {11}


async def test_an_edit_waits_for_the_planner_and_wins(database: FreshDatabase, tenant: Tenant) -> None:
    """An edit that meets a planner at work takes effect after the planner's commit, on what that has left."""
    uid, now = make_unplanned(tenant), database_now(database)
    begin(tenant, uid, MINUTELY, now)
    async with database.scheduler.transaction([tenant.tenant_id]) as conn:
        await plans.plan_batch(conn, tenant.tenant_id, 100, now)
        change = asyncio.create_task(edit(tenant, entry(tenant, uid, FAR)))
        await until_blocked(database)
        committed = database_now(database)
    start = await change
    assert start is not None
    assert start >= committed + plans.MARGIN
    assert all(slot["fire_at"] <= start for slot in slots(database, uid))
