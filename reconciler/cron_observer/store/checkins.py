"""Pings, many at a time: each finds its execution, or makes one, and says what has become of it.

One transaction for whatever arrived while the last commit was in flight, with at most one ping of a task in it. The
row of the task's address is the lock: two processes never judge pings of one task at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from msgspec import structs
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import checkins, lifecycle
from cron_observer.checkins import Aim, Known, Ping, Signal
from cron_observer.durations import CheckIn
from cron_observer.errors import AlreadyFinal, CronObserverError, NotFound
from cron_observer.lifecycle import Run, Status
from cron_observer.model import Late, Policy
from cron_observer.schedule import new_id
from cron_observer.store import checkin_rows, logs
from cron_observer.store.engine import clock
from cron_observer.store.executions.apply import Step, write
from cron_observer.store.executions.create import create_begun
from cron_observer.store.executions.rows import TaskRow, policies, task_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """One ping of one task. `lines` are what came with it, ready for the log."""

    tenant_id: UUID
    task_uid: UUID
    ping: Ping
    lines: logs.Lines | None = None


@dataclass(slots=True)
class Taken:
    """What became of a ping. `again`: a slot that was over had to be settled first; ask once more."""

    run: Run | None = None
    refusal: CronObserverError | None = None
    again: bool = False


@dataclass(slots=True)
class _Batch:
    now: datetime
    begins: list[Step] = field(default_factory=list)  #: written before what follows upon them
    follows: list[Step] = field(default_factory=list)
    opened: list[checkin_rows.Row] = field(default_factory=list)
    lines: list[tuple[UUID, UUID, int, logs.Lines]] = field(default_factory=list)


async def process(
    conn: AsyncConnection, arrived: Sequence[Arrived], trusted: Callable[[datetime], datetime]
) -> list[Taken]:
    """Judge and write pings in the caller's transaction, at most one of a task; say what became of each, in order."""
    taken: list[Taken] = [Taken() for _ in arrived]
    by_tenant: dict[UUID, list[int]] = {}
    for number, one in enumerate(arrived):
        by_tenant.setdefault(one.tenant_id, []).append(number)
    for tenant_id in sorted(by_tenant):
        await checkin_rows.lock_tasks(conn, tenant_id, [arrived[number].task_uid for number in by_tenant[tenant_id]])
    batch = _Batch(now=trusted(await clock(conn)))
    for tenant_id, numbers in sorted(by_tenant.items()):
        judged = await _judge_all(conn, tenant_id, [arrived[number] for number in numbers], batch)
        for number, outcome in zip(numbers, judged, strict=True):
            taken[number] = outcome
    for steps in (batch.begins, batch.follows):
        if len(await write(conn, steps, batch.now)) != len(steps):
            raise AssertionError("locked executions changed under their lock")
    await checkin_rows.remember(conn, batch.opened, batch.now)
    await _store(conn, batch)
    return taken


async def _judge_all(conn: AsyncConnection, tenant_id: UUID, said: Sequence[Arrived], batch: _Batch) -> list[Taken]:
    uids = [one.task_uid for one in said]
    tasks = await task_rows(conn, tenant_id, uids)
    rules = await policies(conn, tenant_id, [(uid, row.generation) for uid, row in tasks.items()])
    watched = {uid: clocks for uid, row in tasks.items() if (clocks := rules[uid, row.generation].checkin) is not None}
    margins = {uid: clocks.early_margin for uid, clocks in watched.items()}
    rids = {one.task_uid: one.ping.rid for one in said if one.ping.rid is not None}
    known = await checkin_rows.known(conn, tenant_id, margins, rids, batch.now)
    answers = []
    for one in said:
        row = tasks.get(one.task_uid)
        if row is None or row.removed or one.task_uid not in watched:
            answers.append(Taken(refusal=NotFound("there is nothing to ping at this address")))
            continue
        task = _Task(conn, batch, row, rules[one.task_uid, row.generation], watched[one.task_uid])
        answers.append(await task.take(one, known[one.task_uid]))
    return answers


@dataclass(slots=True)
class _Task:
    """A task that is pinged."""

    conn: AsyncConnection
    batch: _Batch
    row: TaskRow
    policy: Policy
    clocks: CheckIn

    async def take(self, one: Arrived, known: Known) -> Taken:
        now = self.batch.now
        aim, run = checkins.aim(one.ping, known, self.clocks, now)
        if aim is Aim.OVERDUE:
            if await self._settle(one.tenant_id, known):
                return Taken(again=True)
            # nobody has noted yet that pings arrive again
            aim, run = Aim.SLOT, max(known.waiting, key=lambda slot: slot.available_at)
        if aim is Aim.NOTHING or (aim is Aim.DONE and run is None):
            return Taken()
        if run is not None and aim in {Aim.RUN, Aim.DONE}:
            return await self._on_run(one, run, aim)
        if run is not None and aim is Aim.LATE:
            return self._on_given_up(one, run)
        if run is not None:
            verdict = checkins.take(run, one.ping, self.clocks, self.row.generation, now)
            self.batch.begins.append(Step(run, verdict))
            begun = verdict.run
        else:
            begun = await self._beside(one)
        return self._after(one, begun)

    async def _settle(self, tenant_id: UUID, known: Known) -> bool:
        """Judge slots that are over: whether a sweep came by must not decide. Tell whether anything changed."""
        now = self.batch.now
        outages = await checkin_rows.outages(self.conn, tenant_id, now)
        changed = False
        for slot in known.waiting:
            verdict = checkins.judge_slot(slot, self.clocks, outages, now)
            if verdict.run != slot:
                self.batch.begins.append(Step(slot, verdict))
                changed = True
        return changed

    async def _beside(self, one: Arrived) -> Run:
        now = self.batch.now
        run = Run(
            tenant_id=one.tenant_id,
            id=new_id(now),
            project_id=self.row.project_id,
            task_uid=one.task_uid,
            status=Status.PENDING,
            fire_at=now,
            available_at=now,
            queue=checkins.QUEUE,
        )
        begun = checkins.beside(run, one.ping, self.clocks, self.row.generation, now)
        await create_begun(self.conn, begun, now)
        return begun

    def _after(self, one: Arrived, begun: Run) -> Taken:
        """Go on with what a ping has begun: most end it at once."""
        self._log(one, begun)
        if one.ping.signal is Signal.START:
            self._opened(one, begun, closed=False)
            return Taken(run=begun)
        self._opened(one, begun, closed=True)
        return self._completed(one, begun)

    def _completed(self, one: Arrived, run: Run) -> Taken:
        """End what runs as a ping says."""
        now = self.batch.now
        done = checkins.completion(run, one.ping, self.clocks, _digest(one.ping), now)
        verdict = lifecycle.complete(run, done, self.policy, now)
        if run.started_at is None:  # nothing was told of that, and it is not to look as if it took no time
            verdict = structs.replace(verdict, run=structs.replace(verdict.run, started_at=None))
        self.batch.follows.append(Step(run, verdict))
        return Taken(run=verdict.run)

    async def _on_run(self, one: Arrived, run: Run, aim: Aim) -> Taken:
        """Take what is told of a run that there is."""
        now = self.batch.now
        self._log(one, run)
        if aim is Aim.DONE:
            return Taken(run=run)
        if one.ping.signal in {Signal.START, Signal.LOG}:
            verdict = checkins.renew(run, one.ping, self.clocks, now)
            if verdict.run != run:
                self.batch.follows.append(Step(run, verdict))
            return Taken(run=verdict.run)
        if run.status is not Status.RUNNING:
            return self._late(one, run)
        outages = await checkin_rows.outages(self.conn, one.tenant_id, now)
        verdict = checkins.judge_run(run, self.clocks, outages, now)
        if verdict.event is not None:  # as if its silence had been noticed in time
            self.batch.begins.append(Step(run, verdict))
            return Taken(again=True)
        self._opened(one, run, closed=True)
        return self._completed(one, checkins.in_time(run, now))

    def _on_given_up(self, one: Arrived, run: Run) -> Taken:
        """Take a ping of a slot that nobody waits for any more."""
        now = self.batch.now
        if self.policy.late is not Late.ACCEPT:
            return self._late(one, run)
        verdict = checkins.late_start(run, one.ping, self.clocks, self.row.generation, now)
        self.batch.begins.append(Step(run, verdict))
        begun = verdict.run
        self._log(one, begun)
        if one.ping.signal is Signal.START:
            self._opened(one, begun, closed=False)
            return Taken(run=begun)
        done = checkins.completion(begun, one.ping, self.clocks, _digest(one.ping), now)
        ended = checkins.late_end(begun, done, now)
        self.batch.follows.append(Step(begun, ended))
        self._opened(one, begun, closed=True)
        return Taken(run=ended.run)

    def _late(self, one: Arrived, run: Run) -> Taken:
        """Take what is told of the end of a run that was given up, as ``late`` says."""
        if not checkins.given_up(run):
            return Taken(run=run)  # ended by somebody's word: that stands
        refused = checkins.late_recorded(run, one.ping, self.policy)
        if refused is not None:
            if self.policy.late is Late.RECORD:
                self.batch.follows.append(Step(run, refused))
                return Taken(run=refused.run)
            too_late = AlreadyFinal(f"the slot is {run.status}", hint="write `late: accept` to let late pings count")
            return Taken(run=run, refusal=too_late)
        done = checkins.completion(run, one.ping, self.clocks, _digest(one.ping), self.batch.now)
        verdict = checkins.late_end(run, done, self.batch.now)
        self.batch.follows.append(Step(run, verdict))
        self._opened(one, run, closed=True)
        return Taken(run=verdict.run)

    def _opened(self, one: Arrived, run: Run, *, closed: bool) -> None:
        row = checkin_rows.Row(one.tenant_id, one.task_uid, run.id, one.ping.rid, closed)
        self.batch.opened.append(row)

    def _log(self, one: Arrived, run: Run) -> None:
        if one.lines is not None and run.fence > 0:
            self.batch.lines.append((run.tenant_id, run.id, run.fence, one.lines))


def _digest(ping: Ping) -> bytes:
    """Identify what a ping says, so that an attempt remembers it."""
    return hashlib.sha256(f"{ping.signal} {ping.exit_code} {ping.rid}".encode()).digest()


async def _store(conn: AsyncConnection, batch: _Batch) -> None:
    """Append what came with pings to the logs of their executions, at most one text for each."""
    for tenant in sorted({tenant for tenant, *_ in batch.lines}):
        mine = [one for one in batch.lines if one[0] == tenant]
        stored = await logs.counts(conn, tenant, [(identity, fence) for _, identity, fence, _ in mine])
        chunks = [
            (tenant, identity, fence, chunk)
            for _, identity, fence, lines in mine
            if (identity, fence) in stored
            for chunk in logs.pack_lines(stored[identity, fence].lines, lines)
        ]
        await logs.append(conn, chunks, batch.now)
