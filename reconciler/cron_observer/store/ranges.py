"""Ranges: many equal skips in a row of one task, told in one row of `slot_ranges` for each UTC day.

A range holds every nominal slot from its first to its last that has no row of its own. Its quarters count them by
quarter hours of the UTC day, so that every time zone's day is a sum of quarters. As far as it lies ahead it is a
forecast like any other: `cut` takes it back to an instant, exactly.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.forecast import Foreseen
from cron_observer.schedule import Schedule, tzdata_version
from cron_observer.schedule.calendars import Calendar, holidays_version
from cron_observer.store import plan_facts
from cron_observer.store.engine import fetch
from cron_observer.store.plan_work import Plan, compiled

QUARTERS: Final = 96
_QUARTER: Final = timedelta(minutes=15)
_INSTANT: Final = timedelta(milliseconds=1)

#: A range goes on where the plan that is extended ended: nothing else lies between.
_GROW: Final = """
UPDATE slot_ranges r
SET last_at = v.last_at, slots = r.slots + v.slots, quarters = (
    SELECT array_agg(q.known + q.more ORDER BY q.n)
    FROM unnest(r.quarters, v.quarters::integer[]) WITH ORDINALITY AS q (known, more, n))
FROM unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(seen)s::timestamptz[], %(firsts)s::timestamptz[],
        %(lasts)s::timestamptz[], %(days)s::timestamptz[], %(statuses)s::text[], %(reasons)s::text[],
        %(counts)s::bigint[], %(quarters)s::text[])
    AS v (task_uid, generation, planned_until, first_at, last_at, day, status, reason, slots, quarters)
JOIN task_plan p ON p.tenant_id = %(tenant)s AND p.task_uid = v.task_uid
    AND p.generation = v.generation AND p.planned_until = v.planned_until
WHERE r.tenant_id = %(tenant)s AND r.task_uid = v.task_uid AND r.first_at = (
        SELECT max(newest.first_at) FROM slot_ranges newest
        WHERE newest.tenant_id = %(tenant)s AND newest.task_uid = v.task_uid AND newest.first_at <= v.first_at)
  AND r.first_at >= v.day AND r.last_at < v.first_at AND r.status = v.status AND r.reason = v.reason
  AND r.plan_generation = v.generation AND r.tzdata_version = %(tzdata)s
  AND r.holidays_version IS NOT DISTINCT FROM CASE WHEN p.holidays_version IS NOT NULL THEN %(holidays)s END
RETURNING r.task_uid
"""

_ADD: Final = """
INSERT INTO slot_ranges (
    tenant_id, task_uid, first_at, last_at, project_id, status, reason, slots, quarters, timezone, tzdata_version,
    holidays_version, plan_generation, created_at
)
SELECT p.tenant_id, p.task_uid, v.first_at, v.last_at, p.project_id, v.status, v.reason, v.slots,
    v.quarters::integer[], p.schedule ->> 'timezone', %(tzdata)s,
    CASE WHEN p.holidays_version IS NOT NULL THEN %(holidays)s END, p.generation, %(now)s
FROM unnest(%(uids)s::uuid[], %(generations)s::bigint[], %(seen)s::timestamptz[], %(firsts)s::timestamptz[],
        %(lasts)s::timestamptz[], %(statuses)s::text[], %(reasons)s::text[], %(counts)s::bigint[],
        %(quarters)s::text[])
    AS v (task_uid, generation, planned_until, first_at, last_at, status, reason, slots, quarters)
JOIN task_plan p ON p.tenant_id = %(tenant)s AND p.task_uid = v.task_uid
    AND p.generation = v.generation AND p.planned_until = v.planned_until
ON CONFLICT DO NOTHING
"""

_BEHIND: Final = """
SELECT r.task_uid, r.first_at, r.last_at, r.quarters, v.until, h.schedule
FROM unnest(%(uids)s::uuid[], %(untils)s::timestamptz[]) AS v (task_uid, until)
JOIN slot_ranges r ON r.tenant_id = %(tenant)s AND r.task_uid = v.task_uid AND r.last_at > v.until
LEFT JOIN plan_history h
    ON h.tenant_id = %(tenant)s AND h.task_uid = r.task_uid AND h.generation = r.plan_generation
ORDER BY r.task_uid, r.first_at FOR UPDATE OF r
"""

_REMOVE: Final = """
DELETE FROM slot_ranges r
USING unnest(%(uids)s::uuid[], %(firsts)s::timestamptz[]) AS v (task_uid, first_at)
WHERE r.tenant_id = %(tenant)s AND r.task_uid = v.task_uid AND r.first_at = v.first_at
"""

_SHORTEN: Final = """
UPDATE slot_ranges r SET last_at = v.last_at, slots = v.slots, quarters = v.quarters::integer[]
FROM unnest(%(uids)s::uuid[], %(firsts)s::timestamptz[], %(lasts)s::timestamptz[], %(counts)s::bigint[],
        %(quarters)s::text[])
    AS v (task_uid, first_at, last_at, slots, quarters)
WHERE r.tenant_id = %(tenant)s AND r.task_uid = v.task_uid AND r.first_at = v.first_at
"""

_SWEEP: Final = """
DELETE FROM slot_ranges r
USING (
    SELECT old.task_uid, old.first_at FROM slot_ranges old
    WHERE old.tenant_id = %(tenant)s AND old.last_at < %(keep_from)s ORDER BY old.last_at LIMIT %(limit)s
) AS old
WHERE r.tenant_id = %(tenant)s AND r.task_uid = old.task_uid AND r.first_at = old.first_at
RETURNING r.task_uid
"""


class Tally(NamedTuple):
    """Equal skips in a row of one plan on one UTC day. `joined`: they follow the newest range of the task."""

    plan: Plan
    first_at: datetime
    last_at: datetime
    status: str
    reason: str
    quarters: tuple[int, ...]
    joined: bool

    @property
    def slots(self) -> int:
        """How many they are."""
        return sum(self.quarters)


def tallies(plan: Plan, pieces: Sequence[Sequence[Foreseen]], *, joined: bool) -> list[Tally]:
    """Count pieces of equal skips by day and quarter hour. `joined`: the first goes on where the plan ended. Pure."""
    found: list[Tally] = []
    for piece in pieces:
        for (day, status, reason), group in groupby(piece, key=_kind):
            nominal = [one.slot.nominal_at for one in group]
            counted = Counter((at - day) // _QUARTER for at in nominal)
            quarters = tuple(counted[number] for number in range(QUARTERS))
            found.append(Tally(plan, nominal[0], nominal[-1], status, reason, quarters, joined and not found))
    return found


def _kind(one: Foreseen) -> tuple[datetime, str, str]:
    return _day(one.slot.nominal_at), one.status, one.reason or ""


def _day(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _columns(found: Sequence[Tally]) -> dict[str, Any]:
    return {
        "uids": [one.plan.task_uid for one in found],
        "generations": [one.plan.generation for one in found],
        "seen": [one.plan.planned_until for one in found],
        "firsts": [one.first_at for one in found],
        "lasts": [one.last_at for one in found],
        "days": [_day(one.first_at) for one in found],
        "statuses": [one.status for one in found],
        "reasons": [one.reason for one in found],
        "counts": [one.slots for one in found],
        "quarters": [_array(one.quarters) for one in found],
    }


def _array(quarters: Sequence[int]) -> str:
    return "{" + ",".join(map(str, quarters)) + "}"


async def extend(conn: AsyncConnection, tenant_id: UUID, found: Sequence[Tally], now: datetime) -> None:
    """Write these skips where generation and `planned_until` of their plans are still what was read."""
    common = {"tenant": tenant_id, "now": now, "tzdata": tzdata_version(), "holidays": holidays_version()}
    joined = [one for one in found if one.joined]
    grown = {uid for (uid,) in await fetch(conn, _GROW, common | _columns(joined))} if joined else set()
    rest = [one for one in found if not (one.joined and one.plan.task_uid in grown)]
    if rest:
        await fetch(conn, _ADD, common | _columns(rest))


class _Behind(NamedTuple):
    """A range that goes on behind `until`, with the block that it was planned from (None: unknown)."""

    task_uid: UUID
    first_at: datetime
    last_at: datetime
    quarters: list[int]
    until: datetime
    block: Any


async def cut(conn: AsyncConnection, tenant_id: UUID, untils: Mapping[UUID, datetime]) -> set[UUID]:
    """Take back what ranges of these tasks hold behind an instant, each its own; return the uids of those that did.

    What is left is counted anew from the plan that the range was made of. The plans' rows are locked by this
    transaction.
    """
    if not untils:
        return set()
    parameters = {"tenant": tenant_id, "uids": list(untils), "untils": list(untils.values())}
    behind = [_Behind(*row) for row in await fetch(conn, _BEHIND, parameters)]
    gone = [one for one in behind if one.first_at > one.until]
    shorter: list[tuple[_Behind, datetime, list[int]]] = []
    if len(gone) < len(behind):
        calendars = await plan_facts.calendars(conn, tenant_id, [one.block for one in behind])
        for one in behind:
            if one.first_at <= one.until:
                last_at, quarters = await asyncio.to_thread(_shortened, one, calendars)
                shorter.append((one, last_at, quarters))
    if gone:
        firsts = [one.first_at for one in gone]
        await fetch(conn, _REMOVE, {"tenant": tenant_id, "uids": [one.task_uid for one in gone], "firsts": firsts})
    if shorter:
        parameters = {
            "tenant": tenant_id,
            "uids": [one.task_uid for one, _, _ in shorter],
            "firsts": [one.first_at for one, _, _ in shorter],
            "lasts": [last_at for _, last_at, _ in shorter],
            "counts": [sum(quarters) for _, _, quarters in shorter],
            "quarters": [_array(quarters) for _, _, quarters in shorter],
        }
        await fetch(conn, _SHORTEN, parameters)
    return {one.task_uid for one in behind}


def _shortened(one: _Behind, calendars: Mapping[str, Calendar]) -> tuple[datetime, list[int]]:
    """Return the last slot of a range up to an instant inside of it, and how it counts by quarters then."""
    day = _day(one.first_at)
    last = (one.until - day) // _QUARTER
    quarters = [count if number < last else 0 for number, count in enumerate(one.quarters)]
    schedule = _schedule(one.block, calendars)
    if schedule is None:
        # Its plan cannot be evaluated any more; the quarter that is parted is left out.
        return (one.until, quarters) if sum(quarters) else (one.first_at, [*quarters[:last], 1, *quarters[last + 1 :]])
    inside = _nominal(schedule, max(one.first_at, day + last * _QUARTER), one.until)
    quarters[last] = len(inside)
    if not inside:
        number = max(number for number, count in enumerate(quarters) if count)
        inside = _nominal(schedule, max(one.first_at, day + number * _QUARTER), one.until)
    return inside[-1], quarters


def _schedule(block: Any, calendars: Mapping[str, Calendar]) -> Schedule | None:
    try:
        return compiled(block, calendars)
    except Exception:  # noqa: BLE001  whatever has become of it since
        return None


def _nominal(schedule: Schedule, first: datetime, last: datetime) -> list[datetime]:
    return [slot.nominal_at for slot in schedule.slots(first - _INSTANT, last) if slot.fire_at >= slot.nominal_at]


async def sweep(conn: AsyncConnection, tenant_id: UUID, keep_from: datetime, limit: int) -> int:
    """Remove ranges that ended before `keep_from`; return how many, at most `limit`."""
    return len(await fetch(conn, _SWEEP, {"tenant": tenant_id, "keep_from": keep_from, "limit": limit}))
