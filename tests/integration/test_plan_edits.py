"""Edits: what a change of a task does to its slots."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cron_observer.model import ScheduleSpec
from cron_observer.schedule import compile as compile_schedule
from cron_observer.store import plans
from support.databases import FreshDatabase, Tenant
from support.plans import begin, edit, entry, fires, make_unplanned, plan_all, plan_of, slots
from support.rows import database_now

MINUTELY = {"cron": "* * * * *"}
HALF_HOURLY = {"cron": "*/30 * * * *"}
#: Of this nothing is planned, whatever day it is.
FAR = {"cron": "0 3 1 1 *", "startAt": "2200-01-01T00:00:00"}


def ids(database: FreshDatabase) -> set[tuple[Any, Any]]:
    """Return id and fire time of every waiting slot."""
    return {(row["id"], row["fire_at"]) for row in database.rows("SELECT * FROM executions WHERE status = 'PENDING'")}


def versions(database: FreshDatabase, table: str) -> set[str]:
    """Return which transaction wrote each row of `table` last."""
    return {row["v"] for row in database.rows(f"SELECT xmin::text || ctid::text AS v FROM {table}")}


async def test_a_new_task_has_its_slots_at_once(database: FreshDatabase, tenant: Tenant) -> None:
    """The transaction that creates a task plans every slot of the next hour, from its instant of effect on."""
    uid = make_unplanned(tenant)
    now = database_now(database)
    start = await edit(tenant, entry(tenant, uid, {"every": "1m"}))
    assert start is not None
    assert timedelta(seconds=4) < start - now < timedelta(seconds=60)
    expected = compile_schedule(ScheduleSpec.read({"every": "1m"})).next_fires(start, 60)
    assert fires(database, uid)[:60] == expected
    assert {slot["plan_generation"] for slot in slots(database, uid)} == {1}
    assert {slot["tzdata_version"] for slot in slots(database, uid)} == {plan_of(database, uid)["tzdata_version"]}


async def test_the_same_again_touches_nothing(database: FreshDatabase, tenant: Tenant) -> None:
    """Registering what is planned already, written in another way, rewrites no row."""
    uid = make_unplanned(tenant)
    await edit(tenant, entry(tenant, uid, {"cron": ["0 5 * * *", "* * * * *"], "every": "60s"}))
    before = versions(database, "task_plan"), versions(database, "executions")
    again = {"cron": [" *  * * * *", "0 5 * * *"], "every": "1m", "timezone": "UTC", "anchor": None}
    assert await edit(tenant, entry(tenant, uid, again)) is None
    assert (versions(database, "task_plan"), versions(database, "executions")) == before


async def test_a_new_queue_is_no_new_plan(database: FreshDatabase, tenant: Tenant) -> None:
    """Queue and priority reach every waiting slot, and the generation stays."""
    uid = make_unplanned(tenant)
    await edit(tenant, entry(tenant, uid, MINUTELY))
    before = ids(database)
    assert await edit(tenant, entry(tenant, uid, MINUTELY, queue="fast", priority=7)) is None
    assert plan_of(database, uid)["generation"] == 1
    assert {(slot["queue"], slot["priority"]) for slot in slots(database, uid)} == {("fast", 7)}
    assert ids(database) == before
    row = plan_of(database, uid)
    assert (row["queue"], row["priority"]) == ("fast", 7)


async def test_what_has_ended_keeps_its_queue(database: FreshDatabase, tenant: Tenant) -> None:
    """Only what waits moves to another queue; history is not rewritten."""
    uid = make_unplanned(tenant)
    await edit(tenant, entry(tenant, uid, MINUTELY))
    ended = slots(database, uid)[0]["id"]
    database.do(
        "UPDATE executions SET status = 'SKIPPED', finished_at = now(), event_seq = 1 WHERE id = %s",
        ended,
    )
    await edit(tenant, entry(tenant, uid, HALF_HOURLY, queue="fast"))
    assert database.value("SELECT queue FROM executions WHERE id = %s", ended) == "default"


async def test_an_edit_rewrites_forecasts(database: FreshDatabase, tenant: Tenant) -> None:
    """After an edit the slots behind its instant are those of the new schedule, and leave no history."""
    uid = make_unplanned(tenant)
    await edit(tenant, entry(tenant, uid, MINUTELY))
    start = await edit(tenant, entry(tenant, uid, HALF_HOURLY))
    assert start is not None
    later = [fire for fire in fires(database, uid) if fire > start]
    assert later == compile_schedule(ScheduleSpec.read(HALF_HOURLY)).next_fires(start, len(later))
    assert len(later) >= 2
    assert database.value("SELECT count(*) FROM execution_events") == 0


async def test_reverting_an_edit_brings_the_slots_back(database: FreshDatabase, tenant: Tenant) -> None:
    """Edit and revert leave the same slots with the same ids behind the instant of the revert."""
    uid = make_unplanned(tenant)
    await edit(tenant, entry(tenant, uid, MINUTELY))
    before = ids(database)
    await edit(tenant, entry(tenant, uid, {"cron": "7 7 * * *"}))
    start = await edit(tenant, entry(tenant, uid, MINUTELY))
    assert start is not None
    expected = {(identity, fire) for identity, fire in before if fire > start}
    assert len(expected) > 60
    assert {(identity, fire) for identity, fire in ids(database) if fire > start} >= expected
    assert {slot["plan_generation"] for slot in slots(database, uid) if slot["fire_at"] > start} == {3}


@pytest.mark.parametrize("gone", ["suspended", "removed"])
async def test_removing_and_restoring_brings_the_slots_back(database: FreshDatabase, tenant: Tenant, gone: str) -> None:
    """A task that is inactive has no forecasts; once restored it has the same slots with the same ids."""
    uid = make_unplanned(tenant)
    await edit(tenant, entry(tenant, uid, MINUTELY))
    before = ids(database)
    away = await edit(tenant, entry(tenant, uid, MINUTELY, active=False))
    assert away is not None
    assert all(fire <= away for fire in fires(database, uid))
    row = plan_of(database, uid)
    assert (row["plan_due_at"], row["next_fire_at"], row["active"]) == (None, None, False)
    back = await edit(tenant, entry(tenant, uid, MINUTELY))
    assert back is not None
    assert {one for one in ids(database) if one[1] > back} >= {one for one in before if one[1] > back}


async def test_a_start_deadline_is_a_scheduling_input(database: FreshDatabase, tenant: Tenant) -> None:
    """A changed start deadline reaches every forecast, counted from its fire time."""
    uid = make_unplanned(tenant)
    await edit(tenant, entry(tenant, uid, MINUTELY))
    assert {slot["start_deadline"] for slot in slots(database, uid)} == {None}
    start = await edit(tenant, entry(tenant, uid, MINUTELY, start_deadline_seconds=90.0))
    assert start is not None
    later = [slot for slot in slots(database, uid) if slot["fire_at"] > start]
    assert {slot["start_deadline"] - slot["fire_at"] for slot in later} == {timedelta(seconds=90)}


async def test_many_edits_are_left_to_the_scheduler(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the inline limit an edit only raises the generation; the scheduler's batch does the rest."""
    monkeypatch.setattr(plans, "INLINE_MAX", 1)
    uids = [make_unplanned(tenant, f"task-{number}") for number in range(2)]
    start = await edit(tenant, *(entry(tenant, uid, MINUTELY) for uid in uids))
    assert start is not None
    assert ids(database) == set()
    await plan_all(tenant, database_now(database))
    assert len(fires(database, uids[0])) >= 60
    assert len(fires(database, uids[1])) >= 60


async def test_an_edit_of_an_edit_that_was_never_planned_loses_nothing(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three edits in a row, none of them planned in between: each stretch has the slots of the schedule of its time."""
    monkeypatch.setattr(plans, "INLINE_MAX", 0)
    uid = make_unplanned(tenant)
    second = {"every": "1s"}
    first = await edit(tenant, entry(tenant, uid, second))
    middle = await edit(tenant, entry(tenant, uid, {"every": "1s", "anchor": "2026-01-01T00:00:00"}))
    last = await edit(tenant, entry(tenant, uid, {"cron": "0 3 * * *"}))
    assert first is not None
    assert middle is not None
    assert last is not None
    await plan_all(tenant, database_now(database))
    schedule = compile_schedule(ScheduleSpec.read(second))
    expected = [slot.fire_at for slot in schedule.slots(first, last)]
    assert [slot["fire_at"] for slot in slots(database, uid) if slot["fire_at"] <= last] == expected


async def test_an_edit_after_an_absence_keeps_what_fell_due(database: FreshDatabase, tenant: Tenant) -> None:
    """A task edited while no scheduler has planned it for hours gets the slots of the old schedule up to the edit.

    Only the newest may still run; the others are written down as too late at once.
    """
    uid = make_unplanned(tenant)
    now = database_now(database)
    begin(tenant, uid, MINUTELY, now - timedelta(hours=3))
    start = await edit(tenant, entry(tenant, uid, FAR))
    edited = database_now(database)
    assert start is not None
    schedule = compile_schedule(ScheduleSpec.read(MINUTELY))
    expected = [slot.fire_at for slot in schedule.slots(now - timedelta(hours=3), start)]
    assert [slot["fire_at"] for slot in slots(database, uid)] == expected
    # The edit read its clock between these two, and one of the minutes may have begun there.
    assert fires(database, uid)[1:] in [[fire for fire in expected if fire > at] for at in (now, edited)]
    assert {slot["reason"] for slot in slots(database, uid)} == {None, "too_late"}


async def test_an_edit_is_never_retroactive(database: FreshDatabase, tenant: Tenant) -> None:
    """A schedule that would have fired in the past has no slot before its instant of effect."""
    uid = make_unplanned(tenant)
    await edit(tenant, entry(tenant, uid, FAR))
    start = await edit(tenant, entry(tenant, uid, {"every": "1s"}))
    assert start is not None
    assert min(fires(database, uid)) > start


async def test_a_manifests_plan_is_closed_to_the_api(database: FreshDatabase, tenant: Tenant) -> None:
    """The API's role cannot edit the plan of a manifest's task: the whole transaction fails."""
    uid = make_unplanned(tenant)

    async def by_reconciler(conn: plans.Connection) -> None:
        manifest = replace(entry(tenant, uid, MINUTELY), owner="manifest")
        await plans.register(conn, tenant.tenant_id, [manifest], database_now(database))

    await plans.in_transaction_with_margin(database.reconciler, [tenant.tenant_id], by_reconciler)
    before = versions(database, "task_plan"), versions(database, "executions")
    with pytest.raises(Exception, match="row-level security"):
        await edit(tenant, entry(tenant, uid, HALF_HOURLY))
    assert (versions(database, "task_plan"), versions(database, "executions")) == before


async def test_the_reconciler_may_edit_what_manifests_own(database: FreshDatabase, tenant: Tenant) -> None:
    """The reconciler's role has the rights for every kind of edit: new, changed, requeued, removed, restored."""
    uid = make_unplanned(tenant)

    async def apply(schedule: dict[str, Any], **changes: Any) -> int:
        async def work(conn: plans.Connection) -> None:
            wanted = replace(entry(tenant, uid, schedule, **changes), owner="manifest")
            await plans.register(conn, tenant.tenant_id, [wanted], database_now(database))

        await plans.in_transaction_with_margin(database.reconciler, [tenant.tenant_id], work)
        return len(fires(database, uid))

    assert await apply(MINUTELY) >= 60
    assert await apply(MINUTELY, queue="fast", priority=3) >= 60
    assert {(slot["queue"], slot["priority"]) for slot in slots(database, uid)} == {("fast", 3)}
    assert 2 <= await apply(HALF_HOURLY, queue="fast") <= 5
    assert await apply(HALF_HOURLY, active=False) <= 1
    assert await apply(MINUTELY) >= 60
    assert plan_of(database, uid)["generation"] == 4
