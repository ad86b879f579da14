"""Statistics, written: closed quarters counted anew where something has changed, frozen, and swept in the end.

Whatever changes an outcome leaves a mark on its quarter, in the same transaction (triggers of 0005). Counting takes
the marks away first and looks at the executions afterwards, with a newer snapshot: a change is either seen, or its
mark is still there. So a quarter without a mark counts exactly what is committed, at every moment and for any number
of schedulers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import id_ceil, id_floor
from cron_observer.statistics import FIRST, LOG_GROWTH, QUARTER, quarter_of

#: How far the time inside an id may lie from `fire_at`: bounds the partitions that a statement touches.
SLACK: Final = timedelta(days=16)

#: What is frozen before anything was: nothing.
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: Quarters that one transaction counts: some 0.1 s where a hundred executions end in each.
STEP: Final = 96

#: The final outcomes of stretches of fire time, a row each. A duration runs from the start, or else the claim, of the
#: last attempt, and is not known of a check-in that told its end alone; a start delay to the first claim, of what was
#: offered to workers. Both in microseconds. `{0}` narrows the executions down. They are gathered first, so that
#: nothing else is planned for each partition.
OUTCOMES: Final = """
    SELECT e.task_uid, e.project_id, e.fire_at AS at, e.status, e.reason,
        e.late AND e.status = 'FINISHED' AS late, 1 AS n,
        CASE WHEN e.status IN ('FINISHED', 'FAILED') AND coalesce(e.started_at, e.claimed_at) IS NOT NULL
            AND (e.started_at IS NOT NULL OR e.queue <> '@checkin') THEN greatest(0,
            extract(epoch FROM e.finished_at - coalesce(e.started_at, e.claimed_at)) * 1000000)::bigint
        END AS duration,
        CASE WHEN e.claimed_at IS NOT NULL AND e.trigger NOT IN ('api', 'checkin') THEN greatest(0,
            extract(epoch FROM CASE WHEN e.fence <= 1 THEN e.claimed_at ELSE coalesce((
                SELECT a.claimed_at FROM attempts AS a
                WHERE a.tenant_id = :tenant_id AND a.execution_id = e.id AND a.execution_id BETWEEN :low AND :high
                ORDER BY a.fence LIMIT 1), e.claimed_at) END - e.fire_at) * 1000000)::bigint
        END AS delay
    FROM (
        SELECT e.id, e.task_uid, e.project_id, e.fire_at, e.status, e.reason, e.late, e.trigger, e.fence, e.queue,
            e.claimed_at, e.started_at, e.finished_at
        FROM unnest(CAST(:live_since AS timestamptz[]), CAST(:live_until AS timestamptz[])) AS live (since, until)
        JOIN executions AS e ON e.tenant_id = :tenant_id AND e.fire_at >= live.since AND e.fire_at < live.until
            AND e.id BETWEEN :low AND :high
        WHERE e.finished_at IS NOT NULL AND e.fire_at <= :now AND {0} OFFSET 0) AS e"""

#: The same of slots that are told as ranges: a quarter counts when it is over, or when its range is.
RANGES: Final = """
    SELECT r.task_uid, r.project_id, q.at, r.status, r.reason, false AS late, q.n,
        CAST(NULL AS bigint) AS duration, CAST(NULL AS bigint) AS delay
    FROM unnest(CAST(:live_since AS timestamptz[]), CAST(:live_until AS timestamptz[])) AS live (since, until)
    JOIN slot_ranges AS r ON r.tenant_id = :tenant_id
        AND r.last_at >= live.since AND r.last_at < live.until + interval '1 day'
    CROSS JOIN LATERAL (
        SELECT date_trunc('day', r.first_at, 'UTC') + (part.number - 1) * interval '15 minutes' AS at, part.n
        FROM unnest(r.quarters) WITH ORDINALITY AS part (n, number) WHERE part.n > 0) AS q
    WHERE q.at >= live.since AND q.at < live.until AND (q.at + interval '15 minutes' <= :now OR r.last_at <= :now)
        AND {0}"""


def bucket(column: str) -> str:
    """Return SQL for the bucket of a duration in microseconds: `cron_observer.statistics.bucket_of`."""
    return (
        f"CASE WHEN {column} <= {FIRST} THEN 0 WHEN {column} > {FIRST} "
        f"THEN ceil(ln(CAST({column} AS double precision) / {FIRST}) / {LOG_GROWTH!r})::int END"
    )


_BEGIN: Final = text("""
    INSERT INTO stats_state (tenant_id, frozen_before) VALUES (:tenant_id, :never) ON CONFLICT DO NOTHING""")

#: One counts at a time: of two that have looked at different moments, the older would win.
_LOCK: Final = text("""
    SELECT frozen_before FROM stats_state WHERE tenant_id = :tenant_id FOR UPDATE SKIP LOCKED""")

#: The newest first: they are looked at most.
_MARKED: Final = text("""
    SELECT at FROM stats_marks WHERE tenant_id = :tenant_id AND at < :closed
    GROUP BY at ORDER BY at DESC LIMIT :limit""")

_UNMARK: Final = text("""
    DELETE FROM stats_marks WHERE tenant_id = :tenant_id AND at = ANY (CAST(:quarters AS timestamptz[]))""")

_FORGET: Final = text("""
    DELETE FROM stats_15m WHERE tenant_id = :tenant_id AND at = ANY (CAST(:quarters AS timestamptz[]))""")


#: The buckets of a column and their counts, by scope and quarter.
_HISTOGRAM: Final = f"""
    SELECT scope, at, array_agg(bucket::smallint ORDER BY bucket) AS buckets,
        array_agg(n::int ORDER BY bucket) AS counts
    FROM (SELECT scope, at, {bucket("{column}")} AS bucket, count(*) AS n
          FROM scoped WHERE {{column}} IS NOT NULL GROUP BY 1, 2, 3) AS one
    GROUP BY scope, at"""

_COUNT: Final = text(f"""
    WITH outcomes AS MATERIALIZED (
        SELECT f.*, date_bin('15 minutes', f.at, TIMESTAMPTZ '2000-01-01 00:00:00+00') AS quarter
        FROM ({OUTCOMES.format("true")} UNION ALL {RANGES.format("true")}) AS f),
    scoped AS MATERIALIZED (
        SELECT task_uid AS scope, quarter AS at, status, reason, late, n, duration, delay FROM outcomes
        UNION ALL
        SELECT project_id, quarter, status, reason, late, n, duration, delay FROM outcomes),
    reasons AS (
        SELECT scope, at, jsonb_object_agg(status || '/' || reason, n) AS reasons
        FROM (SELECT scope, at, status, reason, sum(n)::bigint AS n FROM scoped
              WHERE reason IS NOT NULL GROUP BY 1, 2, 3, 4) AS one
        GROUP BY scope, at),
    durations AS ({_HISTOGRAM.format(column="duration")}),
    delays AS ({_HISTOGRAM.format(column="delay")}),
    counted AS (
        SELECT scope, at,
            coalesce(sum(n) FILTER (WHERE status = 'FINISHED'), 0) AS finished,
            coalesce(sum(n) FILTER (WHERE status = 'FAILED'), 0) AS failed,
            coalesce(sum(n) FILTER (WHERE status = 'CANCELLED'), 0) AS cancelled,
            coalesce(sum(n) FILTER (WHERE status = 'SKIPPED'), 0) AS skipped,
            coalesce(sum(n) FILTER (WHERE status = 'MISSED'), 0) AS missed,
            coalesce(sum(n) FILTER (WHERE late), 0) AS late,
            sum(duration) AS duration_sum, min(duration) AS duration_min, max(duration) AS duration_max,
            sum(delay) AS delay_sum, min(delay) AS delay_min, max(delay) AS delay_max
        FROM scoped GROUP BY scope, at)
    INSERT INTO stats_15m (tenant_id, scope, at, finished, failed, cancelled, skipped, missed, late, reasons,
        duration_sum, duration_min, duration_max, duration_buckets, duration_counts,
        delay_sum, delay_min, delay_max, delay_buckets, delay_counts)
    SELECT CAST(:tenant_id AS uuid), c.scope, c.at, c.finished, c.failed, c.cancelled, c.skipped, c.missed, c.late,
        r.reasons, c.duration_sum, c.duration_min, c.duration_max, t.buckets, t.counts,
        c.delay_sum, c.delay_min, c.delay_max, d.buckets, d.counts
    FROM counted AS c
    LEFT JOIN reasons AS r ON r.scope = c.scope AND r.at = c.at
    LEFT JOIN durations AS t ON t.scope = c.scope AND t.at = c.at
    LEFT JOIN delays AS d ON d.scope = c.scope AND d.at = c.at
    ORDER BY c.scope, c.at""")

#: The oldest that is open, and the newest of those that go: both decide how far may be frozen.
_EDGES: Final = text("""
    SELECT
        (SELECT max(e.fire_at) FROM executions AS e WHERE e.tenant_id = :tenant_id AND e.id < :gone) AS newest,
        (SELECT min(e.fire_at) FROM executions AS e
         WHERE e.tenant_id = :tenant_id AND e.finished_at IS NULL AND e.fire_at < :now) AS oldest_open""")

_ANY_MARK: Final = text("SELECT 1 FROM stats_marks WHERE tenant_id = :tenant_id AND at < :until LIMIT 1")

_FREEZE: Final = text("""
    UPDATE stats_state SET frozen_before = :until WHERE tenant_id = :tenant_id AND frozen_before < :until""")

_FROZEN: Final = text("SELECT frozen_before FROM stats_state WHERE tenant_id = :tenant_id")

_SWEEP: Final = text("""
    DELETE FROM stats_15m AS s
    USING (SELECT old.scope, old.at FROM stats_15m AS old
           WHERE old.tenant_id = :tenant_id AND old.at < :keep_from ORDER BY old.at LIMIT :limit) AS old
    WHERE s.tenant_id = :tenant_id AND s.scope = old.scope AND s.at = old.at""")


def window(tenant_id: UUID, live: Sequence[tuple[datetime, datetime]], now: datetime) -> dict[str, Any]:
    """Return the parameters of `OUTCOMES` and `RANGES` for these stretches."""
    first = min((since for since, _ in live), default=now)
    last = max((until for _, until in live), default=now)
    return {
        "tenant_id": tenant_id,
        "now": now,
        "live_since": [since for since, _ in live],
        "live_until": [until for _, until in live],
        "low": id_floor(first - SLACK),
        "high": id_ceil(last + SLACK),
    }


async def roll_up(conn: AsyncConnection, tenant_id: UUID, now: datetime, limit: int = STEP) -> int:
    """Count up to `limit` closed quarters that have changed; return how many, 0 when somebody else is counting.

    In one transaction, at READ COMMITTED: the statements that count must see more than the one that unmarks.
    """
    frozen_before = await _take(conn, tenant_id)
    if frozen_before is None:
        return 0
    values = {"tenant_id": tenant_id, "closed": quarter_of(now), "limit": limit}
    quarters: list[datetime] = list((await conn.execute(_MARKED, values)).scalars())
    if not quarters:
        return 0
    await conn.execute(_UNMARK, {"tenant_id": tenant_id, "quarters": quarters})
    counted = [at for at in sorted(quarters) if at >= frozen_before]
    if counted:
        await _run(conn, _FORGET, {"tenant_id": tenant_id, "quarters": counted})
        await _run(conn, _COUNT, window(tenant_id, [(at, at + QUARTER) for at in counted], now))
    return len(quarters)


async def _run(conn: AsyncConnection, statement: TextClause, values: dict[str, Any]) -> None:
    await conn.execute(statement, values)


async def _take(conn: AsyncConnection, tenant_id: UUID) -> datetime | None:
    """Lock the state of a tenant's statistics and return since when they are frozen; None if it is locked."""
    values = {"tenant_id": tenant_id, "never": NEVER}
    found: datetime | None = (await conn.execute(_LOCK, values)).scalar_one_or_none()
    if found is None and (await conn.execute(_BEGIN, values)).rowcount:
        found = (await conn.execute(_LOCK, values)).scalar_one_or_none()
    return found


async def freeze(conn: AsyncConnection, tenant_id: UUID, keep_from: datetime, now: datetime) -> bool:
    """Let the statistics of executions whose weeks ended before `keep_from` be final; False when it is too early.

    It is while one of those quarters is still to be counted. Older executions that are still open hold it back to
    before them.
    """
    monday = (keep_from - timedelta(days=keep_from.astimezone(UTC).weekday())).astimezone(UTC)
    monday = monday.replace(hour=0, minute=0, second=0, microsecond=0)
    values = {"tenant_id": tenant_id, "gone": id_floor(monday), "now": now}
    newest, oldest_open = (await conn.execute(_EDGES, values)).one()
    until = monday if newest is None else max(monday, quarter_of(newest) + QUARTER)
    if oldest_open is not None:
        until = min(until, quarter_of(oldest_open))
    if until > quarter_of(now) or await _take(conn, tenant_id) is None:
        return False
    if (await conn.execute(_ANY_MARK, {"tenant_id": tenant_id, "until": until})).first() is not None:
        return False
    await conn.execute(_FREEZE, {"tenant_id": tenant_id, "until": until})
    return True


async def frozen_before(conn: AsyncConnection, tenant_id: UUID) -> datetime:
    """Return before which quarter statistics are final, whatever becomes of the executions."""
    found: datetime | None = (await conn.execute(_FROZEN, {"tenant_id": tenant_id})).scalar_one_or_none()
    return found or NEVER


async def sweep(conn: AsyncConnection, tenant_id: UUID, keep_from: datetime, limit: int) -> int:
    """Remove statistics of quarters before `keep_from`; return how many rows, at most `limit`."""
    values = {"tenant_id": tenant_id, "keep_from": keep_from, "limit": limit}
    return (await conn.execute(_SWEEP, values)).rowcount
