"""A run that this process starts by itself (`task()`, `cron-observer run`): the work always wins.

The server is spoken to from threads of our own; the work waits for them for `PHASE_SECONDS` at its begin and at
its end, longer only while the server acknowledges what it is sent. A server that comes back while the work runs
still gets the whole story.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Sequence

from cron_observer_sdk.client import Client
from cron_observer_sdk.errors import ApiError, LeaseLost, NotConfigured, Unavailable
from cron_observer_sdk.execution import Execution
from cron_observer_sdk.ids import uuid7
from cron_observer_sdk.keeper import lasting_clock
from cron_observer_sdk.notice import PROCESS, Notices
from cron_observer_sdk.outcome import Outcome
from cron_observer_sdk.reporter import Reporter
from cron_observer_sdk.text import JsonObject, timestamp

#: Longest time that the begin or the end of the work waits for a server that does not answer.
PHASE_SECONDS = 2.0
#: Longest time that the end waits for a server that takes what it is sent.
DELIVERY_SECONDS = 10.0
#: Share of the end's time that the log may wait without an answer; the rest belongs to the outcome.
LOG_SHARE = 0.4
#: How long the outcome is tried in the background of a process that lives on.
OUTCOME_SECONDS = 30.0
#: Tries of one call to begin: a server that is down is known soon, and the next round comes anyway.
TRIES = 2
#: Longest pause between tries to begin while the work runs.
LONGEST_PAUSE_SECONDS = 15.0


def worker_name() -> str:
    """Return who we are for the server: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class OwnRun:
    """One run: `begin`, then `end` or `release`. None of them raises, and none of them waits long."""

    def __init__(
        self,
        task: str,
        client: Client,
        *,
        queues: Sequence[str] | None = None,
        lease_seconds: float = 30,
        notices: Notices | None = None,
        process: Notices = PROCESS,
    ) -> None:
        self.notices = notices or Notices()
        self._process = process  #: for what is wrong with the whole process
        self.reporter = Reporter(client, self.notices, lease_seconds=lease_seconds, strict=False)
        self.execution = Execution(task, self.reporter)
        self._task = task
        self._client = client
        self._queues = queues
        self._lease_seconds = lease_seconds
        self._worker = worker_name()
        self._began_at = 0.0
        self._tried = threading.Event()  #: the first try to begin has ended, well or badly
        self._over = threading.Event()  #: the work has ended
        self._closed = threading.Event()  #: nothing more will be reported
        self._lock = threading.Lock()
        self._ending = False  #: a thread delivers the end
        self._outcome: Outcome | None = None
        self._release_reason: str | None = None
        self._ids = (uuid7(), uuid7())  #: of the claim and of the execution: a repeat is harmless

    def begin(self, patience: float = PHASE_SECONDS) -> None:
        """Tell the server that the work begins; go on without it after `patience` seconds."""
        self._began_at = time.time()
        if not self._client.configured:
            self._process.say("unconfigured", f"{self._client.missing}: runs are not reported to Cron Observer")
            self._give_up()
            return
        threading.Thread(target=self._begin_all, name="cron-observer-begin", daemon=True).start()
        if not self._tried.wait(patience):
            self.notices.say("unavailable", "Cron Observer does not answer; the work goes on without it")

    def end(self, outcome: Outcome, patience: float = PHASE_SECONDS) -> None:
        """Tell the server how the work ended; go on without it if it does not answer."""
        if not self.reporter.ours:
            return
        if isinstance(self.reporter.stop_cause, LeaseLost):
            self.notices.say("lease", f"the outcome is not reported: {self.reporter.stop_cause}")
            self._give_up()
            return
        self._outcome = outcome
        self._over.set()
        self._end_in_background()
        begun = time.monotonic()
        while not self._closed.is_set():
            until = min(max(begun, self.reporter.answered_at) + patience, begun + DELIVERY_SECONDS)
            left = until - time.monotonic()
            if left <= 0:
                self.notices.say("unavailable", "Cron Observer does not answer; the outcome is not reported")
                return
            self._closed.wait(left)

    def release(self, reason: str, patience: float = PHASE_SECONDS) -> None:
        """Give the run back without an outcome: the work did not begin."""
        self._release_reason = reason
        self._over.set()
        if self.reporter.attached:
            self.reporter.release(reason, timeout=patience)
        self._closed.set()

    def _give_up(self) -> None:
        """Report nothing of this run, or nothing more."""
        self.reporter.mute()
        self._closed.set()
        self._tried.set()

    def _begin_all(self) -> None:
        """Try to begin until the server answers or the work is over; then deliver an end that came first."""
        pause = 0.5
        while True:
            last = self._over.is_set()
            try:
                self._attach()
            except Unavailable as error:
                self.notices.say("unavailable", f"{error}; the work goes on without it")
                self._tried.set()
                if last:
                    self._give_up()
                    return
                self._over.wait(random.uniform(pause / 2, pause))  # noqa: S311
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            except (ApiError, NotConfigured) as error:
                self.notices.say("begin", f"this run of {self._task} is not reported: {error}")
                self._give_up()
                return
            else:
                self._tried.set()
                if self._release_reason is not None:
                    self.reporter.release(self._release_reason, timeout=PHASE_SECONDS)
                elif self._over.is_set():
                    self._end_in_background()
                return

    def _attach(self) -> None:
        """Claim the due slot of the task, else create an execution. Raise `ApiError`."""
        claim_id, execution_id = self._ids
        found = self._client.claim(
            self._worker,
            self._queues,
            [self._task],
            lease_seconds=self._lease_seconds,
            claim_id=claim_id,
            tries=TRIES,
        )
        leased_at = lasting_clock()
        if found:
            self.reporter.attach(found[0], leased_at, begun=False)
            return
        facts: JsonObject = self._client.create(
            self._task,
            self._worker,
            id=execution_id,
            started_at=timestamp(self._began_at),
            lease_seconds=self._lease_seconds,
            tries=TRIES,
        )
        self.reporter.attach(facts, leased_at, begun=True)

    def _end_in_background(self) -> None:
        """Deliver the end once, as soon as the run has begun for the server."""
        with self._lock:
            if self._ending or self._closed.is_set() or not self.reporter.attached or self._outcome is None:
                return
            self._ending = True
        threading.Thread(target=self._deliver_end, name="cron-observer-end", daemon=True).start()

    def _deliver_end(self) -> None:
        """Deliver log and outcome."""
        if self._outcome is not None:
            self.reporter.finish(
                self._outcome,
                quiet=PHASE_SECONDS * LOG_SHARE,
                limit=DELIVERY_SECONDS,
                timeout=OUTCOME_SECONDS,
            )
        self._closed.set()
