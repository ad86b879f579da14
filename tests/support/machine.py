"""How long a busy machine kept a test waiting, so that bounds on time are the product's, whoever else is at work."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_THREADS, _THREAD = Path("/proc/self/task"), Path("/proc/thread-self")


def waited(*, alone: bool = False, also: Iterable[int] = ()) -> float:
    """Return the seconds that this process's living threads, or this one `alone`, were ready and had no processor.

    `also` are processes of one thread, such as servers of a database, that work for this one.
    """
    total = 0
    for thread in [*([_THREAD] if alone else _THREADS.iterdir()), *(Path(f"/proc/{process}") for process in also)]:
        with suppress(OSError):  # it has ended meanwhile
            total += int((thread / "schedstat").read_text().split()[1])
    return total / 1e9


class Stopwatch:
    """The time since it was made, without what `waited` counts of it."""

    def __init__(self, *, alone: bool = False) -> None:
        """`alone` counts for the thread that makes it and asks it."""
        self._alone = alone
        self._begun, self._waited = time.monotonic(), waited(alone=alone)

    @property
    def kept_waiting(self) -> float:
        """The seconds that `waited` counts since then."""
        return max(0.0, waited(alone=self._alone) - self._waited)

    @property
    def seconds(self) -> float:
        """The time so far without these; real waits, and what other processes do, are in it."""
        return max(0.0, time.monotonic() - self._begun - self.kept_waiting)
