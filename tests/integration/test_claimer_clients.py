"""Clients that come again, go away, or meet a database that is away: what the claimer owes each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from cron_observer.clock import ClockGuard
from cron_observer.errors import DatabaseError
from cron_observer.store.engine import Database
from cron_observer.store.executions import Seat
from cron_observer.store.tokens import SigningKeys
from cron_observer_api import claimer as claimer_module
from cron_observer_api.claimer import Claimer, Given
from cron_observer_api.writer import Writer
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, make_slot, make_task, state

SECOND = timedelta(seconds=1)


class Held:
    """Rounds that stop once they have claimed, until they are let go."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        real: Any = claimer_module.claim_round

        async def held(*arguments: Any, **more: Any) -> Any:
            runs = await real(*arguments, **more)
            self.reached.set()
            await self.go.wait()
            return runs

        patch.setattr(claimer_module, "claim_round", held)


@asynccontextmanager
async def serving(database: Database) -> AsyncIterator[Claimer]:
    """Run a writer and a claimer."""
    writer = Writer(database)
    claimer = Claimer(database, ClockGuard(), writer.submit, SigningKeys(database).own)
    writer.on_change = claimer.wake
    loops = [asyncio.create_task(claimer.run()), asyncio.create_task(writer.run())]
    yield claimer
    claimer.stop()
    await loops[0]
    await claimer.settled()
    writer.stop()
    await loops[1]


class Client:
    """One request; `gone` set means that its connection is closed."""

    def __init__(self, claimer: Claimer, tenant: Tenant, wait: float = 10, claim_id: UUID | None = None) -> None:
        seat = Seat(worker="w", queues=("default",), tasks=None, wanted=1, lease=30 * SECOND)
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer: asyncio.Task[Given] = asyncio.create_task(
            claimer.claim(tenant.tenant_id, seat, claim_id, wait, self.gone)
        )

    async def ids(self) -> list[str]:
        """Return the ids of what it was given."""
        return [one["id"] for one in await self.answer]


async def settled(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  it has no event for tests
            await asyncio.sleep(0.005)


def slot_of(tenant: Tenant, name: str = "t") -> UUID:
    """Return a slot that is due."""
    return make_slot(tenant, make_task(tenant, name), database_now(tenant.database) - SECOND)


async def test_who_asks_again_takes_over(database: FreshDatabase, tenant: Tenant) -> None:
    """A client that lost its connection and repeats its claim waits on, though the first request ends."""
    claim_id = uuid4()
    async with serving(database.api) as claimer:
        first = Client(claimer, tenant, claim_id=claim_id)
        await settled(lambda: claimer.rounds > 0)
        second = Client(claimer, tenant, claim_id=claim_id)
        await asyncio.sleep(0)
        first.gone.set_result(None)
        assert await first.ids() == []
        slot = slot_of(tenant)

        assert await second.ids() == [str(slot)]
        assert state(database, slot) == ("RUNNING", None)
        assert claimer.waiting == 0


async def test_one_of_two_askers_is_enough(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a repeated claim got is not given back because the first connection broke while it was decided."""
    held, claim_id, slot = Held(monkeypatch), uuid4(), slot_of(tenant)
    async with serving(database.api) as claimer:
        first, second = (Client(claimer, tenant, claim_id=claim_id) for _ in range(2))
        await held.reached.wait()
        first.gone.set_result(None)
        held.go.set()
        assert await second.ids() == [str(slot)]
        await first.answer
        await claimer.settled()

    assert database.rows("SELECT status, fence FROM executions") == [{"status": "RUNNING", "fence": 1}]


async def test_a_second_try_while_the_first_is_decided(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that comes again before its first claim is decided gets the same, under the same fence."""
    held, claim_id, slot = Held(monkeypatch), uuid4(), slot_of(tenant)
    async with serving(database.api) as claimer:
        first = Client(claimer, tenant, claim_id=claim_id)
        await held.reached.wait()
        first.answer.cancel()
        await asyncio.wait({first.answer})
        second = Client(claimer, tenant, claim_id=claim_id)
        await asyncio.sleep(0)
        held.go.set()

        assert [(one["id"], one["fence"]) for one in await second.answer] == [(str(slot), 1)]
    assert state(database, slot) == ("RUNNING", None)


async def test_asking_at_once_joins_who_waits(database: FreshDatabase, tenant: Tenant) -> None:
    """A repeat that does not wait is answered with nothing, and the first request waits on."""
    claim_id = uuid4()
    async with serving(database.api) as claimer:
        first = Client(claimer, tenant, claim_id=claim_id)
        await settled(lambda: claimer.rounds > 0)
        assert await Client(claimer, tenant, wait=0, claim_id=claim_id).ids() == []
        slot = slot_of(tenant)
        assert await first.ids() == [str(slot)]


@pytest.mark.parametrize("claim_id", [None, uuid4()])
async def test_a_cancelled_request_gives_back(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, claim_id: UUID | None
) -> None:
    """When a request is cancelled while a round has it in hand, what that claims is released at once."""
    held, slot = Held(monkeypatch), slot_of(tenant)
    async with serving(database.api) as claimer:
        client = Client(claimer, tenant, claim_id=claim_id)
        await held.reached.wait()
        client.answer.cancel()
        await asyncio.wait({client.answer})
        held.go.set()
        await settled(lambda: state(database, slot) == ("PENDING", None))
        assert claimer.waiting == 0
    assert database.value("SELECT outcome FROM attempts") == "released"


async def test_a_stop_during_a_round(database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom a round has in hand when the process stops is answered when that ends: with what it gave, or nothing."""
    held, slot = Held(monkeypatch), slot_of(tenant)
    async with serving(database.api) as claimer:
        clients = [Client(claimer, tenant, wait=30) for _ in range(2)]
        await held.reached.wait()
        claimer.stop()
        held.go.set()
        async with asyncio.timeout(20):
            given = [await client.ids() for client in clients]

    assert given == [[str(slot)], []]


class Flaky:
    """A database that is away for as long as `away` says."""

    def __init__(self, real: Database) -> None:
        self._real = real
        self.away = True
        self.tried = 0

    def transaction(self, *arguments: Any, **more: Any) -> Any:
        """Open a transaction, or say that there is no database."""
        self.tried += 1
        if self.away:
            raise DatabaseError("the database cannot be reached")
        return self._real.transaction(*arguments, **more)


async def test_a_wait_outlives_the_database(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can wait waits on while the database is away, without haste, and gets its work when it is back."""
    monkeypatch.setattr(claimer_module, "PROBE", 0.05)
    flaky: Any = Flaky(database.api)
    async with serving(flaky) as claimer:
        client = Client(claimer, tenant)
        await settled(lambda: claimer.rounds >= 3)
        assert not client.answer.done()
        flaky.away, slot = False, slot_of(tenant)
        assert await client.ids() == [str(slot)]


async def test_who_cannot_wait_is_told(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database is away a claim that does not wait is refused at once, another when its wait ends."""
    monkeypatch.setattr(claimer_module, "PROBE", 0.05)
    flaky: Any = Flaky(database.api)
    async with serving(flaky) as claimer:
        clients = [Client(claimer, tenant, wait) for wait in (0, 0.3)]
        for client in clients:
            with pytest.raises(DatabaseError):
                await client.answer
        assert flaky.tried < 20, "it is tried again as often as a probe is made"


async def test_many_claims_are_remembered_together(database: FreshDatabase, tenant: Tenant) -> None:
    """Workers with claims of their own, served in one round, each get the same again."""
    slots = {str(slot_of(tenant, f"t{number}")) for number in range(6)}
    ids = [uuid4() for _ in range(6)]
    async with serving(database.api) as claimer:
        first = [await one.ids() for one in [Client(claimer, tenant, claim_id=one) for one in ids]]
        again = [await one.ids() for one in [Client(claimer, tenant, claim_id=one) for one in ids]]

    assert again == first
    assert {one for (one,) in first} == slots
