"""What Temporal's schedules are tested for, told anew for slots on a real database.

Its names stand in the docstrings: overlap policies, catch-up window, pause, update, trigger, jitter.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cron_observer.lifecycle import Run
from support.databases import Tenant
from support.scenes import HOUR, MINUTE, SECOND, Scene, clock, times

MINUTELY = {"cron": "* * * * *"}
HOURLY = {"cron": "0 * * * *"}
ALL = {"policy": "all", "window": "1h", "maxRuns": 100}


@pytest.fixture
def scene(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Monday, noon."""
    return Scene(tenant, monkeypatch)


async def busy(scene: Scene, **spec: Any) -> tuple[Any, Run]:
    """Run a minutely task from 12:01 to 12:04:30, with workers asking all the while; return it and its first run."""
    uid = await scene.add(schedule=MINUTELY, **spec)
    scene.to("12:01")
    (first,) = await scene.claim(lease=HOUR)
    for minute in ("12:02", "12:03", "12:04"):
        scene.to(minute)
        assert await scene.claim() == []
    scene.to("12:04:30")
    return uid, first


async def one_after_the_other(scene: Scene) -> list[str]:
    """Claim and finish as long as there is something; return the fire times."""
    ran = []
    while runs := await scene.claim(1):
        scene.wait(SECOND)
        await scene.finish(runs[0])
        ran.append(clock(runs[0].fire_at))
    return ran


async def test_it_runs_at_its_times(scene: Scene) -> None:
    """What Temporal calls Start: at each time one run, and none between."""
    uid = await scene.add(schedule={"cron": "*/5 * * * *"})
    for minute in range(1, 16):
        scene.to(f"12:{minute:02}")
        runs = await scene.claim()
        assert len(runs) == (minute % 5 == 0)
        for run in runs:
            await scene.finish(run)
    assert scene.ledger(uid) == ["12:05 FINISHED", "12:10 FINISHED", "12:15 FINISHED"]


async def test_overlap_skip(scene: Scene) -> None:
    """OverlapSkip: what falls due beside a run does not run, and says so."""
    uid, first = await busy(scene, overlap="skip")
    await scene.finish(first)
    assert await one_after_the_other(scene) == []
    skipped = [f"{minute} SKIPPED overlap" for minute in ("12:02", "12:03", "12:04")]
    assert scene.ledger(uid) == ["12:01 FINISHED", *skipped]


async def test_overlap_buffer_one(scene: Scene) -> None:
    """OverlapBufferOne: the first that falls due beside a run waits for its end, the others do not run."""
    uid, first = await busy(scene, overlap="buffer_one")
    await scene.finish(first)
    assert await one_after_the_other(scene) == ["12:02"]
    assert [line.split(" (")[0] for line in scene.ledger(uid)] == [
        "12:01 FINISHED", "12:02 FINISHED", "12:03 SKIPPED overlap", "12:04 SKIPPED overlap",
    ]  # fmt: skip


async def test_overlap_buffer_all(scene: Scene) -> None:
    """OverlapBufferAll: whatever falls due beside a run waits, and runs one after the other, oldest first."""
    uid, first = await busy(scene, overlap="buffer_all")
    assert await scene.claim() == []
    await scene.finish(first)
    assert await one_after_the_other(scene) == ["12:02", "12:03", "12:04"]
    assert all("FINISHED" in line for line in scene.ledger(uid))


async def test_overlap_cancel_other(scene: Scene) -> None:
    """OverlapCancelOther: the run is asked to stop, the newest slot waits until it has, those between do not run."""
    uid = await scene.add(schedule={"every": "10s"}, overlap="cancel_other")
    scene.to("12:01")
    (first,) = await scene.claim()
    for second in ("10", "20"):
        scene.to(f"12:01:{second}")
        assert await scene.claim() == []
        assert scene.row(first)["cancel_requested_at"] is not None
    scene.to("12:01:25")
    assert await scene.finish(first, "cancelled") is None
    (second,) = await scene.claim()
    assert clock(second.fire_at) == "12:01:20"
    lines = scene.ledger(uid)[-3:]
    assert lines[0].startswith("12:01 CANCELLED")
    assert lines[1:] == ["12:01:10 SKIPPED overlap", "12:01:20 RUNNING"]


async def test_overlap_cancel_other_needs_no_scheduler(scene: Scene) -> None:
    """The worker of a run learns from its own heartbeat that a newer slot is due, whoever else is there."""
    await scene.add(schedule=MINUTELY, overlap="cancel_other")
    scene.to("12:01")
    (first,) = await scene.claim()
    scene.to("12:01:30")
    assert not await scene.beat(first)
    scene.to("12:02")
    assert await scene.beat(first)


async def test_a_run_that_does_not_stop_is_ended(scene: Scene) -> None:
    """Who is asked to stop and does not is ended after its grace; then the newest slot runs."""
    uid = await scene.add(schedule=MINUTELY, overlap="cancel_other", timeout="12h")
    scene.to("12:01")
    assert len(await scene.claim(lease=12 * HOUR)) == 1
    scene.to("12:02")
    assert await scene.claim() == []
    scene.to("12:02:31")
    (second,) = await scene.claim()
    assert clock(second.fire_at) == "12:02"
    assert [line.split()[1] for line in scene.ledger(uid)] == ["CANCELLED", "RUNNING"]


async def test_overlap_terminate_other(scene: Scene) -> None:
    """OverlapTerminateOther: each slot takes the place of the run before it at once, and that has lost its say."""
    uid = await scene.add(schedule=MINUTELY, overlap="terminate_other")
    runs = []
    for minute in ("12:01", "12:02", "12:03"):
        scene.to(minute)
        runs += await scene.claim()
    assert len(runs) == 3
    assert await scene.finish(runs[0]) == "already_final"
    assert await scene.finish(runs[2]) is None
    ended = ["12:01 CANCELLED overlap", "12:02 CANCELLED overlap"]
    assert scene.ledger(uid) == [*ended, "12:03 FINISHED"]


async def test_overlap_allow_all(scene: Scene) -> None:
    """OverlapAllowAll: runs stand beside each other."""
    uid = await scene.add(schedule=MINUTELY, overlap="allow_all")
    for minute in ("12:01", "12:02", "12:03"):
        scene.to(minute)
        assert len(await scene.claim()) == 1
    assert scene.ledger(uid) == ["12:01 RUNNING", "12:02 RUNNING", "12:03 RUNNING"]


async def test_allow_all_up_to_a_number(scene: Scene) -> None:
    """With maxParallel 2 the third waits until one of two is done, and is not skipped meanwhile."""
    uid = await scene.add(schedule=MINUTELY, overlap="allow_all", maxParallel=2)
    runs = []
    for minute in ("12:01", "12:02", "12:03"):
        scene.to(minute)
        runs += await scene.claim()
    assert len(runs) == 2
    assert scene.ledger(uid)[2] == "12:03 PENDING"
    await scene.finish(runs[1])
    (third,) = await scene.claim()
    assert clock(third.fire_at) == "12:03"


async def test_buffers_are_bounded(scene: Scene) -> None:
    """BufferLimit: a thousand wait, the newest beyond do not run and say so; a run's end lets the oldest go on."""
    uid = await scene.add(schedule={"every": "1s"}, overlap="buffer_all", catchup=ALL, timeout="12h")
    scene.to("12:00:06")
    (first,) = await scene.claim(1, lease=12 * HOUR)
    for minute in range(2, 20, 2):
        scene.to(f"12:{minute:02}")
        await scene.tick()
    rows = scene.executions(uid)
    assert [row["status"] for row in rows if row["status"] == "PENDING"] == ["PENDING"] * 1000
    assert {row["reason"] for row in rows if row["status"] == "SKIPPED"} == {"overlap"}
    assert rows[-1]["status"] == "SKIPPED"
    await scene.finish(first)
    (second,) = await scene.claim(1)
    assert clock(second.fire_at) == "12:00:07"


async def test_the_policy_may_change_while_slots_wait(scene: Scene) -> None:
    """Update of the overlap policy: what has not begun obeys the new one, what runs goes on."""
    uid, first = await busy(scene, overlap="buffer_all")
    await scene.edit(uid, schedule=MINUTELY, overlap="skip")
    await scene.finish(first)
    assert await one_after_the_other(scene) in ([], ["12:04"])
    lines = scene.ledger(uid)
    assert lines[0] == "12:01 FINISHED"
    assert lines[1:3] == ["12:02 SKIPPED overlap", "12:03 SKIPPED overlap"]


async def test_the_catch_up_window(scene: Scene) -> None:
    """CatchupWindow: after an absence what is younger than the window runs in its order, the rest is too late."""
    catchup = {"policy": "all", "window": "35m", "maxRuns": 10}
    uid = await scene.add(schedule={"cron": "*/10 * * * *"}, catchup=catchup, overlap="buffer_all")
    scene.to("14:01")
    await scene.plan()
    assert await one_after_the_other(scene) == ["13:30", "13:40", "13:50", "14:00"]
    lines = scene.ledger(uid)
    assert lines[:9] == [f"{time} SKIPPED too_late" for time in times("12:10", 10 * MINUTE, 8)] + [
        "13:30 FINISHED (catchup)"
    ]


async def test_the_most_that_are_caught_up(scene: Scene) -> None:
    """Of many in the window the newest maxRuns run, the others are too late."""
    uid = await scene.add(
        schedule=MINUTELY, catchup={"policy": "all", "window": "1h", "maxRuns": 3}, overlap="buffer_all"
    )
    scene.to("12:20")
    await scene.plan()
    assert await one_after_the_other(scene) == ["12:18", "12:19", "12:20"]
    assert scene.ledger(uid)[:17] == [f"{time} SKIPPED too_late" for time in times("12:01", MINUTE, 17)]


@pytest.mark.parametrize(("policy", "ran"), [("none", []), ("last", ["12:50"])])
async def test_catching_up_little(scene: Scene, policy: str, ran: list[str]) -> None:
    """`none` runs only what is on time, `last` the newest; nothing is lost of what did not run."""
    uid = await scene.add(schedule={"cron": "*/10 * * * *"}, catchup={"policy": policy})
    scene.to("12:55")
    await scene.plan()
    assert await one_after_the_other(scene) == ran
    assert len(scene.ledger(uid)) == 5
    assert {line.split(" ", 1)[1] for line in scene.ledger(uid)} <= {"SKIPPED too_late", "FINISHED (catchup)"}


async def test_nothing_is_caught_up_of_a_pause(scene: Scene) -> None:
    """CatchupWindowWhilePaused: slots of a pause are recorded as such, never run, and never counted as missed."""
    uid = await scene.add(schedule={"cron": "*/10 * * * *"}, catchup=ALL, overlap="buffer_all")
    scene.to("12:15")
    for run in await scene.claim():
        await scene.finish(run)
    await scene.pause(uid)
    for time in ("12:50", "13:30", "14:05"):
        scene.to(time)
        await scene.tick()
        assert await scene.claim() == []
    await scene.resume(uid)
    scene.wait(6 * SECOND)
    await scene.tick()
    assert await scene.claim() == []
    paused = [f"{time} SKIPPED paused" for time in times("12:20", 10 * MINUTE, 11)]
    assert scene.ledger(uid) == ["12:10 FINISHED (catchup)", *paused]
    scene.to("14:10")
    assert len(await scene.claim()) == 1


async def test_a_pause_leaves_alone_what_runs(scene: Scene) -> None:
    """PauseUnpause: a run in flight goes on, asked-for runs are made, and the next slot after the pause is on time."""
    uid = await scene.add(schedule={"cron": "*/10 * * * *"}, timeout="12h")
    scene.to("12:10")
    (run,) = await scene.claim(lease=12 * HOUR)
    await scene.pause(uid)
    scene.to("12:25")
    await scene.tick()
    assert await scene.finish(run) is None
    await scene.trigger(uid)
    (asked,) = await scene.claim()
    assert await scene.finish(asked) is None
    await scene.resume(uid)
    scene.to("12:30")
    assert len(await scene.claim()) == 1
    assert scene.ledger(uid) == [
        "12:10 FINISHED", "12:20 SKIPPED paused", "12:25 FINISHED (manual)", "12:30 RUNNING",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("on_resume", "made"), [("skip", []), ("last", ["13:00"]), ("all", ["12:30", "12:40", "12:50", "13:00"])]
)
async def test_what_a_pause_says_of_its_end(scene: Scene, on_resume: str, made: list[str]) -> None:
    """On resuming nothing, the newest or every slot of the pause is made up for; the slots themselves stay paused."""
    uid = await scene.add(schedule={"cron": "*/10 * * * *"}, overlap="buffer_all")
    scene.to("12:25")
    for run in await scene.claim():
        await scene.finish(run)
    await scene.pause(uid, on_resume=on_resume)
    scene.to("13:05")
    await scene.tick()
    await scene.resume(uid)
    scene.wait(6 * SECOND)
    await scene.tick()
    runs = []
    while got := await scene.claim(1):
        await scene.finish(got[0])
        runs.append(scene.row(got[0]))
    assert [clock(row["nominal_at"]) for row in runs] == made
    assert {row["trigger"] for row in runs} <= {"catchup"}
    slots = [row for row in scene.executions(uid) if row["trigger"] == "schedule" and row["reason"] == "paused"]
    assert [clock(row["fire_at"]) for row in slots] == ["12:30", "12:40", "12:50", "13:00"]
    assert {row["repeats"] for row in runs} <= {row["id"] for row in slots}


async def test_a_pause_that_ends_by_itself(scene: Scene) -> None:
    """A pause with an end is over then: slots behind it run, with nobody doing anything."""
    uid = await scene.add(schedule={"cron": "*/10 * * * *"})
    scene.to("12:05")
    await scene.pause(uid, until=scene.now + 20 * MINUTE)
    for time in ("12:10", "12:20", "12:30"):
        scene.to(time)
        for run in await scene.claim():
            await scene.finish(run)
    assert scene.ledger(uid) == ["12:10 SKIPPED paused", "12:20 SKIPPED paused", "12:30 FINISHED"]


async def test_an_update_is_never_retroactive(scene: Scene) -> None:
    """UpdateNotRetroactive: times that the new schedule would have had before its change have no slot."""
    uid = await scene.add(schedule=HOURLY)
    scene.to("12:47")
    await scene.edit(uid, schedule={"cron": "*/5 * * * *"})
    await scene.plan()
    scene.to("12:51")
    assert len(await scene.claim()) == 1
    assert scene.ledger(uid) == ["12:50 RUNNING"]


async def test_an_update_that_says_the_same(scene: Scene) -> None:
    """A change that leaves the schedule alone touches no slot: same rows, same ids, whatever is due stays due."""
    uid = await scene.add(schedule={"every": "7m"}, overlap="allow_all")
    scene.to("12:30")
    await scene.plan()
    before = scene.executions(uid, upcoming=True)
    await scene.edit(uid, schedule={"every": "7m"}, overlap="allow_all", timeout="2h", description="new")
    await scene.plan()
    assert scene.executions(uid, upcoming=True) == before


JITTERED = {"cron": "0 * * * *", "jitter": "20m"}


@pytest.mark.parametrize("change", ["nothing", "timeout", "schedule"])
async def test_an_update_between_nominal_time_and_jitter(scene: Scene, change: str) -> None:
    """UpdateBetweenNominalAndJitter: a slot whose nominal time has passed fires once, as drawn, whatever changes."""
    uid = await scene.add(schedule=JITTERED)
    (slot, *_) = scene.executions(uid, upcoming=True)
    assert (clock(slot["nominal_at"]), slot["moved_by"]) == ("13:00", "jitter")
    assert timedelta(0) < slot["fire_at"] - slot["nominal_at"] < 20 * MINUTE
    scene.now = slot["nominal_at"] + (slot["fire_at"] - slot["nominal_at"]) / 3
    more: dict[str, Any] = {"timeout": {"timeout": "2h"}}.get(change, {})
    await scene.edit(uid, schedule={**JITTERED, "cron": "0,59 * * * *"} if change == "schedule" else JITTERED, **more)
    await scene.plan()
    scene.now = slot["fire_at"] - SECOND
    assert await scene.claim() == []
    scene.now = slot["fire_at"]
    (run,) = await scene.claim()
    assert run.id == slot["id"]
    assert len([row for row in scene.executions(uid) if row["nominal_at"] == slot["nominal_at"]]) == 1


async def test_jitter_never_reaches_the_next_slot(scene: Scene) -> None:
    """However wide the jitter, each slot fires before the next nominal time, and always at the same instant."""
    uid = await scene.add(schedule={"cron": "* * * * *", "jitter": "1h"})
    rows = scene.executions(uid, upcoming=True)
    assert len(rows) >= 60
    assert all(row["nominal_at"] <= row["fire_at"] < row["nominal_at"] + MINUTE for row in rows)
    assert len({row["fire_at"] - row["nominal_at"] for row in rows}) > 20
    again = await scene.add("same-but-another", schedule={"cron": "* * * * *", "jitter": "1h"})
    assert [row["fire_at"] for row in scene.executions(again, upcoming=True)] != [row["fire_at"] for row in rows]


async def test_a_run_that_is_asked_for(scene: Scene) -> None:
    """TriggerImmediate: it is due at once, is no slot, and the schedule goes on beside it."""
    uid = await scene.add(schedule=HOURLY)
    scene.to("12:20")
    await scene.trigger(uid)
    (run,) = await scene.claim()
    await scene.finish(run)
    scene.to("13:00")
    (slot,) = await scene.claim()
    await scene.finish(slot)
    assert scene.ledger(uid) == ["12:20 FINISHED (manual)", "13:00 FINISHED"]


async def test_a_run_that_is_asked_for_waits_its_turn(scene: Scene) -> None:
    """Beside a run it waits for the place; forced it does not."""
    uid = await scene.add(schedule=HOURLY, timeout="12h")
    scene.to("13:00")
    (run,) = await scene.claim(lease=12 * HOUR)
    scene.to("13:10")
    await scene.trigger(uid)
    assert await scene.claim() == []
    await scene.trigger(uid, force=True)
    (forced,) = await scene.claim()
    assert scene.row(forced)["forced"]
    await scene.finish(forced)
    await scene.finish(run)
    (asked,) = await scene.claim()
    await scene.finish(asked)
    assert scene.ledger(uid) == ["13:00 FINISHED", "13:10 FINISHED (manual)", "13:10 FINISHED (manual)"]


async def test_a_schedule_that_ends(scene: Scene) -> None:
    """Start and end bound the slots: none before, none from the end on, and nobody plans it any more."""
    bounds = {"startAt": "2026-03-02T12:30:00", "endAt": "2026-03-02T13:00:00"}
    uid = await scene.add(schedule={"cron": "*/10 * * * *", **bounds})
    assert scene.upcoming(uid, 9) == ["12:30", "12:40", "12:50"]
    scene.to("13:10")
    await scene.plan()
    assert await one_after_the_other(scene) == ["12:50"]
    assert scene.upcoming(uid, 9) == []
    assert scene.database.value("SELECT plan_due_at FROM task_plan WHERE task_uid = %s", uid) is None


async def test_a_lateness_of_its_own(scene: Scene) -> None:
    """maxLateness judges each slot when it would start, waiting ones as well."""
    uid, first = await busy(scene, overlap="buffer_all", maxLateness="2m")
    await scene.finish(first)
    assert await one_after_the_other(scene) == ["12:03", "12:04"]
    assert scene.ledger(uid)[1] == "12:02 SKIPPED too_late"
