"""Blobs of a repository that is read but once, by `git cat-file`; those of a mirror are read by `objects`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cron_observer.source.spec import MirrorBroken

#: Blobs that one command reads: bounds what is held in memory at once.
_BATCH: Final = 200

#: Runs ``git cat-file`` with an argument and an input, and returns its output.
Run = Callable[[str, bytes], bytes]


def read(run: Run, ids: Sequence[str], limit: int) -> Iterator[tuple[int, bytes]]:
    """Give size and content of each blob; of one over `limit` bytes no content."""
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        sizes = [_size(line) for line in run("--batch-check", _lines(batch)).splitlines()]
        if len(sizes) != len(batch):
            raise MirrorBroken("git cat-file answered for other objects than it was asked for")
        wanted = [name for name, size in zip(batch, sizes, strict=True) if size <= limit]
        contents = _contents(run("--batch", _lines(wanted)) if wanted else b"")
        for size in sizes:
            yield size, next(contents) if size <= limit else b""


def _lines(ids: Sequence[str]) -> bytes:
    return "".join(f"{name}\n" for name in ids).encode()


def _size(header: bytes) -> int:
    words = header.split(b" ")
    if len(words) != 3 or words[1] != b"blob":
        raise MirrorBroken(f"{header.decode('ascii', 'replace')[:200]}: no such blob")
    return int(words[2])


def _contents(output: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(output):
        end = output.index(b"\n", position)
        size = _size(output[position:end])
        yield output[end + 1 : end + 1 + size]
        position = end + size + 2
