"""A run that this process starts by itself (`task()`, `cron-observer run`): the work always wins.

The server is spoken to from threads of our own; the work waits for them for `PATIENCE_SECONDS` in all, at its begin
and at its end, longer only while the server acknowledges what it is sent. A server that comes back while the work
runs still gets the whole story; one that does not gets it from the spool.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from cron_observer_sdk.client import Client
from cron_observer_sdk.errors import (
    ApiError,
    Forbidden,
    LeaseLost,
    NotConfigured,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from cron_observer_sdk.handle import Execution
from cron_observer_sdk.ids import uuid7
from cron_observer_sdk.journal import Journal
from cron_observer_sdk.keeper import lasting_clock
from cron_observer_sdk.leftovers import replay_some
from cron_observer_sdk.notice import PROCESS, Notices, strict
from cron_observer_sdk.outcome import Outcome
from cron_observer_sdk.reporter import DELIVERED, REFUSED, Reporter
from cron_observer_sdk.text import JsonObject, timestamp

#: Longest time that the work waits for a server that does not answer: of it, the begin may take its share, and the
#: end gets what is left.
PATIENCE_SECONDS = 1.9
BEGIN_SECONDS = 1.2
#: Longest time that the end waits for the disk.
DISK_SECONDS = 1.0
#: Longest time that the end waits for a server that takes what it is sent.
DELIVERY_SECONDS = 10.0
#: Seconds for replaying what waits for the same task before it begins, and bytes of a file that is not too much then:
#: a late end counts only before the next claim.
REPLAY_SECONDS = 1.0
REPLAY_BYTES = 256 * 1024
#: Share of the end's time that the log may wait without an answer; the rest belongs to the outcome.
LOG_SHARE = 0.4
#: How long the outcome is tried in the background of a process that lives on.
OUTCOME_SECONDS = 30.0
#: Tries of one call to begin: a server that is down is known soon, and the next round comes anyway.
TRIES = 2
#: Longest pause between tries to begin while the work runs.
LONGEST_PAUSE_SECONDS = 15.0

SPOOLED = "Cron Observer does not answer; the outcome is spooled and will be reported later"
UNREPORTED = "Cron Observer does not answer; the outcome is not reported"


def worker_name() -> str:
    """Return who we are for the server: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class OwnRun:
    """One run: `begin`, then `end` or `release`. None of them raises, and none of them waits long.

    `begin` raises for what only a person can mend (no settings, a refused token, an unknown task) where
    CRON_OBSERVER_STRICT asks for it. `execution_id`: the run is the one of this id, and claims no slot.
    """

    def __init__(
        self,
        task: str,
        client: Client,
        *,
        queues: Sequence[str] | None = None,
        lease_seconds: float = 30,
        notices: Notices | None = None,
        process: Notices | None = None,
        execution_id: str | None = None,
    ) -> None:
        self.notices = notices or Notices()
        self._process = process or PROCESS  #: for what is wrong with the whole process
        self._task = task
        self._client = client
        self._queues = queues
        self._lease_seconds = lease_seconds
        self._worker = worker_name()
        self._claims = execution_id is None
        self._ids = (uuid7(), execution_id or uuid7())  #: of the claim and of the execution: a repeat is harmless
        self._began_at = time.time()
        self._journal = self._make_journal()
        self.reporter = Reporter(client, self.notices, lease_seconds=lease_seconds, strict=False, journal=self._journal)
        self.execution = Execution(task, self.reporter)
        self._waited = 0.0  #: seconds that the begin made the work wait without an answer
        self._wrong: Exception | None = None  #: why the run is not reported
        self._tried = threading.Event()  #: the first try to begin has ended, well or badly
        self._over = threading.Event()  #: the work has ended
        self._closed = threading.Event()  #: nothing more will be reported
        self._lock = threading.Lock()
        self._ending = False  #: a thread delivers the end
        self._saved = threading.Event()  #: the end was written to the spool, well or badly
        self._spooled = False  #: the end was left to the spool before the server knew of the run
        self._outcome: Outcome | None = None
        self._release_reason: str | None = None

    def begin(self, patience: float = BEGIN_SECONDS) -> None:
        """Tell the server that the work begins; go on without it after `patience` seconds."""
        if not self._client.configured:
            self._give_up()
            if strict():
                raise NotConfigured(f"{self._client.missing}, and CRON_OBSERVER_STRICT is set")
            self._process.say("unconfigured", f"{self._client.missing}: runs are not reported to Cron Observer")
            return
        begun = time.monotonic()
        threading.Thread(target=self._begin_all, name="cron-observer-begin", daemon=True).start()
        if not self._tried.wait(patience):
            self.notices.say("unavailable", "Cron Observer does not answer; the work goes on without it")
            self.reporter.trouble()
        if not self.reporter.attached:
            self._waited = time.monotonic() - begun
        if strict() and isinstance(self._wrong, (NotConfigured, NotFound, Unauthenticated, Forbidden)):
            raise self._wrong

    def end(self, outcome: Outcome) -> None:
        """Tell the server how the work ended; leave it to the spool if it does not answer."""
        if not self.reporter.ours:
            return
        if self._closed.is_set():
            self.reporter.mute()
            return
        if isinstance(self.reporter.stop_cause, LeaseLost):
            self.notices.say("lease", f"the outcome is not reported: {self.reporter.stop_cause}")
            self._give_up()
            return
        self._outcome = outcome = self.reporter.judged(outcome)
        self._over.set()
        patience = max(0.0, PATIENCE_SECONDS - self._waited)
        self._end_in_background(patience)
        begun = time.monotonic()
        while not self._closed.is_set():
            until = min(max(begun, self.reporter.answered_at) + patience, begun + DELIVERY_SECONDS)
            left = until - time.monotonic()
            if left <= 0:
                self._leave_to_spool(outcome)
                return
            self._closed.wait(left)

    def release(self, reason: str) -> None:
        """Give the run back without an outcome: the work did not begin."""
        self._release_reason = reason
        self._over.set()
        if self.reporter.attached:
            self.reporter.release(reason, timeout=PATIENCE_SECONDS)
        if self._journal is not None:
            self._journal.discard()
        self._closed.set()

    def _make_journal(self) -> Journal | None:
        """Return what keeps the run while the server is away."""
        client = self._client
        if not client.configured or not client.spool:
            return None
        head = {
            "v": 1,
            "url": client.url,
            "key": client.key_id,
            "task": self._task,
            "id": self._ids[1],
            "worker": self._worker,
            "started_at": timestamp(self._began_at),
        }
        return Journal(head, self.notices)

    def _leave_to_spool(self, outcome: Outcome) -> None:
        """Write the end to the spool; wait for the disk, but not for ever."""
        if self._journal is None:
            self.notices.say("unavailable", UNREPORTED)
            return
        with self._lock:
            self._spooled = not self.reporter.attached
        threading.Thread(target=self._save, args=(outcome,), name="cron-observer-spool", daemon=True).start()
        self._saved.wait(DISK_SECONDS)
        if self._journal.ended:
            self.notices.tell("spooled", SPOOLED)
        elif not self._closed.is_set():  # it may have been delivered at the last moment
            self.notices.say("unspooled", UNREPORTED)

    def _save(self, outcome: Outcome) -> None:
        """Write the end to the spool."""
        self.reporter.save(outcome)
        self._saved.set()

    def _give_up(self, reason: Exception | None = None) -> None:
        """Report nothing of this run, or nothing more."""
        self._wrong = reason
        self.reporter.mute()
        if self._journal is not None:
            if reason is None:
                self._journal.discard()
            else:
                self._journal.set_aside(str(reason))
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
                self.reporter.trouble()
                self._tried.set()
                if last:
                    self._end_unheard()
                    return
                self._over.wait(random.uniform(pause / 2, pause))  # noqa: S311
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001  a refusal, or an answer that no server of ours gives
                self.notices.say("begin", f"this run of {self._task} is not reported: {error}")
                self._give_up(error)
                return
            else:
                self._tried.set()
                self._go_on()
                return

    def _go_on(self) -> None:
        """Do what has come up since the begin was asked for, and replay what others left."""
        if self._release_reason is not None:
            self.reporter.release(self._release_reason, timeout=PATIENCE_SECONDS)
        elif self._over.is_set():
            self._end_in_background(PATIENCE_SECONDS)
        if self._client.spool:
            replay_some(self._client, self._process)

    def _end_unheard(self) -> None:
        """Nobody heard of the run until its end: leave it to the spool."""
        outcome = self._outcome
        if outcome is None or not self.reporter.save(outcome):
            self.notices.say("unspooled", UNREPORTED)
            self._give_up()
            return
        self.reporter.mute()
        self.notices.tell("spooled", SPOOLED)
        if self._journal is not None:
            self._journal.close()
        self._closed.set()

    def _attach(self) -> None:
        """Claim the due slot of the task, else create an execution. Raise `ApiError`."""
        claim_id, execution_id = self._ids
        if self._claims:
            self._replay_own_task()
            found = self._client.claim(
                self._worker,
                self._queues,
                [self._task],
                lease_seconds=self._lease_seconds,
                claim_id=claim_id,
                tries=TRIES,
            )
            if found:
                self._attached(found[0], begun=False)
                return
        leased_at = lasting_clock()
        facts: JsonObject = self._client.create(
            self._task,
            self._worker,
            id=execution_id,
            started_at=timestamp(self._began_at),
            lease_seconds=self._lease_seconds,
            tries=TRIES,
        )
        if facts.get("status") != "RUNNING" or facts.get("worker") not in {None, self._worker}:
            self.reporter.facts, self.reporter.repeated = facts, True
            self.notices.tell("repeated", f"{self._task}: this key has a run already, {facts.get('status')}")
            self._give_up()
            return
        self._attached(facts, begun=True, leased_at=leased_at)

    def _attached(self, facts: JsonObject, *, begun: bool, leased_at: float | None = None) -> None:
        """Begin to report as this execution, or tell the spool which one it is if the end is there already."""
        if not (isinstance(facts.get("fence"), int) and facts.get("id") and isinstance(facts.get("task"), dict)):
            raise ApiError("the answer is not from Cron Observer: it is no execution", status=200, code="bad_reply")
        if facts.get("queue") == "@checkin":
            self.notices.say("watched", f"{self._task} waits for pings: this run counts beside its slots; use --ping")
        journal = self._journal
        with self._lock:
            if self._spooled:
                self._saved.wait()
            if not self._spooled or journal is None or not journal.ended:
                self._spooled = False
                self.reporter.attach(facts, lasting_clock() if leased_at is None else leased_at, begun=begun)
                return
        segment = journal.hand_over()
        self._closed.set()
        if segment is None:
            return
        from cron_observer_sdk.replay import replay_segment
        from cron_observer_sdk.text import encode

        with suppress(OSError):
            segment.write([encode({"kind": "bound", "id": facts["id"], "fence": facts["fence"]})], durable=False)
            replay_segment(segment, self._client)

    def _replay_own_task(self) -> None:
        """Report what earlier runs of the task left in the spool. Raise `Unavailable` if nobody answers."""
        if not self._client.spool:
            return
        tally = replay_some(self._client, self._process, task=self._task, seconds=REPLAY_SECONDS, largest=REPLAY_BYTES)
        if tally is not None and tally.away:
            raise Unavailable(tally.away)

    def _end_in_background(self, patience: float) -> None:
        """Deliver the end once, as soon as the run has begun for the server."""
        with self._lock:
            if self._ending or self._closed.is_set() or not self.reporter.attached or self._outcome is None:
                return
            self._ending = True
        threading.Thread(target=self._deliver_end, args=(patience,), name="cron-observer-end", daemon=True).start()

    def _deliver_end(self, patience: float) -> None:
        """Deliver log and outcome; what is not delivered stays in the spool."""
        outcome, journal = self._outcome, self._journal
        if outcome is None:
            return
        became = self.reporter.finish(
            outcome,
            quiet=patience * LOG_SHARE,
            limit=DELIVERY_SECONDS,
            timeout=OUTCOME_SECONDS,
        )
        if journal is not None:
            if became in {DELIVERED, REFUSED}:
                journal.discard()
            else:
                if self.reporter.save(outcome):
                    self.notices.tell("spooled", SPOOLED)
                journal.close()
        self._closed.set()
