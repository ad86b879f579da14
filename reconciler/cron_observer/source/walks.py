"""Short walks through a mirror's objects: what differs between two commits, and whether one follows from the other.

They answer what is asked after every push without starting a program. A walk that would be long gives up, and the
program is asked, which is faster then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from cron_observer.source.objects import MOST_READ, Objects
from cron_observer.source.spec import MirrorBroken
from cron_observer.source.trees import ABSENT, Differing

#: Trees and commits that are read before a walk gives up.
MOST_TREES: Final = 48
MOST_COMMITS: Final = 64

_TREE: Final = "040000"

_ENTRIES: Final = {
    40: re.compile(rb"(\d+) ([^\0]+)\0(.{20})", re.DOTALL),
    64: re.compile(rb"(\d+) ([^\0]+)\0(.{32})", re.DOTALL),
}


class _Pair(NamedTuple):
    """Two trees in the same place, None where there is none."""

    folder: bytes
    old: str | None
    new: str | None


def difference(objects: Objects, old: str, new: str) -> list[Differing] | None:
    """Compare the trees of two commits, in order of names; None when too much differs for a short walk."""
    roots = objects.find([f"{old}^{{tree}}", f"{new}^{{tree}}"])
    if roots[0] is None or roots[1] is None:
        raise MirrorBroken("a commit has no tree in the mirror")
    found: list[Differing] = []
    level = [_Pair(b"", roots[0].id, roots[1].id)] if roots[0].id != roots[1].id else []
    read = 0
    while level:
        wanted = [tree for pair in level for tree in (pair.old, pair.new) if tree is not None]
        read += len(wanted)
        read_now = objects.read(wanted) if read <= MOST_TREES else None
        if read_now is None:
            return None
        contents = iter(read_now)
        below: list[_Pair] = []
        for pair in level:
            before = b"" if pair.old is None else next(contents)
            after = b"" if pair.new is None else next(contents)
            for one in _differing(pair, before, after, len(new)):
                below.append(one) if isinstance(one, _Pair) else found.append(one)
        level = below
    return sorted(found)


def _differing(pair: _Pair, before: bytes, after: bytes, width: int) -> Iterator[_Pair | Differing]:
    """Give the files that differ between two trees, and the pairs of trees to look into."""
    old, new = (set(_ENTRIES[width].findall(data)) for data in (before, after))
    left = {name: (mode, blob) for mode, name, blob in old - new}
    come = {name: (mode, blob) for mode, name, blob in new - old}
    for name in left.keys() | come.keys():
        path = pair.folder + name
        old_mode, old_id = _told(left.get(name))
        mode, new_id = _told(come.get(name))
        if _TREE in (old_mode, mode):
            yield _Pair(path + b"/", old_id if old_mode == _TREE else None, new_id if mode == _TREE else None)
        if old_mode == _TREE:
            old_mode = ABSENT
        if mode == _TREE:
            mode, new_id = ABSENT, "0" * width
        if (old_mode, mode) != (ABSENT, ABSENT):
            yield Differing(path, old_mode, mode, new_id or "0" * width)


def _told(entry: tuple[bytes, bytes] | None) -> tuple[str, str | None]:
    return (ABSENT, None) if entry is None else (entry[0].decode().zfill(6), entry[1].hex())


def parents(raw: bytes) -> list[str]:
    """Return the parents that a commit names."""
    head = raw.partition(b"\n\n")[0]
    return [line[7:].decode("ascii", "replace") for line in head.split(b"\n") if line.startswith(b"parent ")]


def follows(objects: Objects, since: str, target: str) -> bool | None:
    """Tell whether `target` is `since` or came after it; None when a short walk does not tell."""
    seen, level = {target}, [target]
    if since == target:
        return True
    while level and len(seen) <= MOST_COMMITS:
        held = objects.read(level)
        if held is None:
            return None
        fresh = {one for raw in held for one in parents(raw)} - seen
        if since in fresh:
            return True
        seen |= fresh
        level = sorted(fresh)
    return None if level else False


def commits(objects: Objects, names: Sequence[str]) -> dict[str, bytes]:
    """Return those commits that are there, as Git stores them, but for any that is absurdly long."""
    found = [one.id for one in objects.find(names) if one is not None and one.kind == "commit"]
    return {one.id: data for one, data in objects.contents(found, MOST_READ) if one.size <= MOST_READ}
