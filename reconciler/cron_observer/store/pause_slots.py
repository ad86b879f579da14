"""What pauses do to slots: forecasts that agree with them, due slots that they end, and the runs that make up for it.

Nothing here needs the plan's row for itself, so that the API may do it for tasks of manifests too.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import lifecycle
from cron_observer.errors import ScheduleError
from cron_observer.lifecycle import Event, Reason, Trigger
from cron_observer.model import OnResume, Policy
from cron_observer.schedule import id_floor
from cron_observer.store import paused_ranges, plan_rows, reruns
from cron_observer.store.engine import fetch
from cron_observer.store.executions.apply import Step, write
from cron_observer.store.executions.bounds import BETWEEN, due_bounds
from cron_observer.store.executions.rows import SELECTED, to_run
from cron_observer.store.reruns import Repeat

#: How far the time inside a slot's id may lie before its fire time.
_ID_BEFORE: Final = timedelta(days=16)

#: Whether some pause of its task holds the fire time of a slot.
_HELD: Final = """EXISTS (
    SELECT FROM pauses x
    WHERE x.tenant_id = e.tenant_id AND x.task_uid = e.task_uid AND x.since <= e.fire_at
      AND (coalesce(x.ended_at, x.until) IS NULL OR e.fire_at < coalesce(x.ended_at, x.until))
)"""

_SKIP: Final = f"""
WITH held AS (
    SELECT e.id FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.task_uid = %(uid)s AND e.status = 'PENDING' AND e.available_at > %(now)s
      AND e.fire_at > %(now)s AND e.fire_at >= %(since)s AND e.trigger = 'schedule' AND e.fence = 0
      AND e.event_seq = 0 AND {_HELD}
    ORDER BY e.id FOR UPDATE OF e
)
UPDATE executions e SET status = 'SKIPPED', reason = 'paused', finished_at = e.fire_at
FROM held h WHERE e.tenant_id = %(tenant)s AND e.id = h.id AND e.status = 'PENDING' AND e.fence = 0
"""

_WAIT: Final = f"""
WITH free AS (
    SELECT e.id, p.queue, p.priority FROM executions e
    JOIN task_plan p ON p.tenant_id = e.tenant_id AND p.task_uid = e.task_uid
    WHERE e.tenant_id = %(tenant)s AND e.task_uid = %(uid)s AND e.id >= %(low)s AND e.fire_at >= %(since)s
      AND e.status = 'SKIPPED' AND e.reason = 'paused' AND e.trigger = 'schedule' AND e.fence = 0
      AND e.event_seq = 0 AND NOT {_HELD}
    ORDER BY e.id FOR UPDATE OF e
)
UPDATE executions e SET status = 'PENDING', reason = NULL, finished_at = NULL, queue = f.queue, priority = f.priority
FROM free f WHERE e.tenant_id = %(tenant)s AND e.id = f.id AND e.status = 'SKIPPED' AND e.event_seq = 0
"""

#: Waits for who has them: what somebody skips at the moment is to be made up for as well.
_DUE: Final = f"""
SELECT {SELECTED} FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.task_uid = %(uid)s AND e.status = 'PENDING' AND e.fence = 0
  AND e.trigger IN ('schedule', 'catchup') AND e.fire_at <= %(now)s AND {BETWEEN}
  AND (%(holds)s OR e.repeats IS NULL AND e.fire_at >= %(since)s AND e.fire_at < %(until)s)
ORDER BY e.id FOR UPDATE
"""

#: What was skipped while the pause was in force: slots of its time, and older ones that still waited. Not what has
#: another run by now: two pauses may have a few seconds in common.
_PAUSED: Final = """
SELECT coalesce(e.repeats, e.id), e.nominal_at, e.nominal_local, e.nominal_fold, e.timezone, e.fire_at
FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.task_uid = %(uid)s AND e.status = 'SKIPPED' AND e.reason = 'paused'
  AND e.trigger IN ('schedule', 'catchup') AND e.fire_at < %(until)s AND e.id >= %(low)s
  AND (e.fire_at >= %(since)s OR e.finished_at >= %(since)s AND e.finished_at < %(until)s)
  AND NOT EXISTS (
    SELECT FROM executions r
    WHERE r.tenant_id = e.tenant_id AND r.task_uid = e.task_uid AND r.nominal_at = e.nominal_at
      AND r.repeats = coalesce(e.repeats, e.id)
      AND (r.status IN ('PENDING', 'RUNNING', 'FINISHED') OR r.status = 'SKIPPED' AND r.id > e.id))
ORDER BY e.fire_at DESC, e.id DESC LIMIT %(limit)s
"""

_PLAN: Final = f"""
SELECT {plan_rows.PLAN_COLUMNS}, p.plan_due_at IS NULL
FROM task_plan p WHERE p.tenant_id = %(tenant)s AND p.task_uid = %(uid)s
"""

_MADE: Final = """
UPDATE pauses SET runs = %(runs)s WHERE tenant_id = %(tenant)s AND pause_id = %(id)s
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """A pause that has an end: it held from `since` to below `at`."""

    pause_id: UUID
    task_uid: UUID
    since: datetime
    at: datetime
    on_resume: OnResume


async def agree(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID, since: datetime, now: datetime) -> None:
    """Let forecasts that fire from `since` on be skipped where a pause of the task holds them, and wait elsewhere."""
    parameters = {
        "tenant": tenant_id,
        "uid": task_uid,
        "since": since,
        "now": now,
        "low": id_floor(since - _ID_BEFORE),
    }
    await fetch(conn, _SKIP, parameters)
    await fetch(conn, _WAIT, parameters)
    await paused_ranges.agree(conn, tenant_id, task_uid, now)


async def settle(
    conn: AsyncConnection, tenant_id: UUID, task_uid: UUID, since: datetime, until: datetime, now: datetime
) -> None:
    """End what a pause from `since` to below `until` keeps from running and nobody has looked at.

    While it holds that is whatever waits; once it is over, the slots that fell due in it.
    """
    parameters = {
        "tenant": tenant_id,
        "uid": task_uid,
        "since": since,
        "until": until,
        "now": now,
        "holds": now < until,
        **due_bounds(now),
    }
    runs = [to_run(row) for row in await fetch(conn, _DUE, parameters)]
    steps = [Step(run, lifecycle.end_unclaimed(run, Event.SKIPPED, Reason.PAUSED, now)) for run in runs]
    if steps:
        await write(conn, steps, now)


async def make_up(conn: AsyncConnection, tenant_id: UUID, ended: Ended, now: datetime, *, actor: str) -> int | None:
    """Make the runs that `on_resume` asks for, due when the pause ends; return how many.

    None, and nothing is done, while slots of the pause may be missing because the plan does not reach its end.
    """
    runs = 0
    task = await reruns.task(conn, tenant_id, ended.task_uid)
    if ended.on_resume is not OnResume.SKIP and task is not None and not task.gone:
        if not await _reaches(conn, tenant_id, ended):
            return None
        await reruns.alone(conn, tenant_id, ended.task_uid)
        limit = 1 if ended.on_resume is OnResume.LAST else Policy.read(task.spec).max_runs
        repeats = await _newest(conn, tenant_id, ended, limit)
        at = max(ended.at, now)
        runs = await reruns.add(
            conn,
            tenant_id,
            task,
            repeats,
            trigger=Trigger.CATCHUP,
            cause=ended.pause_id,
            at=at,
            actor=actor,
            now=now,
        )
    await fetch(conn, _MADE, {"tenant": tenant_id, "id": ended.pause_id, "runs": runs})
    return runs


async def _reaches(conn: AsyncConnection, tenant_id: UUID, ended: Ended) -> bool:
    """Say whether every slot is known that fires before the pause ends."""
    rows = await fetch(conn, _PLAN, {"tenant": tenant_id, "uid": ended.task_uid})
    if not rows or rows[0][-1]:
        return True
    plan = plan_rows.Plan(*rows[0][:-1])
    if not plan.active:
        return True
    try:
        schedule = await reruns.schedule_of(conn, tenant_id, plan.schedule)
    except ScheduleError:
        return True  # nothing more will be planned
    return await asyncio.to_thread(schedule.settled, ended.at) <= plan.planned_until


async def _newest(conn: AsyncConnection, tenant_id: UUID, ended: Ended, limit: int) -> list[Repeat]:
    """Return the newest slots that the pause kept from running, oldest first."""
    parameters = {
        "tenant": tenant_id,
        "uid": ended.task_uid,
        "since": ended.since,
        "until": ended.at,
        "low": id_floor(ended.since - _ID_BEFORE - lifecycle.OFFERED_FOR),
        "limit": limit,
    }
    rows = [(row[-1], Repeat(*row[:-1])) for row in await fetch(conn, _PAUSED, parameters)]
    rows += await paused_ranges.newest(conn, tenant_id, ended.task_uid, ended.since, ended.at, limit)
    rows.sort(key=lambda row: (row[0], row[1].slot))
    return [repeat for _, repeat in rows[-limit:]]
