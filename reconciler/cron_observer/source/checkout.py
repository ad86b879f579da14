"""The repository around a folder, as it lies there: trees of commits and files of its work tree. Nothing is changed.

For commands that compare two states of manifests without a server. Only commands of Git that read are run; no filter,
hook or monitor of the repository is.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cron_observer.errors import SourceError
from cron_observer.manifest.scalars import shown
from cron_observer.source import blobs, trees
from cron_observer.source.address import git_dir, read_address
from cron_observer.source.command import READ_SECONDS, Git
from cron_observer.source.failures import GitFailed
from cron_observer.source.spec import UNREADABLE, Entry, MirrorBroken, SourceSpec
from cron_observer.source.trees import Chooser

#: Larger files of a work tree count as changed without a look: no manifest or calendar file is so large.
_MOST_HASHED: Final = 16 * 1024 * 1024

#: How a list of files marks one that a sparse checkout leaves out of the work tree.
_SKIPPED: Final = b"S"

_READ_ONLY: Final = ("-c", "core.fsmonitor=false", "-c", "core.untrackedCache=keep", "-c", "core.hooksPath=/dev/null")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the manifests and calendar files of a repository.

    `commit` is None for the work tree, whose files carry the ids that Git would give to what they hold. `absent` are
    those which a sparse checkout leaves out of it: they are what the index says.
    """

    checkout: Checkout = field(repr=False)
    commit: str | None
    entries: Mapping[str, Entry]
    absent: frozenset[str] = frozenset()

    def read(self, paths: Sequence[str], limit: int) -> Iterator[tuple[Entry, bytes]]:
        """Give entries of regular files with size and content, of those over `limit` bytes without content.

        Of what is no regular file there is no content either. The order is ours. Raises `SourceError`.
        """
        entries = [self.entries[path] for path in paths]
        stored = [entry for entry in entries if self.commit is not None or entry.path in self.absent]
        yield from self.checkout.objects(stored, limit) if stored else ()
        if len(stored) < len(entries):
            there = (entry for entry in entries if entry.path not in self.absent)
            yield from (self.checkout.file(entry, limit) for entry in there)


class Checkout:
    """A repository with a work tree. A context manager: what it needs on the disk goes away with it."""

    def __init__(self, folder: Path) -> None:
        """Look for the repository around `folder`. Raises `SourceError` when there is none."""
        start = folder.absolute()
        top = next((one for one in (start, *start.parents) if (one / ".git").exists()), None)
        if top is None or git_dir(top) is None:
            raise SourceError(
                f"{folder} is not inside a Git repository",
                reason="RepositoryNotFound",
                permanent=True,
                hint="run the command in a clone of the repository",
            )
        self.top = top
        self._own = tempfile.TemporaryDirectory(prefix="cron-observer-")
        spec = SourceSpec(name="checkout", url=str(top))
        self._git = Git(spec, read_address(spec.url), Path(self._own.name) / "gitconfig")
        self._git.configure()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what runs."""
        self._git.stop()
        self._own.cleanup()

    def commit(self, ref: str) -> str:
        """Return the commit that a name means: a branch, a tag, an id, ``HEAD~2``. Raises `SourceError`."""
        try:
            return (
                self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}").decode().strip()
            )
        except GitFailed:
            raise SourceError(
                f'the repository has no commit "{shown(ref, 100)}"',
                reason="RefNotFound",
                permanent=True,
                hint="fetch it first; in CI let the checkout fetch the whole history (fetch-depth: 0)",
            ) from None

    def parting(self, one: str, other: str) -> str | None:
        """Return the last commit that two have in common; None when there is none, or it was not fetched."""
        try:
            return self._run("merge-base", one, other).decode().split("\n")[0].strip() or None
        except GitFailed:
            return None

    def at(self, commit: str, choose: Chooser) -> Snapshot:
        """Return the state at a commit. Raises `SourceError`."""
        raw = self._read("ls-tree", "-r", "-z", "--full-tree", commit)
        return Snapshot(self, commit, {entry.path: entry for entry in trees.listing(raw, choose)})

    def here(self, choose: Chooser) -> Snapshot:
        """Return the state of the work tree: every file that is tracked or could be, without those that are ignored."""
        digest = "sha256" if self._wide() else "sha1"
        raw = self._read("ls-files", "-z", "-t", "--cached", "--others", "--exclude-standard")
        found, sparse = {}, False
        for tag, _, name in (record.partition(b" ") for record in dict.fromkeys(raw.split(b"\0"))):
            if name and (entry := self._entry(name, choose, digest)) is not None:
                found[entry.path] = entry
            sparse = sparse or tag == _SKIPPED
        absent = {one.path: one for one in self._left_out(choose) if one.path not in found} if sparse else {}
        return Snapshot(self, None, found | absent, frozenset(absent))

    def _left_out(self, choose: Chooser) -> Iterator[Entry]:
        """Yield what the index holds for files that are not to be in the work tree."""
        for record in self._read("ls-files", "-z", "-t", "--stage").split(b"\0"):
            meta, _, name = record.partition(b"\t")
            tag, *told = meta.split(b" ")
            if tag == _SKIPPED:
                mode, blob, _stage = (part.decode("ascii") for part in told)
                one = trees.entry(name, mode, blob)
                if choose(one.path, mode):
                    yield one

    def _wide(self) -> bool:
        return self._read("rev-parse", "--show-object-format").strip() == b"sha256"

    def _entry(self, name: bytes, choose: Chooser, digest: str) -> Entry | None:
        place = os.path.join(os.fsencode(self.top), name)  # noqa: PTH118 - names are bytes
        try:
            status = os.lstat(place)
        except OSError:
            return None  # it is tracked, but not there
        kind = stat.S_IFMT(status.st_mode)
        mode = {stat.S_IFREG: "100644", stat.S_IFLNK: "120000", stat.S_IFDIR: "160000"}.get(kind, f"{status.st_mode:o}")
        if mode == "100644" and status.st_mode & 0o100:
            mode = "100755"
        plain = trees.entry(name, mode, "")
        if not choose(plain.path, mode):
            return None
        try:
            data = self._held(Path(os.fsdecode(place)), kind, status.st_size)
        except OSError:
            return Entry(plain.path, UNREADABLE, "", status.st_size)
        blob = "" if data is None else hashlib.new(digest, b"blob %d\0" % len(data) + data).hexdigest()
        return Entry(plain.path, plain.mode, blob, status.st_size)

    def _held(self, place: Path, kind: int, size: int) -> bytes | None:
        """Return what Git would store of a file; None where nobody needs to know."""
        if kind == stat.S_IFREG and size <= _MOST_HASHED:
            return place.read_bytes()
        return os.fsencode(place.readlink()) if kind == stat.S_IFLNK else None

    def file(self, entry: Entry, limit: int) -> tuple[Entry, bytes]:
        """Return an entry of the work tree with its content."""
        if not entry.mode.startswith("100") or (entry.size or 0) > limit:
            return entry, b""
        try:
            return entry, (self.top / entry.path).read_bytes()
        except OSError:
            return Entry(entry.path, UNREADABLE, entry.blob, entry.size), b""

    def objects(self, entries: Sequence[Entry], limit: int) -> Iterator[tuple[Entry, bytes]]:
        """Give entries of a commit with size and content."""
        regular = [entry.blob for entry in entries if entry.mode.startswith("100")]
        contents = blobs.read(lambda how, asked: self._read("cat-file", how, stdin=asked), regular, limit)
        for entry in entries:
            if not entry.mode.startswith("100"):
                yield entry, b""
                continue
            try:
                size, data = next(contents)
            except MirrorBroken as error:
                raise _broken(str(error)) from error
            yield Entry(entry.path, entry.mode, entry.blob, size), data

    def _read(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        try:
            return self._run(*arguments, stdin=stdin)
        except GitFailed as error:
            lines = [line.strip() for line in error.said.splitlines() if line.strip()]
            worst = [line for line in lines if line.startswith(("fatal:", "error:"))]
            said = next(iter(worst or lines), "git says nothing")
            raise _broken(said) from error

    def _run(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        return self._git.run("-C", str(self.top), *_READ_ONLY, *arguments, within=READ_SECONDS, stdin=stdin)


def _broken(said: str) -> SourceError:
    return SourceError(
        f"the repository cannot be read: {said[:300]}",
        reason="RepositoryBroken",
        permanent=True,
        hint="look at it with git fsck; a partial clone lacks what it has not fetched: clone without --filter",
    )
