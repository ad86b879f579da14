"""The life of an execution: statuses, reasons, legal moves, and every decision about them. Pure.

`moves` is the table, `run` the execution as a value, `decide` and `completion` answer each thing that can happen to
one execution, `settle` says which of a task's due slots run.
"""

from cron_observer.lifecycle.completion import complete
from cron_observer.lifecycle.decide import (
    GRACE_DEFAULT,
    LEASE_LOSSES_MAX,
    OFFERED_FOR,
    claim,
    end_unclaimed,
    expire,
    give_up,
    heartbeat,
    lapse,
    release,
    request_cancel,
    retry_wait,
    start,
)
from cron_observer.lifecycle.moves import FINAL, MOVES, OPEN, Event, Move, Reason, Status, Trigger
from cron_observer.lifecycle.run import Completion, Ending, Run, Verdict, begun, written_at
from cron_observer.lifecycle.settle import ON_TIME, SLOTS, Settlement, Waiting, settle, unfit

__all__ = [
    "FINAL",
    "GRACE_DEFAULT",
    "LEASE_LOSSES_MAX",
    "MOVES",
    "OFFERED_FOR",
    "ON_TIME",
    "OPEN",
    "SLOTS",
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
    "begun",
    "claim",
    "complete",
    "end_unclaimed",
    "expire",
    "give_up",
    "heartbeat",
    "lapse",
    "release",
    "request_cancel",
    "retry_wait",
    "settle",
    "start",
    "unfit",
    "written_at",
]
