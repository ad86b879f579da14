"""Claims on a real database: what is handed out, to whom, once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from cron_observer.lifecycle import Run
from cron_observer.store.engine import Database, clock
from cron_observer.store.executions import (
    Release,
    Seat,
    claim_round,
    create_manual,
    expire,
    next_due,
    process,
    remember,
    repeated,
    settle_waiting,
)
from cron_observer.store.executions import claims as claims_module
from support.claims import complete
from support.databases import FreshDatabase, Tenant, make_tenant
from support.rows import database_now, events, make_slot, make_task, spec, state

SECOND = timedelta(seconds=1)


def seat(wanted: int = 1, lease: float = 30, queues: tuple[str, ...] = ("default",), **values: object) -> Seat:
    return Seat(
        worker="w",
        queues=queues,
        tasks=values.get("tasks"),
        wanted=wanted,
        lease=lease * SECOND,
        any_queue="tasks" in values,
    )  # type: ignore[arg-type]


async def claimed(database: Database, tenant: Tenant, *seats: Seat) -> list[Run]:
    async with database.transaction([tenant.tenant_id]) as conn:
        return await claim_round(conn, tenant.tenant_id, list(seats) or [seat()], await clock(conn))


async def test_a_due_slot_is_handed_out(database: FreshDatabase, tenant: Tenant) -> None:
    """A due slot becomes RUNNING with a lease, a fence, an attempt row and an event; what is not due waits."""
    now, task = database_now(database), make_task(tenant)
    due, later = make_slot(tenant, task, now - SECOND), make_slot(tenant, task, now + timedelta(hours=1))
    (run,) = await claimed(database.api, tenant, seat(5))

    assert (run.id, run.fence, run.attempt, run.generation) == (due, 1, 1, 1)
    assert state(database, due) == ("RUNNING", None)
    assert state(database, later) == ("PENDING", None)
    assert events(database, due) == ["claimed"]
    assert database.value("SELECT count(*) FROM attempts WHERE execution_id = %s AND fence = 1", due) == 1


async def test_ten_of_an_exclusive_task_run_one(database: FreshDatabase, tenant: Tenant) -> None:
    """A claim of ten on an exclusive task with ten due slots runs the newest; nine are skipped with a reason."""
    now, task = database_now(database), make_task(tenant)
    slots = [make_slot(tenant, task, now - timedelta(seconds=50 - n)) for n in range(10)]
    runs = await claimed(database.api, tenant, seat(10))

    assert [run.id for run in runs] == [slots[-1]]
    assert {state(database, slot)[0] for slot in slots[:-1]} == {"SKIPPED"}


async def race(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, places: Callable[..., Awaitable[Any]]
) -> int:
    """Let two claimers begin runs of one exclusive task while a newer slot falls due; return how many run.

    Both have looked, and found the task inactive, before either writes.
    """
    first_looked, second_looked = asyncio.Event(), asyncio.Event()

    async def after_looking(*arguments: Any) -> Any:
        if first_looked.is_set():
            second_looked.set()
        first_looked.set()
        await second_looked.wait()
        return await places(*arguments)

    monkeypatch.setattr(claims_module, "take_places", after_looking)
    now, task = database_now(database), make_task(tenant, catchup={"policy": "none"})
    make_slot(tenant, task, now - 5 * SECOND, queue="a")
    make_slot(tenant, task, now - 3 * SECOND, queue="b")

    async def claim(queue: str, at: datetime) -> None:
        async with database.api.transaction([tenant.tenant_id]) as conn:
            await claim_round(conn, tenant.tenant_id, [seat(queues=(queue,))], at)

    async with asyncio.TaskGroup() as group:
        group.create_task(claim("a", now - 4 * SECOND))
        await first_looked.wait()
        group.create_task(claim("b", now))
    count = database.value("SELECT count(*) FROM executions WHERE task_uid = %s AND status = 'RUNNING'", task)
    assert isinstance(count, int)
    return count


async def test_two_claimers_run_one(database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two claimers that both found an exclusive task inactive run it once."""
    assert await race(database, tenant, monkeypatch, claims_module.take_places) == 1


async def test_without_the_place_two_would_run(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin, which only looks whether the task is active, is caught by the same race."""

    async def only_looked(_conn: object, steps: list[object], *_rest: object) -> list[object]:
        return steps

    assert await race(database, tenant, monkeypatch, only_looked) == 2


async def test_a_lapsed_lease_is_offered_again(database: FreshDatabase, tenant: Tenant) -> None:
    """A claim round expires dead leases first: no scheduler is needed to replace a worker."""
    now, task = database_now(database), make_task(tenant)
    slot = make_slot(tenant, task, now - SECOND)
    async with database.api.transaction([tenant.tenant_id]) as conn:
        await claim_round(conn, tenant.tenant_id, [seat(lease=5)], now)
    async with database.api.transaction([tenant.tenant_id]) as conn:
        (again,) = await claim_round(conn, tenant.tenant_id, [seat()], now + 6 * SECOND)

    assert (again.id, again.fence, again.attempt, again.lease_losses) == (slot, 2, 1, 1)
    assert events(database, slot) == ["claimed", "lease_expired", "claimed"]


async def test_a_released_fence_is_refused(database: FreshDatabase, tenant: Tenant) -> None:
    """After a release the old fence is worth nothing, and the task's place stays with the execution."""
    now, task = database_now(database), make_task(tenant)
    slot = make_slot(tenant, task, now - SECOND)
    await claimed(database.api, tenant)
    report = Release(tenant_id=tenant.tenant_id, id=slot, fence=1, reason="deploy")
    async with database.api.transaction([tenant.tenant_id]) as conn:
        (first,) = await process(conn, [report])
    async with database.api.transaction([tenant.tenant_id]) as conn:
        (second,) = await process(conn, [report])

    assert first.refusal is None
    assert second.refusal is not None
    assert second.refusal.code == "lease_lost"
    assert [run.fence for run in await claimed(database.api, tenant)] == [2]


async def test_urgent_first_and_queues_apart(database: FreshDatabase, tenant: Tenant) -> None:
    """Higher priority goes first, then the older; a worker gets only of its queues or its tasks."""
    now = database_now(database)
    tasks = [make_task(tenant, f"t{n}") for n in range(4)]
    old = make_slot(tenant, tasks[0], now - 30 * SECOND)
    urgent = make_slot(tenant, tasks[1], now - SECOND, priority=9)
    other = make_slot(tenant, tasks[2], now - SECOND, queue="reports")
    newer = make_slot(tenant, tasks[3], now - 20 * SECOND)
    got = await claimed(database.api, tenant, seat(10))
    by_task = await claimed(database.api, tenant, seat(10, tasks=frozenset([tasks[2]])))

    assert [run.id for run in got] == [urgent, old, newer]
    assert [run.id for run in by_task] == [other]


async def test_a_claim_can_be_repeated(database: FreshDatabase, tenant: Tenant) -> None:
    """The same claim id returns the same executions while they run, and nothing once they are over."""
    now, task, claim_id = database_now(database), make_task(tenant), uuid4()
    slot = make_slot(tenant, task, now - SECOND)
    async with database.api.transaction([tenant.tenant_id]) as conn:
        runs = await claim_round(conn, tenant.tenant_id, [seat()], now)
        assert await remember(conn, tenant.tenant_id, {claim_id: runs}, now)
        assert await repeated(conn, tenant.tenant_id, [claim_id], now) == {claim_id: [slot]}
        assert not await remember(conn, tenant.tenant_id, {claim_id: runs}, now), "a live answer is not replaced"
        await process(conn, [Release(tenant_id=tenant.tenant_id, id=slot, fence=1, reason="x")])
        assert await repeated(conn, tenant.tenant_id, [claim_id], now) == {}
        assert await remember(conn, tenant.tenant_id, {claim_id: runs}, now)


async def test_an_obsolete_slot_is_not_claimed(database: FreshDatabase, tenant: Tenant) -> None:
    """A slot of an older plan is claimable up to the instant at which the newer plan took effect, not later."""
    now, task = database_now(database), make_task(tenant, overlap="allow_all", catchup={"policy": "none"})
    kept, gone = make_slot(tenant, task, now - 20 * SECOND), make_slot(tenant, task, now - 10 * SECOND)
    database.do("UPDATE task_plan SET generation = 2, effective_from = %s WHERE task_uid = %s", now - 15 * SECOND, task)

    assert [run.id for run in await claimed(database.api, tenant, seat(5))] == [kept]
    assert state(database, gone) == ("PENDING", None)


async def test_what_had_fired_by_an_edit_is_claimed_though_it_is_nominal_later(
    database: FreshDatabase, tenant: Tenant
) -> None:
    """A slot that fires before its nominal instant (a gap, an earlier allowed day) is judged by when it fired."""
    now, task = database_now(database), make_task(tenant, overlap="allow_all", catchup={"policy": "none"})
    later = now + timedelta(hours=1)
    kept = make_slot(tenant, task, now - 20 * SECOND, nominal_at=later)
    gone = make_slot(tenant, task, now - 10 * SECOND, nominal_at=later)
    database.do("UPDATE task_plan SET generation = 2, effective_from = %s WHERE task_uid = %s", now - 15 * SECOND, task)

    assert [run.id for run in await claimed(database.api, tenant, seat(5))] == [kept]
    assert state(database, gone) == ("PENDING", None)


async def test_nobody_needed_to_settle(database: FreshDatabase, tenant: Tenant) -> None:
    """Without any worker a backlog is settled, one task after the other, and what may run stays."""
    now = database_now(database)
    tasks = [make_task(tenant, f"t{n}") for n in range(3)]
    slots = [[make_slot(tenant, task, now - timedelta(minutes=m)) for m in (90, 30, 1)] for task in tasks]
    ended, after = 0, None
    for _ in range(4):
        async with database.scheduler.transaction([tenant.tenant_id]) as conn:
            count, after = await settle_waiting(conn, tenant.tenant_id, now, after, limit=1)
        ended += count
        if after is None:
            break

    assert ended == 6
    for old, newer, newest in slots:
        assert state(database, old) == state(database, newer) == ("SKIPPED", "too_late")
        assert state(database, newest) == ("PENDING", None)


async def test_a_manual_run_waits_for_nobody(database: FreshDatabase, tenant: Tenant) -> None:
    """A manual run waits while its task is active, unless it is forced; its payload is its own."""
    task = make_task(tenant, payload={"a": 1})

    async def trigger(force: bool) -> UUID:
        async with database.api.transaction([tenant.tenant_id]) as conn:
            now = await clock(conn)
            return await create_manual(conn, tenant.tenant_id, task, payload={"b": 2}, force=force, actor="me", now=now)

    first = await trigger(False)
    assert [run.id for run in await claimed(database.api, tenant)] == [first]
    second = await trigger(False)
    assert await claimed(database.api, tenant) == []
    assert state(database, second) == ("PENDING", None)
    third = await trigger(True)
    assert [run.id for run in await claimed(database.api, tenant)] == [third]
    assert events(database, third) == ["created", "claimed"]
    async with database.api.transaction([tenant.tenant_id]) as conn:
        await process(conn, [complete(tenant, first)])
    assert [run.id for run in await claimed(database.api, tenant)] == [second]


async def test_the_next_due_instant(database: FreshDatabase, tenant: Tenant) -> None:
    """A waiting worker learns when the next thing of its queues falls due, and nothing of other tenants."""
    now, task = database_now(database), make_task(tenant)
    other = make_tenant(database, "other")
    make_slot(other, make_task(other), now + 5 * SECOND)
    make_slot(tenant, task, now + 20 * SECOND, queue="reports")
    make_slot(tenant, task, now + 40 * SECOND)
    async with database.api.transaction([tenant.tenant_id]) as conn:
        assert await next_due(conn, tenant.tenant_id, [seat()], now) == now + 40 * SECOND
        assert await next_due(conn, tenant.tenant_id, [seat(queues=("reports",))], now) == now + 20 * SECOND
        assert await next_due(conn, tenant.tenant_id, [seat(tasks=frozenset([task]))], now) == now + 20 * SECOND


async def test_deadlines_end_retries(database: FreshDatabase, tenant: Tenant) -> None:
    """A retry that nobody takes before its start deadline has failed, as far as it was tried."""
    now, task = database_now(database), make_task(tenant)
    slot = make_slot(
        tenant, task, now - SECOND, start_deadline=now, fence=1, attempt=1, generation=1, reason="exit_code"
    )
    async with database.scheduler.transaction([tenant.tenant_id]) as conn:
        assert await expire(conn, tenant.tenant_id, now) == 1

    assert state(database, slot) == ("FAILED", "no_worker")


async def test_specs_are_read_from_the_pinned_generation(database: FreshDatabase, tenant: Tenant) -> None:
    """A running execution obeys the definition it began with; a claim takes the task's current one."""
    now, task = database_now(database), make_task(tenant, timeout="1h")
    make_slot(tenant, task, now - SECOND)
    newer = spec(timeout="2h")
    database.insert(
        "task_revisions",
        [
            {
                "tenant_id": tenant.tenant_id,
                "task_uid": task,
                "generation": 2,
                "owner": "api",
                "action": "update",
                "spec": newer,
                "created_at": now,
            }
        ],
    )
    database.do("UPDATE tasks SET generation = 2 WHERE task_uid = %s", task)
    (run,) = await claimed(database.api, tenant)

    assert run.generation == 2
    assert run.run_deadline is not None
    assert run.claimed_at is not None
    assert run.run_deadline - run.claimed_at == timedelta(hours=2)
