"""A lock that runs of one task hold on one host, so that they do not overlap there."""

from __future__ import annotations

import os
from contextlib import suppress
from urllib.parse import quote

#: Exit code when the lock is held: try again later, as sysexits.h has it.
BUSY = 75


class HostLock:
    """Held from `take` until the process ends, or `release`. Processes that the command leaves do not hold it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._descriptor = -1

    def take(self) -> bool:
        """Take the lock; False if another process of this user holds it. Raise `OSError` where there can be none."""
        try:
            import fcntl
        except ImportError:
            raise OSError("this system has no locks for files") from None
        from cron_observer_sdk.spool import own_folder, state_folder

        folder = state_folder() / "locks"
        own_folder(folder)
        path = folder / f"{quote(self._name, safe='')[:200]}.lock"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Give it up; the file stays, so that nobody locks one that is gone."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)
