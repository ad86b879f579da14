"""Executions, their events and logs, and days."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cron_observer.lifecycle import GRACE_DEFAULT
from cron_observer_api.wire.base import (
    GivenInstant,
    Id,
    In,
    Instant,
    Level,
    Limit,
    Out,
    Prose,
    Seconds,
    Sequence,
    Status,
    TaskReference,
    Trigger,
    Words,
    Zone,
)


class TaskName(Out):
    """Which task."""

    uid: Id
    project: str
    name: str


class Definition(Out):
    """Which line of which commit defined it."""

    source: str | None
    commit: str | None
    path: str | None
    line: int | None
    generation: int


class ItemError(Out):
    """What went wrong, without the traceback."""

    type: str | None = None
    message: str | None = None


class FullError(ItemError):
    """What went wrong."""

    traceback: str | None = None


class ExecutionItem(Out):
    """An execution in a list."""

    id: Id
    task: TaskName
    status: Status
    reason: str | None
    late: bool
    trigger: Trigger
    scheduled_for: Instant | None
    nominal_local: str | None
    nominal_fold: int | None
    timezone: str | None
    fire_at: Instant
    available_at: Instant
    queue: str
    priority: int
    attempt: int
    worker: str | None
    lease_until: Instant | None
    started_at: Instant | None
    finished_at: Instant | None
    duration_seconds: Seconds | None
    run_deadline: Instant | None
    heartbeat_every_seconds: Seconds | None
    cancel_requested: bool
    progress: float | None
    exit_code: int | None
    error: ItemError | None
    run_token: str | None
    repeats: Id | None
    backfill_id: Id | None
    definition: Definition


class Execution(ExecutionItem):
    """An execution with everything that is known of it."""

    error: FullError | None
    fence: int
    checkpoint: Any
    payload: Any
    result: Any


class Executions(Out):
    """A page of executions."""

    items: list[ExecutionItem]
    next_cursor: str | None


class ExecutionQuery(In):
    """Filters of the list of executions. Comma lists mean any of."""

    project: Words | None = None
    task: TaskReference | None = None
    status: Words | None = None
    reason: Words | None = None
    trigger: Words | None = None
    from_: GivenInstant | None = msgspec.field(default=None, name="from")
    to: GivenInstant | None = None
    date: date | None = None
    timezone: Zone = "UTC"
    worker: Words | None = None
    upcoming: bool = False
    limit: Limit = 50
    cursor: str | None = None


class CancelBody(In):
    """Why, and how long the worker may take to stop."""

    reason: Prose = ""
    grace_seconds: Annotated[float, Meta(ge=0, le=86_400)] = GRACE_DEFAULT.total_seconds()


class Event(Out):
    """One event of an execution."""

    seq: int
    at: Instant
    type: str
    attempt: int
    status: Status
    reason: str | None
    actor: str | None
    data: Any


class Events(Out):
    """A page of events, oldest first."""

    items: list[Event]
    next_cursor: str | None


class LogEntry(Out):
    """One line of a log."""

    seq: int
    attempt: int
    ts: Instant | None
    received_at: Instant
    level: Level
    message: str
    fields: Any
    flags: list[Literal["replaced", "continued", "cut"]]


class LogCut(Out):
    """Lines that are not kept: the middle of a log beyond its cap. Their numbers stay theirs."""

    from_seq: int
    lines: int
    bytes: int


class LogEntries(Out):
    """Lines of a log, oldest first. `next_seq` is where to go on, null at the end of what is stored."""

    items: list[LogEntry]
    next_seq: int | None
    cuts: list[LogCut]


class LogMatches(Out):
    """Numbers of the lines that match, oldest first; of the `lines` that there are, those before `next_seq` have
    been looked at, or all."""

    items: list[int]
    next_seq: int | None
    lines: int


class LogQuery(In):
    """Which lines. `level` means at least; `q` is searched for in the message."""

    attempt: Sequence | None = None
    from_seq: Sequence = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    level: Level | None = None
    q: Words | None = None


class LogMatchQuery(In):
    """What is searched for."""

    q: Words
    attempt: Sequence | None = None
    from_seq: Sequence = 0
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    level: Level | None = None


class LogTextQuery(In):
    """Which lines of the whole log; `all_attempts` puts one attempt behind the other."""

    attempt: Sequence | None = None
    all_attempts: bool = False
    from_seq: Sequence = 0
    level: Level | None = None
    q: Words | None = None


class DaysQuery(In):
    """Which local dates, both included; the last 31 by default, 400 at most."""

    from_: date | None = msgspec.field(default=None, name="from")
    to: date | None = None
    timezone: Zone = "UTC"
    project: Words | None = None
    task: TaskReference | None = None


class Day(Out):
    """What became of the slots of one local date."""

    date: Annotated[str, Meta(extra_json_schema={"format": "date"})]
    total: int
    finished: int
    failed: int
    missed: int
    skipped: int
    cancelled: int
    running: int
    pending: int


class Days(Out):
    """Days, oldest first; empty ones are left out."""

    items: list[Day]
