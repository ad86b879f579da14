"""Executions that repeat slots: of a pause that has ended, or of a backfill.

Each is a run of its own, with the nominal time of the slot that it repeats; what became of that slot stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import ScheduleError
from cron_observer.lifecycle import OFFERED_FOR, Event, Trigger
from cron_observer.model import ScheduleSpec, effective_queue
from cron_observer.schedule import Schedule, new_id
from cron_observer.schedule import compile as compile_schedule
from cron_observer.schedule.calendars import Calendar
from cron_observer.store import plan_facts
from cron_observer.store.engine import fetch
from cron_observer.store.jsonb import to_json

#: Rows that one statement writes.
BATCH: Final = 2_000

_MICROSECOND: Final = timedelta(microseconds=1)

_TASK: Final = """
SELECT t.task_uid, t.project_id, t.generation, t.spec, t.removed_at IS NOT NULL OR t.deleting_at IS NOT NULL
FROM tasks t
WHERE t.tenant_id = %(tenant)s AND t.task_uid = %(uid)s
"""

#: Of the transaction, and of nobody else's use.
_ALONE: Final = "SELECT pg_advisory_xact_lock(hashtextextended(%(key)s, 0))"

_INSERT: Final = """
WITH v AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(repeats)s::uuid[], %(nominals)s::timestamptz[], %(locals)s::timestamp[],
        %(folds)s::smallint[], %(zones)s::text[], %(fires)s::timestamptz[])
        AS v (id, repeats, nominal_at, nominal_local, fold, timezone, fire_at)
), made AS (
    INSERT INTO executions (
        tenant_id, id, project_id, task_uid, status, trigger, nominal_at, nominal_local, nominal_fold, timezone,
        fire_at, available_at, start_deadline, queue, priority, generation, event_seq, repeats, backfill_id, created_at)
    SELECT %(tenant)s, v.id, %(project)s, %(uid)s, 'PENDING', %(trigger)s, v.nominal_at, v.nominal_local, v.fold,
        v.timezone, v.fire_at, v.fire_at, %(deadline)s, %(queue)s, %(priority)s, %(generation)s, 1, v.repeats,
        %(backfill)s, %(now)s
    FROM v
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, id, status, attempt, fence, repeats
), logged AS (
    INSERT INTO execution_events (tenant_id, execution_id, seq, at, type, attempt, fence, status, actor, data)
    SELECT tenant_id, id, 1, %(now)s, %(event)s, attempt, fence, status, %(actor)s,
        %(data)s::jsonb || jsonb_build_object('repeats', repeats)
    FROM made
)
SELECT count(*) FROM made
"""


@dataclass(frozen=True, slots=True)
class Task:
    """What a run takes from its task as it is now. `gone`: removed, or being deleted."""

    uid: UUID
    project_id: UUID
    generation: int
    spec: dict[str, Any]
    gone: bool


@dataclass(frozen=True, slots=True)
class Repeat:
    """A slot that is to run again."""

    slot: UUID
    nominal_at: datetime
    nominal_local: datetime
    fold: int
    timezone: str

    def run_id(self, at: datetime, cause: UUID) -> UUID:
        """Return the id of its repeat: the same for the same cause, so that doing it twice is harmless."""
        return new_id(at, cause, self.nominal_local.isoformat(), self.fold)


async def task(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID) -> Task | None:
    """Return the task, or None if it has never been."""
    rows = await fetch(conn, _TASK, {"tenant": tenant_id, "uid": task_uid})
    return Task(*rows[0]) if rows else None


async def alone(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID) -> None:
    """Wait until nobody else chooses slots of this task to run again, and keep others waiting until this is committed.

    Who chooses slots that have no repeat must see those that somebody makes at the same moment.
    """
    await fetch(conn, _ALONE, {"key": f"cron_observer.reruns {tenant_id} {task_uid}"})


async def calendars_of(conn: AsyncConnection, tenant_id: UUID, block: Any) -> tuple[ScheduleSpec, dict[str, Calendar]]:
    """Read a stored schedule block and the calendars that it names, by the names as they stand there.

    One that is missing or damaged is left out. Raises `ScheduleError` if the block is damaged.
    """
    try:
        spec = ScheduleSpec.read(block, block["seed"])
    except Exception as error:  # any JSON may stand there
        told = f"the stored schedule is damaged: {type(error).__name__}"
        raise ScheduleError(told, pointer="", rule="CO3001", hint="write the task again") from error
    digests = {text: text.rpartition("@")[2] for text in (*spec.include, *spec.exclude)}
    found = await plan_facts.calendars(conn, tenant_id, [block]) if digests else {}
    return spec, {text: found[one] for text, one in digests.items() if one in found}


async def schedule_of(conn: AsyncConnection, tenant_id: UUID, block: Any) -> Schedule:
    """Compile a stored schedule block. Raises `ScheduleError` if it cannot be evaluated."""
    spec, calendars = await calendars_of(conn, tenant_id, block)
    return await asyncio.to_thread(compile_schedule, spec, calendars)


async def add(
    conn: AsyncConnection,
    tenant_id: UUID,
    of: Task,
    repeats: Sequence[Repeat],
    *,
    trigger: Trigger,
    cause: UUID,
    at: datetime,
    actor: str,
    now: datetime,
) -> int:
    """Make a run, due `at`, of each of these slots in their order; return how many were not there yet.

    `cause` is the backfill or the pause. They are offered to workers as long as anything is: a start deadline says
    how late a slot may be, and these are late by intention.
    """
    made = 0
    for first in range(0, len(repeats), BATCH):
        part = repeats[first : first + BATCH]
        fires = [at + number * _MICROSECOND for number in range(first, first + len(part))]
        parameters = {
            "tenant": tenant_id,
            "uid": of.uid,
            "project": of.project_id,
            "trigger": trigger.value,
            "ids": [one.run_id(at, cause) for one in part],
            "repeats": [one.slot for one in part],
            "nominals": [one.nominal_at for one in part],
            "locals": [one.nominal_local for one in part],
            "folds": [one.fold for one in part],
            "zones": [one.timezone for one in part],
            "fires": fires,
            "deadline": at + OFFERED_FOR,
            "queue": effective_queue(of.spec),
            "priority": of.spec["priority"],
            "generation": of.generation,
            "backfill": cause if trigger is Trigger.BACKFILL else None,
            "event": Event.CREATED.value,
            "actor": actor,
            "data": to_json({"pause" if trigger is Trigger.CATCHUP else "backfill": str(cause)}),
            "now": now,
        }
        ((count,),) = await fetch(conn, _INSERT, parameters)
        made += count
    return made
