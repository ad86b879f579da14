"""The worker: claims due executions by long poll, runs a handler for each, and stops without losing any."""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cron_observer_sdk.asynchronous import in_thread
from cron_observer_sdk.client import Client, default_client
from cron_observer_sdk.errors import ApiError, Cancelled, NotConfigured, NotFound, Unavailable
from cron_observer_sdk.handlers import Handler, Handlers, on_loop
from cron_observer_sdk.ids import uuid7
from cron_observer_sdk.keeper import lasting_clock
from cron_observer_sdk.leftovers import replay_some
from cron_observer_sdk.notice import LOGGER, PROCESS
from cron_observer_sdk.own_run import worker_name
from cron_observer_sdk.shift import Shift
from cron_observer_sdk.text import JsonObject
from cron_observer_sdk.transport import Abort

#: Longest pause between claims while the server cannot be reached.
LONGEST_PAUSE_SECONDS = 30.0
#: An empty answer that came sooner than this was no long poll: rest, so that the server is not hammered.
POLL_SECONDS = 1.0
#: Seconds of replaying the spool after each claim that brought nothing.
IDLE_SECONDS = 5.0
#: Tasks that one claim may name.
TASKS = 100
#: How long a worker that stops tries to give back what it just claimed, and each run that it leaves.
RELEASE_SECONDS = 5.0
#: What handlers that watch for cancellation get after the grace, before their runs are given back.
LAST_WORD_SECONDS = 1.0

_logger = logging.getLogger(LOGGER)


class WorkerStops(Cancelled):
    """The worker is asked to stop and the grace is over: the run is given back."""


class Worker:
    """Claims executions from `queues` and runs up to `concurrency` of them at a time, each in a thread.

    `tasks` narrows the claims to these (uids or ``project/name``); by default they are the handlers' names, or
    everything in the queues if there is a handler ``*``. `lease_seconds`: how long a run survives without a
    heartbeat before another worker gets it. `grace_seconds`: what running handlers get when the worker stops.
    """

    def __init__(
        self,
        client: Client | None = None,
        queues: Sequence[str] = ("default",),
        tasks: Sequence[str] | None = None,
        concurrency: int = 1,
        name: str | None = None,
        *,
        lease_seconds: float = 30,
        wait_seconds: float = 30,
        grace_seconds: float = 20,
    ) -> None:
        if not 1 <= concurrency <= 100:
            raise ValueError("concurrency is 1 to 100")
        if not 5 <= lease_seconds <= 3600:
            raise ValueError("lease_seconds is 5 to 3600")
        self.name = name or worker_name()
        self._client = client
        self._queues = tuple(queues)
        self._tasks = None if tasks is None else tuple(tasks)
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._wait_seconds = min(30.0, max(0.0, wait_seconds))
        self._grace_seconds = grace_seconds
        self._stopping = threading.Event()
        # A signal handler may put into it whatever lock its thread holds; an Event has no such promise.
        self._wishes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._abort = Abort()
        self._changed = threading.Condition()
        self._shifts: set[Shift] = set()
        self._fatal: Exception | None = None

    def run(self, handlers: Mapping[str, Handler]) -> None:
        """Work until SIGTERM, SIGINT or `stop`; then let what runs finish within the grace, and release the rest.

        A handler is a function, plain or ``async def``, that takes the `Execution` or nothing; ``*`` is for tasks
        without one of their own. Its return value is the result, an exception the failure. A second signal
        cuts the grace short. Raise `NotConfigured` without URL and token, `ApiError` if the server refuses this worker
        for good (a wrong token).
        """
        with self._signals():
            self._run(handlers)

    async def arun(self, handlers: Mapping[str, Handler]) -> None:
        """Do as `run` beside this loop: ``async def`` handlers run in it, plain ones in threads.

        Signals are left to the program: cancel the task that awaits this, or call `stop`; either lets what runs
        finish within the grace.
        """
        loop = asyncio.get_running_loop()
        done = asyncio.ensure_future(in_thread(lambda: self._run(on_loop(handlers, loop))))
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            self.stop()
            await done
            raise

    def _run(self, handlers: Mapping[str, Handler]) -> None:
        """Work until asked to stop. Raise as `run` does."""
        client = self._client or default_client()
        if not client.configured:
            raise NotConfigured(f"{client.missing}: a worker needs both")
        known = Handlers(handlers)
        tasks = self._tasks if self._tasks is not None else known.names()
        if tasks is not None and len(tasks) > TASKS:
            raise ValueError(f"a claim names {TASKS} tasks at most: use a queue of their own and the handler *")
        claimer = threading.Thread(
            target=self._claim_all, args=(client, known, tasks), name="cron-observer-claims", daemon=True
        )
        _logger.info("worker %s takes %s from %s", self.name, tasks or "everything", list(self._queues))
        claimer.start()
        self._wishes.get()
        self._stopping.set()
        self._abort.now()
        claimer.join(RELEASE_SECONDS * 2)
        self._drain()
        if self._fatal is not None:
            raise self._fatal

    def stop(self) -> None:
        """Ask the worker to stop, from any thread; `run` returns when it has. A stopped worker is done."""
        self._wishes.put(None)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as the wish to stop, where this thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[signal.Signals, Any] = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, lambda *_: self.stop())
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _claim_all(self, client: Client, handlers: Handlers, tasks: Sequence[str] | None) -> None:
        """Claim until the worker stops; what ends it otherwise is raised by `run`."""
        try:
            self._claim_until_stopped(client, handlers, tasks)
        except Exception as error:  # noqa: BLE001  `run` waits in another thread and must hear of it
            self._fatal = error
            self._wishes.put(None)

    def _claim_until_stopped(self, client: Client, handlers: Handlers, tasks: Sequence[str] | None) -> None:
        """Claim and begin what comes. Raise `ApiError` for a refusal that waiting will not mend."""
        pause, claim_id = 0.5, uuid7()
        while self._wait_for_room():
            asked_at = time.monotonic()
            try:
                found = self._claim(client, tasks, claim_id, self._wait_seconds)
            except ApiError as error:
                if self._stopping.is_set():
                    break
                if not _passing(error):
                    raise
                if pause <= 0.5:
                    _logger.warning("%s; trying again", error)
                self._stopping.wait(random.uniform(pause / 2, pause))  # noqa: S311
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                continue  # with the same claim_id: what it brought may have been lost on the way
            pause = 0.5
            leased_at = lasting_clock()  # the reply follows the claim at once; the request may have waited
            if self._stopping.is_set():
                break
            claim_id = uuid7()
            for facts in found:
                self._take(client, handlers, facts, leased_at)
            if not found and client.spool:
                replay_some(client, PROCESS, seconds=IDLE_SECONDS)
            if not found and time.monotonic() - asked_at < min(POLL_SECONDS, self._wait_seconds):
                self._stopping.wait(POLL_SECONDS)
        else:
            return
        self._give_back(client, tasks, claim_id)

    def _claim(
        self, client: Client, tasks: Sequence[str] | None, claim_id: str, wait_seconds: float
    ) -> list[JsonObject]:
        """Ask for as many executions as there is room for. Raise `ApiError`."""
        stopping = wait_seconds == 0 and self._stopping.is_set()
        return client.claim(
            self.name,
            self._queues,
            tasks,
            max(1, self._concurrency - len(self._shifts)),
            wait_seconds=wait_seconds,
            lease_seconds=self._lease_seconds,
            claim_id=claim_id,
            timeout=RELEASE_SECONDS if stopping else None,
            abort=None if stopping else self._abort,
        )

    def _give_back(self, client: Client, tasks: Sequence[str] | None, claim_id: str) -> None:
        """Release what the interrupted claim may have brought: asked again, it answers the same."""
        try:
            for facts in self._claim(client, tasks, claim_id, 0):
                client.release(facts["id"], facts["fence"], "the worker stops", timeout=RELEASE_SECONDS)
        except ApiError as error:
            _logger.info("what was claimed last could not be given back: %s", error)

    def _wait_for_room(self) -> bool:
        """Wait until another execution may run; False when the worker stops."""
        with self._changed:
            while not self._stopping.is_set() and len(self._shifts) >= self._concurrency:
                self._changed.wait(0.5)
        return not self._stopping.is_set()

    def _take(self, client: Client, handlers: Handlers, facts: JsonObject, leased_at: float) -> None:
        """Run one execution in a thread; give it back if there is no handler for it."""
        handler = handlers.find(facts)
        if handler is None:
            name = f"{facts['task']['project']}/{facts['task']['name']}"
            _logger.warning("no handler for %s: given back", name)
            try:
                client.release(facts["id"], facts["fence"], f"worker {self.name} has no handler for {name}")
            except ApiError as error:
                _logger.warning("%s could not be given back: %s", name, error)
            self._stopping.wait(POLL_SECONDS)
            return
        shift = Shift(client, handler, facts, lease_seconds=self._lease_seconds)
        with self._changed:
            self._shifts.add(shift)
        shift.begin(leased_at, self._ended)

    def _ended(self, shift: Shift) -> None:
        """Make room."""
        with self._changed:
            self._shifts.discard(shift)
            self._changed.notify_all()

    def _hurried(self) -> bool:
        """Say whether somebody asked a second time."""
        return not self._wishes.empty()

    def _drain(self) -> None:
        """Wait for what runs, then ask it to stop, then give it back."""
        self._wait_until_idle(self._grace_seconds, hurry=True)
        with self._changed:
            left = list(self._shifts)
        if not left:
            return
        for shift in left:
            shift.ask_to_stop(WorkerStops("the worker stops"))
        self._wait_until_idle(LAST_WORD_SECONDS, hurry=False)
        with self._changed:
            left = list(self._shifts)
        for shift in left:
            _logger.warning("%r did not end in time: given back", shift.execution)
            shift.give_back("the worker stops", timeout=RELEASE_SECONDS)

    def _wait_until_idle(self, seconds: float, *, hurry: bool) -> None:
        """Wait until nothing runs; a second wish to stop ends the waiting if `hurry`."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._shifts and time.monotonic() < until and not (hurry and self._hurried()):
                self._changed.wait(min(0.2, max(0.0, until - time.monotonic())))


def _passing(error: ApiError) -> bool:
    """Say whether waiting may mend it: an outage, a fault of the server, a task that is not pushed yet."""
    return isinstance(error, (Unavailable, NotFound)) or error.status >= 500
