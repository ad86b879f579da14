"""A run that is reported by pings: one when it begins, one with the exit code and the end of its output."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

from cron_observer_sdk.errors import CronObserverError, Unavailable
from cron_observer_sdk.handle import Execution
from cron_observer_sdk.lines import Line
from cron_observer_sdk.notice import Notices
from cron_observer_sdk.outcome import Outcome
from cron_observer_sdk.own_run import BEGIN_SECONDS, PATIENCE_SECONDS, SPOOLED
from cron_observer_sdk.ping import BODY_BYTES, address, send, spool_ping
from cron_observer_sdk.text import JsonObject


class PingRun:
    """Does for a ping URL what `OwnRun` does for a task: nothing here raises, or waits for long."""

    def __init__(self, where: str, notices: Notices) -> None:
        """Raise `NotConfigured` for what cannot be pinged."""
        self._rid = str(uuid4())
        self._where = where
        self._notices = notices
        self.execution = Execution.nowhere()
        self._end = b""
        address(where)

    def log_lines(self, lines: Iterable[Line]) -> None:
        """Keep the end of the output."""
        texts = (line.message.encode() if isinstance(line.message, str) else line.message for line in lines)
        self._end = (self._end + b"".join(text + b"\n" for text in texts))[-BODY_BYTES:]

    def log(self, _level: str, message: str | bytes, _fields: JsonObject | None, _at: float | None = None) -> None:
        """Keep a word of our own."""
        text = message.encode() if isinstance(message, str) else message
        self._end = (self._end + text + b"\n")[-BODY_BYTES:]

    def begin(self) -> None:
        """Ping the start; go on without an answer."""
        url = address(self._where, "start", self._rid)

        def ping() -> None:
            try:
                send(url, tries=2)
            except CronObserverError as error:
                self._notices.say("ping", f"{error}; the work goes on without it")

        self._in_time(ping, BEGIN_SECONDS)

    def end(self, outcome: Outcome) -> None:
        """Ping the end; leave it to the spool if nobody answers."""
        url = address(self._where, _suffix(outcome), self._rid)
        failures: list[CronObserverError] = []

        def ping() -> None:
            try:
                send(url, self._end, timeout=PATIENCE_SECONDS, tries=3)
            except CronObserverError as error:
                failures.append(error)

        in_time = self._in_time(ping, PATIENCE_SECONDS - BEGIN_SECONDS)
        if in_time and not failures:
            return
        if failures and not isinstance(failures[0], Unavailable):
            self._notices.say("refused", f"the ping was refused: {failures[0]}")
            return
        try:
            spool_ping(url, self._end)
        except (OSError, ImportError) as error:
            self._notices.say("spool", f"the end is not reported: {error}")
        else:
            self._notices.tell("spooled", SPOOLED)

    def release(self, _reason: str) -> None:
        """Say nothing: the work did not begin."""

    @staticmethod
    def _in_time(action: Callable[[], Any], seconds: float) -> bool:
        """Do something in the background; say whether it was done in time."""
        thread = threading.Thread(target=action, name="cron-observer-ping", daemon=True)
        thread.start()
        thread.join(seconds)
        return not thread.is_alive()


def _suffix(outcome: Outcome) -> str:
    """Return the last part of the address for an outcome."""
    if outcome.outcome == "finished":
        return "0"
    if outcome.outcome == "skipped":
        return "log"
    return str(outcome.exit_code) if outcome.exit_code else "fail"
