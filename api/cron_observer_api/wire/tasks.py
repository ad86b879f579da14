"""Projects, tasks and keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from cron_observer_api.wire.base import Id, In, Instant, Limit, Line, Out, Scope, Words
from cron_observer_api.wire.executions import ExecutionItem
from cron_observer_api.wire.sources import Condition
from cron_observer_api.wire.times import Pause


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


TaskStatus = Literal["ACTIVE", "PAUSED", "DISABLED", "QUARANTINED", "DELETING", "REMOVED"]


class Task(Out):
    """A task. `spec` has every default filled in."""

    uid: Id
    name: str
    project: str
    status: TaskStatus
    owner: Owner
    sync: Literal["SYNCED", "KEPT_LAST_GOOD", "HELD"] | None
    conditions: dict[str, Condition]
    spec: dict[str, Any]
    generation: int
    labels: dict[str, str]
    schedule_text: str
    next_fire_at: Instant | None
    pause: Pause | None
    last_execution: ExecutionItem | None
    ping_url: str | None
    sentry_dsn: str | None


class NoBody(In):
    """Nothing to say."""


class PingKey(Out):
    """The ping key of a project."""

    project: str
    key: str


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


class DetachBody(In):
    """Why a task is taken out of its manifest's hands."""

    reason: Line


class TriggerBody(In):
    """What the run is given instead of the task's payload, and whether it runs beside an active one."""

    payload: Any = None
    force: bool = False


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
