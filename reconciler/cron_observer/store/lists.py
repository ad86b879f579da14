"""Executions in bulk: a page of a list, newest first, and the counts of each local day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import BadRequest
from cron_observer.lifecycle import Status
from cron_observer.schedule import id_ceil, id_floor
from cron_observer.statistics import days_of
from cron_observer.store import shapes, statistics_reads
from cron_observer.store.reads import DEFINITION_COLUMNS, DUE, ITEM_COLUMNS, JOINS, OBSOLETE

#: How far the time inside an id may be from `fire_at` (calendars, jitter, gaps, foreign clocks): bounds the partitions.
ID_SLACK: Final = timedelta(days=16)

#: The first and the last instant that an id can begin with and that a list is asked for.
_EARLIEST: Final = datetime(1970, 1, 18, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 1, tzinfo=UTC)

_INSTANT: Final = timedelta(microseconds=1)

#: Days that one call may ask for.
MAX_DAYS: Final = 400

_FILTERS: Final = f"""
    e.tenant_id = :tenant_id AND e.id BETWEEN :low AND :high
    AND e.fire_at >= :since AND e.fire_at < :until
    AND (CAST(:project_id AS uuid) IS NULL OR e.project_id = :project_id)
    AND (CAST(:one_task AS uuid) IS NULL OR e.task_uid = :one_task)
    AND (CAST(:tasks AS uuid[]) IS NULL OR e.task_uid = ANY (CAST(:tasks AS uuid[])))
    AND (:upcoming OR {DUE}) AND NOT {OBSOLETE}"""

#: Names `executions` once: what it costs to plan is each mention of it times the weeks between the ids.
_PAGE: Final = text(f"""
    SELECT {ITEM_COLUMNS}, {DEFINITION_COLUMNS}, e.error - 'traceback' AS error
    FROM (
        SELECT e.* FROM executions AS e
        WHERE {_FILTERS}
          AND (CAST(:statuses AS text[]) IS NULL OR e.status = ANY (CAST(:statuses AS text[])))
          AND (CAST(:reasons AS text[]) IS NULL OR e.reason = ANY (CAST(:reasons AS text[])))
          AND (CAST(:triggers AS text[]) IS NULL OR e.trigger = ANY (CAST(:triggers AS text[])))
          AND (CAST(:worker AS text) IS NULL OR e.worker = :worker)
          AND (CAST(:after_id AS uuid) IS NULL OR (e.fire_at, e.id) < (:after_at, CAST(:after_id AS uuid)))
        ORDER BY e.fire_at DESC, e.id DESC LIMIT :limit) AS e
    {JOINS}
    WHERE e.tenant_id = :tenant_id
    ORDER BY e.fire_at DESC, e.id DESC""")

#: How far back the first look for a page goes. The next one goes twice as far as what it found lets expect, the last
#: one through all that the list covers: a page of what is frequent or new touches the weeks around it only.
_FIRST_LOOK: Final = timedelta(days=3)


class Position(NamedTuple):
    """Where a page of executions ended."""

    fire_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFilter:
    """Which executions a list shows. None means all; `since <= fire_at < until`.

    `tasks` are uids; an empty tuple matches nothing. `upcoming` adds slots that are not yet due.
    """

    project_id: UUID | None = None
    tasks: Sequence[UUID] | None = None
    statuses: Sequence[str] | None = None
    reasons: Sequence[str] | None = None
    triggers: Sequence[str] | None = None
    worker: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    upcoming: bool = False

    def on(self, day: date, timezone: str) -> ExecutionFilter:
        """Return this filter narrowed to one local date."""
        import dataclasses

        start, end = shapes.day_bounds(day, shapes.zone(timezone))
        since = start if self.since is None else max(start, self.since)
        until = end if self.until is None else min(end, self.until)
        return dataclasses.replace(self, since=since, until=until)


def _window(chosen: ExecutionFilter, now: datetime, after: Position | None) -> tuple[datetime, datetime]:
    """Return between which instants a page is looked for. Nothing that is due fires later than `now`."""
    since = min(max(chosen.since or _EARLIEST, _EARLIEST), _LATEST)
    until = min(chosen.until or _LATEST, _LATEST)
    if not chosen.upcoming:
        until = min(until, now + timedelta(seconds=1))
    if after is not None:
        until = min(until, max(after.fire_at, _EARLIEST) + _INSTANT)
    return since, until


def _values(chosen: ExecutionFilter, now: datetime, after: Position | None) -> dict[str, Any]:
    """Return the parameters of the filters."""
    several = None if chosen.tasks is None else list(chosen.tasks)
    return {
        "now": now,
        "project_id": chosen.project_id,
        # equality is what lets the task's own index give the order
        "one_task": several[0] if several is not None and len(several) == 1 else None,
        "tasks": several if several is not None and len(several) != 1 else None,
        "upcoming": chosen.upcoming,
        "statuses": _listed(chosen.statuses),
        "reasons": _listed(chosen.reasons),
        "triggers": _listed(chosen.triggers),
        "worker": chosen.worker,
        "after_at": after.fire_at if after else now,
        "after_id": after.id if after else None,
    }


async def list_executions(
    conn: AsyncConnection,
    tenant_id: UUID,
    chosen: ExecutionFilter,
    *,
    now: datetime,
    limit: int,
    after: Position | None = None,
) -> tuple[list[dict[str, Any]], Position | None]:
    """Return a page of executions, newest first, and where it ended; None when it is the last page.

    Only history (what is due) unless `chosen.upcoming`; slots of a replaced plan never.
    """
    values = _values(chosen, now, after) | {"tenant_id": tenant_id}
    since, until = _window(chosen, now, after)
    newest, span = max(since, min(until, now)), _FIRST_LOOK
    rows: list[RowMapping] = []
    for go_through_all in (False, False, True):
        begin = since if go_through_all or newest - since <= span else newest - span
        ids = {"low": id_floor(begin - ID_SLACK), "high": id_ceil(max(begin, until) + ID_SLACK)}
        asked = values | ids | {"since": begin, "until": until, "limit": limit + 1 - len(rows)}
        rows += (await conn.execute(_PAGE, asked)).mappings().all()
        if len(rows) > limit or begin == since:
            break
        until, span = begin, span * (2 * (limit + 1) / len(rows)) if rows else newest - since
    last = rows[limit - 1] if len(rows) > limit else None
    page = [shapes.execution_item(row) for row in rows[:limit]]
    return page, (Position(last["fire_at"], last["id"]) if last is not None else None)


def _listed(words: Sequence[str] | None) -> list[str] | None:
    return None if words is None else list(words)


async def days(
    conn: AsyncConnection,
    tenant_id: UUID,
    chosen: ExecutionFilter,
    *,
    now: datetime,
    first: date,
    last: date,
    timezone: str,
) -> list[dict[str, Any]]:
    """Count the due slots and runs of each local date from `first` to `last` (both included), oldest first.

    Slots that are told as ranges count in the quarter hours of their nominal instants.

    Empty days are left out. Of `chosen`, project and tasks count. Raises `BadRequest` for more than 400 days.
    """
    every, starts = day_starts(first, last, timezone)
    scope = statistics_reads.Scope(project_id=chosen.project_id, tasks=chosen.tasks)
    counted = await statistics_reads.count(conn, tenant_id, scope, starts, now)
    return [
        {"date": every[place].isoformat(), "total": one.total}
        | {status.lower(): one.counts.get(status.lower(), 0) for status in Status}
        for place, one in sorted(counted.items())
    ]


def day_starts(first: date, last: date, timezone: str) -> tuple[list[date], list[datetime]]:
    """Return the dates that a call asks for and where they begin. Raises `BadRequest` if it asks for too many."""
    if last < first:
        raise BadRequest("`from` is after `to`", pointer="/from")
    if (last - first).days >= MAX_DAYS:
        raise BadRequest(f"at most {MAX_DAYS} days can be asked for at once", pointer="/from")
    try:
        return days_of(first, last, shapes.zone(timezone))
    except OverflowError as error:
        raise BadRequest("the date is out of range") from error
