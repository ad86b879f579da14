"""The scheduler: plans slots ahead, settles what nobody claims, keeps house. Any number may run at once.

Nothing has to be written when a slot falls due, so tasks go on firing for an hour while no scheduler runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from cron_observer.clock import ClockGuard, Reading
from cron_observer.errors import DatabaseError
from cron_observer.horizon import CATCH_UP
from cron_observer.settings import Settings
from cron_observer.store import checkin_judging, pauses, plans, statistics, tenants, upkeep
from cron_observer.store.engine import Database, clock, is_transient
from cron_observer.store.executions import expire, settle_waiting
from cron_observer.store.plans import Connection

log = structlog.get_logger()

#: Tasks that one planning transaction locks, for some 0.4 s on two idle cores. More would keep edits of them waiting.
BATCH: Final = 5_000

#: Batches that are planned at the same time: one computes while the database writes the other.
PLANNERS: Final = 2

#: Seconds of a tick that planning may take, so that expiry and settling of others never wait longer.
PLANNING_SECONDS: Final = 5.0

#: Executions that one expiry looks at, tasks that one settling looks at, and rounds of each in a tick.
EXPIRE_BATCH: Final = 100
SETTLE_BATCH: Final = 200
ROUNDS: Final = 10

#: Seconds of a tick for going through a backlog of which nothing is to be ended, so that claims have the machine.
LOOKING_SECONDS: Final = 0.2

#: Seconds between two rounds of house-keeping, and between two looks at partitions and zone data.
SWEEP_EVERY: Final = 60.0
PARTITIONS_EVERY: Final = 3600.0

#: Partitions exist this far ahead: planning needs two days, calendars may move a slot by two weeks and jitter by a
#: day, and a scheduler may be away for two weeks.
PARTITIONS_AHEAD: Final = timedelta(days=38)

#: Rows of old statistics that one round of house-keeping removes.
SWEPT: Final = 10_000

#: Seconds between two rounds of counting closed quarters, and what one may take of a tick when there are many.
COUNT_EVERY: Final = 30.0
COUNTING_SECONDS: Final = 1.0

#: Slots that newer data moves and that the log names; the audit log names more.
MOVED_SHOWN: Final = 20

#: Pauses that one transaction follows.
PAUSES_BATCH: Final = 100


@dataclass(slots=True)
class TickResult:
    """What a tick did. `failures` are the parts that failed and were left to the next tick."""

    tenants: int = 0
    planned: int = 0
    slots: int = 0
    quarantined: int = 0
    expired: int = 0
    followed: int = 0  #: pauses
    settled: int = 0
    deleted: int = 0
    swept: int = 0
    counted: int = 0  #: quarters of statistics
    frozen: bool = False
    failures: int = 0


@dataclass(slots=True)
class _Memory:
    """What the scheduler remembers of a tenant between ticks. Losing it costs work, nothing else."""

    after: UUID | None = None  #: where settling goes on
    swept_at: float | None = None
    counted_at: float | None = None  #: when no quarter was left to count
    zones_at: float | None = None
    leases_due: bool = False  #: the clock has thawed, and leases are to be extended before anything expires


class Scheduler:
    """One scheduler loop. All its truth is in the database; `tick` may be called by any number of processes."""

    def __init__(self, database: Database, settings: Settings, guard: ClockGuard | None = None) -> None:
        """`database` acts as the scheduler's role."""
        self._database = database
        self._retention = timedelta(days=settings.retention_days)
        self._statistics_kept = timedelta(days=max(settings.statistics_days, settings.retention_days))
        self._guard = guard or ClockGuard()
        self._memory: dict[UUID, _Memory] = {}
        self._partitions_at: float | None = None
        self._singly = asyncio.Lock()

    async def tick(self) -> TickResult:
        """Do what is due for every tenant. A tenant or task that fails is logged and harms no other.

        Raises `DatabaseError` when the database cannot be reached.
        """
        result = TickResult()
        async with self._database.transaction([]) as conn:
            found = await tenants.all_ids(conn)
            reading = self._observe(await clock(conn))
        result.tenants, result.frozen = len(found), reading.frozen
        self._memory = {tenant: self._memory.get(tenant) or _Memory() for tenant in found}
        await self._guarded(result, None, "partitions", self._partitions(reading))
        await self.plan(result)
        for tenant in found:
            await self._guarded(result, tenant, "expire", self._expire(result, tenant))
            await self._guarded(result, tenant, "pauses", self._follow_pauses(result, tenant))
            await self._guarded(result, tenant, "settle", self._settle(result, tenant))
            await self._guarded(result, tenant, "checkins", self._judge_checkins(result, tenant))
            await self._guarded(result, tenant, "delete", self._delete(result, tenant))
            await self._guarded(result, tenant, "count", self._count_quarters(result, tenant))
            await self._guarded(result, tenant, "sweep", self._sweep(result, tenant))
        return result

    def _observe(self, db_now: datetime) -> Reading:
        reading = self._guard.observe(db_now)
        if reading.jumped:
            log.error("clock_jumped", offset_seconds=reading.offset.total_seconds())
        if reading.thawed:
            log.warning("clock_thawed", offset_seconds=reading.offset.total_seconds())
            for memory in self._memory.values():
                memory.leases_due = True
        return reading

    @asynccontextmanager
    async def _open(self, tenant: UUID) -> AsyncIterator[tuple[Connection, Reading]]:
        """Open a transaction of one tenant, with the clock as read in it."""
        async with self._database.transaction([tenant]) as conn:
            yield conn, self._observe(await clock(conn))

    async def _guarded(
        self, result: TickResult, tenant: UUID | None, name: str, part: Coroutine[Any, Any, bool | None]
    ) -> bool:
        """Run a part of the tick so that its failure stays its own; return what it returned, False if it failed."""
        try:
            return bool(await part)
        except DatabaseError:
            raise
        except Exception as error:  # one tenant's trouble is not the others'
            result.failures += 1
            where = {"part": name, "tenant": str(tenant) if tenant else None}
            if is_transient(error):
                log.info("tick_part_postponed", **where, reason=str(error).splitlines()[0])
            else:
                log.exception("tick_part_failed", **where)
            return False

    async def _partitions(self, reading: Reading) -> None:
        if not _due(self._partitions_at, PARTITIONS_EVERY):
            return
        dropped = 0
        if not reading.frozen:
            for tenant in self._memory:
                async with self._open(tenant) as (conn, now):
                    await statistics.freeze(conn, tenant, now.now - self._retention, now.now)
            async with self._database.transaction([]) as conn:
                dropped = await upkeep.drop_partitions(conn, reading.now - self._retention)
        # Who has just come may have to write what an absence has left open, further back than anything is kept.
        back = CATCH_UP if self._partitions_at is None else min(CATCH_UP, self._retention)
        async with self._database.transaction([]) as conn:
            made = await upkeep.ensure_partitions(conn, reading.now - back, reading.now + PARTITIONS_AHEAD)
        if made or dropped:
            log.info("partitions_changed", made=made, dropped=dropped)
        self._partitions_at = time.monotonic()

    async def plan(self, result: TickResult) -> None:
        """Plan batch by batch, tenants in turn, until nothing is due or the time is used up."""
        shared: dict[UUID, plans.Round] = {}
        planners = [self._planner(result, shared) for _ in range(min(PLANNERS, self._database.connections))]
        for error in await asyncio.gather(*planners, return_exceptions=True):
            if isinstance(error, BaseException):
                raise error

    async def _planner(self, result: TickResult, shared: dict[UUID, plans.Round]) -> None:
        end = time.monotonic() + PLANNING_SECONDS
        waiting = list(self._memory)
        while waiting and time.monotonic() < end:
            waiting = [
                tenant
                for tenant in waiting
                if await self._guarded(result, tenant, "plan", self._plan_batch(result, tenant, shared))
            ]

    async def _plan_batch(self, result: TickResult, tenant: UUID, shared: dict[UUID, plans.Round]) -> bool:
        """Plan one batch and say whether there is more to do."""
        await self._follow_zone_data(tenant)
        try:
            async with self._open(tenant) as (conn, reading):
                together = shared.setdefault(tenant, plans.Round(reading.now))
                done = await plans.plan_batch(conn, tenant, BATCH, reading.now, together)
        except DatabaseError:
            raise
        except Exception as error:
            if is_transient(error):
                raise
            # Both planners may have met the same task; the second finds it put aside.
            async with self._singly:
                await self._plan_one_by_one(result, tenant)
            return False
        _count(result, done)
        return done.more

    async def _plan_one_by_one(self, result: TickResult, tenant: UUID) -> None:
        """Plan the tasks of a batch that failed each on its own, and put aside those that it failed for."""
        async with self._open(tenant) as (conn, reading):
            uids = await plans.due(conn, tenant, BATCH, reading.now)
        for uid in uids:
            try:
                async with self._open(tenant) as (conn, reading):
                    done = await plans.plan_one(conn, tenant, uid, reading.now)
            except DatabaseError:
                raise
            except Exception as error:  # whatever it is, only this task may suffer
                if is_transient(error):
                    continue
                why = f"its slots cannot be written: {str(error).splitlines()[0]}"[:500]
                async with self._open(tenant) as (conn, reading):
                    await plans.quarantine(conn, tenant, uid, why, reading.now)
                log.exception("task_quarantined", tenant=str(tenant), task_uid=str(uid))
                result.quarantined += 1
            else:
                _count(result, done)

    async def _follow_zone_data(self, tenant: UUID) -> None:
        memory = self._memory[tenant]
        if not _due(memory.zones_at, PARTITIONS_EVERY):
            return
        async with self._open(tenant) as (_, reading):
            now = reading.now
        tasks = plans.INLINE_MAX
        while tasks == plans.INLINE_MAX:
            tasks, moved = await plans.in_transaction_with_margin(
                self._database,
                [tenant],
                lambda conn: plans.follow_zone_data(conn, tenant, plans.INLINE_MAX, now),
            )
            if tasks:
                log.info("zone_data_followed", tenant=str(tenant), tasks=tasks)
            if moved:
                shown = [one.shown for one in moved[:MOVED_SHOWN]]
                log.warning("zone_data_moved", tenant=str(tenant), count=len(moved), moved=shown)
        memory.zones_at = time.monotonic()

    async def _expire(self, result: TickResult, tenant: UUID) -> None:
        memory = self._memory[tenant]
        for _ in range(ROUNDS):
            async with self._open(tenant) as (conn, reading):
                if reading.frozen:
                    return
                extend = memory.leases_due
                if extend:
                    await upkeep.extend_leases(conn, tenant, reading.now)
                changed = await expire(conn, tenant, reading.now, EXPIRE_BATCH)
            if extend:
                memory.leases_due = False
            result.expired += changed
            if changed < EXPIRE_BATCH:
                return

    async def _follow_pauses(self, result: TickResult, tenant: UUID) -> None:
        for _ in range(ROUNDS):
            async with self._open(tenant) as (conn, reading):
                if reading.frozen:
                    return
                done = await pauses.follow(conn, tenant, reading.now, PAUSES_BATCH)
            result.followed += done
            if done < PAUSES_BATCH:
                return

    async def _settle(self, result: TickResult, tenant: UUID) -> None:
        memory = self._memory[tenant]
        end = time.monotonic() + LOOKING_SECONDS
        for _ in range(ROUNDS):
            async with self._open(tenant) as (conn, reading):
                if reading.frozen:
                    return
                ended, after = await settle_waiting(conn, tenant, reading.now, memory.after, SETTLE_BATCH)
            memory.after = after
            result.settled += ended
            if after is None or (not ended and time.monotonic() >= end):
                return

    async def _judge_checkins(self, result: TickResult, tenant: UUID) -> None:
        for _ in range(ROUNDS):
            async with self._open(tenant) as (conn, reading):
                if reading.frozen:
                    return
                ended, more = await checkin_judging.judge(conn, tenant, reading.now)
            result.settled += ended
            if not more:
                return

    async def _delete(self, result: TickResult, tenant: UUID) -> None:
        async with self._open(tenant) as (conn, reading):
            result.deleted += await upkeep.finish_deletions(conn, tenant, reading.now)

    async def _count_quarters(self, result: TickResult, tenant: UUID) -> None:
        memory = self._memory[tenant]
        if not _due(memory.counted_at, COUNT_EVERY):
            return
        end = time.monotonic() + COUNTING_SECONDS
        while True:
            async with self._open(tenant) as (conn, reading):
                done = await statistics.roll_up(conn, tenant, reading.now)
            result.counted += done
            if done < statistics.STEP:
                memory.counted_at = time.monotonic()
                return
            if time.monotonic() >= end:
                return  # the next tick goes on

    async def _sweep(self, result: TickResult, tenant: UUID) -> None:
        memory = self._memory[tenant]
        if not _due(memory.swept_at, SWEEP_EVERY):
            return
        async with self._open(tenant) as (conn, reading):
            if reading.frozen:
                return
            result.swept += await upkeep.sweep(conn, tenant, reading.now, reading.now - self._retention)
            result.swept += await statistics.sweep(conn, tenant, reading.now - self._statistics_kept, SWEPT)
        memory.swept_at = time.monotonic()


def _due(last: float | None, every: float) -> bool:
    return last is None or time.monotonic() - last >= every


def _count(result: TickResult, done: plans.PlanResult) -> None:
    result.planned += done.tasks
    result.slots += done.slots
    result.quarantined += done.quarantined
