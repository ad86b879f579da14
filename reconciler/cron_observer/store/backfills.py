"""Backfills: the slots of a range of nominal time run again, or for the first time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import NotFound, OutOfRange, ScheduleError
from cron_observer.lifecycle import Reason, Status, Trigger
from cron_observer.schedule import Schedule, Slot, new_id, slot_id
from cron_observer.store import reruns, shapes
from cron_observer.store.engine import fetch
from cron_observer.store.reruns import Repeat

#: Runs that one backfill makes, slots that it looks at, and how long its range may be.
MOST_RUNS: Final = 10_000
MOST_SLOTS: Final = 100_000
LONGEST: Final = timedelta(days=400)

#: Nothing is computed for an instant before this; the margin keeps every zone's local time within the calendar.
_EARLIEST: Final = datetime(1, 1, 3, tzinfo=UTC)

#: Slots that an answer lists.
SHOWN: Final = 1_000

#: Why a slot that never ran counts as missing; what a schedule itself leaves out does not.
MISSING: Final = frozenset(
    {
        *(Reason.TOO_LATE, Reason.PAUSED, Reason.OVERLAP, Reason.WINDOW),
        *(Reason.OBSERVER_DOWN, Reason.NO_WORKER),
    }
)

#: An older schedule of the task may have fired a slot some days off the instant at which today's fires it.
_MOVED: Final = timedelta(days=16)

_MICROSECOND: Final = timedelta(microseconds=1)

_PLAN: Final = """
SELECT p.schedule FROM task_plan p WHERE p.tenant_id = %(tenant)s AND p.task_uid = %(uid)s
"""

_OUTCOMES: Final = """
SELECT e.id, e.status, e.reason FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.task_uid = %(uid)s
  AND e.trigger IN ('schedule', 'catchup') AND e.repeats IS NULL
  AND e.fire_at BETWEEN %(first)s AND %(last)s AND e.id BETWEEN %(low)s AND %(high)s
"""

_REPEATED: Final = """
SELECT e.repeats FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.task_uid = %(uid)s AND e.repeats IS NOT NULL
  AND e.nominal_at >= %(from)s AND e.nominal_at < %(to)s AND e.status IN ('PENDING', 'RUNNING', 'FINISHED')
"""

_INSERT: Final = """
INSERT INTO backfills (tenant_id, backfill_id, task_uid, from_at, to_at, selected, sorted, max_parallel, runs, author,
    created_at)
VALUES (%(tenant)s, %(id)s, %(uid)s, %(from)s, %(to)s, %(select)s, %(order)s, %(parallel)s, %(runs)s, %(author)s,
    %(now)s)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for: slots with ``start <= nominal instant < end``, which of them, and in what order."""

    start: datetime
    end: datetime
    select: str  #: missing | failed | all
    order: str = "oldest_first"  #: or newest_first
    max_parallel: int = 1


@dataclass(frozen=True, slots=True)
class Selection:
    """The slots that a backfill runs, in the order in which they will run."""

    task: reruns.Task
    repeats: Sequence[Repeat]


def check(wanted: Wanted, now: datetime) -> None:
    """Raise `OutOfRange` with the pointer of what is wrong with a range."""
    if wanted.start >= wanted.end:
        raise OutOfRange("the range is empty: `from` must lie before `to`", pointer="/from")
    if wanted.start < _EARLIEST:
        raise OutOfRange("the range begins before the calendar does", pointer="/from")
    if wanted.end > now:
        raise OutOfRange(
            "the range ends in the future: slots that are not yet due run by themselves",
            hint=f"`to` may be {shapes.instant(now)} at most",
            pointer="/to",
        )
    if wanted.end - wanted.start > LONGEST:
        raise OutOfRange(
            f"the range is longer than {LONGEST.days} days", hint="ask for one part after the other", pointer="/from"
        )


async def select(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID, wanted: Wanted, now: datetime) -> Selection:
    """Return the slots that are wanted, as the task's schedule of today has them.

    What the schedule itself does not run (calendars, clock changes) is left out, and, but for ``all``, what another
    repeat waits for, runs, or has finished; whoever else chooses slots of the task waits until the transaction ends.
    Raises `NotFound` if the task is gone, `OutOfRange` for too much.
    """
    check(wanted, now)
    task = await reruns.task(conn, tenant_id, task_uid)
    if task is None or task.gone:
        raise NotFound("there is no such task", hint="GET /api/v1/projects/{project}/tasks lists them")
    await reruns.alone(conn, tenant_id, task_uid)
    parameters = {"tenant": tenant_id, "uid": task_uid, "from": wanted.start, "to": wanted.end}
    rows = await fetch(conn, _PLAN, parameters)
    schedule = await _compiled(conn, tenant_id, rows[0][0]) if rows else None
    slots = await asyncio.to_thread(_slots, schedule, task_uid, wanted) if schedule else {}
    if wanted.select != "all" and slots:
        slots = await _chosen(conn, parameters, slots, failed=wanted.select == "failed")
    if len(slots) > MOST_RUNS:
        raise OutOfRange(
            f"this would make more than {MOST_RUNS:,} runs", hint="ask for a shorter range", pointer="/from"
        )
    zone = schedule.timezone if schedule else "UTC"
    repeats = [Repeat(one, slot.nominal_at, slot.nominal_local, slot.fold, zone) for one, slot in slots.items()]
    return Selection(task, repeats[::-1] if wanted.order == "newest_first" else repeats)


async def _compiled(conn: AsyncConnection, tenant_id: UUID, block: Any) -> Schedule:
    try:
        return await reruns.schedule_of(conn, tenant_id, block)
    except ScheduleError as error:
        raise OutOfRange(
            f"the task's schedule cannot be evaluated: {error.message}",
            hint=error.hint or "mend the schedule first",
            pointer="",
        ) from error


def _slots(schedule: Schedule, task_uid: UUID, wanted: Wanted) -> dict[UUID, Slot]:
    """Compute the slots of the range that the schedule lets run, oldest first, by id."""
    found: dict[UUID, Slot] = {}
    most = MOST_RUNS if wanted.select == "all" else MOST_SLOTS
    for slot in schedule.slots(wanted.start - _MICROSECOND, wanted.end - _MICROSECOND):
        if slot.skip is None:
            found[slot_id(task_uid, slot)] = slot
            if len(found) > most:
                raise OutOfRange(
                    f"the range has more than {most:,} slots", hint="ask for a shorter range", pointer="/from"
                )
    return found


async def _chosen(
    conn: AsyncConnection, parameters: Mapping[str, Any], slots: Mapping[UUID, Slot], *, failed: bool
) -> dict[UUID, Slot]:
    """Leave the slots that failed, or that are missing, and that nobody has repeated since."""
    fires = [slot.fire_at for slot in slots.values()]
    bounds = {
        "first": min(fires) - _MOVED,
        "last": max(fires) + _MOVED,
        "low": min(slots),
        "high": max(slots),
    }
    rows = await fetch(conn, _OUTCOMES, {**parameters, **bounds})
    repeated = {one for (one,) in await fetch(conn, _REPEATED, parameters)}
    if failed:
        kept = {one for one, status, _ in rows if status == Status.FAILED}
    else:
        kept = slots.keys() - {one for one, status, reason in rows if not _missing(status, reason)}
    return {one: slot for one, slot in slots.items() if one in kept and one not in repeated}


def _missing(status: str, reason: str | None) -> bool:
    return status == Status.MISSED or (status == Status.SKIPPED and reason in MISSING)


async def begin(
    conn: AsyncConnection, tenant_id: UUID, selection: Selection, wanted: Wanted, *, author: str, now: datetime
) -> UUID:
    """Write a backfill down and make its runs, due now; return its id."""
    identity = new_id(now)
    parameters = {
        "tenant": tenant_id,
        "id": identity,
        "uid": selection.task.uid,
        "from": wanted.start,
        "to": wanted.end,
        "select": wanted.select,
        "order": wanted.order,
        "parallel": wanted.max_parallel,
        "runs": len(selection.repeats),
        "author": author,
        "now": now,
    }
    await fetch(conn, _INSERT, parameters)
    await reruns.add(
        conn,
        tenant_id,
        selection.task,
        selection.repeats,
        trigger=Trigger.BACKFILL,
        cause=identity,
        at=now,
        actor=author,
        now=now,
    )
    return identity


def shown(selection: Selection, backfill: UUID | None, now: datetime) -> list[dict[str, Any]]:
    """Return the first slots of a selection as the wire shows them."""
    return [
        {
            "scheduled_for": shapes.instant(one.nominal_at),
            "nominal_local": one.nominal_local.isoformat(timespec="milliseconds"),
            "nominal_fold": one.fold,
            "repeats": str(one.slot),
            "execution_id": None if backfill is None else str(one.run_id(now, backfill)),
        }
        for one in selection.repeats[:SHOWN]
    ]
