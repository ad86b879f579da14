"""The life of an execution: statuses, reasons, legal moves, and every decision about them. Pure.

`moves` is the table, `decide` answers each thing that can happen to one execution, `settle` says which of a task's
due slots run.
"""

from cron_observer.lifecycle.decide import (
    GRACE_DEFAULT,
    LEASE_LOSSES_MAX,
    OFFERED_FOR,
    Completion,
    Ending,
    Run,
    Verdict,
    claim,
    complete,
    end_unclaimed,
    expire,
    heartbeat,
    lapse,
    release,
    request_cancel,
    retry_wait,
    start,
)
from cron_observer.lifecycle.moves import FINAL, MOVES, OPEN, Event, Move, Reason, Status, Trigger
from cron_observer.lifecycle.settle import ON_TIME, Settlement, Waiting, settle

__all__ = [
    "FINAL",
    "GRACE_DEFAULT",
    "LEASE_LOSSES_MAX",
    "MOVES",
    "OFFERED_FOR",
    "ON_TIME",
    "OPEN",
    "Completion",
    "Ending",
    "Event",
    "Move",
    "Reason",
    "Run",
    "Settlement",
    "Status",
    "Trigger",
    "Verdict",
    "Waiting",
    "claim",
    "complete",
    "end_unclaimed",
    "expire",
    "heartbeat",
    "lapse",
    "release",
    "request_cancel",
    "retry_wait",
    "settle",
    "start",
]
