"""The claimer: one for each API process; it serves all waiting workers, and none of them holds a connection.

A round is one transaction for all waiting workers of one tenant. Between rounds the claimer sleeps until the next
instant at which something falls due for them; a write of this process wakes it, and once a second it looks whether
another process has made something claimable.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog

from cron_observer.clock import ClockGuard
from cron_observer.errors import DatabaseError
from cron_observer.lifecycle import Run
from cron_observer.store import reads
from cron_observer.store.engine import Database, clock, is_transient
from cron_observer.store.executions import Release, Seat, claim_round, next_due, remember, repeated

log = structlog.get_logger()

#: Seconds between looks at what other processes have done.
PROBE: Final = 1.0

#: Workers that may wait in one process.
WAITING_MAX: Final = 20_000

#: What a worker gets: executions in their wire shape.
Given = list[dict[str, Any]]


class _AnsweredElsewhereError(Exception):
    """Another process has answered the same claim while this round was under way."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """One ``POST claims`` that waits."""

    seat: Seat
    claim_id: UUID | None
    once: bool  #: answer after the first round, whatever it gave
    done: asyncio.Future[Given]
    gone: bool = False
    served: asyncio.Event | None = None  #: set while a round has it in hand


class Claimer:
    """Hands out executions. `give_back` releases what a client did not live to receive."""

    def __init__(
        self, database: Database, guard: ClockGuard, give_back: Callable[[Release], Awaitable[object]]
    ) -> None:
        self._database = database
        self._guard = guard
        self._give_back = give_back
        self._waiting: dict[UUID, list[_Waiter]] = {}
        self._next_at: dict[UUID, float] = {}
        self._by_claim: dict[tuple[UUID, UUID], _Waiter] = {}
        self._arrived = asyncio.Event()
        self._stopping = False
        self._releases: set[asyncio.Task[None]] = set()
        self.rounds = 0

    @property
    def waiting(self) -> int:
        """How many workers wait."""
        return sum(len(waiters) for waiters in self._waiting.values())

    def wake(self, tenant_id: UUID) -> None:
        """Look at once whether something is claimable for the workers of this tenant."""
        if self._waiting.get(tenant_id):
            self._next_at[tenant_id] = 0.0
            self._arrived.set()

    async def claim(
        self, tenant_id: UUID, seat: Seat, claim_id: UUID | None, wait: float, gone: asyncio.Future[None]
    ) -> Given:
        """Wait up to `wait` seconds for executions; 0 asks what is due now. Return what was given, perhaps nothing.

        When the client goes away (`gone`), what it was given is released at once.
        """
        if self._stopping or self.waiting >= WAITING_MAX:
            raise DatabaseError("the server takes no more waiting workers", hint="try again in a moment")
        twin = self._by_claim.get((tenant_id, claim_id)) if claim_id else None
        if twin is not None:
            await _first(twin.done, gone, wait)
            return twin.done.result() if twin.done.done() else []
        waiter = _Waiter(seat, claim_id, wait <= 0, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(tenant_id, []).append(waiter)
        if claim_id:
            self._by_claim[tenant_id, claim_id] = waiter
        self.wake(tenant_id)
        try:
            await _first(waiter.done, gone, None if waiter.once else wait)
            if waiter.served is not None and not waiter.done.done():
                # A round has it in hand: what that gives must not be lost between the two.
                waiter.gone = gone.done()
                await waiter.served.wait()
        finally:
            self._waiting[tenant_id].remove(waiter)
            if claim_id:
                self._by_claim.pop((tenant_id, claim_id), None)
        if not waiter.done.done():
            return []
        if gone.done():
            self._release(waiter.seat.got)
        return waiter.done.result()

    def stop(self) -> None:
        """Answer all who wait with nothing, and take no more."""
        self._stopping = True
        for waiters in self._waiting.values():
            for waiter in waiters:
                if waiter.served is None and not waiter.done.done():
                    waiter.done.set_result([])
        self._arrived.set()

    async def settled(self) -> None:
        """Wait until everything that clients did not live to receive is given back."""
        await asyncio.gather(*self._releases)

    async def run(self) -> None:
        """Serve rounds until `stop` was called."""
        while not self._stopping:
            now = time.monotonic()
            due = [tenant for tenant, waiters in self._waiting.items() if waiters and self._next_at[tenant] <= now]
            for tenant_id in due:
                await self._serve(tenant_id)
            if not due:
                await self._sleep()
        # Once more, for those whom the last round had in hand when `stop` was called.
        self.stop()

    async def _sleep(self) -> None:
        moments = [self._next_at[tenant] for tenant, waiters in self._waiting.items() if waiters]
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), timeout)
        self._arrived.clear()

    async def _serve(self, tenant_id: UUID) -> None:
        # Set before the round: a write that lands during it has to be seen by the next one.
        self._next_at[tenant_id] = time.monotonic() + PROBE
        batch = [waiter for waiter in self._waiting[tenant_id] if not waiter.done.done()]
        if not batch:
            return
        served = asyncio.Event()
        for waiter in batch:
            waiter.served = served
        wake_in: float | None = None
        try:
            wake_in = await self._round(tenant_id, batch)
        except Exception as failure:  # noqa: BLE001  a round may fail; the loop may not
            wake_in = self._failed(batch, failure)
        finally:
            served.set()
            for waiter in batch:
                waiter.served = None
        if any(waiter.seat.got for waiter in batch):
            # There may be more for those who got nothing.
            wake_in = 0.0
        if wake_in is not None:
            moment = time.monotonic() + max(wake_in, 0.0)
            self._next_at[tenant_id] = min(self._next_at[tenant_id], moment)

    def _failed(self, batch: Sequence[_Waiter], failure: Exception) -> float | None:
        """Answer a failed round: 503 when the database is away, another round when it only lost a race."""
        for waiter in batch:
            waiter.seat.got = []
        if isinstance(failure, _AnsweredElsewhereError) or is_transient(failure):
            return 0.0
        if not isinstance(failure, DatabaseError):
            log.error("claim_round_failed", exc_info=failure)
            failure = DatabaseError("the claim could not be served", hint="try again in a moment")
        for waiter in batch:
            if not waiter.done.done():
                waiter.done.set_exception(failure)
                waiter.done.exception()  # a client that has gone does not come to fetch it
        return None

    async def _round(self, tenant_id: UUID, batch: Sequence[_Waiter]) -> float | None:
        """Serve one round and return in how many seconds the next thing falls due, None if nothing is in sight."""
        self.rounds += 1
        async with self._database.transaction([tenant_id]) as conn:
            reading = self._guard.observe(await clock(conn))
            now = reading.now
            again = await repeated(conn, tenant_id, [one.claim_id for one in batch if one.claim_id], now)
            fresh = [one for one in batch if one.claim_id is None or one.claim_id not in again]
            for waiter in batch:
                waiter.seat.got = []
            seats = [one.seat for one in fresh]
            await claim_round(conn, tenant_id, seats, now, expiring=not reading.frozen)
            for one in fresh:
                if (
                    one.claim_id
                    and one.seat.got
                    and not await remember(conn, tenant_id, one.claim_id, one.seat.got, now)
                ):
                    raise _AnsweredElsewhereError
            ids = {run.id for seat in seats for run in seat.got} | {one for ids in again.values() for one in ids}
            shown = await reads.executions(conn, tenant_id, sorted(ids)) if ids else {}
            upcoming = await next_due(conn, tenant_id, seats, now) if seats else None
        for waiter in batch:
            mine = again.get(waiter.claim_id, []) if waiter.claim_id else []
            mine = mine or [run.id for run in waiter.seat.got]
            if waiter.gone:
                self._release(waiter.seat.got)
            elif mine or waiter.once:
                waiter.done.set_result([shown[identity] for identity in mine if identity in shown])
        return None if upcoming is None else (upcoming - now).total_seconds()

    def _release(self, runs: Sequence[Run]) -> None:
        for run in runs:
            report = Release(tenant_id=run.tenant_id, id=run.id, fence=run.fence, reason="the client went away")
            task = asyncio.ensure_future(self._released(report))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    async def _released(self, report: Release) -> None:
        try:
            await self._give_back(report)
        except Exception as failure:  # noqa: BLE001  its lease runs out if this cannot be written
            log.warning("release_failed", execution_id=str(report.id), error=str(failure))


async def _first(done: asyncio.Future[Given], gone: asyncio.Future[None], seconds: float | None) -> None:
    """Wait until one of the two happens, or the time is over."""
    either: set[asyncio.Future[Any]] = {done, gone}
    await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
