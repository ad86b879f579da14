"""Claimers, completions and ticks race for places: never more run than may, and no slot is lost.

All claimers of a race have looked, and chosen what to take, before any of them writes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from cron_observer.store.engine import Database, is_transient
from cron_observer.store.executions import Cancel, claim_round, expire, process, settle_waiting
from cron_observer.store.executions import claims as claims_module
from support.claims import SECOND, complete, seat
from support.databases import FreshDatabase, Tenant
from support.places import make_backfill, make_group
from support.rows import database_now, make_slot, make_task

#: One for each claimer, so that several of them find something of one task or group at the same time.
QUEUES = ("q0", "q1", "q2", "q3")
RACES = 16
EVERY = {"catchup": {"policy": "all", "window": None, "maxRuns": 1000}}

#: What is raced for: terms of the tasks, how many of each may run, and how slots may end.
FINISHED, SKIPPED, CANCELLED = ("FINISHED", None), ("SKIPPED", "overlap"), ("CANCELLED", "overlap")
SETUPS: dict[str, tuple[dict[str, Any], int, set[tuple[str, str | None]]]] = {
    "skip": ({"overlap": "skip"}, 1, {FINISHED, SKIPPED}),
    "buffer_one": ({"overlap": "buffer_one"}, 1, {FINISHED, SKIPPED}),
    "buffer_all": ({"overlap": "buffer_all"}, 1, {FINISHED}),
    "cancel_other": ({"overlap": "cancel_other"}, 1, {FINISHED, SKIPPED, CANCELLED}),
    "terminate_other": ({"overlap": "terminate_other"}, 1, {FINISHED, SKIPPED, CANCELLED}),
    "allow_all": ({"overlap": "allow_all", "maxParallel": 2}, 2, {FINISHED}),
    "group": ({"overlap": "buffer_all", "group": "batch"}, 1, {FINISHED}),
    "backfill": ({"overlap": "allow_all"}, 2, {FINISHED}),
}

_RUNNING = """
SELECT coalesce(e.backfill_id, e.task_uid) AS whose, count(*) AS runs FROM executions e
WHERE e.tenant_id = %s AND e.status = 'RUNNING' GROUP BY 1
"""


@dataclass
class Meeting:
    """Lets go all who have arrived once nobody is under way any more."""

    expected: int
    arrived: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def leave(self) -> None:
        """Take note that somebody comes no more."""
        self.expected -= 1
        if self.arrived >= self.expected:
            self.open.set()

    async def arrive(self) -> None:
        """Wait for the others."""
        self.arrived += 1
        if self.arrived >= self.expected:
            self.open.set()
        await self.open.wait()


class Race:
    """One tenant with tasks of one sort, many claimers, and somebody who watches."""

    def __init__(self, database: FreshDatabase, tenant: Tenant, setup: str, seed: int) -> None:
        self.database, self.tenant, self.setup = database, tenant, setup
        terms, self.limit, self.ends = SETUPS[setup]
        self.random = random.Random(seed)  # noqa: S311  a race, not a secret
        self.now = database_now(database)
        if setup == "group":
            make_group(tenant, maxParallel=2)
        self.tasks = [make_task(tenant, f"t{n}", **terms, **EVERY) for n in range(4 if setup == "group" else 2)]
        self.slots: list[UUID] = []
        self.meeting = Meeting(0)
        self.claimed = 0
        self.most = 0

    def add(self, number: int) -> None:
        """Let something fall due."""
        self.now += 2 * SECOND
        if self.setup == "backfill":
            if number % 10 == 0:
                for task in self.tasks:
                    self.slots += make_backfill(self.tenant, task, 12, max_parallel=2, queues=QUEUES)
                self.now = max(self.now, database_now(self.database))
            return
        for task in self.tasks:
            if self.random.random() < 0.7:
                at = self.now - self.random.randint(1, 900) * timedelta(milliseconds=1)
                self.slots.append(make_slot(self.tenant, task, at, queue=self.random.choice(QUEUES)))

    async def claim(self, database: Database, now: datetime, *queues: str) -> None:
        """Serve one worker, as often as it takes when two wait for each other."""
        try:
            for _ in range(5):
                try:
                    async with database.transaction([self.tenant.tenant_id]) as conn:
                        worker = seat(self.random.randint(1, 4), lease=3600, queues=queues or QUEUES)
                        runs = await claim_round(conn, self.tenant.tenant_id, [worker], now)
                except Exception as failure:
                    if not is_transient(failure):
                        raise
                else:
                    self.claimed += len(runs)
                    return
            raise AssertionError("claims deadlock again and again")
        finally:
            self.meeting.leave()

    async def end(self, database: Database, runs: Sequence[Any], now: datetime) -> None:
        """Complete some of what runs."""
        reports = [complete(self.tenant, row["id"], fence=row["fence"]) for row in runs]
        async with database.transaction([self.tenant.tenant_id]) as conn:
            await process(conn, reports, trusted=lambda _read: now)

    async def tick(self, database: Database, now: datetime) -> None:
        """Look as the scheduler does."""
        async with database.transaction([self.tenant.tenant_id]) as conn:
            await expire(conn, self.tenant.tenant_id, now)
            await settle_waiting(conn, self.tenant.tenant_id, now, None)

    def running(self) -> list[Any]:
        """Return what runs, and see that it may."""
        found = self.database.rows(_RUNNING, self.tenant.tenant_id)
        assert all(row["runs"] <= self.limit for row in found), f"{found} run at once"
        total = sum(row["runs"] for row in found)
        assert self.setup != "group" or total <= 2, f"{total} of the group run at once"
        self.most = max([self.most, total])
        rows = self.database.rows("SELECT id, fence FROM executions WHERE status = 'RUNNING' ORDER BY id")
        held = {row["execution_id"] for row in self.database.rows("SELECT execution_id FROM active_runs")}
        assert held == {row["id"] for row in rows}, "who runs holds a place, and nobody else does"
        return rows

    async def run(self, races: int) -> None:
        """Race, then let everything come to its end."""
        api, scheduler = self.database.api, self.database.scheduler
        for number in range(races):
            self.add(number)
            runs = self.running()
            over = self.random.sample(runs, self.random.randint(0, len(runs)))
            self.meeting = Meeting(len(QUEUES))
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                for queue in QUEUES:
                    group.create_task(self.claim(api, self.now, queue))
                if over:
                    group.create_task(self.end(api, over, self.now))
                if number % 3 == 0:
                    group.create_task(self.tick(scheduler, self.now))
        for _ in range(len(self.slots) + 5):
            runs = self.running()
            self.now += 60 * SECOND
            if runs:
                await self.end(api, runs, self.now)
            self.meeting = Meeting(1)
            await self.claim(api, self.now)
        assert self.running() == []

    def lost(self) -> set[tuple[str, str | None]]:
        """Return how slots have ended that may not end so."""
        rows = self.database.rows(
            "SELECT id, status, reason FROM executions WHERE tenant_id = %s", self.tenant.tenant_id
        )
        assert {row["id"] for row in rows} == set(self.slots)
        return {(row["status"], row["reason"]) for row in rows} - self.ends


async def raced(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, setup: str, races: int = RACES
) -> Race:
    """Race for places and return what became of it."""
    race = Race(database, tenant, setup, seed=races)
    real: Any = claims_module.take_places

    async def together(*given: Any) -> Any:
        if given[1]:
            await race.meeting.arrive()
        return await real(*given)

    monkeypatch.setattr(claims_module, "take_places", together)
    await race.run(races)
    return race


@pytest.mark.parametrize("setup", SETUPS)
async def test_races(database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, setup: str) -> None:
    """Whoever races for them, places are held by as many as may hold them, and every slot gets its outcome."""
    race = await raced(database, tenant, monkeypatch, setup)

    assert race.lost() == set()
    assert race.claimed >= RACES / 2
    assert race.most > 0
    assert database.value("SELECT count(*) FROM active_runs") == 0


async def test_cancelling_in_a_race(database: FreshDatabase, tenant: Tenant) -> None:
    """A person's cancellation of what is about to be replaced ends it once, whoever comes first."""
    task = make_task(tenant, overlap="terminate_other")
    for number in range(5):
        now = database_now(database)
        old = make_slot(tenant, task, now - 10 * SECOND)
        async with database.api.transaction([tenant.tenant_id]) as conn:
            await claim_round(conn, tenant.tenant_id, [seat()], now)
        new = make_slot(tenant, task, now - SECOND)

        async def claim(now: datetime = now) -> None:
            async with database.api.transaction([tenant.tenant_id]) as conn:
                await claim_round(conn, tenant.tenant_id, [seat()], now)

        async def cancel(old: UUID = old) -> None:
            report = Cancel(tenant_id=tenant.tenant_id, id=old, reason="x", actor="me", grace=0 * SECOND)
            async with database.api.transaction([tenant.tenant_id]) as conn:
                await process(conn, [report])

        async with asyncio.TaskGroup() as group:
            for work in (claim, cancel) if number % 2 else (cancel, claim):
                group.create_task(work())
        await claim(now + SECOND)
        ended = database.rows("SELECT type FROM execution_events WHERE execution_id = %s AND type = 'cancelled'", old)
        assert len(ended) == 1
        assert database.rows("SELECT status FROM executions WHERE id = %s", new) == [{"status": "RUNNING"}]
        async with database.api.transaction([tenant.tenant_id]) as conn:
            await process(conn, [complete(tenant, new)])
