"""Dispatchers that are killed, stopped, cut off or many: nothing is lost, and no claim is sent twice at once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta

import pytest

from cron_observer.dispatch import Dispatcher
from cron_observer.store.engine import Database
from support.databases import FreshDatabase, Tenant
from support.mutants import Mutant
from support.receivers import Received, dispatching, due, ended, receiver, reply, row, settings, slot, until
from support.rows import database_now, events

SECOND = timedelta(seconds=1)

PROCESS = """
import asyncio, sys
from datetime import timedelta
from cron_observer.dispatch import Dispatcher
from cron_observer.settings import Settings
from cron_observer.store.engine import Database
async def main():
    settings = Settings(webhook_networks=("127.0.0.0/8",))
    one = Dispatcher(Database(sys.argv[1], "cron_observer_scheduler"), settings, lease=timedelta(seconds=2))
    while True:
        await one.tick()
        await asyncio.sleep(0.1)
asyncio.run(main())
"""


class Hanging:
    """Hangs on the first request it gets, and answers all others."""

    def __init__(self) -> None:
        self.count = 0
        self.let_go = asyncio.Event()

    async def __call__(self, came: Received, writer: asyncio.StreamWriter) -> bytes:
        self.count += 1
        if self.count == 1:
            await self.let_go.wait()
        return reply(200)


async def test_what_a_killed_dispatcher_had_in_hand_is_sent_again(database: FreshDatabase, tenant: Tenant) -> None:
    """After the lease another dispatcher sends the execution, under the same id and a higher fence."""
    hanging = Hanging()
    async with receiver(hanging) as there:
        identity = due(tenant, there.url)
        killed = subprocess.Popen([sys.executable, "-c", PROCESS, database.url])  # noqa: ASYNC220  it is killed at once
        try:
            await until(lambda: there.received)
        finally:
            killed.send_signal(signal.SIGKILL)
            killed.wait()
        at = database_now(database)
        async with dispatching(database):
            done = await until(lambda: ended(database, identity))
        hanging.let_go.set()
    first, second = there.received

    assert (done["status"], done["lease_losses"]) == ("FINISHED", 1)
    assert done["claimed_at"] >= at
    assert first.header("webhook-id") == second.header("webhook-id") == str(identity)
    assert [one.header("X-Cron-Observer-Fence") for one in (first, second)] == ["1", "2"]
    assert first.header("X-Cron-Observer-Run-Token") != second.header("X-Cron-Observer-Run-Token")
    assert "lease_expired" in events(database, identity)


async def test_many_dispatchers_send_each_execution_once(database: FreshDatabase, tenant: Tenant) -> None:
    """Three dispatchers share what is due; no execution is sent twice, and no destination gets more than its share."""

    async def slow(_: Received, writer: asyncio.StreamWriter) -> bytes:
        await asyncio.sleep(0.02)
        return reply(200)

    pools = [Database(database.url, "cron_observer_scheduler") for _ in range(3)]
    async with receiver(slow) as there:
        first = due(tenant, there.url, overlap="allow_all", catchup={"policy": "all"})
        task = row(database, first)["task_uid"]
        ids = [first, *(slot(tenant, task, 2 + number / 100) for number in range(99))]
        database.do("UPDATE tasks SET spec = jsonb_set(spec, '{catchup,maxRuns}', '200')")
        database.do("UPDATE task_revisions SET spec = jsonb_set(spec, '{catchup,maxRuns}', '200')")
        async with asyncio.timeout(60):
            made = [Dispatcher(pool, settings(webhook_per_destination=4)) for pool in pools]
            async with dispatching(database, made[0]), dispatching(database, made[1]), dispatching(database, made[2]):
                await until(lambda: all(ended(database, one) for one in ids), 50)
    for pool in pools:
        await pool.close()

    assert Counter(one.header("webhook-id") for one in there.received) == Counter(map(str, ids))
    assert there.most <= 3 * 4
    assert {row(database, one)["status"] for one in ids} == {"FINISHED"}


class CutOff(Database):
    """A pool whose database goes away when it is told so."""

    away = False

    def transaction(self, tenants, **values):  # type: ignore[no-untyped-def]
        if self.away:
            return Database("postgresql://nobody@127.0.0.1:1/x", self.role).transaction(tenants, **values)
        return super().transaction(tenants, **values)


async def cut_off(database: FreshDatabase, tenant: Tenant) -> int:
    """Cut a dispatcher off from the database while it sends; return how many requests were under way at once."""
    open_now, most = 0, 0

    async def watching(_: Received, writer: asyncio.StreamWriter) -> bytes | None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        if len(there.received) > 1:
            open_now -= 1
            return reply(200)
        # Nothing is to be read any more: what comes is the end of the connection.
        await readers[0].read()
        open_now -= 1
        return None

    readers: list[asyncio.StreamReader] = []
    async with receiver(watching) as there:
        serve = there.serve

        async def kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            readers.append(reader)
            await serve(reader, writer)

        server = await asyncio.start_server(kept, "127.0.0.1", 0)
        identity = due(tenant, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        pool = CutOff(database.url, "cron_observer_scheduler")
        first = Dispatcher(pool, settings(), lease=2 * SECOND)
        await first.tick()
        await until(lambda: there.received)
        pool.away = True
        async with dispatching(database):
            await until(lambda: ended(database, identity))
        await first.close()
        await pool.close()
        server.close()
    return most


async def test_who_cannot_keep_a_lease_hangs_up(database: FreshDatabase, tenant: Tenant) -> None:
    """A dispatcher without a database ends its requests before its leases run out and others send them."""
    assert await cut_off(database, tenant) == 1


async def test_the_check_sees_a_dispatcher_that_goes_on_without_a_lease(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin, which sends on although its lease may be another's, is seen to send one claim twice at once."""
    monkeypatch.setattr("cron_observer.dispatch.loop.STOP_GRACE", 0.2)
    Mutant(
        "dispatch.attempt",
        "Attempt._watch",
        'return "lost"\n        if written.refusal',
        "continue\n        if written.refusal",
    ).apply(monkeypatch)
    with pytest.raises(AssertionError):
        assert await asyncio.wait_for(cut_off(database, tenant), 15) == 1


async def test_a_stop_gives_back_what_has_no_answer(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dispatcher that is told to stop waits a moment for answers, then gives back the rest; no attempt is counted."""
    monkeypatch.setattr("cron_observer.dispatch.loop.STOP_GRACE", 0.6)
    hanging = Hanging()

    async def soon(_: Received, writer: asyncio.StreamWriter) -> bytes:
        await asyncio.sleep(0.3)
        return reply(200)

    async with receiver(hanging) as there, receiver(soon) as quick:
        never, answered = due(tenant, there.url, "never"), due(tenant, quick.url, "answered")
        async with dispatching(database):
            await until(lambda: there.received and quick.received)
        hanging.let_go.set()

    assert row(database, answered)["status"] == "FINISHED"
    waiting = row(database, never)
    assert (waiting["status"], waiting["attempt"], waiting["fence"]) == ("PENDING", 0, 1)
    assert events(database, never) == ["claimed", "started", "released"]


async def test_an_answer_outlives_an_absence_of_the_database(database: FreshDatabase, tenant: Tenant) -> None:
    """What a destination said while the database was away is written when it is back."""
    pool = CutOff(database.url, "cron_observer_scheduler")

    async def away(_: Received, writer: asyncio.StreamWriter) -> bytes:
        pool.away = True
        return reply(200, b"kept")

    async with receiver(away) as there:
        identity = due(tenant, there.url)
        one = Dispatcher(pool, settings())
        await one.tick()
        await until(lambda: there.received)
        await asyncio.sleep(0.3)
        assert row(database, identity)["status"] == "RUNNING"
        pool.away = False
        done = await until(lambda: ended(database, identity))
        await until(lambda: not one.under_way)
    await pool.close()

    assert (done["status"], done["result"], len(there.received)) == ("FINISHED", "kept", 1)


async def test_the_next_slot_is_sent_when_it_falls_due(database: FreshDatabase, tenant: Tenant) -> None:
    """Nobody waits for the next look, which is a minute away: a slot that falls due is sent."""
    async with receiver() as there:
        first = due(tenant, there.url)
        task = row(database, first)["task_uid"]
        later = slot(tenant, task, -1.5)
        async with dispatching(database, look=60):
            await until(lambda: ended(database, later), 30)
