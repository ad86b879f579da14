"""The ledger check: what the planner has planned is clean, and what a hand has changed is found and named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.ledger import slot_id
from cron_observer.store import backfills, statistics
from support.databases import Tenant
from support.ledgers import SCHEDULES, World
from support.scenes import Scene

#: Noon on the Friday before Berlin's clock jumps.
FRIDAY = datetime(2026, 3, 27, 12, tzinfo=UTC)

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def world(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> World:
    """An empty world on a Friday."""
    return World(Scene(tenant, monkeypatch, FRIDAY))


def slots(world: World, name: str) -> list[dict[str, Any]]:
    """Return the due slots of a task."""
    query = "SELECT * FROM executions WHERE task_uid = %s AND fire_at <= %s ORDER BY nominal_at"
    return world.scene.database.rows(query, world.uids[name], world.scene.now)


async def test_what_the_planner_plans_is_clean(world: World) -> None:
    """Schedules of every kind, over a clock change, with ticks every hour: nothing is wrong, and much was looked at."""
    for name, schedule in SCHEDULES.items():
        await world.add(name, schedule)
    await world.live(3 * DAY)
    told = await world.verdicts()
    assert [defect for _, verdict in told for defect in verdict.defects] == []
    counted = {name: verdict.slots for name, verdict in told}
    assert counted["default/minutely"] == 3 * 24 * 60
    assert counted["default/nightly"] == 3
    assert counted["default/weekdays"] == 3
    assert counted["default/windowed"] == 15
    assert counted["default/bounded"] == 12
    assert min(counted.values()) >= 1
    assert set(counted) == {f"default/{name}" for name in SCHEDULES}


async def test_edits_leave_no_trace(world: World) -> None:
    """Edits, suspension, removal and a return, also in the middle of a gap: each slot belongs to one generation."""
    await world.add("a", {"cron": "*/5 * * * *"})
    await world.add("b", {"cron": "0,30 * * * *", "timezone": "Europe/Berlin"})
    await world.add("c", {"cron": "0 9 * * *", "calendars": {"exclude": ["weekend"]}, "onExcluded": "previous_allowed"})
    await world.live(5 * HOUR + 7 * MINUTE)
    await world.edit("a", {"every": "90s"})
    await world.live(2 * HOUR)
    await world.edit("a", {"every": "90s"}, active=False)
    await world.live(9 * HOUR)
    await world.edit("c", {"cron": "30 10 * * *", "calendars": {"exclude": ["weekend"]}, "onExcluded": "next_allowed"})
    await world.edit("a", {"cron": "* * * * *"})
    world.scene.now = datetime(2026, 3, 29, 0, 40, tzinfo=UTC)
    await world.live(30 * MINUTE, 5 * MINUTE)
    await world.edit("b", {"cron": "15,45 2 * * *", "timezone": "Europe/Berlin"})
    await world.live(DAY)
    await world.edit("b", {"cron": "15,45 3 * * *", "timezone": "Europe/Berlin"}, active=False)
    await world.live(DAY)
    assert await world.check() == []


async def test_pauses_and_ranges_are_clean(world: World) -> None:
    """A second-level task paused for hours has ranges that count its slots; ended, cut and edited they still do."""
    uid = await world.add("a", {"every": "1s"})
    await world.live(HOUR, 10 * MINUTE)
    await world.scene.pause(uid)
    await world.live(14 * HOUR)
    ranges = world.scene.database.rows("SELECT * FROM slot_ranges")
    assert len(ranges) > 1
    assert await world.check() == []
    await world.scene.resume(uid)
    await world.live(10 * MINUTE, MINUTE)
    assert await world.check() == []
    await world.scene.pause(uid)
    await world.live(3 * HOUR)
    await world.edit("a", {"every": "2s"})
    await world.live(HOUR)
    told = await world.verdicts()
    assert [defect for _, verdict in told for defect in verdict.defects] == []
    assert told[0][1].ranges == world.scene.database.value(
        "SELECT count(*) FROM slot_ranges WHERE first_at < %s", FRIDAY + DAY
    )


async def test_an_absence_is_clean(world: World) -> None:
    """After two days without a scheduler every slot has been told, most of them as ranges."""
    await world.add("a", {"every": "10s"})
    await world.add("b", {"cron": "0 * * * *"})
    await world.live(HOUR)
    world.scene.wait(2 * DAY)
    await world.live(HOUR)
    assert world.scene.database.value("SELECT count(*) FROM slot_ranges WHERE reason = 'too_late'") > 0
    assert await world.check() == []


async def test_windows_of_a_group_and_runs_that_repeat_slots_are_clean(world: World) -> None:
    """Slots outside of their group's windows, runs made up for at the end of a pause, and claims are no defects."""
    uid = await world.add("a", {"every": "10m"})
    group = {"name": "g", "uid": str(uid), "timezone": "UTC", "windows": [{"from": "00:00", "to": "12:00"}]}
    await world.add("b", {"every": "1h"}, group=group)
    await world.live(2 * HOUR, 10 * MINUTE)
    await world.scene.pause(uid)
    await world.live(2 * HOUR, 10 * MINUTE)
    await world.scene.resume(uid, "all")
    await world.live(20 * MINUTE, MINUTE)
    for run in await world.scene.claim():
        await world.scene.finish(run)
    await world.live(14 * HOUR)
    reasons = {row["reason"] for name in "ab" for row in slots(world, name)}
    assert {"window", "paused", "too_late", None} <= reasons
    assert world.scene.database.value("SELECT count(*) FROM executions WHERE repeats IS NOT NULL") > 0
    assert await world.check() == []


async def test_one_row_deleted_is_named(world: World) -> None:
    """A slot whose row somebody deleted is missing: that one, by its local time, with the backfill that mends it."""
    await world.add("a", {"cron": "*/10 * * * *", "timezone": "Europe/Berlin"})
    await world.add("b", {"every": "1m"})
    await world.live(6 * HOUR)
    lost = slots(world, "a")[7]
    world.scene.database.do("DELETE FROM executions WHERE id = %s", lost["id"])
    (defect,) = await world.check()
    assert (defect.task, defect.kind, defect.id) == ("default/a", "missing", lost["id"])
    assert defect.label == f"{lost['nominal_local'].isoformat()} Europe/Berlin"
    assert "backfill default/a --from" in defect.mend
    after = lost["nominal_at"] + timedelta(seconds=1)
    wanted = backfills.Wanted(start=lost["nominal_at"], end=after, select="missing")
    tenant, now = world.scene.tenant.tenant_id, world.scene.now

    async def backfill(conn: AsyncConnection) -> None:
        selection = await backfills.select(conn, tenant, world.uids["a"], wanted, now)
        await backfills.begin(conn, tenant, selection, wanted, author="me", now=now)

    await world.scene.inside(world.scene.database.api, backfill)
    assert await world.check() == []
    assert await world.check(task="b") == []


async def copied(world: World, row: dict[str, Any], **changes: Any) -> UUID:
    """Insert a copy of a row with another id."""
    made = {**row, "id": UUID(int=row["id"].int ^ 1), **changes}
    world.scene.database.insert("executions", [{name: value for name, value in made.items() if value is not None}])
    identity: UUID = made["id"]
    return identity


async def test_one_row_doubled_is_named(world: World) -> None:
    """A second row of a slot, under whatever id, is the one too many: that one and nothing else."""
    await world.add("a", {"every": "10m"})
    await world.live(6 * HOUR)
    row = slots(world, "a")[5]
    double = await copied(world, row)
    (defect,) = await world.check()
    assert (defect.kind, defect.id) == ("doubled", double)
    assert str(row["id"]) in defect.what


async def test_a_double_with_the_id_of_another_day_is_named(world: World) -> None:
    """A second row whose id carries another time is found, too."""
    await world.add("a", {"every": "10m"})
    await world.live(3 * DAY, DAY / 2)
    row = slots(world, "a")[5]
    double = await copied(world, row, id=UUID(int=slots(world, "a")[-5]["id"].int ^ 1))
    (defect,) = await world.check()
    assert (defect.kind, defect.id) == ("doubled", double)


async def test_a_slot_of_no_plan_is_named(world: World) -> None:
    """A row with the right id for its label, at a time that no generation names, is one too many."""
    uid = await world.add("a", {"every": "10m"})
    await world.live(6 * HOUR)
    row = slots(world, "a")[5]
    at = row["nominal_at"] + MINUTE
    label = row["nominal_local"] + MINUTE
    identity = await copied(
        world, row, id=slot_id(uid, at, label, 0), nominal_at=at, nominal_local=label, fire_at=at, available_at=at
    )
    (defect,) = await world.check()
    assert (defect.kind, defect.id) == ("doubled", identity)
    assert "no plan has such a slot" in defect.what


@pytest.mark.parametrize(
    "change",
    [
        "fire_at = fire_at + interval '1 minute'",
        "fire_at = fire_at + interval '3 days'",
        "nominal_at = nominal_at + interval '1 hour'",
        "nominal_at = nominal_at + interval '1 hour', nominal_local = nominal_local + interval '1 hour'",
        "nominal_local = nominal_local + interval '10 minutes'",
        "nominal_fold = 1",
        "(nominal_at, nominal_local, fire_at) = (nominal_at - two, nominal_local - two, fire_at - two)",
        "id = (left(id::text, 35) || case right(id::text, 1) when '0' then '1' else '0' end)::uuid",
        "id = id_floor(nominal_at + interval '1 day')",
    ],
)
async def test_one_row_moved_is_named(world: World, change: str) -> None:
    """A row whose fire time, nominal time or id somebody changed has moved: that one and nothing else."""
    await world.add("a", {"every": "10m"})
    await world.add("b", {"every": "10m"})
    await world.live(3 * DAY, DAY / 2)
    row = slots(world, "a")[200]
    moved = f"UPDATE executions SET {change} FROM (VALUES (interval '2 days')) AS v (two) WHERE id = %s"
    assert world.scene.database.do(moved, row["id"]) == 1
    (defect,) = await world.check()
    assert (defect.task, defect.kind) == ("default/a", "moved")
    assert defect.label == f"{row['nominal_local'].isoformat()} UTC"


async def test_a_forecast_with_a_wrong_id_is_named(world: World) -> None:
    """Of what is not due yet, the id is checked."""
    await world.add("a", {"cron": "0 18 * * *"})
    await world.live(HOUR)
    (row,) = world.scene.database.rows("SELECT * FROM executions")
    world.scene.database.do("UPDATE executions SET nominal_local = nominal_local + interval '1 hour'")
    (defect,) = await world.check()
    assert (defect.kind, defect.id) == ("moved", row["id"])


async def test_what_calendars_say_is_compared(world: World) -> None:
    """A run on an excluded day, and a skip on an allowed one, are misjudged."""
    await world.add("a", {"cron": "0 9 * * *", "calendars": {"exclude": ["weekend"]}})
    await world.live(4 * DAY, DAY / 4)
    rows = slots(world, "a")
    assert [row["reason"] for row in rows[:2]] == ["calendar", "calendar"]
    run, skip = rows[0]["id"], rows[2]["id"]
    world.scene.database.do("UPDATE executions SET status = 'FINISHED', reason = NULL WHERE id = %s", run)
    world.scene.database.do(
        "UPDATE executions SET status = 'SKIPPED', reason = 'calendar', finished_at = fire_at WHERE id = %s", skip
    )
    assert {(defect.kind, defect.id) for defect in await world.check()} == {("misjudged", run), ("misjudged", skip)}


@pytest.mark.parametrize("reason", ["calendar", "dst_gap"])
async def test_a_skip_that_nothing_demands_is_named(world: World, reason: str) -> None:
    """Without calendars none excludes a slot, and far from clock changes none swallows it."""
    await world.add("a", {"every": "10m"})
    await world.live(DAY, DAY / 2)
    row = slots(world, "a")[20]
    skip = "UPDATE executions SET status = 'SKIPPED', reason = %s, finished_at = fire_at WHERE id = %s"
    assert world.scene.database.do(skip, reason, row["id"]) == 1
    assert [(defect.kind, defect.id) for defect in await world.check()] == [("misjudged", row["id"])]


async def test_a_range_that_counts_wrong_is_named(world: World) -> None:
    """One slot more or less, or in another quarter hour, and the range does not agree with its plan."""
    uid = await world.add("a", {"every": "1s"})
    await world.scene.pause(uid)
    await world.live(3 * HOUR)
    database = world.scene.database
    database.do("UPDATE slot_ranges SET slots = slots - 1")
    (defect,) = await world.check()
    assert defect.kind == "range"
    assert "it counts" in defect.what
    database.do("UPDATE slot_ranges SET slots = slots + 1, quarters[1] = 1, quarters[56] = quarters[56] - 1")
    (defect,) = await world.check()
    assert "quarter hours" in defect.what
    gone = database.value("SELECT slots FROM slot_ranges")
    database.do("DELETE FROM slot_ranges")
    (verdict,) = [verdict for _, verdict in await world.verdicts()]
    due = sum(defect.kind == "missing" for defect in verdict.defects) + verdict.more
    assert 0 < due <= gone
    assert due > gone - 2 * 3600


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("UPDATE stats_15m SET skipped = skipped + 1 WHERE scope = %s AND at = %s", "tell 901 SKIPPED; there are 900"),
        ("DELETE FROM stats_15m WHERE scope = %s AND at = %s", "tell nothing; there are 900 SKIPPED"),
    ],
)
async def test_statistics_that_count_wrong_are_named(world: World, harm: str, words: str) -> None:
    """A quarter hour that tells other outcomes than its rows and ranges have is a defect, until it is marked."""
    paused, uid = await world.add("a", {"every": "1s"}), await world.add("b", {"every": "5m"})
    await world.scene.pause(paused)
    await world.live(3 * HOUR)
    database, now = world.scene.database, world.scene.now
    skip = "UPDATE executions SET status = 'SKIPPED', reason = 'overlap', finished_at = fire_at WHERE task_uid = %s"
    database.do(f"{skip} AND status = 'PENDING' AND fire_at < %s", uid, now)
    async with database.scheduler.transaction([world.scene.tenant.tenant_id]) as conn:
        assert await statistics.roll_up(conn, world.scene.tenant.tenant_id, now, 1_000) > 10
    clean = [one for one in await world.check() if one.kind == "statistics"]
    assert clean == []

    database.do(harm, paused, FRIDAY + HOUR)
    (defect,) = [one for one in await world.check() if one.kind == "statistics"]
    assert (defect.task, defect.label) == ("default/a", "2026-03-27 13:00 UTC")
    assert words in defect.what
    database.do("INSERT INTO stats_marks SELECT tenant_id, %s, 1, now() FROM stats_state", FRIDAY + HOUR)
    assert [one for one in await world.check() if one.kind == "statistics"] == []


async def test_open_and_unreasoned_slots_are_named(world: World) -> None:
    """A skip without a reason, a wait beyond every deadline and a lease that nobody ended are each a defect."""
    await world.add("a", {"every": "1h"})
    await world.live(12 * HOUR)
    rows = slots(world, "a")
    database, now = world.scene.database, world.scene.now
    done = "status = 'SKIPPED', finished_at = fire_at, reason"
    database.do(f"UPDATE executions SET {done} = NULL WHERE id = %s", rows[1]["id"])
    database.do(
        "UPDATE executions SET (status, reason, finished_at, start_deadline) = ('PENDING', NULL, NULL, %s) "
        "WHERE id = %s",
        now - HOUR,
        rows[2]["id"],
    )
    database.do(
        "UPDATE executions SET status = 'RUNNING', finished_at = NULL, reason = NULL, fence = 1, lease_until = %s, "
        "check_at = %s WHERE id = %s",
        now - HOUR,
        now - HOUR,
        rows[3]["id"],
    )
    found = {(defect.kind, defect.id) for defect in await world.check()}
    assert found == {("unreasoned", rows[1]["id"]), ("open", rows[2]["id"]), ("open", rows[3]["id"])}


async def test_what_history_does_not_know_is_not_demanded(world: World) -> None:
    """Quarantined stretches and the time before history own nothing; the check says so."""
    await world.add("a", {"every": "1h"})
    await world.add("b", {"every": "1h"})
    await world.live(5 * HOUR)
    database = world.scene.database
    database.do(
        "UPDATE task_plan SET schedule = '{\"cron\": 1}', plan_due_at = effective_from WHERE task_uid = %s",
        world.uids["a"],
    )
    database.do("UPDATE plan_history SET schedule = '{\"cron\": 1}' WHERE task_uid = %s", world.uids["a"])
    database.do("UPDATE plan_history SET generation = 5 WHERE task_uid = %s", world.uids["b"])
    database.do(
        "UPDATE task_plan SET generation = 5, plan_due_at = effective_from WHERE task_uid = %s", world.uids["b"]
    )
    await world.live(5 * HOUR)
    told = dict(await world.verdicts())
    assert [defect for verdict in told.values() for defect in verdict.defects] == []
    assert database.value("SELECT quarantine IS NOT NULL FROM tasks WHERE task_uid = %s", world.uids["a"])
    assert told["default/a"].unreadable == 1
    assert told["default/a"].slots == 0
    assert told["default/b"].slots == 10


async def test_what_retention_dropped_is_not_demanded(world: World) -> None:
    """Slots in partitions that are gone are no defects; one that is lost from a partition that is there still is."""
    await world.add("a", {"every": "1h"})
    await world.live(5 * DAY, DAY / 2)
    database = world.scene.database
    assert database.value("SELECT drop_partitions('2026-03-30T00:00:00Z')") > 0
    assert await world.check() == []
    lost = slots(world, "a")[3]
    database.do("DELETE FROM executions WHERE id = %s", lost["id"])
    assert [defect.id for defect in await world.check()] == [lost["id"]]


async def test_what_nobody_has_planned_is_told_once(world: World) -> None:
    """While every scheduler is away, what fell due behind the plan is one defect; a plan that has ended is none."""
    await world.add("a", {"every": "10m"})
    await world.add("b", {"at": ["2026-03-27T13:00:00Z"]})
    await world.live(2 * HOUR)
    world.scene.wait(3 * DAY)
    (defect,) = [defect for defect in await world.check() if defect.kind != "open"]
    assert (defect.task, defect.kind) == ("default/a", "unplanned")
    assert "slots that are due have not been planned yet" in defect.what
    await world.scene.tick()
    assert await world.check() == []


async def test_other_zone_data_is_no_defect(world: World) -> None:
    """Slots that other zone data gave another instant are compared by their label; with equal data they have moved."""
    uid = await world.add("a", {"cron": "0 9 * * *", "timezone": "Europe/Berlin"})
    await world.live(3 * DAY, DAY / 4)
    database = world.scene.database
    for row in slots(world, "a"):
        at = row["nominal_at"] + HOUR
        database.do(
            "UPDATE executions SET id = %s, nominal_at = %s, fire_at = %s, tzdata_version = '1999z' WHERE id = %s",
            slot_id(uid, at, row["nominal_local"], row["nominal_fold"]),
            at,
            at,
            row["id"],
        )
    assert await world.check() == []
    database.do("UPDATE executions SET tzdata_version = (SELECT tzdata_version FROM task_plan)")
    assert {defect.kind for defect in await world.check()} == {"moved"}
