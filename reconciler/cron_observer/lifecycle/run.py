"""One execution as a value, and what a decision about it is made of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from cron_observer.errors import CronObserverError
from cron_observer.lifecycle.moves import MOVES, Event, Reason, Status, Trigger


class Run(Struct, frozen=True, kw_only=True):
    """One execution as it stands, without its bulky parts. Instants are aware UTC on the database's clock."""

    tenant_id: UUID
    id: UUID
    project_id: UUID
    task_uid: UUID
    status: Status
    reason: Reason | None = None
    trigger: Trigger = Trigger.SCHEDULE
    fire_at: datetime
    available_at: datetime
    start_deadline: datetime | None = None
    #: When the window of its task group ends: it starts no later, and is stopped then if that is the group's rule.
    closes_at: datetime | None = None
    held_at: datetime | None = None  #: since when it has waited for a place that was taken
    queue: str = "default"
    priority: int = 0
    generation: int | None = None  #: of the task's definition; pinned by the first claim
    forced: bool = False
    backfill_id: UUID | None = None
    attempt: int = 0  #: the current try, from 1; 0 before the first claim
    fence: int = 0  #: rises at every claim and never falls
    lease_losses: int = 0
    event_seq: int = 0
    worker: str | None = None
    protocol: str | None = None  #: ``lease`` or ``patch``: how the current attempt was begun
    claimed_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    lease_until: datetime | None = None
    lease_seconds: float | None = None
    run_deadline: datetime | None = None
    check_at: datetime | None = None  #: not later than the next deadline; the only one of them with an index
    late: bool = False
    cancel_requested_at: datetime | None = None
    cancel_by: str | None = None
    cancel_reason: str | None = None
    cancel_deadline: datetime | None = None
    progress: float | None = None
    message: str | None = None
    exit_code: int | None = None


class Ending(Struct, frozen=True, kw_only=True):
    """How one attempt ends: what its row in `attempts` keeps."""

    outcome: str
    reason: Reason | None = None
    exit_code: int | None = None
    error: Mapping[str, Any] | None = None
    digest: bytes | None = None


class Completion(Struct, frozen=True, kw_only=True):
    """What a worker says at the end. `digest` identifies the request, so that a repeat is recognised."""

    outcome: str  #: finished, failed, cancelled or skipped
    fence: int
    digest: bytes
    exit_code: int | None = None
    error: Mapping[str, Any] | None = None
    result: Any = None
    retryable: bool = True
    not_before: timedelta | None = None  #: how long the next attempt has to wait at least
    told: Mapping[str, Any] | None = None  #: what the event says of how it was run


class Verdict(Struct, frozen=True, kw_only=True):
    """What shall be done. `run` is the execution as it shall stand; unchanged when there is a refusal."""

    run: Run
    event: Event | None = None
    actor: str | None = None
    data: Mapping[str, Any] | None = None
    ending: Ending | None = None
    result: Any = None
    error: Mapping[str, Any] | None = None
    refusal: CronObserverError | None = None
    late_outcome: Mapping[str, Any] | None = None  #: kept on the row of its attempt as evidence
    again: bool = False  #: carry this out, then ask again: a deadline was noticed only now


def moved(run: Run, event: Event, **values: Any) -> Run:
    """Make the legal move of `event`, with what every move brings along."""
    move = MOVES[event]
    if run.status not in move.sources:
        raise AssertionError(f"{event} is not legal from {run.status}")
    ended = move.target is not Status.RUNNING
    if ended:
        values = {"lease_until": None, "check_at": None, "run_deadline": None, **values}
    return replace(run, status=move.target, event_seq=run.event_seq + 1, **values)


def noted(run: Run, **values: Any) -> Run:
    """Change the execution without a move, for an event of its own."""
    return replace(run, event_seq=run.event_seq + 1, **values)


def written_at(run: Run, now: datetime) -> datetime:
    """Return `now`, but not before what the row says has happened: its times never go backwards."""
    known = (run.claimed_at, run.started_at, run.cancel_requested_at, run.finished_at)
    return max([now, *(moment for moment in known if moment is not None)])


def begun(run: Run, now: datetime) -> Run:
    """Set `started_at` at the first sign of life after the claim."""
    return run if run.started_at is not None else replace(run, started_at=written_at(run, now))
