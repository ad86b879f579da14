"""The group-commit writer: what arrives together is committed together, and nobody suffers for another's report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from cron_observer.errors import AlreadyFinal, CronObserverError, DatabaseError, LeaseLost
from cron_observer.lifecycle import Completion
from cron_observer.store import logs
from cron_observer.store.engine import clock
from cron_observer.store.executions import AppendLogs, Complete, Heartbeat, Release, Report, Seat, claim_round
from cron_observer_api import writer as writer_module
from cron_observer_api.writer import Writer, Written
from support.databases import FreshDatabase, Tenant, make_tenant
from support.rows import database_now, make_slot, make_task, state

SECOND = timedelta(seconds=1)


@asynccontextmanager
async def writing(database: FreshDatabase) -> AsyncIterator[Writer]:
    """Run a writer."""
    writer = Writer(database.api)
    loop = asyncio.create_task(writer.run())
    yield writer
    writer.stop()
    await loop


async def running(tenant: Tenant, count: int, name: str = "t", **changes: Any) -> list[UUID]:
    """Make tasks with one running execution each."""
    ids = []
    for number in range(count):
        task = make_task(tenant, f"{name}{number}", **changes)
        ids.append(make_slot(tenant, task, database_now(tenant.database) - SECOND))
    seat = Seat(worker="w", queues=("default",), tasks=None, wanted=count, lease=30 * SECOND)
    async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
        await claim_round(conn, tenant.tenant_id, [seat], await clock(conn))
    assert {run.id for run in seat.got} == set(ids)
    return ids


def complete(tenant: Tenant, execution: UUID, outcome: str = "finished", **values: Any) -> Complete:
    done = Completion(outcome=outcome, fence=1, digest=outcome.encode(), **values)
    return Complete(tenant_id=tenant.tenant_id, id=execution, done=done)


def beat(tenant: Tenant, execution: UUID, **values: Any) -> Heartbeat:
    return Heartbeat(tenant_id=tenant.tenant_id, id=execution, fence=1, **values)


async def submit(writer: Writer, *reports: Report) -> list[Written | BaseException]:
    """Submit all at once and return every answer, refusals included."""
    return await asyncio.gather(*(writer.submit(report) for report in reports), return_exceptions=True)


async def test_what_arrives_together_is_committed_together(database: FreshDatabase, tenant: Tenant) -> None:
    """Forty reports that wait together take one transaction, and each answer shows its own execution."""
    ids = await running(tenant, 40)
    async with writing(database) as writer:
        answers = await submit(writer, *(complete(tenant, one) for one in ids))

        assert writer.batches == 1
    shown = [answer.execution for answer in answers if isinstance(answer, Written)]
    assert [one and one["id"] for one in shown] == [str(one) for one in ids]
    assert {one and one["status"] for one in shown} == {"FINISHED"}


async def test_two_reports_of_one_execution_both_count(database: FreshDatabase, tenant: Tenant) -> None:
    """A heartbeat and a completion that arrive together are both carried out, in their order."""
    (one,) = await running(tenant, 1)
    async with writing(database) as writer:
        first, second = await submit(writer, beat(tenant, one, checkpoint={"row": 7}), complete(tenant, one))
        assert isinstance(first, Written)
        assert isinstance(second, Written)
        assert writer.batches == 2
    assert database.rows("SELECT status, checkpoint FROM executions WHERE id = %s", one) == [
        {"status": "FINISHED", "checkpoint": {"row": 7}}
    ]


async def test_reports_of_one_execution_keep_their_order_while_batches_overlap(
    database: FreshDatabase, tenant: Tenant
) -> None:
    """Lines that arrive one behind the other for three executions are all taken, though two batches are under way."""
    ids = await running(tenant, 3)
    line = logs.encode([{"level": "INFO", "message": "x"}])
    reports = [
        AppendLogs(tenant_id=tenant.tenant_id, id=one, fence=1, first_seq=number, lines=line)
        for number in range(20)
        for one in ids
    ]
    async with writing(database) as writer:
        answers = await submit(writer, *reports)
    assert [one.answer.next_seq for one in answers if isinstance(one, Written)] == [
        number + 1 for number in range(20) for _ in ids
    ]


async def test_merged_into_one_batch_the_later_is_lost(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin, which takes both into one batch, loses one of them: the claim above can be told apart."""

    def everything(self: Writer) -> list[Any]:
        batch = list(self._queue)
        self._queue.clear()
        return batch

    monkeypatch.setattr(Writer, "_next_batch", everything)
    monkeypatch.setattr(writer_module, "RETRIES", 1)
    (one,) = await running(tenant, 1)
    async with writing(database) as writer:
        answers = await submit(writer, beat(tenant, one, checkpoint={"row": 7}), complete(tenant, one))
        assert writer.batches != 2 or any(isinstance(answer, BaseException) for answer in answers)


async def test_a_poison_row_fails_alone(database: FreshDatabase, tenant: Tenant) -> None:
    """A row that the database refuses takes nobody with it: the batch is cut until it stands alone."""
    ids = await running(tenant, 9)
    database.do(
        f"ALTER TABLE executions ADD CONSTRAINT poisoned CHECK (id <> '{ids[4]}' OR status <> 'FINISHED') NOT VALID"
    )
    async with writing(database) as writer:
        answers = await submit(writer, *(complete(tenant, one) for one in ids))

    failed = [number for number, answer in enumerate(answers) if isinstance(answer, BaseException)]
    assert failed == [4]
    assert not isinstance(answers[4], CronObserverError), "a defect is not passed off as the client's mistake"
    assert [state(database, one)[0] for one in ids] == ["FINISHED"] * 4 + ["RUNNING"] + ["FINISHED"] * 4


async def test_a_locked_row_delays_only_itself(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report of an execution that somebody else holds locked is told to come again; the others do not wait."""
    monkeypatch.setattr(writer_module, "LOCK_WAIT", 0.2)
    ids = await running(tenant, 3)
    with database.admin.transaction():
        database.do("SELECT 1 FROM executions WHERE id = %s FOR UPDATE", ids[1])
        async with writing(database) as writer:
            locked = asyncio.create_task(submit(writer, complete(tenant, ids[1])))
            others = await submit(writer, complete(tenant, ids[0]), complete(tenant, ids[2]))
            assert not locked.done(), "nobody waits for another's lock"
            answers = [others[0], *await locked, others[1]]

    assert isinstance(answers[1], DatabaseError)
    assert [state(database, one)[0] for one in ids] == ["FINISHED", "RUNNING", "FINISHED"]


async def test_refusals_carry_their_facts(database: FreshDatabase, tenant: Tenant) -> None:
    """An ended execution is refused with its stored outcome, a lost lease without anybody's data."""
    first, second = await running(tenant, 2)
    async with writing(database) as writer:
        await submit(writer, complete(tenant, first, result={"a": 1}))
        (again,) = await submit(writer, complete(tenant, first, "failed"))
        release = Release(tenant_id=tenant.tenant_id, id=second, fence=1, reason="x")
        await submit(writer, release)
        (lost,) = await submit(writer, beat(tenant, second))

    assert isinstance(again, AlreadyFinal)
    assert again.facts["execution"]["result"] == {"a": 1}
    assert isinstance(lost, LeaseLost)


async def test_tenants_share_a_batch_and_nothing_else(database: FreshDatabase) -> None:
    """Reports of several tenants go into one transaction; who has something to claim now is woken, nobody else."""
    tenants = [make_tenant(database, f"tenant-{n}") for n in range(3)]
    ids = [(await running(tenant, 1))[0] for tenant in tenants]
    woken: list[UUID] = []
    async with writing(database) as writer:
        writer.on_change = woken.append
        reports = [
            Release(tenant_id=tenants[0].tenant_id, id=ids[0], fence=1, reason="x"),
            complete(tenants[1], ids[1]),
        ]
        await submit(writer, *reports)

        assert writer.batches == 1
    assert woken == [tenants[0].tenant_id], "what has ended is nothing to claim"
    assert [state(database, one)[0] for one in ids] == ["PENDING", "FINISHED", "RUNNING"]


async def test_a_missed_deadline_is_noticed_by_the_report(database: FreshDatabase, tenant: Tenant) -> None:
    """A completion past the run deadline ends as a late one, with the timeout in its history."""
    (one,) = await running(tenant, 1)
    database.do(
        "UPDATE executions SET run_deadline = run_deadline - interval '2 hours', "
        "claimed_at = claimed_at - interval '2 hours'"
    )
    async with writing(database) as writer:
        (answer,) = await submit(writer, complete(tenant, one))

    assert isinstance(answer, Written)
    assert answer.execution is not None
    assert (answer.execution["status"], answer.execution["late"]) == ("FINISHED", True)
    kinds = [row["type"] for row in database.rows("SELECT type FROM execution_events ORDER BY seq")]
    assert kinds == ["claimed", "failed", "late_finished"]


async def test_without_a_database_the_writer_says_so_and_lives(database: FreshDatabase, tenant: Tenant) -> None:
    """While the server cannot be had reports are answered 503; afterwards the same writer goes on."""
    first, second = await running(tenant, 2)
    async with writing(database) as writer:
        database.do(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        answers = await submit(writer, complete(tenant, first))
        (later,) = await submit(writer, complete(tenant, second))

    assert isinstance(answers[0], DatabaseError | Written)
    assert isinstance(later, Written)


def lines(tenant: Tenant, execution: UUID, size: int) -> AppendLogs:
    """Return a line of about `size` bytes."""
    line = logs.encode([{"level": "INFO", "message": "x" * size}])
    return AppendLogs(tenant_id=tenant.tenant_id, id=execution, fence=1, first_seq=0, lines=line)


async def test_lines_of_logs_are_counted_in_bytes(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch takes so many bytes of lines, and so many may wait; who brings more is told to come again."""
    monkeypatch.setattr(writer_module, "BATCH_BYTES", 1_500)
    monkeypatch.setattr(writer_module, "QUEUE_BYTES", 5_500)
    ids = await running(tenant, 6)
    async with writing(database) as writer:
        answers = await submit(writer, *(lines(tenant, one, 1_000) for one in ids))
        later = await submit(writer, lines(tenant, ids[5], 10_000))

    assert [type(answer) for answer in answers] == [Written] * 5 + [DatabaseError]
    assert isinstance(later[0], Written), "alone it may be larger than what may wait"
    assert writer.batches == 4
    assert database.value("SELECT count(*) FROM log_chunks") == 6


async def test_a_stop_without_a_database_ends(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the process stops while the database is away, everybody hears it at the first failure."""
    monkeypatch.setattr(writer_module, "BATCH_MAX", 1)
    ids = await running(tenant, 5)
    tried = []

    async def away(_self: Writer, reports: list[Report]) -> list[Written]:
        tried.append(reports)
        await asyncio.sleep(0)
        raise DatabaseError("the database cannot be reached")

    monkeypatch.setattr(Writer, "_write", away)
    async with asyncio.timeout(60), writing(database) as writer:
        waiting = [asyncio.create_task(writer.submit(complete(tenant, one))) for one in ids]
        await asyncio.sleep(0)
        writer.stop()
        answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(answer) for answer in answers] == [DatabaseError] * 5
    assert len(tried) < 5


async def test_a_cancelled_request_is_written_nevertheless(database: FreshDatabase, tenant: Tenant) -> None:
    """A report whose client has gone is written, and harms nobody in its batch."""
    ids = await running(tenant, 3)
    async with writing(database) as writer:
        waiting = [asyncio.create_task(writer.submit(complete(tenant, one))) for one in ids]
        await asyncio.sleep(0)
        waiting[1].cancel()
        answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert isinstance(answers[1], asyncio.CancelledError)
    assert [state(database, one)[0] for one in ids] == ["FINISHED"] * 3
