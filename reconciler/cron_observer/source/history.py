"""The history of files, as `git log` tells it: who changed a file last. Pure but for reading the stream."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from io import BufferedReader
from typing import Final

from cron_observer.model import Commit

#: Seconds and commits that finding authors may take; after that a file is credited to the commit applied.
SECONDS: Final = 20.0
MOST_COMMITS: Final = 50_000

#: A header begins with a record separator, its fields are parted by unit separators.
HEADER: Final = (
    "-z",
    "--no-show-signature",
    "--no-notes",
    "--encoding=UTF-8",
    "--format=tformat:%x1e%H%x1f%an%x1f%ct%x1f%s",
)
FORMAT: Final = (*HEADER, "--raw", "--no-abbrev", "--no-renames", "-c", f"--max-count={MOST_COMMITS}")

_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


def last_touching(stream: BufferedReader, blobs: Mapping[str, str]) -> dict[str, Commit]:
    """Read ``git log`` with `FORMAT`; return for each path the first commit met that gives it its blob.

    Stops reading as soon as every path is found. A commit that gave a path other content is passed over, so
    that the text of the file at the commit returned is the text that was applied.
    """
    missing = {path.encode(): blob.encode() for path, blob in blobs.items()}
    found: dict[str, Commit] = {}
    commit: Commit | None = None
    blob: bytes | None = None  # of the path that comes next
    for record in _records(stream):
        if blob is not None:
            if commit is not None and missing.get(record) == blob:
                del missing[record]
                found[record.decode()] = commit
                if not missing:
                    break
            blob = None
        elif (meta := record.lstrip(b"\n")).startswith(b"\x1e"):
            commit = _commit(meta[1:])
        elif meta.startswith(b":"):
            blob = _result(meta)
    return found


def _result(meta: bytes) -> bytes:
    """Return the blob that a raw line ends with; a merge's has as many colons as the commit has parents."""
    bare = meta.lstrip(b":")
    parents = len(meta) - len(bare)
    return (bare.split(b" ") + [b""] * (2 * parents + 2))[2 * parents + 1]


def commit(name: str, author: str | None, seconds: int | None, message: str) -> Commit:
    """Make a commit of what anybody may have written; its subject is the first paragraph of the message."""
    lines = [line.strip() for line in message.lstrip().split("\n")]
    subject = " ".join(lines[: lines.index("")] if "" in lines else lines)
    at = None if seconds is None else _instant(str(seconds))
    return Commit(id=name, author=_shown(author or "", 200), subject=_shown(subject, 500), at=at)


def _records(stream: BufferedReader) -> Iterator[bytes]:
    """Give the records of a stream, which NUL ends."""
    rest = b""
    while chunk := stream.read1(65_536):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole
    if rest:
        yield rest


def _commit(header: bytes) -> Commit:
    fields = header.split(b"\x1f", 3)
    commit, author, seconds, subject = (field.decode("utf-8", "replace") for field in [*fields, b"", b"", b""][:4])
    return Commit(id=commit, author=_shown(author, 200), subject=_shown(subject, 500), at=_instant(seconds))


def _shown(text: str, most: int) -> str | None:
    """Return text that anybody may have written, safe to store and to show."""
    return _UNPRINTABLE.sub(" ", text).strip()[:most] or None


def _instant(seconds: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
