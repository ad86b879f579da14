"""The group-commit writer: whatever arrived while the last commit was in flight goes into the next one.

A report is acknowledged after its commit. Batches under way hold at most one report of an execution between them, so
that each is decided on what the one before it left. When a batch fails, it is cut in halves until the report that
spoils it stands alone; only that one gets the error.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog

from cron_observer.clock import ClockGuard
from cron_observer.errors import AlreadyFinal, CronObserverError, DatabaseError
from cron_observer.lifecycle import Status
from cron_observer.store import reads
from cron_observer.store.engine import Database, is_transient
from cron_observer.store.executions import Answer, AppendLogs, AppendText, Complete, Heartbeat, Report, process
from cron_observer.store.logs import LOOSE_MAX, Caps

log = structlog.get_logger()

#: Reports in one transaction. Past this the latency of a batch grows faster than its throughput.
BATCH_MAX: Final = 500

#: Batches under way: while the database writes one, another is gathered, decided and answered.
AT_ONCE: Final = 2

#: Bytes of log lines in one transaction; the first report may bring more.
BATCH_BYTES: Final = 4 * 1024 * 1024

#: Reports that may wait, and bytes of their log lines; further ones are told 503 instead of growing a queue that
#: nobody outlives.
QUEUE_MAX: Final = 20_000
QUEUE_BYTES: Final = 64 * 1024 * 1024

#: How often a batch that lost a deadlock or a race for a lock is tried again.
RETRIES: Final = 3

#: Seconds that a report waits for an execution that somebody else holds locked, and between two looks at it.
LOCK_WAIT: Final = 5.0
LOCK_LOOK: Final = 0.01


@dataclass(slots=True)
class Written:
    """The answer to a report: what became of it, and the execution in its wire shape where the reply shows it."""

    answer: Answer
    execution: dict[str, Any] | None = None


@dataclass(slots=True)
class _Waiting:
    report: Report
    size: int  #: bytes of log lines
    until: float  #: monotonic seconds; past it nobody waits for a lock any more
    done: asyncio.Future[Written]


class Writer:
    """One for each API process. `on_change(tenant)` is called when an execution may have become claimable, and
    `on_loose(tenant, execution, fence)` when a log has many small chunks."""

    def __init__(self, database: Database, guard: ClockGuard | None = None, caps: Caps | None = None) -> None:
        self._database = database
        self._guard = guard or ClockGuard()
        self._caps = caps
        self.on_change: Callable[[UUID], None] = lambda _tenant: None
        self.on_loose: Callable[[UUID, UUID, int], None] = lambda _tenant, _execution, _fence: None
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._stopping = False
        self._taken: set[tuple[UUID, UUID]] = set()  #: executions that batches under way speak of
        self.batches = 0
        self.reports = 0

    async def submit(self, report: Report) -> Written:
        """Write one report and return what became of it once that is durable; raise its refusal if there is one."""
        (done,) = self.take([report])
        return await done

    def take(self, reports: Sequence[Report]) -> list[asyncio.Future[Written]]:
        """Take several reports, which will be written together as far as they fit; return what to wait for."""
        size = sum(report.lines.size for report in reports if isinstance(report, AppendLogs | AppendText))
        full = len(self._queue) >= QUEUE_MAX or (self._bytes and self._bytes + size > QUEUE_BYTES)
        if self._stopping or full:
            raise DatabaseError("the server is too busy to take this report", hint="send it again in a moment")
        until, loop = time.monotonic() + LOCK_WAIT, asyncio.get_running_loop()
        taken = []
        for report in reports:
            bulk = report.lines.size if isinstance(report, AppendLogs | AppendText) else 0
            taken.append(_Waiting(report, bulk, until, loop.create_future()))
        self._queue.extend(taken)
        self._bytes += size
        self._arrived.set()
        return [waiting.done for waiting in taken]

    async def run(self) -> None:
        """Write batches until `stop` was called and nothing waits any more."""
        under_way: set[asyncio.Task[None]] = set()
        while under_way or self._queue or not self._stopping:
            self._arrived.clear()
            while len(under_way) < AT_ONCE and (batch := self._next_batch()):
                under_way.add(asyncio.create_task(self._carry_out(batch)))
            arrived = asyncio.ensure_future(self._arrived.wait())
            room = len(under_way) < AT_ONCE
            await asyncio.wait({*under_way, arrived} if room else under_way, return_when=asyncio.FIRST_COMPLETED)
            arrived.cancel()
            under_way = {batch for batch in under_way if not batch.done()}

    async def _carry_out(self, batch: Sequence[_Waiting]) -> None:
        """Write one batch; whoever speaks of the same executions waits until that is done."""
        try:
            await self._flush(batch)
        except Exception as failure:  # whatever it is, the writer lives: nobody else answers those who wait
            log.exception("loop_failed", loop="writer")
            self._fail(batch, failure)
        finally:
            self._taken -= {(waiting.report.tenant_id, waiting.report.id) for waiting in batch}

    def stop(self) -> None:
        """Take nothing more; `run` ends when what has been taken is written, or cannot be."""
        self._stopping = True
        self._arrived.set()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        later: list[_Waiting] = []
        size = 0
        while self._queue and len(batch) < BATCH_MAX and len(later) < BATCH_MAX and size < BATCH_BYTES:
            waiting = self._queue.popleft()
            key = (waiting.report.tenant_id, waiting.report.id)
            if key in self._taken:
                # A second report of an execution waits for a later batch, in its place before newer ones.
                later.append(waiting)
                continue
            self._taken.add(key)
            batch.append(waiting)
            size += waiting.size
        self._queue.extendleft(reversed(later))
        self._bytes -= size
        return batch

    async def _flush(self, batch: Sequence[_Waiting]) -> None:
        error: Exception | None = None
        for _ in range(RETRIES):
            try:
                written = await self._write([waiting.report for waiting in batch])
            except DatabaseError as failure:
                self._fail(batch, failure)
                if self._stopping:
                    # There is no later for those who wait: they hear it now and send it to the next process.
                    self._fail(self._queue, failure)
                    self._queue.clear()
                return
            except Exception as failure:  # noqa: BLE001  whatever it is, only the report that caused it may suffer
                error = failure
                if not is_transient(failure):
                    break
            else:
                await self._answer(batch, written)
                return
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._flush(batch[:middle])
            await self._flush(batch[middle:])
            return
        log.error("report_failed", report=type(batch[0].report).__name__, exc_info=error)
        if error is not None and is_transient(error):
            error = DatabaseError("the execution is locked by something else", hint="send the report again")
        self._fail(batch, error or DatabaseError("the report could not be written"))

    async def _write(self, reports: Sequence[Report]) -> list[Written]:
        tenants = {report.tenant_id for report in reports}
        async with self._database.transaction(tenants) as conn:
            answers = await process(conn, reports, trusted=lambda read: self._guard.observe(read).now, caps=self._caps)
            for tenant_id in sorted(tenants):
                wanted = [
                    number
                    for number, report in enumerate(reports)
                    if report.tenant_id == tenant_id
                    and answers[number].shown is None
                    and _shown(report, answers[number])
                ]
                found = await reads.executions(conn, tenant_id, [reports[number].id for number in wanted])
                for number in wanted:
                    answers[number].shown = found.get(reports[number].id)
        written = [Written(answer, answer.shown) for answer in answers]
        for one in written:
            if one.execution is not None and one.answer.stop:
                one.execution["cancel_requested"] = True
        self.batches += 1
        self.reports += len(reports)
        return written

    async def _answer(self, batch: Sequence[_Waiting], written: Sequence[Written]) -> None:
        claimable: set[UUID] = set()
        again: list[_Waiting] = []
        now = time.monotonic()
        for waiting, one in zip(batch, written, strict=True):
            run = one.answer.run
            if one.answer.wakes or (run is not None and run.status is Status.PENDING):
                claimable.add(waiting.report.tenant_id)
            if one.answer.loose >= LOOSE_MAX and run is not None:
                self.on_loose(run.tenant_id, run.id, run.fence)
            if one.answer.again or (one.answer.busy and now < waiting.until):
                again.append(waiting)
            elif one.answer.busy:
                locked = DatabaseError("the execution is locked by something else", hint="send the report again")
                self._fail([waiting], locked)
            else:
                _settle(waiting.done, one)
        self._queue.extendleft(reversed(again))
        self._bytes += sum(waiting.size for waiting in again)
        for tenant_id in claimable:
            self.on_change(tenant_id)
        if all(one.answer.busy for one in written):
            await self._pause()

    async def _pause(self) -> None:
        """Let whoever holds the locks go on, unless something else is to be written."""
        self._arrived.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), LOCK_LOOK)

    @staticmethod
    def _fail(batch: Sequence[_Waiting] | deque[_Waiting], error: Exception) -> None:
        for waiting in batch:
            if not waiting.done.done():
                waiting.done.set_exception(error)


def _settle(done: asyncio.Future[Written], written: Written) -> None:
    """Tell who waits for a report what became of it, if anybody still does: the refusal, if there is one."""
    refusal = written.answer.refusal
    if done.done():
        return
    if refusal is None:
        done.set_result(written)
        return
    if isinstance(refusal, AlreadyFinal) and written.execution is not None:
        refusal.facts["execution"] = written.execution
    done.set_exception(refusal)


def _shown(report: Report, answer: Answer) -> bool:
    """Say whether the reply carries the execution: heartbeats and log lines answer with less."""
    if isinstance(answer.refusal, CronObserverError):
        return isinstance(answer.refusal, AlreadyFinal)
    if isinstance(report, Complete) and report.brief:
        return False
    return not (answer.again or answer.busy) and not isinstance(report, Heartbeat | AppendLogs | AppendText)
