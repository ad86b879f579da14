"""The claimer: one for each API process; it serves all waiting workers, and none of them holds a connection.

A round is one transaction for all waiting workers of one tenant. Between rounds the claimer sleeps until the next
instant at which something falls due for them; a write of this process wakes it, and once a second it looks whether
another process has made something claimable.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog

from cron_observer.clock import ClockGuard
from cron_observer.errors import DatabaseError
from cron_observer.lifecycle import Run
from cron_observer.run_token import mint
from cron_observer.store import reads
from cron_observer.store.engine import Database, clock, is_transient
from cron_observer.store.executions import Release, Seat, claim_round, next_due, remember, repeated, show
from cron_observer.turns import Turns

log = structlog.get_logger()

#: Seconds between looks at what other processes have done.
PROBE: Final = 1.0

#: How many times as long as a round took that looked behind a backlog the next one waits that does.
BEYOND: Final = 5

#: Of workers that wait for the same, those whom one round serves; the next in line come into the next one. A thousand
#: that wait must not make each wake-up look at a thousand.
ALIKE_MAX: Final = 100

#: Workers that may wait in one process.
WAITING_MAX: Final = 20_000

#: What a worker gets: executions in their wire shape.
Given = list[dict[str, Any]]


class _AnsweredElsewhereError(Exception):
    """Another process has answered the same claim while this round was under way."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """One ``POST claims`` that waits, and those that repeat it meanwhile."""

    seat: Seat
    claim_id: UUID | None
    once: bool  #: answer after the first round, whatever it gave
    done: asyncio.Future[Given]
    kind: Hashable  #: what it waits for
    askers: int = 0  #: requests that wait for it still
    delivered: bool = False  #: one of them has got the answer
    looked_at: float | None = None  #: when it was last looked up whether the claim is a repeat; monotonic seconds
    failure: DatabaseError | None = None  #: why its last round failed
    served: asyncio.Event | None = None  #: set when the round that has it in hand is over


class Claimer:
    """Hands out executions. `give_back` releases what a client did not live to receive.

    `signing_key` returns the key of a tenant that signs the run tokens of its executions.
    """

    def __init__(
        self,
        database: Database,
        guard: ClockGuard,
        give_back: Callable[[Release], Awaitable[object]],
        signing_key: Callable[[UUID], Awaitable[bytes]],
    ) -> None:
        self._database = database
        self._guard = guard
        self._give_back = give_back
        self._signing_key = signing_key
        self._waiting: dict[UUID, list[_Waiter]] = {}
        self._next_at: dict[UUID, float] = {}
        self._expired_at: dict[UUID, float] = {}
        self._turns: dict[UUID, Turns] = {}
        self._beyond_at: dict[UUID, float] = {}
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

        When the client goes away (`gone`), what it was given is released at once, unless it has asked again.
        """
        if self._stopping or self.waiting >= WAITING_MAX:
            raise DatabaseError("the server takes no more waiting workers", hint="try again in a moment")
        waiter = self._join(tenant_id, seat, claim_id, once=wait <= 0)
        try:
            await _first(waiter.done, gone, None if waiter.once else wait)
            if waiter.served is not None and not waiter.done.done():
                # A round has it in hand: what that gives must not be lost between the two.
                await waiter.served.wait()
            if waiter.done.done():
                given = waiter.done.result()
                waiter.delivered = waiter.delivered or not gone.done()
                return given
            if waiter.failure is not None and not gone.done():
                raise waiter.failure
            return []
        finally:
            self._leave(tenant_id, waiter)

    def _join(self, tenant_id: UUID, seat: Seat, claim_id: UUID | None, *, once: bool) -> _Waiter:
        """Return the waiter of this claim: the one that waits already if the client asks again."""
        waiter = self._by_claim.get((tenant_id, claim_id)) if claim_id else None
        if waiter is None:
            kind = (tuple(seat.queues), seat.tasks, seat.any_queue, seat.without)
            waiter = _Waiter(seat, claim_id, once, asyncio.get_running_loop().create_future(), kind)
            self._waiting.setdefault(tenant_id, []).append(waiter)
            if claim_id:
                self._by_claim[tenant_id, claim_id] = waiter
            self.wake(tenant_id)
        waiter.askers += 1
        return waiter

    def _leave(self, tenant_id: UUID, waiter: _Waiter) -> None:
        """Take note that a request waits no more; the last one takes the waiter with it."""
        waiter.askers -= 1
        if waiter.askers:
            return
        self._waiting[tenant_id].remove(waiter)
        if waiter.claim_id:
            self._by_claim.pop((tenant_id, waiter.claim_id), None)
        if waiter.done.done() and not waiter.delivered:
            self._abandon(tenant_id, waiter)

    def _abandon(self, tenant_id: UUID, waiter: _Waiter) -> None:
        """Give back what a waiter was given, unless its client has asked again by now and is to get the same."""
        heir = self._by_claim.get((tenant_id, waiter.claim_id)) if waiter.claim_id else None
        if heir is None or not waiter.seat.got:
            self._release(waiter.seat.got)
        else:
            heir.looked_at = None
            self.wake(tenant_id)

    def stop(self) -> None:
        """Answer all who wait with nothing, and take no more."""
        self._stopping = True
        self._dismiss()
        self._arrived.set()

    def _dismiss(self) -> None:
        for waiters in self._waiting.values():
            for waiter in waiters:
                if waiter.served is None and not waiter.done.done():
                    waiter.done.set_result([])

    async def settled(self) -> None:
        """Wait until everything that clients did not live to receive is given back."""
        while self._releases:
            await asyncio.gather(*self._releases)

    async def run(self) -> None:
        """Serve rounds until `stop` was called."""
        try:
            while not self._stopping:
                now = time.monotonic()
                due = [tenant for tenant, waiters in self._waiting.items() if waiters and self._next_at[tenant] <= now]
                for tenant_id in due:
                    await self._serve(tenant_id)
                if not due:
                    await self._sleep()
        finally:
            # Those whom the last round had in hand and gave nothing.
            self._stopping = True
            self._dismiss()

    async def _sleep(self) -> None:
        moments = [self._next_at[tenant] for tenant, waiters in self._waiting.items() if waiters]
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), timeout)
        self._arrived.clear()

    async def _serve(self, tenant_id: UUID) -> None:
        # Set before the round: a write that lands during it has to be seen by the next one.
        self._next_at[tenant_id] = time.monotonic() + PROBE
        batch = _next_in_line(self._waiting[tenant_id])
        if not batch:
            return
        served = asyncio.Event()
        for waiter in batch:
            waiter.served = served
            waiter.seat.got, waiter.seat.more = [], False
        wake_at: float | None
        try:
            wake_at = await self._round(tenant_id, batch)
        except Exception as failure:  # noqa: BLE001  a round may fail; the loop may not
            wake_at = self._failed(batch, failure)
        finally:
            served.set()
            for waiter in batch:
                waiter.served = None
        if any(waiter.seat.got or waiter.seat.more for waiter in batch):
            # There may be more for those who got nothing.
            wake_at = 0.0
        if wake_at is not None:
            self._next_at[tenant_id] = min(self._next_at[tenant_id], wake_at)

    def _failed(self, batch: Sequence[_Waiter], failure: Exception) -> float | None:
        """Let those who can wait wait for the next round: at once when this one only lost a race."""
        for waiter in batch:
            waiter.seat.got, waiter.seat.more, waiter.looked_at = [], False, None
        if isinstance(failure, _AnsweredElsewhereError) or is_transient(failure):
            return 0.0
        if not isinstance(failure, DatabaseError):
            log.error("claim_round_failed", exc_info=failure)
            failure = DatabaseError("the claim could not be served", hint="try again in a moment")
        for waiter in batch:
            waiter.failure = failure
            if waiter.once and not waiter.done.done():
                waiter.done.set_exception(failure)
                waiter.done.exception()  # a client that has gone does not come to fetch it
        return None

    async def _round(self, tenant_id: UUID, batch: Sequence[_Waiter]) -> float | None:
        """Serve one round and return when the next thing falls due (monotonic), None if nothing is in sight."""
        self.rounds += 1
        key = await self._signing_key(tenant_id)
        async with self._database.transaction([tenant_id]) as conn:
            reading = self._guard.observe(await clock(conn))
            now, read_at = reading.now, time.monotonic()
            again = await self._repeats(conn, tenant_id, batch, now)
            fresh = [one for one in batch if one.claim_id is None or one.claim_id not in again]
            seats = [one.seat for one in fresh]
            expiring = not reading.frozen and self._expires(tenant_id, batch, read_at)
            turns = self._turns.setdefault(tenant_id, Turns())
            beyond = self._beyond_at.get(tenant_id, 0.0) <= read_at
            given = await claim_round(conn, tenant_id, seats, now, expiring=expiring, turns=turns, beyond=beyond)
            claims = {one.claim_id: one.seat.got for one in fresh if one.claim_id and one.seat.got}
            if not await remember(conn, tenant_id, claims, now):
                raise _AnsweredElsewhereError
            shown = await show(conn, tenant_id, [(run, seat.rests[run.id]) for seat in seats for run in seat.got], now)
            ids = {run.id for seat in seats for run in seat.got} | {one for ids in again.values() for one in ids}
            if ids - shown.keys():
                shown |= await reads.executions(conn, tenant_id, sorted(ids - shown.keys()))
            # Whoever still waits is served again at once after a round that gave something.
            resting = seats and not any(seat.got or seat.more for seat in seats)
            upcoming = await next_due(conn, tenant_id, seats, now) if resting else None
        turns.served(given)
        if beyond:
            # What stands behind a backlog is looked for in a fifth of the time at most.
            took = time.monotonic() - read_at
            self._beyond_at[tenant_id] = read_at + BEYOND * took
        for identity, one in shown.items():
            one["run_token"] = mint(key, tenant_id, identity, one["fence"])
        for waiter in batch:
            mine = again.get(waiter.claim_id, []) if waiter.claim_id else []
            mine = mine or [run.id for run in waiter.seat.got]
            waiter.failure = None
            if not waiter.askers:
                self._abandon(tenant_id, waiter)
            elif mine or (waiter.once and not waiter.seat.more):
                waiter.done.set_result([shown[identity] for identity in mine if identity in shown])
        return None if upcoming is None else read_at + (upcoming - now).total_seconds()

    def _expires(self, tenant_id: UUID, batch: Sequence[_Waiter], at: float) -> bool:
        """Say whether a round looks for deadlines that have passed: as often as it probes, and for who asks once."""
        if at - self._expired_at.get(tenant_id, -PROBE) < PROBE and not any(waiter.once for waiter in batch):
            return False
        self._expired_at[tenant_id] = at
        return True

    @staticmethod
    async def _repeats(conn: Any, tenant_id: UUID, batch: Sequence[_Waiter], now: datetime) -> dict[UUID, list[UUID]]:
        """Return what claims that are repeats hold; who waits is looked up again as often as a probe is made."""
        moment = time.monotonic()
        asked = []
        for waiter in batch:
            if waiter.claim_id and (waiter.looked_at is None or moment - waiter.looked_at >= PROBE):
                waiter.looked_at = moment
                asked.append(waiter.claim_id)
        return await repeated(conn, tenant_id, asked, now)

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


def _next_in_line(waiters: Sequence[_Waiter]) -> list[_Waiter]:
    """Return whom a round serves: of those who wait for the same the first, and everybody who cannot wait for more."""
    alike: dict[Hashable, int] = {}
    chosen = []
    for waiter in waiters:
        if waiter.done.done():
            continue
        number = alike.get(waiter.kind, 0)
        urgent = waiter.once or (waiter.claim_id is not None and waiter.looked_at is None)
        if number < ALIKE_MAX or urgent:
            alike[waiter.kind] = number + 1
            chosen.append(waiter)
    return chosen


async def _first(done: asyncio.Future[Given], gone: asyncio.Future[None], seconds: float | None) -> None:
    """Wait until one of the two happens, or the time is over."""
    either: set[asyncio.Future[Any]] = {done, gone}
    await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
