"""Reports of the dispatcher: whatever came while the last commit was in flight goes into the next one.

They are decided by the same rules as a worker's. While the database is away they wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from cron_observer.clock import ClockGuard
from cron_observer.errors import DatabaseError
from cron_observer.store.engine import Database, is_transient
from cron_observer.store.executions import Answer, Report, process

log = structlog.get_logger()

#: Reports in one transaction.
BATCH: Final = 200

#: Seconds between two tries of what somebody else holds, and of what the database did not take: doubled to the longest.
_LOOK: Final = 0.01
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 2.0


@dataclass(slots=True, eq=False)
class _Waiting:
    report: Report
    until: float  #: monotonic seconds; past it nobody waits any more
    done: asyncio.Future[Answer]


class Reports:
    """Writes reports for one dispatcher."""

    def __init__(self, database: Database, guard: ClockGuard) -> None:
        self._database = database
        self._guard = guard
        self._queue: deque[_Waiting] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def submit(self, report: Report, patience: float) -> Answer:
        """Write a report and return what became of it once that is durable, its refusal included.

        Raises `DatabaseError` when it could not be written within `patience` seconds.
        """
        waiting = _Waiting(report, time.monotonic() + patience, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="dispatch-reports")
        return await waiting.done

    async def _write(self) -> None:
        """Write batches until nothing waits."""
        wait = _FIRST_WAIT
        while self._queue:
            batch = self._next_batch()
            if not batch:
                continue
            left = await self._flush(batch)
            self._queue.extendleft(reversed(left))
            stuck = len(left) == len(batch)
            if stuck:
                await asyncio.sleep(wait)
            elif left:
                await asyncio.sleep(_LOOK)
            wait = min(_LONGEST_WAIT, wait * 2) if stuck else _FIRST_WAIT

    def _next_batch(self) -> list[_Waiting]:
        """Take what waits, at most one report of an execution."""
        batch: list[_Waiting] = []
        later: list[_Waiting] = []
        taken: set[UUID] = set()
        while self._queue and len(batch) < BATCH:
            waiting = self._queue.popleft()
            if waiting.done.done():
                continue
            (later if waiting.report.id in taken else batch).append(waiting)
            taken.add(waiting.report.id)
        self._queue.extendleft(reversed(later))
        return batch

    async def _flush(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Write a batch; return what is to be tried again."""
        try:
            async with self._database.transaction({one.report.tenant_id for one in batch}) as conn:
                said = [one.report for one in batch]
                answers = await process(conn, said, trusted=lambda now: self._guard.observe(now).now)
        except Exception as failure:  # noqa: BLE001  whatever it is, those who wait are told
            if isinstance(failure, DatabaseError) or is_transient(failure):
                return self._patient(
                    batch, DatabaseError("the report could not be written", hint="the database is away")
                )
            return await self._alone(batch, failure)
        again = []
        for waiting, answer in zip(batch, answers, strict=True):
            if answer.busy or answer.again:
                again.append(waiting)
            elif not waiting.done.done():
                waiting.done.set_result(answer)
        return self._patient(again, DatabaseError("the execution is held by somebody else", hint="try again"))

    def _patient(self, batch: list[_Waiting], failure: DatabaseError) -> list[_Waiting]:
        """Return those that wait on; tell the others that it was too long."""
        now = time.monotonic()
        for waiting in batch:
            if waiting.until <= now and not waiting.done.done():
                waiting.done.set_exception(failure)
        return [waiting for waiting in batch if not waiting.done.done()]

    async def _alone(self, batch: list[_Waiting], failure: Exception) -> list[_Waiting]:
        """Write the reports of a batch one by one, so that only the one that spoils it fails."""
        if len(batch) == 1:
            log.error("report_failed", execution_id=str(batch[0].report.id), exc_info=failure)
            if not batch[0].done.done():
                batch[0].done.set_exception(DatabaseError("the report cannot be written", hint="the log says why"))
            return []
        return [left for one in batch for left in await self._flush([one])]
