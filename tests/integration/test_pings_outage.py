"""Pings while PostgreSQL is killed and comes back: durable or refused, in time, and without anybody's help.

``CRON_OBSERVER_AWAY=30`` keeps it away for as many seconds (3 by default), with more pings.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

from cron_observer.postgres.cluster import SUPERUSER
from cron_observer.postgres.launcher import launch
from cron_observer.store.migrate import migrate
from support.api import served
from support.checkins import Watched, watched
from support.databases import FreshDatabase, Tenant, connect, make_tenant, named
from support.machine import Stopwatch
from support.postgres import short_folder, test_provider

#: Seconds that the server is away.
AWAY = float(os.environ.get("CRON_OBSERVER_AWAY", "3"))

#: Pings, of how many tasks, and how many are under way at once, again and again.
TASKS = 100
AT_ONCE = 100
PINGS = 2_000 + int(AWAY - 3) * AT_ONCE


def descriptors() -> int:
    """Return how many files and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Load:
    """Pings of runs of their own, and what each was answered."""

    def __init__(self, tasks: Sequence[Watched]) -> None:
        self.tasks = tasks
        self.answers: Counter[int] = Counter()
        self.slowest = 0.0
        self.well: set[UUID] = set()
        self.headers: set[bool] = set()
        self.most = 0
        self.begun = asyncio.Event()  #: some of them have been answered well
        self.last_refused = 0.0

    async def run(self, host: str, port: int) -> None:
        """Send them all, over as many connections as are under way at once."""
        await asyncio.gather(*(self._one(host, port, number) for number in range(AT_ONCE)))

    async def _one(self, host: str, port: int, number: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for turn in range(PINGS // AT_ONCE):
            task, name, taken = self.tasks[(number + turn) % len(self.tasks)], uuid4(), Stopwatch(alone=True)
            writer.write(f"GET /ping/{task.doors.address}?rid={name} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
            self._note(int(head.split()[1]), name, head, taken.seconds)
            await asyncio.sleep(0.2)
        writer.close()

    def _note(self, status: int, name: UUID, head: str, took: float) -> None:
        self.slowest = max(self.slowest, took)
        self.answers[status] += 1
        self.most = max(self.most, descriptors())
        if status == 200:
            self.well.add(name)
            if len(self.well) == AT_ONCE:
                self.begun.set()
        else:
            self.last_refused = time.monotonic()
            self.headers.add("retry-after: " in head)


async def drive(tenant: Tenant, loaded: threading.Event, back: threading.Event) -> None:
    """Serve the app and ping it; say when there is load, and go by when the server is back."""
    async with served(tenant) as app:
        tasks = [await watched(app, tenant, f"backup-{number}") for number in range(TASKS)]
        assert (await tasks[0].ping()).text == "OK"
        before, load = descriptors(), Load(tasks)
        address = app.client.base_url
        running = asyncio.create_task(load.run(address.host, address.port or 80))
        await load.begun.wait()
        loaded.set()
        await asyncio.to_thread(back.wait)
        again, since = time.monotonic(), Stopwatch()
        await running
        assert set(load.answers) == {200, 503}
        assert load.answers[503] > 20
        assert load.headers == {True}
        assert load.last_refused - again < 5 + since.kept_waiting
        assert load.slowest < 2.5
        assert load.most - before < 2 * AT_ONCE + 50
        assert (await tasks[0].ping()).text == "OK"
        fresh_eyes = FreshDatabase(tenant.database.url)
        kept = {row["rid"] for row in fresh_eyes.rows("SELECT rid FROM checkins WHERE closed_at IS NOT NULL")}
        ended = fresh_eyes.value("SELECT count(*) FROM executions WHERE status = 'FINISHED'")
        fresh_eyes.close()
        assert load.well <= kept
        assert ended >= len(load.well) + 2
    await tenant.database.aclose()


def test_case_15_i23_a_ping_is_durable_or_refused() -> None:
    """The server is killed amid 2,000 pings: none of those answered OK is lost, the others hear 503 in time, the
    process keeps its descriptors, and works again by itself."""
    loaded, back = threading.Event(), threading.Event()
    with short_folder("co-test-pg-") as folder, launch(folder / "pg", provider=test_provider()) as server:
        url = named(server.url(SUPERUSER, "postgres"), "observer")
        with connect(server.url(SUPERUSER, "postgres")) as admin:
            admin.execute("CREATE DATABASE observer")
        migrate(url)
        database = FreshDatabase(url)
        tenant = make_tenant(database)
        with ThreadPoolExecutor(1) as executor:
            driving = executor.submit(asyncio.run, drive(tenant, loaded, back))
            try:
                assert loaded.wait(60)
                assert server.pid is not None
                os.kill(server.pid, signal.SIGQUIT)
                time.sleep(AWAY)
                with launch(folder / "pg", provider=test_provider()):
                    back.set()
                    driving.result(60 + 2 * AWAY)
            finally:
                back.set()
                database.close()
