"""One file of the spool: what one run had to say while nobody listened, a JSON object a line.

The first line is the head, written when the file is made. Whoever holds the lock of the file (`flock`) is the only
one who writes, reads out or deletes it; the lock goes with the process. A line that the death of its writer cut off
is cut away by the next one who opens the file, so that the rest can always be read.
"""

from __future__ import annotations

import fcntl
import json
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cron_observer_sdk.text import JsonObject, encode

SUFFIX = ".ndjson"
#: What the server will never take: kept aside for a person to look at.
REFUSED = ".refused"
#: What is read at a time.
CHUNK_BYTES = 256 * 1024


class Entry(NamedTuple):
    """One line of a segment that is no line of a log."""

    kind: str  #: head, bound, end, refused
    said: JsonObject


class Segment:
    """An open and locked file of the spool. Every method may raise `OSError`; the caller decides what that means."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size  #: bytes of whole lines
        self.head_size = 0  #: bytes up to the end of the first line
        _OPEN.add(self)

    @classmethod
    def create(cls, path: Path, head: JsonObject) -> Segment:
        """Make the file, locked, with its head safely on the disk."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            made = cls(path, descriptor)
            made.write([encode({"kind": "head", **head})], durable=True)
        except BaseException:
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)
            raise
        made.head_size = made.size
        sync_folder(path.parent)
        return made

    @classmethod
    def take(cls, path: Path) -> Segment | None:
        """Open and lock a file; None if another process holds it, or it is gone. A torn last line is cut away."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            replaced = not os.path.samestat(os.fstat(descriptor), path.stat())
        except (BlockingIOError, FileNotFoundError):
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        if replaced:
            os.close(descriptor)
            return None
        taken = cls(path, descriptor)
        whole = _whole(descriptor, taken.size)
        if whole < taken.size:
            os.ftruncate(descriptor, whole)
            taken.size = whole
        return taken

    def write(self, lines: Sequence[bytes], *, durable: bool) -> None:
        """Append whole lines, all or none; `durable`: return when they are on the disk. Raise `OSError`."""
        data = memoryview(b"".join(line + b"\n" for line in lines))
        place = self.size
        try:
            while data:
                written = os.pwrite(self._descriptor, data, place)
                place += written
                data = data[written:]
            if durable:
                os.fsync(self._descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size = place

    def cut(self, size: int) -> None:
        """Forget everything beyond the first `size` bytes."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    def lines(self, place: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield (where the next line begins, line) from `place` on; end at the end, or where it is no text of ours."""
        rest = b""
        while place + len(rest) < self.size:
            part = os.pread(self._descriptor, min(CHUNK_BYTES, self.size - place - len(rest)), place + len(rest))
            if not part:
                return
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                place += len(line) + 1
                yield place, line

    def entries(self) -> Iterator[Entry | LogEntry]:
        """Yield what stands in it, in order, as far as it can be read."""
        for _, line in self.lines():
            found = _parse(line)
            if found is None:
                return
            yield found

    def head(self) -> JsonObject | None:
        """Return the head; None if not even that was written."""
        for entry in self.entries():
            return entry.said if isinstance(entry, Entry) and entry.kind == "head" else None
        return None

    def delete(self) -> None:
        """Delete the file and give up the lock."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        self.close()

    def set_aside(self, reason: str) -> None:
        """Note why the server refused it for good, and keep it out of the way."""
        with suppress(OSError):
            self.write([encode({"kind": "refused", "reason": reason})], durable=True)
        self.path.replace(self.path.with_suffix(REFUSED))
        self.close()

    def close(self) -> None:
        """Give up the lock; the file stays."""
        descriptor, self._descriptor = self._descriptor, -1
        _OPEN.discard(self)
        if descriptor >= 0:
            os.close(descriptor)


class LogEntry(NamedTuple):
    """A line of the log with its number."""

    seq: int
    encoded: bytes  #: as the wire wants it


def log_line(seq: int, encoded: bytes) -> bytes:
    """Return the line of a segment that holds a line of the log; the entry is JSON already."""
    return b'{"kind":"line","seq":%d,"entry":%s}' % (seq, encoded)


def log_entry(line: bytes) -> LogEntry | None:
    """Return the line of the log that a line of a segment holds; None for any other."""
    head, found, rest = line.partition(b',"entry":')
    if not found or not head.startswith(b'{"kind":"line","seq":') or not rest.endswith(b"}}"):
        return None
    number = head[len(b'{"kind":"line","seq":') :]
    return LogEntry(int(number), rest[:-1]) if number.isdigit() else None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parse(line: bytes) -> Entry | LogEntry | None:
    """Read one line; None where it is none of ours."""
    found = log_entry(line)
    if found is not None:
        return found
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not isinstance(said.get("kind"), str):
        return None
    return Entry(said["kind"], said)


def _whole(descriptor: int, size: int) -> int:
    """Return the bytes up to the end of the last whole line."""
    place = size
    while place > 0:
        begin = max(0, place - CHUNK_BYTES)
        found = os.pread(descriptor, place - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        place = begin
    return 0


#: What this process holds; a forked child lets go of it, or it would keep the locks beyond the life of its parent.
_OPEN: weakref.WeakSet[Segment] = weakref.WeakSet()


def _after_fork() -> None:
    """Close the parent's files in the child; that leaves the parent's locks as they are."""
    for one in list(_OPEN):
        with suppress(OSError):
            one.close()


os.register_at_fork(after_in_child=_after_fork)
