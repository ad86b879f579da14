"""A plain folder as a source: there are no commits, the content itself says whether something changed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from cron_observer.errors import SourceError
from cron_observer.model import Commit
from cron_observer.source import trees
from cron_observer.source.address import read_address
from cron_observer.source.spec import UNREADABLE, Changes, Entry, SourceSpec, Target
from cron_observer.source.trees import Chooser

#: Bytes of a file that its digest covers; a longer one is refused whatever else it holds.
_DIGESTED: Final = 8 * 1024 * 1024
_SYMLINK: Final = "120000"

_Stamp = tuple[int, int, int, int]


class FolderSource:
    """A folder on this machine. What was read is remembered by each file's stamp, so that a look is cheap."""

    has_commits = False
    fetched = 0

    def __init__(self, spec: SourceSpec) -> None:
        """Take `spec` apart; nothing is read yet."""
        path = read_address(spec.url).path
        if path is None or spec.ref is not None:
            raise SourceError(
                "a plain folder has no refs",
                reason="RefRefused",
                permanent=True,
                hint="leave ref out, or make the folder a Git repository",
            )
        self.spec = spec
        self.root = path
        self._choose = Chooser(spec.paths, spec.ignore)
        self._stamps: dict[str, tuple[_Stamp, Entry]] = {}
        self._names: dict[str, bytes] = {}

    def resolve(self) -> Target:
        """Scan the folder; the target is the digest of all paths and contents."""
        digest = hashlib.sha256()
        for entry in sorted(self._scan(), key=lambda one: one.path):
            digest.update(f"{entry.path}\0{entry.mode}\0{entry.blob}\0".encode())
        return Target(digest.hexdigest())

    def fetch(self, target: Target) -> Target:
        """Return `target`: the content is here already."""
        return target

    def has(self, commit: str) -> bool:  # noqa: ARG002  of no earlier content is a copy kept
        """Return False: a folder has no past."""
        return False

    def rewritten(self, since: str, target: Target) -> bool:  # noqa: ARG002
        """Return False: there is no history to rewrite."""
        return False

    def verify(self, target: Target, since: str | None) -> None:  # noqa: ARG002
        """Refuse when signatures are asked for: a folder has none."""
        if self.spec.verify != "none":
            raise SourceError(
                "a plain folder has no signatures",
                reason="SignatureRefused",
                permanent=True,
                hint="leave verify out, or make the folder a Git repository",
            )

    def changes(self, target: Target, since: str | None, known: Mapping[str, str] | None = None) -> Changes:  # noqa: ARG002
        """Compare what the last `resolve` saw with what is known."""
        return trees.compare((entry for _, entry in self._stamps.values()), known or {})

    def entries(self, target: Target, paths: Sequence[str]) -> list[Entry]:  # noqa: ARG002
        """Return those of `paths` that the last `resolve` saw."""
        return [self._stamps[path][1] for path in paths if path in self._stamps]

    def read(self, entries: Sequence[Entry], limit: int) -> Iterator[tuple[Entry, bytes]]:
        """Read files as they are now. One that has changed since the scan is given with its new digest."""
        for entry in entries:
            if not entry.mode.startswith("100"):
                yield entry, b""
                continue
            try:
                data = self._content(entry.path, limit)
            except OSError:
                continue  # it has just gone; that is a change, and the next look sees it
            size = max(len(data), entry.size or 0)
            kept = Entry(entry.path, entry.mode, _digest(data) if len(data) <= limit else entry.blob, size)
            yield kept, data if len(data) <= limit else b""

    def commits_touching(
        self,
        blobs: Mapping[str, str],  # noqa: ARG002
        since: str | None,  # noqa: ARG002
        target: Target,  # noqa: ARG002
    ) -> dict[str, Commit]:
        """Return nothing: there are no commits."""
        return {}

    def describe(self, commits: Sequence[str]) -> dict[str, Commit]:  # noqa: ARG002
        """Return nothing: there are no commits."""
        return {}

    def applied(self, target: Target) -> None:
        """Do nothing: no copy is kept."""

    def rebuild(self) -> None:
        """Forget what was read."""
        self._stamps = {}

    def watched(self) -> Sequence[tuple[Path, bool]]:
        """Return the folder and all below it."""
        return ((self.root.resolve(), True),) if self.root.is_dir() else ()

    def close(self) -> None:
        """Do nothing: no process is kept."""

    # The scan

    def _scan(self) -> Iterator[Entry]:
        """Give every entry that counts, digesting only what has changed since the last scan."""
        seen: dict[str, tuple[_Stamp, Entry]] = {}
        number = 0
        waiting = [b""]
        while waiting:
            folder = waiting.pop()
            for child in self._children(folder):
                number += 1
                if number > trees.MOST_ENTRIES:
                    raise trees.too_many(number, trees.MOST_ENTRIES, "files")
                name = folder + child.name
                if child.is_dir(follow_symlinks=False):
                    if not child.name.startswith(b"."):
                        waiting.append(name + b"/")
                    continue
                self._look(name, child, seen)
        if len(seen) > trees.MOST_MANIFESTS:
            raise trees.too_many(len(seen), trees.MOST_MANIFESTS, "manifests")
        self._stamps = seen
        return (entry for _, entry in seen.values())

    def _children(self, folder: bytes) -> list[os.DirEntry[bytes]]:
        try:
            with os.scandir(os.fsencode(self.root) + b"/" + folder) as found:
                return list(found)
        except FileNotFoundError as error:
            if folder:
                return []  # it has just gone
            raise SourceError(
                f"the folder {self.root} does not exist",
                reason="FolderNotFound",
                permanent=True,
                hint="look at the address of the source",
            ) from error
        except OSError as error:
            raise SourceError(
                f"the folder {self.root / os.fsdecode(folder)} cannot be read: {error.strerror}",
                reason="FolderNotReadable",
                permanent=True,
                hint="let the reconciler's account read it",
            ) from error

    def _look(self, name: bytes, child: os.DirEntry[bytes], seen: dict[str, tuple[_Stamp, Entry]]) -> None:
        try:
            info = child.stat(follow_symlinks=False)
        except OSError:
            return  # it has just gone
        mode = _SYMLINK if stat.S_ISLNK(info.st_mode) else f"{info.st_mode:o}"
        mode = "100644" if stat.S_ISREG(info.st_mode) else mode
        entry = trees.entry(name, mode, "")
        if not self._choose(entry.path, mode):
            return
        stamp = (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino)
        before = self._stamps.get(entry.path)
        if before is not None and before[0] == stamp and before[1].mode == entry.mode:
            seen[entry.path] = before
            return
        try:
            data = self._content(entry.path, _DIGESTED) if entry.mode == "100644" else name
        except PermissionError:
            entry, data = Entry(entry.path, UNREADABLE, ""), b""
        except OSError:
            return
        seen[entry.path] = stamp, Entry(entry.path, entry.mode, _digest(data), info.st_size)

    def _content(self, path: str, limit: int) -> bytes:
        """Read at most `limit` bytes and one more; never through a link, never from what is no file."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(self.root / path, flags), "rb") as file:  # noqa: PTH123  opened by descriptor
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileNotFoundError(path)
            return file.read(limit + 1)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
