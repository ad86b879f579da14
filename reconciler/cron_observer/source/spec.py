"""What a source is, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, Protocol

from cron_observer.model import Commit
from cron_observer.source_settings import SourceSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """A place that manifests come from, as the settings describe it."""

    name: str
    url: str = field(repr=False)  #: may carry credentials; they never leave this process
    ref: str | None = None  #: branch, tag, ``refs/…`` or commit id; None follows the repository's HEAD
    paths: tuple[str, ...] = ()  #: folders, files or globs that are read; empty: the whole tree
    ignore: tuple[str, ...] = ()
    environment: str | None = None
    project: str = "default"
    poll_seconds: float = 30.0  #: between two looks, +-10 %
    max_bytes: int = 2_048 * 1024 * 1024  #: that our copy may take on disk
    verify: str = "none"  #: whose signatures are asked for: none, head or range
    allowed_signers: Path | None = None
    gpg_keys: Path | None = None
    committers: tuple[str, ...] = ()  #: e-mail addresses; empty: everybody's
    credentials_ref: str | None = None  #: env:NAME or file:/path of ``user:password``, or of a token
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    ca_file: Path | None = None

    @classmethod
    def of(cls, settings: SourceSettings) -> SourceSpec:
        """Return what the settings of a source say of where it is and how it is read."""
        same = {one.name for one in fields(cls)} - {"max_bytes"}
        return cls(max_bytes=settings.max_megabytes * 1024 * 1024, **{name: getattr(settings, name) for name in same})


class MirrorBroken(Exception):  # noqa: N818  it says what it is
    """Our copy of the repository cannot be read; `Source.rebuild` makes a new one."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a source holds at a moment.

    `id` is a commit, or the digest of a folder, or None for a repository without commits; `ref` the qualified
    name that led to it.
    """

    id: str | None
    ref: str | None = None


#: In place of a mode: the entry has a name that cannot be written, so `Entry.path` is an escaped form of it.
UNNAMABLE: Final = "unnamable"
#: In place of a mode: the file may not be read by us.
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source: Git's mode and the id of its content. `size` in bytes, None where not looked up."""

    path: str
    mode: str
    blob: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between what is known of a source and a target; only manifests and calendar files."""

    added: Sequence[Entry] = ()
    modified: Sequence[Entry] = ()
    deleted: Sequence[str] = ()


class Source(Protocol):
    """A repository or folder. Every method blocks, and raises `SourceError` when the source cannot be read.

    A method that reads what was fetched raises `MirrorBroken` when our copy is at fault.
    """

    spec: SourceSpec
    has_commits: bool  #: False for a plain folder, which has digests instead

    @property
    def fetched(self) -> int:
        """Return the bytes that fetches have brought here since the source was opened; not what reading took."""

    def resolve(self) -> Target:
        """Look where the source stands now, without fetching."""

    def fetch(self, target: Target) -> Target:
        """Bring the content of `target` here; return what really came, which may be newer."""

    def has(self, commit: str) -> bool:
        """Tell whether the content of `commit` is here, so that a difference to it can be taken."""

    def changes(self, target: Target, since: str | None, known: Mapping[str, str] | None = None) -> Changes:
        """Compare `target` with the commit `since`, or with `known` (path to blob) when that is given."""

    def rewritten(self, since: str, target: Target) -> bool:
        """Tell whether `since` is no ancestor of `target`: somebody pushed by force."""

    def verify(self, target: Target, since: str | None) -> None:
        """Verify the signatures that the settings ask for, of what was fetched.

        With ``range`` of every commit since `since`; of the whole history when that is None, or no ancestor. Raises
        `SourceError` (``SignatureRefused``) naming the first commit that is not accepted, its committer and why.
        """

    def entries(self, target: Target, paths: Sequence[str]) -> list[Entry]:
        """Return the entries of `paths` that exist in `target`."""

    def read(self, entries: Sequence[Entry], limit: int) -> Iterator[tuple[Entry, bytes]]:
        """Give the content of regular files, with `Entry.size` filled in; of those over `limit` bytes, none."""

    def commits_touching(self, blobs: Mapping[str, str], since: str | None, target: Target) -> dict[str, Commit]:
        """Return, for each path that is found, the last commit that gave it this content."""

    def describe(self, commits: Sequence[str]) -> dict[str, Commit]:
        """Return author, subject and time of commits, those that are here."""

    def applied(self, target: Target) -> None:
        """Remember that `target` has been applied, so that its content stays here."""

    def rebuild(self) -> None:
        """Throw our copy away; the next `fetch` makes a new one."""

    def watched(self) -> Sequence[tuple[Path, bool]]:
        """Return the local folders, each with whether deeply, whose change may mean a new target."""

    def close(self) -> None:
        """End every process of this source; methods under way raise `SourceError`."""
