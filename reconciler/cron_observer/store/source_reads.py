"""Sources, their sync runs and what is wrong in their files, as the wire shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import conditions
from cron_observer.conditions import Suspension
from cron_observer.store import shapes, wakeups
from cron_observer.store.links import line_link, public_url

#: Who asks for a look at a source: another source of its project, a push that a webhook or a watcher told of, a task
#: that was detached, the end of a suspension, somebody's `sync`, an approval. In the order of `stronger_asker`.
AskedBy = Literal["neighbour", "push", "detach", "resume", "manual", "approval"]

#: Findings that one answer carries at most; `counts` has the true number.
MAX_FINDINGS: Final = 1000

_SOURCES: Final = text("""
    SELECT s.source_id, s.name, p.name AS project_name, s.url, s.ref, s.environment, s.mode,
        s.observed_commit, s.observed_at, s.applied_commit, s.applied_at, s.conditions, s.counts,
        s.requested_seq, s.handled_seq, s.poll_seconds, s.held, s.plan_hash, s.suspended_at, s.suspended_until,
        s.suspended_by, s.suspend_reason
    FROM sources AS s JOIN projects AS p ON p.tenant_id = s.tenant_id AND p.project_id = s.project_id
    WHERE s.tenant_id = :tenant_id AND (CAST(:name AS text) IS NULL OR s.name = :name)
      AND (CAST(:after AS text) IS NULL OR s.name COLLATE "C" > :after)
    ORDER BY s.name COLLATE "C" LIMIT :limit""")

_RUNS: Final = text("""
    SELECT r.run_id, s.name AS source_name, r.trigger, r.from_commit, r.to_commit, r.author, r.subject,
        r.committed_at, r.outcome, r.counts, r.error, r.started_at, r.finished_at, r.strategy, r.held, r.timings,
        r.plan_hash
    FROM sync_runs AS r JOIN sources AS s ON s.tenant_id = r.tenant_id AND s.source_id = r.source_id
    WHERE r.tenant_id = :tenant_id
      AND (CAST(:source_id AS uuid) IS NULL OR r.source_id = :source_id)
      AND (CAST(:run_id AS uuid) IS NULL OR r.run_id = :run_id)
      AND (CAST(:after AS uuid) IS NULL OR r.run_id < :after)
    ORDER BY r.run_id DESC LIMIT :limit""")

_FINDINGS: Final = text("""
    SELECT f.run_id, f.severity, f.code, f.path, f.line, f."column", f.end_line, f.end_column, f.pointer,
        f.kind, f.name, f.message, f.hint, f.excerpt, s.url AS source_url, m.commit AS file_commit
    FROM sync_findings AS f
    JOIN sources AS s ON s.tenant_id = f.tenant_id AND s.source_id = f.source_id
    LEFT JOIN manifest_files AS m
        ON m.tenant_id = f.tenant_id AND m.source_id = f.source_id AND m.path = f.path
    WHERE f.tenant_id = :tenant_id
      AND (CAST(:source_id AS uuid) IS NULL OR f.source_id = :source_id)
      AND (CAST(:run_ids AS uuid[]) IS NULL OR f.run_id = ANY (CAST(:run_ids AS uuid[])))
    ORDER BY f.severity, f.path COLLATE "C", f.n LIMIT :limit""")

_REQUEST_SYNC: Final = text("""
    UPDATE sources SET requested_seq = requested_seq + 1, next_poll_at = :now,
        asked_by = stronger_asker(asked_by, :by)
    WHERE tenant_id = :tenant_id AND name = :name RETURNING requested_seq""")


async def list_sources(
    conn: AsyncConnection, tenant_id: UUID, *, now: datetime, limit: int, after: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return a page of sources by name, and the name at which it ended; None when it is the last page."""
    values = {"tenant_id": tenant_id, "name": None, "after": after, "limit": limit + 1}
    rows = (await conn.execute(_SOURCES, values)).mappings().all()
    last = rows[limit - 1]["name"] if len(rows) > limit else None
    return [_source(row, now) for row in rows[:limit]], last


async def get_source(
    conn: AsyncConnection, tenant_id: UUID, name: str, *, now: datetime
) -> tuple[UUID, dict[str, Any]] | None:
    """Return a source's id and what the wire shows of it, or None."""
    values = {"tenant_id": tenant_id, "name": name, "after": None, "limit": 1}
    row = (await conn.execute(_SOURCES, values)).mappings().one_or_none()
    return None if row is None else (row["source_id"], _source(row, now))


def _source(row: Mapping[Any, Any], now: datetime) -> dict[str, Any]:
    suspension = suspension_of(row)
    told = conditions.shown(
        row["conditions"],
        observed_at=row["observed_at"],
        poll_seconds=row["poll_seconds"],
        suspension=suspension,
        now=now,
    )
    return {
        "name": row["name"],
        "project": row["project_name"],
        "url": public_url(row["url"]),
        "ref": row["ref"],
        "environment": row["environment"],
        "mode": row["mode"],
        "observed_commit": row["observed_commit"],
        "applied_commit": row["applied_commit"],
        "applied_at": shapes.instant(row["applied_at"]),
        # since when we may be behind the repository: what was applied was last known to be what it holds
        "stale_seconds": shapes.seconds_between(conditions.behind_since(row["conditions"], row["observed_at"]), now),
        "conditions": {name: _condition(one) for name, one in told.items()},
        "counts": row["counts"],
        "requested_seq": row["requested_seq"],
        "handled_seq": row["handled_seq"],
        "suspended": _suspended(suspension, now),
        "held": row["held"] or [],
        "plan_hash": row["plan_hash"],
    }


def suspension_of(row: Mapping[Any, Any]) -> Suspension | None:
    """Return the suspension that a row of `sources` carries, also one that has ended by itself."""
    if row["suspended_at"] is None:
        return None
    return Suspension(
        by=row["suspended_by"],
        reason=row["suspend_reason"],
        since=row["suspended_at"],
        until=row["suspended_until"],
    )


def _suspended(suspension: Suspension | None, now: datetime) -> dict[str, Any] | None:
    if suspension is None or not suspension.holds(now):
        return None
    return {
        "by": suspension.by,
        "reason": suspension.reason,
        "since": shapes.instant(suspension.since),
        "until": shapes.instant(suspension.until),
    }


def _condition(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a condition with its time as the wire writes times."""
    since = told.get("since")
    return {**told, "since": shapes.instant(datetime.fromisoformat(since)) if since else None}


async def list_runs(
    conn: AsyncConnection, tenant_id: UUID, source_id: UUID, *, limit: int, after: UUID | None = None
) -> tuple[list[dict[str, Any]], UUID | None]:
    """Return a page of a source's runs, newest first, and the id where it ended; None: the last page."""
    rows = await _run_rows(conn, tenant_id, source_id=source_id, after=after, limit=limit + 1)
    last: UUID | None = rows[limit - 1]["run_id"] if len(rows) > limit else None
    return await _runs(conn, tenant_id, rows[:limit]), last


async def get_run(conn: AsyncConnection, tenant_id: UUID, run_id: UUID) -> dict[str, Any] | None:
    """Return one sync run, or None."""
    rows = await _run_rows(conn, tenant_id, run_id=run_id, limit=1)
    return next(iter(await _runs(conn, tenant_id, rows)), None)


async def _run_rows(
    conn: AsyncConnection,
    tenant_id: UUID,
    *,
    limit: int,
    source_id: UUID | None = None,
    run_id: UUID | None = None,
    after: UUID | None = None,
) -> Sequence[Mapping[Any, Any]]:
    values = {
        "tenant_id": tenant_id,
        "source_id": source_id,
        "run_id": run_id,
        "after": after,
        "limit": limit,
    }
    return (await conn.execute(_RUNS, values)).mappings().all()


async def _runs(conn: AsyncConnection, tenant_id: UUID, rows: Sequence[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    if not rows:
        return []
    found: dict[UUID, list[dict[str, Any]]] = {row["run_id"]: [] for row in rows}
    for run_id, finding in await _findings(conn, tenant_id, run_ids=list(found)):
        if run_id is not None:
            found[run_id].append(finding)
    return [
        {
            "id": str(row["run_id"]),
            "source": row["source_name"],
            "trigger": row["trigger"],
            "from_commit": row["from_commit"],
            "to_commit": row["to_commit"],
            "commit": {
                "author": row["author"],
                "subject": row["subject"],
                "at": shapes.instant(row["committed_at"]),
            },
            "outcome": row["outcome"],
            "error": row["error"],
            "counts": row["counts"],
            "findings": found[row["run_id"]],
            "strategy": row["strategy"],
            "timings": row["timings"],
            "held": row["held"] or [],
            "plan_hash": row["plan_hash"],
            "started_at": shapes.instant(row["started_at"]),
            "finished_at": shapes.instant(row["finished_at"]),
        }
        for row in rows
    ]


async def findings(conn: AsyncConnection, tenant_id: UUID, source_id: UUID) -> list[dict[str, Any]]:
    """Return what is wrong in a source's files now, errors first, at most 1,000; each with its `excerpt`."""
    return [finding for _, finding in await _findings(conn, tenant_id, source_id=source_id)]


async def _findings(
    conn: AsyncConnection,
    tenant_id: UUID,
    *,
    source_id: UUID | None = None,
    run_ids: list[UUID] | None = None,
) -> list[tuple[UUID | None, dict[str, Any]]]:
    values = {"tenant_id": tenant_id, "source_id": source_id, "run_ids": run_ids, "limit": MAX_FINDINGS}
    rows = (await conn.execute(_FINDINGS, values)).mappings()
    return [
        (
            row["run_id"],
            shapes.finding(row, line_link(row["source_url"], row["file_commit"], row["path"], row["line"])),
        )
        for row in rows
    ]


async def request_sync(
    conn: AsyncConnection, tenant_id: UUID, name: str, now: datetime, *, by: AskedBy, tell: bool = True
) -> int | None:
    """Ask for a pass over a source at once; return what `handled_seq` will reach, or None: no such source.

    `by` becomes the trigger of the run; of several that ask, people count for more than machines. Reconcilers hear
    of it when the transaction commits, unless `tell` is false: they ask for what they see themselves.
    """
    requested: int | None = (
        await conn.execute(_REQUEST_SYNC, {"tenant_id": tenant_id, "name": name, "now": now, "by": by})
    ).scalar_one_or_none()
    if requested is not None and tell:
        await wakeups.tell(conn)
    return requested
