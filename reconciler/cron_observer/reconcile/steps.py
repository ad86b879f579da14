"""The steps of a pass: how long each took, and a place after each at which a test can let the process die."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

#: Every step of a pass that applies something, in order. Those from plan to source are one transaction.
STEPS: Final = (
    "lease",
    "resolve",
    "begin",
    "fetch",
    "verify",
    "gather",
    "plan",
    "layers",
    "calendars",
    "groups",
    "tasks",
    "files",
    "findings",
    "run",
    "source",
    "commit",
    "pin",
    "tidy",
)

#: The places at which a process can be made to die.
KILL_POINTS: Final = tuple(f"after_{step}" for step in STEPS)

#: Names one of them, for tests: the process ends itself there as if it had been killed. ``after_gather:STOP`` halts it.
KILL_VARIABLE: Final = "CRON_OBSERVER_TEST_KILL"

#: Steps whose time is written down under their own name; that of the others is the apply's.
_TOLD: Final = frozenset({"resolve", "fetch", "verify", "gather", "plan", "pin", "tidy"})


def reached(point: str) -> None:
    """Die here, if a test has asked for it; once."""
    wanted, _, how = os.environ.get(KILL_VARIABLE, "").partition(":")
    if wanted == point:
        del os.environ[KILL_VARIABLE]
        os.kill(os.getpid(), signal.SIGSTOP if how == "STOP" else signal.SIGKILL)


_sparing: Final = threading.Lock()
_spared: Final[list[bool]] = []  # one for each pass that spares the collector now


@contextmanager
def spared(much: bool) -> Iterator[None]:
    """Let Python look for no circles of garbage while a pass makes much that stays: it would look through that."""
    if not much or not (_spared or gc.isenabled()):
        yield
        return
    with _sparing:
        _spared.append(True)
        gc.disable()
    try:
        yield
    finally:
        with _sparing:
            _spared.pop()
            if not _spared:
                gc.enable()


class Steps:
    """Where one pass is."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._inner = [0.0]  # seconds that steps inside of the one under way took

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take one of `STEPS`. What is taken again is counted together, what is taken inside of it is not counted."""
        began = time.monotonic()
        self._inner.append(0.0)
        try:
            yield
        finally:
            seconds, inner = time.monotonic() - began, self._inner.pop()
            self._inner[-1] += seconds
            told = name if name in _TOLD else "apply"
            self._seconds[told] = self._seconds.get(told, 0.0) + seconds - inner
        reached(f"after_{name}")

    @property
    def timings(self) -> Mapping[str, float]:
        """Return the seconds that the steps so far took, by name."""
        return {name: round(seconds, 6) for name, seconds in self._seconds.items()}
