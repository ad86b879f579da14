"""The folder in which reports wait for a server that is away: one file (`Segment`) for each run, or ping.

It is bounded: what is older than `AGE_SECONDS`, and the oldest beyond `SPOOL_BYTES` or `SPOOL_FILES`, is dropped and
counted.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cron_observer_sdk.ids import uuid7
from cron_observer_sdk.segment import REFUSED, SUFFIX, LogEntry, Segment
from cron_observer_sdk.text import JsonObject, encode, timestamp

#: Bytes of all files together, how many there are, and seconds that one waits.
SPOOL_BYTES = 64 * 1024 * 1024
SPOOL_FILES = 10_000
AGE_SECONDS = 7 * 86400.0
#: What was dropped, in numbers.
TALLY = "dropped.json"


class Waiting(NamedTuple):
    """What a file of the spool holds, in short."""

    name: str
    state: str  #: waiting, refused, or busy: in the hands of a process
    size: int
    what: str  #: the task, or ``ping``
    at: str  #: when it began
    lines: int
    outcome: str  #: empty if it has not ended
    reason: str  #: why the server refused it


class Spool:
    """The spool of this user: ``$XDG_STATE_HOME/cron-observer/spool``. Methods may raise `OSError`."""

    def __init__(
        self, folder: Path | None = None, *, max_bytes: int = SPOOL_BYTES, max_age: float = AGE_SECONDS
    ) -> None:
        self.folder = state_folder() / "spool" if folder is None else folder
        self._max_bytes = max_bytes
        self._max_age = max_age

    def create(self, head: JsonObject) -> Segment:
        """Make the file of one run, after making room for it."""
        own_folder(self.folder)
        self.prune()
        return Segment.create(self.folder / f"{uuid7()}{SUFFIX}", head)

    def waiting(self) -> list[Path]:
        """Return what waits to be replayed, the oldest first."""
        return self._named(SUFFIX)

    def refused(self) -> list[Path]:
        """Return what the server refused for good, the oldest first."""
        return self._named(REFUSED)

    def find(self, name: str) -> Path | None:
        """Return the file of this name, with or without its ending; None if there is none."""
        for path in (*self.waiting(), *self.refused()):
            if name in {path.name, path.stem}:
                return path
        return None

    def look(self, path: Path) -> Waiting | None:
        """Say what a file holds; None if it is gone."""
        refused = path.suffix == REFUSED
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return None
        segment = Segment.take(path)
        if segment is None:
            return Waiting(path.stem, "busy", size, "", "", 0, "", "")
        lines, outcome, reason, head = 0, "", "", {}
        try:
            for entry in segment.entries():
                if isinstance(entry, LogEntry):
                    lines += 1
                elif entry.kind == "head":
                    head = entry.said
                elif entry.kind == "end":
                    outcome = str(entry.said.get("outcome", {}).get("outcome", ""))
                elif entry.kind == "refused":
                    reason = str(entry.said.get("reason", ""))
        finally:
            segment.close()
        what, at = str(head.get("task", head.get("what", ""))), str(head.get("started_at", ""))
        return Waiting(path.stem, "refused" if refused else "waiting", size, what, at, lines, outcome, reason)

    def drop(self, path: Path) -> bool:
        """Delete a file and count it; False if another process holds it, or it is gone."""
        segment = Segment.take(path)
        if segment is None:
            return False
        lines = 0
        with suppress(OSError):
            lines = sum(isinstance(entry, LogEntry) for entry in segment.entries())
        segment.delete()
        self._count(lines)
        return True

    def prune(self) -> int:
        """Drop what is too old, then the oldest beyond the limit; return how many were dropped."""
        found = []
        for path in sorted((*self.waiting(), *self.refused()), key=lambda one: one.name):
            with suppress(FileNotFoundError):
                known = path.stat()
                found.append((path, known.st_size, known.st_mtime))
        total, oldest, dropped = sum(size for _, size, _ in found), time.time() - self._max_age, 0
        for path, size, changed in found:
            too_much = total > self._max_bytes or len(found) - dropped > SPOOL_FILES
            if (changed < oldest or too_much) and self.drop(path):
                total -= size
                dropped += 1
        return dropped

    def dropped(self) -> JsonObject:
        """Return how much was dropped so far: ``files``, ``lines``, ``last_at``; empty if nothing was."""
        try:
            said = json.loads((self.folder / TALLY).read_bytes())
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    def _named(self, suffix: str) -> list[Path]:
        """Return the files with an ending, by name: names sort by time."""
        try:
            return sorted(path for path in self.folder.iterdir() if path.suffix == suffix)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _count(self, lines: int) -> None:
        """Add a dropped file to the tally."""
        descriptor = os.open(self.folder / TALLY, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = self.dropped()
            after = encode(
                {
                    "files": int(before.get("files", 0)) + 1,
                    "lines": int(before.get("lines", 0)) + lines,
                    "last_at": timestamp(time.time()),
                }
            )
            os.pwrite(descriptor, after, 0)
            os.ftruncate(descriptor, len(after))
        finally:
            os.close(descriptor)


def state_folder() -> Path:
    """Return where programs of this user keep what should outlast them. Raise `OSError` where that is nowhere."""
    stated = os.environ.get("XDG_STATE_HOME", "")
    if stated.startswith("/"):
        return Path(stated) / "cron-observer"
    try:
        return Path.home() / ".local" / "state" / "cron-observer"
    except RuntimeError:
        raise FileNotFoundError("this user has no home: set XDG_STATE_HOME") from None


def own_folder(folder: Path) -> None:
    """Make a folder that only we can look into. Raise `PermissionError` if it is somebody else's."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    known = folder.lstat()
    if not stat.S_ISDIR(known.st_mode) or known.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is not a folder of ours")
    if known.st_mode & 0o077:
        folder.chmod(0o700)
