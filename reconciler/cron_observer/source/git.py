"""A Git repository as a source: a bare mirror, fetched by the `git` program and read through GitPython.

There is no work tree, ever, and nothing of the repository is run: no checkout, no hooks, no filters, no
submodules. What touches the network or a configuration is the program with a fixed list of arguments
(`source.command`); GitPython only reads objects out of our own mirror.
"""

from __future__ import annotations

import difflib
import os
import shutil
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cron_observer.errors import SourceError
from cron_observer.model import Commit
from cron_observer.source import blobs, history, trees
from cron_observer.source.address import common_dir, git_dir, is_commit, qualified, read_address
from cron_observer.source.command import FETCH_SECONDS, LOOK_SECONDS, READ_SECONDS, Git, GitFailed, meaning
from cron_observer.source.spec import Changes, Entry, MirrorBroken, SourceSpec, Target
from cron_observer.source.trees import Chooser

_OBSERVED: Final = "refs/cron-observer/observed"
_APPLIED: Final = "refs/cron-observer/applied"

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
        self._names = () if spec.ref is None or is_commit(spec.ref) else qualified(spec.ref)
        self._choose = Chooser(spec.paths, spec.ignore)
        self._git = Git(self.address, self.mirror.with_suffix(".gitconfig"))
        self._configured = False
        self._lock = threading.Lock()

    # Looking

    def resolve(self) -> Target:
        """Ask the repository which commit the ref names; of no ref, its HEAD."""
        if self.spec.ref is not None and is_commit(self.spec.ref):
            return Target(self.spec.ref, self.spec.ref)
        patterns = [form for name in self._names for form in (name, f"{name}^{{}}")] or ["HEAD"]
        refs, symbolic = self._look(*patterns)
        if not self._names:
            if "HEAD" in refs:
                return Target(refs["HEAD"], symbolic or "HEAD")
            return self._nothing(symbolic)
        for name in self._names:
            if name in refs:
                return Target(refs.get(f"{name}^{{}}", refs[name]), name)
        return self._nothing(self._names[0])

    def _look(self, *patterns: str) -> tuple[dict[str, str], str | None]:
        """Return the refs that match, with their ids, and the branch that HEAD names."""
        try:
            output = self._remote(
                "ls-remote", "--symref", "--end-of-options", self.address.url, *patterns, within=LOOK_SECONDS
            )
        except GitFailed as error:
            raise _unexplained(error) from None
        refs, symbolic = {}, None
        for line in output.decode("utf-8", "replace").splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref: "):
                symbolic = value.removeprefix("ref: ") if name == "HEAD" else symbolic
            else:
                refs[name] = value
        return refs, symbolic

    def _nothing(self, wanted: str | None) -> Target:
        """Answer for a ref that is not there: an empty repository has no commits, any other has another ref."""
        refs, _ = self._look()
        if not refs:
            return Target(None, wanted)
        if wanted is None:
            raise SourceError(
                "the HEAD of the repository names a branch that has no commits",
                reason="RefNotFound",
                permanent=True,
                hint="set the source's ref to a branch that exists",
            )
        branches = [name.removeprefix("refs/heads/") for name in refs if name.startswith("refs/heads/")]
        short = wanted.removeprefix("refs/heads/")
        near = difflib.get_close_matches(short, branches, n=1, cutoff=0.6) or sorted(branches)[:3]
        raise SourceError(
            f"the repository has no branch or tag {short[:100]}",
            reason="RefNotFound",
            permanent=True,
            hint=f"it has {', '.join(near)}" if near else "push it, or set the source's ref to one that exists",
        )

    def _remote(self, *arguments: str, within: float) -> bytes:
        self._prepare()
        if self.address.path is not None and git_dir(self.address.path) is None:
            there = self.address.path.exists()
            raise SourceError(
                f"{self.address.url} {'is no Git repository' if there else 'does not exist'}",
                reason="RepositoryNotFound",
                permanent=True,
                hint="look at the address of the source",
            )
        try:
            return self._git.run(*arguments, within=within)
        except GitFailed as error:
            known = None if str(self.mirror.parent) in error.said else meaning(error.said)
            if known is not None:
                raise known from None
            raise

    # Fetching

    def fetch(self, target: Target) -> Target:
        """Fetch `target` into the mirror. A mirror that is in the way is made anew, once."""
        if target.id is None:
            return target
        wanted = "HEAD" if target.ref is None else target.ref
        fresh = not self.mirror.is_dir()
        try:
            if fresh:
                self._make(target.id, wanted)
            else:
                self._fetch_into(self.mirror, wanted)
        except GitFailed as error:
            if fresh:
                raise _unexplained(error) from None
            try:
                self._make(target.id, wanted)
            except GitFailed as again:
                raise _unexplained(again) from None
        return Target(self._commit_of(_OBSERVED), target.ref)

    def _fetch_into(self, folder: Path, wanted: str) -> None:
        self._remote(
            f"--git-dir={folder}",
            "fetch",
            "--quiet",
            "--force",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-show-forced-updates",
            "--end-of-options",
            self.address.url,
            f"+{wanted}:{_OBSERVED}",
            within=FETCH_SECONDS,
        )

    def _make(self, commit: str, wanted: str) -> None:
        """Make the mirror beside its place and move it there when it is whole."""
        self._prepare()
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
            self._fetch_into(building, wanted)
            self.rebuild()
            building.rename(self.mirror)
        except OSError as error:
            raise _unwritable(error) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _prepare(self) -> None:
        with self._lock:
            if not self._configured:
                try:
                    self._git.configure(self.mirror)
                except OSError as error:
                    raise _unwritable(error) from error
                self._configured = True

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


def _unexplained(error: GitFailed) -> SourceError:
    said = next((line.strip() for line in error.said.splitlines() if line.strip()), "git says nothing")
    return SourceError(
        f"git failed: {said[:300]}",
        reason="FetchFailed",
        permanent=False,
        hint="run the same by hand; it is tried again, ever more rarely",
    )


def _unwritable(error: OSError) -> SourceError:
    return SourceError(
        f"the mirror cannot be written: {error.strerror}",
        reason="MirrorNotWritable",
        permanent=False,
        hint="let the reconciler's account write below the data folder, and make room there",
    )
