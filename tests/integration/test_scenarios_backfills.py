"""Backfills, calendars, group windows and long absences, as stories of slots on a real database.

The first ones tell anew what Temporal's schedules are tested for under Backfill; its range excludes the start and
includes the end, ours is the other way round, as ranges are everywhere else here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from cron_observer.schedule.calendars import digest
from cron_observer.store import backfills
from support.databases import Tenant
from support.pages_time import declare
from support.places import make_group
from support.scenes import DAY, HOUR, MINUTE, SECOND, Scene, clock, times

EVERY_TEN = {"cron": "*/10 * * * *"}


@pytest.fixture
def scene(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Monday, noon."""
    return Scene(tenant, monkeypatch)


async def backfill(scene: Scene, uid: UUID, first: str, end: str, select: str, **more: Any) -> None:
    """Ask for a range of this day."""
    start, until = (datetime.fromisoformat(f"2026-03-02T{time}:00").replace(tzinfo=UTC) for time in (first, end))
    wanted = backfills.Wanted(start=start, end=until, select=select, **more)
    tenant = scene.tenant.tenant_id

    async def work(conn: Any) -> None:
        selection = await backfills.select(conn, tenant, uid, wanted, scene.now)
        await backfills.begin(conn, tenant, selection, wanted, author="me", now=scene.now)

    await scene.inside(scene.database.api, work)
    scene.wait(SECOND)


async def drained(scene: Scene, outcome: str = "finished") -> list[str]:
    """Claim and finish as long as there is something; return nominal times in their order."""
    ran = []
    while runs := await scene.claim(1):
        await scene.finish(runs[0], outcome)
        ran.append(clock(scene.row(runs[0])["nominal_at"]))
    return ran


async def test_a_range_is_run_again(scene: Scene) -> None:
    """Backfill, BackfillInclusiveStartEnd: each slot of the range runs, not the one at its end; slots stay."""
    uid = await scene.add(schedule=EVERY_TEN)
    scene.to("12:10")
    assert await drained(scene) == ["12:10"]
    scene.to("12:45")
    await scene.tick()
    assert await drained(scene) == ["12:40"]
    before = scene.ledger(uid)
    await backfill(scene, uid, "12:10", "12:40", "all")
    assert await drained(scene) == ["12:10", "12:20", "12:30"]
    assert [line for line in scene.ledger(uid) if "backfill" not in line] == before
    assert sum("FINISHED (backfill)" in line for line in scene.ledger(uid)) == 3


async def test_only_what_is_missing(scene: Scene) -> None:
    """With `missing` a slot that has run is left out, and so is one that a repeat has made good."""
    uid = await scene.add(schedule=EVERY_TEN)
    scene.to("12:10")
    assert await drained(scene) == ["12:10"]
    scene.to("12:45")
    await scene.tick()
    assert await drained(scene) == ["12:40"]
    for made in (["12:20", "12:30"], []):
        await backfill(scene, uid, "12:05", "12:40", "missing")
        assert await drained(scene) == made


async def test_only_what_failed_newest_first(scene: Scene) -> None:
    """With `failed` and newest first, failures run again in that order."""
    uid = await scene.add(schedule=EVERY_TEN)
    for minute, outcome in (("12:10", "failed"), ("12:20", "finished"), ("12:30", "failed")):
        scene.to(minute)
        await drained(scene, outcome)
    scene.to("12:35")
    await backfill(scene, uid, "12:00", "12:35", "failed", order="newest_first")
    assert await drained(scene) == ["12:30", "12:10"]


async def test_a_backfill_yields_to_nobody_and_skips_nothing(scene: Scene) -> None:
    """BackfillWithOverlap: its runs wait for the task's place; a slot that falls due beside one is skipped."""
    uid = await scene.add(schedule=EVERY_TEN, overlap="skip", timeout="12h")
    scene.to("12:35")
    await scene.tick()
    assert await drained(scene) == ["12:30"]
    await backfill(scene, uid, "12:05", "12:30", "missing", max_parallel=5)
    (first,) = await scene.claim(lease=12 * HOUR)
    assert await scene.claim() == []
    scene.to("12:40")
    assert await scene.claim() == []
    await scene.finish(first)
    assert await drained(scene) == ["12:20"]
    assert "12:40 SKIPPED overlap" in scene.ledger(uid)


async def test_many_at_once_where_the_task_allows_it(scene: Scene) -> None:
    """A backfill of a task that runs beside itself runs as many at once as it was asked for."""
    uid = await scene.add(schedule=EVERY_TEN, overlap="allow_all", catchup={"policy": "none"})
    scene.to("13:05")
    await scene.tick()
    await backfill(scene, uid, "12:10", "13:00", "missing", max_parallel=2)
    runs = await scene.claim()
    assert len(runs) == 2
    await scene.finish(runs[0])
    assert len(await scene.claim()) == 1


@pytest.mark.parametrize(
    ("on_excluded", "wanted"),
    [
        ("skip", ["02 16:00 PENDING", "03 16:00 SKIPPED", "04 16:00 SKIPPED", "05 16:00 PENDING"]),
        # The two of the excluded days come to the slot of the 5th, or the 2nd, and that one runs.
        ("next_allowed", ["02 16:00 PENDING", "05 16:00 SKIPPED", "05 16:00 SKIPPED", "05 16:00 PENDING"]),
        ("previous_allowed", ["02 16:00 SKIPPED", "02 16:00 SKIPPED", "02 16:00 PENDING", "05 16:00 PENDING"]),
    ],
)
async def test_excluded_days(scene: Scene, on_excluded: str, wanted: list[str]) -> None:
    """Exclude calendars: slots of excluded days do not run, or move to an allowed day, where they run once."""
    part = {"timezone": None, "dates": [["2026-03-03", "2026-03-04"]], "yearly": [], "weekdays": []}
    content = {"parts": [{**part, "holidays": [], "spans": []}]}
    row = {"tenant_id": scene.tenant.tenant_id, "digest": digest(content), "content": content, "created_at": scene.now}
    scene.database.insert("calendar_contents", [row])
    declare(scene.tenant, "calendars", "closed", 3, digest=digest(content))
    daily = {"cron": "0 16 * * *", "calendars": {"exclude": ["closed"]}, "onExcluded": on_excluded}
    uid = await scene.add(schedule=daily)
    for _ in range(4):
        scene.wait(20 * HOUR)
        await scene.plan()
    rows = [row for row in scene.executions(uid, upcoming=True) if row["nominal_at"] < scene.now + DAY]
    assert sorted(f"{row['fire_at']:%d %H:%M} {row['status']}" for row in rows)[:4] == sorted(wanted)
    moved = [row for row in rows if row["fire_at"] != row["nominal_at"]]
    assert {row["moved_by"] for row in moved} <= {"calendar"}
    assert {row["reason"] for row in rows} <= {None, "calendar" if on_excluded == "skip" else "coalesced"}


async def test_the_window_of_a_group(scene: Scene) -> None:
    """Outside the window of its group a slot is recorded and does not run; inside it may start until it closes."""
    make_group(scene.tenant, "night", windows=[{"from": "13:00", "to": "14:00"}], timezone="UTC")
    uid = await scene.add(schedule={"cron": "30 * * * *"}, group="night")
    for time in ("12:35", "13:35", "14:35"):
        scene.to(time)
        await scene.tick()
        await drained(scene)
    assert scene.ledger(uid) == ["12:30 SKIPPED window", "13:30 FINISHED (catchup)", "14:30 SKIPPED window"]


async def test_who_comes_after_the_window_has_closed(scene: Scene) -> None:
    """A slot of the window that nobody has claimed when it closes does not start any more."""
    make_group(scene.tenant, "night", windows=[{"from": "13:00", "to": "14:00"}], timezone="UTC")
    uid = await scene.add(schedule={"cron": "30 * * * *"}, group="night")
    scene.to("14:01")
    assert await drained(scene) == []
    assert scene.ledger(uid) == ["12:30 SKIPPED window", "13:30 SKIPPED window"]


@pytest.mark.parametrize(
    ("catchup", "run"),
    [
        ({"policy": "last", "window": "1h"}, 1),
        ({"policy": "all", "window": None, "maxRuns": 100}, 100),
        ({"policy": "all", "window": None, "maxRuns": 101}, 101),
        ({"policy": "none"}, 1),
    ],
)
async def test_a_day_of_absence(scene: Scene, catchup: dict[str, Any], run: int) -> None:
    """Of 1,440 minutes without anybody as many run as the policy says, oldest first; every other one is recorded."""
    uid = await scene.add(schedule={"cron": "* * * * *"}, catchup=catchup, overlap="buffer_all")
    scene.to("12:00:30")
    scene.wait(DAY)
    await scene.tick()
    ran = await drained(scene)
    assert ran == times("12:00", -MINUTE, run)[::-1]
    statuses = [(row["status"], row["reason"]) for row in scene.executions(uid)]
    ranged = scene.database.value("SELECT coalesce(sum(slots), 0) FROM slot_ranges WHERE task_uid = %s", uid)
    assert statuses.count(("FINISHED", None)) == run
    assert statuses.count(("SKIPPED", "too_late")) + ranged == 1440 - run
    assert len(statuses) + ranged == 1440
