"""What a pass over a source writes: its run, the table of files, findings, counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.model import Commit, Finding
from cron_observer.plan import NOT_HANDED_OVER
from cron_observer.schedule import new_id
from cron_observer.store import arrays
from cron_observer.store.batches import prepared
from cron_observer.store.jsonb import to_json
from cron_observer.store.sources import Lease, Overtaken

#: Rows that one statement writes; more would hold its memory twice.
BATCH: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """What is known of one file: `good_*` is the text that the tasks in force come from."""

    path: str
    blob: str
    state: str  #: ok, invalid, unparseable
    documents: int
    commit: str | None
    good_blob: str | None = None
    good_text: str | None = None
    good_commit: str | None = None


_ABANDON_RUNS: Final = text("""
    UPDATE sync_runs SET outcome = 'abandoned', finished_at = :now, error = 'the reconciler ended in its midst'
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND outcome = 'running' AND epoch < :epoch
      AND run_id IN (SELECT r.run_id FROM sync_runs AS r
                     WHERE r.tenant_id = :tenant_id AND r.source_id = :source_id
                     ORDER BY r.run_id DESC LIMIT 20)""")

_BEGIN_RUN: Final = text("""
    INSERT INTO sync_runs (tenant_id, run_id, source_id, trigger, epoch, from_commit, to_commit, outcome, started_at)
    VALUES (:tenant_id, :run_id, :source_id, :trigger, :epoch, :from_commit, :to_commit, 'running', :now)""")

_OBSERVE: Final = text("""
    UPDATE sources SET observed_commit = CAST(:commit AS text), observed_at = :now, ref = CAST(:ref AS text),
        observed_seq = observed_seq + 1
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND lease_epoch = :epoch
    RETURNING observed_seq""")

_END_RUN: Final = text("""
    UPDATE sync_runs SET outcome = :outcome, finished_at = :now, counts = coalesce(CAST(:counts AS jsonb), counts),
        to_commit = coalesce(CAST(:commit AS text), to_commit), author = :author, subject = :subject,
        committed_at = :committed_at, error = :error, strategy = :strategy, timings = CAST(:timings AS jsonb),
        held = CAST(:held AS jsonb), plan_hash = :plan_hash
    WHERE tenant_id = :tenant_id AND run_id = :run_id AND outcome = 'running'""")

_FILES: Final = text("""
    SELECT path, blob, state, documents, commit FROM manifest_files
    WHERE tenant_id = :tenant_id AND source_id = :source_id""")

_SOME_FILES: Final = text("""
    SELECT path, blob, state, documents, commit FROM manifest_files
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND state <> 'ok'
    UNION ALL
    SELECT path, blob, state, documents, commit FROM manifest_files
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND state = 'ok'
      AND path = ANY (CAST(:paths AS text[]))""")

_SAVE_FILES: Final = text("""
    INSERT INTO manifest_files AS f
        (tenant_id, source_id, path, blob, state, documents, commit, good_blob, good_text, good_commit)
    SELECT :tenant_id, :source_id, v.path, v.blob, v.state, v.documents, v.commit, v.good_blob, v.good_text,
        v.good_commit
    FROM unnest(CAST(:path AS text[]), CAST(:blob AS text[]), CAST(:state AS text[]), CAST(:documents AS int[]),
        CAST(:commit AS text[]), CAST(:good_blob AS text[]), CAST(:good_text AS text[]), CAST(:good_commit AS text[]))
        AS v (path, blob, state, documents, commit, good_blob, good_text, good_commit)
    ON CONFLICT (tenant_id, source_id, path) DO UPDATE SET blob = excluded.blob, state = excluded.state,
        documents = excluded.documents, commit = excluded.commit,
        good_blob = CASE WHEN excluded.good_text IS NULL THEN f.good_blob ELSE excluded.good_blob END,
        good_commit = CASE WHEN excluded.good_text IS NULL THEN f.good_commit ELSE excluded.good_commit END,
        good_text = coalesce(excluded.good_text, f.good_text)""")

_FORGET_FILES: Final = text("""
    DELETE FROM manifest_files
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND path = ANY (CAST(:paths AS text[]))""")

_FORGET_FINDINGS: Final = text("""
    DELETE FROM sync_findings
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND path = ANY (CAST(:paths AS text[]))
    RETURNING path, code, kind, name""")

_ADD_FINDINGS: Final = text("""
    INSERT INTO sync_findings (tenant_id, source_id, run_id, path, n, severity, code, line, "column", end_line,
        end_column, pointer, kind, name, message, hint, excerpt)
    SELECT :tenant_id, :source_id, :run_id, v.*
    FROM unnest(CAST(:path AS text[]), CAST(:n AS int[]), CAST(:severity AS text[]), CAST(:code AS text[]),
        CAST(:line AS int[]), CAST(:column AS int[]), CAST(:end_line AS int[]), CAST(:end_column AS int[]),
        CAST(:pointer AS text[]), CAST(:kind AS text[]), CAST(:name AS text[]), CAST(:message AS text[]),
        CAST(:hint AS text[]), CAST(:excerpt AS text[])) AS v""")

#: What its source holds is free for whom it is handed over to.
_FREED: Final = text("""
    SELECT EXISTS (
        SELECT FROM sync_findings AS f
        WHERE f.tenant_id = :tenant_id AND f.source_id = :source_id AND f.code = ANY (CAST(:outside AS text[]))
          AND NOT EXISTS (
              SELECT FROM tasks AS t
              WHERE f.kind = 'Task' AND t.tenant_id = :tenant_id AND t.project_id = :project_id
                AND t.live_name = f.name AND t.source_id IS DISTINCT FROM :source_id AND t.removed_at IS NULL
                AND NOT (f.code = :handed_over AND t.sync = 'HELD'))
          AND NOT EXISTS (
              SELECT FROM calendars AS c
              WHERE f.kind = 'Calendar' AND c.tenant_id = :tenant_id AND c.project_id = :project_id
                AND c.name = f.name AND c.source_id <> :source_id AND c.removed_at IS NULL
                AND NOT (f.code = :handed_over AND c.sync = 'HELD'))
          AND NOT EXISTS (
              SELECT FROM task_groups AS g
              WHERE f.kind = 'TaskGroup' AND g.tenant_id = :tenant_id AND g.project_id = :project_id
                AND g.name = f.name AND g.source_id <> :source_id AND g.removed_at IS NULL
                AND NOT (f.code = :handed_over AND g.sync = 'HELD'))
          AND NOT EXISTS (
              SELECT FROM layers AS l
              WHERE f.kind = l.kind AND l.tenant_id = :tenant_id AND l.project_id = :project_id
                AND l.name = f.name AND l.source_id <> :source_id AND l.removed_at IS NULL))""")


_WAITS: Final = text("""
    SELECT EXISTS (
        SELECT FROM sync_findings AS f
        WHERE f.tenant_id = :tenant_id AND f.source_id = :source_id AND f.code = ANY (CAST(:codes AS text[])))""")


#: Of every source, the newest runs are kept however old they are.
_FORGET_RUNS: Final = text("""
    DELETE FROM sync_runs
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND started_at < :before
      AND run_id <= (
          SELECT r.run_id FROM sync_runs AS r WHERE r.tenant_id = :tenant_id AND r.source_id = :source_id
          ORDER BY r.run_id DESC OFFSET :keep LIMIT 1)""")

_FORGET_DELIVERIES: Final = text("""
    DELETE FROM hook_deliveries WHERE tenant_id = :tenant_id AND source_id = :source_id AND received_at < :before""")

#: Files that have findings of a commit that was judged and not applied.
_UNAPPLIED: Final = text("""
    SELECT DISTINCT f.path FROM sync_findings AS f
    JOIN sync_runs AS r ON r.tenant_id = :tenant_id AND r.run_id = f.run_id
    WHERE f.tenant_id = :tenant_id AND f.source_id = :source_id AND r.outcome IN ('observed', 'refused')""")

#: Whether any file that stays declares anything.
_DECLARES: Final = text("""
    SELECT EXISTS (
        SELECT FROM manifest_files AS m
        WHERE m.tenant_id = :tenant_id AND m.source_id = :source_id AND m.documents > 0
          AND NOT EXISTS (SELECT FROM unnest(CAST(:gone AS text[])) AS g (path) WHERE g.path = m.path))""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that has begun, and the number of the observation that it goes by."""

    run_id: UUID
    observed_seq: int


def _key(held: Lease) -> dict[str, Any]:
    return {"tenant_id": held.tenant_id, "source_id": held.source_id}


async def begin_run(
    conn: AsyncConnection, held: Lease, now: datetime, *, trigger: str, ref: str | None, commit: str | None
) -> Run:
    """Write down that a new state of the source was seen and is being worked on.

    Runs that earlier holders left behind are marked as abandoned. Raises `Overtaken` when the lease is lost.
    """
    run_id = new_id(now)
    values = _key(held) | {
        "run_id": run_id,
        "trigger": trigger,
        "epoch": held.epoch,
        "from_commit": held.applied_commit,
        "to_commit": commit,
        "now": now,
    }
    await abandon_runs(conn, held, now)
    seen = await observe(conn, held, now, ref=ref, commit=commit)
    await conn.execute(_BEGIN_RUN, values)
    return Run(run_id=run_id, observed_seq=seen)


async def abandon_runs(conn: AsyncConnection, held: Lease, now: datetime) -> None:
    """Mark the runs that earlier holders of the lease left behind."""
    await conn.execute(_ABANDON_RUNS, _key(held) | {"epoch": held.epoch, "now": now})


async def observe(conn: AsyncConnection, held: Lease, now: datetime, *, ref: str | None, commit: str | None) -> int:
    """Write down where the source stands; return the number that `end_pass` asks for.

    Raises `Overtaken` when the lease is lost.
    """
    values = _key(held) | {"epoch": held.epoch, "commit": commit, "ref": ref, "now": now}
    seen: int | None = (await conn.execute(_OBSERVE, values)).scalar_one_or_none()
    if seen is None:
        raise Overtaken(f"the source {held.name} was taken over by another reconciler")
    return seen


async def end_run(
    conn: AsyncConnection,
    held: Lease,
    run_id: UUID,
    now: datetime,
    *,
    outcome: str,
    commit: Commit | None = None,
    counts: Mapping[str, int] | None = None,
    error: str | None = None,
    strategy: str | None = None,
    timings: Mapping[str, float] | None = None,
    waiting: Sequence[Mapping[str, Any]] | None = None,
    plan_hash: str | None = None,
) -> None:
    """End a run: ``applied``, ``unchanged``, ``observed``, ``refused``, ``failed`` or ``abandoned``.

    `strategy` is ``tree`` or ``full``, `timings` are seconds by step, `waiting` the removals that are held. A run
    that has ended stays as it is.
    """
    commit = commit or Commit(id=None)
    values = {
        "tenant_id": held.tenant_id,
        "run_id": run_id,
        "outcome": outcome,
        "now": now,
        "counts": to_json(counts),
        "commit": commit.id,
        "author": commit.author,
        "subject": commit.subject,
        "committed_at": commit.at,
        "error": error,
        "strategy": strategy,
        "timings": to_json(timings),
        "held": to_json(waiting),
        "plan_hash": plan_hash,
    }
    await conn.execute(_END_RUN, values)


async def fail_run(conn: AsyncConnection, held: Lease, now: datetime, *, trigger: str, error: str) -> UUID:
    """Write down a look that failed before anything was seen; return the run's id."""
    run_id = new_id(now)
    values = _key(held) | {
        "run_id": run_id,
        "trigger": trigger,
        "epoch": held.epoch,
        "from_commit": held.applied_commit,
        "to_commit": None,
        "now": now,
    }
    await conn.execute(_BEGIN_RUN, values)
    await end_run(conn, held, run_id, now, outcome="failed", error=error)
    return run_id


async def files(conn: AsyncConnection, held: Lease, paths: Sequence[str] | None) -> dict[str, FileRow]:
    """Return what is known of `paths` and of every file that is not ok; None for `paths` means all files."""
    if paths is None:
        rows = (await conn.execute(_FILES, _key(held))).mappings()
    else:
        rows = (await conn.execute(_SOME_FILES, _key(held) | {"paths": list(paths)})).mappings()
    return {row["path"]: FileRow(**row) for row in rows}


async def save_files(conn: AsyncConnection, held: Lease, rows: Sequence[FileRow], gone: Iterable[str]) -> None:
    """Write what is known of files now. A row without `good_text` leaves the good text as it is."""
    await conn.execute(_FORGET_FILES, _key(held) | {"paths": arrays.texts(sorted(gone))})
    async for _, columns in prepared(rows, BATCH, _file_columns):
        await conn.execute(_SAVE_FILES, _key(held) | columns)


def _file_columns(rows: Sequence[FileRow]) -> dict[str, str]:
    columns = {
        name: arrays.texts([getattr(row, name) for row in rows])
        for name in ("path", "blob", "state", "commit", "good_blob", "good_text", "good_commit")
    }
    columns["documents"] = arrays.numbers(row.documents for row in rows)
    return columns


async def replace_findings(
    conn: AsyncConnection, held: Lease, run_id: UUID, found: Mapping[str, Sequence[tuple[Finding, str | None]]]
) -> set[str]:
    """Put findings, each with the line of text it is about, in the place of those that their files had.

    Return the files that say no more that they wait for what another source holds for them.
    """
    before = (await conn.execute(_FORGET_FINDINGS, _key(held) | {"paths": arrays.texts(found)})).all()
    waited = {(row.kind, row.name): row.path for row in before if row.code == NOT_HANDED_OVER.code}
    rows = [
        (path, n, finding, excerpt) for path, several in found.items() for n, (finding, excerpt) in enumerate(several)
    ]
    fields = (
        "severity",
        "code",
        "line",
        "column",
        "end_line",
        "end_column",
        "pointer",
        "kind",
        "name",
        "message",
        "hint",
    )
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        columns: dict[str, Any] = {field: [getattr(finding, field) for _, _, finding, _ in batch] for field in fields}
        columns["path"] = [path for path, _, _, _ in batch]
        columns["n"] = [n for _, n, _, _ in batch]
        columns["excerpt"] = [excerpt for _, _, _, excerpt in batch]
        await conn.execute(_ADD_FINDINGS, _key(held) | {"run_id": run_id} | columns)
    waiting = {(one.kind, one.name) for _, _, one, _ in rows if one.code == NOT_HANDED_OVER.code}
    return {path for key, path in waited.items() if key not in waiting}


async def freed(conn: AsyncConnection, held: Lease, outside: Sequence[str]) -> bool:
    """Tell whether a name that somebody outside of the source had taken has come free."""
    values = _key(held) | {"project_id": held.project_id, "outside": list(outside)}
    values |= {"handed_over": NOT_HANDED_OVER.code}
    return bool((await conn.execute(_FREED, values)).scalar_one())


async def waits(conn: AsyncConnection, held: Lease, codes: Sequence[str]) -> bool:
    """Tell whether the source has findings of these codes."""
    return bool((await conn.execute(_WAITS, _key(held) | {"codes": list(codes)})).scalar_one())


async def unapplied(conn: AsyncConnection, held: Lease) -> set[str]:
    """Return the files that have findings of a commit that was judged and not applied."""
    return set((await conn.execute(_UNAPPLIED, _key(held))).scalars())


async def declares_nothing(conn: AsyncConnection, held: Lease, gone: Iterable[str]) -> bool:
    """Tell whether no file that is known, but for those that are `gone`, declares anything."""
    return not (await conn.execute(_DECLARES, _key(held) | {"gone": sorted(gone)})).scalar_one()


async def forget_runs(conn: AsyncConnection, held: Lease, *, before: datetime, keep: int) -> None:
    """Remove the runs that began before `before`, but for the `keep` newest."""
    await conn.execute(_FORGET_RUNS, _key(held) | {"before": before, "keep": keep})


async def forget_deliveries(conn: AsyncConnection, held: Lease, *, before: datetime) -> None:
    """Remove what is remembered of deliveries of webhooks that came before `before`."""
    await conn.execute(_FORGET_DELIVERIES, _key(held) | {"before": before})
