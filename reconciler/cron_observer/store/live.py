"""Live counts for the metrics: few statements, each of them bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import id_ceil, id_floor
from cron_observer.statistics import quarter_of
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

#: By queue, as far as it is one of the platform's own; all others together under an empty name.
_DUE: Final = text(f"""
    SELECT looked_at.queue, count(*) AS n, min(looked_at.available_at) AS oldest FROM (
        SELECT CASE WHEN e.queue LIKE '@%' THEN e.queue ELSE '' END AS queue, e.available_at FROM executions AS e
        WHERE e.tenant_id = :tenant_id AND e.status = 'PENDING' AND e.available_at <= :now AND NOT {OBSOLETE}
        LIMIT :cap) AS looked_at
    GROUP BY looked_at.queue""")

_RUNNING: Final = text("""
    SELECT looked_at.queue, count(*) AS n FROM (
        SELECT CASE WHEN e.queue LIKE '@%' THEN e.queue ELSE '' END AS queue FROM executions AS e
        WHERE e.tenant_id = :tenant_id AND e.status = 'RUNNING' LIMIT :cap) AS looked_at
    GROUP BY looked_at.queue""")

#: Closed quarters whose statistics have to be counted again.
_QUARTERS_WAITING: Final = text("""
    SELECT count(*) FROM (
        SELECT m.at FROM stats_marks AS m WHERE m.tenant_id = :tenant_id AND m.at < :closed
        GROUP BY m.at) AS waiting""")

#: With the last run of each that has ended. What a source counts is what its last pass found.
_SOURCES: Final = text("""
    SELECT s.name, s.observed_at, s.conditions, s.counts, s.failures, s.lease_epoch, s.fetched_bytes,
        s.suspended_at, s.suspended_until, s.observed_commit IS DISTINCT FROM s.applied_commit AS behind,
        r.outcome, r.strategy, r.timings
    FROM sources AS s
    LEFT JOIN LATERAL (
        SELECT last.outcome, last.strategy, last.timings FROM sync_runs AS last
        WHERE last.tenant_id = s.tenant_id AND last.source_id = s.source_id AND last.outcome <> 'running'
        ORDER BY last.run_id DESC LIMIT 1) AS r ON true
    WHERE s.tenant_id = :tenant_id ORDER BY s.name""")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCounts:
    """How one source stands."""

    name: str
    observed_at: datetime | None
    conditions: Mapping[str, Any]
    counts: Mapping[str, int]
    failures: int  #: looks in a row that failed
    lease_epoch: int
    fetched_bytes: int  #: all that fetches have brought
    suspended_at: datetime | None
    suspended_until: datetime | None
    behind: bool  #: what was seen last is not what is in force
    outcome: str | None  #: of the last run that has ended, with how it compared and what its steps took
    strategy: str | None
    timings: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Due executions that nobody has begun, and since when the oldest of them has been due."""

    count: int = 0
    oldest: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one scrape found."""

    by_status: Mapping[str, int]
    by_outcome: Mapping[tuple[str, str], int]  #: (status, reason or "") of the slots of the last hour
    waiting: Mapping[str, Waiting]  #: by the platform's queue, and under "" of all that workers claim
    running: Mapping[str, int]  #: likewise
    quarters_waiting: int
    sources: Sequence[SourceCounts]


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
    due = {row.queue: Waiting(row.n, row.oldest) for row in await conn.execute(_DUE, values)}
    running = {row.queue: row.n for row in await conn.execute(_RUNNING, values)}
    quarters: int = (
        await conn.execute(_QUARTERS_WAITING, {"tenant_id": tenant_id, "closed": quarter_of(now)})
    ).scalar_one()
    sources = (await conn.execute(_SOURCES, {"tenant_id": tenant_id})).mappings().all()
    return Counts(
        by_status=by_status,
        by_outcome=by_outcome,
        waiting=due,
        running=running,
        quarters_waiting=quarters,
        sources=[SourceCounts(**row) for row in sources],
    )


async def _by_outcome(conn: AsyncConnection, values: Mapping[str, Any], now: datetime) -> dict[tuple[str, str], int]:
    since = now - OUTCOMES
    window = {"since": since, "until": now, "low": id_floor(since - ID_SLACK), "high": id_ceil(now + ID_SLACK)}
    found = await conn.execute(_OUTCOMES, {**values, **window})
    return {(row.status, row.reason): row.n for row in found}
