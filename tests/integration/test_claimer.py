"""The claimer: who waits gets what falls due, at once, and holds nothing while waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from cron_observer.clock import ClockGuard
from cron_observer.errors import DatabaseError
from cron_observer.store.engine import Database, clock
from cron_observer.store.executions import Seat, create_manual
from cron_observer.store.tokens import SigningKeys
from cron_observer_api import claimer as module
from cron_observer_api.claimer import Claimer, Given
from cron_observer_api.writer import Writer
from support.databases import FreshDatabase, Tenant, make_tenant
from support.rows import database_now, make_slot, make_task, state

SECOND = timedelta(seconds=1)


@asynccontextmanager
async def serving(database: FreshDatabase) -> AsyncIterator[Claimer]:
    """Run a writer and a claimer."""
    writer = Writer(database.api)
    claimer = Claimer(database.api, ClockGuard(), writer.submit, SigningKeys(database.api).own)
    writer.on_change = claimer.wake
    loops = [asyncio.create_task(claimer.run()), asyncio.create_task(writer.run())]
    yield claimer
    claimer.stop()
    await loops[0]
    await claimer.settled()
    writer.stop()
    await loops[1]


def ask(
    claimer: Claimer, tenant: Tenant, wait: float = 10, wanted: int = 1, claim_id: UUID | None = None, **seat: Any
) -> tuple[asyncio.Task[Given], asyncio.Future[None]]:
    """Ask for executions; the second part, set, means that the client has gone."""
    values: dict[str, Any] = {"queues": ("default",), "tasks": None, **seat}
    place = Seat(worker="w", wanted=wanted, lease=30 * SECOND, **values)
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    return asyncio.create_task(claimer.claim(tenant.tenant_id, place, claim_id, wait, gone)), gone


async def in_line(claimer: Claimer, count: int) -> None:
    """Wait until so many workers wait and a round has found nothing for them."""
    async with asyncio.timeout(60):
        while claimer.waiting < count or claimer.rounds == 0:  # noqa: ASYNC110  it has no event for tests
            await asyncio.sleep(0)


async def test_a_slot_wakes_a_waiting_worker(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that waits gets a slot as it falls due, long before the next look at the database."""
    monkeypatch.setattr(module, "PROBE", 3600.0)
    task = make_task(tenant)
    due = database_now(database) + 2 * SECOND
    slot = make_slot(tenant, task, due)
    async with serving(database) as claimer:
        given = await ask(claimer, tenant, wait=60)[0]
        late = database_now(database) - due

    assert [one["id"] for one in given] == [str(slot)]
    assert timedelta(0) <= late < 30 * SECOND


async def test_asking_without_waiting(database: FreshDatabase, tenant: Tenant) -> None:
    """With no wait a claim answers what is due now, even if that is nothing."""
    async with serving(database) as claimer:
        assert await ask(claimer, tenant, wait=0)[0] == []
        slot = make_slot(tenant, make_task(tenant), database_now(database) - SECOND)
        assert [one["id"] for one in await ask(claimer, tenant, wait=0)[0]] == [str(slot)]


async def test_a_wait_ends(database: FreshDatabase, tenant: Tenant) -> None:
    """After the wait the answer is empty, and nothing was claimed."""
    async with serving(database) as claimer:
        began = time.monotonic()
        assert await ask(claimer, tenant, wait=0.3)[0] == []
        assert time.monotonic() - began >= 0.3
        assert claimer.waiting == 0


async def test_another_process_is_noticed(database: FreshDatabase, tenant: Tenant) -> None:
    """What another process makes claimable is found within about a second, without any message."""
    task = make_task(tenant)
    async with serving(database) as claimer:
        asking, _ = ask(claimer, tenant, wait=60)
        await in_line(claimer, 1)
        elsewhere = Database(database.url, "cron_observer_api")
        async with elsewhere.transaction([tenant.tenant_id]) as conn:
            now = await clock(conn)
            made = await create_manual(conn, tenant.tenant_id, task, actor="other", now=now)
        await elsewhere.close()
        began = time.monotonic()
        given = await asking

    assert [one["id"] for one in given] == [str(made)]
    assert time.monotonic() - began < 30


async def test_waiting_holds_no_connection(database: FreshDatabase, tenant: Tenant) -> None:
    """Three hundred waiting workers leave every connection of the pool free."""
    async with serving(database) as claimer:
        asking = [ask(claimer, tenant, wait=3)[0] for _ in range(300)]
        await in_line(claimer, 300)
        pool: Any = database.api.engine.pool
        held = [pool.checkedout() for _ in range(50) if not await asyncio.sleep(0.01)]
        assert sum(held) / len(held) < 1
        assert await asyncio.gather(*asking) == [[]] * 300


async def test_a_client_that_has_gone_loses_nothing(database: FreshDatabase, tenant: Tenant) -> None:
    """What was claimed for a client that went away is released at once, for the next one."""
    slot = make_slot(tenant, make_task(tenant), database_now(database) - SECOND)
    async with serving(database) as claimer:
        asking, gone = ask(claimer, tenant)
        gone.set_result(None)
        await asking
        given = await ask(claimer, tenant)[0]

    assert [one["id"] for one in given] == [str(slot)]
    assert state(database, slot) == ("RUNNING", None)


async def test_a_repeated_claim_gets_the_same(database: FreshDatabase, tenant: Tenant) -> None:
    """The same claim id, asked again or at the same time, gets the same executions with the same fences."""
    claim_id = uuid4()
    for number in range(3):
        make_slot(tenant, make_task(tenant, f"t{number}"), database_now(database) - SECOND)
    async with serving(database) as claimer:
        together = await asyncio.gather(*(ask(claimer, tenant, wanted=2, claim_id=claim_id)[0] for _ in range(3)))
        later = await ask(claimer, tenant, wanted=2, claim_id=claim_id)[0]
        other = await ask(claimer, tenant, wanted=2, claim_id=uuid4())[0]

    marks = [[(one["id"], one["fence"]) for one in given] for given in [*together, later]]
    assert len(marks[0]) == 2
    assert marks == [marks[0]] * 4
    assert len(other) == 1


async def test_tenants_get_their_own(database: FreshDatabase, tenant: Tenant) -> None:
    """A waiting worker never gets another tenant's execution."""
    stranger = make_tenant(database, "stranger")
    slot = make_slot(stranger, make_task(stranger), database_now(database) - SECOND)
    async with serving(database) as claimer:
        mine, theirs = ask(claimer, tenant, wait=1)[0], ask(claimer, stranger)[0]

        assert [one["id"] for one in await theirs] == [str(slot)]
        assert await mine == []


async def test_a_stop_answers_everybody(database: FreshDatabase, tenant: Tenant) -> None:
    """When the process stops, waiting workers get an empty answer at once, and new ones are told 503."""
    async with serving(database) as claimer:
        asking = [ask(claimer, tenant, wait=30)[0] for _ in range(5)]
        await in_line(claimer, 5)
    assert await asyncio.gather(*asking) == [[]] * 5
    refused = await asyncio.gather(ask(claimer, tenant)[0], return_exceptions=True)
    assert isinstance(refused[0], DatabaseError)


async def test_many_workers_share_many_slots(database: FreshDatabase, tenant: Tenant) -> None:
    """Fifty workers and fifty slots that fall due together: each slot goes to one worker, none is left."""
    due = database_now(database) + 2 * SECOND
    slots = {str(make_slot(tenant, make_task(tenant, f"t{number}"), due)) for number in range(50)}
    async with serving(database) as claimer:
        given = await asyncio.gather(*(ask(claimer, tenant)[0] for _ in range(50)))

    got = [one["id"] for answer in given for one in answer]
    assert sorted(got) == sorted(slots)


async def test_a_crowd_that_waits_for_the_same_is_served_a_part_at_a_time(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many who wait for the same a round looks at the first; who wants something else is not behind them, nor is a
    claim that may be a repeat; and in the end everybody has something."""
    monkeypatch.setattr(module, "ALIKE_MAX", 3)
    seen: list[int] = []
    real = module.claim_round

    async def noted(conn: Any, tenant_id: UUID, seats: Any, *rest: Any, **more: Any) -> Any:
        seen.append(len(seats))
        return await real(conn, tenant_id, seats, *rest, **more)

    monkeypatch.setattr(module, "claim_round", noted)
    task, other = (
        make_task(tenant, "crowded", overlap="allow_all", queue="crowd", catchup={"policy": "all"}),
        make_task(tenant, "other"),
    )
    async with serving(database) as claimer:
        crowd = [ask(claimer, tenant, wait=60, queues=("crowd",))[0] for _ in range(9)]
        await in_line(claimer, 9)
        aside = ask(claimer, tenant, wait=60, tasks=frozenset([other]))[0]
        await in_line(claimer, 10)
        slot = make_slot(tenant, other, database_now(database) - SECOND)
        claimer.wake(tenant.tenant_id)
        assert [one["id"] for one in await aside] == [str(slot)]
        for ago in range(9):
            make_slot(tenant, task, database_now(database) - SECOND - ago * timedelta(milliseconds=10), queue="crowd")
        claimer.wake(tenant.tenant_id)
        given = await asyncio.gather(*crowd)
    assert all(len(some) == 1 for some in given)
    assert max(seen) <= 4
