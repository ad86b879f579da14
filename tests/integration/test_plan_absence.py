"""Every planner was away: what no rule can run any more is written down at once, and cheaply."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from support.databases import FreshDatabase, Tenant
from support.plans import begin, fires, make_unplanned, pause, plan, plan_all, plan_of, slots
from support.rows import database_now, spec

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("changes", "waiting", "ended"),
    [
        ({"catchup": {"policy": "none", "window": None}}, 61, ("SKIPPED", "too_late")),
        ({"catchup": {"policy": "last", "window": "1h"}}, 2, ("SKIPPED", "too_late")),
        ({"catchup": {"policy": "all", "window": "1h", "maxRuns": 7}}, 14, ("SKIPPED", "too_late")),
        ({"startDeadline": "30s"}, 2, ("MISSED", "no_worker")),
    ],
    ids=["none", "last", "all", "start deadline"],
)
async def test_a_day_of_seconds_is_told_in_few_rows(
    database: FreshDatabase, tenant: Tenant, changes: Any, waiting: int, ended: Any
) -> None:
    """After a day away, every second is accounted for, in some thousand rows and a few ranges."""
    uid, now = make_unplanned(tenant), database_now(database)
    database.do("UPDATE tasks SET spec = %s WHERE task_uid = %s", Jsonb(spec(**changes)), uid)
    begin(tenant, uid, {"every": "1s"}, now - DAY)
    await plan_all(tenant, now)
    rows = slots(database, uid)
    told = database.rows("SELECT * FROM slot_ranges WHERE task_uid = %s", uid)
    total = len({int(row["nominal_at"].timestamp()) for row in rows}) + sum(one["slots"] for one in told)
    until = plan_of(database, uid)["planned_until"]
    assert total == int(until.timestamp()) - int((now - DAY).timestamp())
    assert until >= now + timedelta(minutes=12)
    assert len(rows) < 8_000
    assert 1 <= len([fire for fire in fires(database, uid) if fire <= now]) <= waiting
    assert max(fire for fire in fires(database, uid) if fire <= now) > now - SECOND
    assert ended in {(row["status"], row["reason"]) for row in rows}
    assert {(one["status"], one["reason"]) for one in told} <= {ended, ("SKIPPED", "too_late")}


async def test_others_are_not_kept_waiting(database: FreshDatabase, tenant: Tenant) -> None:
    """The first batch after an absence plans the other tasks, whatever one of them has to catch up."""
    now = database_now(database)
    dense, calm = make_unplanned(tenant, "dense"), make_unplanned(tenant, "calm")
    begin(tenant, dense, {"every": "1s"}, now - 5 * DAY, plan_due_at=now - HOUR)
    begin(tenant, calm, {"cron": "* * * * *"}, now - HOUR, plan_due_at=now - 2 * HOUR)
    done = await plan(tenant, now)
    assert done.more
    assert len([fire for fire in fires(database, calm) if fire > now]) >= 60
    assert fires(database, dense) == [] or max(fires(database, dense)) <= now


async def test_a_pause_that_is_over_is_remembered(database: FreshDatabase, tenant: Tenant) -> None:
    """Slots of an absence that lay in a pause are skipped as paused, though it has ended before they are planned."""
    uid, now = make_unplanned(tenant), database_now(database)
    pause(tenant, uid, now - 5 * HOUR, ended_at=now - 3 * HOUR, ended_by="tests")
    begin(tenant, uid, {"every": "10m"}, now - 6 * HOUR)
    await plan_all(tenant, now)
    held = [row["fire_at"] for row in slots(database, uid) if row["reason"] == "paused"]
    assert len(held) == 12
    assert min(held) >= now - 5 * HOUR
    assert max(held) < now - 3 * HOUR


async def test_a_month_is_caught_up(database: FreshDatabase, tenant: Tenant) -> None:
    """Every slot of an absence of four weeks gets its outcome."""
    uid, now = make_unplanned(tenant), database_now(database)
    database.partitions(now - 31 * DAY, now)
    begin(tenant, uid, {"every": "1h"}, now - 28 * DAY)
    await plan_all(tenant, now)
    past = [row for row in slots(database, uid) if row["fire_at"] <= now]
    assert len(past) == 28 * 24
    assert {(row["status"], row["reason"]) for row in past} == {
        ("MISSED", "no_worker"),
        ("SKIPPED", "too_late"),
        ("PENDING", None),
    }


async def test_weeks_that_are_not_kept_do_not_stop_planning(database: FreshDatabase, tenant: Tenant) -> None:
    """An absence that outlasts the retention is caught up as far as there are partitions, gaps and all."""
    uid, now = make_unplanned(tenant), database_now(database)
    begin(tenant, uid, {"cron": "0 * * * *"}, now - 25 * DAY)
    monday = (now - 14 * DAY).date() - timedelta(days=(now - 14 * DAY).weekday())
    database.do(f"SELECT ensure_partitions('{now - 21 * DAY}', '{now}')")
    for table in ("executions", "attempts", "execution_events", "log_chunks"):
        database.do(f"DROP TABLE {table}_{monday:%Y%m%d}")
    await plan_all(tenant, now)
    planned = {row["nominal_at"].date() for row in slots(database, uid)}
    week = {monday + number * DAY for number in range(7)}
    assert not planned & week
    assert {monday - DAY, monday + 7 * DAY} <= planned
    assert plan_of(database, uid)["planned_until"] > now
    assert database.value("SELECT quarantine FROM tasks WHERE task_uid = %s", uid) is None
