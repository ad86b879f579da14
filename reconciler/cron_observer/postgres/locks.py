"""Waiting for other processes that work on the same data directory.

Both locks are `flock`s, so the kernel lets go of them when their holders end, however they end. The server's
lock is inherited by every process of the server: while it is held, one of them lives; once it is ours, none
does.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cron_observer.errors import DatabaseError

#: Gets a sentence for the user now and then while something takes long.
Report = Callable[[str], None]

#: Seconds to wait for another process that initialises, starts or stops a server.
PATIENCE: Final = 600.0

#: Seconds between two reports while waiting.
_REPORT_EVERY: Final = 5.0


class Waiting:
    """A wait for `what`: told about every few seconds, and a `DatabaseError` after `cap` seconds.

    `detail` is asked for what more can be said. The clock is the monotonic one.
    """

    def __init__(self, what: str, cap: float, report: Report, detail: Callable[[], str] = str) -> None:
        self._what = what
        self._cap = cap
        self._report = report
        self._detail = detail
        self._began = time.monotonic()
        self._next_report = _REPORT_EVERY
        self._step = 0.005

    def pause(self) -> None:
        """Sleep a little: 5 ms at first, 50 ms at last."""
        waited = time.monotonic() - self._began
        if waited >= min(self._cap, self._next_report):
            said = " ".join(filter(None, [f"{self._what} ({waited:.0f} s).", self._detail()]))
            if waited >= self._cap:
                raise DatabaseError(said, hint="see postgres.log in that folder, and which process is at it")
            self._report(said)
            self._next_report = waited + _REPORT_EVERY
        time.sleep(self._step)
        self._step = min(self._step * 1.5, 0.05)


@contextmanager
def locked(path: Path, what: str, report: Report) -> Iterator[None]:
    """Hold the lock on `path` for the length of the block; `what` says who else may hold it."""
    descriptor = open_lock(path)
    try:
        waiting = Waiting(what, PATIENCE, report)
        while not try_lock(descriptor):
            waiting.pause()
        yield
    finally:
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """Open the file of a lock, which is made if need be and never removed."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DatabaseError(
            f"{path} cannot be opened: {error.strerror}",
            hint="start as the account that owns the folder, or use another --data-dir",
        ) from error


def try_lock(descriptor: int) -> bool:
    """Take the lock if nobody holds it, and tell whether it is ours now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise DatabaseError(
            f"the file system of the data directory knows no locks: {error.strerror}",
            hint="use a --data-dir on a local disk",
        ) from error
    return True
