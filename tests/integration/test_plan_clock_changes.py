"""Planning around the nights on which a zone's clock changes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cron_observer.store import plans
from support.databases import FreshDatabase, Tenant
from support.plans import begin, make_unplanned, plan, plan_all, slots, supersede

#: In Berlin, 02:00 to 03:00 does not exist: the clock jumps at this instant.
JUMP = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
BACK = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
#: Two labels inside the gap fire at its end, as one; the third is an ordinary one behind it.
INSIDE = {"cron": ["30 2 * * *", "50 2 * * *", "40 3 * * *"], "timezone": "Europe/Berlin"}


@pytest.fixture
def night(database: FreshDatabase) -> None:
    """Partitions for those nights."""
    for instant in (JUMP, BACK):
        database.partitions(instant - timedelta(days=9), instant + timedelta(days=9))


def outcome(rows: list[dict[str, Any]]) -> list[tuple[str, datetime, str, str | None]]:
    """Return label, fire time, status and reason of slots."""
    return [(row["nominal_local"].strftime("%d %H:%M"), row["fire_at"], row["status"], row["reason"]) for row in rows]


def normal(schedule: Mapping[str, Any]) -> dict[str, Any]:
    return plans.normalised(schedule, "default/export")


@pytest.mark.usefixtures("night")
async def test_what_a_gap_swallows_fires_once_and_the_rest_is_coalesced(
    database: FreshDatabase, tenant: Tenant
) -> None:
    """Of several labels in a gap the newest fires at its end; the others are SKIPPED(coalesced), without an event."""
    uid = make_unplanned(tenant)
    begin(tenant, uid, INSIDE, JUMP - 2 * HOUR)
    await plan_all(tenant, JUMP - HOUR)
    rows = slots(database, uid)
    assert outcome(rows)[:4] == [
        ("29 02:30", JUMP, "SKIPPED", "coalesced"),
        ("29 03:40", JUMP + 40 * MINUTE, "PENDING", None),
        ("29 02:50", JUMP, "PENDING", None),
        ("30 02:30", JUMP + timedelta(hours=23, minutes=30), "PENDING", None),
    ]
    assert rows[0]["finished_at"] == JUMP
    assert database.value("SELECT count(*) FROM execution_events") == 0


@pytest.mark.usefixtures("night")
async def test_the_hour_that_comes_twice_fires_once_or_twice(database: FreshDatabase, tenant: Tenant) -> None:
    """On the night that the clock goes back, a fixed time fires once and an interval-like one every real hour."""
    fixed, hourly = make_unplanned(tenant, "fixed"), make_unplanned(tenant, "hourly")
    begin(tenant, fixed, {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}, BACK - 2 * HOUR)
    begin(tenant, hourly, {"cron": "30 * * * *", "timezone": "Europe/Berlin"}, BACK - 2 * HOUR)
    for minutes in range(-120, 121, 10):
        await plan_all(tenant, BACK + minutes * MINUTE)
    assert [row["fire_at"] for row in slots(database, fixed)][:1] == [BACK - 30 * MINUTE]
    assert [(row["nominal_local"].strftime("%H:%M"), row["nominal_fold"]) for row in slots(database, hourly)][:4] == [
        ("01:30", 0),
        ("02:30", 0),
        ("02:30", 1),
        ("03:30", 0),
    ]


@pytest.mark.usefixtures("night")
async def test_an_edit_in_the_hour_after_a_jump_keeps_what_has_fired(database: FreshDatabase, tenant: Tenant) -> None:
    """A slot that fired at the jump is history, though its nominal instant lies ahead: an edit keeps it, current."""
    uid = make_unplanned(tenant)
    begin(tenant, uid, INSIDE, JUMP - 2 * HOUR)
    await plan_all(tenant, JUMP - HOUR)
    at = JUMP + 10 * MINUTE
    await supersede(tenant, uid, at, at, schedule=normal({"cron": "0 12 * * *", "timezone": "Europe/Berlin"}))
    rows = slots(database, uid)
    assert outcome(rows)[:3] == [
        ("29 02:30", JUMP, "SKIPPED", "coalesced"),
        ("29 02:50", JUMP, "PENDING", None),
        ("29 12:00", JUMP + 9 * HOUR, "PENDING", None),
    ]
    assert [row["plan_generation"] for row in rows[1:3]] == [2, 2]


@pytest.mark.usefixtures("night")
async def test_an_edit_in_the_hour_after_a_jump_is_not_retroactive(database: FreshDatabase, tenant: Tenant) -> None:
    """A label in the gap that an edit adds after the jump does not fire any more that night."""
    uid = make_unplanned(tenant)
    begin(tenant, uid, {"cron": "0 12 * * *", "timezone": "Europe/Berlin"}, JUMP - 2 * HOUR)
    await plan_all(tenant, JUMP - HOUR)
    at = JUMP + 10 * MINUTE
    await supersede(tenant, uid, at, at, schedule=normal(INSIDE))
    assert outcome(slots(database, uid))[:2] == [
        ("29 03:40", JUMP + 40 * MINUTE, "PENDING", None),
        ("30 02:30", JUMP + timedelta(hours=23, minutes=30), "PENDING", None),
    ]


async def test_newer_zone_data_is_an_edit(database: FreshDatabase, tenant: Tenant) -> None:
    """Tasks of a zone that were planned with older zone data are planned anew, once; those of UTC stay."""
    berlin, utc = make_unplanned(tenant, "berlin"), make_unplanned(tenant, "utc")
    now = database.value("SELECT now()")
    begin(tenant, berlin, {"cron": "* * * * *", "timezone": "Europe/Berlin"}, now)
    begin(tenant, utc, {"cron": "* * * * *"}, now)
    await plan_all(tenant, now)
    database.do("UPDATE task_plan SET tzdata_version = '2001a'")
    database.do("UPDATE executions SET tzdata_version = '2001a'")

    async def follow(conn: plans.Connection) -> int:
        return (await plans.follow_zone_data(conn, tenant.tenant_id, 100, now)).tasks

    assert await plans.in_transaction_with_margin(database.scheduler, [tenant.tenant_id], follow) == 1
    await plan_all(tenant, database.value("SELECT clock_timestamp()"))
    assert await plans.in_transaction_with_margin(database.scheduler, [tenant.tenant_id], follow) == 0
    (row,) = database.rows("SELECT * FROM task_plan WHERE task_uid = %s", berlin)
    later = [slot for slot in slots(database, berlin) if slot["nominal_at"] > row["effective_from"]]
    assert len(later) >= 60
    assert {(slot["plan_generation"], slot["tzdata_version"]) for slot in later} == {(2, row["tzdata_version"])}
    assert {slot["plan_generation"] for slot in slots(database, utc)} == {1}


async def test_older_zone_data_does_not_undo_newer(database: FreshDatabase, tenant: Tenant) -> None:
    """A process with older data than the one that planned leaves the plan alone."""
    uid, now = make_unplanned(tenant), database.value("SELECT now()")
    begin(tenant, uid, {"cron": "* * * * *", "timezone": "Europe/Berlin"}, now, tzdata_version="2099z")
    async with database.scheduler.transaction([tenant.tenant_id]) as conn:
        assert (await plans.follow_zone_data(conn, tenant.tenant_id, 100, now)).tasks == 0
    assert (await plan(tenant, now)).tasks == 1
