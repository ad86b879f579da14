"""Live counts for the metrics: few statements, each of them bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import id_ceil, id_floor
from cron_observer.store.lists import ID_SLACK
from cron_observer.store.range_reads import QUARTERS
from cron_observer.store.reads import OBSOLETE

#: Rows that one count looks at: a scrape must not become the load that it measures.
CAP: Final = 100_000

#: How far back the counts by status look.
WINDOW: Final = timedelta(hours=24)

_BY_STATUS: Final = text(f"""
    SELECT status, count(*) AS n FROM (
        SELECT e.status FROM executions AS e
        WHERE e.tenant_id = :tenant_id AND e.id BETWEEN :low AND :high
          AND e.fire_at > :since AND e.fire_at <= :now AND NOT {OBSOLETE}
        LIMIT :cap) AS looked_at
    GROUP BY status""")

#: How far back the counts by outcome look.
OUTCOMES: Final = timedelta(hours=1)

#: Of ranges, the quarter hours that lie within the last hour count.
_OUTCOMES: Final = text(f"""
    SELECT status, coalesce(reason, '') AS reason, sum(n)::bigint AS n FROM (
        SELECT looked_at.status, looked_at.reason, count(*) AS n FROM (
            SELECT e.status, e.reason FROM executions AS e
            WHERE e.tenant_id = :tenant_id AND e.id BETWEEN :low AND :high
              AND e.fire_at > :since AND e.fire_at <= :now AND e.trigger IN ('schedule', 'catchup')
              AND e.repeats IS NULL AND NOT {OBSOLETE}
            LIMIT :cap) AS looked_at
        GROUP BY 1, 2
        UNION ALL
        SELECT many.status, many.reason, many.n FROM ({QUARTERS}) AS many) AS counted
    GROUP BY 1, 2""")

_DUE: Final = text(f"""
    SELECT count(*) AS n, min(available_at) AS oldest FROM (
        SELECT e.available_at FROM executions AS e
        WHERE e.tenant_id = :tenant_id AND e.status = 'PENDING' AND e.available_at <= :now AND NOT {OBSOLETE}
        LIMIT :cap) AS looked_at""")

_RUNNING: Final = text("""
    SELECT count(*) FROM (
        SELECT FROM executions AS e WHERE e.tenant_id = :tenant_id AND e.status = 'RUNNING' LIMIT :cap) AS looked_at""")

_SOURCES: Final = text("""
    SELECT s.name, s.observed_at,
        (SELECT count(*) FROM sync_findings AS f
         WHERE f.tenant_id = s.tenant_id AND f.source_id = s.source_id) AS findings
    FROM sources AS s WHERE s.tenant_id = :tenant_id""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one scrape found. Sources are keyed by name; `observed` is None for one never seen."""

    by_status: Mapping[str, int]
    by_outcome: Mapping[tuple[str, str], int]  #: (status, reason or "") of the slots of the last hour
    due: int
    oldest_due: datetime | None
    running: int
    observed: Mapping[str, datetime | None]
    findings: Mapping[str, int]


async def counts(conn: AsyncConnection, tenant_id: UUID, now: datetime) -> Counts:
    """Count what is going on in one tenant, each count up to `CAP` rows."""
    values: dict[str, Any] = {"tenant_id": tenant_id, "now": now, "cap": CAP}
    window = values | {
        "since": now - WINDOW,
        "low": id_floor(now - WINDOW - ID_SLACK),
        "high": id_ceil(now + ID_SLACK),
    }
    by_status = {row.status: row.n for row in await conn.execute(_BY_STATUS, window)}
    by_outcome = await _by_outcome(conn, values, now)
    due = (await conn.execute(_DUE, values)).one()
    running: int = (await conn.execute(_RUNNING, values)).scalar_one()
    sources = (await conn.execute(_SOURCES, {"tenant_id": tenant_id})).all()
    return Counts(
        by_status=by_status,
        by_outcome=by_outcome,
        due=due.n,
        oldest_due=due.oldest,
        running=running,
        observed={row.name: row.observed_at for row in sources},
        findings={row.name: row.findings for row in sources},
    )


async def _by_outcome(conn: AsyncConnection, values: Mapping[str, Any], now: datetime) -> dict[tuple[str, str], int]:
    since = now - OUTCOMES
    window = {"since": since, "until": now, "low": id_floor(since - ID_SLACK), "high": id_ceil(now + ID_SLACK)}
    found = await conn.execute(_OUTCOMES, {**values, **window})
    return {(row.status, row.reason): row.n for row in found}
