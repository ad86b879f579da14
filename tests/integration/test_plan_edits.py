"""Edits: what a change of a task does to its slots."""

from __future__ import annotations

from datetime import timedelta

from cron_observer.model import ScheduleSpec
from cron_observer.schedule import compile as compile_schedule
from support.databases import FreshDatabase, Tenant
from support.plans import edit, entry, fires, make_unplanned, plan_of, slots
from support.rows import database_now


def versions(database: FreshDatabase, table: str) -> list[str]:
    """Return which transaction wrote each row of `table` last."""
    return sorted(row["v"] for row in database.rows(f"SELECT xmin::text || ctid::text AS v FROM {table}"))


async def test_a_new_task_has_its_slots_at_once(database: FreshDatabase, tenant: Tenant) -> None:
    """The transaction that creates a task plans every slot of the next hour."""
    uid = make_unplanned(tenant)
    now = database_now(database)
    start = await edit(tenant, entry(tenant, uid, {"every": "1m"}))
    assert start is not None
    assert timedelta(seconds=4) < start - now < timedelta(seconds=10)
    expected = compile_schedule(ScheduleSpec.read({"every": "1m"})).next_fires(start, 60)
    assert fires(database, uid)[:60] == expected
    assert {slot["plan_generation"] for slot in slots(database, uid)} == {1}
    assert {slot["status"] for slot in slots(database, uid)} == {"PENDING"}
    assert plan_of(database, uid)["tzdata_version"] is not None
