"""What the task list and the page of one task show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.executions.bounds import due_bounds
from cron_observer.store.reads import DUE, OBSOLETE
from cron_observer.store.task_status import PAUSE_COLUMNS, PAUSE_JOIN, STATUS
from cron_observer.store.views import SECONDS, Row, bounds, fetch

#: How many bars the history of a task shows in a list.
BARS: Final = 24

_COLUMNS: Final = f"""
    t.task_uid, t.name, t.seed, t.owner, t.path, t.document, t.line, t.commit, t.author, t.subject, t.committed_at,
    t.spec, t.labels, t.annotations, t.generation, t.sync, t.quarantine, t.removed_at, t.updated_at, t.created_at,
    {STATUS} AS status, p.name AS project_name, s.name AS source_name, s.url AS source_url, s.kind AS source_kind,
    s.source_id, t.project_id, {PAUSE_COLUMNS}"""

_JOINS: Final = f"""
    JOIN projects AS p ON p.tenant_id = t.tenant_id AND p.project_id = t.project_id
    LEFT JOIN sources AS s ON s.tenant_id = t.tenant_id AND s.source_id = t.source_id
    {PAUSE_JOIN}"""

#: Each task's last runs, oldest first, as [id, status, late, seconds, fire_at, reason], and its next fire.
_RECENT: Final = f"""
    LEFT JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_array(r.id, r.status, r.late, r.seconds, r.fire_at, r.reason)
                         ORDER BY r.at, r.id) AS bars
        FROM (SELECT e.id, e.status, e.late, e.reason, e.fire_at AS at, extract(epoch FROM e.fire_at) AS fire_at,
                     CASE WHEN e.claimed_at IS NOT NULL THEN {SECONDS} END AS seconds
              FROM executions AS e
              WHERE e.tenant_id = :tenant_id AND e.task_uid = t.task_uid AND e.fire_at <= :now
                AND {DUE} AND NOT {OBSOLETE}
              ORDER BY e.fire_at DESC, e.id DESC LIMIT {BARS}) AS r) AS recent ON true
    LEFT JOIN LATERAL (
        SELECT e.fire_at FROM executions AS e
        WHERE e.tenant_id = :tenant_id AND e.task_uid = t.task_uid AND e.status = 'PENDING'
          AND e.available_at > :now AND e.fence = 0 AND e.id >= :ahead AND NOT {OBSOLETE}
        ORDER BY e.available_at LIMIT 1) AS planned ON true
    LEFT JOIN task_plan AS far ON far.tenant_id = t.tenant_id AND far.task_uid = t.task_uid AND far.active"""

#: The next fire: planned if it is near, else as far ahead as the schedule says.
_NEXT: Final = "coalesce(planned.fire_at, CASE WHEN far.next_fire_at > :now THEN far.next_fire_at END) AS next_fire_at"

#: The latest run of each task in a day; a task's place in the list follows from it.
_LATEST: Final = f"""
    SELECT DISTINCT ON (e.task_uid) e.task_uid, e.status, e.late, e.fire_at FROM executions AS e
    WHERE e.tenant_id = :tenant_id AND e.id BETWEEN :low AND :high AND e.fire_at >= :since AND e.fire_at <= :now
      AND {DUE} AND NOT {OBSOLETE}
    ORDER BY e.task_uid, e.fire_at DESC, e.id DESC"""

_BY_ATTENTION: Final = text(f"""
    WITH latest AS ({_LATEST}),
    chosen AS MATERIALIZED (
        SELECT t.task_uid, CASE
                WHEN t.quarantine IS NOT NULL THEN 0 WHEN l.status = 'FAILED' THEN 1 WHEN l.status = 'MISSED' THEN 2
                WHEN l.late THEN 3 WHEN t.sync IN ('KEPT_LAST_GOOD', 'HELD') THEN 4 WHEN l.status = 'RUNNING' THEN 5
                WHEN l.status IS NULL THEN 8 WHEN l.status = 'SKIPPED' THEN 6 ELSE 7 END AS place, l.fire_at
        FROM tasks AS t LEFT JOIN latest AS l ON l.task_uid = t.task_uid
        WHERE t.tenant_id = :tenant_id AND t.removed_at IS NULL AND t.deleted_at IS NULL
        ORDER BY place, l.fire_at DESC NULLS LAST, t.name, t.task_uid LIMIT :limit)
    SELECT {_COLUMNS}, recent.bars, {_NEXT}
    FROM chosen AS c JOIN tasks AS t ON t.tenant_id = :tenant_id AND t.task_uid = c.task_uid
    {_JOINS} {_RECENT}
    ORDER BY c.place, c.fire_at DESC NULLS LAST, t.name, t.task_uid""")

_PAGE: Final = text(f"""
    WITH last AS (
        SELECT t.task_uid, (SELECT CASE WHEN e.late AND e.status = 'FINISHED' THEN 'LATE' ELSE e.status END
            FROM executions AS e
            WHERE e.tenant_id = :tenant_id AND e.task_uid = t.task_uid AND e.fire_at <= :now AND {DUE}
              AND NOT {OBSOLETE}
            ORDER BY e.fire_at DESC, e.id DESC LIMIT 1) AS status
        FROM tasks AS t WHERE t.tenant_id = :tenant_id AND CAST(:runs AS text[]) IS NOT NULL),
    chosen AS MATERIALIZED (
        SELECT t.task_uid, p.name AS project_name, t.name
        FROM tasks AS t {_JOINS}
        WHERE t.tenant_id = :tenant_id AND t.deleted_at IS NULL
          AND (t.removed_at IS NULL OR 'REMOVED' = ANY (CAST(:statuses AS text[])))
          AND (CAST(:statuses AS text[]) IS NULL OR {STATUS} = ANY (CAST(:statuses AS text[])))
          AND (CAST(:syncs AS text[]) IS NULL OR t.sync = ANY (CAST(:syncs AS text[])))
          AND (CAST(:owner AS text) IS NULL OR t.owner = :owner)
          AND (CAST(:source AS text) IS NULL OR s.name = :source)
          AND (CAST(:project AS text) IS NULL OR p.name = :project)
          AND (CAST(:queue AS text) IS NULL OR t.spec ->> 'queue' = :queue)
          AND t.labels @> CAST(:labels AS jsonb)
          AND t.labels ?& CAST(:label_keys AS text[])
          AND NOT EXISTS (SELECT FROM unnest(CAST(:words AS text[])) AS word
                          WHERE strpos(lower(p.name || '/' || t.name || ' ' || coalesce(t.path, '') || ' '
                                || coalesce(t.spec ->> 'description', '')), word) = 0)
          AND (CAST(:runs AS text[]) IS NULL OR EXISTS (
                SELECT FROM last WHERE last.task_uid = t.task_uid AND last.status = ANY (CAST(:runs AS text[]))))
          AND (CAST(:after_name AS text) IS NULL OR (p.name, t.name) > (:after_project, :after_name))
        ORDER BY p.name, t.name LIMIT :limit)
    SELECT {_COLUMNS}, recent.bars, {_NEXT}
    FROM chosen AS c JOIN tasks AS t ON t.tenant_id = :tenant_id AND t.task_uid = c.task_uid
    {_JOINS} {_RECENT}
    ORDER BY c.project_name, c.name""")

_ONE: Final = text(f"""
    SELECT {_COLUMNS}, recent.bars, {_NEXT}, f.state AS file_state,
        f.good_text AS file_text, f.good_commit AS file_commit,
        (SELECT jsonb_agg(jsonb_build_object('code', d.code, 'line', d.line, 'column', d.column,
                'severity', d.severity, 'message', d.message, 'hint', d.hint) ORDER BY d.n)
         FROM sync_findings AS d
         WHERE d.tenant_id = :tenant_id AND d.source_id = t.source_id AND d.path = t.path
           AND (d.name = t.name OR d.name IS NULL)) AS findings,
        (SELECT jsonb_agg(jsonb_build_object('generation', r.generation, 'action', r.action, 'commit', r.commit,
                'author', r.author, 'subject', r.subject, 'path', r.path, 'line', r.line,
                'at', extract(epoch FROM coalesce(r.committed_at, r.created_at))) ORDER BY r.generation DESC)
         FROM (SELECT * FROM task_revisions AS r
               WHERE r.tenant_id = :tenant_id AND r.task_uid = t.task_uid
               ORDER BY r.generation DESC LIMIT 10) AS r) AS revisions
    FROM tasks AS t {_JOINS}
    LEFT JOIN manifest_files AS f
        ON f.tenant_id = t.tenant_id AND f.source_id = t.source_id AND f.path = t.path
    {_RECENT}
    WHERE t.tenant_id = :tenant_id AND p.name = :project AND t.live_name = :name""")

_RUNS: Final = text(f"""
    SELECT e.id, e.status, e.late, e.reason, e.trigger, e.fire_at, e.available_at, e.attempt, e.worker, e.exit_code,
        e.claimed_at, e.started_at, e.finished_at, e.nominal_at, e.repeats,
        CASE WHEN e.claimed_at IS NOT NULL THEN {SECONDS} END AS seconds
    FROM executions AS e
    WHERE e.tenant_id = :tenant_id AND e.task_uid = :task_uid AND e.fire_at <= :now AND {DUE} AND NOT {OBSOLETE}
      AND (CAST(:statuses AS text[]) IS NULL OR e.status = ANY (CAST(:statuses AS text[])))
      AND (CAST(:after_id AS uuid) IS NULL OR (e.fire_at, e.id) < (:after_at, CAST(:after_id AS uuid)))
    ORDER BY e.fire_at DESC, e.id DESC LIMIT :limit""")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks a list shows; None means all. Words must all occur in name, path or description."""

    words: Sequence[str] = ()
    statuses: Sequence[str] | None = None  #: T.status words
    runs: Sequence[str] | None = None  #: status of the last run; LATE for a finished one that was late
    syncs: Sequence[str] | None = None
    owner: str | None = None
    source: str | None = None
    project: str | None = None
    queue: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    label_keys: Sequence[str] = ()


def _ahead(now: datetime) -> dict[str, UUID]:
    """Return behind which ids every slot lies that is still to fire."""
    return {"ahead": due_bounds(now)["low"]}


async def by_attention(conn: AsyncConnection, tenant_id: UUID, now: datetime, *, limit: int) -> list[Row]:
    """Return the tasks that need attention most, with their last runs and next fire."""
    since = now - timedelta(days=1)
    values = {"since": since, "limit": limit, **bounds(since, now), **_ahead(now)}
    return list(await fetch(conn, _BY_ATTENTION, tenant_id, now=now, **values))


async def tasks(
    conn: AsyncConnection,
    tenant_id: UUID,
    chosen: TaskFilter,
    now: datetime,
    *,
    limit: int,
    after: tuple[str, str] | None = None,
) -> list[Row]:
    """Return a page of tasks by project and name, behind `after`, with their last runs and next fire."""
    from cron_observer.store.jsonb import to_json

    def several(words: Sequence[str] | None) -> list[str] | None:
        return None if words is None else list(words)

    values: dict[str, Any] = {
        "words": [word.lower() for word in chosen.words],
        "statuses": several(chosen.statuses),
        "runs": several(chosen.runs),
        "syncs": several(chosen.syncs),
        "owner": chosen.owner,
        "source": chosen.source,
        "project": chosen.project,
        "queue": chosen.queue,
        "labels": to_json(dict(chosen.labels)),
        "label_keys": list(chosen.label_keys),
        "after_project": after[0] if after else None,
        "after_name": after[1] if after else None,
        "now": now,
        "limit": limit,
        **_ahead(now),
    }
    return list(await fetch(conn, _PAGE, tenant_id, **values))


async def task(conn: AsyncConnection, tenant_id: UUID, project: str, name: str, now: datetime) -> Row | None:
    """Return one task with its manifest's text, findings, revisions, last runs and next fire."""
    rows = await fetch(conn, _ONE, tenant_id, project=project, name=name, now=now, **_ahead(now))
    return rows[0] if rows else None


async def runs(
    conn: AsyncConnection,
    tenant_id: UUID,
    task_uid: UUID,
    now: datetime,
    *,
    limit: int,
    statuses: Sequence[str] | None = None,
    after: tuple[datetime, UUID] | None = None,
) -> list[Row]:
    """Return a page of a task's due executions, newest first, behind `after`."""
    return list(
        await fetch(
            conn,
            _RUNS,
            tenant_id,
            task_uid=task_uid,
            now=now,
            statuses=None if statuses is None else list(statuses),
            after_at=after[0] if after else now,
            after_id=after[1] if after else None,
            limit=limit,
        )
    )
