"""The ranges of paused slots: taken back where no pause holds them any more, and looked into for what shall run."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import ScheduleError
from cron_observer.forecast import foresee, paused
from cron_observer.schedule import Schedule, Slot, slot_id
from cron_observer.store import plan_facts, plan_rows, ranges, reruns
from cron_observer.store.engine import fetch
from cron_observer.store.plan_rows import Plan, Planned
from cron_observer.store.plan_work import prepared
from cron_observer.store.reruns import Repeat

_INSTANT: Final = timedelta(milliseconds=1)

#: How often a plan is read again that somebody else moves on meanwhile.
_TRIES: Final = 5

#: From where on no pause holds what ranges of paused slots hold: the end of the newest pause. Where it has none, or
#: where no range goes on behind it, there is nothing to take back.
_FREE_FROM: Final = """
SELECT newest.ends FROM (
    SELECT coalesce(x.ended_at, x.until) AS ends FROM pauses x
    WHERE x.tenant_id = %(tenant)s AND x.task_uid = %(uid)s
    ORDER BY x.since DESC LIMIT 1
) AS newest
WHERE EXISTS (
    SELECT FROM slot_ranges r
    WHERE r.tenant_id = %(tenant)s AND r.task_uid = %(uid)s AND r.reason = 'paused' AND r.last_at >= newest.ends
)
"""

_PLAN: Final = f"""
SELECT {plan_rows.PLAN_COLUMNS} FROM task_plan p WHERE p.tenant_id = %(tenant)s AND p.task_uid = %(uid)s
"""

_WITHIN: Final = """
SELECT r.first_at, r.last_at, h.schedule FROM slot_ranges r
JOIN plan_history h ON h.tenant_id = r.tenant_id AND h.task_uid = r.task_uid AND h.generation = r.plan_generation
WHERE r.tenant_id = %(tenant)s AND r.task_uid = %(uid)s AND r.reason = 'paused'
  AND r.last_at >= %(since)s AND r.first_at < %(until)s
ORDER BY r.first_at DESC
"""

#: Slots that are no part of a range after all, and those that have run again, or will.
_KNOWN: Final = """
SELECT e.id FROM executions e WHERE e.tenant_id = %(tenant)s AND e.id = ANY (%(ids)s::uuid[])
UNION ALL
SELECT r.repeats FROM executions r
WHERE r.tenant_id = %(tenant)s AND r.task_uid = %(uid)s AND r.repeats = ANY (%(ids)s::uuid[])
  AND r.nominal_at >= %(first)s AND r.nominal_at <= %(last)s AND r.status IN ('PENDING', 'RUNNING', 'FINISHED')
"""


async def agree(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID, now: datetime) -> None:
    """Plan anew, as rows, what ranges of paused slots hold behind the end of the task's newest pause.

    A plan that moves on meanwhile is read again; what its planner writes then is mended when the pause is followed.
    """
    found = await fetch(conn, _FREE_FROM, {"tenant": tenant_id, "uid": task_uid})
    if not found:
        return
    end = found[0][0]
    await ranges.cut(conn, tenant_id, {task_uid: end - _INSTANT})
    before = await _plan(conn, tenant_id, task_uid)
    for _ in range(_TRIES):
        if before is None or not before.active:
            return
        await _plan_again(conn, tenant_id, before, end, now)
        after = await _plan(conn, tenant_id, task_uid)
        if after is not None and (after.generation, after.planned_until) == (before.generation, before.planned_until):
            return
        before = after


async def _plan(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID) -> Plan | None:
    rows = await fetch(conn, _PLAN, {"tenant": tenant_id, "uid": task_uid})
    return Plan(*rows[0]) if rows else None


async def _plan_again(conn: AsyncConnection, tenant_id: UUID, plan: Plan, start: datetime, now: datetime) -> None:
    facts = await plan_facts.gather(conn, tenant_id, [plan], now)
    try:
        ready = await asyncio.to_thread(prepared, plan.schedule, facts.calendars)
    except ScheduleError:
        return  # nothing of it is planned any more
    slots = await asyncio.to_thread(_slots, ready.schedule, plan, start)
    told = paused(foresee(slots, ready.windows), facts.pauses.get(plan.task_uid, ()))
    await plan_rows.add_slots(conn, tenant_id, [Planned(plan, tuple(told), plan.planned_until, None, None)], now)


def _slots(schedule: Schedule, plan: Plan, start: datetime) -> list[Slot]:
    slots = schedule.slots(start - _INSTANT, plan.planned_until)
    return [slot for slot in slots if slot.fire_at > plan.effective_from]


async def newest(
    conn: AsyncConnection, tenant_id: UUID, task_uid: UUID, since: datetime, until: datetime, limit: int
) -> list[tuple[datetime, Repeat]]:
    """Return the newest slots that ranges tell as paused and that fire in [since, until), with their fire times."""
    found: list[tuple[datetime, Repeat]] = []
    parameters = {"tenant": tenant_id, "uid": task_uid, "since": since, "until": until}
    for first, last, block in await fetch(conn, _WITHIN, parameters):
        try:
            schedule = await reruns.schedule_of(conn, tenant_id, block)
        except ScheduleError:
            continue  # it cannot be told any more which slots they were
        inside = await asyncio.to_thread(_inside, schedule, first, last, since, until)
        while inside and len(found) < limit:
            part, inside = inside[-limit:], inside[:-limit]
            slots = {slot_id(task_uid, slot): slot for slot in part}
            bounds = {"first": part[0].nominal_at, "last": part[-1].nominal_at}
            rows = await fetch(conn, _KNOWN, {"tenant": tenant_id, "uid": task_uid, "ids": list(slots), **bounds})
            for (known,) in rows:
                slots.pop(known, None)
            found += [(slot.fire_at, _repeat(one, slot, schedule)) for one, slot in slots.items()]
        if len(found) >= limit:
            break
    return found


def _inside(schedule: Schedule, first: datetime, last: datetime, since: datetime, until: datetime) -> list[Slot]:
    slots = schedule.slots(first - _INSTANT, last)
    return [slot for slot in slots if slot.skip is None and since <= slot.fire_at < until]


def _repeat(identity: UUID, slot: Slot, schedule: Schedule) -> Repeat:
    return Repeat(identity, slot.nominal_at, slot.nominal_local, slot.fold, schedule.timezone)
