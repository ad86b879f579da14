"""What one execution tells the server and hears from it: facts, lease, log, the word to stop, the end.

Nothing here raises towards the work, except the word to stop where the work asks for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from cron_observer_sdk.client import Client
from cron_observer_sdk.errors import (
    AlreadyFinal,
    ApiError,
    Cancelled,
    Conflict,
    Forbidden,
    LeaseLost,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from cron_observer_sdk.journal import Journal
from cron_observer_sdk.keeper import Beat, Heart, Keeper
from cron_observer_sdk.lines import Line, make_lines
from cron_observer_sdk.logs import LogStream
from cron_observer_sdk.notice import Notices
from cron_observer_sdk.outcome import Outcome
from cron_observer_sdk.text import JsonObject, result_json

#: What became of the end of a run.
DELIVERED = "delivered"  #: the server has all of it, or knows a better end
AWAY = "away"  #: nobody took it, or not all of it
REFUSED = "refused"  #: the server will not take it


class Reporter:
    """Reports one execution. It takes lines and progress before it is attached, and sends them afterwards.

    `strict`: the work must end when the lease cannot be trusted any more (a worker's), because another
    worker may take over. Otherwise the work goes on through an outage of the server (a crontab's).
    """

    def __init__(
        self, client: Client, notices: Notices, *, lease_seconds: float, strict: bool, journal: Journal | None = None
    ) -> None:
        self.client = client
        self.journal = journal  #: where the reports go while the server is away; None: nowhere
        self.notices = notices
        self.lease_seconds = lease_seconds
        self.facts: JsonObject = {}
        self.attached = False
        self.result: Any = None
        self.stop_asked = threading.Event()
        self.stop_cause: Exception | None = None
        self.lease_gone = False  #: the server said so
        self.repeated = False  #: the execution had begun before, elsewhere
        self.answered_at = 0.0  #: monotonic; the last reply
        self._strict = strict
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._log = LogStream()
        if journal is not None:
            self._log.keep_in(journal)
        self.hide = client.redactor
        self._closing: list[Callable[[], None]] = []
        self._keeper = Keeper(lease_seconds)

    @property
    def ours(self) -> bool:
        """Say whether this is the process that runs the work; a forked child reports nothing."""
        return os.getpid() == self._pid

    def attach(self, facts: JsonObject, leased_at: float, *, begun: bool) -> None:
        """Begin to report as this execution, whose lease counts from `leased_at` (lasting clock).

        `begun`: the server knows that the work began; otherwise it is told.
        """
        with self._lock:
            self.facts = facts
            self.attached = True
        self._heed(facts)
        key, fence = self._key()
        if self.journal is not None:
            self.journal.bind(key, fence)

        def start(timeout: float) -> JsonObject:
            return self.client.start(key, fence, timeout=timeout)

        def beat(said: Beat) -> JsonObject:
            return self.client.heartbeat(
                key,
                fence,
                progress=said.progress,
                message=said.message,
                lease_seconds=self.lease_seconds,
                checkpoint=said.checkpoint,
                timeout=said.timeout,
            )

        def send(first: int, entries: list[bytes], timeout: float) -> JsonObject:
            return self.client.logs_encoded(key, fence, first, entries, timeout=timeout, tries=1)

        heart = Heart(None if begun else start, beat, self._heed, self._refused, self._expired)
        self._keeper.open(heart, facts.get("heartbeat_every_seconds"), leased_at)
        self._log.open(send, self._heed, self._refused)

    def mute(self) -> None:
        """Report nothing from here on."""
        self._close_sources()
        self._keeper.stop()
        self._log.stop()

    def at_end(self, close: Callable[[], None]) -> None:
        """Call this once before the log ends; it may still bring lines."""
        self._closing.append(close)

    def log(self, level: str, message: str | bytes, fields: JsonObject | None, at: float | None = None) -> None:
        """Take a line of the log."""
        if self.ours:
            if self.hide:
                message = self.hide.line(message) if isinstance(message, bytes) else self.hide.text(message)
                fields = self.hide.value(fields)
            self._log.add(make_lines(time.time() if at is None else at, level, message, fields))

    def log_lines(self, lines: Iterable[Line]) -> None:
        """Take lines that are made already, with nothing left in them to hide."""
        if self.ours:
            self._log.add(lines)

    def progress(self, fraction: float, message: str | None) -> None:
        """Say how far the work is."""
        if self.ours:
            self.client.noted(self._task_name(), "progress", {"progress": fraction, "message": message})
            self._keeper.note_progress(fraction, message if message is None else self.hide.text(message))

    def checkpoint(self, value: Any) -> None:
        """Save a value for the next attempt."""
        if not self.ours:
            return
        try:
            self._keeper.note_checkpoint(self.hide.value(value))
            self.client.noted(self._task_name(), "checkpoint", {"checkpoint": value})
        except (TypeError, ValueError) as error:
            self.notices.say("checkpoint", f"the checkpoint cannot be stored: {error}")

    def ask_to_stop(self, cause: Exception) -> None:
        """Let the work know that it should end; the first cause counts."""
        with self._lock:
            if self.stop_cause is not None:
                return
            self.stop_cause = cause
        self.stop_asked.set()

    def trouble(self) -> None:
        """Begin to write to the journal what cannot be sent."""
        if self.journal is not None and self.ours:
            self.journal.watch(self._log.spill)

    def finish(self, outcome: Outcome, *, quiet: float, limit: float, timeout: float) -> str:
        """Deliver the log, then the outcome (as `judged` returns it); return DELIVERED, AWAY or REFUSED.

        `quiet`, `limit`: see `LogStream.close`; `timeout`: seconds for the outcome itself.
        """
        stored = self._log.close(quiet=quiet, limit=limit)
        if not stored:
            self.notices.say("unavailable", "the end of the log could not be delivered")
        self._keeper.stop()
        key, fence = self._key()
        try:
            self._complete(key, fence, outcome, timeout)
        except AlreadyFinal as refusal:
            self.notices.say("final", f"the outcome came too late, another one counts: {refusal}")
        except ApiError as refusal:
            away = isinstance(refusal, Unavailable) or refusal.status >= 500
            self.notices.say("unavailable" if away else "complete", f"the outcome could not be reported: {refusal}")
            return AWAY if away else REFUSED
        self.answered_at = time.monotonic()
        return DELIVERED if stored else AWAY

    def save(self, outcome: Outcome) -> bool:
        """Write the outcome to the journal, then what is left of the log; return True when the outcome is safe there.

        The outcome goes first: a process that has no time left loses lines.
        """
        if self.journal is None:
            return False
        self._keeper.stop()
        ended = self.journal.end(outcome._asdict(), time.time(), self._log.next_number())
        self._log.save()
        return ended

    def judged(self, outcome: Outcome) -> Outcome:
        """Return the outcome as it may leave the process, after the last lines were taken."""
        self._close_sources()
        value, why = result_json(self.hide.value(outcome.result))
        if why is not None:
            self.log("ERROR", why, None)
        return outcome._replace(result=value, error=self.hide.value(outcome.error))

    def _close_sources(self) -> None:
        """Take the last lines of what is read beside the work."""
        closing, self._closing = self._closing, []
        for close in closing:
            close()

    def _complete(self, key: str, fence: int, outcome: Outcome, timeout: float) -> None:
        """Send the outcome; a result that the server does not take must not cost the outcome. Raise `ApiError`."""
        try:
            self.client.complete(key, fence, timeout=timeout, **outcome._asdict())
        except ApiError as refusal:
            if outcome.result is None or refusal.status not in {400, 413, 422}:
                raise
            self.notices.say("result", f"the result was refused, the outcome is reported without it: {refusal}")
            self.client.complete(key, fence, timeout=timeout, **outcome._replace(result=None)._asdict())

    def release(self, reason: str, *, timeout: float) -> bool:
        """Give the execution back; say whether the server has it."""
        self._close_sources()
        self._log.close(quiet=timeout / 2, limit=timeout)
        key, fence = self._key()
        try:
            self._keeper.save_checkpoint(timeout)
            self._keeper.stop()
            self.client.release(key, fence, reason, timeout=timeout)
        except ApiError as refusal:
            self.notices.say("release", f"the execution could not be given back: {refusal}")
            return False
        finally:
            self._keeper.stop()
        return True

    def _task_name(self) -> str:
        """Return ``project/name``; empty while the server does not know of the run."""
        known = self.facts.get("task")
        return f"{known['project']}/{known['name']}" if known else ""

    def _key(self) -> tuple[str, int]:
        """Return what every report carries."""
        return str(self.facts["id"]), int(self.facts["fence"])

    def _heed(self, reply: JsonObject) -> None:
        """Take what a reply says beside its own matter."""
        self.answered_at = time.monotonic()
        if reply.get("cancel_requested"):
            self.ask_to_stop(Cancelled("cancellation was asked for"))
        if reply.get("refused_checkpoint"):
            self.notices.say("checkpoint", f"the checkpoint was refused: {reply['refused_checkpoint']}")

    def _refused(self, error: ApiError) -> bool:
        """Judge an error of a report; say whether it ends this kind of report."""
        if isinstance(error, Unavailable) or error.status >= 500:
            self.notices.say("unavailable", f"{error}; the work goes on, reports are kept and tried again")
            self.trouble()
            return False
        if isinstance(error, (Unauthenticated, Forbidden)):
            self.notices.say("credential", f"the token is refused: {error}; the work goes on")
            return False
        if isinstance(error, AlreadyFinal):
            if error.stored.get("status") == "CANCELLED":
                self.ask_to_stop(Cancelled("the execution was cancelled"))
        elif isinstance(error, LeaseLost):
            self.lease_gone = True
            if self._strict or self._keeper.trusted():
                self.ask_to_stop(error)
            else:
                self.notices.say("lease", f"{error}; the work goes on")
        else:
            self.notices.say("refused", f"a report was refused: {error}")
        if isinstance(error, (Conflict, NotFound)):
            self._keeper.stop()
        return True

    def _expired(self) -> None:
        """The lease ran out by our clock: nobody answered for too long."""
        if self._strict:
            self.ask_to_stop(
                LeaseLost(
                    "the lease could not be renewed in time",
                    code="lease_lost",
                    hint="another worker may take the execution over",
                )
            )
