"""Worker SDK of Cron Observer: no dependencies, Python 3.9 and up.

    import cron_observer_sdk as co

    @co.task("billing/invoice-export")
    def export():
        co.current().log("starting", rows=1200)

Names are imported when they are first used, so that `cron-observer run` starts in tens of milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cron_observer_sdk import testing
    from cron_observer_sdk.asynchronous import AsyncClient
    from cron_observer_sdk.client import Client
    from cron_observer_sdk.context import current
    from cron_observer_sdk.errors import (
        AlreadyClaimed,
        AlreadyFinal,
        ApiError,
        BadRequest,
        Cancelled,
        Conflict,
        CronObserverError,
        Fail,
        Forbidden,
        LeaseLost,
        LogGap,
        NotConfigured,
        NotFound,
        NotRunning,
        RateLimited,
        Skip,
        TooLarge,
        Unauthenticated,
        Unavailable,
    )
    from cron_observer_sdk.handle import Execution
    from cron_observer_sdk.handler import LogHandler
    from cron_observer_sdk.ids import uuid7
    from cron_observer_sdk.observe import execution, task
    from cron_observer_sdk.structured import structlog_processor
    from cron_observer_sdk.worker import Worker

__all__ = [
    "AlreadyClaimed",
    "AlreadyFinal",
    "ApiError",
    "AsyncClient",
    "BadRequest",
    "Cancelled",
    "Client",
    "Conflict",
    "CronObserverError",
    "Execution",
    "Fail",
    "Forbidden",
    "LeaseLost",
    "LogGap",
    "LogHandler",
    "NotConfigured",
    "NotFound",
    "NotRunning",
    "RateLimited",
    "Skip",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Worker",
    "current",
    "execution",
    "structlog_processor",
    "task",
    "testing",
    "uuid7",
]

#: Where each public name lives; what is not listed here is an error class.
_HOMES = {
    "AsyncClient": "asynchronous",
    "Client": "client",
    "Execution": "handle",
    "LogHandler": "handler",
    "Worker": "worker",
    "current": "context",
    "execution": "observe",
    "structlog_processor": "structured",
    "task": "observe",
    "uuid7": "ids",
}

if not TYPE_CHECKING:  # a type checker would take this for "every name exists"

    def __getattr__(name):
        """Import a public name on first use."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        if name == "testing":
            return import_module(f"{__name__}.testing")
        value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value

    def __dir__():
        """List the public names, imported or not."""
        return sorted({*globals(), *__all__})
