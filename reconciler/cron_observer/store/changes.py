"""What has changed since an instant: which executions, tasks and sources the stream must tell about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import id_ceil, id_floor

#: How far the nominal instant, which the id begins with, may lie from the fire time: calendars move it by two weeks.
_MOVED: Final = timedelta(days=16)

#: An event may belong to an execution this much older: it is offered for a week, runs for another, and waits a day.
OLDEST: Final = timedelta(days=15) + _MOVED

#: What fires early bears the instant of a slot that is still to come.
NEWEST: Final = _MOVED

_EVENTS: Final = text("""
    SELECT execution_id, seq, at FROM execution_events
    WHERE tenant_id = :tenant_id AND at > :since AND execution_id BETWEEN :low AND :high
    ORDER BY at, execution_id, seq LIMIT :limit""")

#: A pause changes its task without a word in the task's own row. It is followed by the scheduler whenever it has
#: begun, changed or ended; the other two instants tell of it while there is none.
_TASKS: Final = text("""
    SELECT task_uid, updated_at FROM tasks WHERE tenant_id = :tenant_id AND updated_at > :since
    UNION
    SELECT task_uid, greatest(created_at, ended_at, followed_at) FROM pauses
    WHERE tenant_id = :tenant_id AND (created_at > :since OR ended_at > :since OR followed_at > :since)
    ORDER BY updated_at, task_uid LIMIT :limit""")


_LOG_HEADS: Final = text("""
    SELECT DISTINCT ON (execution_id) execution_id, attempt, log_base + log_lines AS lines FROM attempts
    WHERE tenant_id = :tenant_id AND execution_id = ANY (CAST(:ids AS uuid[]))
    ORDER BY execution_id, fence DESC""")


async def events_since(
    conn: AsyncConnection, tenant_id: UUID, since: datetime, limit: int
) -> Sequence[tuple[UUID, int, datetime]]:
    """Return (execution, number, time) of the events after `since`, oldest first, at most `limit`."""
    values = {
        "tenant_id": tenant_id,
        "since": since,
        "low": id_floor(since - OLDEST),
        "high": id_ceil(since + NEWEST),
        "limit": limit,
    }
    return [(row.execution_id, row.seq, row.at) for row in await conn.execute(_EVENTS, values)]


async def tasks_since(
    conn: AsyncConnection, tenant_id: UUID, since: datetime, limit: int
) -> Sequence[tuple[UUID, datetime]]:
    """Return (task, time) of the tasks changed, paused or resumed after `since`, oldest first, at most `limit`."""
    values = {"tenant_id": tenant_id, "since": since, "limit": limit}
    return [(row.task_uid, row.updated_at) for row in await conn.execute(_TASKS, values)]


async def log_heads(conn: AsyncConnection, tenant_id: UUID, ids: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """Return, for each execution with an attempt, the newest attempt and how many lines its log has."""
    rows = await conn.execute(_LOG_HEADS, {"tenant_id": tenant_id, "ids": list(ids)})
    return {row.execution_id: (row.attempt, row.lines) for row in rows}
