"""What can be said of an execution, as values, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from cron_observer.errors import CronObserverError
from cron_observer.lifecycle import GRACE_DEFAULT, Completion, Run
from cron_observer.store.logs import Lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Something said of one execution by one tenant. The subclasses say what."""

    tenant_id: UUID
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Report):
    """The work begins."""

    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Report):
    """The worker lives; the lease counts from now on."""

    fence: int
    lease: timedelta | None = None
    progress: float | None = None
    message: str | None = None
    checkpoint: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendLogs(Report):
    """Log lines from number `first_seq` on, as `store.logs.encode` makes them."""

    fence: int
    first_seq: int
    lines: Lines


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendText(Report):
    """Plain text that became lines: the next `size` bytes of it, from `offset` on if that is to be made sure.

    Without a fence it is for what the simple form runs.
    """

    fence: int | None
    offset: int | None
    size: int
    lines: Lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete(Report):
    """The worker's last word. Who says many at once is told `brief`ly."""

    done: Completion
    brief: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept(Report):
    """Somebody else has taken the work over, and reports from now on; `told` goes into the event."""

    fence: int
    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Report):
    """The worker gives the execution back without having done it."""

    fence: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Report):
    """A person wants it to stop."""

    reason: str
    actor: str
    grace: timedelta = GRACE_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRunning(Report):
    """The simple form: a script takes this execution, leased until its run deadline."""

    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchEnd(Report):
    """The simple form: the script that took it says how it ended."""

    done: Completion


@dataclass(slots=True)
class Answer:
    """What became of a report: the execution as it stands now, or why not.

    `again` asks for another round, since only now a deadline was noticed; `busy` as well, since somebody else holds
    the execution. `stop` says that its worker is to stop, though the row does not say so yet; `wakes` that something
    else may begin now. `shown` is a moved execution in its wire shape, as it was written.
    """

    run: Run | None = None
    refusal: CronObserverError | None = None
    next_seq: int | None = None
    again: bool = False
    busy: bool = False
    stop: bool = False
    wakes: bool = False
    stream: int | None = None
    loose: int = 0
    shown: dict[str, Any] | None = None
