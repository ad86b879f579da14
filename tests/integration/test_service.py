"""Roles as processes: they start, stop when told, and come back when the database does."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cron_observer.service import Heartbeats, run_roles
from cron_observer.settings import Settings
from support.databases import FreshDatabase, Tenant
from support.plans import begin, fires, make_unplanned, until
from support.rows import database_now

PROCESS = """
import asyncio, sys
from cron_observer import log
from cron_observer.service import run_roles
from cron_observer.settings import Settings
log.configure("json")
asyncio.run(run_roles(Settings(database_url=sys.argv[1]), set(sys.argv[2:])))
"""


@pytest.fixture
def process(database: FreshDatabase, tenant: Tenant) -> Iterator[subprocess.Popen[str]]:
    """A process with the scheduler's and the reconciler's role."""
    started = subprocess.Popen(
        [sys.executable, "-c", PROCESS, database.url, "scheduler", "reconciler"], stderr=subprocess.PIPE, text=True
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def said(process: subprocess.Popen[str], event: str) -> list[dict[str, Any]]:
    """Read what the process logs up to the first `event`."""
    lines: list[dict[str, Any]] = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(json.loads(line))
        if lines[-1]["event"] == event:
            return lines
    pytest.fail(f"ended without {event}: {lines}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_roles_in_order(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C let every loop finish its tick; the process ends with 0."""
    said(process, "loop_started")
    said(process, "loop_started")
    process.send_signal(number)
    stopped = said(process, "loop_stopped") + said(process, "loop_stopped")
    assert {line["role"] for line in stopped if line["event"] == "loop_stopped"} == {"reconciler", "scheduler"}
    assert process.wait(30) == 0


STUBBORN = """
import asyncio
from cron_observer import log
from cron_observer.service import stop_signals
async def main():
    with stop_signals(asyncio.Event()):
        await asyncio.Event().wait()
log.configure("json")
print("ready", flush=True)
asyncio.run(main())
"""


def test_a_second_signal_ends_the_process_at_once() -> None:
    """Whoever cannot wait says it again, and the process ends with 1 and without a traceback."""
    started = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        _caught(started.pid, signal.SIGTERM)
        started.send_signal(signal.SIGTERM)
        assert said(started, "stopping")[-1]["at_once"] is False
        started.send_signal(signal.SIGTERM)
        assert said(started, "stopping")[-1]["at_once"] is True
        assert started.wait(30) == 1
        assert started.stderr is not None
        assert started.stderr.read() == ""
    finally:
        started.kill()
        started.wait()


def _caught(pid: int, number: signal.Signals) -> None:
    """Wait until a process handles a signal."""
    while True:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        if int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1:
            return


async def test_roles_share_one_process_and_its_heartbeats(database: FreshDatabase, tenant: Tenant) -> None:
    """Several roles run in one event loop, are ready after their first tick, and end with the stop event."""
    uid = make_unplanned(tenant)
    begin(tenant, uid, {"cron": "* * * * *"}, database_now(database))
    stop, heartbeats = asyncio.Event(), Heartbeats()
    running = asyncio.create_task(
        run_roles(
            Settings(database_url=database.url),
            {"scheduler", "reconciler"},
            stop=stop,
            heartbeats=heartbeats,
            signals=False,
        )
    )
    await until(lambda: heartbeats.roles() == ["reconciler", "scheduler"] and not heartbeats.failing())
    stop.set()
    await asyncio.wait_for(running, 30)
    assert len(fires(database, uid)) >= 60


async def test_a_loop_comes_back_with_its_connections(database: FreshDatabase, tenant: Tenant) -> None:
    """When every connection is cut, the loop fails at most a few ticks and goes on by itself."""
    stop, heartbeats = asyncio.Event(), Heartbeats()
    running = asyncio.create_task(
        run_roles(Settings(database_url=database.url), {"scheduler"}, stop=stop, heartbeats=heartbeats, signals=False)
    )
    await until(lambda: heartbeats.roles() and not heartbeats.failing())
    for _ in range(3):
        database.do(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.sleep(0)
    uid = make_unplanned(tenant)
    begin(tenant, uid, {"cron": "* * * * *"}, database_now(database))
    await until(lambda: len(fires(database, uid)) >= 60)
    stop.set()
    await asyncio.wait_for(running, 30)


def test_no_schema_is_no_crash(database: FreshDatabase, process: subprocess.Popen[str]) -> None:
    """A loop that meets a database without our tables says so and keeps trying, without hurrying."""
    said(process, "loop_started")
    with psycopg.connect(database.admin.info.dsn, autocommit=True) as admin:
        admin.execute("ALTER TABLE tenants RENAME TO gone")
    failed = [line for line in said(process, "loop_failed") if line["event"] == "loop_failed"]
    assert failed[0]["failures"] == 1
    with psycopg.connect(database.admin.info.dsn, autocommit=True) as admin:
        admin.execute("ALTER TABLE gone RENAME TO tenants")
    assert said(process, "loop_recovered")[-1]["failures"] >= 1
