"""A slow, dead or hostile destination harms only itself."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import time
from bisect import bisect
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cron_observer.dispatch.answer import BODY_MAX
from support.databases import FreshDatabase, Tenant
from support.machine import Stopwatch, waited
from support.mutants import Mutant
from support.receivers import Handler, Received, Receiver, dispatching, due, ended, receiver, reply, row, slot, until
from support.rows import database_now, make_slot

SECOND = timedelta(seconds=1)


async def hang(_: Received, writer: asyncio.StreamWriter) -> None:
    """Say nothing until the other side hangs up."""
    with contextlib.suppress(ConnectionError):
        while not writer.transport.is_closing():  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.05)


async def drip(_: Received, writer: asyncio.StreamWriter) -> None:
    """Send a byte of the body now and then."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while not writer.transport.is_closing():
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.2)


async def reset(_: Received, writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    writer.transport.abort()


async def drip_headers(_: Received, writer: asyncio.StreamWriter) -> None:
    """Send a byte of a header now and then, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    with contextlib.suppress(ConnectionError):
        while not writer.transport.is_closing():
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.2)


async def again(came: Received, _: asyncio.StreamWriter) -> bytes:
    """Redirect to itself."""
    return reply(302, Location=f"http://{came.header('host')}/hook")


BAD: list[Handler | bytes] = [
    *(hang, drip, drip_headers, reset, again),
    *(b"\x16\x03\x01\x00\x05hello", reply(500), reply(429, Retry_After="1")),
]


@contextlib.asynccontextmanager
async def lateness(database: FreshDatabase) -> AsyncIterator[Callable[[float, float], float]]:
    """Give a function that says how long we and the database waited for a processor between two monotonic instants."""
    samples = [(time.monotonic(), 0.0)]

    async def sample() -> None:
        servers: list[int] = []
        before = waited()
        while True:
            await asyncio.sleep(0.05)
            now = waited(also=servers)
            samples.append((time.monotonic(), samples[-1][1] + max(0.0, now - before)))
            if len(samples) % 20 == 2:
                rows = database.rows("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
                servers = [row["pid"] for row in rows]
            before = waited(also=servers)

    def between(since: float, until: float) -> float:
        first = samples[max(0, bisect(samples, (since,)) - 1)]
        last = samples[min(len(samples) - 1, bisect(samples, (until,)))]
        return last[1] - first[1]

    sampling = asyncio.create_task(sample())
    try:
        yield between
    finally:
        sampling.cancel()


async def beside(
    database: FreshDatabase, tenant: Tenant, seconds: float, endpoints: int, *, patience: float = 30
) -> tuple[float, Receiver]:
    """Run a healthy destination at 10/s beside bad ones; return the p99 of its delay, and a receiver that hangs.

    Of a delay what the process waited for a processor is taken off; fails after `patience` seconds more.
    """
    async with contextlib.AsyncExitStack() as stack:
        bad = [await stack.enter_async_context(receiver(BAD[number % len(BAD)])) for number in range(endpoints)]
        there = await stack.enter_async_context(receiver(reply(200, b"{}")))
        retries = {"max": 100, "initial": "30s", "cap": "30s"}
        for number, one in enumerate(bad):
            first = due(
                tenant,
                one.url,
                f"bad{number}",
                overlap="allow_all",
                retries=retries,
                catchup={"policy": "all", "maxRuns": 1000},
            )
            task = row(database, first)["task_uid"]
            for more in range(9):
                slot(tenant, task, 2.0 + more)
        first = due(tenant, there.url, "good", overlap="allow_all", catchup={"policy": "all", "maxRuns": 1000})
        task, now = row(database, first)["task_uid"], database_now(database)
        fires = {}
        for number in range(int(seconds * 10)):
            at = now + SECOND * (1 + number / 10)
            fires[str(make_slot(tenant, task, at, queue="@http"))] = at
        began_at, began = database_now(database), time.monotonic()
        async with dispatching(database, webhook_concurrency=160), lateness(database) as late:
            await until(lambda: len(there.received) > len(fires), seconds + patience)

    def delay(came: Received) -> float:
        due_at: datetime = fires[came.header("webhook-id")]
        since = began + max(0.0, (due_at - began_at).total_seconds())
        return came.at - since - late(since, came.at)

    delays = sorted(delay(came) for came in there.received if came.header("webhook-id") in fires)
    assert len(delays) == len(fires)
    return delays[int(len(delays) * 0.99)], bad[0]


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is given up soon when a dispatcher stops."""
    monkeypatch.setattr("cron_observer.dispatch.loop.STOP_GRACE", 0.3)


async def test_a_healthy_destination_does_not_notice_the_others(database: FreshDatabase, tenant: Tenant) -> None:
    """Beside 50 bad destinations with ten executions each, one at 10/s is served within 2 s, and mostly at once."""
    p99, hanging = await beside(database, tenant, 5, 50)

    assert p99 <= 2.0
    assert hanging.most <= 10


async def test_the_check_sees_a_dispatcher_without_shares(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin, whose destinations take whatever places there are, is seen to starve the healthy one."""
    rule = "under_way == 0 or (under_way < self._each and unshared * self._each > shared * (under_way - 1))"
    Mutant("dispatch.lanes", "Lanes.is_open", rule, "True").apply(monkeypatch)

    with pytest.raises(AssertionError):
        await beside(database, tenant, 1, 50, patience=3)


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


CHUNK = b"x" * 65536
BOMB = gzip.compress(b"\0" * 50_000_000)


async def endless(_: Received, writer: asyncio.StreamWriter) -> None:
    """Send a body of ten gigabytes."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while not writer.transport.is_closing():
            writer.write(CHUNK)
            await writer.drain()


async def endless_chunks(_: Received, writer: asyncio.StreamWriter) -> None:
    """Send chunks for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while not writer.transport.is_closing():
            writer.write(b"10000\r\n" + CHUNK + b"\r\n")
            await writer.drain()


async def many_headers(_: Received, writer: asyncio.StreamWriter) -> None:
    """Send ten thousand headers."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    with contextlib.suppress(ConnectionError):
        for number in range(10_000):
            writer.write(f"X-{number}: {'y' * 20}\r\n".encode())
            await writer.drain()
        writer.write(b"Content-Length: 0\r\n\r\n")


async def informed(_: Received, writer: asyncio.StreamWriter) -> None:
    """Send provisional answers for ever."""
    with contextlib.suppress(ConnectionError):
        while not writer.transport.is_closing():
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
            await writer.drain()


HOSTILE: list[Handler | bytes] = [
    *(endless, endless_chunks, many_headers, drip, informed),
    reply(200, BOMB, Content_Encoding="gzip", Content_Type="application/json"),
]


async def hostile(database: FreshDatabase, tenant: Tenant) -> int:
    """Let twenty answers at once try to hurt; return by how many bytes the process grew."""
    async with contextlib.AsyncExitStack() as stack:
        warm = await stack.enter_async_context(receiver(reply(200, CHUNK)))
        first = due(tenant, warm.url, "warm")
        async with dispatching(database) as running:
            await until(lambda: ended(database, first))
            before = most = resident()
            ids = []
            for number in range(20):
                one = await stack.enter_async_context(receiver(HOSTILE[number % len(HOSTILE)]))
                ids.append(due(tenant, one.url, f"h{number}", http={"timeout": "3s"}))
            while running.under_way or not all(ended(database, one) for one in ids):
                most = max(most, resident())
                await asyncio.sleep(0.02)
    for number, identity in enumerate(ids):
        (kept,) = database.rows("SELECT status, length(result::text) AS size FROM executions WHERE id = %s", identity)
        assert (kept["size"] or 0) <= BODY_MAX + 2
        fine = HOSTILE[number % len(HOSTILE)] in (endless, endless_chunks, HOSTILE[-1])
        assert kept["status"] == ("FINISHED" if fine else "FAILED")
    return most - before


async def test_an_answer_cannot_hurt(database: FreshDatabase, tenant: Tenant) -> None:
    """Twenty at once of endless bodies, bombs, 10,000 headers and drips: 64 KiB are kept, 30 MB are not reached."""
    assert await hostile(database, tenant) <= 30 * 1024 * 1024


async def test_a_long_body_is_kept_from_its_beginning(database: FreshDatabase, tenant: Tenant) -> None:
    """Of a longer body the first 64 KiB are the result, and the event says that it was cut."""
    async with receiver(reply(200, b"ab" * BODY_MAX)) as there:
        identity = due(tenant, there.url)
        async with dispatching(database):
            done = await until(lambda: ended(database, identity))
    assert done["status"] == "FINISHED"
    assert done["result"].startswith("abab")
    assert BODY_MAX * 0.8 < len(done["result"]) <= BODY_MAX
    assert (
        database.value(
            "SELECT data -> 'http' ->> 'body_cut' FROM execution_events WHERE execution_id = %s AND type = 'finished'",
            identity,
        )
        == "true"
    )


@pytest.mark.parametrize("handler", [hang, drip, drip_headers], ids=lambda one: one.__name__)
async def test_the_deadline_is_for_all_of_a_request(database: FreshDatabase, tenant: Tenant, handler: Handler) -> None:
    """However little comes however often, a request takes no longer than its timeout, and is tried again."""
    async with receiver(handler) as there:
        identity = due(tenant, there.url, http={"timeout": "1s"}, retries={"max": 1, "initial": "1h", "cap": "1h"})
        began, taken = time.monotonic(), Stopwatch()
        async with dispatching(database):
            await until(
                lambda: row(database, identity)["status"] == "PENDING" and row(database, identity)["fence"] == 1
            )
    assert time.monotonic() - began >= 0.9
    assert taken.seconds <= 5
    assert row(database, identity)["error"]["type"] == "timeout"
