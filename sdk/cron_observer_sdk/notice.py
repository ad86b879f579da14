"""Where the SDK says what went wrong with itself: once, and never by an exception."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Callable

LOGGER = "cron_observer_sdk"  #: the logger of everything the SDK has to say

Sink = Callable[[str], None]


def to_logger(message: str) -> None:
    """Write a warning to the SDK's logger."""
    import logging

    logging.getLogger(LOGGER).warning("%s", message)


def to_logger_calmly(message: str) -> None:
    """Write what is no trouble to the SDK's logger."""
    import logging

    logging.getLogger(LOGGER).info("%s", message)


class Notices:
    """Says each kind of trouble once, and by `tell` what became of it."""

    def __init__(self, sink: Sink = to_logger, told: Sink = to_logger_calmly) -> None:
        self._sink = sink
        self._told = told
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def say(self, kind: str, message: str) -> None:
        """Say the message unless one of this kind was said before."""
        self._once(kind, message, self._sink)

    def tell(self, kind: str, message: str) -> None:
        """Say what is no trouble, unless something of this kind was said before."""
        self._once(kind, message, self._told)

    def _once(self, kind: str, message: str, sink: Sink) -> None:
        """Say the first message of a kind."""
        with self._lock:
            if kind in self._said:
                return
            self._said.add(kind)
        with suppress(Exception):  # a broken log handler of the host must not end the work
            sink(message)


def strict() -> bool:
    """Say whether what is set wrongly should be an error: CRON_OBSERVER_STRICT is 1, as on a developer's machine."""
    return os.environ.get("CRON_OBSERVER_STRICT", "") not in {"", "0"}


#: For what is wrong with the whole process, such as a missing token.
PROCESS = Notices()
