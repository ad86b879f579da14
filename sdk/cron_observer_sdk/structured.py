"""A processor for structlog; nothing of structlog is imported."""

from __future__ import annotations

import time
import traceback
from collections.abc import MutableMapping
from typing import Any

from cron_observer_sdk.context import running
from cron_observer_sdk.lines import level_name


def structlog_processor(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Stream an event to the current execution's log and return it unchanged.

        structlog.configure(processors=[structlog.processors.add_log_level, co.structlog_processor, …])

    Put it before the one that renders. Outside of an execution it does nothing.
    """
    execution = running()
    if execution is not None:
        fields = dict(event)
        message = str(fields.pop("event", ""))
        level = fields.pop("level", method)
        fields.pop("timestamp", None)
        error = fields.pop("exc_info", None)
        if error:
            message = f"{message}\n{_trace(error)}".strip()
        execution.log_record(time.time(), level_name(level if isinstance(level, int) else str(level)), message, fields)
    return event


def _trace(error: Any) -> str:
    """Return the traceback of what stands under ``exc_info``."""
    if isinstance(error, BaseException):
        return "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    if isinstance(error, tuple) and len(error) == 3:
        return "".join(traceback.format_exception(*error)).rstrip()
    return traceback.format_exc().rstrip()
