"""One claimed execution in a worker: its thread, its handle, and the single end that it gets."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from cron_observer_sdk import context, handlers
from cron_observer_sdk.client import Client
from cron_observer_sdk.errors import LeaseLost
from cron_observer_sdk.handle import Execution
from cron_observer_sdk.journal import Journal
from cron_observer_sdk.notice import LOGGER, Notices
from cron_observer_sdk.outcome import Outcome, of_exception
from cron_observer_sdk.own_run import worker_name
from cron_observer_sdk.reporter import AWAY, Reporter
from cron_observer_sdk.text import JsonObject, timestamp

#: How long the end of the log may wait without an answer, in all, and the outcome after it. A worker has time:
#: the server holds the run until its lease ends.
LOG_QUIET_SECONDS = 10.0
LOG_SECONDS = 60.0
OUTCOME_SECONDS = 30.0

_logger = logging.getLogger(LOGGER)


class Shift:
    """Runs the handler of one execution and reports its end, unless somebody gives it back before."""

    def __init__(self, client: Client, handler: handlers.Handler, facts: JsonObject, *, lease_seconds: float) -> None:
        self._handler = handler
        self._facts = facts
        notices = Notices()
        self._journal = Journal(_head(client, facts), notices) if client.spool else None
        self._reporter = Reporter(client, notices, lease_seconds=lease_seconds, strict=True, journal=self._journal)
        self.execution = Execution("", self._reporter)
        self._lock = threading.Lock()
        self._settled = False
        self._stopper: Exception | None = None

    def begin(self, leased_at: float, ended: Callable[[Shift], None]) -> None:
        """Start the thread. `ended` is called at its end."""
        self._reporter.attach(self._facts, leased_at, begun=False)
        threading.Thread(
            target=self._work, args=(ended,), name=f"cron-observer-{self.execution.task}", daemon=True
        ).start()

    def ask_to_stop(self, cause: Exception) -> None:
        """Let the handler know that the worker stops; a run that ends for this cause is given back."""
        self._stopper = cause
        self._reporter.ask_to_stop(cause)

    def give_back(self, reason: str, *, timeout: float) -> None:
        """Release the execution, unless its end is being reported already."""
        if self._settle():
            self._reporter.release(reason, timeout=timeout)
            if self._journal is not None:
                self._journal.discard()

    def _settle(self) -> bool:
        """Say whether the caller is the one to report the end."""
        with self._lock:
            first, self._settled = not self._settled, True
        return first

    def _work(self, ended: Callable[[Shift], None]) -> None:
        """Run the handler to its end and report it."""
        try:
            context.enter(self.execution)
            error: BaseException | None = None
            try:
                value = handlers.call(self._handler, self.execution)
                if value is not None:
                    self.execution.result = value
                outcome = Outcome("finished", result=self.execution.result)
            except BaseException as raised:  # noqa: BLE001  whatever a handler raises is its outcome
                error, outcome = raised, of_exception(raised)
            self._report(outcome, error)
        finally:
            ended(self)

    def _report(self, outcome: Outcome, error: BaseException | None) -> None:
        """Report the end: nothing if the lease is gone, a release if the worker's stop was the cause."""
        if not self._settle():
            return
        if self._reporter.lease_gone or isinstance(error, LeaseLost):
            _logger.warning("%r lost its lease: its outcome is not reported", self.execution)
            self._reporter.mute()
        elif error is not None and error is self._stopper:
            self._reporter.release("the worker stops", timeout=LOG_QUIET_SECONDS)
        else:
            outcome = self._reporter.judged(outcome)
            became = self._reporter.finish(outcome, quiet=LOG_QUIET_SECONDS, limit=LOG_SECONDS, timeout=OUTCOME_SECONDS)
            if became == AWAY and self._reporter.save(outcome) and self._journal is not None:
                _logger.warning("%r: its end is spooled and will be reported later", self.execution)
                self._journal.close()
                return
        if self._journal is not None:
            self._journal.discard()


def _head(client: Client, facts: JsonObject) -> JsonObject:
    """Return what the spool needs to know of a run that the server handed out."""
    task = facts["task"]
    return {
        "v": 1,
        "url": client.url,
        "key": client.key_id,
        "task": f"{task['project']}/{task['name']}",
        "id": str(facts["id"]),
        "worker": worker_name(),
        "started_at": timestamp(time.time()),
    }
