"""Keeping house: deletions carried out, what nobody can ask for again, partitions, leases after a clock jump."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store import checkin_rows, ranges, statistics
from cron_observer.store.engine import fetch

#: What is still running keeps its task; what only waits is settled as task_deleted, before or after.
_FINISH_DELETIONS: Final = """
WITH gone AS (
    SELECT t.task_uid FROM tasks t
    WHERE t.tenant_id = %(tenant)s AND t.deleting_at IS NOT NULL AND t.deleted_at IS NULL
      AND NOT EXISTS (
          SELECT FROM executions e
          WHERE e.tenant_id = t.tenant_id AND e.task_uid = t.task_uid AND e.status = 'RUNNING'
      )
    ORDER BY t.task_uid LIMIT %(limit)s FOR UPDATE OF t SKIP LOCKED
)
UPDATE tasks t SET deleted_at = %(now)s, updated_at = %(now)s
FROM gone WHERE t.tenant_id = %(tenant)s AND t.task_uid = gone.task_uid AND t.deleted_at IS NULL
RETURNING t.task_uid
"""

_ANALYZE: Final = "SELECT analyze_applied()"

_SWEEP_CLAIMS: Final = """
DELETE FROM claims c
WHERE c.tenant_id = %(tenant)s AND c.claim_id = ANY (ARRAY(
    SELECT old.claim_id FROM claims old
    WHERE old.tenant_id = %(tenant)s AND old.expires_at < %(now)s ORDER BY old.expires_at LIMIT %(limit)s))
RETURNING c.claim_id
"""

_SWEEP_KEYS: Final = """
DELETE FROM idempotency_keys k
USING (
    SELECT old.scope, old.key FROM idempotency_keys old
    WHERE old.tenant_id = %(tenant)s AND old.expires_at < %(now)s ORDER BY old.expires_at LIMIT %(limit)s
) AS old
WHERE k.tenant_id = %(tenant)s AND k.scope = old.scope AND k.key = old.key AND k.expires_at < %(now)s
RETURNING k.key
"""

_EXTEND_LEASES: Final = """
WITH running AS (
    SELECT e.id, %(now)s + e.lease_seconds * interval '1 second' AS lease_until FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'RUNNING' AND e.lease_seconds IS NOT NULL
      AND e.lease_until < %(now)s + e.lease_seconds * interval '1 second'
    ORDER BY e.id FOR UPDATE SKIP LOCKED
)
UPDATE executions e
SET lease_until = r.lease_until, check_at = least(r.lease_until, e.run_deadline, e.cancel_deadline)
FROM running r WHERE e.tenant_id = %(tenant)s AND e.id = r.id AND e.status = 'RUNNING'
RETURNING e.id
"""

_ENSURE_PARTITIONS: Final = "SELECT ensure_partitions(%(first)s, %(last)s)"
_WEEKS: Final = """
SELECT to_date(right(c.relname, 8), 'YYYYMMDD') FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'executions'::regclass
"""
_DROP_PARTITIONS: Final = "SELECT drop_partitions(%(keep_from)s)"


async def finish_deletions(conn: AsyncConnection, tenant_id: UUID, now: datetime, limit: int = 100) -> int:
    """Free the names of tasks that are being deleted and of which nothing runs any more; return how many."""
    parameters = {"tenant": tenant_id, "now": now, "limit": limit}
    return len(await fetch(conn, _FINISH_DELETIONS, parameters))


async def sweep(conn: AsyncConnection, tenant_id: UUID, now: datetime, keep_from: datetime, limit: int = 1_000) -> int:
    """Remove what is over; return how many rows, `limit` of each kind at most.

    That is: the remembered replies of claims and requests that have expired, check-ins and outages, and ranges of
    slots that ended before `keep_from` and whose statistics are final.
    """
    parameters = {"tenant": tenant_id, "now": now, "limit": limit}
    replies = len(await fetch(conn, _SWEEP_CLAIMS, parameters)) + len(await fetch(conn, _SWEEP_KEYS, parameters))
    counted = min(keep_from, await statistics.frozen_before(conn, tenant_id))
    replies += await checkin_rows.sweep(conn, tenant_id, keep_from, limit)
    return replies + await ranges.sweep(conn, tenant_id, counted, limit)


async def extend_leases(conn: AsyncConnection, tenant_id: UUID, now: datetime) -> int:
    """Give every running execution a whole lease from now; return how many got one. For after a clock jump."""
    return len(await fetch(conn, _EXTEND_LEASES, {"tenant": tenant_id, "now": now}))


async def ensure_partitions(conn: AsyncConnection, first: datetime, last: datetime) -> int:
    """Make the weekly partitions of `first` to `last` that are not there; return how many weeks were made."""
    rows = await fetch(conn, _ENSURE_PARTITIONS, {"first": first, "last": last})
    return int(rows[0][0])


async def weeks(conn: AsyncConnection) -> set[date]:
    """Return the Mondays of the weeks that have partitions. There may be gaps: a week with open rows is kept."""
    return {monday for (monday,) in await fetch(conn, _WEEKS)}


async def drop_partitions(conn: AsyncConnection, keep_from: datetime) -> int:
    """Drop the weeks that ended before `keep_from` and in which nothing is open; return how many."""
    rows = await fetch(conn, _DROP_PARTITIONS, {"keep_from": keep_from})
    return int(rows[0][0])


async def analyze(connection: AsyncConnection) -> None:
    """Take new statistics of the tables that applies write; for after a large one."""
    await fetch(connection, _ANALYZE)
