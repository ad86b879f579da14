"""The group-commit writer: whatever arrived while the last commit was in flight goes into the next one.

A report is acknowledged after its commit. A batch holds at most one report of an execution, so that each is decided
on what the one before it left. When a batch fails, it is cut in halves until the report that spoils it stands alone;
only that one gets the error.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog

from cron_observer.errors import AlreadyFinal, CronObserverError, DatabaseError
from cron_observer.lifecycle import Status
from cron_observer.store import reads
from cron_observer.store.engine import Database, is_transient
from cron_observer.store.executions import Answer, AppendLogs, Heartbeat, Report, process
from cron_observer_api.metrics import WRITER_BATCH

log = structlog.get_logger()

#: Reports in one transaction. Past this the latency of a batch grows faster than its throughput.
BATCH_MAX: Final = 500

#: Reports that may wait; further ones are told 503 instead of growing a queue that nobody outlives.
QUEUE_MAX: Final = 20_000

#: How often a batch that lost a deadlock or a race for a lock is tried again.
RETRIES: Final = 3


@dataclass(slots=True)
class Written:
    """The answer to a report: what became of it, and the execution in its wire shape where the reply shows it."""

    answer: Answer
    execution: dict[str, Any] | None = None


@dataclass(slots=True)
class _Waiting:
    report: Report
    done: asyncio.Future[Written]


class Writer:
    """One for each API process. `on_change(tenant)` is called when an execution may have become claimable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.on_change: Callable[[UUID], None] = lambda _tenant: None
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._stopping = False
        self.batches = 0
        self.reports = 0

    async def submit(self, report: Report) -> Written:
        """Write one report and return what became of it once that is durable; raise its refusal if there is one."""
        if self._stopping or len(self._queue) >= QUEUE_MAX:
            raise DatabaseError("the server is too busy to take this report", hint="send it again in a moment")
        waiting = _Waiting(report, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrived.set()
        written = await waiting.done
        if written.answer.refusal is not None:
            refusal = written.answer.refusal
            if isinstance(refusal, AlreadyFinal) and written.execution is not None:
                refusal.facts["execution"] = written.execution
            raise refusal
        return written

    async def run(self) -> None:
        """Write batches until `stop` was called and nothing waits any more."""
        while not (self._stopping and not self._queue):
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._flush(self._next_batch())

    def stop(self) -> None:
        """Take nothing more; `run` ends when what has been taken is written."""
        self._stopping = True
        self._arrived.set()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        later: list[_Waiting] = []
        taken: set[tuple[UUID, UUID]] = set()
        while self._queue and len(batch) < BATCH_MAX:
            waiting = self._queue.popleft()
            key = (waiting.report.tenant_id, waiting.report.id)
            # A second report of an execution waits for the next batch, in its place before newer ones.
            (later if key in taken else batch).append(waiting)
            taken.add(key)
        self._queue.extendleft(reversed(later))
        return batch

    async def _flush(self, batch: Sequence[_Waiting]) -> None:
        error: Exception | None = None
        for _ in range(RETRIES):
            try:
                written = await self._write([waiting.report for waiting in batch])
            except DatabaseError as failure:
                self._fail(batch, failure)
                return
            except Exception as failure:  # noqa: BLE001  whatever it is, only the report that caused it may suffer
                error = failure
                if not is_transient(failure):
                    break
            else:
                self._answer(batch, written)
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
            written = [Written(answer) for answer in await process(conn, reports)]
            for tenant_id in sorted(tenants):
                wanted = [
                    number
                    for number, report in enumerate(reports)
                    if report.tenant_id == tenant_id and _shown(report, written[number].answer)
                ]
                found = await reads.executions(conn, tenant_id, [reports[number].id for number in wanted])
                for number in wanted:
                    written[number].execution = found.get(reports[number].id)
        self.batches += 1
        self.reports += len(reports)
        WRITER_BATCH.observe(len(reports))
        return written

    def _answer(self, batch: Sequence[_Waiting], written: Sequence[Written]) -> None:
        changed: set[UUID] = set()
        for waiting, one in zip(batch, written, strict=True):
            run = one.answer.run
            if run is not None and run.status is not Status.RUNNING:
                changed.add(waiting.report.tenant_id)
            if one.answer.again:
                self._queue.appendleft(waiting)
            elif not waiting.done.done():
                waiting.done.set_result(one)
        for tenant_id in changed:
            self.on_change(tenant_id)

    @staticmethod
    def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
        for waiting in batch:
            if not waiting.done.done():
                waiting.done.set_exception(error)


def _shown(report: Report, answer: Answer) -> bool:
    """Say whether the reply carries the execution: heartbeats and log lines answer with less."""
    if isinstance(answer.refusal, CronObserverError):
        return isinstance(answer.refusal, AlreadyFinal)
    return not answer.again and not isinstance(report, Heartbeat | AppendLogs)
