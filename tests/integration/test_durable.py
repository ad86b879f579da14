"""What was answered survives a crash of PostgreSQL: the server dies under load, and nothing that was said is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from cron_observer.postgres.cluster import SUPERUSER
from cron_observer.postgres.launcher import launch
from support import databases
from support.backlogs import EVERY, make_backlog
from support.databases import FreshDatabase, Tenant, connect, make_tenant
from support.postgres import short_folder, test_provider
from support.rows import database_now, make_task
from support.worker import Worker, working

#: Crashes of one run.
CRASHES = int(os.environ.get("CRON_OBSERVER_CRASHES", "1"))

#: Completions that are answered before the server dies.
ENOUGH = 60


@contextmanager
def started(folder: Path) -> Iterator[tuple[str, int]]:
    """Run a server with durable commits on what lies in `folder`; give its URL and process."""
    with launch(folder / "pg", provider=test_provider()) as server:
        assert server.pid is not None
        yield server.url(SUPERUSER, "postgres"), server.pid


async def work(worker: Worker, said: set[UUID], enough: asyncio.Event) -> None:
    """Claim and complete until the database is gone, and note what was answered."""
    while True:
        try:
            for one in await worker.claim(max=5, lease_seconds=600):
                reply = await worker.report(one, "complete", outcome="finished")
                if reply.status_code != 200:
                    return
                said.add(UUID(one["id"]))
                if len(said) >= ENOUGH:
                    enough.set()
        except (AssertionError, httpx.HTTPError):
            return


async def lost_in_a_crash(url: str, pid: int, name: str) -> tuple[set[UUID], str]:
    """Work until the server dies, at once and without a word; return what was answered."""
    database = FreshDatabase(databases.named(url, name))
    tenant: Tenant = make_tenant(database, "default")
    make_backlog(tenant, make_task(tenant, **EVERY), database_now(database), 2_000)
    said: set[UUID] = set()
    enough = asyncio.Event()
    async with working(tenant) as worker:
        working_all = [asyncio.create_task(work(worker, said, enough)) for _ in range(8)]
        async with asyncio.timeout(60):
            await enough.wait()
            os.kill(pid, signal.SIGQUIT)
            await asyncio.gather(*working_all)
    await database.api.close()
    await database.scheduler.close()
    await database.reconciler.close()
    return said, name


def survivors(url: str, name: str) -> set[UUID]:
    """Return what has ended well by what the server knows after its recovery."""
    with connect(databases.named(url, name)) as conn:
        return {row["id"] for row in conn.execute("SELECT id FROM executions WHERE status = 'FINISHED'").fetchall()}


def crash(folder: Path, *settings: str) -> tuple[set[UUID], set[UUID]]:
    """Let a server die under load; return what was answered, and what of all there is after it."""
    name = "crashed"
    with started(folder) as (url, pid):
        with databases.template(url) as template, connect(url) as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            for setting in settings:
                admin.execute(setting)
            admin.execute("SELECT pg_reload_conf()")
        said, _ = asyncio.run(lost_in_a_crash(url, pid, name))
    with started(folder) as (url, _):
        return said, survivors(url, name)


def test_what_was_answered_survives_a_crash() -> None:
    """Every completion that was answered is there after the recovery."""
    for _ in range(CRASHES):
        with short_folder("co-crash-") as folder:
            said, kept = crash(folder)
        assert len(said) >= ENOUGH
        assert said - kept == set()


def test_commits_that_nobody_waits_for_are_seen() -> None:
    """With commits that are answered before they are durable, the same check finds some of them lost."""
    waits: tuple[Any, ...] = (
        "ALTER ROLE cron_observer_api SET synchronous_commit = off",
        "ALTER SYSTEM SET wal_writer_delay = '10s'",
    )
    with short_folder("co-crash-") as folder:
        said, kept = crash(folder, *waits)
    with pytest.raises(AssertionError):
        assert said - kept == set()
