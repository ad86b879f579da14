"""The rows of planning: what is computed for a plan, and the statements that write it.

Every statement that adds slots is guarded by the generation and the `planned_until` that were read, so that a
planner that slept through an edit adds nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import ScheduleError
from cron_observer.horizon import Aim, Stretch, aim, remainder, stretch
from cron_observer.model import ScheduleSpec
from cron_observer.schedule import Schedule, Slot, id_floor, slot_id, tzdata_version
from cron_observer.schedule import compile as compile_schedule
from cron_observer.store.engine import fetch
from cron_observer.store.plan_blocks import canonical

#: Slots that one transaction writes, about; a task is never parted. Measured: some 0.7 s on two slow cores.
SLOTS_MAX: Final = 20_000

PLAN_COLUMNS: Final = """p.task_uid, p.project_id, p.owner, p.generation, p.active, p.schedule, p.queue, p.priority,
    p.start_deadline_seconds, p.effective_from, p.planned_until"""

#: ``H`` as a word of a cron expression, not the one in THU.
_HASHED: Final = re.compile(r"(?i)(?<![a-z])h")


@dataclass(frozen=True, slots=True)
class Plan:
    """A row of `task_plan`, as it was read or is to be written."""

    task_uid: UUID
    project_id: UUID
    owner: str
    generation: int
    active: bool
    schedule: Any  #: the normalised block; a damaged row may hold any JSON
    queue: str
    priority: int
    start_deadline_seconds: float | None
    effective_from: datetime
    planned_until: datetime

    @property
    def inputs(self) -> tuple[bool, Any, float | None]:
        """What a new generation is needed for when it changes."""
        try:
            block = canonical(self.schedule)
        except Exception:  # noqa: BLE001  a damaged row equals nothing that is wanted
            block = self.schedule
        return self.active, block, self.start_deadline_seconds

    @property
    def begun(self) -> bool:
        """Whether this generation has been planned at all, and the forecasts of older ones are gone."""
        return self.planned_until > self.effective_from

    def follow(self, effective_from: datetime) -> Plan:
        """Return the next generation of the same inputs."""
        return replace(
            self, generation=self.generation + 1, effective_from=effective_from, planned_until=effective_from
        )


class PlanResult(NamedTuple):
    """What a batch did. `more`: something is still due."""

    tasks: int
    slots: int
    quarantined: int
    more: bool


class Planned(NamedTuple):
    """A plan, the slots to add to it, and how it stands afterwards."""

    plan: Plan
    slots: Sequence[Slot]
    until: datetime
    due_at: datetime | None
    next_fire_at: datetime | None


@dataclass(slots=True)
class Batch:
    """What was computed for some plans."""

    planned: list[Planned] = field(default_factory=list)
    poisoned: list[tuple[Plan, str]] = field(default_factory=list)
    left: int = 0  #: plans that did not fit into the batch any more

    @property
    def slots(self) -> int:
        """How many slots are to be added."""
        return sum(len(one.slots) for one in self.planned)


#: A forecast leaves no trace. What has fired is none, even if its nominal instant lies ahead (a label that a clock
#: change swallowed fires at the change).
_FORGET: Final = """
DELETE FROM executions e
USING unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(starts)s::timestamptz[])
    AS v (task_uid, generation, effective_from)
WHERE e.tenant_id = %(tenant)s AND e.task_uid = v.task_uid AND e.id >= %(low)s
  AND e.fire_at > v.effective_from AND e.nominal_at > v.effective_from AND e.plan_generation < v.generation
  AND e.status IN ('PENDING', 'SKIPPED') AND e.fence = 0 AND e.event_seq = 0
"""

#: What has fired by then goes over to the new plan, so that nobody takes it for an obsolete forecast.
_ADOPT: Final = """
UPDATE executions e SET plan_generation = v.generation
FROM unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(starts)s::timestamptz[])
    AS v (task_uid, generation, effective_from)
WHERE e.tenant_id = %(tenant)s AND e.task_uid = v.task_uid AND e.id >= %(low)s
  AND e.available_at <= v.effective_from AND e.nominal_at > v.effective_from AND e.plan_generation < v.generation
  AND e.status = 'PENDING' AND e.fence = 0
"""

_ADD_SLOTS: Final = """
INSERT INTO executions (
    tenant_id, id, project_id, task_uid, status, reason, trigger, nominal_at, nominal_local, nominal_fold, timezone,
    tzdata_version, fire_at, available_at, start_deadline, queue, priority, plan_generation, finished_at, created_at
)
SELECT p.tenant_id, s.id, p.project_id, p.task_uid, CASE WHEN s.skip IS NULL THEN 'PENDING' ELSE 'SKIPPED' END,
    s.skip, 'schedule', s.nominal_at, s.nominal_local, s.fold,
    p.schedule ->> 'timezone', %(tzdata)s, s.fire_at, s.fire_at,
    s.fire_at + p.start_deadline_seconds * interval '1 second', p.queue, p.priority, p.generation,
    CASE WHEN s.skip IS NOT NULL THEN s.fire_at END, %(now)s
FROM unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(seen)s::timestamptz[]) WITH ORDINALITY
    AS v (task_uid, generation, planned_until, n)
JOIN task_plan p ON p.tenant_id = %(tenant)s AND p.task_uid = v.task_uid
    AND p.generation = v.generation AND p.planned_until = v.planned_until
JOIN unnest(%(plans)s::bigint[], %(ids)s::uuid[], %(nominals)s::timestamptz[], %(locals)s::timestamp[],
        %(folds)s::smallint[], %(fires)s::timestamptz[], %(skips)s::text[])
    AS s (n, id, nominal_at, nominal_local, fold, fire_at, skip) ON s.n = v.n
ON CONFLICT DO NOTHING
"""

_ADVANCE: Final = """
UPDATE task_plan p
SET planned_until = v.until, plan_due_at = v.due_at, next_fire_at = v.next_fire_at, tzdata_version = %(tzdata)s
FROM unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(seen)s::timestamptz[], %(untils)s::timestamptz[],
        %(dues)s::timestamptz[], %(nexts)s::timestamptz[])
    AS v (task_uid, generation, planned_until, until, due_at, next_fire_at)
WHERE p.tenant_id = %(tenant)s AND p.task_uid = v.task_uid
  AND p.generation = v.generation AND p.planned_until = v.planned_until
RETURNING p.task_uid
"""

_UPSERT: Final = """
INSERT INTO task_plan AS p (
    tenant_id, task_uid, project_id, owner, generation, active, schedule, queue, priority, start_deadline_seconds,
    effective_from, planned_until, plan_due_at, next_fire_at, tzdata_version
)
SELECT %(tenant)s, v.task_uid, v.project_id, v.owner, v.generation, v.active, v.schedule::jsonb, v.queue, v.priority,
    v.start_deadline_seconds, v.effective_from, v.effective_from, %(now)s, NULL, %(tzdata)s
FROM unnest(%(uids)s::uuid[], %(projects)s::uuid[], %(owners)s::text[], %(generations)s::bigint[],
        %(active)s::boolean[], %(schedules)s::text[], %(queues)s::text[], %(priorities)s::smallint[],
        %(deadlines)s::double precision[], %(starts)s::timestamptz[])
    AS v (task_uid, project_id, owner, generation, active, schedule, queue, priority, start_deadline_seconds,
          effective_from)
ON CONFLICT (tenant_id, task_uid) DO UPDATE SET
    project_id = EXCLUDED.project_id, owner = EXCLUDED.owner, generation = EXCLUDED.generation,
    active = EXCLUDED.active, schedule = EXCLUDED.schedule, queue = EXCLUDED.queue, priority = EXCLUDED.priority,
    start_deadline_seconds = EXCLUDED.start_deadline_seconds, effective_from = EXCLUDED.effective_from,
    planned_until = EXCLUDED.planned_until, plan_due_at = EXCLUDED.plan_due_at, next_fire_at = NULL,
    tzdata_version = EXCLUDED.tzdata_version
"""

_RAISE: Final = """
UPDATE task_plan p
SET generation = v.generation, effective_from = v.effective_from, planned_until = v.effective_from,
    plan_due_at = %(now)s, next_fire_at = NULL, tzdata_version = %(tzdata)s
FROM unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(starts)s::timestamptz[])
    AS v (task_uid, generation, effective_from)
WHERE p.tenant_id = %(tenant)s AND p.task_uid = v.task_uid AND p.generation = v.generation - 1
"""

_TRUST: Final = """
UPDATE tasks t SET quarantine = NULL, updated_at = %(now)s
WHERE t.tenant_id = %(tenant)s AND t.task_uid = ANY (%(uids)s::uuid[]) AND t.quarantine IS NOT NULL
"""

_QUARANTINE: Final = """
UPDATE tasks t SET quarantine = v.why, updated_at = %(now)s
FROM unnest(%(uids)s::uuid[], %(reasons)s::text[]) AS v (task_uid, why)
WHERE t.tenant_id = %(tenant)s AND t.task_uid = v.task_uid
"""

_GIVE_UP: Final = """
UPDATE task_plan p SET plan_due_at = NULL, next_fire_at = NULL, tzdata_version = %(tzdata)s
FROM unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(starts)s::timestamptz[])
    AS v (task_uid, generation, effective_from)
WHERE p.tenant_id = %(tenant)s AND p.task_uid = v.task_uid AND p.generation = v.generation
"""


def evaluate(plans: Sequence[Plan], now: datetime) -> Batch:
    """Compute the slots that each plan needs next. Tasks that share a schedule share the work. Pure."""
    batch = Batch()
    aims: dict[Schedule, Aim] = {}
    stretches: dict[tuple[Schedule, datetime], Stretch] = {}
    room = SLOTS_MAX
    for number, plan in enumerate(plans):
        if room <= 0:
            batch.left = len(plans) - number
            break
        if not plan.active:
            batch.planned.append(Planned(plan, (), plan.planned_until, None, None))
            continue
        try:
            schedule = compiled(plan.schedule)
            if schedule not in aims:
                aims[schedule] = aim(schedule, now)
            goal = aims[schedule]
            if (schedule, plan.planned_until) not in stretches:
                stretches[schedule, plan.planned_until] = stretch(schedule, plan.planned_until, goal, now)
            part = stretches[schedule, plan.planned_until]
        except Exception as error:  # noqa: BLE001  whatever is wrong with it, only this task may suffer
            batch.poisoned.append((plan, _reason(error)))
            continue
        # What would have fired before the plan took effect is left out: an edit is never retroactive.
        slots = [slot for slot in part.slots if slot.fire_at > plan.effective_from]
        room -= len(slots)
        batch.planned.append(Planned(plan, slots, part.until, part.due_at, goal.next_fire_at))
    return batch


def _reason(error: Exception) -> str:
    if isinstance(error, ScheduleError):
        return f"{error.message} {error.hint or ''}".strip()
    return f"the schedule cannot be evaluated: {type(error).__name__}: {error}"[:500]


def compiled(block: dict[str, Any]) -> Schedule:
    """Return the compiled schedule of a normalised block; blocks that differ in an unused seed share one."""
    hashed = any(_HASHED.search(text) for text in block.get("cron") or ())
    return compile_schedule(ScheduleSpec.read(block, block["seed"] if hashed else None))


def _ending(plan: Plan, until: datetime) -> Planned:
    """Compute what a plan that ends at `until` still owes. A plan that cannot be evaluated owes nothing."""
    try:
        schedule = compiled(plan.schedule)
    except Exception:  # noqa: BLE001  it has been quarantined for that
        return Planned(plan, (), until, None, None)
    owed = remainder(schedule, plan.planned_until, until)
    slots = [slot for slot in owed if slot.fire_at > plan.effective_from]
    return Planned(plan, slots, until, None, None)


def _named(tenant_id: UUID, plans: Sequence[Plan]) -> dict[str, Any]:
    """Return the parameters that most statements share."""
    return {
        "tenant": tenant_id,
        "tzdata": tzdata_version(),
        "uids": [plan.task_uid for plan in plans],
        "generations": [plan.generation for plan in plans],
        "starts": [plan.effective_from for plan in plans],
        "seen": [plan.planned_until for plan in plans],
    }


def _slot_columns(planned: Sequence[Planned]) -> dict[str, Any]:
    """Return the slots as columns, each with the place of its plan, from 1."""
    rows = [
        (place, slot_id(one.plan.task_uid, slot), slot) for place, one in enumerate(planned, 1) for slot in one.slots
    ]
    return {
        "plans": [place for place, _, _ in rows],
        "ids": [identity for _, identity, _ in rows],
        "nominals": [slot.nominal_at for _, _, slot in rows],
        "locals": [slot.nominal_local for _, _, slot in rows],
        "folds": [slot.fold for _, _, slot in rows],
        "fires": [slot.fire_at for _, _, slot in rows],
        "skips": [slot.skip for _, _, slot in rows],
    }


async def write_plans(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan], now: datetime) -> PlanResult:
    """Compute and write what these plans need next. Their rows of `task_plan` are locked by this transaction."""
    if not plans:
        return PlanResult(0, 0, 0, more=False)
    batch = await asyncio.to_thread(evaluate, plans, now)
    begun = [*(one.plan for one in batch.planned), *(plan for plan, _ in batch.poisoned)]
    await forget(conn, tenant_id, [plan for plan in begun if not plan.begun])
    slots = await add_slots(conn, tenant_id, batch.planned, now)
    await advance(conn, tenant_id, batch.planned)
    await quarantine(conn, tenant_id, batch.poisoned, now)
    again = batch.left > 0 or any(one.due_at is not None and one.due_at <= now for one in batch.planned)
    return PlanResult(len(batch.planned), slots, len(batch.poisoned), again)


async def forget(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan]) -> None:
    """Remove the forecasts that older generations of these plans have left; keep what has fired."""
    if plans:
        parameters = _named(tenant_id, plans)
        parameters["low"] = id_floor(min(plan.effective_from for plan in plans))
        await fetch(conn, _FORGET, parameters)
        await fetch(conn, _ADOPT, parameters)


async def add_slots(conn: AsyncConnection, tenant_id: UUID, planned: Sequence[Planned], now: datetime) -> int:
    """Insert slots where generation and `planned_until` are still what was read; return how many are new."""
    filled = [one for one in planned if one.slots]
    if not filled:
        return 0
    parameters = _named(tenant_id, [one.plan for one in filled]) | {"now": now}
    parameters |= await asyncio.to_thread(_slot_columns, filled)
    result = await conn.exec_driver_sql(_ADD_SLOTS, parameters)
    return result.rowcount


async def advance(conn: AsyncConnection, tenant_id: UUID, planned: Sequence[Planned]) -> set[UUID]:
    """Note how far these plans reach, where nobody else has moved them; return the uids of those that were."""
    if not planned:
        return set()
    parameters = _named(tenant_id, [one.plan for one in planned])
    parameters["untils"] = [one.until for one in planned]
    parameters["dues"] = [one.due_at for one in planned]
    parameters["nexts"] = [one.next_fire_at for one in planned]
    return {uid for (uid,) in await fetch(conn, _ADVANCE, parameters)}


async def close(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan], until: datetime) -> None:
    """Plan generations that end at `until` up to there, so that the edit that ends them loses no slot of theirs."""
    await forget(conn, tenant_id, [plan for plan in plans if not plan.begun])
    for plan in plans:
        if plan.active and plan.planned_until < until:
            ending = await asyncio.to_thread(_ending, plan, until)
            for first in range(0, len(ending.slots), SLOTS_MAX):
                part = ending._replace(slots=ending.slots[first : first + SLOTS_MAX])
                await add_slots(conn, tenant_id, [part], until)


async def upsert(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan], now: datetime) -> None:
    """Write plans that begin, due at once."""
    parameters = _named(tenant_id, plans) | {"now": now}
    parameters["projects"] = [plan.project_id for plan in plans]
    parameters["owners"] = [plan.owner for plan in plans]
    parameters["active"] = [plan.active for plan in plans]
    parameters["schedules"] = [json.dumps(plan.schedule) for plan in plans]
    parameters["queues"] = [plan.queue for plan in plans]
    parameters["priorities"] = [plan.priority for plan in plans]
    parameters["deadlines"] = [plan.start_deadline_seconds for plan in plans]
    await fetch(conn, _UPSERT, parameters)
    await fetch(conn, _TRUST, parameters)


async def raise_generations(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan], now: datetime) -> None:
    """Write the next generations of plans whose inputs are the same, due at once."""
    parameters = _named(tenant_id, plans) | {"now": now}
    await fetch(conn, _RAISE, parameters)
    await fetch(conn, _TRUST, parameters)


async def quarantine(
    conn: AsyncConnection, tenant_id: UUID, poisoned: Sequence[tuple[Plan, str]], now: datetime
) -> None:
    """Plan these tasks no more, and say why on each."""
    if poisoned:
        parameters = _named(tenant_id, [plan for plan, _ in poisoned]) | {"now": now}
        parameters["reasons"] = [why for _, why in poisoned]
        await fetch(conn, _QUARANTINE, parameters)
        await fetch(conn, _GIVE_UP, parameters)
