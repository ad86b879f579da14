"""Places on a real database: each overlap policy, task groups, backfills, windows and pauses, as workers see them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from cron_observer.schedule import new_id
from cron_observer.store import logs
from cron_observer.store.engine import clock
from cron_observer.store.executions import (
    AppendLogs,
    Heartbeat,
    PatchRunning,
    Release,
    Start,
    candidates,
    create_manual,
    create_running,
    expire,
    settle_waiting,
    settling,
)
from support.claims import SECOND, claimed, complete, said, seat
from support.databases import FreshDatabase, Tenant
from support.places import holders, make_backfill, make_group, pause
from support.rows import database_now, events, make_slot, make_task, state

MINUTE = timedelta(minutes=1)
EVERY = {"catchup": {"policy": "all", "window": None, "maxRuns": 10}}


async def ticked(tenant: Tenant, now: datetime) -> None:
    """Let the scheduler look at everything that waits."""
    async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
        await expire(conn, tenant.tenant_id, now)
        await settle_waiting(conn, tenant.tenant_id, now, None)


async def ids(tenant: Tenant, wanted: int = 10, now: datetime | None = None, **values: Any) -> list[UUID]:
    """Claim and return what was given."""
    return [run.id for run in await claimed(tenant.database.api, tenant, seat(wanted, **values), now=now)]


def told(database: FreshDatabase, *slots: UUID) -> list[str]:
    """Return status and reason of each as one word."""
    return [":".join(filter(None, state(database, slot))) for slot in slots]


async def test_buffer_all_runs_one_after_the_other(database: FreshDatabase, tenant: Tenant) -> None:
    """With buffer_all every slot runs, the oldest first, each when the one before it has ended; none beside another."""
    now, task = database_now(database), make_task(tenant, overlap="buffer_all", **EVERY)
    slots = [make_slot(tenant, task, now - (30 - n) * SECOND) for n in range(4)]
    for number, slot in enumerate(slots):
        assert await ids(tenant) == [slot]
        assert await ids(tenant) == []
        assert told(database, *slots[number + 1 :]) == ["PENDING"] * (3 - number)
        await said(database, complete(tenant, slot))

    assert await ids(tenant) == []
    assert database.value("SELECT count(*) FROM active_runs") == 0


async def test_a_buffer_outlives_catch_up(database: FreshDatabase, tenant: Tenant) -> None:
    """What waits in a buffer runs however long that takes; it is no catch-up run, and its history says since when."""
    now, task = database_now(database), make_task(tenant, overlap="buffer_all", catchup={"policy": "none"})
    first, second = make_slot(tenant, task, now - 2 * SECOND), make_slot(tenant, task, now - SECOND)
    assert await ids(tenant, lease=3600) == [first]
    await ticked(tenant, now)
    await said(database, complete(tenant, first), now=now + 30 * MINUTE)

    (run,) = await claimed(database.api, tenant, now=now + 31 * MINUTE)
    assert (run.id, run.trigger, run.held_at) == (second, "schedule", None)
    (event,) = database.rows("SELECT data FROM execution_events WHERE execution_id = %s", second)
    assert event["data"].keys() == {"waited_since"}


async def test_buffer_one_keeps_the_oldest(database: FreshDatabase, tenant: Tenant) -> None:
    """With buffer_one the oldest slot waits while the task is active; the others are skipped, also without claims."""
    now, task = database_now(database), make_task(tenant, overlap="buffer_one", **EVERY)
    first = make_slot(tenant, task, now - 10 * SECOND)
    assert await ids(tenant) == [first]
    waits, over, later = (make_slot(tenant, task, now - n * SECOND) for n in (5, 4, 3))
    await ticked(tenant, now)

    assert told(database, waits, over, later) == ["PENDING", "SKIPPED:overlap", "SKIPPED:overlap"]
    await said(database, complete(tenant, first))
    assert await ids(tenant) == [waits]


async def test_allow_all_up_to_its_places(database: FreshDatabase, tenant: Tenant) -> None:
    """With maxParallel so many run at once; the others wait for a place, in the order in which they fell due."""
    now, task = database_now(database), make_task(tenant, overlap="allow_all", maxParallel=2, **EVERY)
    slots = [make_slot(tenant, task, now - (30 - n) * SECOND) for n in range(5)]
    assert await ids(tenant) == slots[:2]
    assert await ids(tenant) == []
    await said(database, complete(tenant, slots[1]))
    assert await ids(tenant) == slots[2:3]
    await said(database, complete(tenant, slots[0]), complete(tenant, slots[2]))

    assert await ids(tenant) == slots[3:]
    assert {scope: set(some) for scope, some in holders(database).items()} == {f"task:{task}": set(slots[3:])}


async def test_a_retry_keeps_its_places(database: FreshDatabase, tenant: Tenant) -> None:
    """Through the wait for a retry the places of task and group are kept; the end gives all of them back."""
    make_group(tenant, maxParallel=1)
    now, retries = database_now(database), {"max": 1, "initial": "10s", "backoff": "constant"}
    task, other = make_task(tenant, group="batch", retries=retries), make_task(tenant, "other", group="batch")
    slot, waits = make_slot(tenant, task, now - 2 * SECOND), make_slot(tenant, other, now - SECOND)
    assert await ids(tenant, now=now) == [slot]
    await said(database, complete(tenant, slot, "failed"), now=now)

    assert await ids(tenant, now=now + SECOND) == []
    assert list(holders(database).values()) == [[slot], [slot]]
    assert await ids(tenant, now=now + 11 * SECOND) == [slot]
    await said(database, complete(tenant, slot, fence=2), now=now + 12 * SECOND)
    assert await ids(tenant, now=now + 13 * SECOND) == [waits]


async def test_terminate_other(database: FreshDatabase, tenant: Tenant) -> None:
    """A newer slot ends the run before it in the claim that starts it; the old worker is told with its next report."""
    now, task = database_now(database), make_task(tenant, overlap="terminate_other")
    old = make_slot(tenant, task, now - 10 * SECOND)
    assert await ids(tenant) == [old]
    new = make_slot(tenant, task, now - SECOND)
    await ticked(tenant, now)
    assert told(database, old, new) == ["RUNNING", "PENDING"], "only a worker that takes the new one ends the old one"
    assert await ids(tenant) == [new]

    assert told(database, old, new) == ["CANCELLED:overlap", "RUNNING"]
    assert events(database, old) == ["claimed", "cancelled"]
    assert holders(database) == {f"task:{task}": [new]}
    beat = Heartbeat(tenant_id=tenant.tenant_id, id=old, fence=1)
    answers = [(await said(database, report))[0] for report in (beat, complete(tenant, old))]
    assert [answer.refusal and answer.refusal.code for answer in answers] == ["already_final", "already_final"]
    assert database.value("SELECT outcome FROM attempts WHERE execution_id = %s", old) == "cancelled"


async def test_terminate_ends_a_retry_too(database: FreshDatabase, tenant: Tenant) -> None:
    """What waits for its retry holds the place still, and gives way as well."""
    now, task = database_now(database), make_task(tenant, overlap="terminate_other", retries={"max": 3})
    old = make_slot(tenant, task, now - 10 * SECOND)
    await ids(tenant)
    await said(database, complete(tenant, old, "failed"))
    new = make_slot(tenant, task, now - SECOND)

    assert await ids(tenant) == [new]
    assert told(database, old, new) == ["CANCELLED:overlap", "RUNNING"]


async def test_cancel_other(database: FreshDatabase, tenant: Tenant) -> None:
    """A newer slot asks the run before it to stop, and waits for that; after 30 s the old one is cancelled for it."""
    now, task = database_now(database), make_task(tenant, overlap="cancel_other", **EVERY)
    old = make_slot(tenant, task, now - 10 * SECOND)
    assert await ids(tenant, lease=3600) == [old]
    skipped, new = make_slot(tenant, task, now - 2 * SECOND), make_slot(tenant, task, now - SECOND)
    assert await ids(tenant) == []

    (row,) = database.rows("SELECT cancel_by, cancel_reason, cancel_deadline FROM executions WHERE id = %s", old)
    assert (row["cancel_by"], str(new) in row["cancel_reason"]) == ("overlap", True)
    assert told(database, old, skipped, new) == ["RUNNING", "SKIPPED:overlap", "PENDING"]
    later = row["cancel_deadline"] + SECOND
    assert await ids(tenant, now=later) == [new]
    assert told(database, old, new) == ["CANCELLED:overlap", "RUNNING"]


@pytest.mark.parametrize("kind", ["beat", "log", "start"])
async def test_replies_ask_to_stop(database: FreshDatabase, tenant: Tenant, kind: str) -> None:
    """A worker hears of the newer slot in its next reply, though nobody has looked since that fell due."""
    now, task = database_now(database), make_task(tenant, overlap="cancel_other")
    old = make_slot(tenant, task, now - 10 * SECOND)
    assert await ids(tenant) == [old]
    base: dict[str, Any] = {"tenant_id": tenant.tenant_id, "id": old, "fence": 1}
    lines = logs.encode([{"level": "INFO", "message": "x"}])
    report = {"beat": Heartbeat(**base), "log": AppendLogs(**base, first_seq=0, lines=lines), "start": Start(**base)}[
        kind
    ]
    if kind != "start":
        assert not (await said(database, report))[0].stop
    make_slot(tenant, task, now - SECOND)
    (answer,) = await said(database, report)

    assert answer.refusal is None
    assert answer.stop or (answer.run is not None and answer.run.cancel_requested_at is not None)
    assert database.value("SELECT started_at IS NOT NULL FROM executions WHERE id = %s", old)
    await said(database, complete(tenant, old, "cancelled"))
    assert told(database, old) == ["CANCELLED:cancelled" if kind == "start" else "CANCELLED:overlap"]


async def test_a_group_has_so_many_places(database: FreshDatabase, tenant: Tenant) -> None:
    """Tasks of a group run so many at once altogether; the others wait, and none of them is lost."""
    make_group(tenant, maxParallel=2)
    now = database_now(database)
    tasks = [make_task(tenant, f"t{n}", group="batch", catchup={"policy": "none"}) for n in range(5)]
    slots = [make_slot(tenant, task, now - (30 - n) * SECOND) for n, task in enumerate(tasks)]
    seen: list[UUID] = []
    for expected in (slots[:2], slots[2:4], slots[4:]):
        assert await ids(tenant) == expected
        assert await ids(tenant) == []
        assert [len(some) for some in holders(database, "group:").values()] == [len(expected)]
        await said(database, *(complete(tenant, slot) for slot in expected))
        now += 5 * MINUTE
        seen += expected

    assert seen == slots
    assert database.value("SELECT count(*) FROM active_runs") == 0


async def test_a_full_group_hides_nothing(database: FreshDatabase, tenant: Tenant) -> None:
    """However much waits for places, of tasks or of a group, a worker gets what can run, and at once."""
    make_group(tenant, maxParallel=1)
    now = database_now(database)
    running = make_slot(tenant, make_task(tenant, "running", group="batch"), now - 50 * SECOND, priority=9)
    assert await ids(tenant, 1) == [running]
    for number in range(40):
        make_slot(tenant, make_task(tenant, f"t{number}", group="batch"), now - 40 * SECOND)
    buffered = make_task(tenant, "buffered", overlap="buffer_all", **EVERY)
    make_backfill(tenant, buffered, 30)
    free = make_slot(tenant, make_task(tenant, "free"), database_now(database))

    assert len(await ids(tenant, 1)) == 1, "the backfill begins"
    assert await ids(tenant, 1) == [free]


async def test_forced_and_manual_runs_in_a_group(database: FreshDatabase, tenant: Tenant) -> None:
    """A manual run takes the places of task and group; force passes over the task's, not over the group's."""
    make_group(tenant, maxParallel=1)
    task = make_task(tenant, group="batch")

    async def trigger(force: bool) -> UUID:
        async with database.api.transaction([tenant.tenant_id]) as conn:
            return await create_manual(conn, tenant.tenant_id, task, force=force, actor="me", now=await clock(conn))

    first = await trigger(False)
    assert await ids(tenant) == [first]
    assert len(holders(database)) == 2
    forced = await trigger(True)
    assert await ids(tenant) == []
    await said(database, complete(tenant, first))
    assert await ids(tenant) == [forced]
    assert list(holders(database)) == list(holders(database, "group:"))


async def test_a_run_of_its_own_takes_what_is_free(database: FreshDatabase, tenant: Tenant) -> None:
    """A run that a worker began itself holds the places of task and group as far as they are free."""
    make_group(tenant, maxParallel=1)
    task, other = make_task(tenant, group="batch"), make_task(tenant, "other", group="batch")
    begun = []
    for uid in (task, other):
        async with database.api.transaction([tenant.tenant_id]) as conn:
            now = await clock(conn)
            begun.append(new_id(now))
            await create_running(
                conn, tenant.tenant_id, uid, identity=begun[-1], worker="w", lease=30 * SECOND,
                scheduled_for=None, started_at=None, now=now,
            )  # fmt: skip

    assert list(holders(database, "group:").values()) == [[begun[0]]]
    assert holders(database, "task:") == {f"task:{task}": [begun[0]], f"task:{other}": [begun[1]]}


async def test_a_backfill_runs_beside_itself_so_often(database: FreshDatabase, tenant: Tenant) -> None:
    """Runs of a backfill take its places, in its order, and that of an exclusive task as well."""
    free, busy = make_task(tenant, "free", overlap="allow_all"), make_task(tenant, "busy")
    runs, single = make_backfill(tenant, free, 5, max_parallel=2), make_backfill(tenant, busy, 3, max_parallel=2)
    tasks = {"tasks": frozenset([free])}
    assert await ids(tenant, **tasks) == runs[:2]
    assert await ids(tenant, **tasks) == []
    await said(database, complete(tenant, runs[0]))
    assert await ids(tenant, **tasks) == runs[2:3]
    assert await ids(tenant) == single[:1]
    slot = make_slot(tenant, busy, database_now(database))
    assert await ids(tenant) == []

    assert told(database, slot, *single[1:]) == ["SKIPPED:overlap", "PENDING", "PENDING"]


async def test_a_window_closes(database: FreshDatabase, tenant: Tenant) -> None:
    """At the end of its group's window what has not begun is skipped; what runs is let run, or stopped."""
    now, closes = database_now(database), database_now(database) + MINUTE
    make_group(tenant, "kind"), make_group(tenant, "strict", onWindowClose="cancel")
    kind, strict = make_task(tenant, "kind", group="kind"), make_task(tenant, "strict", group="strict")
    slots = [make_slot(tenant, task, now - SECOND, closes_at=closes) for task in (kind, strict)]
    late = make_slot(tenant, make_task(tenant, "late", group="kind"), now, closes_at=closes, queue="nobody")
    assert sorted(await ids(tenant, lease=3600)) == sorted(slots)
    await ticked(tenant, closes)

    assert told(database, *slots, late) == ["RUNNING", "RUNNING", "SKIPPED:window"]
    asked = database.rows("SELECT id, cancel_by, cancel_deadline FROM executions WHERE cancel_by IS NOT NULL")
    assert asked == [{"id": slots[1], "cancel_by": "window", "cancel_deadline": closes + 30 * SECOND}]
    await ticked(tenant, closes + 31 * SECOND)
    assert told(database, *slots) == ["RUNNING", "CANCELLED:window"]


async def test_a_beat_hears_of_the_window(database: FreshDatabase, tenant: Tenant) -> None:
    """The first heartbeat after the end of the window is told to stop; a retry past it does not begin."""
    now, closes = database_now(database), database_now(database) + MINUTE
    make_group(tenant, "strict", onWindowClose="cancel")
    task = make_task(tenant, group="strict", retries={"max": 3, "initial": "90s", "backoff": "constant"})
    other = make_task(tenant, "other", group="strict", retries={"max": 3, "initial": "90s", "backoff": "constant"})
    slots = [make_slot(tenant, one, now - SECOND, closes_at=closes) for one in (task, other)]
    assert sorted(await ids(tenant, lease=3600)) == sorted(slots)
    await said(database, complete(tenant, slots[1], "failed"), now=now)
    (answer,) = await said(database, Heartbeat(tenant_id=tenant.tenant_id, id=slots[0], fence=1), now=closes)

    assert answer.run is not None
    assert answer.run.cancel_by == "window"
    assert await ids(tenant, now=closes + 40 * SECOND) == []
    assert told(database, *slots) == ["CANCELLED:window", "FAILED:window"]


async def test_a_paused_task_starts_no_slot(database: FreshDatabase, tenant: Tenant) -> None:
    """Due slots of a paused task are skipped, held ones too, by name as well; manual runs and retries go on."""
    now, task = database_now(database), make_task(tenant, retries={"max": 3, "initial": "1s"})
    slot, manual_task = make_slot(tenant, task, now - SECOND), make_task(tenant, "manual")
    assert await ids(tenant) == [slot]
    pause(tenant, task, now), pause(tenant, manual_task, now)
    due = [make_slot(tenant, one, now) for one in (task, manual_task)]
    named = make_slot(tenant, manual_task, now - 2 * SECOND)
    (answer,) = await said(database, PatchRunning(tenant_id=tenant.tenant_id, id=named, worker="w"))
    assert answer.refusal is not None
    async with database.api.transaction([tenant.tenant_id]) as conn:
        manual = await create_manual(conn, tenant.tenant_id, manual_task, actor="me", now=await clock(conn))
    await said(database, complete(tenant, slot, "failed"))

    assert set(await ids(tenant, now=database_now(database) + 2 * SECOND)) == {manual, slot}
    assert told(database, *due, named) == ["SKIPPED:paused"] * 3


async def test_a_release_keeps_its_place(database: FreshDatabase, tenant: Tenant) -> None:
    """What is given back undone begins again before what waited behind it."""
    now, task = database_now(database), make_task(tenant, overlap="buffer_all", **EVERY)
    first, second = make_slot(tenant, task, now - 9 * SECOND), make_slot(tenant, task, now - 8 * SECOND)
    assert await ids(tenant) == [first]
    await said(database, Release(tenant_id=tenant.tenant_id, id=first, fence=1, reason="deploy"))

    assert await ids(tenant) == [first]
    assert told(database, second) == ["PENDING"]


async def test_many_tasks_with_buffers_take_turns(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More tasks with something held than one look goes through are all served in the end."""
    monkeypatch.setattr(candidates, "_HELD_TASKS", 2)
    now = database_now(database)
    tasks = [make_task(tenant, f"t{n}", overlap="buffer_all", **EVERY) for n in range(7)]
    slots = [make_slot(tenant, task, now - SECOND, held_at=now) for task in tasks]
    got: list[UUID] = []
    for second in range(200):
        got += await ids(tenant, 1, now=now + second * SECOND)
        if len(got) == len(slots):
            break

    assert sorted(got) == sorted(slots)


async def test_the_simple_form_needs_a_place(database: FreshDatabase, tenant: Tenant) -> None:
    """A script that takes an execution by its id gets it only with all its places."""
    make_group(tenant, maxParallel=1)
    now = database_now(database)
    slots = [make_slot(tenant, make_task(tenant, f"t{n}", group="batch"), now - SECOND) for n in range(2)]
    reports = [PatchRunning(tenant_id=tenant.tenant_id, id=slot, worker="w") for slot in slots]
    answers = await said(database, *reports)

    assert sorted(answer.refusal.code if answer.refusal else "-" for answer in answers) == ["-", "already_claimed"]
    assert len(holders(database, "task:")) == len(holders(database, "group:")) == 1


async def test_a_long_backfill_hides_no_slot(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many runs of a backfill wait for the task's place, its slots are settled, and the newest replaces."""
    monkeypatch.setattr(settling, "_FEW", 2)
    task = make_task(tenant, overlap="terminate_other")
    runs = make_backfill(tenant, task, 8)
    assert await ids(tenant) == runs[:1]
    first = make_slot(tenant, task, database_now(database))
    assert await ids(tenant) == [first]
    await said(database, complete(tenant, first))

    assert told(database, runs[0], first) == ["CANCELLED:overlap", "FINISHED"]
    for run in runs[1:]:
        assert await ids(tenant) == [run]
        await said(database, complete(tenant, run))
