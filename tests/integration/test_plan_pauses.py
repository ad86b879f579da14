"""What planning makes of a pause that is in force."""

from __future__ import annotations

from datetime import timedelta

from support.databases import FreshDatabase, Tenant
from support.plans import begin, make_unplanned, pause, plan_all, slots
from support.rows import database_now

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


async def test_slots_of_a_pause_are_planned_as_skipped(database: FreshDatabase, tenant: Tenant) -> None:
    """While a pause is in force, whatever fires in it is written as SKIPPED(paused), with its fire time as its end."""
    uid, now = make_unplanned(tenant), database_now(database)
    pause(tenant, uid, now - HOUR)
    begin(tenant, uid, {"every": "1m"}, now)
    await plan_all(tenant, now)
    rows = slots(database, uid)
    assert len(rows) >= 75
    assert {(row["status"], row["reason"]) for row in rows} == {("SKIPPED", "paused")}
    assert all(row["finished_at"] == row["fire_at"] for row in rows)
    assert database.value("SELECT count(*) FROM execution_events") == 0


async def test_slots_behind_the_end_of_a_pause_wait(database: FreshDatabase, tenant: Tenant) -> None:
    """A pause with an end skips what fires before it, and nothing else; other tasks are not touched."""
    uid, other, now = make_unplanned(tenant), make_unplanned(tenant, "other"), database_now(database)
    pause(tenant, uid, now - HOUR, now + 30 * MINUTE)
    for task in (uid, other):
        begin(tenant, task, {"every": "1m"}, now)
    await plan_all(tenant, now)
    for row in slots(database, uid):
        assert (row["reason"] == "paused") == (row["fire_at"] < now + 30 * MINUTE)
    assert {row["status"] for row in slots(database, other)} == {"PENDING"}
