"""What the page of one execution and the list of one day show."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.reads import DEFINITION_COLUMNS, DUE, JOINS, OBSOLETE
from cron_observer.store.views import SECONDS, Row, bounds, fetch

#: The median of this many earlier runs is what a run's duration is compared with.
COMPARED: Final = 50

_ONE: Final = text(f"""
    SELECT e.*, t.name AS task_name, p.name AS project_name, t.sync, t.removed_at,
        coalesce(r.spec, t.spec) AS spec,
        t.spec ->> 'description' AS description, t.spec -> 'retries' ->> 'max' AS retries_max,
        CASE WHEN r.generation IS NULL THEN t.author ELSE r.author END AS def_author,
        CASE WHEN r.generation IS NULL THEN t.subject ELSE r.subject END AS def_subject,
        CASE WHEN r.generation IS NULL THEN t.committed_at ELSE r.committed_at END AS def_at,
        s.url AS source_url, t.owner, {DEFINITION_COLUMNS}, {DUE} AS due, {OBSOLETE} AS obsolete,
        coalesce(e.payload, coalesce(r.spec, t.spec) -> 'payload') AS given
    FROM executions AS e {JOINS}
    WHERE e.tenant_id = :tenant_id AND e.id = :id""")

_AROUND: Final = text(f"""
    SELECT
        (SELECT e.id FROM executions AS e
         WHERE e.tenant_id = :tenant_id AND e.task_uid = :task_uid AND (e.fire_at, e.id) < (:fire_at, :id)
           AND e.id <= :high AND {DUE} AND NOT {OBSOLETE}
         ORDER BY e.fire_at DESC, e.id DESC LIMIT 1) AS previous,
        (SELECT e.id FROM executions AS e
         WHERE e.tenant_id = :tenant_id AND e.task_uid = :task_uid AND (e.fire_at, e.id) > (:fire_at, :id)
           AND e.fire_at <= :now AND e.id >= :low AND {DUE} AND NOT {OBSOLETE}
         ORDER BY e.fire_at, e.id LIMIT 1) AS next,
        (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM (
            SELECT {SECONDS} AS seconds FROM executions AS e
            WHERE e.tenant_id = :tenant_id AND e.task_uid = :task_uid AND e.fire_at < :fire_at
              AND e.id <= :high AND e.status = 'FINISHED' AND e.claimed_at IS NOT NULL
            ORDER BY e.fire_at DESC LIMIT {COMPARED}) AS earlier) AS usual""")

_ATTEMPTS: Final = text("""
    SELECT fence, attempt, worker, claimed_at, started_at, ended_at, outcome, reason, exit_code,
        error ->> 'type' AS error_type, error ->> 'message' AS error_message,
        late_outcome, log_lines, log_bytes
    FROM attempts WHERE tenant_id = :tenant_id AND execution_id = :id ORDER BY fence""")

_DAY: Final = text(f"""
    SELECT e.id, e.status, e.late, e.reason, e.trigger, e.fire_at, e.available_at, e.attempt, e.worker, e.exit_code,
        e.claimed_at, e.started_at, e.finished_at, e.nominal_at, e.repeats,
        CASE WHEN e.claimed_at IS NOT NULL THEN {SECONDS} END AS seconds, t.name, p.name AS project_name
    FROM executions AS e
    JOIN tasks AS t ON t.tenant_id = e.tenant_id AND t.task_uid = e.task_uid
    JOIN projects AS p ON p.tenant_id = e.tenant_id AND p.project_id = e.project_id
    WHERE e.tenant_id = :tenant_id AND e.id BETWEEN :low AND :high
      AND e.fire_at >= :since AND e.fire_at < :until AND e.fire_at <= :now AND {DUE} AND NOT {OBSOLETE}
      AND (CAST(:statuses AS text[]) IS NULL OR e.status = ANY (CAST(:statuses AS text[])))
      AND (NOT :late OR e.late)
      AND (CAST(:after_id AS uuid) IS NULL OR (e.fire_at, e.id) < (:after_at, CAST(:after_id AS uuid)))
    ORDER BY e.fire_at DESC, e.id DESC LIMIT :limit""")


async def execution(conn: AsyncConnection, tenant_id: UUID, execution_id: UUID, now: datetime) -> Row | None:
    """Return one execution with its task and the definition that it runs by, or None."""
    rows = await fetch(conn, _ONE, tenant_id, id=execution_id, now=now)
    return rows[0] if rows else None


async def around(conn: AsyncConnection, tenant_id: UUID, row: Row, now: datetime) -> Row:
    """Return the ids of the task's previous and next run, and the usual seconds of the runs before this one."""
    values = {"task_uid": row["task_uid"], "fire_at": row["fire_at"], "id": row["id"], "now": now}
    (found,) = await fetch(conn, _AROUND, tenant_id, **values, **bounds(row["fire_at"], row["fire_at"]))
    return found


async def attempts(conn: AsyncConnection, tenant_id: UUID, execution_id: UUID) -> list[Row]:
    """Return every claim of an execution, oldest first."""
    return list(await fetch(conn, _ATTEMPTS, tenant_id, id=execution_id))


async def day(
    conn: AsyncConnection,
    tenant_id: UUID,
    since: datetime,
    until: datetime,
    now: datetime,
    *,
    limit: int,
    statuses: Sequence[str] | None = None,
    late: bool = False,
    after: tuple[datetime, UUID] | None = None,
) -> list[Row]:
    """Return a page of the due executions of a window, newest first, behind `after`."""
    return list(
        await fetch(
            conn,
            _DAY,
            tenant_id,
            since=since,
            until=until,
            now=now,
            statuses=None if statuses is None else list(statuses),
            late=late,
            after_at=after[0] if after else now,
            after_id=after[1] if after else None,
            limit=limit,
            **bounds(since, until),
        )
    )
