"""Many equal skips in a row: a thousand rows, then ranges, that are cut exactly."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from cron_observer.store import plans, upkeep
from support.databases import FreshDatabase, Tenant
from support.plans import begin, make_unplanned, pause, plan_all, plan_of, slots, supersede
from support.rows import database_now

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
SECONDLY = {"every": "1s"}


def ranges(database: FreshDatabase, uid: UUID) -> list[dict[str, Any]]:
    return database.rows("SELECT * FROM slot_ranges WHERE task_uid = %s ORDER BY first_at", uid)


def check(found: list[dict[str, Any]]) -> None:
    """Check what a range says of itself: every second of it, by the quarter hours of one UTC day."""
    for one in found:
        first, last, midnight = one["first_at"], one["last_at"], midnight_of(one["first_at"])
        assert last < midnight + timedelta(days=1)
        seconds = [int((first - midnight).total_seconds()) + step for step in range(one["slots"])]
        assert midnight + seconds[-1] * SECOND == last
        assert one["quarters"] == [sum(1 for second in seconds if second // 900 == number) for number in range(96)]


def midnight_of(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


async def started(database: FreshDatabase, tenant: Tenant) -> tuple[UUID, datetime]:
    """Make a paused task that fires every second, planned in many steps around a UTC midnight."""
    uid = make_unplanned(tenant)
    begins = midnight_of(database_now(database)) + timedelta(days=1, minutes=-25)
    pause(tenant, uid, begins - MINUTE)
    begin(tenant, uid, SECONDLY, begins)
    for minutes in range(0, 41, 8):
        await plan_all(tenant, begins + minutes * MINUTE)
    return uid, begins


async def test_a_thousand_rows_then_ranges(database: FreshDatabase, tenant: Tenant) -> None:
    """The first thousand skips are rows; every later slot is in one range for each day, whatever the steps were."""
    uid, begins = await started(database, tenant)
    rows, found = slots(database, uid), ranges(database, uid)
    assert [row["nominal_at"] for row in rows] == [begins + step * SECOND for step in range(1, 1001)]
    assert {(row["status"], row["reason"]) for row in rows} == {("SKIPPED", "paused")}
    planned_until = plan_of(database, uid)["planned_until"]
    assert len(found) == 2
    assert found[0]["first_at"] == begins + 1001 * SECOND
    assert found[0]["last_at"] + SECOND == found[1]["first_at"] == midnight_of(found[1]["first_at"])
    assert found[1]["last_at"] == planned_until
    check(found)
    assert {(one["status"], one["reason"], one["plan_generation"]) for one in found} == {("SKIPPED", "paused", 1)}


@pytest.mark.parametrize("minutes", [17, 22, 24, 25, 31, 45, 49])
async def test_an_edit_cuts_ranges_exactly(database: FreshDatabase, tenant: Tenant, minutes: int) -> None:
    """After an edit, ranges hold the slots up to its instant, to the second, and none behind it."""
    uid, begins = await started(database, tenant)
    at = begins + minutes * MINUTE + 7 * SECOND
    far = plans.normalised({"cron": "0 3 1 1 *", "startAt": "2200-01-01T00:00:00"}, "default/export")
    await supersede(tenant, uid, at, begins + 40 * MINUTE, schedule=far)
    found = ranges(database, uid)
    check(found)
    assert sum(one["slots"] for one in found) == (at - begins) // SECOND - 1000
    assert found[-1]["last_at"] == at


async def test_an_edit_before_a_range_removes_it(database: FreshDatabase, tenant: Tenant) -> None:
    """A range that lies wholly behind an edit goes without a trace."""
    uid, begins = await started(database, tenant)
    await supersede(tenant, uid, begins + 10 * MINUTE, begins, active=False)
    assert ranges(database, uid) == []
    assert len(slots(database, uid)) == 600


async def test_old_ranges_are_swept(database: FreshDatabase, tenant: Tenant) -> None:
    """Ranges go when their last slot is older than what is kept, and not before they are counted for good."""
    uid, begins = await started(database, tenant)
    midnight = midnight_of(begins) + timedelta(days=1)
    async with database.scheduler.transaction([tenant.tenant_id]) as conn:
        assert await upkeep.sweep(conn, tenant.tenant_id, begins, midnight) == 0
    database.do("INSERT INTO stats_state VALUES (%s, %s)", tenant.tenant_id, midnight)
    async with database.scheduler.transaction([tenant.tenant_id]) as conn:
        assert await upkeep.sweep(conn, tenant.tenant_id, begins, midnight) == 1
    (left,) = ranges(database, uid)
    assert left["first_at"] == midnight
