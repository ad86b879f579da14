"""Running the roles of a process until it is told to stop.

A loop is empty: tick, wait, again. What fails is logged and tried again after a growing wait; a loop that is stuck
ends the process, so that whoever watches it starts it anew.
"""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Final, Protocol

import structlog

from cron_observer.errors import CronObserverError, SettingsError
from cron_observer.scheduler import Scheduler
from cron_observer.settings import ROLES, Settings, database_role
from cron_observer.store.engine import Database

log = structlog.get_logger()

#: Seconds that a tick may take before it is cancelled.
TICK_LIMIT: Final = 30.0

#: Seconds that a tick may go on for after the process was told to stop. What it has not committed is rolled back.
STOP_LIMIT: Final = 10.0

#: Ticks in a row that may run into their limit before the process gives itself up.
STUCK_AFTER: Final = 3

#: The longest wait after a failed tick, in seconds. The first is the loop's own interval, each further one doubles.
BACKOFF_MAX: Final = 30.0

#: Seconds between two ticks of the loops. Both are woken earlier when there is something to do.
EVERY: Final = {"reconciler": 1.0, "scheduler": 1.0, "reporter": 1.0, "dispatcher": 1.0}

#: Intervals after which a role that did not tick makes the process not ready.
MISSED_TICKS: Final = 3


class Heartbeats:
    """When the roles of this process last ticked, for its readiness. Roles of other processes are theirs to tell."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._every: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def expect(self, role: str, every: float) -> None:
        """Expect `role` to tick every so many seconds from now on. It is failing until it has ticked once."""
        self._every[role] = every
        self._last.pop(role, None)

    def beat(self, role: str) -> None:
        """Note that `role` has ticked."""
        self._last[role] = self._clock()

    def roles(self) -> list[str]:
        """Return the roles that are expected to tick."""
        return sorted(self._every)

    def failing(self) -> list[str]:
        """Return the roles that have not ticked within three of their intervals."""
        now = self._clock()
        return sorted(
            role
            for role, every in self._every.items()
            if role not in self._last or now - self._last[role] > MISSED_TICKS * every
        )


class StuckError(CronObserverError):
    """A loop does not come back from its ticks."""

    code = "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One loop of a role: what to do, how often, and what wakes it earlier."""

    role: str
    tick: Callable[[], Awaitable[Any]]
    every: float  #: seconds from the end of a tick to the next
    wake: asyncio.Event | None = None
    limit: float = TICK_LIMIT
    close: Callable[[], Awaitable[None]] | None = None  #: called once, after the last tick


async def run_loop(loop: Loop, stop: asyncio.Event, heartbeats: Heartbeats) -> None:
    """Tick until `stop` is set; a tick that has begun is finished.

    Raises `StuckError` when ticks never end, and `SettingsError` when the first ones say that they never can.
    """
    # A tick may take its whole limit and be well.
    heartbeats.expect(loop.role, loop.every + loop.limit / MISSED_TICKS)
    log.info("loop_started", role=loop.role)
    try:
        await _tick_on(loop, stop, heartbeats)
    finally:
        if loop.close is not None:
            await loop.close()
    log.info("loop_stopped", role=loop.role)


async def _tick_on(loop: Loop, stop: asyncio.Event, heartbeats: Heartbeats) -> None:
    failures = stuck = ticks = 0
    while not stop.is_set():
        if loop.wake is not None:
            loop.wake.clear()
        try:
            await _tick(loop, stop)
        except Exception as error:  # a loop outlives whatever happens in a tick
            if isinstance(error, SettingsError) and ticks == 0:
                raise
            failures += 1
            stuck = stuck + 1 if isinstance(error, TimeoutError) else 0
            _tell(loop, error, failures)
            if stuck >= STUCK_AFTER:
                log.error("loop_stuck", role=loop.role)  # noqa: TRY400  the ticks have been told one by one
                raise StuckError(f"the {loop.role} does not come back from its ticks") from error
        else:
            if failures:
                log.info("loop_recovered", role=loop.role, failures=failures)
            failures = stuck = 0
            ticks += 1
            heartbeats.beat(loop.role)
        await _pause(stop, None if failures else loop.wake, wait_after(loop.every, failures))


async def _tick(loop: Loop, stop: asyncio.Event) -> None:
    """Tick once, within the loop's limit, or within the shorter one that begins with a stop."""
    clock = asyncio.get_running_loop().time

    async def hurry(limit: asyncio.Timeout) -> None:
        await stop.wait()
        limit.reschedule(min(limit.when() or clock(), clock() + STOP_LIMIT))

    async with asyncio.timeout(loop.limit) as limit:
        watching = asyncio.create_task(hurry(limit))
        try:
            await loop.tick()
        finally:
            watching.cancel()


def _tell(loop: Loop, error: Exception, failures: int) -> None:
    if isinstance(error, CronObserverError):
        log.warning("loop_failed", role=loop.role, failures=failures, reason=error.message)
    elif isinstance(error, TimeoutError):
        log.warning("loop_failed", role=loop.role, failures=failures, reason=f"no end after {loop.limit:g} s")
    else:
        log.error("loop_failed", role=loop.role, failures=failures, exc_info=error)


def wait_after(every: float, failures: int) -> float:
    """Return the seconds until the next tick: doubled with each failure, bounded, and spread by a fifth."""
    if failures == 0:
        return every
    longest = min(BACKOFF_MAX, every * 2.0 ** min(failures, 16))
    return longest * random.uniform(0.8, 1.0)  # noqa: S311  spreads load, guards nothing


async def _pause(stop: asyncio.Event, wake: asyncio.Event | None, seconds: float) -> None:
    """Wait so long, or until one of the events is set."""
    events = [stop] if wake is None else [stop, wake]
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


class Face(Protocol):
    """What serves HTTP: registered as ``serve`` in the entry-point group ``cron_observer.app``."""

    async def __call__(self, settings: Settings, *, heartbeats: Heartbeats, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish the requests that have begun."""


def _face() -> Face:
    for entry in entry_points(group="cron_observer.app", name="serve"):
        face: Face = entry.load()
        return face
    raise SettingsError("the API is not installed", hint="install the package cron-observer whole")


@contextmanager
def stop_signals(stop: asyncio.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set `stop`; a second one ends the running task, and the process with 1, at once."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    times = 0

    def told() -> None:
        nonlocal times
        times += 1
        log.info("stopping", at_once=times > 1)
        stop.set()
        if times > 1 and task is not None:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    try:
        yield
    except asyncio.CancelledError:
        if times < 2:
            raise
        raise SystemExit(1) from None
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _database(settings: Settings, role: str, pool_size: int | None = None) -> Database:
    url = settings.database_of(role)
    if url is None:
        raise SettingsError(f"there is no database for the {role}", hint="set database_url, or use `cron-observer up`")
    acts_as = f"cron_observer_{database_role(role)}"
    return Database(url, acts_as, pool_size=pool_size or settings.pool_of(role), application=f"cron_observer_{role}")


async def run_roles(
    settings: Settings,
    roles: set[str],
    *,
    stop: asyncio.Event | None = None,
    heartbeats: Heartbeats | None = None,
    signals: bool = True,
) -> None:
    """Run the roles in this process until `stop` is set or a signal comes, then end them in order.

    Raises `SettingsError` for an unknown role or a missing database, and `StuckError` when a loop hangs; the other
    roles have then been ended as well.
    """
    for role in sorted(roles - set(ROLES)):
        raise SettingsError(f"unknown role {role}", hint=f"known are {', '.join(ROLES)}")
    stop = stop or asyncio.Event()
    heartbeats = heartbeats or Heartbeats()
    databases: list[Database] = []
    for role in roles - {"api"}:
        # Known before the API answers, so that it is not ready before they have ticked.
        heartbeats.expect(role, EVERY[role])
    try:
        with stop_signals(stop) if signals else nullcontext():
            async with asyncio.TaskGroup() as group:
                for role in sorted(roles):
                    group.create_task(_role(settings, role, stop, heartbeats, databases), name=role)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    finally:
        for database in databases:
            await database.close()


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group, however deep it lies."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _role(
    settings: Settings, role: str, stop: asyncio.Event, heartbeats: Heartbeats, databases: list[Database]
) -> None:
    """Run one role until `stop`; when it ends by itself, the others are told to end too."""
    try:
        if role == "api":
            serve = _face()
            collect_seldom()
            await serve(settings, heartbeats=heartbeats, stop=stop)
            return
        loops = [_loop(settings, role, databases)]
        if role == "reconciler" and any(source.provider and source.status_ref for source in settings.sources):
            loops.append(_reporting(settings, databases))
        async with asyncio.TaskGroup() as group:
            for loop in loops:
                group.create_task(run_loop(loop, stop, heartbeats), name=loop.role)
    finally:
        stop.set()


def collect_seldom() -> None:
    """Let the garbage collector look less often at what is made, and never again at what is imported.

    A first sync of 100,000 files holds millions of values until it ends; looking through them over and over took more
    than half of the time of decoding them. In the API a look through everything kept requests waiting for 90 ms.
    """
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def _loop(settings: Settings, role: str, databases: list[Database]) -> Loop:
    database = _database(settings, role)
    databases.append(database)
    if role == "scheduler":
        return Loop(role=role, tick=Scheduler(database, settings).tick, every=EVERY[role])
    if role == "dispatcher":
        from cron_observer.dispatch import Dispatcher

        dispatcher = Dispatcher(database, settings)
        return Loop(role=role, tick=dispatcher.tick, every=EVERY[role], wake=dispatcher.wake, close=dispatcher.close)
    from cron_observer.reconcile import Reconciler

    collect_seldom()
    reconciler = Reconciler(database, settings)
    return Loop(role=role, tick=reconciler.tick, every=EVERY[role], wake=reconciler.wake, close=reconciler.close)


def _reporting(settings: Settings, databases: list[Database]) -> Loop:
    """Return the loop that tells forges: with a connection of its own, so that none of them holds up a pass."""
    from cron_observer.reporter import Reporter

    database = _database(settings, "reconciler", pool_size=1)
    databases.append(database)
    reporter = Reporter(database, settings)
    return Loop(role="reporter", tick=reporter.tick, every=EVERY["reporter"], close=reporter.close)
