"""The rows of planning: the statements that write what was computed for plans.

Every statement that adds slots is guarded by the generation and the `planned_until` that were read, so that a
planner that slept through an edit adds nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.forecast import Foreseen
from cron_observer.horizon import EARLIEST
from cron_observer.model import OnExcluded
from cron_observer.schedule import SlotMark, id_floor, tzdata_version
from cron_observer.schedule.calendars import holidays_version
from cron_observer.store import arrays, plan_facts, plan_history, ranges, upkeep
from cron_observer.store.batches import prepared
from cron_observer.store.engine import fetch
from cron_observer.store.jsonb import to_json
from cron_observer.store.plan_facts import Facts
from cron_observer.store.plan_work import Batch, Plan, Planned, Round, Worker, compiled, named
from cron_observer.store.plan_work import evaluate as compute

__all__ = ["PLAN_COLUMNS", "SLOTS_MAX", "Plan", "PlanResult", "Planned", "Round", "compiled", "evaluate", "write_plans"]

#: Slots that one transaction writes, about; a task is never parted. Measured: some 0.7 s on two slow cores.
SLOTS_MAX: Final = 20_000

PLAN_COLUMNS: Final = """p.task_uid, p.project_id, p.owner, p.generation, p.active, p.schedule, p.queue, p.priority,
    p.start_deadline_seconds, p.effective_from, p.planned_until, p.skip_reason, p.skip_count"""

#: Plans that one statement closes.
TASKS_MAX: Final = 5_000

#: No zone's clock has ever jumped further.
_LONGEST_GAP: Final = timedelta(days=1)

#: Partitions that hold something younger are never dropped.
_KEPT: Final = timedelta(days=1)


class PlanResult(NamedTuple):
    """What a batch did. `more`: something is still due."""

    tasks: int
    slots: int
    quarantined: int
    more: bool


#: A forecast leaves no trace. What has fired is none, even if its nominal instant lies ahead (a label that a clock
#: change swallowed fires at the change).
_FORGET: Final = """
DELETE FROM executions e
USING unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(starts)s::timestamptz[])
    AS v (task_uid, generation, effective_from)
WHERE e.tenant_id = %(tenant)s AND e.task_uid = v.task_uid AND e.task_uid = ANY (%(uids)s::uuid[]) AND e.id >= %(low)s
  AND e.fire_at > v.effective_from AND e.nominal_at > v.effective_from AND e.plan_generation < v.generation
  AND e.status IN ('PENDING', 'SKIPPED') AND e.fence = 0 AND e.event_seq = 0
"""

#: What has fired by then goes over to the new plan, so that nobody takes it for an obsolete forecast.
_ADOPT: Final = """
UPDATE executions e SET plan_generation = v.generation
FROM unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(starts)s::timestamptz[])
    AS v (task_uid, generation, effective_from)
WHERE e.tenant_id = %(tenant)s AND e.task_uid = v.task_uid AND e.task_uid = ANY (%(uids)s::uuid[]) AND e.id >= %(low)s
  AND e.available_at <= v.effective_from AND e.nominal_at > v.effective_from AND e.plan_generation < v.generation
  AND e.status = 'PENDING' AND e.fence = 0
"""

#: The uids are said twice: without that, the server walks through every plan of the tenant for each batch. The lists
#: are joined on their own first (OFFSET keeps it so): the server takes the guards for so selective that it would
#: otherwise look through all slots for each plan. In the order of tasks, the indexes are cheaper to extend.
_ADD_SLOTS: Final = """
INSERT INTO executions (
    tenant_id, id, project_id, task_uid, status, reason, trigger, nominal_at, nominal_local, nominal_fold, timezone,
    tzdata_version, holidays_version, fire_at, moved_by, closes_at, available_at, start_deadline, queue, priority,
    plan_generation, finished_at, created_at
)
SELECT p.tenant_id, v.id, p.project_id, p.task_uid, v.status, v.reason, 'schedule', v.nominal_at, v.nominal_local,
    v.fold, p.schedule ->> 'timezone', %(tzdata)s, CASE WHEN p.holidays_version IS NOT NULL THEN %(holidays)s END,
    v.fire_at, v.moved_by, v.closes_at, v.fire_at, v.fire_at + p.start_deadline_seconds * interval '1 second',
    p.queue, p.priority, p.generation, CASE WHEN v.reason IS NOT NULL THEN v.fire_at END, %(now)s
FROM (
    SELECT w.task_uid, w.generation, w.planned_until, l.id, s.*
    FROM unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(seen)s::timestamptz[]) WITH ORDINALITY
        AS w (task_uid, generation, planned_until, n)
    JOIN unnest(%(plans)s::integer[], %(slots)s::integer[], %(ids)s::uuid[]) AS l (n, k, id) ON l.n = w.n
    JOIN unnest(%(statuses)s::text[], %(reasons)s::text[], %(nominals)s::timestamptz[], %(locals)s::timestamp[],
            %(folds)s::smallint[], %(fires)s::timestamptz[], %(moves)s::text[], %(closes)s::timestamptz[])
        WITH ORDINALITY AS s (status, reason, nominal_at, nominal_local, fold, fire_at, moved_by, closes_at, k)
        ON s.k = l.k
    OFFSET 0
) AS v
JOIN task_plan p ON p.tenant_id = %(tenant)s AND p.task_uid = v.task_uid AND p.task_uid = ANY (%(uids)s::uuid[])
    AND p.generation = v.generation AND p.planned_until = v.planned_until
ORDER BY p.task_uid, v.id
ON CONFLICT DO NOTHING
"""

_ADVANCE: Final = """
UPDATE task_plan p
SET planned_until = v.until, plan_due_at = v.due_at, next_fire_at = v.next_fire_at, tzdata_version = %(tzdata)s,
    holidays_version = CASE WHEN p.holidays_version IS NOT NULL THEN %(holidays)s END,
    skip_reason = v.skip_reason, skip_count = v.skip_count
FROM unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(seen)s::timestamptz[], %(untils)s::timestamptz[],
        %(dues)s::timestamptz[], %(nexts)s::timestamptz[], %(skip_reasons)s::text[], %(skip_counts)s::bigint[])
    AS v (task_uid, generation, planned_until, until, due_at, next_fire_at, skip_reason, skip_count)
WHERE p.tenant_id = %(tenant)s AND p.task_uid = v.task_uid AND p.task_uid = ANY (%(uids)s::uuid[])
  AND p.generation = v.generation AND p.planned_until = v.planned_until
"""

#: What is written is noted in the history of plans in the same breath.
_UPSERT: Final = f"""
WITH p AS (INSERT INTO task_plan AS p (
    tenant_id, task_uid, project_id, owner, generation, active, schedule, queue, priority, start_deadline_seconds,
    effective_from, planned_until, plan_due_at, next_fire_at, tzdata_version, holidays_version
)
SELECT %(tenant)s, v.task_uid, v.project_id, v.owner, v.generation, v.active, v.schedule::jsonb, v.queue, v.priority,
    v.start_deadline_seconds, v.effective_from, v.effective_from, %(now)s, NULL, %(tzdata)s,
    CASE WHEN v.holidays THEN %(holidays)s END
FROM unnest(%(uids)s::uuid[], %(projects)s::uuid[], %(owners)s::text[], %(generations)s::bigint[],
        %(active)s::boolean[], %(schedules)s::text[], %(queues)s::text[], %(priorities)s::smallint[],
        %(deadlines)s::double precision[], %(starts)s::timestamptz[], %(by_holidays)s::boolean[])
    AS v (task_uid, project_id, owner, generation, active, schedule, queue, priority, start_deadline_seconds,
          effective_from, holidays)
ON CONFLICT (tenant_id, task_uid) DO UPDATE SET
    project_id = EXCLUDED.project_id, owner = EXCLUDED.owner, generation = EXCLUDED.generation,
    active = EXCLUDED.active, schedule = EXCLUDED.schedule, queue = EXCLUDED.queue, priority = EXCLUDED.priority,
    start_deadline_seconds = EXCLUDED.start_deadline_seconds, effective_from = EXCLUDED.effective_from,
    planned_until = EXCLUDED.planned_until, plan_due_at = EXCLUDED.plan_due_at, next_fire_at = NULL,
    tzdata_version = EXCLUDED.tzdata_version, holidays_version = EXCLUDED.holidays_version,
    skip_reason = NULL, skip_count = NULL
RETURNING p.*)
{plan_history.NOTE}
"""

_RAISE: Final = """
UPDATE task_plan p
SET generation = v.generation, effective_from = v.effective_from, planned_until = v.effective_from,
    plan_due_at = %(now)s, next_fire_at = NULL, tzdata_version = %(tzdata)s,
    holidays_version = CASE WHEN p.holidays_version IS NOT NULL THEN %(holidays)s END,
    skip_reason = NULL, skip_count = NULL
FROM unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(starts)s::timestamptz[])
    AS v (task_uid, generation, effective_from)
WHERE p.tenant_id = %(tenant)s AND p.task_uid = v.task_uid AND p.task_uid = ANY (%(uids)s::uuid[])
  AND p.generation = v.generation - 1
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
WHERE p.tenant_id = %(tenant)s AND p.task_uid = v.task_uid AND p.task_uid = ANY (%(uids)s::uuid[])
  AND p.generation = v.generation
"""


def evaluate(plans: Sequence[Plan], now: datetime, facts: Facts | None = None, shared: Round | None = None) -> Batch:
    """Compute the slots that each plan needs next, as many as one transaction writes. Pure."""
    return compute(plans, shared or Round(now), facts or Facts(), SLOTS_MAX)


def _named(tenant_id: UUID, plans: Sequence[Plan]) -> dict[str, Any]:
    """Return the parameters that most statements share."""
    return {
        "tenant": tenant_id,
        "tzdata": tzdata_version(),
        "holidays": holidays_version(),
        "uids": arrays.uuids(plan.task_uid for plan in plans),
        "generations": arrays.numbers(plan.generation for plan in plans),
        "seen": arrays.times(plan.planned_until for plan in plans),
    }


def _begun(tenant_id: UUID, plans: Sequence[Plan]) -> dict[str, Any]:
    """Return these parameters, and since when each plan is in effect."""
    return _named(tenant_id, plans) | {"starts": arrays.times(plan.effective_from for plan in plans)}


def _slot_columns(planned: Sequence[Planned]) -> dict[str, Any]:
    """Return the slots as columns, each once however many tasks share it, and which plan has which, from 1."""
    places: dict[int, int] = {}
    distinct: list[Foreseen] = []
    marks: list[SlotMark] = []
    plans, slots, ids = [], [], []
    for place, one in enumerate(planned, 1):
        task = one.plan.task_uid.bytes
        for seen in one.slots:
            number = places.get(id(seen))
            if number is None:
                distinct.append(seen)
                marks.append(SlotMark.of(seen.slot))
                number = places[id(seen)] = len(distinct)
            plans.append(place)
            slots.append(number)
            ids.append(marks[number - 1].id_of(task))
    return {
        "plans": arrays.numbers(plans),
        "slots": arrays.numbers(slots),
        "ids": arrays.plain(ids),
        "statuses": [seen.status for seen in distinct],
        "reasons": [seen.reason for seen in distinct],
        "nominals": [seen.slot.nominal_at for seen in distinct],
        "locals": [seen.slot.nominal_local for seen in distinct],
        "folds": [seen.slot.fold for seen in distinct],
        "fires": [seen.slot.fire_at for seen in distinct],
        "moves": [seen.slot.moved_by for seen in distinct],
        "closes": [seen.closes_at for seen in distinct],
    }


async def write_plans(
    conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan], now: datetime, shared: Round | None = None
) -> PlanResult:
    """Compute and write what these plans need next. Their rows of `task_plan` are locked by this transaction."""
    if not plans:
        return PlanResult(0, 0, 0, more=False)
    facts = await plan_facts.gather(conn, tenant_id, plans, now)
    batch = await asyncio.to_thread(evaluate, plans, now, facts, shared)
    begun = [*(one.plan for one in batch.planned), *(plan for plan, _ in batch.poisoned)]
    await forget(conn, tenant_id, [plan for plan in begun if not plan.begun])
    slots = await add_slots(conn, tenant_id, batch.planned, now)
    await advance(conn, tenant_id, batch.planned)
    await quarantine(conn, tenant_id, batch.poisoned, now)
    again = batch.left > 0 or any(one.due_at is not None and one.due_at <= now for one in batch.planned)
    return PlanResult(len(batch.planned), slots, len(batch.poisoned), again)


async def forget(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan]) -> None:
    """Remove the forecasts that older generations of these plans have left; keep what has fired."""
    plans = [plan for plan in plans if plan.generation > 1]
    if plans:
        parameters = _begun(tenant_id, plans)
        parameters["low"] = id_floor(min(plan.effective_from for plan in plans))
        await fetch(conn, _FORGET, parameters)
        await fetch(conn, _ADOPT, parameters)
        await ranges.cut(conn, tenant_id, {plan.task_uid: plan.effective_from for plan in plans})


async def add_slots(conn: AsyncConnection, tenant_id: UUID, planned: Sequence[Planned], now: datetime) -> int:
    """Insert slots where generation and `planned_until` are still what was read; return how many rows are new."""
    tallied = [tally for one in planned for tally in ranges.tallies(one.plan, one.pieces, joined=one.joined)]
    if tallied:
        await ranges.extend(conn, tenant_id, tallied, now)
    filled = await _kept(conn, [one for one in planned if one.slots], now)
    if not filled:
        return 0
    parameters = await asyncio.to_thread(_slot_columns, filled)
    parameters |= _named(tenant_id, [one.plan for one in filled]) | {"now": now}
    result = await conn.exec_driver_sql(_ADD_SLOTS, parameters)
    return result.rowcount


async def _kept(conn: AsyncConnection, planned: Sequence[Planned], now: datetime) -> list[Planned]:
    """Leave out slots of weeks that are over and not kept any more: after an absence that outlasts the retention."""
    if all(one.slots[0].slot.nominal_at > now - _KEPT for one in planned):
        return list(planned)
    weeks, found = await upkeep.weeks(conn), []
    for one in planned:
        slots = [seen for seen in one.slots if seen.slot.nominal_at > now or _monday(seen.slot.nominal_at) in weeks]
        if slots:
            found.append(one._replace(slots=slots))
    return found


def _monday(at: datetime) -> date:
    day = at.astimezone(UTC).date()
    return day - timedelta(days=day.weekday())


async def advance(conn: AsyncConnection, tenant_id: UUID, planned: Sequence[Planned]) -> None:
    """Note how far these plans reach, where nobody else has moved them."""
    if planned:
        await fetch(conn, _ADVANCE, await asyncio.to_thread(_progress, tenant_id, planned))


def _progress(tenant_id: UUID, planned: Sequence[Planned]) -> dict[str, Any]:
    """Return the parameters that say how plans stand afterwards."""
    return _named(tenant_id, [one.plan for one in planned]) | {
        "untils": arrays.times(one.until for one in planned),
        "dues": arrays.times(one.due_at for one in planned),
        "nexts": arrays.times(one.next_fire_at for one in planned),
        "skip_reasons": arrays.texts(one.run.reason for one in planned),
        "skip_counts": arrays.numbers(one.run.length or None for one in planned),
    }


async def close(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan], until: datetime, now: datetime) -> None:
    """Plan generations that end at `until` up to there, so that the edit that ends them loses no slot of theirs."""
    await forget(conn, tenant_id, [plan for plan in plans if not plan.begun])
    owing = [plan for plan in plans if plan.active and _may_owe(plan, until)]
    if not owing:
        return
    worker = Worker(Round(now), await plan_facts.gather(conn, tenant_id, owing, now))
    for first in range(0, len(owing), TASKS_MAX):
        endings = await asyncio.to_thread(worker.endings, owing[first : first + TASKS_MAX], until)
        await _add_in_parts(conn, tenant_id, endings, now)


async def _add_in_parts(conn: AsyncConnection, tenant_id: UUID, planned: Sequence[Planned], now: datetime) -> None:
    """Add slots of plans in statements of a bounded size; the one that is open at the end is written, too."""
    waiting: list[Planned] = []
    size = 0
    for one in planned:
        for first in range(0, len(one.slots), SLOTS_MAX):
            waiting.append(one._replace(slots=one.slots[first : first + SLOTS_MAX], pieces=()))
            size += len(waiting[-1].slots)
            if size >= SLOTS_MAX:
                await add_slots(conn, tenant_id, waiting, now)
                waiting, size = [], 0
        if one.pieces:
            waiting.append(one._replace(slots=()))
    await add_slots(conn, tenant_id, waiting, now)


def _may_owe(plan: Plan, until: datetime) -> bool:
    """Say whether something may fire up to `until` that is not planned: some slots fire before they are nominal."""
    block = plan.schedule if isinstance(plan.schedule, dict) else {}
    if block.get("onExcluded") == OnExcluded.PREVIOUS_ALLOWED:
        return plan.planned_until < until + EARLIEST + _LONGEST_GAP
    return plan.planned_until < (until if block.get("timezone") == "UTC" else until + _LONGEST_GAP)


async def upsert(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan], now: datetime) -> None:
    """Write plans that begin, due at once, and note them in the history."""
    calendars = await plan_facts.calendars(conn, tenant_id, [plan.schedule for plan in plans])
    by_holidays = {digest for digest, calendar in calendars.items() if calendar.uses_holidays}

    def parameters(batch: Sequence[Plan]) -> dict[str, Any]:
        return _plan_columns(tenant_id, batch, by_holidays) | {"now": now}

    async for batch, values in prepared(plans, TASKS_MAX, parameters):
        await fetch(conn, _UPSERT, values)
        if any(plan.generation > 1 for plan in batch):  # a task is not quarantined before it has been planned
            await fetch(conn, _TRUST, values)


def _plan_columns(tenant_id: UUID, plans: Sequence[Plan], by_holidays: Container[str]) -> dict[str, Any]:
    parameters = _begun(tenant_id, plans)
    parameters["projects"] = arrays.uuids(plan.project_id for plan in plans)
    parameters["owners"] = arrays.texts(plan.owner for plan in plans)
    parameters["active"] = arrays.plain(str(plan.active) for plan in plans)
    parameters["schedules"] = arrays.texts(to_json(plan.schedule) for plan in plans)
    parameters["queues"] = arrays.texts(plan.queue for plan in plans)
    parameters["priorities"] = arrays.numbers(plan.priority for plan in plans)
    parameters["deadlines"] = arrays.numbers(plan.start_deadline_seconds for plan in plans)
    holidays = (any(one in by_holidays for _, one in named(plan.schedule)) for plan in plans)
    parameters["by_holidays"] = arrays.plain(str(one) for one in holidays)
    return parameters


async def raise_generations(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan], now: datetime) -> None:
    """Write the next generations of plans whose inputs are the same, due at once."""
    parameters = _begun(tenant_id, plans) | {"now": now}
    await fetch(conn, _RAISE, parameters)
    await fetch(conn, _TRUST, parameters)
    await plan_history.note(conn, tenant_id, [plan.task_uid for plan in plans], now)


async def quarantine(
    conn: AsyncConnection, tenant_id: UUID, poisoned: Sequence[tuple[Plan, str]], now: datetime
) -> None:
    """Plan these tasks no more, and say why on each."""
    if poisoned:
        parameters = _begun(tenant_id, [plan for plan, _ in poisoned]) | {"now": now}
        parameters["reasons"] = [why for _, why in poisoned]
        await fetch(conn, _QUARANTINE, parameters)
        await fetch(conn, _GIVE_UP, parameters)
