"""Edges of reports: words that come late or twice, last lines, the simple form, settling at the end, ids of clients."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from cron_observer.errors import AlreadyClaimed
from cron_observer.lifecycle import Completion
from cron_observer.schedule import id_floor, new_id
from cron_observer.store import logs
from cron_observer.store.engine import clock
from cron_observer.store.executions import (
    Answer,
    AppendLogs,
    Cancel,
    PatchEnd,
    PatchRunning,
    adopt,
    create_running,
    expire,
    usable,
)
from cron_observer.store.logs import reading
from support.claims import SECOND, claimed, complete, said, seat
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, events, make_slot, make_task, state

HOUR = timedelta(hours=1)


async def running(tenant: Tenant, name: str = "export", lease: float = 30, **changes: Any) -> UUID:
    """Make a task with one claimed execution and return its id."""
    task = make_task(tenant, name, **changes)
    slot = make_slot(tenant, task, database_now(tenant.database) - SECOND)
    await claimed(tenant.database.api, tenant, seat(lease=lease, tasks=frozenset([task])))
    return slot


async def expired(tenant: Tenant, now: datetime) -> None:
    """Let deadlines pass."""
    async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
        await expire(conn, tenant.tenant_id, now)


def code(answer: Answer) -> str | None:
    """Return the code of a refusal."""
    return answer.refusal and answer.refusal.code


def lines(tenant: Tenant, execution: UUID, *messages: str, first: int = 0, fence: int = 1) -> AppendLogs:
    """Return lines numbered from `first`."""
    encoded = logs.encode({"level": "INFO", "message": message} for message in messages)
    return AppendLogs(tenant_id=tenant.tenant_id, id=execution, fence=fence, first_seq=first, lines=encoded)


@pytest.mark.parametrize("late", ["record", "reject", "accept"])
async def test_a_late_word(database: FreshDatabase, tenant: Tenant, late: str) -> None:
    """A completion after the deadline counts, is kept as an event and as evidence once, or leaves nothing."""
    slot = await running(tenant, late=late)
    now = database_now(database) + 2 * HOUR
    await expired(tenant, now)
    answers = [(await said(database, complete(tenant, slot), now=now))[0] for _ in range(2)]
    kept = database.value("SELECT late_outcome->>'outcome' FROM attempts WHERE execution_id = %s", slot)

    assert [code(answer) for answer in answers] == ([None] * 2 if late == "accept" else ["already_final"] * 2)
    assert kept == ("finished" if late == "record" else None)
    assert state(database, slot) == (("FINISHED", None) if late == "accept" else ("FAILED", "timed_out"))
    last = {"accept": ["late_finished"], "record": ["late_recorded"], "reject": []}[late]
    assert events(database, slot) == ["claimed", "failed", *last]


async def test_last_lines_of_a_failed_try(database: FreshDatabase, tenant: Tenant) -> None:
    """Lines that a worker flushes after its failure are taken while the retry waits; a newer try ends that."""
    slot = await running(tenant, retries={"max": 1, "initial": "1s"})
    await said(database, complete(tenant, slot, "failed"))
    (late,) = await said(database, lines(tenant, slot, "the reason"))
    await claimed(database.api, tenant, now=database_now(database) + 2 * SECOND)
    (old,) = await said(database, lines(tenant, slot, "more", first=1))

    assert (code(late), late.next_seq) == (None, 1)
    assert code(old) == "lease_lost"


async def test_lines_under_a_lost_lease(database: FreshDatabase, tenant: Tenant) -> None:
    """A worker that lost its lease writes nothing more, also while nobody else has claimed the execution."""
    slot = await running(tenant, lease=5)
    now = database_now(database) + 10 * SECOND
    await expired(tenant, now)
    (answer,) = await said(database, lines(tenant, slot, "x"), now=now)

    assert code(answer) == "lease_lost"
    assert database.value("SELECT count(*) FROM log_chunks") == 0


async def test_the_log_of_an_ended_execution_closes(database: FreshDatabase, tenant: Tenant) -> None:
    """A quarter of an hour after the end the log takes no lines any more, and says how the execution ended."""
    slot = await running(tenant)
    await said(database, complete(tenant, slot))
    now = database_now(database)
    (soon,) = await said(database, lines(tenant, slot, "x"), now=now + timedelta(minutes=14))
    (late,) = await said(database, lines(tenant, slot, "y", first=1), now=now + timedelta(minutes=16))

    assert (code(soon), code(late)) == (None, "already_final")


async def test_long_messages_are_cut(database: FreshDatabase, tenant: Tenant) -> None:
    """A message has 16 KiB in UTF-8; a longer one is cut between characters and says how much is missing."""
    slot = await running(tenant)
    await said(database, lines(tenant, slot, "é" * 9000, "x" * logs.MESSAGE_MAX))
    async with database.api.transaction([tenant.tenant_id]) as conn:
        items, _ = await logs.read(conn, tenant.tenant_id, slot)

    assert items[0]["message"] == "é" * 8192 + " … [cut: 1616 bytes more]"
    assert items[1]["message"] == "x" * logs.MESSAGE_MAX


async def test_a_search_stops_somewhere(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search through a vast log looks at a part at a time and says where to go on; none of it is lost."""
    monkeypatch.setattr(reading, "SCAN_MAX", 50)
    slot = await running(tenant)
    for number in range(40):
        await said(database, lines(tenant, slot, f"line {number}", first=number))
    found, looks, seq = [], 0, 0
    async with database.api.transaction([tenant.tenant_id]) as conn:
        while seq is not None and looks < 50:
            items, seq = await logs.read(conn, tenant.tenant_id, slot, from_seq=seq, q="line 3")  # type: ignore[assignment]
            found += [item["seq"] for item in items]
            looks += 1

    assert found == [3, *range(30, 40)]
    assert 10 < looks < 50


async def test_what_fell_due_beside_a_run(database: FreshDatabase, tenant: Tenant) -> None:
    """A slot that fell due while a run of its exclusive task was active is skipped, though nobody looked before."""
    slot = await running(tenant)
    task = database.value("SELECT task_uid FROM executions")
    beside = make_slot(tenant, task, database_now(database))
    await said(database, complete(tenant, slot))

    assert state(database, beside) == ("SKIPPED", "overlap")
    assert await claimed(database.api, tenant) == []


async def test_the_end_of_a_run_and_the_fate_of_a_slot(database: FreshDatabase, tenant: Tenant) -> None:
    """A slot that is cancelled in the batch that ends its task's run is cancelled, not skipped as well."""
    slot = await running(tenant)
    task = database.value("SELECT task_uid FROM executions")
    beside = make_slot(tenant, task, database_now(database))
    cancel = Cancel(tenant_id=tenant.tenant_id, id=beside, reason="x", actor="me")
    answers = await said(database, complete(tenant, slot), cancel)

    assert [code(answer) for answer in answers] == [None, None]
    assert state(database, beside) == ("CANCELLED", "cancelled")


async def test_a_locked_execution_is_busy(database: FreshDatabase, tenant: Tenant) -> None:
    """What somebody else holds is answered busy at once, what is not there not found; the others are written."""
    first, second = await running(tenant, "a"), await running(tenant, "b")
    with database.admin.transaction():
        database.do("SELECT 1 FROM executions WHERE id = %s FOR UPDATE", first)
        answers = await said(database, *(complete(tenant, one) for one in (first, second, uuid4())))

    assert [(answer.busy, code(answer)) for answer in answers] == [(True, None), (False, None), (False, "not_found")]
    assert [state(database, one)[0] for one in (first, second)] == ["RUNNING", "FINISHED"]


def take(tenant: Tenant, execution: UUID) -> PatchRunning:
    """Take an execution by the simple form."""
    return PatchRunning(tenant_id=tenant.tenant_id, id=execution, worker="cron")


def patch(tenant: Tenant, execution: UUID, outcome: str = "finished", **values: Any) -> PatchEnd:
    """End one by the simple form."""
    done = Completion(outcome=outcome, fence=0, digest=f"{outcome}{values}".encode(), **values)
    return PatchEnd(tenant_id=tenant.tenant_id, id=execution, done=done)


async def test_a_repeated_patch(database: FreshDatabase, tenant: Tenant) -> None:
    """The simple form's last word may be repeated, also when a retry waits; another word finds nothing running."""
    task = make_task(tenant, retries={"max": 1, "initial": "1h"})
    slot = make_slot(tenant, task, database_now(database) - SECOND)
    await said(database, take(tenant, slot))
    answers = [(await said(database, patch(tenant, slot, "failed")))[0] for _ in range(2)]
    (other,) = await said(database, patch(tenant, slot))

    assert [code(answer) for answer in answers] == [None, None]
    assert code(other) == "not_running"
    assert events(database, slot) == ["claimed", "retry_scheduled"]


@pytest.mark.parametrize("swept", [True, False])
async def test_a_late_patch(database: FreshDatabase, tenant: Tenant, swept: bool) -> None:
    """A script that comes after its deadline is heard as any other worker, whether or not a sweep came by."""
    task = make_task(tenant, timeout="1m")
    slot = make_slot(tenant, task, database_now(database) - SECOND)
    await said(database, take(tenant, slot))
    now = database_now(database) + HOUR
    if swept:
        await expired(tenant, now)
    (answer,) = await said(database, patch(tenant, slot), now=now)
    if answer.again:
        (answer,) = await said(database, patch(tenant, slot), now=now)

    assert answer.refusal is None
    assert (state(database, slot), database.value("SELECT late FROM executions")) == (("FINISHED", None), True)


async def test_who_cannot_be_taken_by_name(database: FreshDatabase, tenant: Tenant) -> None:
    """The simple form takes nothing that a claim would not give, but for older ones of a backlog."""
    now = database_now(database)
    gone, late, old, busy = (make_task(tenant, name) for name in ("gone", "late", "old", "busy"))
    slots = {
        "removed": make_slot(tenant, gone, now - SECOND),
        "deadline": make_slot(tenant, late, now - SECOND, start_deadline=now),
        "window": make_slot(tenant, late, now - 2 * HOUR),
        "obsolete": make_slot(tenant, old, now - SECOND, plan_generation=0),
        "early": make_slot(tenant, old, now + HOUR),
        "older": make_slot(tenant, busy, now - 20 * SECOND),
        "newer": make_slot(tenant, busy, now - SECOND),
    }
    database.do("UPDATE tasks SET removed_at = %s WHERE task_uid = %s", now, gone)
    answers = {name: (await said(database, take(tenant, slot)))[0] for name, slot in slots.items()}

    assert {name: code(answer) for name, answer in answers.items()} == {
        "removed": "already_claimed",
        "deadline": "already_claimed",
        "window": "already_claimed",
        "obsolete": "not_running",
        "early": "not_running",
        "older": None,
        "newer": "already_claimed",
    }
    assert {name: state(database, slots[name]) for name in ("removed", "deadline", "window", "newer")} == {
        "removed": ("SKIPPED", "task_deleted"),
        "deadline": ("MISSED", "no_worker"),
        "window": ("SKIPPED", "too_late"),
        "newer": ("PENDING", None),
    }


async def test_ids_of_clients(database: FreshDatabase, tenant: Tenant) -> None:
    """The same id of a client always means the same execution, as its time goes by; it cannot take another's."""
    task, now = make_task(tenant), database_now(database)
    slot = make_slot(tenant, task, now - SECOND)

    async def begin(identity: UUID, at: datetime) -> tuple[UUID, bool]:
        async with database.api.transaction([tenant.tenant_id]) as conn:
            ours = await adopt(conn, tenant.tenant_id, identity, at)
            made = await create_running(
                conn, tenant.tenant_id, task, identity=ours, worker="w", lease=30 * SECOND,
                scheduled_for=None, started_at=None, now=await clock(conn),
            )  # fmt: skip
            return ours, made

    direct, ahead, random = new_id(now - HOUR), new_id(now + timedelta(days=2)), uuid4()
    for identity in (direct, ahead, random):
        first, second = await begin(identity, now), await begin(identity, now + timedelta(days=3))
        assert first == (first[0], True)
        assert second == (first[0], False)
        assert (first[0] == identity) is (identity == direct)
    with pytest.raises(AlreadyClaimed):
        await begin(slot, now)


def test_far_ids_are_not_usable() -> None:
    """An id from the end of time, or the week before, is not taken as it is, and breaks nothing."""
    now = datetime.fromisoformat("2026-03-29T00:30:00Z")
    assert not usable(UUID("ffffffff-ffff-7fff-bfff-ffffffffffff"), now)
    assert not usable(UUID("00000000-0000-7000-8000-000000000000"), now)
    assert not usable(new_id(now - timedelta(days=2)), now)
    assert not usable(id_floor(now), now), "its version says nothing of time"
    assert usable(new_id(now - timedelta(hours=23)), now)
