"""The handle that the work holds: what was asked for, and what is said about it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from cron_observer_sdk.client import Client
from cron_observer_sdk.lines import level_name
from cron_observer_sdk.notice import Notices
from cron_observer_sdk.reporter import Reporter
from cron_observer_sdk.text import moment

Item = TypeVar("Item")


class Execution:
    """One run of a task. Every method returns at once, and none raises except `raise_if_cancelled`.

    What the server has not told (yet) is empty or None: work is done also when it cannot be reached.
    """

    def __init__(self, task: str, reporter: Reporter) -> None:
        self._task = task
        self._reporter = reporter

    @classmethod
    def nowhere(cls) -> Execution:
        """Make one that reports nothing."""
        reporter = Reporter(Client("", ""), Notices(), lease_seconds=30, strict=False)
        reporter.mute()
        return cls("", reporter)

    def __repr__(self) -> str:
        """Show task, id and attempt."""
        return f"<Execution {self.task or '?'} {self.id or 'unreported'} attempt {self.attempt}>"

    @property
    def observed(self) -> bool:
        """Say whether the server knows of this run."""
        return self._reporter.attached

    @property
    def facts(self) -> dict[str, Any]:
        """Return the execution as the server sent it when it was claimed or created."""
        return dict(self._reporter.facts)

    @property
    def id(self) -> str:
        """Return the id; empty while the server does not know of this run."""
        return str(self._reporter.facts.get("id", ""))

    @property
    def task(self) -> str:
        """Return ``project/name``."""
        known = self._reporter.facts.get("task")
        return f"{known['project']}/{known['name']}" if known else self._task

    @property
    def attempt(self) -> int:
        """Return which try this is; 0 while it is not known."""
        return int(self._reporter.facts.get("attempt") or 0)

    @property
    def fence(self) -> int:
        """Return the number that rises with each claim; pass it to what must reject an older run."""
        return int(self._reporter.facts.get("fence") or 0)

    @property
    def payload(self) -> Any:
        """Return what the task hands to whoever runs it."""
        return self._reporter.facts.get("payload")

    @property
    def trigger(self) -> str | None:
        """Return why it runs: ``schedule``, ``catchup``, ``manual``, ``api``, ``backfill`` or ``checkin``."""
        value = self._reporter.facts.get("trigger")
        return None if value is None else str(value)

    @property
    def queue(self) -> str | None:
        """Return the queue it was claimed from."""
        value = self._reporter.facts.get("queue")
        return None if value is None else str(value)

    @property
    def scheduled_for(self) -> datetime | None:
        """Return the nominal instant in UTC: which day's export this is, however late it runs."""
        return moment(self._reporter.facts.get("scheduled_for"))

    @property
    def fire_at(self) -> datetime | None:
        """Return the instant in UTC at which it was due, after daylight-saving rule, shift and jitter."""
        return moment(self._reporter.facts.get("fire_at"))

    @property
    def run_deadline(self) -> datetime | None:
        """Return when the server gives the run up as timed out."""
        return moment(self._reporter.facts.get("run_deadline"))

    @property
    def nominal_local(self) -> str | None:
        """Return the nominal instant as the local clock of the schedule shows it."""
        value = self._reporter.facts.get("nominal_local")
        return None if value is None else str(value)

    @property
    def timezone(self) -> str | None:
        """Return the time zone of the schedule."""
        value = self._reporter.facts.get("timezone")
        return None if value is None else str(value)

    @property
    def last_checkpoint(self) -> Any:
        """Return what an earlier attempt saved with `checkpoint`; None if it saved nothing."""
        return self._reporter.facts.get("checkpoint")

    @property
    def result(self) -> Any:
        """Return the result that will be stored; a function's return value sets it."""
        return self._reporter.result

    @result.setter
    def result(self, value: Any) -> None:
        """Set the result: JSON values, 64 KiB at most; another one is left out and said so in the log."""
        self._reporter.result = value

    def log(self, message: object, level: str | int = "INFO", **fields: Any) -> None:
        """Write a line to the execution's log, with structured fields."""
        self._reporter.log(level_name(level), _said(message), fields or None)

    def log_record(self, at: float, level: str, message: str, fields: dict[str, Any]) -> None:
        """Write a line with a time of its own (Unix seconds) and any names of fields."""
        self._reporter.log(level_name(level), message, fields, at)

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Say how far the work is, from 0 to 1; it travels with the next heartbeat."""
        self._reporter.progress(fraction, message)

    def checkpoint(self, value: Any) -> None:
        """Save a JSON value that the next attempt finds in `last_checkpoint`; it is sent within a second."""
        self._reporter.checkpoint(value)

    def track(self, items: Iterable[Item], total: int | None = None) -> Iterator[Item]:
        """Yield the items, say after each how far the work is, and raise before the next if it should end.

        `total` is their number, where `len` does not tell it; without it there is no progress.
        """
        if total is None:
            try:
                total = len(items)  # type: ignore[arg-type]
            except TypeError:
                total = 0
        for number, item in enumerate(items, 1):
            self.raise_if_cancelled()
            yield item
            if total > 0:
                self.progress(number / total)

    def metric(self, name: str, value: float, **fields: Any) -> None:
        """Note a number: a line ``name=value`` of the log, with the fields `metric` and `value`."""
        self.log_record(time.time(), "INFO", f"{name}={value}", {**fields, "metric": name, "value": value})

    def link(self, label: str, url: str) -> None:
        """Note where something is: a line ``label: url`` of the log, with the fields `link` and `url`."""
        self.log_record(time.time(), "INFO", f"{label}: {url}", {"link": label, "url": url})

    def output(self, path: str | Path, *, level: str | int = "INFO", from_start: bool = False) -> None:
        """Read what is written to a file from now on into the log, until the run ends, with the field `file`.

        `from_start`: also what is there already. The file may come later, be emptied or be replaced meanwhile.
        """
        if self._reporter.ours:
            from cron_observer_sdk.tail import FileTail

            tail = FileTail(Path(path), self._reporter, level_name(level), from_start=from_start)
            self._reporter.at_end(tail.close)

    @property
    def repeated(self) -> bool:
        """Say whether the idempotency key of `execution` has a run already; this one is not reported then."""
        return self._reporter.repeated

    @property
    def cancelled(self) -> bool:
        """Say whether the work should end: cancellation was asked for, or the lease is lost."""
        return self._reporter.stop_asked.is_set()

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled`, or `LeaseLost`, if the work should end."""
        if self.cancelled:
            raise self._reporter.stop_cause or RuntimeError("asked to stop without a cause")

    def wait_cancelled(self, seconds: float) -> bool:
        """Sleep, but wake when the work should end; say whether it should."""
        return self._reporter.stop_asked.wait(seconds)


def _said(message: object) -> str:
    """Return a log message as text."""
    try:
        return message if isinstance(message, str) else str(message)
    except Exception:  # noqa: BLE001  somebody else's __str__ must not end the work
        return f"<{type(message).__name__}>"
