"""The dispatcher's role as a process: it sends, tells that it is well, and stops in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys

from cron_observer.settings import Settings
from support.databases import FreshDatabase, Tenant
from support.receivers import Received, due, ended, receiver, reply, row, until
from support.rows import events

PROCESS = """
import asyncio, sys
from cron_observer import log
from cron_observer.dispatch import loop
from cron_observer.service import run_roles
from cron_observer.settings import Settings
log.configure("json")
loop.STOP_GRACE = 1.0
settings = Settings(database_url=sys.argv[1], webhook_networks=("127.0.0.0/8",))
asyncio.run(run_roles(settings, {"dispatcher"}))
"""


def test_a_dispatcher_acts_as_a_scheduler() -> None:
    """It has the scheduler's rights in the database, and a pool of its own."""
    given = Settings(database_url="postgresql://a/b", database_url_scheduler="postgresql://c/d")

    assert given.database_of("dispatcher") == given.database_of("scheduler") == "postgresql://c/d"
    assert given.pool_of("dispatcher") == 3


async def test_the_role_sends_and_stops_in_order(database: FreshDatabase, tenant: Tenant) -> None:
    """SIGTERM lets it wait a moment for answers, give back what has none, and end with 0."""
    let_go = asyncio.Event()

    async def hang(_: Received, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                await let_go.wait()

    async with receiver(reply(200)) as there, receiver(hang) as hanging:
        quick, never = due(tenant, there.url, "quick"), due(tenant, hanging.url, "never")
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", PROCESS, database.url], stderr=subprocess.PIPE, text=True
        )
        try:
            await until(lambda: ended(database, quick) and hanging.received)
            process.send_signal(signal.SIGTERM)
            said = await asyncio.to_thread(process.communicate, timeout=60)
        finally:
            process.kill()
            let_go.set()
    assert process.returncode == 0, said
    assert '"event": "loop_stopped"' in said[1]
    assert row(database, quick)["status"] == "FINISHED"
    assert (row(database, never)["status"], events(database, never)[-1]) == ("PENDING", "released")
