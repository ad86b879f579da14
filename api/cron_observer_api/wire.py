"""The shapes of the wire: what calls take, and what they answer (the description is made from these).

Requests are read into these Structs; answers are made by the store as plain dicts of the same members, and the
contract tests compare the two.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from cron_observer.lifecycle import GRACE_DEFAULT

#: RFC 3339, UTC, milliseconds, ``Z``.
Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Id = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Seconds = float

#: A time that a client gives: RFC 3339 with its offset.
GivenInstant = Annotated[datetime, Meta(tz=True)]

Line = Annotated[str, Meta(min_length=1, max_length=200)]
Prose = Annotated[str, Meta(max_length=2000)]
Words = Annotated[str, Meta(max_length=400)]
TaskReference = Annotated[str, Meta(max_length=300, description="A uid, project/name, or a name.")]
Zone = Annotated[str, Meta(max_length=64, description="An IANA time zone.")]
Limit = Annotated[int, Meta(ge=1, le=200)]

Status = Literal["PENDING", "RUNNING", "FINISHED", "FAILED", "CANCELLED", "SKIPPED", "MISSED"]
Trigger = Literal["schedule", "catchup", "manual", "api", "backfill", "checkin"]
Level = Literal["DEBUG", "INFO", "WARN", "ERROR"]
Scope = Literal["read", "report", "trigger", "tasks:write", "admin"]


class In(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What comes in: an unknown field is refused."""


class Out(msgspec.Struct, kw_only=True):
    """What goes out."""


# -- executions -------------------------------------------------------------------------------------------


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


class LogEntries(Out):
    """Lines of a log, oldest first. `next_seq` is where to go on, null at the end of what is stored."""

    items: list[LogEntry]
    next_seq: int | None


Sequence = Annotated[int, Meta(ge=0, le=2_147_483_647)]


class LogQuery(In):
    """Which lines. `level` means at least; `q` is searched for in the message."""

    attempt: Sequence | None = None
    from_seq: Sequence = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    level: Level | None = None
    q: Words | None = None


class LogTextQuery(In):
    """Which lines of the plain text."""

    attempt: Sequence | None = None
    from_seq: Sequence = 0
    level: Level | None = None
    q: Words | None = None


class PageQuery(In):
    """Which page of a list."""

    limit: Limit = 50
    cursor: str | None = None


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


# -- projects and tasks -----------------------------------------------------------------------------------


class Project(Out):
    """A project and how many tasks it has."""

    name: str
    tasks: int
    created_at: Instant


class Projects(Out):
    """A page of projects."""

    items: list[Project]
    next_cursor: str | None


class Owner(Out):
    """Who may change a task, and where."""

    kind: Literal["manifest", "api"]
    source: str | None
    path: str | None
    line: int | None
    commit: str | None
    author: str | None
    url: str | None


TaskStatus = Literal["ACTIVE", "DISABLED", "QUARANTINED", "DELETING", "REMOVED"]


class Task(Out):
    """A task. `spec` has every default filled in."""

    uid: Id
    name: str
    project: str
    status: TaskStatus
    owner: Owner
    sync: Literal["SYNCED", "KEPT_LAST_GOOD", "HELD"] | None
    spec: dict[str, Any]
    generation: int
    labels: dict[str, str]
    schedule_text: str
    next_fire_at: Instant | None
    last_execution: ExecutionItem | None
    ping_url: str | None
    sentry_dsn: str | None


class Tasks(Out):
    """A page of tasks."""

    items: list[Task]
    next_cursor: str | None


class TaskQuery(In):
    """Filters of the list of tasks. REMOVED ones are listed only when `status` names them."""

    q: Words | None = None
    status: Words | None = None
    owner: Literal["manifest", "api"] | None = None
    label: Annotated[str, Meta(max_length=600, description="key or key=value")] | None = None
    source: Words | None = None
    limit: Limit = 50
    cursor: str | None = None


class TaskBody:
    """The manifest's `spec` with `name` and `labels` beside its fields; described by the schema of manifests."""


class TaskPatch:
    """A JSON merge patch (RFC 7396) of such a body."""


class TriggerBody(In):
    """What the run is given instead of the task's payload, and whether it runs beside an active one."""

    payload: Any = None
    force: bool = False


# -- keys -------------------------------------------------------------------------------------------------


class Key(Out):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: Instant
    created_by: str | None
    last_used_at: Instant | None
    revoked_at: Instant | None


class Keys(Out):
    """A page of keys."""

    items: list[Key]
    next_cursor: str | None


class NewKey(Key):
    """A key that has just been made. `key` is shown this once."""

    key: str


class KeyBody(In):
    """What the key is called and may do."""

    name: Line
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=5)]


# -- sources ----------------------------------------------------------------------------------------------


class Finding(Out):
    """What is wrong in a manifest, and where."""

    severity: Literal["error", "warning"]
    code: str
    path: str
    line: int | None
    column: int | None
    end_line: int | None
    end_column: int | None
    pointer: str | None
    kind: str | None
    name: str | None
    message: str
    hint: str | None
    url: str | None


class Source(Out):
    """Where manifests come from, and how far they have been applied."""

    name: str
    project: str
    url: str
    ref: str | None
    environment: str | None
    mode: str
    observed_commit: str | None
    applied_commit: str | None
    applied_at: Instant | None
    stale_seconds: Seconds | None
    conditions: Any
    counts: dict[str, Any]
    requested_seq: int
    handled_seq: int


class SourceWithFindings(Source):
    """A source, and what is wrong in its files now (at most 1,000; `counts` has the true number)."""

    findings: list[Finding]


class Sources(Out):
    """A page of sources."""

    items: list[Source]
    next_cursor: str | None


class RunCommit(Out):
    """The commit that a run looked at."""

    author: str | None
    subject: str | None
    at: Instant | None


class Run(Out):
    """One pass over a source."""

    id: Id
    source: str
    trigger: str
    from_commit: str | None
    to_commit: str | None
    commit: RunCommit
    outcome: Literal["running", "applied", "unchanged", "failed", "abandoned"]
    error: str | None
    counts: dict[str, Any]
    findings: list[Finding]
    plan_hash: str | None
    started_at: Instant
    finished_at: Instant | None


class Runs(Out):
    """A page of runs, newest first."""

    items: list[Run]
    next_cursor: str | None


class SyncRequested(Out):
    """Done when the source's `handled_seq` has reached this."""

    requested_seq: int


# -- the stream and health --------------------------------------------------------------------------------


class StreamQuery(In):
    """Which topics; `last_event_id` stands in for the header of that name where it cannot be set."""

    topics: Annotated[str, Meta(min_length=1, max_length=2000)]
    last_event_id: Annotated[str, Meta(max_length=100)] | None = None


class Alive(Out):
    """The process answers."""

    status: Literal["ok"]


class Ready(Out):
    """Everything that this process needs is there."""

    status: Literal["ready"]


class NotReady(Out):
    """What is missing."""

    failing: list[str]


class Problem(Out):
    """An error (RFC 9457). `code` is stable; some codes have further members."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None


class UnknownFieldProblem(Problem):
    """A field that is not known; `pointer` is its JSON pointer."""

    pointer: str


class Repository(Out):
    """Where a manifest stands."""

    kind: Literal["manifest"]
    source: str
    repository: str
    ref: str | None
    path: str
    line: int | None
    commit: str | None
    url: str | None


class Conflict(Out):
    """A field that the request would change. A side that does not have it leaves it out."""

    pointer: str
    current: Any | UnsetType = UNSET
    requested: Any | UnsetType = UNSET


class ManifestOwnedProblem(Problem):
    """The task is changed in Git: where, which fields, and the unified diff that does it."""

    owner: Repository
    conflicts: list[Conflict]
    patch: str


class InvalidSpecProblem(Problem):
    """The spec is wrong: each finding names the pointer of its field."""

    findings: list[Finding]


class AlreadyFinalProblem(Problem):
    """The execution has ended, and so."""

    execution: Execution


class LogGapProblem(Problem):
    """Lines are missing: begin with this one."""

    expected_seq: int


#: What further members the problems of a code have.
PROBLEMS: Final = {
    "unknown_field": UnknownFieldProblem,
    "manifest_owned": ManifestOwnedProblem,
    "invalid_spec": InvalidSpecProblem,
    "already_final": AlreadyFinalProblem,
    "log_gap": LogGapProblem,
}

#: What `PATCH` takes: a merge patch, also under its own name.
PATCH_TYPES: Final = ("application/json", "application/merge-patch+json")
