"""Executions: handing out (`claims`), reports on them (`reports`), and those that are no slots (`create`).

`rows` reads and locks them, `apply` writes what `lifecycle` has decided.
"""

from cron_observer.store.executions.claims import Seat, claim_round, expire, next_due, settle_waiting
from cron_observer.store.executions.create import adopt, create_manual, create_running, resolve, usable
from cron_observer.store.executions.repeats import remember, repeated
from cron_observer.store.executions.reports import (
    Answer,
    AppendLogs,
    Cancel,
    Complete,
    Heartbeat,
    PatchEnd,
    PatchRunning,
    Release,
    Report,
    Start,
    process,
)

__all__ = [
    "Answer",
    "AppendLogs",
    "Cancel",
    "Complete",
    "Heartbeat",
    "PatchEnd",
    "PatchRunning",
    "Release",
    "Report",
    "Seat",
    "Start",
    "adopt",
    "claim_round",
    "create_manual",
    "create_running",
    "expire",
    "next_due",
    "process",
    "remember",
    "repeated",
    "resolve",
    "settle_waiting",
    "usable",
]
