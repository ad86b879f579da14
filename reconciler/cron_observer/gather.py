"""Find out what has changed in a source since the last apply, and read it: the part of a pass before its plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from cron_observer.manifest import MAX_FILE_BYTES, VALIDATOR_VERSION
from cron_observer.model import Commit
from cron_observer.plan import DesiredFile
from cron_observer.source import Changes, Entry, Source, Target
from cron_observer.source.reader import Reader
from cron_observer.source.threads import in_thread
from cron_observer.store import sync
from cron_observer.store.engine import Database
from cron_observer.store.sources import Lease
from cron_observer.store.sync import FileRow

log = structlog.get_logger()

_NOBODY: Final = Commit(id=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What a plan is made from. `desired` are the files that were read, `changed` those whose content is new."""

    desired: Sequence[DesiredFile]
    gone: Sequence[str]
    changed: Collection[str]
    blobs: Mapping[str, str]
    texts: Mapping[str, str]
    head: Commit
    loose: bool  #: the plan must also know tasks that are not in sync

    @property
    def paths(self) -> list[str]:
        """Return every path that was read or is gone."""
        return [*(one.file.path for one in self.desired), *self.gone]

    @property
    def names(self) -> list[str]:
        """Return every name that is declared, well or badly."""
        names = {task.name for one in self.desired for task in one.file.tasks}
        return sorted(names.union(*(one.file.broken_names for one in self.desired)))

    def rows(self, erroneous: Collection[str], supplying: Collection[str]) -> list[FileRow]:
        """Return what is to be known of the files that were read.

        The text of a file is kept when it is valid as a whole, or when tasks in force come from it.
        """
        rows = []
        for one in self.desired:
            path, commit = one.file.path, one.commit.id
            valid = path not in erroneous
            state = "ok" if valid else "invalid"
            good = one.file.parseable and (valid or path in supplying)
            rows.append(
                FileRow(
                    path=path,
                    blob=self.blobs[path],
                    state=state if one.file.parseable else "unparseable",
                    documents=one.file.documents,
                    commit=commit,
                    good_blob=self.blobs[path] if good else None,
                    good_text=self.texts[path] if good else None,
                    good_commit=commit if good else None,
                )
            )
        return rows


async def gather(database: Database, source: Source, held: Lease, target: Target, reader: Reader) -> Gathered:
    """Read what is new in `target`, and again every file that had findings or whose commit was rewritten.

    Raises `SourceError`, and `MirrorBroken` when our copy is at fault.
    """
    anew = held.validator_version != VALIDATOR_VERSION
    since = None if anew else held.applied_commit
    if since is not None and not await in_thread(source.has, since):
        since = None
    rewritten = since is not None and await in_thread(source.rewritten, since, target)
    if rewritten:
        log.warning("history_rewritten", source=held.name, old=since, new=target.id)
    whole = since is None or rewritten
    async with database.transaction([held.tenant_id]) as conn:
        known = await sync.files(conn, held, None if whole else [])
    blobs = {path: row.blob for path, row in known.items()} if since is None else None
    changes = await in_thread(source.changes, target, since, blobs)
    entries, commits = await in_thread(
        _chosen, source, target, None if whole else since, changes, known, anew=anew, rewritten=rewritten
    )
    found = await in_thread(lambda: list(reader.parse(source.read(entries, MAX_FILE_BYTES))))
    head = Commit(id=target.id if source.has_commits else None)
    if source.has_commits and target.id is not None:
        head = (await in_thread(source.describe, [target.id])).get(target.id, head)
    return Gathered(
        desired=[DesiredFile(file=file, commit=commits.get(entry.path, head)) for entry, _, file in found],
        gone=list(changes.deleted),
        changed={entry.path for entry in (*changes.added, *changes.modified)},
        blobs={entry.path: entry.blob for entry, _, _ in found},
        texts={entry.path: data.decode("utf-8", "replace") for entry, data, _ in found},
        head=head,
        loose=whole or held.counts.get("kept", 0) + held.counts.get("held", 0) > 0,
    )


def _chosen(
    source: Source,
    target: Target,
    since: str | None,
    changes: Changes,
    known: Mapping[str, FileRow],
    *,
    anew: bool,
    rewritten: bool,
) -> tuple[list[Entry], dict[str, Commit]]:
    """Return the entries to read, and the commit that each is credited to where it is not the target."""
    fresh = [*changes.added, *changes.modified]
    commits = source.commits_touching({entry.path: entry.blob for entry in fresh}, since, target)
    left = {
        path: row for path, row in known.items() if path not in {*(entry.path for entry in fresh), *changes.deleted}
    }
    again = {path for path, row in left.items() if anew or row.state != "ok"}
    if rewritten:
        moved = source.commits_touching({path: row.blob for path, row in left.items()}, None, target)
        again |= {path for path, commit in moved.items() if commit.id != left[path].commit}
        commits |= moved
    stored = {path: left[path].commit for path in again if path not in commits}
    described = source.describe(sorted({commit for commit in stored.values() if commit is not None}))
    for path, commit in stored.items():
        commits[path] = _NOBODY if commit is None else described.get(commit, Commit(id=commit))
    return [*fresh, *source.entries(target, sorted(again))], commits
