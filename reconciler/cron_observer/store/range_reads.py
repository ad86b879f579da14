"""Ranges of slots that were skipped alike: listed, and counted by quarter hour beside the rows of single slots."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store import shapes

#: The quarter hours of ranges that begin in a window, as (task_uid, project_id, status, reason, at, n). A range keeps
#: no single slots: a quarter counts when it is over, or when its range is.
QUARTERS: Final = """
    SELECT r.task_uid, r.project_id, r.status, r.reason, q.at, q.n FROM slot_ranges AS r
    CROSS JOIN LATERAL (
        SELECT date_trunc('day', r.first_at, 'UTC') + (part.number - 1) * interval '15 minutes' AS at, part.n
        FROM unnest(r.quarters) WITH ORDINALITY AS part (n, number) WHERE part.n > 0) AS q
    WHERE r.tenant_id = :tenant_id
      AND r.last_at >= :since AND r.last_at < CAST(:until AS timestamptz) + interval '1 day'
      AND q.at >= :since AND q.at < :until AND (q.at + interval '15 minutes' <= :now OR r.last_at <= :now)"""

_PAGE: Final = text("""
    SELECT r.first_at, r.last_at, r.slots, r.status, r.reason, r.timezone FROM slot_ranges AS r
    WHERE r.tenant_id = :tenant_id AND r.task_uid = :task_uid
      AND r.last_at >= :since AND r.first_at < :until AND (:upcoming OR r.first_at <= :now)
      AND (CAST(:after AS timestamptz) IS NULL OR r.first_at < :after)
    ORDER BY r.first_at DESC LIMIT :limit""")

_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeFilter:
    """Which ranges of a task a list shows: those with a nominal instant in [since, until)."""

    task_uid: UUID
    since: datetime | None = None
    until: datetime | None = None
    upcoming: bool = False  #: also those that lie ahead


async def list_ranges(
    conn: AsyncConnection,
    tenant_id: UUID,
    chosen: RangeFilter,
    *,
    now: datetime,
    limit: int,
    after: datetime | None = None,
) -> tuple[list[dict[str, Any]], datetime | None]:
    """Return a page of ranges, newest first, behind `after`, and where it ended; None when it is the last page."""
    values = {
        "tenant_id": tenant_id,
        "task_uid": chosen.task_uid,
        "since": chosen.since or _EARLIEST,
        "until": chosen.until or _LATEST,
        "upcoming": chosen.upcoming,
        "now": now,
        "after": after,
        "limit": limit + 1,
    }
    rows = (await conn.execute(_PAGE, values)).mappings().all()
    page = [
        {
            "first_at": shapes.instant(row["first_at"]),
            "last_at": shapes.instant(row["last_at"]),
            "slots": row["slots"],
            "status": row["status"],
            "reason": row["reason"],
            "timezone": row["timezone"],
        }
        for row in rows[:limit]
    ]
    return page, (rows[limit - 1]["first_at"] if len(rows) > limit else None)
