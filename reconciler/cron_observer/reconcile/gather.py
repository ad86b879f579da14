"""Find out what has changed in a source since the last apply, and read it: the part of a pass before its plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from cron_observer.errors import ScheduleError
from cron_observer.manifest import MAX_FILE_BYTES, VALIDATOR_VERSION
from cron_observer.manifest.calendar import file_path
from cron_observer.model import Commit, Context, Definition, Finding, ParsedFile, Severity
from cron_observer.plan import CALENDAR, DesiredFile
from cron_observer.plan.contents import Files
from cron_observer.reconcile.layering import Layering, settle
from cron_observer.source import Changes, Entry, Source, Target, is_calendar_file
from cron_observer.source.reader import MAX_CALENDAR_BYTES, Reader
from cron_observer.source.threads import in_thread
from cron_observer.store import calendars, layers, sync
from cron_observer.store.engine import Database
from cron_observer.store.sources import Lease
from cron_observer.store.sync import FileRow

log = structlog.get_logger()

_NOBODY: Final = Commit(id=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What a plan is made from. `desired` are the files that were read, `changed` those whose content is new.

    `tracked` are changed calendar files. `files` says what those hold that the calendars of what was read name: by
    manifest, then as it is written there.
    """

    desired: Sequence[DesiredFile]
    gone: Sequence[str]
    changed: Collection[str]
    blobs: Mapping[str, str]
    texts: Mapping[str, str]
    tracked: Sequence[FileRow]
    files: Files
    noted: Mapping[str, Sequence[Finding]]  #: findings of calendar files, by manifest
    head: Commit
    loose: bool  #: the plan must also know tasks that are not in sync
    strategy: str  #: tree, or full: all that is known was compared
    #: What a newer validator has against unchanged files that were valid before, as warnings; they stay in force.
    ratcheted: Mapping[str, Sequence[Finding]]
    layers: Sequence[Definition]  #: the Defaults and the Project that everything was read with

    @property
    def paths(self) -> list[str]:
        """Return every path that was read or is gone."""
        return [*(one.file.path for one in self.desired), *self.gone]

    @property
    def names(self) -> list[str]:
        """Return every name of a task that is declared, well or badly, or renamed from."""
        tasks = [task for one in self.desired for task in one.file.tasks]
        names = {task.name for task in tasks} | {task.renamed_from for task in tasks if task.renamed_from}
        return sorted(names.union(*(one.file.broken_names for one in self.desired)))

    @property
    def kinds(self) -> set[str]:
        """Return the kinds beside tasks that are declared, well or badly."""
        files = [one.file for one in self.desired]
        return {one.kind for file in files for one in file.others} | {
            kind for file in files for kind, _ in file.broken_others
        }

    def rows(self, erroneous: Collection[str], supplying: Collection[str]) -> list[FileRow]:
        """Return what is to be known of the files that were read.

        The text of a file is kept when it is valid as a whole, or when tasks in force come from it.
        """
        rows = list(self.tracked)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a target is compared with."""

    since: str | None  #: the commit in force, None where no difference to it is taken: all that is known is compared
    rewritten: bool  #: the target does not follow from the commit in force
    anew: bool  #: everything is read again, because the validator is another one

    @property
    def strategy(self) -> str:
        """Return how the changes are found: ``tree``, or ``full``."""
        return "full" if self.since is None else "tree"


def basis(source: Source, held: Lease, target: Target, *, check: bool = False) -> Basis:
    """Find out what a target that has been fetched is compared with; `check` asks for all that is known. Blocks."""
    applied, anew = held.applied_commit, held.validator_version != VALIDATOR_VERSION
    here = applied is not None and (applied == target.id or source.has(applied))
    follows = here and (applied == target.id or not source.rewritten(str(applied), target))
    # where the settings were changed, another history is nothing that somebody has pushed
    rewritten = applied is not None and held.validator_version is not None and not follows
    if rewritten:
        log.warning("history_rewritten", source=held.name, old=applied, new=target.id)
    return Basis(since=applied if here and not anew and not check else None, rewritten=rewritten, anew=anew)


async def gather(
    database: Database,
    source: Source,
    held: Lease,
    target: Target,
    reader: Reader,
    base: Basis,
    also: Collection[str] = (),
) -> Gathered:
    """Read what is new in `target`, and again every file that had findings or whose commit was rewritten.

    Files of `also` are read again, too, and those whose calendars name a calendar file that has changed.

    Raises `SourceError`, and `MirrorBroken` when our copy is at fault.
    """
    since, anew, rewritten = base.since, base.anew, base.rewritten
    whole = since is None or rewritten
    async with database.transaction([held.tenant_id]) as conn:
        known = await sync.files(conn, held, None if whole else [])
    blobs = {path: row.blob for path, row in known.items()} if since is None else None
    changes = await in_thread(source.changes, target, since, blobs)
    async with database.transaction([held.tenant_id]) as conn:
        in_force = await layers.in_force(conn, held.tenant_id, held.source_id, held.project_id)
        context = Context(environment=source.spec.environment, layers=in_force)
        again = {*also, *await _naming(conn, held, changes)}
        if unknown := sorted(again - known.keys()):
            known |= await sync.files(conn, held, unknown)
    entries, commits = await in_thread(
        _chosen, source, target, None if whole else since, changes, known, again, anew=anew, rewritten=rewritten
    )
    tracked = [entry for entry in entries if is_calendar_file(entry.path)]
    manifests = [entry for entry in entries if not is_calendar_file(entry.path)]
    found, laid, credited = await _laid_out(database, source, held, target, reader, context, manifests, changes.deleted)
    commits |= credited
    ratcheted = (
        _ratcheted(held, known, [(entry, file) for entry, _, file in found]) if anew and not laid.folders else {}
    )
    texts = {entry.path: data.decode("utf-8", "replace") for entry, data, _ in found}
    found = [one for one in found if one[0].path not in ratcheted]
    files, noted = await in_thread(_calendar_files, source, target, reader, [file for _, _, file in found])
    head = Commit(id=target.id if source.has_commits else None)
    if source.has_commits and target.id is not None:
        head = (await in_thread(source.describe, [target.id])).get(target.id, head)
    return Gathered(
        desired=[DesiredFile(file=file, commit=commits.get(entry.path, head)) for entry, _, file in found],
        gone=list(changes.deleted),
        changed={entry.path for entry in (*changes.added, *changes.modified)},
        blobs={entry.path: entry.blob for entry, _, _ in found},
        texts=texts,
        tracked=[_tracked(entry, commits.get(entry.path, head)) for entry in tracked],
        files=files,
        noted=noted,
        head=head,
        loose=whole or held.counts.get("kept", 0) + held.counts.get("held", 0) > 0,
        strategy=base.strategy,
        ratcheted=ratcheted,
        layers=laid.context.layers,
    )


async def _laid_out(
    database: Database,
    source: Source,
    held: Lease,
    target: Target,
    reader: Reader,
    in_force: Context,
    manifests: Sequence[Entry],
    gone: Collection[str],
) -> tuple[list[tuple[Entry, bytes, ParsedFile]], Layering, dict[str, Commit]]:
    """Read manifests with the layers that will hold, and with them the unchanged ones that others bear upon now."""
    read = await in_thread(lambda: list(source.read(manifests, MAX_FILE_BYTES)))
    laid = await settle(database, held, reader, in_force, read, gone)
    commits: dict[str, Commit] = {}
    if laid.folders:
        more, commits = await _relaid(database, source, held, target, laid.folders, {one.path for one in manifests})
        read += more
    return await in_thread(_parsed, reader, read, laid), laid, commits


def _parsed(
    reader: Reader, read: Sequence[tuple[Entry, bytes]], laid: Layering
) -> list[tuple[Entry, bytes, ParsedFile]]:
    """Parse files with the layers that will hold. What was parsed with the same before is not parsed again."""
    if not laid.parsed:
        return list(reader.parse(read, laid.context))
    known = [(entry, data, laid.parsed[entry.path]) for entry, data in read if entry.path in laid.parsed]
    rest = [one for one in read if one[0].path not in laid.parsed]
    return [*known, *reader.parse(rest, laid.context)]


async def _relaid(
    database: Database,
    source: Source,
    held: Lease,
    target: Target,
    folders: Collection[str],
    read: Collection[str],
) -> tuple[list[tuple[Entry, bytes]], dict[str, Commit]]:
    """Read the unchanged manifests in directories whose layers have changed, with the commits they are credited to."""
    async with database.transaction([held.tenant_id]) as conn:
        rows = await layers.dependants(conn, held, folders)
    left = {path: row for path, row in rows.items() if path not in read and not is_calendar_file(path)}
    entries, commits = await in_thread(_again, source, target, left)
    return await in_thread(lambda: list(source.read(entries, MAX_FILE_BYTES))), commits


def _ratcheted(
    held: Lease, known: Mapping[str, FileRow], found: Sequence[tuple[Entry, ParsedFile]]
) -> dict[str, list[Finding]]:
    """Return the files that an older validator found valid, this one does not, and nobody has changed since."""
    if held.validator_version is None:  # the settings were changed: the files may mean something else now
        return {}
    several = {}
    for entry, file in found:
        row = known.get(entry.path)
        same = row is not None and row.state == "ok" and row.blob == entry.blob
        if same and any(one.severity is Severity.ERROR for one in file.findings):
            several[entry.path] = [_since_this_version(one) for one in file.findings]
    return several


def _since_this_version(one: Finding) -> Finding:
    if one.severity is not Severity.ERROR:
        return one
    message = f"{one.message} (an error since this version; what is in force stays until the file changes)"
    return replace(one, severity=Severity.WARNING, message=message)


def _tracked(entry: Entry, commit: Commit) -> FileRow:
    return FileRow(path=entry.path, blob=entry.blob, state="ok", documents=0, commit=commit.id)


async def _naming(conn: Any, held: Lease, changes: Changes) -> set[str]:
    """Return the manifests in force whose calendars name a calendar file that has changed."""
    changed = {entry.path for entry in (*changes.added, *changes.modified)} | set(changes.deleted)
    changed = {path for path in changed if is_calendar_file(path)}
    if not changed:
        return set()
    rows = await calendars.with_files(conn, held)
    return {path for path, names in rows if any(file_path(path, name) in changed for name in names)}


def _calendar_files(
    source: Source, target: Target, reader: Reader, manifests: Sequence[ParsedFile]
) -> tuple[Files, dict[str, list[Finding]]]:
    """Read the calendar files that the calendars of these manifests name; with them, what is to be noted of each."""
    declared = [one for file in manifests for one in file.others if one.kind == CALENDAR]
    named = [
        (one, entry["ics"], file_path(one.path, entry["ics"]))
        for one in declared
        for entry in one.spec.get("entries") or ()
        if "ics" in entry
    ]
    if not named:
        return {}, {}
    entries = source.entries(target, sorted({path for _, _, path in named if path is not None}))
    held = {entry.path: content for entry, content in reader.calendars(source.read(entries, MAX_CALENDAR_BYTES))}
    files: dict[str, dict[str, Mapping[str, Any] | ScheduleError]] = {}
    noted: dict[str, list[Finding]] = {}
    for one, written, path in named:
        if path not in held:
            continue
        content = held[path]
        error = next((found for found in content["findings"] if found.severity is Severity.ERROR), None)
        if error is None:
            files.setdefault(one.path, {})[written] = {"dates": content["dates"], "spans": content["spans"]}
            noted.setdefault(one.path, []).extend(_told(one, path, found) for found in content["findings"])
        else:
            message = f"the calendar file cannot be read: {_where(path, error)}: {error.message}"
            files.setdefault(one.path, {})[written] = ScheduleError(
                message, pointer="/entries", rule=error.code, hint=error.hint
            )
    return files, noted


def _where(path: str | None, found: Finding) -> str:
    return f"{path}:{found.line}" if found.line else f"{path}"


def _told(one: Definition, path: str | None, found: Finding) -> Finding:
    """Tell what was found in a calendar file where the manifest names it."""
    message = f"{_where(path, found)}: {found.message}"
    return replace(found, path=one.path, line=one.line, kind=one.kind, name=one.name, message=message)


def _chosen(
    source: Source,
    target: Target,
    since: str | None,
    changes: Changes,
    known: Mapping[str, FileRow],
    also: Collection[str],
    *,
    anew: bool,
    rewritten: bool,
) -> tuple[list[Entry], dict[str, Commit]]:
    """Return the entries to read, and the commit that each is credited to where it is not the target."""
    fresh = [*changes.added, *changes.modified]
    commits = source.commits_touching({entry.path: entry.blob for entry in fresh}, since, target)
    touched = {*(entry.path for entry in fresh), *changes.deleted}
    left = {path: row for path, row in known.items() if path not in touched}
    again = {path for path, row in left.items() if anew or row.state != "ok" or path in also}
    if rewritten:
        moved = source.commits_touching({path: row.blob for path, row in left.items()}, None, target)
        again |= {path for path, commit in moved.items() if commit.id != left[path].commit}
        commits |= moved
    entries, stored = _again(source, target, {path: left[path] for path in again})
    return [*fresh, *entries], stored | commits


def _again(source: Source, target: Target, rows: Mapping[str, FileRow]) -> tuple[list[Entry], dict[str, Commit]]:
    """Return the entries of files that are known, those that are still there, and the commit each is credited to."""
    described = source.describe(sorted({row.commit for row in rows.values() if row.commit is not None}))
    commits = {
        path: _NOBODY if row.commit is None else described.get(row.commit, Commit(id=row.commit))
        for path, row in rows.items()
    }
    return source.entries(target, sorted(rows)), commits
