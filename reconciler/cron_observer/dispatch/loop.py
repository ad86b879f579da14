"""The dispatcher: claims webhook executions, and has so many requests under way. Any number may run at once.

There is no leader and no memory that matters: an execution is claimed, leased and fenced like any other, so what a
dispatcher that was killed had in hand is sent by another one when its lease has run out, under the same id.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any, Final
from uuid import UUID

import structlog

from cron_observer.clock import ClockGuard
from cron_observer.dispatch.attempt import Attempt, Job
from cron_observer.dispatch.lanes import Lanes
from cron_observer.dispatch.names import Lookup, Names, system
from cron_observer.dispatch.reporting import Reports
from cron_observer.dispatch.request import Destination, destination
from cron_observer.dispatch.sending import Sender
from cron_observer.errors import DatabaseError, SettingsError
from cron_observer.lifecycle import Run
from cron_observer.model import RESERVED_QUEUES
from cron_observer.settings import Settings
from cron_observer.store import dispatching, reads, tenants
from cron_observer.store.engine import Database, clock, is_transient
from cron_observer.store.executions import Release, Seat, Start, claim_round, next_due, process
from cron_observer.store.tokens import mint, signing_key

log = structlog.get_logger()

#: How long a claim holds without a heartbeat: what a dispatcher that was killed had in hand is sent again after it.
LEASE: Final = timedelta(seconds=30)

#: Executions that one round claims, and rounds of a tenant in a tick.
BATCH: Final = 50
ROUNDS: Final = 20

#: Seconds between two looks for tenants that have webhooks.
LOOK_EVERY: Final = 0.9

#: Seconds between two rounds of a tenant that look for deadlines that have passed.
EXPIRE_EVERY: Final = 1.0

#: Seconds that answers are waited for after the process was told to stop.
STOP_GRACE: Final = 10.0

#: Tasks whose destinations a dispatcher remembers; beyond it the memory is emptied, not grown.
_REMEMBERED: Final = 50_000


@dataclass(slots=True)
class _Seat(Seat):
    """What a dispatcher takes: executions to whose destination it may send another one."""

    lanes: Lanes = field(default_factory=lambda: Lanes(0, 0))
    known: dict[UUID, Destination] = field(default_factory=dict)
    taken: dict[UUID, Destination] = field(default_factory=dict)  #: places that were taken, by execution

    def takes(self, run: Run) -> bool:
        """Say whether to take `run`, and take a place for it if so."""
        where = self.known.get(run.task_uid)
        if not Seat.takes(self, run) or where is None or not self.lanes.enter(where):
            return False
        self.taken[run.id] = where
        return True


class Dispatcher:
    """One dispatcher loop."""

    def __init__(
        self, database: Database, settings: Settings, *, lease: timedelta = LEASE, lookup: Lookup = system
    ) -> None:
        """`database` acts as the scheduler's role; `lookup` resolves names. Raises `SettingsError`."""
        self.wake = asyncio.Event()
        self._database = database
        self._lease = lease
        self._guard = ClockGuard()
        self._lanes = Lanes(settings.webhook_concurrency, settings.webhook_per_destination)
        self._names = Names(lookup)
        self._sender = Sender(
            self._names,
            opened=[ip_network(one) for one in settings.webhook_networks],
            ports=settings.webhook_ports,
            trust=_trust(settings),
        )
        self._reports = Reports(database, self._guard)
        self._secrets_dir = settings.secrets_dir
        self._trusted = tenants.tenant_id(settings.tenant)
        self._worker = f"dispatcher@{socket.gethostname()}/{os.getpid()}"[:128]
        self._known: dict[UUID, dict[UUID, Destination]] = {}
        self._expired_at: dict[UUID, float] = {}
        self._under_way: dict[asyncio.Task[None], Attempt] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._turn = 0
        self._serving: list[UUID] = []
        self._looked_at = -LOOK_EVERY

    @property
    def under_way(self) -> int:
        """How many requests are under way."""
        return len(self._under_way)

    async def tick(self) -> int:
        """Claim what is due as far as there is room, and begin to send it; return how many requests have begun.

        Raises `DatabaseError`.
        """
        found = await self._tenants()
        begun = 0
        self._turn += 1
        wake_in: list[float] = []
        for number in range(len(found)):
            tenant = found[(number + self._turn) % len(found)]
            sent, wait = await self._serve(tenant)
            begun += sent
            wake_in += [] if wait is None else [wait]
        self._wake_in(min(wake_in, default=None))
        return begun

    async def _tenants(self) -> list[UUID]:
        """Return the tenants that have webhooks, as they were a second ago at most."""
        if time.monotonic() - self._looked_at >= LOOK_EVERY:
            async with self._database.transaction([]) as conn:
                everybody = await tenants.all_ids(conn)
            async with self._database.transaction(everybody) as conn:
                self._serving = await dispatching.tenants_with_webhooks(conn, everybody)
            self._looked_at = time.monotonic()
        return self._serving

    def _wake_in(self, seconds: float | None) -> None:
        """Tick again when the next execution falls due."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if seconds is None else loop.call_later(max(seconds, 0.0), self.wake.set)

    async def _serve(self, tenant: UUID) -> tuple[int, float | None]:
        """Begin what a tenant has due; return how much, and in how many seconds the next thing falls due."""
        begun = 0
        for _ in range(ROUNDS):
            if self._lanes.free <= 0:
                return begun, None
            try:
                jobs, wait = await self._round(tenant)
            except Exception as error:
                if not is_transient(error):
                    raise
                return begun, 0.0
            begun += len(jobs)
            if not jobs:
                return begun, wait
        return begun, 0.0

    async def _round(self, tenant: UUID) -> tuple[list[Job], float | None]:
        """Claim once, and take note that the work begins, in one transaction."""
        known = self._known.setdefault(tenant, {})
        seat = _Seat(
            worker=self._worker,
            queues=[RESERVED_QUEUES["http"]],
            tasks=None,
            wanted=min(BATCH, self._lanes.free),
            lease=self._lease,
            lanes=self._lanes,
            known=known,
        )
        jobs: list[Job] = []
        try:
            async with self._database.transaction([tenant]) as conn:
                read_at = time.monotonic()  # before the clock is read: no lease is believed to hold longer than it does
                reading = self._guard.observe(await clock(conn))
                now = reading.now
                await self._learn(conn, tenant, now)
                seat.without = frozenset(uid for uid, where in known.items() if not self._lanes.is_open(where))
                expiring = not reading.frozen and self._expires(tenant, read_at)
                runs = await claim_round(conn, tenant, [seat], now, expiring=expiring)
                if runs:
                    jobs = await self._jobs(conn, tenant, runs, now, read_at)
                upcoming = None if runs else await next_due(conn, tenant, [seat], now)
        finally:
            for where in seat.taken.values():
                self._lanes.leave(where)
        # Whoever was taken for another destination's, because its definition has changed since, may have to wait.
        crowded = [job for job in jobs if not self._begin(job)]
        for job in crowded:
            await self._give_back(job.run, "its destination is busy")
        if seat.more and not jobs:
            return jobs, 0.05
        return jobs, None if upcoming is None else (upcoming - now).total_seconds()

    async def _learn(self, conn: Any, tenant: UUID, now: datetime) -> None:
        """Learn where tasks are sent that have not been met yet."""
        known = self._known[tenant]
        if len(known) > _REMEMBERED:
            known.clear()
        for uid, url in (await dispatching.destinations(conn, tenant, now, known.keys())).items():
            known[uid] = destination(tenant, url or "")

    def _expires(self, tenant: UUID, at: float) -> bool:
        """Say whether a round looks for deadlines that have passed."""
        if at - self._expired_at.get(tenant, -EXPIRE_EVERY) < EXPIRE_EVERY:
            return False
        self._expired_at[tenant] = at
        return True

    async def _jobs(self, conn: Any, tenant: UUID, runs: Sequence[Run], now: datetime, read_at: float) -> list[Job]:
        """Say of what was claimed that the work begins, and gather what its requests are made of."""
        begins = [Start(tenant_id=tenant, id=run.id, fence=run.fence) for run in runs]
        answers = await process(conn, begins, trusted=lambda at: self._guard.observe(at).now)
        pinned = {(run.task_uid, run.generation or 0) for run in runs}
        said = await dispatching.requests(conn, tenant, pinned)
        shown = await reads.executions(conn, tenant, [run.id for run in runs])
        key = await signing_key(conn, tenant)
        jobs = []
        for run, answer in zip(runs, answers, strict=True):
            http = said.get((run.task_uid, run.generation or 0))
            self._known[tenant][run.task_uid] = destination(tenant, str((http or {}).get("url") or ""))
            jobs.append(
                Job(
                    run=answer.run or run,
                    http=http or {"url": ""},
                    execution=shown[run.id],
                    token=mint(key, tenant, run.id, run.fence),
                    now=now,
                    read_at=read_at,
                    trusted=tenant == self._trusted,
                )
            )
        return jobs

    def _begin(self, job: Job) -> bool:
        """Send a request beside the others; False if its destination has no room."""
        where = destination(job.run.tenant_id, str(job.http["url"]))
        if not self._lanes.enter(where):
            return False
        attempt = Attempt(job, self._sender, self._reports, self._secrets_dir)
        task = asyncio.create_task(attempt.carry_out(), name=f"webhook-{job.run.id}")
        self._under_way[task] = attempt

        def ended(done: asyncio.Task[None]) -> None:
            del self._under_way[done]
            self._lanes.leave(where)
            self.wake.set()
            if not done.cancelled() and (failure := done.exception()) is not None:
                log.error("webhook_failed", execution_id=str(job.run.id), exc_info=failure)

        task.add_done_callback(ended)
        return True

    async def _give_back(self, run: Run, reason: str) -> None:
        """Let an execution be claimed again that was not sent."""
        report = Release(tenant_id=run.tenant_id, id=run.id, fence=run.fence, reason=reason)
        try:
            await self._reports.submit(report, self._lease.total_seconds())
        except DatabaseError as error:
            log.warning("release_failed", execution_id=str(run.id), error=error.message)

    async def close(self) -> None:
        """Wait a moment for answers that are under way, then give back what has none."""
        if self._timer is not None:
            self._timer.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=STOP_GRACE)
        for attempt in self._under_way.values():
            attempt.stop()
        if self._under_way:
            _, stuck = await asyncio.wait(self._under_way, timeout=STOP_GRACE)
            for task in stuck:
                task.cancel()
        self._names.close()


def _trust(settings: Settings) -> ssl.SSLContext:
    """Return whose certificates are believed. Raises `SettingsError`."""
    try:
        return ssl.create_default_context(cafile=settings.webhook_ca_file)
    except OSError as error:
        place = settings.webhook_ca_file
        raise SettingsError(f"{place} cannot be read: {error.strerror}", hint="mend `webhook_ca_file`") from error
