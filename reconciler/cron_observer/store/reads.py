"""Executions as the wire shows them: by id, their events, and what waits to be claimed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.model import RESERVED_PREFIX
from cron_observer.store import shapes
from cron_observer.store.executions.bounds import due_bounds

#: The columns that every form of an execution shows, beside those of its definition.
ITEM_COLUMNS: Final = """
    e.id, e.task_uid, t.name AS task_name, p.name AS project_name, e.status, e.reason, e.late, e.trigger,
    e.nominal_at, e.nominal_local, e.nominal_fold, e.timezone, e.fire_at, e.available_at, e.queue, e.priority,
    e.attempt, e.worker, e.lease_until, e.lease_seconds, e.claimed_at, e.started_at, e.finished_at,
    e.run_deadline, e.cancel_requested_at, e.progress, e.exit_code,
    e.repeats, e.backfill_id"""

#: The definition of the generation that a claim pinned; before that, the task's current one.
DEFINITION_COLUMNS: Final = """
    CASE WHEN r.generation IS NULL THEN s.name ELSE r.source END AS def_source,
    CASE WHEN r.generation IS NULL THEN t.commit ELSE r.commit END AS def_commit,
    CASE WHEN r.generation IS NULL THEN t.path ELSE r.path END AS def_path,
    CASE WHEN r.generation IS NULL THEN t.line ELSE r.line END AS def_line,
    coalesce(r.generation, t.generation) AS def_generation"""

#: An execution with its task, project and definition.
JOINS: Final = """
    JOIN tasks AS t ON t.tenant_id = e.tenant_id AND t.task_uid = e.task_uid
    JOIN projects AS p ON p.tenant_id = e.tenant_id AND p.project_id = e.project_id
    LEFT JOIN sources AS s ON s.tenant_id = t.tenant_id AND s.source_id = t.source_id
    LEFT JOIN task_revisions AS r
        ON r.tenant_id = e.tenant_id AND r.task_uid = e.task_uid AND r.generation = e.generation"""

#: A waiting slot of a plan that has been replaced since: it is neither claimed nor shown.
OBSOLETE: Final = """
    (e.status = 'PENDING' AND e.fence = 0 AND e.plan_generation IS NOT NULL AND EXISTS (
        SELECT FROM task_plan AS plan
        WHERE plan.tenant_id = e.tenant_id AND plan.task_uid = e.task_uid
          AND plan.generation <> e.plan_generation AND e.nominal_at > plan.effective_from
          AND e.fire_at > plan.effective_from))"""

#: That a slot is not obsolete, as a join: where most rows are slots that wait, they meet their plans all at once.
STANDING: Final = """
    NOT EXISTS (
        SELECT FROM task_plan AS plan
        WHERE plan.tenant_id = :tenant_id AND plan.task_uid = e.task_uid
          AND e.status = 'PENDING' AND e.fence = 0 AND plan.generation <> e.plan_generation
          AND e.nominal_at > plan.effective_from AND e.fire_at > plan.effective_from)"""

#: History begins when a slot is due; a forecast is none.
DUE: Final = "(e.available_at <= :now OR e.fence > 0 OR e.trigger NOT IN ('schedule', 'catchup'))"

_FULL_COLUMNS: Final = f"""
    {ITEM_COLUMNS}, {DEFINITION_COLUMNS}, e.fence, e.error, e.result, e.checkpoint,
    coalesce(e.payload, coalesce(r.spec, t.spec) -> 'payload') AS payload"""

_FULL: Final = text(f"""
    SELECT {_FULL_COLUMNS}
    FROM executions AS e {JOINS}
    WHERE e.tenant_id = :tenant_id AND e.id = ANY (:ids) AND e.id BETWEEN :low AND :high""")

_ITEMS: Final = text(f"""
    SELECT {ITEM_COLUMNS}, {DEFINITION_COLUMNS}, e.error - 'traceback' AS error
    FROM executions AS e {JOINS}
    WHERE e.tenant_id = :tenant_id AND e.id = ANY (:ids) AND e.id BETWEEN :low AND :high""")

#: In full, between the ids among which claims look.
_PENDING: Final = text(f"""
    SELECT {_FULL_COLUMNS}
    FROM (
        SELECT e.* FROM executions AS e
        WHERE e.tenant_id = :tenant_id AND e.status = 'PENDING' AND e.available_at <= :now
          AND e.id BETWEEN :low AND :high AND NOT starts_with(e.queue, :reserved)
          AND (CAST(:task_uid AS uuid) IS NULL OR e.task_uid = :task_uid) AND {STANDING}
        ORDER BY e.priority DESC, e.available_at, e.id LIMIT :limit) AS e
    {JOINS}
    WHERE e.tenant_id = :tenant_id
    ORDER BY e.priority DESC, e.available_at, e.id""")

_EVENTS: Final = text("""
    SELECT seq, at, type, attempt, status, reason, actor, data FROM execution_events
    WHERE tenant_id = :tenant_id AND execution_id = :id AND seq > :after ORDER BY seq LIMIT :limit""")

_EXISTS: Final = text("SELECT task_uid FROM executions WHERE tenant_id = :tenant_id AND id = :id")


async def executions(conn: AsyncConnection, tenant_id: UUID, ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """Return the executions with these ids in full, as the wire shows them; unknown ids are left out."""
    return {row["id"]: shapes.execution_full(row) for row in await _rows(conn, _FULL, tenant_id, ids)}


async def execution(conn: AsyncConnection, tenant_id: UUID, execution_id: UUID) -> dict[str, Any] | None:
    """Return one execution in full, or None."""
    return (await executions(conn, tenant_id, [execution_id])).get(execution_id)


async def items(conn: AsyncConnection, tenant_id: UUID, ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """Return the executions with these ids as items of a list; unknown ids are left out."""
    return {row["id"]: shapes.execution_item(row) for row in await _rows(conn, _ITEMS, tenant_id, ids)}


async def _rows(conn: AsyncConnection, statement: Any, tenant_id: UUID, ids: Sequence[UUID]) -> Sequence[Any]:
    if not ids:
        return []
    values = {"tenant_id": tenant_id, "ids": list(ids), "low": min(ids), "high": max(ids)}
    return (await conn.execute(statement, values)).mappings().all()


async def task_of(conn: AsyncConnection, tenant_id: UUID, execution_id: UUID) -> UUID | None:
    """Return the uid of an execution's task, or None where there is no such execution."""
    found: UUID | None = (
        await conn.execute(_EXISTS, {"tenant_id": tenant_id, "id": execution_id})
    ).scalar_one_or_none()
    return found


async def pending(
    conn: AsyncConnection, tenant_id: UUID, *, now: datetime, limit: int, task_uid: UUID | None = None
) -> list[dict[str, Any]]:
    """Return what is due and waits for a worker, in the order in which it would be claimed, in full.

    What the platform runs itself waits for no worker.
    """
    values: dict[str, Any] = {
        "tenant_id": tenant_id,
        "now": now,
        "limit": limit,
        "task_uid": task_uid,
        "reserved": RESERVED_PREFIX,
    }
    rows = (await conn.execute(_PENDING, values | due_bounds(now))).mappings()
    return [shapes.execution_full(row) for row in rows]


async def events(
    conn: AsyncConnection, tenant_id: UUID, execution_id: UUID, *, after: int = -1, limit: int
) -> list[dict[str, Any]]:
    """Return the events of an execution with a number above `after`, oldest first."""
    values = {"tenant_id": tenant_id, "id": execution_id, "after": after, "limit": limit}
    rows = (await conn.execute(_EVENTS, values)).mappings()
    return [shapes.execution_event(row) for row in rows]
