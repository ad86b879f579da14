"""Statuses, reasons, events and the one table of legal moves.

The one table of moves is `MOVES`. The SQL guards are read from it, the CHECK of the schema is compared with it by
a test, and the diagram in ``docs/reference/states.md`` is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Status(StrEnum):
    """Where an execution stands."""

    PENDING = "PENDING"  #: waits for its time, or is due and waits for a worker
    RUNNING = "RUNNING"  #: leased to a worker
    FINISHED = "FINISHED"  #: the worker said so
    FAILED = "FAILED"  #: no attempt is left
    CANCELLED = "CANCELLED"  #: stopped by a person, a newer slot or the end of a window
    SKIPPED = "SKIPPED"  #: a rule says that it shall not run
    MISSED = "MISSED"  #: it should have run, and nobody came


FINAL: Final = frozenset({Status.FINISHED, Status.FAILED, Status.CANCELLED, Status.SKIPPED, Status.MISSED})
OPEN: Final = frozenset(Status) - FINAL


class Reason(StrEnum):
    """Why an execution stands where it stands."""

    EXIT_CODE = "exit_code"  #: a command ended with another code than 0
    ERROR = "error"  #: the worker reported an error
    TIMED_OUT = "timed_out"  #: past its run deadline
    LEASE_LOST = "lease_lost"  #: its worker fell silent
    CANCELLED = "cancelled"  #: a person asked for it
    OVERLAP = "overlap"  #: another run of the task was active, or a newer slot was due
    CALENDAR = "calendar"  #: on a day that the task's calendars do not allow
    WINDOW = "window"  #: the window of its task group was closed, or closed before it could start
    PAUSED = "paused"  #: its task was paused
    TOO_LATE = "too_late"  #: outside what `catchup` still runs
    NO_WORKER = "no_worker"  #: past its start deadline
    COALESCED = "coalesced"  #: fell onto the instant of another slot of the task
    DST_GAP = "dst_gap"
    TASK_DELETED = "task_deleted"  #: its task was removed before anybody claimed it
    OBSERVER_DOWN = "observer_down"  #: what it did is unknown: pings could not be received when one was expected
    WORKER_SKIPPED = "worker_skipped"  #: the worker looked and decided not to run it


class Trigger(StrEnum):
    """What made an execution."""

    SCHEDULE = "schedule"
    CATCHUP = "catchup"
    MANUAL = "manual"
    API = "api"
    BACKFILL = "backfill"
    CHECKIN = "checkin"


class Event(StrEnum):
    """What can happen to an execution; each is a row of `execution_events`."""

    CREATED = "created"
    CLAIMED = "claimed"
    STARTED = "started"
    ACCEPTED = "accepted"
    RETRY_SCHEDULED = "retry_scheduled"
    RELEASED = "released"
    LEASE_EXPIRED = "lease_expired"
    FINISHED = "finished"
    FAILED = "failed"
    WORKER_SKIPPED = "worker_skipped"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    MISSED = "missed"
    GAVE_UP = "gave_up"
    LATE_FINISHED = "late_finished"
    LATE_FAILED = "late_failed"
    LATE_RECORDED = "late_recorded"
    LATE_STARTED = "late_started"
    RESTARTED = "restarted"
    UNKNOWN = "unknown"


class Move(NamedTuple):
    """From which statuses an event is legal, and where it leads."""

    sources: frozenset[Status]
    target: Status


def _from(*sources: Status) -> frozenset[Status]:
    return frozenset(sources)


#: Every change of status there is. An event that is not here (started, cancel_requested, …) changes no status.
MOVES: Final[Mapping[Event, Move]] = {
    Event.CLAIMED: Move(_from(Status.PENDING), Status.RUNNING),
    Event.RETRY_SCHEDULED: Move(_from(Status.RUNNING), Status.PENDING),
    Event.RELEASED: Move(_from(Status.RUNNING), Status.PENDING),
    Event.LEASE_EXPIRED: Move(_from(Status.RUNNING), Status.PENDING),
    Event.FINISHED: Move(_from(Status.RUNNING), Status.FINISHED),
    Event.FAILED: Move(_from(Status.RUNNING), Status.FAILED),
    Event.WORKER_SKIPPED: Move(_from(Status.RUNNING), Status.SKIPPED),
    Event.CANCELLED: Move(_from(Status.PENDING, Status.RUNNING), Status.CANCELLED),
    Event.SKIPPED: Move(_from(Status.PENDING), Status.SKIPPED),
    Event.MISSED: Move(_from(Status.PENDING), Status.MISSED),
    Event.GAVE_UP: Move(_from(Status.PENDING), Status.FAILED),
    # A completion that comes after its deadline, while nobody else has claimed the execution: it takes back the
    # failure, or the retry that waits. Legal only after timed_out or lease_lost; see `decide.complete`. Of a check-in
    # it takes back what was concluded from silence too: MISSED, or SKIPPED(observer_down); see `checkins`.
    Event.LATE_FINISHED: Move(_from(Status.PENDING, Status.FAILED, Status.MISSED, Status.SKIPPED), Status.FINISHED),
    Event.LATE_FAILED: Move(_from(Status.PENDING, Status.FAILED, Status.MISSED, Status.SKIPPED), Status.FAILED),
    # Nobody can tell how a check-in fared, because its pings could not be received.
    Event.UNKNOWN: Move(_from(Status.PENDING, Status.RUNNING), Status.SKIPPED),
}
