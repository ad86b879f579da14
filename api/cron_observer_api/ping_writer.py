"""The group-commit writer of pings: whatever arrived while the last commit was in flight goes into the next one.

A ping is answered after its commit, or told that it was not taken; in between there is nothing. Who has been told so
is taken out of the queue.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog

from cron_observer.clock import ClockGuard
from cron_observer.errors import DatabaseError
from cron_observer.store import addresses
from cron_observer.store.addresses import Pinged
from cron_observer.store.checkins import Arrived, Taken, process
from cron_observer.store.engine import Database, is_transient

log = structlog.get_logger("cron_observer.api")

#: Pings in one transaction, each of another task.
BATCH_MAX: Final = 200

#: Pings that may wait; further ones are told 503.
QUEUE_MAX: Final = 2_000

#: How often a batch that lost a race is tried again, and a ping that met a slot which had to be settled first.
RETRIES: Final = 3
AGAIN_MAX: Final = 5

#: Seconds that a known address is trusted, and an unknown one refused, without another look.
TRUSTED_FOR: Final = 3.0
REFUSED_FOR: Final = 0.5

#: Addresses remembered; beyond it the memory is emptied, not grown.
REMEMBERED: Final = 10_000

#: What is looked up: an address, or a key and a name.
Door = tuple[UUID | None, str | None, str | None]


class AddressBook:
    """Looks up whose addresses are, and remembers it for seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[Hashable, tuple[float, Any]] = {}
        self._asking: dict[Hashable, asyncio.Task[Any]] = {}
        self._turn = asyncio.Lock()  # one look at a time: pings are many, connections few, and the writer needs one

    async def find(self, door: Door) -> Pinged | None:
        """Return whose a door is, None if nobody's. Callers who ask at the same time share one look.

        Raises `DatabaseError`.
        """
        found: Pinged | None = await self._look(door, partial(addresses.find, self._database, *door))
        return found

    async def opens(self, key: str, number: int) -> bool:
        """Say whether a project of this number has this key, looked up likewise. Raises `DatabaseError`."""
        found: bool = await self._look((key, number), partial(addresses.opens, self._database, key, number))
        return found

    async def _look(self, what: Hashable, ask: Callable[[], Awaitable[Any]]) -> Any:
        known = self._known.get(what)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        asking = self._asking.get(what)
        if asking is None:
            asking = self._asking[what] = asyncio.ensure_future(self._ask(what, ask))
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        # shielded: one caller who goes away must not take the answer from the others
        return await asyncio.shield(asking)

    async def _ask(self, what: Hashable, ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            async with self._turn:
                found = await ask()
        finally:
            del self._asking[what]
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[what] = (time.monotonic() + (TRUSTED_FOR if found else REFUSED_FOR), found)
        return found

    def forget(self) -> None:
        """Look every address up again: one has been changed."""
        self._known.clear()


@dataclass(slots=True)
class _Waiting:
    arrived: Arrived
    done: asyncio.Future[Taken]
    again: int = 0


class PingWriter:
    """One for each API process."""

    def __init__(self, database: Database, guard: ClockGuard | None = None) -> None:
        self._database = database
        self._guard = guard or ClockGuard()
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._stopping = False

    async def submit(self, arrived: Arrived) -> Taken:
        """Write a ping and say what became of it once that is durable. Raises its refusal, or `DatabaseError`."""
        if self._stopping or len(self._queue) >= QUEUE_MAX:
            raise DatabaseError("the server is too busy to take this ping", hint="send it again in a moment")
        waiting = _Waiting(arrived, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._wake.set()
        taken = await waiting.done
        if taken.refusal is not None:
            raise taken.refusal
        return taken

    async def run(self) -> None:
        """Write batches until `stop` was called and nothing waits any more."""
        while not (self._stopping and not self._queue):
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = self._next_batch()
            try:
                await self._flush(batch)
            except Exception as failure:  # whatever it is, the writer lives: nobody else answers those who wait
                log.exception("loop_failed", loop="pings")
                _fail(batch, failure)

    def stop(self) -> None:
        """Take nothing more; `run` ends when what has been taken is written, or cannot be."""
        self._stopping = True
        self._wake.set()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        later: list[_Waiting] = []
        tasks: set[UUID] = set()
        while self._queue and len(batch) < BATCH_MAX and len(later) < BATCH_MAX:
            waiting = self._queue.popleft()
            if waiting.done.done():
                continue  # its client was told 503, or has gone
            if waiting.arrived.task_uid in tasks:
                later.append(waiting)
                continue
            tasks.add(waiting.arrived.task_uid)
            batch.append(waiting)
        self._queue.extendleft(reversed(later))
        return batch

    async def _flush(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        error: Exception | None = None
        for _ in range(RETRIES):
            try:
                taken = await self._write([waiting.arrived for waiting in batch])
            except DatabaseError as failure:
                _fail(batch, failure)
                return
            except Exception as failure:  # noqa: BLE001  whatever it is, only the ping that caused it may suffer
                error = failure
                if not is_transient(failure):
                    break
            else:
                self._answer(batch, taken)
                return
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._flush(batch[:middle])
            await self._flush(batch[middle:])
            return
        log.error("report_failed", report="Ping", exc_info=error)
        _fail(batch, DatabaseError("the ping could not be written"))

    async def _write(self, arrived: Sequence[Arrived]) -> list[Taken]:
        async with self._database.transaction({one.tenant_id for one in arrived}) as conn:
            return await process(conn, arrived, lambda read: self._guard.observe(read).now)

    def _answer(self, batch: Sequence[_Waiting], taken: Sequence[Taken]) -> None:
        for waiting, one in zip(batch, taken, strict=True):
            if one.again and waiting.again < AGAIN_MAX:
                waiting.again += 1
                self._queue.appendleft(waiting)
            elif one.again:
                _fail([waiting], DatabaseError("the slot is being settled", hint="send the ping again"))
            elif not waiting.done.done():
                waiting.done.set_result(one)


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(error)
