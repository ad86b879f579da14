"""Reports on a real database: batches, fences, tenants, logs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from cron_observer.lifecycle import Completion
from cron_observer.store import logs
from cron_observer.store.engine import clock
from cron_observer.store.executions import (
    AppendLogs,
    Cancel,
    Complete,
    Heartbeat,
    PatchEnd,
    PatchRunning,
    Report,
    Seat,
    Start,
    claim_round,
    create_running,
    process,
)
from cron_observer.store.executions.reports import Answer
from support.databases import FreshDatabase, Tenant, make_tenant
from support.rows import database_now, events, make_slot, make_task, state
from support.worlds import until

SECOND = timedelta(seconds=1)


async def running(tenant: Tenant, name: str = "export", lease: float = 30, **changes: Any) -> UUID:
    """Make a task with one claimed execution and return its id."""
    task = make_task(tenant, name, **changes)
    slot = make_slot(tenant, task, database_now(tenant.database) - SECOND)
    seat = Seat(worker="w", queues=("default",), tasks=frozenset([task]), wanted=1, lease=lease * SECOND)
    async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
        await claim_round(conn, tenant.tenant_id, [seat], await clock(conn))
    assert [run.id for run in seat.got] == [slot]
    return slot


async def said(database: FreshDatabase, *reports: Report) -> list[Answer]:
    async with database.api.transaction({report.tenant_id for report in reports}) as conn:
        return await process(conn, reports)


def complete(tenant: Tenant, execution: UUID, outcome: str = "finished", fence: int = 1, **values: Any) -> Complete:
    done = Completion(outcome=outcome, fence=fence, digest=f"{outcome}{values}".encode(), **values)
    return Complete(tenant_id=tenant.tenant_id, id=execution, done=done)


def lines(tenant: Tenant, execution: UUID, first: int, count: int, level: str = "INFO") -> AppendLogs:
    entries = [{"level": level, "message": f"line {n}"} for n in range(first, first + count)]
    return AppendLogs(tenant_id=tenant.tenant_id, id=execution, fence=1, first_seq=first, lines=logs.encode(entries))


async def test_a_completion_ends_it(database: FreshDatabase, tenant: Tenant) -> None:
    """Status, result, event, attempt and place are written together."""
    slot = await running(tenant)
    (answer,) = await said(database, complete(tenant, slot, result={"rows": 3}, exit_code=0))
    (row,) = database.rows("SELECT * FROM executions WHERE id = %s", slot)

    assert answer.refusal is None
    assert (row["status"], row["result"], row["exit_code"]) == ("FINISHED", {"rows": 3}, 0)
    assert row["started_at"] is not None
    assert events(database, slot) == ["claimed", "finished"]
    assert database.value("SELECT outcome FROM attempts WHERE execution_id = %s", slot) == "finished"
    assert database.value("SELECT count(*) FROM active_runs") == 0


async def test_a_repeat_is_answered_and_another_outcome_refused(database: FreshDatabase, tenant: Tenant) -> None:
    """A completion is judged on the attempt of its fence, also after a retry was scheduled."""
    slot = await running(tenant, retries={"max": 1})
    first = complete(tenant, slot, "failed", error={"type": "E", "message": "m"})
    assert [(await said(database, first))[0].refusal for _ in range(2)] == [None, None]
    (other,) = await said(database, complete(tenant, slot, "finished"))

    assert other.refusal is not None
    assert other.refusal.code == "already_final"
    assert state(database, slot) == ("PENDING", "error")
    assert events(database, slot) == ["claimed", "retry_scheduled"]
    assert database.value("SELECT count(*) FROM active_runs") == 1, "the place is kept through the wait"


async def test_a_batch_over_five_tenants_changes_its_rows(database: FreshDatabase) -> None:
    """One batch carries reports of five tenants; exactly the named executions change, a sixth tenant's do not."""
    tenants = [make_tenant(database, f"tenant-{n}") for n in range(6)]
    slots = [await running(tenant) for tenant in tenants]
    bystanders = [await running(tenant, "other") for tenant in tenants]
    answers = await said(
        database, *(complete(tenant, slot) for tenant, slot in zip(tenants[:5], slots[:5], strict=True))
    )

    assert all(answer.refusal is None for answer in answers)
    assert [state(database, slot)[0] for slot in slots] == ["FINISHED"] * 5 + ["RUNNING"]
    assert {state(database, slot)[0] for slot in bystanders} == {"RUNNING"}


async def test_another_tenants_execution_does_not_exist(database: FreshDatabase, tenant: Tenant) -> None:
    """An id of another tenant is answered like one that never was, and stays as it is."""
    stranger = make_tenant(database, "stranger")
    slot = await running(stranger)
    answers = await said(database, complete(tenant, slot), complete(tenant, uuid4()))

    assert [answer.refusal and answer.refusal.code for answer in answers] == ["not_found", "not_found"]
    assert state(database, slot) == ("RUNNING", None)


async def test_the_batch_that_forgets_the_tenant_is_caught(database: FreshDatabase, tenant: Tenant) -> None:
    """The broken twin, whose transaction names all tenants, still cannot touch what its reports do not own."""
    stranger = make_tenant(database, "stranger")
    slot = await running(stranger)
    async with database.api.transaction([tenant.tenant_id, stranger.tenant_id]) as conn:
        (answer,) = await process(conn, [complete(tenant, slot)])

    assert answer.refusal is not None
    assert state(database, slot) == ("RUNNING", None)


async def test_heartbeats_stay_out_of_the_indexes(database: FreshDatabase, tenant: Tenant) -> None:
    """Renewals update in place (HOT): no index is touched, and no event is written."""
    slot = await running(tenant)
    beat = Heartbeat(tenant_id=tenant.tenant_id, id=slot, fence=1, progress=0.5, checkpoint={"at": 7})
    for _ in range(5):
        (answer,) = await said(database, beat)
        assert answer.refusal is None
    await database.aclose()  # a session reports its statistics when it ends
    query = "SELECT sum(n_tup_hot_upd)::int FROM pg_stat_user_tables WHERE relname LIKE 'executions_2%%'"
    until(lambda: database.value(query) >= 4, "five renewals, the first of which sets started_at, in place")

    assert database.rows("SELECT progress, checkpoint FROM executions WHERE id = %s", slot) == [
        {"progress": 0.5, "checkpoint": {"at": 7}}
    ]
    assert events(database, slot) == ["claimed"]


async def test_logs_are_stored_once(database: FreshDatabase, tenant: Tenant) -> None:
    """Repeated lines are dropped, also in part; a gap is refused and says what is expected."""
    slot = await running(tenant)
    assert (await said(database, lines(tenant, slot, 0, 10)))[0].next_seq == 10
    assert (await said(database, lines(tenant, slot, 0, 10)))[0].next_seq == 10
    assert (await said(database, lines(tenant, slot, 5, 10)))[0].next_seq == 15
    (gap,) = await said(database, lines(tenant, slot, 20, 1))
    async with database.api.transaction([tenant.tenant_id]) as conn:
        items, more = await logs.read(conn, tenant.tenant_id, slot)
        page, following = await logs.read(conn, tenant.tenant_id, slot, from_seq=3, limit=4)

    assert gap.refusal is not None
    assert (gap.refusal.code, gap.refusal.facts) == ("log_gap", {"expected_seq": 15})
    assert [item["message"] for item in items] == [f"line {n}" for n in range(15)]
    assert [item["seq"] for item in items] == list(range(15))
    assert more is None
    assert ([item["seq"] for item in page], following) == ([3, 4, 5, 6], 7)


async def test_logs_are_filtered(database: FreshDatabase, tenant: Tenant) -> None:
    """A level means at least, a search looks into the message, and the numbers stay those of the log."""
    slot = await running(tenant)
    await said(
        database,
        lines(tenant, slot, 0, 3),
    )
    await said(database, lines(tenant, slot, 3, 3, "ERROR"))
    async with database.api.transaction([tenant.tenant_id]) as conn:
        errors, _ = await logs.read(conn, tenant.tenant_id, slot, level="WARN")
        found, _ = await logs.read(conn, tenant.tenant_id, slot, q="LINE 4")

    assert [item["seq"] for item in errors] == [3, 4, 5]
    assert [item["seq"] for item in found] == [4]


async def test_a_second_claim_of_an_attempt_goes_on_numbering(database: FreshDatabase, tenant: Tenant) -> None:
    """After a lost lease the new worker counts from 0, and the reader sees one log without a seam."""
    slot = await running(tenant, lease=5)
    await said(database, lines(tenant, slot, 0, 3))
    seat = Seat(worker="v", queues=("default",), tasks=None, wanted=1, lease=30 * SECOND)
    async with database.api.transaction([tenant.tenant_id]) as conn:
        await claim_round(conn, tenant.tenant_id, [seat], await clock(conn) + 6 * SECOND)
        second = AppendLogs(
            tenant_id=tenant.tenant_id,
            id=slot,
            fence=2,
            first_seq=0,
            lines=logs.encode([{"level": "INFO", "message": "again"}]),
        )
        assert (await process(conn, [second]))[0].next_seq == 1
        items, _ = await logs.read(conn, tenant.tenant_id, slot)
        tail, _ = await logs.read(conn, tenant.tenant_id, slot, from_seq=3)

    assert [(item["seq"], item["message"]) for item in items] == [
        (0, "line 0"), (1, "line 1"), (2, "line 2"), (3, "again"),
    ]  # fmt: skip
    assert [item["message"] for item in tail] == ["again"]


async def test_evidence_of_a_late_word(database: FreshDatabase, tenant: Tenant) -> None:
    """The outcome of a replaced worker is refused and kept with its attempt; the newer claim decides."""
    slot = await running(tenant, lease=5)
    seat = Seat(worker="v", queues=("default",), tasks=None, wanted=1, lease=30 * SECOND)
    async with database.api.transaction([tenant.tenant_id]) as conn:
        await claim_round(conn, tenant.tenant_id, [seat], await clock(conn) + 6 * SECOND)
    (old,) = await said(database, complete(tenant, slot, "failed", fence=1))
    (new,) = await said(database, complete(tenant, slot, "finished", fence=2))
    query = "SELECT late_outcome->>'outcome' AS late, outcome FROM attempts WHERE execution_id = %s ORDER BY fence"

    assert old.refusal is not None
    assert new.refusal is None
    assert database.rows(query, slot) == [
        {"late": "failed", "outcome": "lease_lost"},
        {"late": None, "outcome": "finished"},
    ]


async def test_the_simple_form(database: FreshDatabase, tenant: Tenant) -> None:
    """PATCH takes a waiting execution until its run deadline, and ends only what it began."""
    task = make_task(tenant, timeout="2h")
    slot = make_slot(tenant, task, database_now(database) - SECOND)
    leased = await running(tenant, "leased")
    take = PatchRunning(tenant_id=tenant.tenant_id, id=slot, worker="cron")
    done = Completion(outcome="finished", fence=0, digest=b"x")
    (first,), (second,) = await said(database, take), await said(database, take)
    (ended,) = await said(database, PatchEnd(tenant_id=tenant.tenant_id, id=slot, done=done))
    (refused,) = await said(database, PatchEnd(tenant_id=tenant.tenant_id, id=leased, done=done))

    assert first.run is not None
    assert first.run.claimed_at is not None
    assert first.run.lease_until == first.run.claimed_at + timedelta(hours=2)
    assert second.refusal is not None
    assert second.refusal.code == "already_claimed"
    assert ended.refusal is None
    assert state(database, slot) == ("FINISHED", None)
    assert refused.refusal is not None
    assert refused.refusal.code == "not_running"


async def test_a_run_begun_by_its_worker(database: FreshDatabase, tenant: Tenant) -> None:
    """A worker's own run is RUNNING at once, known by the worker's id, and takes the task's place if free."""
    task, identity = make_task(tenant), uuid4()
    async with database.api.transaction([tenant.tenant_id]) as conn:
        now = await clock(conn)
        from cron_observer.schedule import new_id

        identity = new_id(now, "x")
        values: dict[str, Any] = {
            "worker": "w", "lease": 30 * SECOND, "scheduled_for": None, "started_at": None, "now": now,
        }  # fmt: skip
        assert await create_running(conn, tenant.tenant_id, task, identity=identity, **values)
        assert not await create_running(conn, tenant.tenant_id, task, identity=identity, **values)
    (answer,) = await said(database, complete(tenant, identity))

    assert answer.refusal is None
    assert state(database, identity) == ("FINISHED", None)
    assert events(database, identity) == ["claimed", "finished"]


async def test_start_is_noted_once(database: FreshDatabase, tenant: Tenant) -> None:
    """The first start writes an event and the instant, a repeat neither."""
    slot = await running(tenant)
    start = Start(tenant_id=tenant.tenant_id, id=slot, fence=1)
    await said(database, start)
    first = database.value("SELECT started_at FROM executions WHERE id = %s", slot)
    await said(database, start)

    assert database.value("SELECT started_at FROM executions WHERE id = %s", slot) == first
    assert events(database, slot) == ["claimed", "started"]


async def test_cancelling_is_asked_for(database: FreshDatabase, tenant: Tenant) -> None:
    """Cancelling what runs sets a column that the worker's next reply shows; its own word ends it."""
    slot = await running(tenant)
    await said(database, Cancel(tenant_id=tenant.tenant_id, id=slot, reason="stop", actor="me"))
    (beat,) = await said(database, Heartbeat(tenant_id=tenant.tenant_id, id=slot, fence=1))
    await said(database, complete(tenant, slot, "cancelled"))

    assert beat.run is not None
    assert beat.run.cancel_requested_at is not None
    assert state(database, slot) == ("CANCELLED", "cancelled")
    assert events(database, slot) == ["claimed", "cancel_requested", "cancelled"]
