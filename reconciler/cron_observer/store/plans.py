"""Planning: a task's schedule becomes rows of `executions` ahead of time.

`register` takes in what a task's author wants, `plan_batch` keeps everybody's horizon filled. An edit takes effect
at `effective_from`, a few seconds after its transaction began: nominal instants up to it keep the slots of the old
plan, later ones are planned anew. `in_transaction_with_margin` sees to it that the edit is committed by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import DatabaseError
from cron_observer.model import RESERVED_QUEUES
from cron_observer.store import addresses, arrays, plan_rows, plan_versions
from cron_observer.store.engine import Database, clock, fetch
from cron_observer.store.plan_blocks import normalised
from cron_observer.store.plan_rows import Plan, PlanResult, Round, write_plans
from cron_observer.store.plan_versions import Moved

__all__ = [
    "INLINE_MAX",
    "MARGIN",
    "Connection",
    "Followed",
    "MarginPassedError",
    "PlanInput",
    "PlanResult",
    "Round",
    "check_margin",
    "due",
    "follow_zone_data",
    "in_transaction_with_margin",
    "normalised",
    "plan_batch",
    "plan_one",
    "quarantine",
    "register",
]

T = TypeVar("T")

#: What a new generation is needed for when it changes; see `Plan.inputs`.
_Inputs = tuple[bool, dict[str, Any], float | None]

#: An open transaction, for those who may not know what it is made of.
Connection = AsyncConnection

#: How long after its transaction's locks an edit takes effect. Long enough to commit a large apply, short enough
#: that nobody waits for it.
MARGIN: Final = timedelta(seconds=5)

#: Tasks with executions in this queue have an address for the pings of whoever fires them.
_PINGED: Final = RESERVED_QUEUES["checkin"]

#: What must be left of the margin right before the commit, for the commit itself.
COMMIT: Final = timedelta(seconds=1)

#: The margin is not doubled beyond this: a transaction that takes longer is broken.
MARGIN_MAX: Final = timedelta(minutes=10)

#: Changed tasks for which the margin is as it is. More take longer to write, so it grows with them: without that, a
#: large apply would be rolled back and done again until the margin has been doubled often enough.
MARGIN_TASKS: Final = 10_000

#: Changed tasks that are planned in the transaction that changes them. Of more, only the generations are raised,
#: and the scheduler plans them.
INLINE_MAX: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class PlanInput:
    """What a task's author wants of its slots. `active` is False while it is suspended, removed or being deleted."""

    task_uid: UUID
    project_id: UUID
    owner: str  #: manifest | api
    active: bool
    schedule: Mapping[str, Any]  #: the `schedule` block of the manifest
    seed: str  #: ``project/name`` as first created
    queue: str
    priority: int
    start_deadline_seconds: float | None = None
    calendars: Mapping[str, str] = field(default_factory=dict)  #: name -> digest, of the task's project
    group: Mapping[str, Any] | None = None  #: name, uid, timezone and windows of the task's group

    @cached_property
    def inputs(self) -> _Inputs:
        """What a new generation is needed for when it changes."""
        block = normalised(self.schedule, self.seed, self.calendars, self.group)
        return self.active, block, self.start_deadline_seconds


class MarginPassedError(Exception):
    """The edit would be committed after it takes effect: roll back, and take a wider margin."""


@dataclass(slots=True)
class _Scope:
    margin: timedelta
    earliest: datetime | None = None


_scope: ContextVar[_Scope | None] = ContextVar("margin", default=None)

#: The last column: whether it is quarantined. No join: before the first statistics of new tables, joining thousands of
#: rows is planned as a loop in a loop.
_LOCK: Final = f"""
SELECT {plan_rows.PLAN_COLUMNS}, p.task_uid IN (
    SELECT t.task_uid FROM tasks t
    WHERE t.tenant_id = %(tenant)s AND t.task_uid = ANY (%(uids)s::uuid[]) AND t.quarantine IS NOT NULL)
FROM task_plan p
WHERE p.tenant_id = %(tenant)s AND p.task_uid = ANY (%(uids)s::uuid[])
ORDER BY p.task_uid FOR UPDATE OF p
"""

_DUE: Final = f"""
SELECT {plan_rows.PLAN_COLUMNS}
FROM task_plan p
WHERE p.tenant_id = %(tenant)s AND p.plan_due_at <= %(now)s
ORDER BY p.plan_due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""

_DUE_UIDS: Final = """
SELECT p.task_uid FROM task_plan p
WHERE p.tenant_id = %(tenant)s AND p.plan_due_at <= %(now)s ORDER BY p.plan_due_at LIMIT %(limit)s
"""

_OUTDATED: Final = f"""
SELECT {plan_rows.PLAN_COLUMNS}
FROM task_plan p
{plan_versions.OUTDATED}
"""

_REQUEUE_PLANS: Final = """
UPDATE task_plan p SET queue = v.queue, priority = v.priority
FROM unnest(%(uids)s::uuid[], %(queues)s::text[], %(priorities)s::smallint[]) AS v (task_uid, queue, priority)
WHERE p.tenant_id = %(tenant)s AND p.task_uid = v.task_uid
"""

_REQUEUE_WAITING: Final = """
WITH waiting AS (
    SELECT e.id, v.queue, v.priority
    FROM unnest(%(uids)s::uuid[], %(queues)s::text[], %(priorities)s::smallint[]) AS v (task_uid, queue, priority)
    JOIN executions e ON e.tenant_id = %(tenant)s AND e.task_uid = v.task_uid
    WHERE e.status = 'PENDING' AND (e.queue <> v.queue OR e.priority <> v.priority)
    ORDER BY e.id FOR UPDATE OF e
)
UPDATE executions e SET queue = w.queue, priority = w.priority
FROM waiting w WHERE e.tenant_id = %(tenant)s AND e.id = w.id AND e.status = 'PENDING'
"""


async def register(
    conn: AsyncConnection, tenant_id: UUID, entries: Iterable[PlanInput], now: datetime
) -> datetime | None:
    """Take in what is wanted of tasks, in the transaction that creates, changes, removes or restores them.

    Where scheduling inputs differ from what is planned, a new generation begins at the instant that is returned
    (None: nothing changed): a few seconds ahead of the clock, read when every row is locked. Up to `INLINE_MAX`
    changed tasks are planned at once, more are left to the scheduler. A new queue or priority only rewrites what
    waits. What is the same is not touched. Call it in `in_transaction_with_margin`, or call `check_margin` with
    the result right before the commit.
    """
    wanted = {entry.task_uid: entry for entry in entries}
    if not wanted:
        return None
    pinged = [(entry.task_uid, entry.project_id) for entry in wanted.values() if entry.queue == _PINGED]
    await addresses.ensure(conn, tenant_id, pinged, now)
    rows = await fetch(conn, _LOCK, {"tenant": tenant_id, "uids": arrays.uuids(wanted)})
    known = {plan.task_uid: plan for plan in (Plan(*row[:-1]) for row in rows)}
    stuck = {plan.task_uid for plan, row in zip(known.values(), rows, strict=True) if row[-1]}
    await _requeue(conn, tenant_id, [entry for uid, entry in wanted.items() if _moved(known.get(uid), entry)])
    changed = await asyncio.to_thread(_changed, wanted, known, stuck)
    if not changed:
        return None
    effective_from = await _effective_from(conn, len(changed))
    ordered = sorted(changed, key=lambda uid: uid.int)
    plans = [_next_plan(wanted[uid], known.get(uid), changed[uid], effective_from) for uid in ordered]
    old = [known[uid] for uid in ordered if uid in known]
    await plan_rows.close(conn, tenant_id, old, effective_from, now)
    await plan_rows.upsert(conn, tenant_id, plans, now)
    await _plan_if_few(conn, tenant_id, plans, now)
    return effective_from


def _changed(
    wanted: Mapping[UUID, PlanInput], known: Mapping[UUID, Plan], stuck: Container[UUID]
) -> dict[UUID, _Inputs]:
    """Return the inputs of those tasks that need a new generation. `stuck` are quarantined."""
    return {
        uid: entry.inputs
        for uid, entry in wanted.items()
        if uid not in known or known[uid].inputs != entry.inputs or (uid in stuck and entry.active)
    }


def _moved(plan: Plan | None, entry: PlanInput) -> bool:
    return plan is not None and (plan.queue, plan.priority) != (entry.queue, entry.priority)


def _next_plan(entry: PlanInput, old: Plan | None, inputs: _Inputs, effective_from: datetime) -> Plan:
    active, schedule, start_deadline = inputs
    return Plan(
        task_uid=entry.task_uid,
        project_id=entry.project_id,
        owner=entry.owner,
        generation=1 if old is None else old.generation + 1,
        active=active,
        schedule=schedule,
        queue=entry.queue,
        priority=entry.priority,
        start_deadline_seconds=start_deadline,
        effective_from=effective_from,
        planned_until=effective_from,
    )


async def _effective_from(conn: AsyncConnection, tasks: int = 1) -> datetime:
    """Return when an edit of so many `tasks` takes effect, all locked by now; let the transaction's check know."""
    scope = _scope.get()
    margin = (scope.margin if scope else MARGIN) * max(1.0, tasks / MARGIN_TASKS)
    effective_from = await clock(conn) + margin
    if scope and (scope.earliest is None or effective_from < scope.earliest):
        scope.earliest = effective_from
    return effective_from


async def _plan_if_few(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan], now: datetime) -> None:
    if len(plans) <= INLINE_MAX:
        await write_plans(conn, tenant_id, plans, now)


async def _requeue(conn: AsyncConnection, tenant_id: UUID, entries: Sequence[PlanInput]) -> None:
    """Let what waits of these tasks wait in another queue, or more urgently."""
    if not entries:
        return
    parameters = {
        "tenant": tenant_id,
        "uids": arrays.uuids(entry.task_uid for entry in entries),
        "queues": arrays.texts(entry.queue for entry in entries),
        "priorities": arrays.numbers(entry.priority for entry in entries),
    }
    await fetch(conn, _REQUEUE_PLANS, parameters)
    await fetch(conn, _REQUEUE_WAITING, parameters)


async def plan_batch(
    conn: AsyncConnection, tenant_id: UUID, limit: int, now: datetime, shared: Round | None = None
) -> PlanResult:
    """Plan up to `limit` tasks of a tenant whose horizon runs out, in this transaction.

    Tasks that another planner works on are passed over. A task whose schedule cannot be evaluated is quarantined
    and harms no other. `more` in the result says that it is worth calling again at once. Batches that follow each
    other within seconds may share a `Round`, so that each schedule is evaluated once.
    """
    rows = await fetch(conn, _DUE, {"tenant": tenant_id, "now": now, "limit": limit})
    result = await write_plans(conn, tenant_id, [Plan(*row) for row in rows], now, shared)
    return PlanResult(result.tasks, result.slots, result.quarantined, result.more or len(rows) == limit)


async def plan_one(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID, now: datetime) -> PlanResult:
    """Plan one task, whether its horizon runs out or not."""
    rows = await fetch(conn, _LOCK, {"tenant": tenant_id, "uids": [task_uid]})
    return await write_plans(conn, tenant_id, [Plan(*row[:-1]) for row in rows], now)


async def due(conn: AsyncConnection, tenant_id: UUID, limit: int, now: datetime) -> list[UUID]:
    """Return the uids of tasks whose horizon runs out, most urgent first; takes no lock."""
    return [uid for (uid,) in await fetch(conn, _DUE_UIDS, {"tenant": tenant_id, "now": now, "limit": limit})]


async def quarantine(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID, why: str, now: datetime) -> None:
    """Plan this task no more until its definition, or the zone data, changes."""
    rows = await fetch(conn, _LOCK, {"tenant": tenant_id, "uids": [task_uid]})
    await plan_rows.quarantine(conn, tenant_id, [(Plan(*row[:-1]), why) for row in rows], now)


class Followed(NamedTuple):
    """How many tasks were planned anew because of newer data, and which of their forecasts that moves."""

    tasks: int
    moved: list[Moved]


async def follow_zone_data(conn: AsyncConnection, tenant_id: UUID, limit: int, now: datetime) -> Followed:
    """Plan tasks anew that were planned with older data than ours, as if their authors had edited them.

    Data is that on time zones, and on public holidays for tasks whose calendars name some. Less than `limit` tasks
    means all. What moves is written to the audit log. Call it in `in_transaction_with_margin`.
    """
    parameters = plan_versions.versions() | {"tenant": tenant_id, "limit": limit}
    old = [Plan(*row) for row in await fetch(conn, _OUTDATED, parameters)]
    moved: list[Moved] = []
    if old:
        effective_from = await _effective_from(conn)
        await plan_rows.close(conn, tenant_id, old, effective_from, now)
        moved = await plan_versions.moves(conn, tenant_id, old, effective_from)
        await plan_versions.record(conn, tenant_id, [plan.task_uid for plan in old], moved, now)
        plans = [plan.follow(effective_from) for plan in old]
        await plan_rows.raise_generations(conn, tenant_id, plans, now)
    return Followed(len(old), moved)


async def check_margin(conn: AsyncConnection, effective_from: datetime | None) -> None:
    """Raise `MarginPassedError` if an edit that takes effect then can no longer be committed in time."""
    if effective_from is not None and await clock(conn) > effective_from - COMMIT:
        raise MarginPassedError


async def in_transaction_with_margin(
    database: Database, tenants: Iterable[UUID], work: Callable[[AsyncConnection], Awaitable[T]]
) -> T:
    """Run `work` in a transaction in which it may `register`, and commit it before its edits take effect.

    When that fails, everything is rolled back and `work` is called again with a doubled margin; so it must have
    no effect outside the transaction. Raises `DatabaseError` when even the widest margin does not do.
    """
    tenants = list(tenants)
    margin = MARGIN
    while margin <= MARGIN_MAX:
        scope = _Scope(margin)
        token = _scope.set(scope)
        try:
            async with database.transaction(tenants) as conn:
                result = await work(conn)
                await check_margin(conn, scope.earliest)
        except MarginPassedError:
            margin *= 2
        else:
            return result
        finally:
            _scope.reset(token)
    raise DatabaseError("the change took too long to be written", hint="try again when the database is less busy")
