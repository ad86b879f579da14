"""Which execution this code belongs to."""

from __future__ import annotations

from contextvars import ContextVar

from cron_observer_sdk.handle import Execution

_CURRENT: ContextVar[Execution | None] = ContextVar("cron_observer_execution", default=None)


def current() -> Execution:
    """Return the execution that this code runs in.

    Outside of one it returns an execution that goes nowhere, so that the same code also runs by itself.
    Threads that it starts see it only if they are given its context (`contextvars.copy_context`).
    """
    return _CURRENT.get() or Execution.nowhere()


def running() -> Execution | None:
    """Return the execution that this code runs in, or None."""
    return _CURRENT.get()


def enter(execution: Execution | None) -> Execution | None:
    """Make this the current execution of the context; return the one before it."""
    before = _CURRENT.get()
    _CURRENT.set(execution)
    return before
