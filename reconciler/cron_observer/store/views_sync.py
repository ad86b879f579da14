"""What the sync pages show: the files, findings and runs of a source."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.views import Row, fetch

#: The last commit that each source applied, with who wrote it, its last run, and what its forge is told of the newest.
_HEADS: Final = text("""
    SELECT s.source_id, a.to_commit, a.author, a.subject, a.committed_at, a.finished_at AS applied_at,
        l.run_id, l.outcome, l.error, l.started_at, l.finished_at, l.trigger,
        c.commit AS told_commit, c.state AS told_state, c.description AS told_description, c.sent_at AS told_at,
        c.gave_up_at AS told_gave_up_at, c.error AS told_error,
        (SELECT count(*) FROM tasks AS t
         WHERE t.tenant_id = s.tenant_id AND t.source_id = s.source_id AND t.removed_at IS NULL
           AND t.deleted_at IS NULL) AS tasks,
        (SELECT jsonb_object_agg(m.state, m.n) FROM (
            SELECT state, count(*) AS n FROM manifest_files AS m
            WHERE m.tenant_id = s.tenant_id AND m.source_id = s.source_id GROUP BY state) AS m) AS files
    FROM sources AS s
    LEFT JOIN LATERAL (
        SELECT * FROM sync_runs AS r
        WHERE r.tenant_id = s.tenant_id AND r.source_id = s.source_id AND r.outcome IN ('applied', 'unchanged')
          AND r.subject IS NOT NULL AND r.to_commit IS NOT DISTINCT FROM s.applied_commit
        ORDER BY r.run_id DESC LIMIT 1) AS a ON true
    LEFT JOIN LATERAL (
        SELECT * FROM sync_runs AS r
        WHERE r.tenant_id = s.tenant_id AND r.source_id = s.source_id
        ORDER BY r.run_id DESC LIMIT 1) AS l ON true
    LEFT JOIN LATERAL (
        SELECT * FROM commit_statuses AS c
        WHERE c.tenant_id = s.tenant_id AND c.source_id = s.source_id
        ORDER BY c.created_at DESC LIMIT 1) AS c ON true
    WHERE s.tenant_id = :tenant_id ORDER BY s.name""")

_FINDINGS: Final = text("""
    SELECT f.source_id, s.name AS source_name, s.url AS source_url, f.path, f.n, f.severity, f.code, f.line,
        f.column, f.end_line, f.end_column, f.pointer, f.kind, f.name, f.message, f.hint, f.excerpt,
        m.state, m.commit, m.good_commit
    FROM sync_findings AS f
    JOIN sources AS s ON s.tenant_id = f.tenant_id AND s.source_id = f.source_id
    LEFT JOIN manifest_files AS m
        ON m.tenant_id = f.tenant_id AND m.source_id = f.source_id AND m.path = f.path
    WHERE f.tenant_id = :tenant_id AND (CAST(:source_id AS uuid) IS NULL OR f.source_id = :source_id)
    ORDER BY f.severity, s.name, f.path, f.n LIMIT :limit""")

_RUNS: Final = text("""
    SELECT r.run_id, s.name AS source_name, s.url AS source_url, r.trigger, r.from_commit, r.to_commit, r.author,
        r.subject, r.committed_at, r.outcome, r.counts, r.error, r.started_at, r.finished_at, r.strategy, r.timings,
        r.plan_hash
    FROM sync_runs AS r
    JOIN sources AS s ON s.tenant_id = r.tenant_id AND s.source_id = r.source_id
    WHERE r.tenant_id = :tenant_id AND (CAST(:source_id AS uuid) IS NULL OR r.source_id = :source_id)
      AND (CAST(:after AS uuid) IS NULL OR r.run_id < CAST(:after AS uuid))
    ORDER BY r.run_id DESC LIMIT :limit""")

#: Files with what each declares; those that need attention first.
_FILES: Final = text("""
    SELECT m.path, m.state, m.documents, m.commit, m.good_commit, m.good_text IS NOT NULL AS kept,
        coalesce(f.errors, 0) AS errors, coalesce(f.warnings, 0) AS warnings, t.tasks
    FROM manifest_files AS m
    LEFT JOIN (SELECT path, count(*) FILTER (WHERE severity = 'error') AS errors,
                      count(*) FILTER (WHERE severity = 'warning') AS warnings
               FROM sync_findings WHERE tenant_id = :tenant_id AND source_id = :source_id GROUP BY path) AS f
        ON f.path = m.path
    LEFT JOIN (SELECT path, jsonb_agg(jsonb_build_array(p.name, t.name, t.sync, t.line) ORDER BY t.document) AS tasks
               FROM tasks AS t JOIN projects AS p ON p.tenant_id = t.tenant_id AND p.project_id = t.project_id
               WHERE t.tenant_id = :tenant_id AND t.source_id = :source_id AND t.removed_at IS NULL
                 AND t.deleted_at IS NULL
               GROUP BY path) AS t ON t.path = m.path
    WHERE m.tenant_id = :tenant_id AND m.source_id = :source_id
      AND (CAST(:after_path AS text) IS NULL OR (CASE WHEN m.state = 'ok' THEN 1 ELSE 0 END, m.path) >
           (:after_rank, :after_path))
    ORDER BY CASE WHEN m.state = 'ok' THEN 1 ELSE 0 END, m.path LIMIT :limit""")


async def heads(conn: AsyncConnection, tenant_id: UUID) -> dict[UUID, Row]:
    """Return for each source who wrote what it last applied, its last run, its forge, and how much it declares."""
    return {row["source_id"]: row for row in await fetch(conn, _HEADS, tenant_id)}


async def findings(conn: AsyncConnection, tenant_id: UUID, *, source_id: UUID | None = None, limit: int) -> list[Row]:
    """Return the findings of one or all sources, errors first."""
    return list(await fetch(conn, _FINDINGS, tenant_id, source_id=source_id, limit=limit))


async def runs(
    conn: AsyncConnection, tenant_id: UUID, *, source_id: UUID | None = None, limit: int, after: UUID | None = None
) -> list[Row]:
    """Return the runs of one or all sources, newest first, behind `after`."""
    return list(await fetch(conn, _RUNS, tenant_id, source_id=source_id, limit=limit, after=after))


async def files(
    conn: AsyncConnection, tenant_id: UUID, source_id: UUID, *, limit: int, after: tuple[int, str] | None = None
) -> list[Row]:
    """Return the files of a source with what they declare, behind `after` = (0 broken or 1 ok, path)."""
    return list(
        await fetch(
            conn,
            _FILES,
            tenant_id,
            source_id=source_id,
            limit=limit,
            after_rank=after[0] if after else 0,
            after_path=after[1] if after else None,
        )
    )
