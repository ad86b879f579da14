"""Executions: handing out (`claims`), reports on them (`reports`), and those that are no slots (`create`).

`candidates` finds what could be handed out, `settling` says which of it may run, `places` how many at once.
`deadlines` is what time does to them, `messages` what can be said of them, `simple` the form for scripts. `rows`
reads and locks them, `bounds` says where, `apply` writes what `lifecycle` has decided, `showing` tells it.
"""

from cron_observer.store.executions.candidates import Seat, next_due
from cron_observer.store.executions.claims import claim_round
from cron_observer.store.executions.create import adopt, create_manual, create_running, resolve, usable
from cron_observer.store.executions.deadlines import expire, settle_waiting
from cron_observer.store.executions.messages import (
    Accept,
    Answer,
    AppendLogs,
    AppendText,
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
from cron_observer.store.executions.showing import show

__all__ = [
    "Accept",
    "Answer",
    "AppendLogs",
    "AppendText",
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
    "show",
    "usable",
]
