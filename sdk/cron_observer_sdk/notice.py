"""Where the SDK says what went wrong with itself: once, and never by an exception."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Callable

LOGGER = "cron_observer_sdk"  #: the logger of everything the SDK has to say

Sink = Callable[[str], None]


def to_logger(message: str) -> None:
    """Write a warning to the SDK's logger."""
    import logging

    logging.getLogger(LOGGER).warning("%s", message)


class Notices:
    """Says each kind of trouble once."""

    def __init__(self, sink: Sink = to_logger) -> None:
        self._sink = sink
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def say(self, kind: str, message: str) -> None:
        """Say the message unless one of this kind was said before."""
        with self._lock:
            if kind in self._said:
                return
            self._said.add(kind)
        with suppress(Exception):  # a broken log handler of the host must not end the work
            self._sink(message)


#: For what is wrong with the whole process, such as a missing token.
PROCESS = Notices()
