"""What the dispatcher reads: which tenants have webhooks, where due executions go, and what is sent."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.engine import fetch
from cron_observer.store.executions.bounds import BETWEEN, due_bounds

#: From one tenant to the next along the index of webhooks, so that tasks cost nothing.
_TENANTS: Final = """
WITH RECURSIVE found (tenant_id) AS (
    (
        SELECT p.tenant_id FROM task_plan p
        WHERE p.tenant_id = ANY (%(tenants)s::uuid[]) AND p.queue = '@http' ORDER BY p.tenant_id LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT p.tenant_id FROM task_plan p
        WHERE p.tenant_id = ANY (%(tenants)s::uuid[]) AND p.queue = '@http' AND p.tenant_id > f.tenant_id
        ORDER BY p.tenant_id LIMIT 1
    )
    FROM found f WHERE f.tenant_id IS NOT NULL
)
SELECT f.tenant_id FROM found f WHERE f.tenant_id IS NOT NULL
"""

#: Tasks of which something is due that nobody has asked about yet.
_UNKNOWN: Final = f"""
SELECT t.task_uid, t.spec #>> '{{run,http,url}}'
FROM tasks t
WHERE t.tenant_id = %(tenant)s AND t.task_uid IN (
    SELECT due.task_uid FROM (
        SELECT e.task_uid FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.queue = '@http' AND e.held_at IS NULL
          AND e.priority BETWEEN 0 AND 9 AND e.available_at <= %(now)s
          AND e.task_uid <> ALL (%(known)s::uuid[]) AND {BETWEEN}
        LIMIT %(limit)s
    ) AS due
)
"""

#: What the definitions that executions have pinned say of their requests. One that was pinned before the task became a
#: webhook says nothing; then the task as it is now does.
_REQUESTS: Final = """
SELECT r.task_uid, r.generation, COALESCE(r.spec #> '{run,http}', t.spec #> '{run,http}')
FROM task_revisions r
JOIN tasks t ON t.tenant_id = r.tenant_id AND t.task_uid = r.task_uid
JOIN unnest(%(uids)s::uuid[], %(generations)s::int[]) AS wanted (task_uid, generation)
  ON r.task_uid = wanted.task_uid AND r.generation = wanted.generation
WHERE r.tenant_id = %(tenant)s AND r.task_uid = ANY (%(uids)s::uuid[])
"""

#: Executions that one look for unknown tasks goes through.
_LOOK: Final = 1_000


async def tenants_with_webhooks(conn: AsyncConnection, tenants: Iterable[UUID]) -> list[UUID]:
    """Return which of the transaction's tenants have a task that is sent."""
    rows = await fetch(conn, _TENANTS, {"tenants": sorted(tenants)})
    return [tenant for (tenant,) in rows]


async def destinations(
    conn: AsyncConnection, tenant_id: UUID, now: datetime, known: Collection[UUID]
) -> dict[UUID, str | None]:
    """Return where tasks are sent of which something is due; those that are `known` are left out."""
    parameters = {"tenant": tenant_id, "now": now, "known": list(known), "limit": _LOOK, **due_bounds(now)}
    return dict(await fetch(conn, _UNKNOWN, parameters))


async def requests(
    conn: AsyncConnection, tenant_id: UUID, wanted: Collection[tuple[UUID, int]]
) -> dict[tuple[UUID, int], Any]:
    """Return the ``run.http`` of each (task, generation); None where neither it nor the task as it is now has one."""
    if not wanted:
        return {}
    pairs = {"uids": [uid for uid, _ in wanted], "generations": [generation for _, generation in wanted]}
    rows = await fetch(conn, _REQUESTS, {"tenant": tenant_id, **pairs})
    return {(uid, generation): http for uid, generation, http in rows}
