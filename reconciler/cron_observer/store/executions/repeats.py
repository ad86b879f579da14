"""Claims that can be repeated: the same ``claim_id`` within the lease returns the same executions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.lifecycle import Run
from cron_observer.store.engine import fetch
from cron_observer.store.executions.bounds import BETWEEN, running_bounds

_REPEATED: Final = f"""
SELECT c.claim_id, e.id
FROM claims c
CROSS JOIN LATERAL unnest(c.execution_ids, c.fences) WITH ORDINALITY AS given (execution_id, fence, n)
JOIN executions e ON e.tenant_id = c.tenant_id AND e.id = given.execution_id AND e.fence = given.fence
WHERE c.tenant_id = %(tenant)s AND c.claim_id = ANY (%(claims)s::uuid[]) AND c.expires_at > %(now)s
  AND e.status = 'RUNNING' AND {BETWEEN}
ORDER BY c.claim_id, given.n
"""

#: An answer that is void by now (expired, or none of it runs any more) gives way to the new one. In the order of the
#: claims' ids, so that two processes that answer several of the same do not wait for each other.
_REMEMBER: Final = f"""
WITH given AS (
    SELECT v.claim_id, min(v.worker) AS worker, array_agg(v.execution_id ORDER BY v.n) AS execution_ids,
        array_agg(v.fence ORDER BY v.n) AS fences, max(v.until) AS until
    FROM unnest(%(claims)s::uuid[], %(workers)s::text[], %(ids)s::uuid[], %(fences)s::bigint[],
            %(untils)s::timestamptz[]) WITH ORDINALITY AS v (claim_id, worker, execution_id, fence, until, n)
    GROUP BY v.claim_id
)
INSERT INTO claims (tenant_id, claim_id, worker, execution_ids, fences, created_at, expires_at)
SELECT %(tenant)s, g.claim_id, g.worker, g.execution_ids, g.fences, %(now)s, g.until FROM given g ORDER BY g.claim_id
ON CONFLICT (tenant_id, claim_id) DO UPDATE SET
    worker = excluded.worker, execution_ids = excluded.execution_ids, fences = excluded.fences,
    created_at = excluded.created_at, expires_at = excluded.expires_at
WHERE claims.expires_at <= %(now)s OR NOT EXISTS (
    SELECT FROM unnest(claims.execution_ids, claims.fences) AS given (execution_id, fence)
    JOIN executions e ON e.tenant_id = claims.tenant_id AND e.id = given.execution_id AND e.fence = given.fence
    WHERE e.status = 'RUNNING' AND {BETWEEN})
RETURNING claim_id
"""


async def repeated(
    conn: AsyncConnection, tenant_id: UUID, claim_ids: Sequence[UUID], now: datetime
) -> dict[UUID, list[UUID]]:
    """Return the executions that earlier claims with these ids still hold, for those that hold any."""
    if not claim_ids:
        return {}
    found: dict[UUID, list[UUID]] = {}
    parameters = {"tenant": tenant_id, "claims": list(claim_ids), "now": now, **running_bounds(now)}
    for claim_id, execution_id in await fetch(conn, _REPEATED, parameters):
        found.setdefault(claim_id, []).append(execution_id)
    return found


async def remember(conn: AsyncConnection, tenant_id: UUID, claims: Mapping[UUID, Sequence[Run]], now: datetime) -> bool:
    """Keep what each claim was answered with, for as long as its lease.

    False means that another process has answered one of them at the same time: roll back and look again.
    """
    given = [(claim_id, run) for claim_id, runs in claims.items() for run in runs]
    if not given:
        return True
    parameters = {
        "tenant": tenant_id,
        "claims": [claim_id for claim_id, _ in given],
        "workers": [run.worker for _, run in given],
        "ids": [run.id for _, run in given],
        "fences": [run.fence for _, run in given],
        "untils": [run.lease_until for _, run in given],
        "now": now,
        **running_bounds(now),
    }
    return len(await fetch(conn, _REMEMBER, parameters)) == len({claim_id for claim_id, _ in given})
