"""A Git repository as a source: a bare mirror, fetched by the `git` program and read through GitPython.

There is no work tree, ever, and nothing of the repository is run: no checkout, no hooks, no filters, no
submodules. What touches the network or a configuration is the program with a fixed list of arguments
(`source.command`); GitPython only reads objects out of our own mirror.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from cron_observer.errors import SourceError
from cron_observer.model import Commit
from cron_observer.source import blobs, history, signatures, trees
from cron_observer.source.address import common_dir, git_dir, read_address
from cron_observer.source.command import FETCH_SECONDS, READ_SECONDS, Git
from cron_observer.source.failures import GitFailed, unexplained, unwritable
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


def _gitpython() -> Any:
    """Import GitPython late: it looks for the program when it is imported, and we look ourselves."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import git

    return git


class GitSource:
    """A repository, local or remote. The mirror is made when it is first needed, and again when it is broken."""

    has_commits = True

    def __init__(self, spec: SourceSpec, mirror: Path) -> None:
        """Take `spec` apart; nothing is read yet. Raises `SourceError` for an address or ref we refuse."""
        self.spec = spec
        self.address = read_address(spec.url)
        self.mirror = mirror.absolute()
        self._choose = Chooser(spec.paths, spec.ignore)
        self._git = Git(spec, self.address, self.mirror.with_suffix(".gitconfig"))
        self._remote = Remote(spec, self.address, self._git, self.mirror.parent)
        self._too_large: tuple[str, SourceError] | None = None
        self._lock = threading.Lock()

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
        except SourceError:
            self._drop_parts()
            raise

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
        try:
            said = self._git.run(
                f"--git-dir={self.mirror}",
                "rev-parse",
                "--verify",
                "--quiet",
                "--end-of-options",
                f"{ref}^{{commit}}",
                within=READ_SECONDS,
            )
        except GitFailed as error:
            raise SourceError(
                "the ref of the source does not lead to a commit",
                reason="RefNotFound",
                permanent=True,
                hint="name a branch, or a tag of a commit",
            ) from error
        return said.decode().strip()

    def rebuild(self) -> None:
        """Throw the mirror away."""
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
            raise MirrorBroken(error.said) from error

    def has(self, commit: str) -> bool:
        """Tell whether the tree of `commit` is in the mirror."""
        try:
            self._read("cat-file", "-e", f"{commit}^{{tree}}")
        except MirrorBroken:
            return False
        return True

    def rewritten(self, since: str, target: Target) -> bool:
        """Tell whether `target` does not follow from `since`."""
        if target.id is None:
            return False
        try:
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
        raw = self._read("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", since, target.id)
        return trees.difference(raw, self._choose)

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
        contents = self._blobs([entry.blob for entry in regular], limit)
        for entry in entries:
            if entry.mode.startswith("100"):
                size, data = next(contents)
                yield Entry(entry.path, entry.mode, entry.blob, size), data
            else:
                yield entry, b""
        contents.close()

    def _blobs(self, ids: Sequence[str], limit: int) -> Generator[tuple[int, bytes], None, None]:
        if ids and len(ids[0]) == 64:
            yield from blobs.read(lambda how, asked: self._read("cat-file", how, stdin=asked), ids, limit)
            return
        with self._objects() as database:
            for name in ids:
                try:
                    key = bytes.fromhex(name)
                    size = database.info(key).size
                    data = database.stream(key).read() if size <= limit else b""
                except Exception as error:  # GitPython raises errors of a dozen classes for a damaged object
                    raise MirrorBroken(f"the object {name} cannot be read") from error
                if size <= limit and len(data) != size:
                    raise MirrorBroken(f"the object {name} is cut short")
                yield size, data

    @contextmanager
    def _objects(self) -> Iterator[Any]:
        """Open the mirror's object database through GitPython; its processes end with the block.

        Not as a `git.Repo`, which looks for a repository by the variables of our own environment: we may run
        inside a hook, and then they lead elsewhere.
        """
        git = _gitpython()
        objects = self.mirror / "objects"
        ours = {"GIT_DIR": str(self.mirror), "GIT_OBJECT_DIRECTORY": str(objects)}
        program = git.Git(str(self.mirror))
        program.update_environment(**self._git.environment(), **ours)
        try:
            yield git.GitCmdObjectDB(str(objects), program)
        finally:
            program.clear_cache()

    def commits_touching(self, blobs: Mapping[str, str], since: str | None, target: Target) -> dict[str, Commit]:
        """Walk the history back from `target` until every path of `blobs` has been met with that content."""
        if target.id is None or not blobs:
            return {}
        scope = [target.id] if since is None or not self.has(since) else [target.id, f"^{since}"]
        paths = sorted(blobs) if len(blobs) <= trees.MANY_PATHS else []
        arguments = ("--literal-pathspecs", "log", *history.FORMAT, *scope, "--", *paths)
        with self._git.reading(f"--git-dir={self.mirror}", *arguments, within=history.SECONDS) as stream:
            return history.last_touching(stream, blobs)

    def describe(self, commits: Sequence[str]) -> dict[str, Commit]:
        """Read the commits that are in the mirror."""
        if not commits:
            return {}
        raw = self._read(
            "log",
            "--no-walk=unsorted",
            "--ignore-missing",
            "--stdin",
            *history.HEADER,
            stdin="".join(f"{commit}\n" for commit in commits).encode(),
        )
        return history.described(raw)

    # Keeping

    def applied(self, target: Target) -> None:
        """Pin the commit, so that a difference to it can be taken even after a push by force; tidy now and then."""
        if target.id is None:
            return
        self._read("update-ref", "--no-deref", "--end-of-options", _APPLIED, target.id)
        if self._untidy():
            self._read("gc", "--quiet", "--prune=1.hour.ago")

    def _untidy(self) -> bool:
        objects = self.mirror / "objects"
        packs = sum(1 for _ in (objects / "pack").glob("*.pack"))
        loose = sum(1 for _ in (objects / "17").glob("*"))
        return packs > _MANY_PACKS or loose > _MANY_LOOSE

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
