"""Claims that can be repeated: the same ``claim_id`` within the lease returns the same executions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.lifecycle import Run
from cron_observer.store.engine import fetch

_REPEATED: Final = """
SELECT c.claim_id, e.id
FROM claims c
CROSS JOIN LATERAL unnest(c.execution_ids, c.fences) WITH ORDINALITY AS given (execution_id, fence, n)
JOIN executions e ON e.tenant_id = c.tenant_id AND e.id = given.execution_id AND e.fence = given.fence
WHERE c.tenant_id = %(tenant)s AND c.claim_id = ANY (%(claims)s::uuid[]) AND c.expires_at > %(now)s
  AND e.status = 'RUNNING'
ORDER BY c.claim_id, given.n
"""

#: An answer that is void by now (expired, or none of it runs any more) gives way to the new one.
_REMEMBER: Final = """
INSERT INTO claims (tenant_id, claim_id, worker, execution_ids, fences, created_at, expires_at)
VALUES (%(tenant)s, %(claim)s, %(worker)s, %(ids)s::uuid[], %(fences)s::bigint[], %(now)s, %(until)s)
ON CONFLICT (tenant_id, claim_id) DO UPDATE SET
    worker = excluded.worker, execution_ids = excluded.execution_ids, fences = excluded.fences,
    created_at = excluded.created_at, expires_at = excluded.expires_at
WHERE claims.expires_at <= %(now)s OR NOT EXISTS (
    SELECT FROM unnest(claims.execution_ids, claims.fences) AS given (execution_id, fence)
    JOIN executions e ON e.tenant_id = claims.tenant_id AND e.id = given.execution_id AND e.fence = given.fence
    WHERE e.status = 'RUNNING')
RETURNING claim_id
"""


async def repeated(
    conn: AsyncConnection, tenant_id: UUID, claim_ids: Sequence[UUID], now: datetime
) -> dict[UUID, list[UUID]]:
    """Return the executions that earlier claims with these ids still hold, for those that hold any."""
    if not claim_ids:
        return {}
    found: dict[UUID, list[UUID]] = {}
    parameters = {"tenant": tenant_id, "claims": list(claim_ids), "now": now}
    for claim_id, execution_id in await fetch(conn, _REPEATED, parameters):
        found.setdefault(claim_id, []).append(execution_id)
    return found


async def remember(
    conn: AsyncConnection,
    tenant_id: UUID,
    claim_id: UUID,
    runs: Sequence[Run],
    now: datetime,
) -> bool:
    """Keep what `claim_id` was answered with for as long as its lease.

    False means that another process has answered the same claim at the same time: roll back and look again.
    """
    parameters = {
        "tenant": tenant_id,
        "claim": claim_id,
        "worker": runs[0].worker,
        "ids": [run.id for run in runs],
        "fences": [run.fence for run in runs],
        "now": now,
        "until": max(run.lease_until for run in runs if run.lease_until is not None),
    }
    return bool(await fetch(conn, _REMEMBER, parameters))
