"""The second witness of the statistics: outcomes counted anew from rows and ranges, beside what is told."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.ledger import Defect
from cron_observer.schedule import id_ceil, id_floor
from cron_observer.statistics import QUARTER, quarter_of
from cron_observer.store.statistics import SLACK, frozen_before

#: Quarters of one task that are told.
MOST: Final = 100

#: What the counts are of, in their order.
_STATUSES: Final = ("FINISHED", "FAILED", "CANCELLED", "SKIPPED", "MISSED")

#: A quarter that is marked is read from the executions by everybody, and so wrong for nobody.
_DIFFERENT: Final = text(f"""
    WITH told AS (
        SELECT s.at, ARRAY[s.finished, s.failed, s.cancelled, s.skipped, s.missed]::bigint[] AS counts
        FROM stats_15m AS s
        WHERE s.tenant_id = :tenant_id AND s.scope = :task_uid AND s.at >= :since AND s.at < :until),
    outcomes AS (
        SELECT quarter_of(e.fire_at) AS at, e.status, count(*) AS n FROM executions AS e
        WHERE e.tenant_id = :tenant_id AND e.task_uid = :task_uid AND e.id BETWEEN :low AND :high
          AND e.fire_at >= :since AND e.fire_at < :until AND e.finished_at IS NOT NULL
        GROUP BY 1, 2
        UNION ALL
        SELECT date_trunc('day', r.first_at, 'UTC') + (many.number - 1) * interval '15 minutes', r.status, many.n
        FROM slot_ranges AS r, unnest(r.quarters) WITH ORDINALITY AS many (n, number)
        WHERE r.tenant_id = :tenant_id AND r.task_uid = :task_uid AND many.n > 0
          AND r.first_at < :until AND r.last_at >= :since),
    counted AS (
        SELECT o.at, ARRAY[{", ".join(f"coalesce(sum(o.n) FILTER (WHERE o.status = '{one}'), 0)" for one in _STATUSES)}
            ]::bigint[] AS counts
        FROM outcomes AS o WHERE o.at >= :since AND o.at < :until GROUP BY o.at)
    SELECT at, coalesce(t.counts, '{{0,0,0,0,0}}') AS told, coalesce(c.counts, '{{0,0,0,0,0}}') AS counted
    FROM told AS t FULL JOIN counted AS c USING (at)
    WHERE t.counts IS DISTINCT FROM c.counts
      AND NOT EXISTS (SELECT FROM stats_marks AS m WHERE m.tenant_id = :tenant_id AND m.at = coalesce(t.at, c.at))
    ORDER BY at LIMIT :limit""")


async def compare(
    conn: AsyncConnection, tenant_id: UUID, task: tuple[UUID, str], since: datetime, until: datetime
) -> list[Defect]:
    """Return the quarter hours of a task, given as uid and name, whose statistics tell other outcomes than its rows.

    Those that are counted anew when something changes, and have closed by `until`; the first `MOST` of them.
    """
    uid, name = task
    first = max(quarter_of(since - QUARTER) + QUARTER, await frozen_before(conn, tenant_id))
    last = quarter_of(until)
    if first >= last:
        return []
    values = {
        "tenant_id": tenant_id,
        "task_uid": uid,
        "since": first,
        "until": last,
        "low": id_floor(first - SLACK),
        "high": id_ceil(last + SLACK),
        "limit": MOST,
    }
    return [
        Defect(
            task=name,
            label=f"{at:%Y-%m-%d %H:%M} UTC",
            kind="statistics",
            what=f"the statistics of this quarter hour tell {_said(told)}; there are {_said(counted)}",
            mend="write its time into stats_marks, and a scheduler counts it anew",
        )
        for at, told, counted in await conn.execute(_DIFFERENT, values)
    ]


def _said(counts: list[int]) -> str:
    """Say counts in words."""
    return ", ".join(f"{n} {one}" for one, n in zip(_STATUSES, counts, strict=True) if n) or "nothing"
