"""What the controller of Kubernetes' CronJobs is tested for, told anew for slots on a real database.

Its Allow, Forbid and Replace are our allow_all, skip and terminate_other; its startingDeadlineSeconds is our
startDeadline. Where the outcome differs from theirs the docstring says so.
"""

from __future__ import annotations

from typing import Any

import pytest

from cron_observer import schedule
from cron_observer.errors import ScheduleError
from cron_observer.model import ScheduleSpec
from support.databases import Tenant
from support.plans import damage, plan_of
from support.scenes import DAY, HOUR, MINUTE, SECOND, Scene

HOURLY = {"cron": "0 * * * *"}


@pytest.fixture
def scene(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Monday, noon."""
    return Scene(tenant, monkeypatch)


#: One row: overlap policy; what became of the run before (13:00); when somebody asks; startDeadline; what is due then.
#: "active" runs since 13:00, "done" has finished, "none" was never claimed.
TABLE: list[tuple[str, str, str, str | None, list[str]]] = [
    ("allow_all", "none", "12:59", None, []),
    ("skip", "none", "12:59", None, []),
    ("terminate_other", "none", "12:59", None, []),
    ("allow_all", "none", "13:00", None, ["13:00 RUNNING"]),
    ("skip", "none", "13:00", None, ["13:00 RUNNING"]),
    ("terminate_other", "none", "13:00", None, ["13:00 RUNNING"]),
    ("skip", "none", "13:02", "1m", ["13:00 MISSED no_worker"]),
    ("skip", "none", "13:02", "5m", ["13:00 RUNNING (catchup)"]),
    ("allow_all", "done", "13:59", None, ["13:00 FINISHED"]),
    ("skip", "done", "13:59", None, ["13:00 FINISHED"]),
    ("terminate_other", "done", "13:59", None, ["13:00 FINISHED"]),
    ("allow_all", "done", "14:00", None, ["13:00 FINISHED", "14:00 RUNNING"]),
    ("skip", "done", "14:00", None, ["13:00 FINISHED", "14:00 RUNNING"]),
    ("terminate_other", "done", "14:00", None, ["13:00 FINISHED", "14:00 RUNNING"]),
    ("skip", "done", "14:02", "1m", ["13:00 FINISHED", "14:00 MISSED no_worker"]),
    ("skip", "done", "14:02", "5m", ["13:00 FINISHED", "14:00 RUNNING (catchup)"]),
    ("allow_all", "active", "13:59", None, ["13:00 RUNNING"]),
    ("skip", "active", "13:59", None, ["13:00 RUNNING"]),
    ("terminate_other", "active", "13:59", None, ["13:00 RUNNING"]),
    ("allow_all", "active", "14:00", None, ["13:00 RUNNING", "14:00 RUNNING"]),
    ("skip", "active", "14:00", None, ["13:00 RUNNING", "14:00 SKIPPED overlap"]),
    ("terminate_other", "active", "14:00", None, ["13:00 CANCELLED overlap", "14:00 RUNNING"]),
    ("allow_all", "active", "14:02", "1m", ["13:00 RUNNING", "14:00 MISSED no_worker"]),
    ("terminate_other", "active", "14:02", "1m", ["13:00 RUNNING", "14:00 MISSED no_worker"]),
    # Long overdue: of what has piled up the newest runs, whatever the policy; the others say why they did not.
    *(
        (
            overlap, "done", "16:30", None,
            ["13:00 FINISHED", "14:00 SKIPPED too_late", "15:00 SKIPPED too_late", "16:00 RUNNING (catchup)"],
        )
        for overlap in ("allow_all", "skip", "terminate_other")
    ),
    *(
        (
            overlap, "done", "16:30", "1m",
            ["13:00 FINISHED", "14:00 MISSED no_worker", "15:00 MISSED no_worker", "16:00 MISSED no_worker"],
        )
        for overlap in ("allow_all", "skip", "terminate_other")
    ),
    ("skip", "done", "16:30", "45m",
     ["13:00 FINISHED", "14:00 MISSED no_worker", "15:00 MISSED no_worker", "16:00 RUNNING (catchup)"]),
]  # fmt: skip


@pytest.mark.parametrize(("overlap", "before", "asked", "deadline", "wanted"), TABLE)
async def test_the_table_of_the_controller(
    scene: Scene, overlap: str, before: str, asked: str, deadline: str | None, wanted: list[str]
) -> None:
    """Policy, what runs, how late it is and how late it may be decide together, row by row."""
    uid = await scene.add(schedule=HOURLY, overlap=overlap, startDeadline=deadline, timeout="12h")
    if before != "none":
        scene.to("13:00")
        (run,) = await scene.claim(lease=12 * HOUR)
        scene.wait(10 * SECOND)
        if before == "done":
            assert await scene.finish(run) is None
        for _ in range(2):
            scene.wait(10 * MINUTE)
            await scene.plan()
    scene.to(asked)
    await scene.plan()
    await scene.claim()
    assert scene.ledger(uid) == wanted


async def test_a_replaced_run_has_lost_its_say(scene: Scene) -> None:
    """Who was replaced is refused when it comes back, and the newcomer's outcome counts."""
    uid = await scene.add(schedule=HOURLY, overlap="terminate_other", timeout="12h")
    scene.to("13:00")
    (first,) = await scene.claim(lease=12 * HOUR)
    await scene.plan()
    scene.to("14:00")
    (second,) = await scene.claim()
    assert await scene.finish(first) == "already_final"
    assert await scene.finish(second) is None
    assert scene.ledger(uid) == ["13:00 CANCELLED overlap", "14:00 FINISHED"]


async def test_what_was_suspended_does_not_start_on_resuming(scene: Scene) -> None:
    """Slots of a suspension do not exist: nothing starts when it ends (the controller starts one at once)."""
    uid = await scene.add(schedule=HOURLY)
    scene.to("12:30")
    await scene.edit(uid, schedule=HOURLY, suspend=True)
    for hour in ("13:00", "14:00", "15:10"):
        scene.to(hour)
        await scene.plan()
        assert await scene.claim() == []
    await scene.edit(uid, schedule=HOURLY)
    await scene.plan()
    assert await scene.claim() == []
    assert scene.ledger(uid) == []
    scene.to("16:00")
    assert len(await scene.claim()) == 1
    assert scene.ledger(uid) == ["16:00 RUNNING"]


async def test_what_was_due_before_a_suspension_still_runs(scene: Scene) -> None:
    """A slot that was due when its task was suspended is history already, and is offered."""
    uid = await scene.add(schedule=HOURLY)
    scene.to("13:01")
    await scene.edit(uid, schedule=HOURLY, suspend=True)
    scene.to("13:02")
    assert len(await scene.claim()) == 1
    assert scene.ledger(uid) == ["13:00 RUNNING (catchup)"]


@pytest.mark.parametrize("hours", [1, 2, 24], ids=["60 missed", "120 missed", "1440 missed"])
async def test_no_number_of_missed_starts_stops_a_task(scene: Scene, hours: int) -> None:
    """After 60, 120 or 1,440 missed minutes exactly one run starts, and each other minute has its reason.

    The controller gives up beyond 100, for good.
    """
    uid = await scene.add(schedule={"cron": "* * * * *"})
    scene.wait(hours * HOUR + 30 * SECOND)
    await scene.plan()
    (run,) = await scene.claim()
    assert run.fire_at == scene.now - 30 * SECOND
    await scene.tick()
    rows = scene.executions(uid)
    ranged = scene.database.value("SELECT coalesce(sum(slots), 0) FROM slot_ranges WHERE task_uid = %s", uid)
    ended = [row for row in rows if (row["status"], row["reason"]) == ("SKIPPED", "too_late")]
    assert len(ended) + ranged == 60 * hours - 1
    assert len(rows) == len(ended) + 1
    await scene.finish(run)
    scene.wait(MINUTE)
    assert len(await scene.claim()) == 1


async def test_a_schedule_that_changes_while_a_slot_is_due(scene: Scene) -> None:
    """The due slot of the old schedule runs once; from the change on there are only slots of the new one."""
    uid = await scene.add(schedule=HOURLY)
    scene.to("13:00:30")
    await scene.edit(uid, schedule={"cron": "*/20 * * * *"})
    (run,) = await scene.claim()
    await scene.finish(run)
    assert scene.ledger(uid) == ["13:00 FINISHED"]
    assert scene.upcoming(uid, 3) == ["13:20", "13:40", "14:00"]


async def test_a_due_slot_that_the_new_schedule_lacks_still_runs(scene: Scene) -> None:
    """What is due by the old schedule is offered although the new one never names that minute."""
    uid = await scene.add(schedule=HOURLY)
    scene.to("13:00:30")
    await scene.edit(uid, schedule={"cron": "7 3 * * *"})
    await scene.claim()
    assert scene.ledger(uid) == ["13:00 RUNNING"]
    assert scene.upcoming(uid, 1) == ["03:07"]


async def test_a_clock_that_lags_starts_nothing_early(scene: Scene) -> None:
    """Whoever asks with an earlier time gets nothing that is not due by it; nothing starts twice afterwards."""
    uid = await scene.add(schedule=HOURLY)
    scene.to("12:59:59")
    assert await scene.claim() == []
    scene.to("13:00")
    (run,) = await scene.claim()
    scene.now -= 10 * SECOND
    assert await scene.claim() == []
    scene.now += 11 * SECOND
    assert await scene.claim() == []
    assert scene.ledger(uid) == ["13:00 RUNNING"]
    assert scene.row(run)["available_at"] == run.fire_at


async def test_a_planner_whose_clock_is_ahead_makes_nothing_due(scene: Scene) -> None:
    """A planner an hour ahead plans further; what it plans is due no earlier, and no slot is lost or doubled."""
    uid = await scene.add(schedule={"cron": "*/10 * * * *"})
    scene.now += HOUR
    await scene.plan()
    scene.now -= HOUR
    await scene.plan()
    assert await scene.claim() == []
    assert scene.upcoming(uid, 12)[:3] == ["12:10", "12:20", "12:30"]
    assert scene.upcoming(uid, 12)[11] == "14:00"
    scene.to("12:10")
    assert [run.fire_at for run in await scene.claim()] == [scene.now]


@pytest.mark.parametrize(
    "schedule_block",
    [{"cron": "0 0 31 2 *"}, {"cron": "0 0 31 4,6,9,11 *"}, {"cron": "not a cron"}, {**HOURLY, "timezone": "Mars/X"}],
)
async def test_a_schedule_that_never_fires_stops_nobody(scene: Scene, schedule_block: dict[str, Any]) -> None:
    """It is refused before it is stored; planted by hand its task is put aside with a reason, and others go on."""
    with pytest.raises(ScheduleError):
        schedule.check(ScheduleSpec.read(schedule_block))
    broken, sound = await scene.add("broken", schedule=HOURLY), await scene.add("sound", schedule=HOURLY)
    damage(scene.database, broken, {"timezone": "UTC", "seed": "default/broken", **schedule_block})
    scene.database.do("UPDATE task_plan SET plan_due_at = %s", scene.now)
    await scene.plan()
    assert scene.database.value("SELECT quarantine FROM tasks WHERE task_uid = %s", broken)
    assert scene.database.value("SELECT quarantine FROM tasks WHERE task_uid = %s", sound) is None
    scene.to("13:00")
    assert {run.task_uid for run in await scene.claim(tasks=[sound])} == {sound}


@pytest.mark.parametrize(("zone", "fires"), [("UTC", "10:00"), ("Asia/Tokyo", "01:00"), ("America/New_York", "15:00")])
async def test_a_zone_moves_the_start(scene: Scene, zone: str, fires: str) -> None:
    """Ten o'clock is ten o'clock in the schedule's own zone."""
    uid = await scene.add(schedule={"cron": "0 10 * * *", "timezone": zone})
    assert scene.upcoming(uid, 1) == [fires]


async def test_a_deleted_task_lets_its_run_end(scene: Scene) -> None:
    """Deletion starts nothing any more and does not touch what runs."""
    uid = await scene.add(schedule=HOURLY, overlap="allow_all", timeout="12h")
    scene.to("13:00")
    (run,) = await scene.claim(lease=12 * HOUR)
    await scene.delete(uid)
    scene.to("14:00")
    await scene.plan()
    assert await scene.claim() == []
    assert scene.ledger(uid) == ["13:00 RUNNING"]
    assert await scene.finish(run) is None


async def test_a_failed_run_does_not_stop_the_next(scene: Scene) -> None:
    """A run that failed is over: the next slot starts on time."""
    uid = await scene.add(schedule=HOURLY)
    scene.to("13:00")
    (run,) = await scene.claim()
    await scene.finish(run, "failed")
    scene.to("14:00")
    assert len(await scene.claim()) == 1
    assert scene.ledger(uid) == ["13:00 FAILED error", "14:00 RUNNING"]


async def test_a_start_has_a_name_of_its_own(scene: Scene) -> None:
    """The id of a start follows from task and nominal time, so that planning again finds it made already."""
    uid = await scene.add(schedule=HOURLY)
    before = {row["id"] for row in scene.executions(uid, upcoming=True)}
    scene.database.do("UPDATE task_plan SET planned_until = effective_from, plan_due_at = %s", scene.now)
    await scene.plan()
    assert {row["id"] for row in scene.executions(uid, upcoming=True)} == before
    other = await scene.add("other", schedule=HOURLY)
    assert not before & {row["id"] for row in scene.executions(other, upcoming=True)}
    assert plan_of(scene.database, uid)["plan_due_at"] > scene.now - DAY
