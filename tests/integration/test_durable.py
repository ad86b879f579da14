"""What was answered survives a crash of PostgreSQL: the server dies under load, and nothing that was said is lost.

``CRON_OBSERVER_CRASHES=20 CRON_OBSERVER_CRASH_WRITES=5000`` is the full size (a few minutes).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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

#: Claims, lines and completions that are answered before the server dies, and how many of each that makes.
WRITES = int(os.environ.get("CRON_OBSERVER_CRASH_WRITES", "180"))
ENOUGH = WRITES // 3

pytestmark = pytest.mark.timeout(120 + CRASHES * (60 + WRITES / 10))


@dataclass
class Answered:
    """What workers were answered: the runs they got, those whose lines were stored, those that ended."""

    claimed: set[UUID] = field(default_factory=set)
    logged: set[UUID] = field(default_factory=set)
    ended: set[UUID] = field(default_factory=set)


@contextmanager
def started(folder: Path) -> Iterator[tuple[str, int]]:
    """Run a server with durable commits on what lies in `folder`; give its URL and process."""
    with launch(folder / "pg", provider=test_provider()) as server:
        assert server.pid is not None
        yield server.url(SUPERUSER, "postgres"), server.pid


async def work(worker: Worker, said: Answered, enough: asyncio.Event) -> None:
    """Claim, write a line and complete until the database is gone, and note what was answered."""
    line = [{"level": "INFO", "message": "line"}]
    while True:
        try:
            given = await worker.claim(max=5, lease_seconds=600)
            said.claimed |= {UUID(one["id"]) for one in given}
            for one in given:
                reply = await worker.report(one, "logs", first_seq=0, entries=line)
                if reply.status_code != 202:
                    return
                said.logged.add(UUID(one["id"]))
                reply = await worker.report(one, "complete", outcome="finished")
                if reply.status_code != 200:
                    return
                said.ended.add(UUID(one["id"]))
                if len(said.ended) >= ENOUGH:
                    enough.set()
        except (AssertionError, httpx.HTTPError):
            return


async def worked_until_a_crash(url: str, pid: int, name: str) -> Answered:
    """Work until the server dies, at once and without a word; return what was answered."""
    database = FreshDatabase(databases.named(url, name))
    tenant: Tenant = make_tenant(database, "default")
    make_backlog(tenant, make_task(tenant, **EVERY), database_now(database), 2_000 + 2 * ENOUGH)
    said = Answered()
    enough = asyncio.Event()
    async with working(tenant) as worker:
        working_all = [asyncio.create_task(work(worker, said, enough)) for _ in range(8)]
        async with asyncio.timeout(60 + WRITES / 10):
            await enough.wait()
            os.kill(pid, signal.SIGQUIT)
            await asyncio.gather(*working_all)
    await database.api.close()
    await database.scheduler.close()
    await database.reconciler.close()
    return said


_KEPT = (
    "SELECT execution_id AS id FROM attempts",
    "SELECT DISTINCT execution_id AS id FROM log_chunks",
    "SELECT id FROM executions WHERE status = 'FINISHED'",
)


def survivors(url: str, name: str) -> Answered:
    """Return what the server knows after its recovery."""
    with connect(databases.named(url, name)) as conn:
        return Answered(*({row["id"] for row in conn.execute(query).fetchall()} for query in _KEPT))


def lost(said: Answered, kept: Answered) -> set[UUID]:
    """Return of whom something was answered that is gone."""
    return (said.claimed - kept.claimed) | (said.logged - kept.logged) | (said.ended - kept.ended)


def crash(folder: Path, *settings: str) -> tuple[Answered, Answered]:
    """Let a server die under load; return what was answered, and what of all there is after it."""
    name = "crashed"
    with started(folder) as (url, pid):
        with databases.template(url) as template, connect(url) as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            for setting in settings:
                admin.execute(setting)
            admin.execute("SELECT pg_reload_conf()")
        said = asyncio.run(worked_until_a_crash(url, pid, name))
    with started(folder) as (url, _):
        return said, survivors(url, name)


def test_what_was_answered_survives_a_crash() -> None:
    """Every claim, every line and every completion that was answered is there after the recovery."""
    for _ in range(CRASHES):
        with short_folder("co-crash-") as folder:
            said, kept = crash(folder)
        assert len(said.ended) >= ENOUGH
        assert lost(said, kept) == set()


def test_commits_that_nobody_waits_for_are_seen() -> None:
    """With commits that are answered before they are durable, the same check finds some of them lost."""
    waits: tuple[Any, ...] = (
        "ALTER ROLE cron_observer_api SET synchronous_commit = off",
        "ALTER SYSTEM SET wal_writer_delay = '10s'",
    )
    with short_folder("co-crash-") as folder:
        said, kept = crash(folder, *waits)
    with pytest.raises(AssertionError):
        assert lost(said, kept) == set()
