"""Where manifests come from: a Git repository, or a plain folder.

`open_source` is the door. What it returns blocks: call it in a worker thread.
"""

from __future__ import annotations

from pathlib import Path

from cron_observer.source.address import Address, read_address
from cron_observer.source.spec import Changes, Entry, MirrorBroken, Source, SourceSpec, Target
from cron_observer.source.trees import is_calendar_file

__all__ = [
    "Address",
    "Changes",
    "Entry",
    "MirrorBroken",
    "Source",
    "SourceSpec",
    "Target",
    "detect_kind",
    "is_calendar_file",
    "open_source",
    "read_address",
]


def detect_kind(url: str) -> str:
    """Return ``folder`` for an existing folder that is no Git repository, else ``git``."""
    path = read_address(url).path
    if path is None:
        return "git"
    from cron_observer.source.address import git_dir

    return "folder" if path.is_dir() and git_dir(path) is None else "git"


def open_source(spec: SourceSpec, cache: Path, key: str) -> Source:
    """Open what `spec` names; nothing is read yet. A Git mirror is kept as ``cache/key.git``.

    Raises `SourceError` when the address or the ref is of a form that we refuse.
    """
    if detect_kind(spec.url) == "folder":
        from cron_observer.source.folder import FolderSource

        return FolderSource(spec)
    from cron_observer.source.git import GitSource

    return GitSource(spec, cache / f"{key}.git")
