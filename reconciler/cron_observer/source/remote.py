"""The repository at its own place: which commit a ref names there, and fetching it into a mirror."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cron_observer.errors import SourceError
from cron_observer.source import refs
from cron_observer.source.address import Address, common_dir, git_dir, is_commit, qualified
from cron_observer.source.command import FETCH_SECONDS, LOOK_SECONDS, Git
from cron_observer.source.failures import GitFailed, meaning, too_large, unexplained
from cron_observer.source.pump import WATCH_SECONDS
from cron_observer.source.spec import SourceSpec, Target

#: Bytes of a MiB, in which the settings count.
_MIB: Final = 1024 * 1024


class Remote:
    """What a source follows, as Git reaches it."""

    def __init__(self, spec: SourceSpec, address: Address, git: Git, ours: Path) -> None:
        """`ours` is the folder of mirrors. Raises `SourceError` for a ref of a form that we refuse."""
        self.spec, self.address = spec, address
        self.fetched = 0  #: bytes that fetches have brought, also those that failed
        self._git, self._ours = git, str(ours)
        self._names = () if spec.ref is None or is_commit(spec.ref) else qualified(spec.ref)

    def resolve(self) -> Target:
        """Ask the repository which commit the ref names; of no ref, its HEAD."""
        if self.spec.ref is not None and is_commit(self.spec.ref):
            return Target(self.spec.ref, self.spec.ref)
        if self.address.path is not None:
            plain = refs.branch(self.address.path, self._names[0] if self._names else None)
            if plain is not None:
                return plain
        patterns = [form for name in self._names for form in (name, f"{name}^{{}}")] or ["HEAD"]
        there, symbolic = self._look(*patterns)
        if not self._names:
            if "HEAD" in there:
                return Target(there["HEAD"], symbolic or "HEAD")
            return self._nothing(symbolic)
        for name in self._names:
            if name in there:
                return Target(there.get(f"{name}^{{}}", there[name]), name)
        return self._nothing(self._names[0])

    def _look(self, *patterns: str) -> tuple[dict[str, str], str | None]:
        """Return the refs that match, with their ids, and the branch that HEAD names."""
        try:
            output = self._ask(
                "ls-remote", "--symref", "--end-of-options", self.address.url, *patterns, within=LOOK_SECONDS
            )
        except GitFailed as error:
            raise unexplained(error) from None
        there, symbolic = {}, None
        for line in output.decode("utf-8", "replace").splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref: "):
                symbolic = value.removeprefix("ref: ") if name == "HEAD" else symbolic
            else:
                there[name] = value
        return there, symbolic

    def _nothing(self, wanted: str | None) -> Target:
        """Answer for a ref that is not there: an empty repository has no commits, any other has another ref."""
        there, _ = self._look()
        if not there:
            return Target(None, wanted)
        if wanted is None:
            raise SourceError(
                "the HEAD of the repository names a branch that has no commits",
                reason="RefNotFound",
                permanent=True,
                hint="set the source's ref to a branch that exists",
            )
        branches = [name.removeprefix("refs/heads/") for name in there if name.startswith("refs/heads/")]
        short = wanted.removeprefix("refs/heads/")
        near = difflib.get_close_matches(short, branches, n=1, cutoff=0.6) or sorted(branches)[:3]
        raise SourceError(
            f"the repository has no branch or tag {short[:100]}",
            reason="RefNotFound",
            permanent=True,
            hint=f"it has {', '.join(near)}" if near else "push it, or set the source's ref to one that exists",
        )

    def fetch_into(self, folder: Path, wanted: str, into: str) -> None:
        """Fetch `wanted` as the ref `into` of the mirror at `folder`, which may grow to ``max_bytes``.

        Somebody looks at it now and then meanwhile; what comes within a blink is judged by its packs afterwards.

        Raises `GitFailed` when the mirror may be at fault, and `SourceError` when it is not.
        """
        watch = self._watching(folder)
        began = time.monotonic()
        packs = folder / "objects" / "pack"
        before = size(packs)  # all that comes, comes as packs: `transfer.fsckObjects` looks at nothing else
        try:
            if not self._pull(folder, wanted, into, watch):
                self._fetch(folder, wanted, into, watch)
        finally:
            self.fetched += max(0, size(packs) - before)
        quick = time.monotonic() - began < WATCH_SECONDS
        self._watching(packs if quick else folder)()

    def _pull(self, folder: Path, wanted: str, into: str, watch: Callable[[], None]) -> bool:
        """Fetch from a repository on this machine by the plumbing alone; False when that does not work.

        A fetch walks through everything that it has to see that nothing is missing of what came, which takes longer
        the larger the repository is. What came has been looked through already: `transfer.fsckObjects` takes no pack
        whose objects name one that is not there.
        """
        if self.address.path is None or not (wanted == "HEAD" or wanted.startswith("refs/heads/")):
            return False
        there = git_dir(self.address.path)
        if there is None or (common_dir(there) / "shallow").exists():
            return False  # of a history that was cut off, parents may be missing
        # Without a lock, Git checks a pack of a hundred objects and breaks down when it should say which it has locked.
        pulling = ("fetch-pack", "--quiet", "--no-progress", "--lock-pack", str(self.address.path), wanted)
        try:
            said = self._git.remote(f"--git-dir={folder}", *pulling, within=FETCH_SECONDS, watch=watch)
            commit, _, name = said.decode("utf-8", "replace").rstrip("\n").rpartition("\n")[2].partition(" ")
            if name != wanted or not is_commit(commit):
                return False
            refs.write(folder, into, commit)
        except GitFailed:
            return False  # the fetch says why
        finally:
            unlock(folder)
        return True

    def _fetch(self, folder: Path, wanted: str, into: str, watch: Callable[[], None]) -> None:
        self._ask(
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
            f"+{wanted}:{into}",
            within=FETCH_SECONDS,
            watch=watch,
        )

    def _watching(self, folder: Path) -> Callable[[], None]:
        def watch() -> None:
            if size(folder) > self.spec.max_bytes:
                raise too_large(
                    f"the copy of the repository takes more than {self.spec.max_bytes / _MIB:,.0f} MiB",
                    "set max_megabytes higher, or take large files out of the repository's history",
                )

        return watch

    def _ask(self, *arguments: str, within: float, watch: Callable[[], None] | None = None) -> bytes:
        if self.address.path is not None and git_dir(self.address.path) is None:
            there = self.address.path.exists()
            raise SourceError(
                f"{self.address.url} {'is no Git repository' if there else 'does not exist'}",
                reason="RepositoryNotFound",
                permanent=True,
                hint="look at the address of the source",
            )
        try:
            return self._git.remote(*arguments, within=within, watch=watch)
        except GitFailed as error:
            known = None if self._ours in error.said else meaning(error.said)
            if known is not None:
                raise known from None
            raise


def unlock(folder: Path) -> None:
    """Let the packs of a mirror be tidied again that a fetch has locked until there is a ref to what came."""
    for lock in (folder / "objects" / "pack").glob("*.keep"):
        lock.unlink(missing_ok=True)


def size(folder: Path) -> int:
    """Return the bytes that the files below `folder` take; what goes meanwhile is passed over."""
    total, waiting = 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for one in found:
                    try:
                        if one.is_dir(follow_symlinks=False):
                            waiting.append(one.path)
                        else:
                            total += one.stat(follow_symlinks=False).st_size
                    except OSError:
                        continue
        except OSError:
            continue
    return total
