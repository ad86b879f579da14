"""Executions: handing out (`claims`), reports on them (`reports`), and those that are no slots (`create`).

`deadlines` is what time does to them, `messages` what can be said of them, `simple` the form for scripts. `rows`
reads and locks them, `apply` writes what `lifecycle` has decided.
"""

from cron_observer.store.executions.claims import Seat, claim_round, next_due
from cron_observer.store.executions.create import adopt, create_manual, create_running, resolve, usable
from cron_observer.store.executions.deadlines import expire, settle_waiting
from cron_observer.store.executions.messages import (
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
)
from cron_observer.store.executions.repeats import remember, repeated
from cron_observer.store.executions.reports import process

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
