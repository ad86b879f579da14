"""Git's listings of trees, taken apart: which files count, and what differs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from cron_observer.errors import SourceError
from cron_observer.manifest import is_manifest
from cron_observer.source.failures import too_large
from cron_observer.source.spec import UNNAMABLE, Changes, Entry

#: More paths than this are not put on a command line; the whole tree is read and sifted instead.
MANY_PATHS: Final = 300

#: What one source may hold: more is a mistake in `paths`, or an attack.
MOST_ENTRIES: Final = 1_000_000
MOST_MANIFESTS: Final = 200_000

ABSENT: Final = "000000"  #: Git's mode of the side of a difference where there is nothing
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LINKS: Final = ("120000", "160000")  # symbolic link, submodule


@dataclass(frozen=True, slots=True)
class Chooser:
    """Tells which entries of a tree count as manifests."""

    paths: Sequence[str]
    ignore: Sequence[str]

    def __call__(self, path: str, mode: str) -> bool:
        """Tell whether an entry counts. A link that stands where manifests are looked for does, too: as a finding.

        Calendar files count wherever they are, but for hidden ones: a manifest may name any.
        """
        if is_calendar_file(path):
            return not any(part.startswith(".") for part in path.split("/"))
        if path.endswith((".yaml", ".yml")) or path.lower().endswith((".yaml", ".yml")):
            return is_manifest(path, self.paths, self.ignore)
        if mode not in _LINKS:
            return False
        return any(f"{wanted.strip('/')}/".startswith(f"{path}/") for wanted in self.paths)


def is_calendar_file(path: str) -> bool:
    """Tell whether a path is one that calendars may name: it is read only if one does."""
    return path[-4:].lower() == ".ics"


def too_many(number: int, most: int, what: str) -> SourceError:
    """Say that a source is larger than we read."""
    return too_large(
        f"the source holds {number:,} {what}; at most {most:,} are read",
        "narrow it with paths or ignore, or split it into several sources",
    )


def entry(name: bytes, mode: str, blob: str) -> Entry:
    """Make an entry. A name that is not UTF-8, or that holds what must not be shown, is escaped and marked."""
    try:
        path = name.decode()
    except UnicodeDecodeError:
        path = name.decode("utf-8", "backslashreplace")
        mode = UNNAMABLE
    if _UNSAFE.search(path):
        path = _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", path)
        mode = UNNAMABLE
    return Entry(path, mode, blob)


def listing(raw: bytes, choose: Chooser) -> list[Entry]:
    """Read what ``ls-tree -r -z`` wrote."""
    records = raw.split(b"\0")
    if len(records) > MOST_ENTRIES:
        raise too_many(len(records), MOST_ENTRIES, "files")
    found = []
    for record in records:
        meta, tab, name = record.partition(b"\t")
        if not tab:
            continue
        mode, _kind, blob = meta.decode("ascii").split(" ")
        one = entry(name, mode, blob)
        if choose(one.path, mode):
            found.append(one)
    if len(found) > MOST_MANIFESTS:
        raise too_many(len(found), MOST_MANIFESTS, "manifests")
    return found


def compare(entries: Iterable[Entry], known: Mapping[str, str]) -> Changes:
    """Compare a whole tree with what is known of it."""
    added, modified, there = [], [], set()
    for entry in entries:
        there.add(entry.path)
        blob = known.get(entry.path)
        if blob is None:
            added.append(entry)
        elif blob != entry.blob:
            modified.append(entry)
    return Changes(added, modified, [path for path in known if path not in there])


class Differing(NamedTuple):
    """A file that differs: its name as Git has it, Git's modes before and after, and the id of what is there now."""

    name: bytes
    old_mode: str
    mode: str
    blob: str


def differing(raw: bytes) -> Iterator[Differing]:
    """Read what ``diff-tree -r -z --raw --no-renames`` wrote."""
    for meta, name in _pairs(raw):
        old_mode, mode, _old, blob, _letter = meta[1:].decode("ascii").split(" ")
        yield Differing(name, old_mode, mode, blob)


def changes(found: Iterable[Differing], choose: Chooser) -> Changes:
    """Sort files that differ. One that no longer counts is deleted."""
    added: list[Entry] = []
    modified: list[Entry] = []
    deleted: list[str] = []
    for name, old_mode, mode, blob in found:
        one = entry(name, mode, blob)
        counted = old_mode != ABSENT and choose(one.path, old_mode)
        if mode != ABSENT and choose(one.path, mode):
            (modified if counted else added).append(one)
        elif counted:
            deleted.append(one.path)
    return Changes(added, modified, deleted)


def _pairs(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    records = raw.split(b"\0")
    yield from zip(records[0::2], records[1::2], strict=False)
