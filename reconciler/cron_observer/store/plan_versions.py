"""Plans that were made with older data on zones or public holidays than ours, and what newer data moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import id_floor, new_id, tzdata_version
from cron_observer.schedule.calendars import Calendar, holidays_version
from cron_observer.store import plan_facts
from cron_observer.store.engine import fetch
from cron_observer.store.plan_work import Plan, compiled

#: Slots of one task that its entry of the audit log names.
NAMED: Final = 20

#: What the schedule itself decides; other reasons come from pauses, windows of groups and policies.
_OWN: Final = (None, "calendar", "dst_gap", "coalesced")

#: Data is only followed forward, so that two processes with different versions do not undo each other's work.
OUTDATED: Final = """
WHERE p.tenant_id = %(tenant)s AND p.active AND (
    p.tzdata_version < %(tzdata)s COLLATE "C" AND (
        p.schedule ->> 'timezone' <> 'UTC' OR p.schedule #>> '{group,timezone}' <> 'UTC' OR p.schedule ? 'calendars')
    OR p.holidays_version ~ '^[0-9]+([.][0-9]+)*$'
        AND string_to_array(p.holidays_version, '.')::integer[] < %(holidays)s::integer[]
) AND (p.tzdata_version IS NULL OR p.tzdata_version <= %(tzdata)s COLLATE "C")
  AND (p.holidays_version IS NULL OR p.holidays_version !~ '^[0-9]+([.][0-9]+)*$'
       OR string_to_array(p.holidays_version, '.')::integer[] <= %(holidays)s::integer[])
ORDER BY p.task_uid LIMIT %(limit)s FOR UPDATE OF p SKIP LOCKED
"""

_FORECASTS: Final = """
SELECT e.task_uid, e.nominal_local, e.nominal_fold, e.fire_at, e.reason
FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.task_uid = ANY (%(uids)s::uuid[]) AND e.id >= %(low)s
  AND e.fire_at > %(start)s AND e.nominal_at > %(start)s AND e.trigger = 'schedule'
  AND e.status IN ('PENDING', 'SKIPPED') AND e.fence = 0 AND e.event_seq = 0
ORDER BY e.task_uid, e.nominal_at, e.id
"""

_VERSIONS: Final = """
SELECT t.task_uid, j.name || '/' || t.name, p.tzdata_version, p.holidays_version
FROM task_plan p
JOIN tasks t ON t.tenant_id = p.tenant_id AND t.task_uid = p.task_uid
JOIN projects j ON j.tenant_id = t.tenant_id AND j.project_id = t.project_id
WHERE p.tenant_id = %(tenant)s AND p.task_uid = ANY (%(uids)s::uuid[])
"""

_RECORD: Final = """
INSERT INTO audit_log (tenant_id, audit_id, at, actor, action, target, data)
SELECT %(tenant)s, v.id, %(now)s, 'scheduler', 'task.zone_data', 'task:' || v.name, v.data::jsonb
FROM unnest(%(ids)s::uuid[], %(names)s::text[], %(data)s::text[]) AS v (id, name, data)
"""


class Moved(NamedTuple):
    """A slot that fires at another time than was planned, or does not fire any more, or does now (None: does not)."""

    task: str  #: project/name
    label: str
    before: str | None
    after: str | None

    @property
    def shown(self) -> dict[str, str | None]:
        """Return it as logs and the audit log have it."""
        return {"task": self.task, "label": self.label, "from": self.before, "to": self.after}


def versions() -> dict[str, Any]:
    """Return the parameters of `OUTDATED` that say what data we have; an unknown version counts as the oldest."""
    zones, holidays = tzdata_version(), holidays_version()
    numbers = [int(part) for part in holidays.split(".")] if holidays.replace(".", "").isdigit() else [0]
    return {"tzdata": zones if zones[:1].isdigit() else "", "holidays": numbers}


async def moves(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan], start: datetime) -> list[Moved]:
    """Say which forecasts of these plans, behind `start`, our data moves; nothing is written."""
    uids = [plan.task_uid for plan in plans]
    parameters = {"tenant": tenant_id, "uids": uids, "start": start, "low": id_floor(start)}
    before: dict[UUID, dict[tuple[datetime, int], Any]] = {uid: {} for uid in uids}
    for uid, label, fold, fire_at, reason in await fetch(conn, _FORECASTS, parameters):
        before[uid][label, fold] = fire_at, reason
    names = {uid: name for uid, name, _, _ in await fetch(conn, _VERSIONS, parameters)}
    calendars = await plan_facts.calendars(conn, tenant_id, [plan.schedule for plan in plans])

    def compare() -> list[Moved]:
        return [
            moved
            for plan in plans
            if plan.task_uid in names
            for moved in _compared(plan, names[plan.task_uid], before[plan.task_uid], start, calendars)
        ]

    return await asyncio.to_thread(compare)


def _compared(
    plan: Plan,
    name: str,
    before: Mapping[tuple[datetime, int], Any],
    start: datetime,
    calendars: Mapping[str, Calendar],
) -> list[Moved]:
    try:
        slots = list(compiled(plan.schedule, calendars).slots(start, max(start, plan.planned_until)))
    except Exception:  # noqa: BLE001  planning will say so, and put the task aside
        return []
    after = {(slot.nominal_local, slot.fold): (slot.fire_at, slot.skip) for slot in slots if slot.fire_at > start}
    moved = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old and new and (old[0] == new[0] and (old[1] == new[1] or old[1] not in _OWN)):
            continue
        label = key[0].isoformat() + ("/1" if key[1] else "")
        moved.append(Moved(name, label, _said(old), _said(new)))
    return moved


def _said(slot: tuple[datetime, str | None] | None) -> str | None:
    if slot is None:
        return None
    return slot[1] or slot[0].astimezone(UTC).isoformat().replace("+00:00", "Z")


async def record(
    conn: AsyncConnection, tenant_id: UUID, uids: Sequence[UUID], moved: Sequence[Moved], now: datetime
) -> None:
    """Write an entry of the audit log for each task of which something moves, before its plan is raised."""
    of_task: dict[str, list[Moved]] = {}
    for one in moved:
        of_task.setdefault(one.task, []).append(one)
    if not of_task:
        return
    known = {name: rest for _, name, *rest in await fetch(conn, _VERSIONS, {"tenant": tenant_id, "uids": list(uids)})}
    data = []
    for name, some in of_task.items():
        zones, holidays = known[name]
        entry: dict[str, Any] = {"from": zones, "to": tzdata_version()}
        if holidays is not None:
            entry["holidays"] = {"from": holidays, "to": holidays_version()}
        shown = [{key: value for key, value in one.shown.items() if key != "task"} for one in some[:NAMED]]
        data.append(json.dumps(entry | {"moved": shown, "count": len(some)}))
    ids = [new_id(now) for _ in of_task]
    await fetch(conn, _RECORD, {"tenant": tenant_id, "now": now, "ids": ids, "names": list(of_task), "data": data})
