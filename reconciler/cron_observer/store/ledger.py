"""The ledger check: reads plans, slots and ranges of each task in one snapshot, and lets `ledger` judge them.

It writes nothing. Tasks are read one after the other, and of each a stretch of whole days at a time, so that what
is in memory is bounded by the densest day.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.ledger import Generation, Judge, Range, Row, Verdict
from cron_observer.model import parse_duration
from cron_observer.schedule import id_ceil, id_floor, id_time, tzdata_version
from cron_observer.store import statistics_check
from cron_observer.store.engine import Database, clock

#: How far back a check looks when it is not told.
DEFAULT_PERIOD: Final = timedelta(days=7)

#: Tasks, and rows of executions, that one statement reads.
TASKS: Final = 500
ROWS: Final = 5_000

#: A stretch of this few slots is followed by one twice as long, up to `LONGEST`.
SPARSE: Final = 2_000
LONGEST: Final = timedelta(days=32)

#: How far the time inside an id may be from the fire time; bounds the partitions that a statement touches.
ID_SLACK: Final = timedelta(days=32)

_DAY: Final = timedelta(days=1)

#: Every statement of a task sees the same instant, and none of them can write.
_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

_TASKS: Final = text("""
    SELECT t.task_uid, p.name || '/' || t.name AS task, t.spec ->> 'maxLateness' AS max_lateness
    FROM tasks AS t JOIN projects AS p ON p.tenant_id = t.tenant_id AND p.project_id = t.project_id
    WHERE t.tenant_id = :tenant_id AND t.task_uid > :after
      AND (CAST(:project AS text) IS NULL OR p.name = :project)
      AND (CAST(:task AS text) IS NULL OR :task IN (t.task_uid::text, t.name, p.name || '/' || t.name))
    ORDER BY t.task_uid LIMIT :limit""")

_HISTORY: Final = text("""
    SELECT h.generation, h.active, h.schedule, h.effective_from, h.tzdata_version FROM plan_history AS h
    WHERE h.tenant_id = :tenant_id AND h.task_uid = :task_uid ORDER BY h.generation""")

_PLANNED: Final = text("""
    SELECT p.planned_until, t.quarantine IS NOT NULL AS quarantined
    FROM task_plan AS p JOIN tasks AS t ON t.tenant_id = p.tenant_id AND t.task_uid = p.task_uid
    WHERE p.tenant_id = :tenant_id AND p.task_uid = :task_uid""")

_CONTENTS: Final = text("""
    SELECT c.digest, c.content FROM calendar_contents AS c
    WHERE c.tenant_id = :tenant_id AND c.digest = ANY (CAST(:digests AS text[]))""")

#: Runs that repeat a slot, and runs that somebody asked for, are no slots.
_COLUMNS: Final = """e.id, e.nominal_at, e.nominal_local, e.nominal_fold, e.timezone, e.tzdata_version,
    e.holidays_version, e.moved_by, e.fire_at, e.available_at, e.start_deadline, e.closes_at, e.check_at, e.status,
    e.reason, e.fence, e.event_seq, e.plan_generation"""
_IS_SLOT: Final = "e.trigger IN ('schedule', 'catchup') AND e.repeats IS NULL AND e.nominal_local IS NOT NULL"

_ROWS: Final = text(f"""
    SELECT {_COLUMNS} FROM executions AS e
    WHERE e.tenant_id = :tenant_id AND e.task_uid = :task_uid AND e.id BETWEEN :low AND :high
      AND e.fire_at >= :since AND e.fire_at < :until AND {_IS_SLOT}
      AND (CAST(:after_id AS uuid) IS NULL OR (e.fire_at, e.id) > (:after_at, CAST(:after_id AS uuid)))
    ORDER BY e.fire_at, e.id LIMIT :limit""")

_BY_ID: Final = text(f"""
    SELECT {_COLUMNS} FROM executions AS e
    WHERE e.tenant_id = :tenant_id AND e.id = ANY (:ids) AND e.id BETWEEN :low AND :high
      AND e.task_uid = :task_uid AND {_IS_SLOT}""")

_REPEATED: Final = text("""
    SELECT e.repeats FROM executions AS e
    WHERE e.tenant_id = :tenant_id AND e.task_uid = :task_uid AND e.repeats IS NOT NULL
      AND e.nominal_at >= :since AND e.nominal_at <= :until AND e.repeats = ANY (:ids)""")

_RANGES: Final = text("""
    SELECT r.first_at, r.last_at, r.slots, r.quarters, r.status, r.reason FROM slot_ranges AS r
    WHERE r.tenant_id = :tenant_id AND r.task_uid = :task_uid AND r.first_at >= :since AND r.first_at < :until
    ORDER BY r.first_at""")

_WEEKS: Final = text("""
    SELECT to_timestamp(right(child.relname, 8) || ' +00', 'YYYYMMDD TZH') AS monday
    FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = 'executions'::regclass ORDER BY 1""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be checked: a period of nominal instants, a project, a task (uid, name or project/name)."""

    since: datetime | None = None  #: a week before `until`; rounded down to midnight, UTC
    until: datetime | None = None  #: now
    project: str | None = None
    task: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """A task to be checked, and the frame of its check."""

    tenant_id: UUID
    uid: UUID
    name: str
    max_lateness: timedelta | None
    since: datetime
    until: datetime
    now: datetime
    weeks: Sequence[datetime]
    versions: tuple[str, str]


async def check(database: Database, tenant_id: UUID, asked: Asked) -> AsyncIterator[tuple[str, Verdict]]:
    """Check one task after the other; yield its name and what was found, for each that has a history."""
    from cron_observer.schedule.calendars import holidays_version

    versions = (tzdata_version(), holidays_version())
    after = UUID(int=0)
    while True:
        async with database.transaction([tenant_id]) as conn:
            now = await clock(conn)
            weeks = list((await conn.execute(_WEEKS)).scalars())
            values = {"tenant_id": tenant_id, "after": after, "limit": TASKS}
            page = (await conn.execute(_TASKS, values | {"project": asked.project, "task": asked.task})).all()
        until = min(asked.until or now, now)
        since = _midnight(asked.since or until - DEFAULT_PERIOD)
        for uid, name, lateness in page:
            task = _Task(
                tenant_id=tenant_id,
                uid=uid,
                name=name,
                max_lateness=parse_duration(lateness) if lateness else None,
                since=since,
                until=until,
                now=now,
                weeks=weeks,
                versions=versions,
            )
            async with database.transaction([tenant_id]) as conn:
                await conn.exec_driver_sql(_SNAPSHOT)
                verdict = await _check(conn, task)
                if verdict is not None:
                    verdict.defects += await statistics_check.compare(conn, tenant_id, (uid, name), since, until)
            if verdict is not None:
                yield name, verdict
        if len(page) < TASKS:
            return
        after = page[-1].task_uid


async def _check(conn: AsyncConnection, task: _Task) -> Verdict | None:
    """Check one task; None when it has no history that reaches into the period."""
    values = {"tenant_id": task.tenant_id, "task_uid": task.uid}
    generations = [Generation(*row) for row in await conn.execute(_HISTORY, values)]
    plan = (await conn.execute(_PLANNED, values)).one_or_none()
    if not generations or plan is None:
        return None
    judge = Judge(
        task.uid,
        task.name,
        generations,
        await _contents(conn, task.tenant_id, generations),
        planned_until=plan.planned_until,
        until=task.until,
        now=task.now,
        weeks=task.weeks,
        versions=task.versions,
        max_lateness=task.max_lateness,
        quarantined=plan.quarantined,
    )
    start, step = max(task.since, _midnight(judge.begins)), _DAY
    end_of_all = _midnight(task.until) + _DAY
    while start < end_of_all:
        end = min(start + step, end_of_all)
        seen = judge.verdict.slots
        rows = await _rows(conn, task, start - judge.slack, end + judge.slack)
        ranges = [Range(*row) for row in await conn.execute(_RANGES, values | {"since": start, "until": end})]
        judge.stretch(start, end, rows, ranges)
        if judge.verdict.slots - seen < SPARSE:
            step = min(2 * step, LONGEST)
        start = end
    judge.ahead(await _rows(conn, task, end_of_all, end_of_all + ID_SLACK))
    suspects = judge.suspects()
    if not suspects:
        return judge.finish()
    return judge.finish(await _found(conn, task, suspects), await _repeated(conn, task, suspects))


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def _contents(conn: AsyncConnection, tenant_id: UUID, generations: Sequence[Generation]) -> dict[str, Any]:
    """Return the calendars that any generation names, by digest."""
    digests = set()
    for one in generations:
        named = one.schedule.get("calendars") if isinstance(one.schedule, dict) else None
        for names in named.values() if isinstance(named, dict) else ():
            digests |= {str(name).rpartition("@")[2] for name in names if isinstance(names, list)}
    if not digests:
        return {}
    rows = await conn.execute(_CONTENTS, {"tenant_id": tenant_id, "digests": sorted(digests)})
    return {row.digest: row.content for row in rows}


async def _rows(conn: AsyncConnection, task: _Task, since: datetime, until: datetime) -> list[Row]:
    """Return the slots of a task that fire in a window, read page by page."""
    values: dict[str, Any] = {
        "tenant_id": task.tenant_id,
        "task_uid": task.uid,
        "since": since,
        "until": until,
        "low": id_floor(max(since - ID_SLACK, datetime(1970, 1, 1, tzinfo=UTC))),
        "high": id_ceil(until + ID_SLACK),
        "after_at": since,
        "after_id": None,
        "limit": ROWS,
    }
    rows: list[Row] = []
    while True:
        page = (await conn.execute(_ROWS, values)).all()
        rows += [Row(*row) for row in page]
        if len(page) < ROWS:
            return rows
        values |= {"after_at": page[-1].fire_at, "after_id": page[-1].id}


async def _found(conn: AsyncConnection, task: _Task, ids: Sequence[UUID]) -> list[Row]:
    """Return the slots with these ids, wherever they fire."""
    values = {"tenant_id": task.tenant_id, "task_uid": task.uid, "ids": list(ids), "low": min(ids), "high": max(ids)}
    return [Row(*row) for row in await conn.execute(_BY_ID, values)]


async def _repeated(conn: AsyncConnection, task: _Task, ids: Sequence[UUID]) -> list[UUID]:
    """Return which of these slots have been run after all, by a backfill."""
    values = {"tenant_id": task.tenant_id, "task_uid": task.uid, "ids": list(ids)}
    window = {"since": id_time(min(ids)), "until": id_time(max(ids)) + _DAY}
    return list((await conn.execute(_REPEATED, values | window)).scalars())
