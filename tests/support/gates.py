"""A reconciler that stands still at a step until a test lets it go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from cron_observer.reconcile import Reconciler
from support.repositories import Following


class Gate:
    """Stops a worker thread at a point until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` with the gate before it."""

        def gated(*arguments: Any, **named: Any) -> Any:
            self.reached.set()
            assert self.opened.wait(30)
            return function(*arguments, **named)

        return gated


def gate_at(reconciler: Reconciler, method: str) -> Gate:
    """Put a gate before a method of the reconciler's source."""
    gate = Gate()
    source = reconciler._subjects["main"].source
    setattr(source, method, gate.wrap(getattr(source, method)))
    return gate


def lease_runs_out(it: Following) -> None:
    """Let the lease of the source be over, as if its holder had been away for long."""
    it.database.do("UPDATE sources SET lease_until = now() - interval '1 second', next_poll_at = now()")
