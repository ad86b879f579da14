"""Refs as files: where a branch of a repository on this machine stands, and where our own refs of a mirror are kept.

Starting Git to be told forty digits takes longer than everything else that a look at a local repository needs. What is
not plainly there (a tag, which may have to be followed, a repository that keeps its refs in another way, a branch that
does not exist) is left to Git.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from cron_observer.source.address import common_dir, git_dir
from cron_observer.source.spec import Target

_ID: Final = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64})\n?")
_SYMBOLIC: Final = re.compile(rb"ref: (refs/heads/[^\0-\x20\x7f]+)\n?")

#: Bytes of the file of packed refs that are read: some hundred thousand refs. With more, Git is asked.
_MOST_PACKED: Final = 16 << 20


def branch(repository: Path, name: str | None) -> Target | None:
    """Return where the branch `name` (a full name) stands, or HEAD for None; None when Git has to be asked."""
    folder = git_dir(repository)
    if folder is None:
        return None
    if name is None:
        head = _content(folder / "HEAD", 1024) or b""
        if (found := _ID.fullmatch(head)) is not None:
            return Target(found[1].decode(), "HEAD")
        symbolic = _SYMBOLIC.fullmatch(head)
        name = "" if symbolic is None else os.fsdecode(symbolic[1])
    if not name.startswith("refs/heads/") or ".." in name:
        return None
    found = _found(common_dir(folder), name)
    return None if found is None else Target(found[1].decode(), name)


def _found(folder: Path, name: str) -> re.Match[bytes] | None:
    loose = _content(folder / name, 1024)
    if loose is not None:
        return _ID.fullmatch(loose)
    packed = _content(folder / "packed-refs", _MOST_PACKED) or b""
    return re.search(rb"^([0-9a-f]{40}|[0-9a-f]{64}) " + re.escape(os.fsencode(name)) + rb"$", packed, re.MULTILINE)


def _content(path: Path, most: int) -> bytes | None:
    """Return what a regular file holds, if that is not more than `most` bytes."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            return None
        with open(number, "rb", closefd=False) as file:
            return file.read(most + 1)
    finally:
        os.close(number)


def write(mirror: Path, name: str, commit: str) -> None:
    """Let a ref of our own mirror, which nobody else writes to, name `commit`. Raises `OSError`."""
    place = mirror / name
    place.parent.mkdir(exist_ok=True)
    fresh = place.with_name(f"{place.name}.{os.getpid()}.lock")
    fresh.write_bytes(f"{commit}\n".encode("ascii"))
    fresh.replace(place)
