"""Projects and tasks as the wire shows them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.durations import CheckIn
from cron_observer.errors import ScheduleError
from cron_observer.model import TASK_NAME, ScheduleSpec
from cron_observer.schedule import describe, id_ceil
from cron_observer.schedule.calendars import Calendar
from cron_observer.store import addresses, plan_facts, reads, shapes
from cron_observer.store.executions.bounds import due_bounds
from cron_observer.store.lists import ID_SLACK
from cron_observer.store.plan_work import prepared
from cron_observer.store.task_status import PAUSE_COLUMNS, PAUSE_JOIN, STATUS, conditions

#: Every status that a task can show; REMOVED ones are listed only when asked for.
TASK_STATUSES: Final = ("ACTIVE", "PAUSED", "DISABLED", "QUARANTINED", "DELETING", "REMOVED")

_COLUMNS: Final = f"""
    t.task_uid, t.name, t.seed, p.name AS project_name, {STATUS} AS status, t.owner, s.name AS source_name,
    s.url AS source_url, t.path, t.line, t.commit, t.author, t.spec, t.generation, t.labels, t.sync, t.quarantine,
    {PAUSE_COLUMNS}"""

_JOINS: Final = f"""
    FROM tasks AS t
    JOIN projects AS p ON p.tenant_id = t.tenant_id AND p.project_id = t.project_id
    LEFT JOIN sources AS s ON s.tenant_id = t.tenant_id AND s.source_id = t.source_id
    {PAUSE_JOIN}"""

_TASKS: Final = text(f"""
    SELECT {_COLUMNS} {_JOINS}
    WHERE t.tenant_id = :tenant_id AND t.deleted_at IS NULL
      AND (CAST(:project_id AS uuid) IS NULL OR t.project_id = :project_id)
      AND {STATUS} = ANY (CAST(:statuses AS text[]))
      AND (CAST(:owner AS text) IS NULL OR t.owner = :owner)
      AND (CAST(:source AS text) IS NULL OR s.name = :source)
      AND (CAST(:like AS text) IS NULL
           OR t.name LIKE :like OR lower(t.spec ->> 'description') LIKE :like)
      AND (CAST(:label_key AS text) IS NULL
           OR CASE WHEN CAST(:label_value AS text) IS NULL THEN t.labels ? CAST(:label_key AS text)
                   ELSE t.labels ->> CAST(:label_key AS text) = :label_value END)
      AND (CAST(:after_name AS text) IS NULL
           OR (t.name COLLATE "C", t.task_uid) > (:after_name, CAST(:after_uid AS uuid)))
    ORDER BY t.name COLLATE "C", t.task_uid LIMIT :limit""")

_BY_NAME: Final = text(f"""
    SELECT {_COLUMNS} {_JOINS}
    WHERE t.tenant_id = :tenant_id AND p.name = :project AND t.name = :name AND t.deleted_at IS NULL""")

_BY_UID: Final = text(f"""
    SELECT {_COLUMNS} {_JOINS} WHERE t.tenant_id = :tenant_id AND t.task_uid = ANY (:uids)""")

#: The newest history of each task, and when it fires next: planned slots know best, the plan knows further.
_AROUND: Final = text(f"""
    SELECT wanted.task_uid,
        (SELECT e.id FROM executions AS e
         WHERE e.tenant_id = :tenant_id AND e.task_uid = wanted.task_uid AND e.fire_at <= :now
           AND e.id <= :high AND {reads.DUE} AND NOT {reads.OBSOLETE}
         ORDER BY e.fire_at DESC, e.id DESC LIMIT 1) AS last_id,
        coalesce(
            (SELECT min(e.fire_at) FROM executions AS e
             WHERE e.tenant_id = :tenant_id AND e.task_uid = wanted.task_uid AND e.status = 'PENDING'
               AND e.fence = 0 AND e.available_at > :now AND e.plan_generation IS NOT NULL
               AND e.id >= :low AND NOT {reads.OBSOLETE}),
            CASE WHEN plan.next_fire_at > :now THEN plan.next_fire_at END) AS next_fire_at
    FROM unnest(CAST(:uids AS uuid[])) AS wanted (task_uid)
    LEFT JOIN task_plan AS plan ON plan.tenant_id = :tenant_id AND plan.task_uid = wanted.task_uid""")

#: Slots behind a pause that are looked at for one that the windows of its group let run.
LOOKED_AHEAD: Final = 5_000

_BLOCKS: Final = text("""
    SELECT plan.task_uid, plan.schedule FROM task_plan AS plan
    WHERE plan.tenant_id = :tenant_id AND plan.task_uid = ANY (CAST(:uids AS uuid[])) AND plan.active""")

_RESOLVE: Final = text("""
    SELECT t.task_uid FROM tasks AS t
    JOIN projects AS p ON p.tenant_id = t.tenant_id AND p.project_id = t.project_id
    WHERE t.tenant_id = :tenant_id
      AND (t.task_uid = CAST(:uid AS uuid)
           OR t.name = :name AND (CAST(:project AS text) IS NULL OR p.name = :project))
    ORDER BY t.deleted_at IS NOT NULL, t.created_at DESC""")

_PROJECTS: Final = text("""
    SELECT p.project_id, p.name, p.created_at,
        (SELECT count(*) FROM tasks AS t
         WHERE t.tenant_id = p.tenant_id AND t.project_id = p.project_id
           AND t.deleted_at IS NULL AND t.removed_at IS NULL) AS tasks
    FROM projects AS p
    WHERE p.tenant_id = :tenant_id AND (CAST(:name AS text) IS NULL OR p.name = :name)
      AND (CAST(:after AS text) IS NULL OR p.name COLLATE "C" > :after)
    ORDER BY p.name COLLATE "C" LIMIT :limit""")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks a list shows. `label` is ``key`` or ``key=value``; `q` is part of name or description."""

    project_id: UUID | None = None
    statuses: Sequence[str] | None = None
    owner: str | None = None
    source: str | None = None
    label: str | None = None
    q: str | None = None


async def list_tasks(
    conn: AsyncConnection,
    tenant_id: UUID,
    chosen: TaskFilter,
    *,
    now: datetime,
    limit: int,
    after: tuple[str, UUID] | None = None,
) -> tuple[list[dict[str, Any]], tuple[str, UUID] | None]:
    """Return a page of tasks by name, and where it ended; None when it is the last page.

    Removed tasks are left out unless `statuses` names them; deleted ones are gone.
    """
    key, equals, value = (chosen.label or "").partition("=")
    like = None
    if chosen.q:
        escaped = chosen.q.lower().replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
        like = f"%{escaped}%"
    values = {
        "tenant_id": tenant_id,
        "project_id": chosen.project_id,
        "statuses": list(chosen.statuses or (word for word in TASK_STATUSES if word != "REMOVED")),
        "owner": chosen.owner,
        "source": chosen.source,
        "like": like,
        "label_key": key or None,
        "label_value": value if equals else None,
        "after_name": after[0] if after else None,
        "after_uid": after[1] if after else None,
        "now": now,
        "limit": limit + 1,
    }
    rows = (await conn.execute(_TASKS, values)).mappings().all()
    last = rows[limit - 1] if len(rows) > limit else None
    page = await _dressed(conn, tenant_id, rows[:limit], now)
    return page, ((last["name"], last["task_uid"]) if last is not None else None)


async def get_task(
    conn: AsyncConnection, tenant_id: UUID, project: str, name: str, *, now: datetime
) -> dict[str, Any] | None:
    """Return the task of this name; also one whose manifest is gone, but none that has been deleted."""
    values = {"tenant_id": tenant_id, "project": project, "name": name, "now": now}
    rows = (await conn.execute(_BY_NAME, values)).mappings().all()
    return next(iter(await _dressed(conn, tenant_id, rows, now)), None)


async def tasks(
    conn: AsyncConnection, tenant_id: UUID, uids: Sequence[UUID], *, now: datetime
) -> dict[UUID, dict[str, Any]]:
    """Return the tasks with these uids, deleted ones included; unknown uids are left out."""
    rows = (await conn.execute(_BY_UID, {"tenant_id": tenant_id, "uids": list(uids), "now": now})).mappings().all()
    dressed = await _dressed(conn, tenant_id, rows, now)
    return {row["task_uid"]: shown for row, shown in zip(rows, dressed, strict=True)}


async def resolve(conn: AsyncConnection, tenant_id: UUID, reference: str, project: str | None = None) -> list[UUID]:
    """Return the uids of the tasks that `reference` (a uid, ``project/name`` or a name) has ever meant.

    The living one comes first. Empty when there is none; a reference that names no task at all is no error.
    """
    place, slash, name = reference.rpartition("/")
    if slash:
        if project is not None and project != place:
            return []
        project = place
    uid = _uid(reference)
    if uid is None and TASK_NAME.fullmatch(name) is None:
        return []
    values = {"tenant_id": tenant_id, "uid": uid, "name": name if uid is None else None, "project": project}
    return list((await conn.execute(_RESOLVE, values)).scalars())


def _uid(text_: str) -> UUID | None:
    """Read a UUID in its canonical form only."""
    try:
        uid = UUID(text_)
    except ValueError:
        return None
    return uid if str(uid) == text_.lower() else None


async def _dressed(
    conn: AsyncConnection, tenant_id: UUID, rows: Sequence[Mapping[Any, Any]], now: datetime
) -> list[dict[str, Any]]:
    """Add the last execution and the next fire to rows of tasks: two statements, however many tasks."""
    if not rows:
        return []
    values = {
        "tenant_id": tenant_id,
        "uids": [row["task_uid"] for row in rows],
        "now": now,
        "high": id_ceil(now + ID_SLACK),
        "low": due_bounds(now)["low"],
    }
    around = {row["task_uid"]: row for row in (await conn.execute(_AROUND, values)).mappings()}
    last = await reads.items(conn, tenant_id, [row["last_id"] for row in around.values() if row["last_id"] is not None])
    fires = {uid: near["next_fire_at"] for uid, near in around.items()}
    fires |= await _after_pauses(conn, tenant_id, [row for row in rows if row["status"] == "PAUSED"], fires)
    watched = [row["task_uid"] for row in rows if CheckIn.of(row["spec"]) is not None]
    doors = await addresses.doors(conn, tenant_id, watched)
    dressed = []
    for row in rows:
        near = around.get(row["task_uid"])
        active = row["status"] in ("ACTIVE", "PAUSED")
        dressed.append(
            {
                "uid": str(row["task_uid"]),
                "name": row["name"],
                "project": row["project_name"],
                "status": row["status"],
                "owner": shapes.owner(row),
                "sync": row["sync"],
                "conditions": conditions(row),
                "spec": row["spec"],
                "generation": row["generation"],
                "labels": row["labels"],
                "schedule_text": describe(ScheduleSpec.read(row["spec"]["schedule"], row["seed"])),
                "next_fire_at": shapes.instant(fires[row["task_uid"]]) if near and active else None,
                "pause": shapes.pause(row),
                "last_execution": last.get(near["last_id"]) if near else None,
                # of tasks that somebody else fires and we watch
                "ping_url": at.ping_url if (at := doors.get(row["task_uid"])) else None,
                "sentry_dsn": at.sentry_dsn if at else None,
            }
        )
    return dressed


async def _after_pauses(
    conn: AsyncConnection,
    tenant_id: UUID,
    paused: Sequence[Mapping[Any, Any]],
    fires: Mapping[UUID, datetime | None],
) -> dict[UUID, datetime | None]:
    """Return when paused tasks fire next: after their pause, and not at all while it has no end.

    What is planned behind the pause is known already; what lies further ahead is computed.
    """
    found: dict[UUID, datetime | None] = {}
    for row in paused:
        until, known = row["pause_until"], fires[row["task_uid"]]
        found[row["task_uid"]] = None if until is None or known is None or known < until else known
    ends = {row["task_uid"]: row["pause_until"] for row in paused if row["pause_until"] is not None}
    unknown = [uid for uid in ends if found[uid] is None]
    if unknown:
        for uid, block in await conn.execute(_BLOCKS, {"tenant_id": tenant_id, "uids": unknown}):
            calendars = await plan_facts.calendars(conn, tenant_id, [block])
            try:
                found[uid] = await asyncio.to_thread(_first_from, block, calendars, ends[uid])
            except ScheduleError:
                continue  # it is going to be quarantined
    return found


def _first_from(block: Any, calendars: Mapping[str, Calendar], at: datetime) -> datetime | None:
    """Return when a schedule first fires from `at` on while its group is open, among the next slots."""
    ready = prepared(block, calendars)
    slots = islice(ready.schedule.next_fire_slots(at - timedelta(milliseconds=1)), LOOKED_AHEAD)
    open_ = (slot.fire_at for slot in slots if ready.windows is None or ready.windows.open_at(slot.fire_at))
    return next(open_, None)


async def list_projects(
    conn: AsyncConnection, tenant_id: UUID, *, limit: int, after: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return a page of projects by name, and the name at which it ended; None when it is the last page."""
    values = {"tenant_id": tenant_id, "name": None, "after": after, "limit": limit + 1}
    rows = (await conn.execute(_PROJECTS, values)).mappings().all()
    last = rows[limit - 1]["name"] if len(rows) > limit else None
    return [_project(row) for row in rows[:limit]], last


async def get_project(conn: AsyncConnection, tenant_id: UUID, name: str) -> tuple[UUID, dict[str, Any]] | None:
    """Return a project's id and what the wire shows of it, or None."""
    values = {"tenant_id": tenant_id, "name": name, "after": None, "limit": 1}
    row = (await conn.execute(_PROJECTS, values)).mappings().one_or_none()
    return None if row is None else (row["project_id"], _project(row))


def _project(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {"name": row["name"], "tasks": row["tasks"], "created_at": shapes.instant(row["created_at"])}
