"""What the overview page shows, each part read by one statement. The other pages' parts are in ``views_*.py``.

Everything here reads and aggregates; rows come back as mappings with aware times. History is what is due; slots of
a replaced plan are never shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import id_ceil, id_floor
from cron_observer.store.executions.bounds import running_bounds
from cron_observer.store.reads import OBSOLETE

Row = Mapping[str, Any]

#: A connection inside a transaction, for those who pass it on and run no SQL.
Conn = AsyncConnection

#: How far an id's time may lie from `fire_at`: bounds the partitions that a statement touches.
SLACK: Final = timedelta(days=16)

#: A run that began before the timeline's left edge is shown if it fired at most this long before it.
LONGEST_SHOWN: Final = timedelta(days=1)

#: Marks of a task on the timeline; runs that begin in the same slice of the window become one mark.
TIMELINE_SLICES: Final = 240

#: When an execution of which only the end is known by a ping began: nobody knows; any other at its claim or start.
BEGAN: Final = "coalesce(e.started_at, CASE WHEN e.queue <> '@checkin' THEN e.claimed_at END)"

#: Seconds for which an execution ran, or has been running.
SECONDS: Final = f"extract(epoch FROM coalesce(e.finished_at, :now) - {BEGAN})::float"

#: Worst first: which of several outcomes a mark shows.
RANK: Final = """CASE WHEN e.status = 'FAILED' THEN 0 WHEN e.status = 'MISSED' THEN 1 WHEN e.late THEN 2
    WHEN e.status = 'RUNNING' THEN 3 WHEN e.status = 'CANCELLED' THEN 4 WHEN e.status = 'FINISHED' THEN 5
    WHEN e.status = 'SKIPPED' THEN 6 ELSE 7 END"""

#: Every source with the number of its findings, and the clock in each row; one row even without a source.
_SHELL: Final = text("""
    SELECT c.now, s.source_id, s.name, s.kind, s.url, s.ref, s.observed_commit, s.applied_commit, s.applied_at,
        s.observed_at, s.first_pass_at, s.failures, s.conditions, s.counts, s.requested_seq, s.handled_seq,
        s.poll_seconds, s.environment, s.mode, s.failure_policy, s.held, s.plan_hash, s.suspended_at,
        s.suspended_until, s.suspended_by, s.suspend_reason, p.name AS project_name,
        coalesce(f.errors, 0) AS errors, coalesce(f.warnings, 0) AS warnings
    FROM (SELECT clock_timestamp() AS now) AS c
    LEFT JOIN sources AS s ON s.tenant_id = :tenant_id
    LEFT JOIN projects AS p ON p.tenant_id = s.tenant_id AND p.project_id = s.project_id
    LEFT JOIN (SELECT source_id, count(*) FILTER (WHERE severity = 'error') AS errors,
                      count(*) FILTER (WHERE severity = 'warning') AS warnings
               FROM sync_findings WHERE tenant_id = :tenant_id GROUP BY source_id) AS f
        ON f.source_id = s.source_id
    ORDER BY s.name""")

_LOG_BYTES: Final = text("""
    SELECT coalesce(sum(a.log_bytes), 0)::bigint FROM attempts AS a
    WHERE a.tenant_id = :tenant_id AND a.execution_id BETWEEN :low AND :high""")

_PRESENT: Final = text(f"""
    SELECT
        (SELECT jsonb_build_array(count(*), min(e.claimed_at)) FROM executions AS e
         WHERE e.tenant_id = :tenant_id AND e.status = 'RUNNING' AND e.id BETWEEN :running_low AND :high) AS running,
        (SELECT jsonb_build_array(count(*), count(*) FILTER (WHERE t.spec @> '{{"suspend": true}}'))
         FROM tasks AS t
         WHERE t.tenant_id = :tenant_id AND t.removed_at IS NULL AND t.deleted_at IS NULL) AS tasks,
        (SELECT jsonb_agg(jsonb_build_array(extract(epoch FROM n.fire_at), n.name)) FROM (
            SELECT e.fire_at, t.name FROM executions AS e
            JOIN tasks AS t ON t.tenant_id = e.tenant_id AND t.task_uid = e.task_uid
            WHERE e.tenant_id = :tenant_id AND e.id BETWEEN :low AND :high AND e.fire_at > :now
              AND e.status = 'PENDING' AND NOT {OBSOLETE}
            ORDER BY e.fire_at LIMIT 40) AS n) AS next""")

_TIMELINE: Final = text(f"""
    WITH shown AS MATERIALIZED (
        SELECT e.id, e.task_uid, e.status = 'PENDING' AND e.fire_at > :now AS ahead, {RANK} AS rank,
            CASE WHEN e.claimed_at IS NULL THEN e.fire_at ELSE coalesce(e.started_at, e.claimed_at) END AS begins,
            CASE WHEN e.status = 'RUNNING' THEN :now WHEN e.claimed_at IS NULL THEN e.fire_at
                 ELSE coalesce(e.finished_at, e.started_at, e.claimed_at) END AS ends
        FROM executions AS e
        WHERE e.tenant_id = :tenant_id AND e.id BETWEEN :low AND :high
          AND e.fire_at >= :earliest AND e.fire_at < :until AND coalesce(e.finished_at, :until) >= :since
          AND (e.fire_at <= :now OR e.status = 'PENDING') AND NOT {OBSOLETE}),
    busiest AS (
        SELECT task_uid, count(*) FILTER (WHERE NOT ahead) AS runs,
            percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ends - begins)::float)
                FILTER (WHERE NOT ahead) AS usual
        FROM shown GROUP BY task_uid
        ORDER BY coalesce(sum(extract(epoch FROM ends - begins)), 0) DESC, 2 DESC, task_uid LIMIT :tasks),
    marks AS (
        SELECT s.task_uid, s.ahead, min(s.begins) AS begins, max(s.ends) AS ends, count(*) AS n,
            min(s.rank) AS rank, (array_agg(s.id ORDER BY s.rank, s.begins))[1] AS id
        FROM shown AS s JOIN busiest USING (task_uid)
        GROUP BY s.task_uid, s.ahead,
            width_bucket(extract(epoch FROM s.begins), :since_s, :until_s, {TIMELINE_SLICES}))
    SELECT t.name, p.name AS project_name, b.usual, m.ahead, m.begins, m.ends, m.n, m.rank, m.id
    FROM marks AS m JOIN busiest AS b USING (task_uid)
    JOIN tasks AS t ON t.tenant_id = :tenant_id AND t.task_uid = m.task_uid
    JOIN projects AS p ON p.tenant_id = t.tenant_id AND p.project_id = t.project_id
    ORDER BY b.runs, t.name, t.task_uid, m.begins""")

_PROBLEMS: Final = f"""
    SELECT 'execution' AS kind, e.fire_at AS at, e.id::text AS id, p.name AS project_name, t.name AS name,
        e.status, e.reason, e.late, e.attempt, e.exit_code, left(e.error ->> 'message', 300) AS message,
        e.timezone, e.worker, NULL::int AS line, NULL::int AS "column", NULL AS hint, NULL AS source_name,
        e.finished_at, EXISTS (
            SELECT FROM executions AS l
            WHERE l.tenant_id = :tenant_id AND l.task_uid = e.task_uid AND l.fire_at > e.fire_at
              AND l.fire_at <= :now AND l.status = 'FINISHED' AND l.id BETWEEN :low AND :high) AS recovered, t.path
    FROM (
        SELECT DISTINCT ON (e.task_uid) e.* FROM executions AS e
        WHERE e.tenant_id = :tenant_id AND e.id BETWEEN :low AND :high
          AND e.fire_at >= :since AND e.fire_at <= :now
          AND (e.status IN ('FAILED', 'MISSED') OR e.late
               OR (e.status = 'PENDING' AND e.available_at < :patience AND e.queue <> '@checkin'))
          AND NOT {OBSOLETE}
        ORDER BY e.task_uid, e.fire_at DESC, e.id DESC) AS e
    JOIN tasks AS t ON t.tenant_id = e.tenant_id AND t.task_uid = e.task_uid AND t.removed_at IS NULL
    JOIN projects AS p ON p.tenant_id = e.tenant_id AND p.project_id = e.project_id"""

_ATTENTION: Final = text(f"""
    SELECT * FROM ({_PROBLEMS} ORDER BY recovered, at DESC LIMIT :limit) AS problems
    UNION ALL
    SELECT * FROM (
        SELECT 'finding', coalesce(r.finished_at, s.applied_at), NULL, f.code, f.path, f.severity, f.code, false,
            0, NULL::int, f.message, NULL, NULL, f.line, f.column, f.hint, s.name, NULL::timestamptz, false, f.path
        FROM sync_findings AS f
        JOIN sources AS s ON s.tenant_id = f.tenant_id AND s.source_id = f.source_id
        LEFT JOIN sync_runs AS r ON r.tenant_id = f.tenant_id AND r.run_id = f.run_id
        WHERE f.tenant_id = :tenant_id
        ORDER BY f.severity, f.path, f.n LIMIT :limit) AS findings
    UNION ALL
    SELECT * FROM (
        SELECT 'task', t.updated_at, NULL, p.name, t.name, 'QUARANTINED', NULL, false, 0, NULL::int, t.quarantine,
            NULL, NULL, NULL::int, NULL::int, NULL, NULL, NULL::timestamptz, false, t.path
        FROM tasks AS t JOIN projects AS p ON p.tenant_id = t.tenant_id AND p.project_id = t.project_id
        WHERE t.tenant_id = :tenant_id AND t.quarantine IS NOT NULL AND t.removed_at IS NULL
          AND t.deleted_at IS NULL
        ORDER BY t.name LIMIT :limit) AS quarantined""")


async def fetch(conn: AsyncConnection, statement: TextClause, tenant_id: UUID, **values: Any) -> Sequence[Row]:
    """Run one statement of the views for a tenant and return its rows."""
    found = await conn.execute(statement, {"tenant_id": tenant_id, **values})
    return cast("Sequence[Row]", found.mappings().all())


def bounds(since: datetime, until: datetime) -> dict[str, UUID]:
    """Bound the ids of executions that fire in a window."""
    return {"low": id_floor(since - SLACK), "high": id_ceil(until + SLACK)}


async def shell(conn: AsyncConnection, tenant_id: UUID) -> tuple[datetime, list[Row]]:
    """Return the database's clock, and every source with its counts of findings."""
    rows = await fetch(conn, _SHELL, tenant_id)
    return rows[0]["now"], [row for row in rows if row["source_id"] is not None]


async def log_bytes(conn: AsyncConnection, tenant_id: UUID, since: datetime, until: datetime) -> int:
    """Sum the raw size of the logs of executions between two instants."""
    values = {"tenant_id": tenant_id, **bounds(since, until)}
    return int((await conn.execute(_LOG_BYTES, values)).scalar_one())


async def present(conn: AsyncConnection, tenant_id: UUID, now: datetime) -> Row:
    """Return what runs now, how many tasks there are, and the next fires, in epoch seconds."""
    around = bounds(now, now + timedelta(days=2))
    (row,) = await fetch(conn, _PRESENT, tenant_id, now=now, running_low=running_bounds(now)["low"], **around)
    return row


async def timeline(
    conn: AsyncConnection, tenant_id: UUID, since: datetime, until: datetime, now: datetime, *, tasks: int
) -> list[Row]:
    """Return the marks of the busiest tasks in a window, by task: at most `TIMELINE_SLICES` each, twice over."""
    return list(
        await fetch(
            conn,
            _TIMELINE,
            tenant_id,
            since=since,
            until=until,
            earliest=since - LONGEST_SHOWN,
            since_s=since.timestamp(),
            until_s=until.timestamp(),
            now=now,
            tasks=tasks,
            **bounds(since - LONGEST_SHOWN, until),
        )
    )


async def attention(
    conn: AsyncConnection, tenant_id: UUID, since: datetime, now: datetime, *, patience: timedelta, limit: int
) -> list[Row]:
    """Return what needs a person: the last failed, missed, late or unclaimed run of each task, findings, quarantine.

    A due slot counts as unclaimed after `patience`. At most `limit` of each kind.
    """
    return list(
        await fetch(
            conn,
            _ATTENTION,
            tenant_id,
            since=since,
            now=now,
            patience=now - patience,
            limit=limit,
            **bounds(since, now),
        )
    )
