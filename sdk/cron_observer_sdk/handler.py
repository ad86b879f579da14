"""Records of `logging` in the log of the execution that they belong to."""

from __future__ import annotations

import logging
from typing import Any

from cron_observer_sdk.context import running
from cron_observer_sdk.lines import level_name
from cron_observer_sdk.notice import LOGGER

#: Attributes of every record; what else is on a record came by `extra=`.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogHandler(logging.Handler):
    """Streams the records of the current execution; outside of one they are ignored.

        logging.getLogger().addHandler(co.LogHandler(level="INFO"))

    The logger's name and what was given as `extra=` become fields of the line.
    """

    def __init__(self, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one record to the execution."""
        if record.name == LOGGER or record.name.startswith(f"{LOGGER}."):
            return
        execution = running()
        if execution is None:
            return
        try:
            fields: dict[str, Any] = {"logger": record.name}
            fields.update((key, value) for key, value in vars(record).items() if key not in _USUAL)
            message = self.format(record)
        except Exception:  # noqa: BLE001  logging's own rule: never into the caller
            self.handleError(record)
            return
        execution.log_record(record.created, level_name(record.levelno), message, fields)
