"""A Git repository as a source: a bare mirror, fetched and read by the `git` program.

There is no work tree, ever, and nothing of the repository is run: no checkout, no hooks, no filters, no
submodules. What touches the network or a configuration is the program with a fixed list of arguments
(`source.command`); objects of our own mirror are answered by one that stays (`source.objects`), and GitPython only
reads what commits say.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cron_observer.errors import SourceError
from cron_observer.model import Commit
from cron_observer.source import history, refs, signatures, trees, walks
from cron_observer.source.access import check
from cron_observer.source.address import common_dir, git_dir, read_address
from cron_observer.source.command import FETCH_SECONDS, READ_SECONDS, Git
from cron_observer.source.failures import GitFailed, meaning, unexplained, unwritable
from cron_observer.source.objects import Objects
from cron_observer.source.remote import Remote
from cron_observer.source.spec import Changes, Entry, MirrorBroken, SourceSpec, Target
from cron_observer.source.trees import Chooser

_OBSERVED: Final = "refs/cron-observer/observed"
_APPLIED: Final = "refs/cron-observer/applied"

#: Seconds after which what lies about belongs to no fetch any more: more than one takes.
_LEFTOVER_SECONDS: Final = 2 * FETCH_SECONDS

#: Packs and loose objects that make tidying the mirror worth while.
_MANY_PACKS: Final = 40
_MANY_LOOSE: Final = 20  # in one of 256 folders: some 5,000 in all

#: Seconds after which the whole mirror is tidied, not only what has come since: a week.
_TIDIED_SECONDS: Final = 7 * 86_400


def _gitpython() -> Any:
    """Import GitPython late: it looks for the program when it is imported, and we look ourselves."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import git

    return git


class GitSource:
    """A repository, local or remote. The mirror is made when it is first needed, and again when it is broken."""

    has_commits = True

    def __init__(self, spec: SourceSpec, mirror: Path) -> None:
        """Take `spec` apart; nothing is read yet.

        Raises `SourceError` for an address or ref that we refuse, and for a setting that does not go with the address.
        """
        self.spec = spec
        self.address = read_address(spec.url)
        check(spec, self.address)
        self.mirror = mirror.absolute()
        self._choose = Chooser(spec.paths, spec.ignore)
        self._git = Git(spec, self.address, self.mirror.with_suffix(".gitconfig"))
        self._remote = Remote(spec, self.address, self._git, self.mirror.parent)
        self._objects = Objects(self._git, self.mirror)
        self._difference: tuple[str, str, Mapping[str, str]] | None = None
        self._too_large: tuple[str, SourceError] | None = None
        self._lock = threading.Lock()

    @property
    def fetched(self) -> int:
        """Return the bytes that fetches have added to the mirror."""
        return self._remote.fetched

    def resolve(self) -> Target:
        """Ask the repository which commit the ref names; of no ref, its HEAD."""
        self._prepare()
        return self._remote.resolve()

    # Fetching

    def fetch(self, target: Target) -> Target:
        """Fetch `target` into the mirror. A mirror that is in the way is made anew, once.

        A repository that has proved too large is not fetched again before it has another commit.
        """
        if target.id is None:
            return target
        if self._too_large is not None and self._too_large[0] == target.id:
            raise self._too_large[1]
        self._prepare()
        wanted = "HEAD" if target.ref is None else target.ref
        try:
            self._fetch(target.id, wanted)
        except SourceError as error:
            self._drop_parts()
            if error.reason == "TooLarge":
                self._too_large = target.id, error
            raise
        self._too_large = None
        return Target(self._commit_of(_OBSERVED), target.ref)

    def _fetch(self, commit: str, wanted: str) -> None:
        fresh = not self.mirror.is_dir()
        try:
            if fresh:
                self._make(commit, wanted)
            else:
                self._remote.fetch_into(self.mirror, wanted, _OBSERVED)
        except GitFailed as error:
            if fresh:
                raise unexplained(error) from None
            try:
                self._make(commit, wanted)
            except GitFailed as again:
                raise unexplained(again) from None

    def _make(self, commit: str, wanted: str) -> None:
        """Make the mirror beside its place and move it there when it is whole."""
        self._sweep()
        building = self.mirror.with_suffix(f".new-{os.getpid()}")
        shutil.rmtree(building, ignore_errors=True)
        form = "sha256" if len(commit) == 64 else "sha1"
        try:
            self._git.run(
                "init",
                "--quiet",
                "--bare",
                "--template=",
                f"--object-format={form}",
                str(building),
                within=READ_SECONDS,
            )
            self._remote.fetch_into(building, wanted, _OBSERVED)
            self.rebuild()
            building.rename(self.mirror)
        except OSError as error:
            raise unwritable(error) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what makings of mirrors that were killed have left beside ours."""
        for kind in ("new", "old", "keys"):
            for left in self.mirror.parent.glob(f"{self.mirror.stem}.{kind}-*"):
                with suppress(OSError):
                    if time.time() - left.stat().st_mtime > _LEFTOVER_SECONDS:
                        shutil.rmtree(left, ignore_errors=True)

    def _drop_parts(self) -> None:
        """Remove what a fetch that was ended has left in the mirror."""
        for part in (self.mirror / "objects" / "pack").glob("tmp_*"):
            part.unlink(missing_ok=True)

    def _prepare(self) -> None:
        with self._lock:
            try:
                self._git.configure(self.mirror)
            except OSError as error:
                raise unwritable(error) from error

    def _commit_of(self, ref: str) -> str:
        (found,) = self._objects.find([f"{ref}^{{commit}}"])
        if found is None:
            raise SourceError(
                "the ref of the source does not lead to a commit",
                reason="RefNotFound",
                permanent=True,
                hint="name a branch, or a tag of a commit",
            )
        return found.id

    def rebuild(self) -> None:
        """Throw the mirror away."""
        self._objects.close()
        if self.mirror.exists():
            aside = self.mirror.with_suffix(f".old-{os.getpid()}")
            shutil.rmtree(aside, ignore_errors=True)
            self.mirror.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    # Reading the mirror

    def _read(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        self._prepare()
        try:
            return self._git.run(f"--git-dir={self.mirror}", *arguments, within=READ_SECONDS, stdin=stdin)
        except GitFailed as error:
            known = meaning(error.said)
            if known is not None and known.reason == "TooLarge":
                raise known from None
            raise MirrorBroken(error.said) from error

    def has(self, commit: str) -> bool:
        """Tell whether the tree of `commit` is in the mirror."""
        self._prepare()
        try:
            return self._objects.find([f"{commit}^{{tree}}"]) != [None]
        except MirrorBroken:
            return False

    def rewritten(self, since: str, target: Target) -> bool:
        """Tell whether `target` does not follow from `since`."""
        if target.id is None:
            return False
        try:
            if (follows := walks.follows(self._objects, since, target.id)) is not None:
                return not follows
            self._read("merge-base", "--is-ancestor", since, target.id)
        except MirrorBroken:
            return True
        return False

    def verify(self, target: Target, since: str | None) -> None:
        """Verify the signatures that the settings ask for."""
        if self.spec.verify == "none" or target.id is None:
            return
        fresh = since is None or not self.has(since) or self.rewritten(since, target)

        def run(more: Mapping[str, str], arguments: tuple[str, ...]) -> bytes:
            where, within = f"--git-dir={self.mirror}", signatures.VERIFY_SECONDS
            return self._git.run(where, *arguments, within=within, more=more)

        self._prepare()
        scope = (target.id,) if fresh else (target.id, f"^{since}")
        signatures.verify(self.spec, run, self.mirror, target.id, scope)

    def changes(self, target: Target, since: str | None, known: Mapping[str, str] | None = None) -> Changes:
        """Take the difference of two trees; with `known` that of the whole tree and what is known of it."""
        if known is not None or since is None:
            entries = [] if target.id is None else self._tree(target.id)
            return trees.compare(entries, known or {})
        if target.id is None:
            return Changes()
        differing = walks.difference(self._objects, since, target.id)
        if differing is None:
            raw = self._read("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", since, target.id)
            differing = list(trees.differing(raw))
        found = trees.changes(differing, self._choose)
        self._difference = since, target.id, {one.path: one.blob for one in (*found.added, *found.modified)}
        return found

    def _tree(self, commit: str) -> list[Entry]:
        return trees.listing(self._read("ls-tree", "-r", "-z", "--full-tree", commit), self._choose)

    def entries(self, target: Target, paths: Sequence[str]) -> list[Entry]:
        """Return those of `paths` that are in the tree of `target`."""
        if target.id is None or not paths:
            return []
        wanted = frozenset(paths)
        if len(wanted) > trees.MANY_PATHS or any("\\" in path for path in wanted):
            return [entry for entry in self._tree(target.id) if entry.path in wanted]
        raw = self._read("--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", target.id, "--", *sorted(wanted))
        return [entry for entry in trees.listing(raw, self._choose) if entry.path in wanted]

    def read(self, entries: Sequence[Entry], limit: int) -> Iterator[tuple[Entry, bytes]]:
        """Read blobs. Of what is no regular file nothing is read, of one over `limit` bytes only its size."""
        regular = [entry for entry in entries if entry.mode.startswith("100")]
        contents = self._objects.contents([entry.blob for entry in regular], limit)
        for entry in entries:
            if entry.mode.startswith("100"):
                found, data = next(contents)
                yield Entry(entry.path, entry.mode, entry.blob, found.size), data
            else:
                yield entry, b""

    def commits_touching(self, blobs: Mapping[str, str], since: str | None, target: Target) -> dict[str, Commit]:
        """Walk the history back from `target` until every path of `blobs` has been met with that content."""
        if target.id is None or not blobs:
            return {}
        if since is not None and (told := self._told_by(blobs, since, target.id)) is not None:
            return told
        scope = [target.id] if since is None or not self.has(since) else [target.id, f"^{since}"]
        paths = sorted(blobs) if len(blobs) <= trees.MANY_PATHS else []
        arguments = ("--literal-pathspecs", "log", *history.FORMAT, *scope, "--", *paths)
        with self._git.reading(f"--git-dir={self.mirror}", *arguments, within=history.SECONDS) as stream:
            return history.last_touching(stream, blobs)

    def _told_by(self, blobs: Mapping[str, str], since: str, target: str) -> dict[str, Commit] | None:
        """Answer when there is but one commit to look into, whose difference was taken already; else None."""
        if self._difference is None or self._difference[:2] != (since, target):
            return None
        raw = walks.commits(self._objects, [target]).get(target)
        if raw is None or walks.parents(raw) != [since]:
            return None
        commit, given = _commit(target, raw), self._difference[2]
        return {path: commit for path, blob in blobs.items() if given.get(path) == blob}

    def describe(self, commits: Sequence[str]) -> dict[str, Commit]:
        """Read the commits that are in the mirror."""
        raw = walks.commits(self._objects, list(commits)) if commits else {}
        return {name: _commit(name, data) for name, data in raw.items()}

    # Keeping

    def applied(self, target: Target) -> None:
        """Pin the commit, so that a difference to it can be taken even after a push by force; tidy now and then."""
        if target.id is None:
            return
        try:
            refs.write(self.mirror, _APPLIED, target.id)
        except FileNotFoundError as error:
            raise MirrorBroken("the mirror is gone") from error
        except OSError as error:
            raise unwritable(error) from error
        if self._untidy():
            self._tidy()

    def _untidy(self) -> bool:
        objects = self.mirror / "objects"
        packs = sum(1 for _ in (objects / "pack").glob("*.pack"))
        loose = sum(1 for _ in (objects / "17").glob("*"))
        return packs > _MANY_PACKS or loose > _MANY_LOOSE

    def _tidy(self) -> None:
        """Put small packs together, which costs what they hold; now and then everything, and drop what has no use."""
        self._objects.close()  # it holds the packs open that this replaces
        mark = self.mirror / "tidied"
        last = (mark if mark.exists() else self.mirror / "HEAD").stat().st_mtime
        if time.time() - last < _TIDIED_SECONDS:
            self._read("repack", "--quiet", "-d", "--geometric=2")
        else:
            self._read("gc", "--quiet", "--prune=1.hour.ago")
            mark.touch()

    def watched(self) -> Sequence[tuple[Path, bool]]:
        """Return the folders that a push or a switch of HEAD writes to; none for a remote repository."""
        if self.address.path is None:
            return ()
        folder = git_dir(self.address.path)
        if folder is None:
            return ()
        common = common_dir(folder)
        shallow = {folder.resolve(), common.resolve()}
        deep = [one for one in (common / "refs", common / "reftable") if one.is_dir()]
        return [*((path, False) for path in sorted(shallow)), *((path.resolve(), True) for path in deep)]

    def close(self) -> None:
        """Kill what runs for this source."""
        self._git.stop()
        self._objects.close()


def _commit(name: str, raw: bytes) -> Commit:
    """Read a commit as Git stores it, in whatever encoding it says that it is."""
    head, _, message = raw.partition(b"\n\n")
    fields = dict(line.split(b" ", 1) for line in reversed(head.split(b"\n")) if b" " in line)
    encoding = fields.get(b"encoding", b"UTF-8").decode("ascii", "replace")
    read = _gitpython().objects.util.parse_actor_and_date
    try:
        author = read(_text(b"author " + fields.get(b"author", b""), encoding))[0].name
        seconds = read(_text(b"committer " + fields.get(b"committer", b""), encoding))[1]
    except ValueError:
        author, seconds = None, None
    return history.commit(name, author, seconds, _text(message, encoding))


def _text(raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except (LookupError, UnicodeDecodeError):
        return raw.decode("utf-8", "replace")
