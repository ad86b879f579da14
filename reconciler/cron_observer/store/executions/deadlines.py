"""What time does to executions that nobody reports on: deadlines that pass, due slots that shall not run.

Claim rounds use it on the tenants they serve, so that tasks go on firing while no scheduler runs; the scheduler uses
it on everybody. Nothing that is locked elsewhere is waited for, or acted upon.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import lifecycle
from cron_observer.lifecycle import OFFERED_FOR, Run, Settlement, Trigger, Verdict, Waiting
from cron_observer.model import Policy
from cron_observer.schedule import id_ceil, id_floor
from cron_observer.store.engine import fetch
from cron_observer.store.executions.apply import Step, write
from cron_observer.store.executions.rows import SELECTED, generations, policies, to_run

#: Due slots of one task that settling looks at; the rest waits for the next time.
_BACKLOG: Final = 2_000

#: Executions that settling ends in one statement: a claim must not wait until a day's backlog is put away.
_ENDS: Final = 1_000

#: A slot of an older plan counts only up to the instant at which the newer one took effect. What was claimed once
#: belongs to no plan any more.
CURRENT: Final = """
(e.plan_generation IS NULL OR e.fence > 0 OR EXISTS (
    SELECT FROM task_plan p
    WHERE p.tenant_id = e.tenant_id AND p.task_uid = e.task_uid
      AND (p.generation = e.plan_generation OR e.nominal_at <= p.effective_from)
))
"""

#: Parameters of every statement that looks for executions by what they are, not by their ids.
BETWEEN: Final = "e.id BETWEEN %(low)s AND %(high)s"

#: Without a lock: the whole backlog decides which slot is the newest, whoever holds it at the moment.
_BACKLOG_OF_TASKS: Final = f"""
SELECT e.task_uid, e.id, e.fire_at, e.start_deadline, e.trigger, e.forced
FROM unnest(%(uids)s::uuid[]) AS wanted (task_uid)
CROSS JOIN LATERAL (
    SELECT * FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.task_uid = wanted.task_uid AND e.status = 'PENDING'
      AND e.fence = 0 AND e.available_at <= %(now)s AND {BETWEEN} AND {CURRENT}
    ORDER BY e.available_at DESC
    LIMIT %(limit)s
) AS e
"""

_ACTIVE: Final = """
SELECT r.scope, r.execution_id FROM active_runs r
WHERE r.tenant_id = %(tenant)s AND r.scope = ANY (%(scopes)s::text[])
"""

#: Slots are made for history only, so an id that is locked elsewhere is somebody else's to settle.
_LOCK_FREE: Final = f"""
SELECT {SELECTED} FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.id = ANY (%(ids)s::uuid[]) AND e.status = 'PENDING' AND e.fence = 0
ORDER BY e.id
FOR UPDATE SKIP LOCKED
"""

_TO_CHECK: Final = f"""
SELECT {SELECTED} FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.status = 'RUNNING' AND e.check_at <= %(now)s AND {BETWEEN}
ORDER BY e.check_at
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

#: Waiting retries past their start deadline; slots that were never claimed are settled with their task.
_DEADLINES: Final = f"""
SELECT {SELECTED} FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.fence > 0
  AND e.start_deadline <= %(now)s AND {BETWEEN}
ORDER BY e.start_deadline
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

#: From one queue to the next along the index of claims, so that what is not yet due costs nothing.
_BACKLOGGED: Final = f"""
WITH RECURSIVE queues (name) AS (
    (
        SELECT e.queue FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND {BETWEEN} ORDER BY e.queue LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT e.queue FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND {BETWEEN} AND e.queue > q.name
        ORDER BY e.queue LIMIT 1
    )
    FROM queues q WHERE q.name IS NOT NULL
)
SELECT DISTINCT due.task_uid
FROM queues AS q
CROSS JOIN generate_series(0, 9) AS urgency
CROSS JOIN LATERAL (
    SELECT e.task_uid FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.queue = q.name AND e.priority = urgency
      AND e.available_at <= %(now)s AND e.fence = 0 AND e.task_uid > %(after)s AND {BETWEEN} AND {CURRENT}
) AS due
ORDER BY due.task_uid
LIMIT %(limit)s
"""

_STANDING: Final = f"""
SELECT e.id FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.id = ANY (%(ids)s::uuid[]) AND {CURRENT}
"""

_DAY: Final = timedelta(days=1)

#: Longest run deadline that a spec may ask for, and a week for offers: what runs is never older than both.
_RUNS_FOR: Final = timedelta(days=7)

#: All ids there are.
_EVERYWHERE: Final = {"low": UUID(int=0), "high": UUID(int=(1 << 128) - 1)}


def due_bounds(now: datetime) -> dict[str, UUID]:
    """Return the ids between which everything lies that is or will soon be due.

    An id carries the nominal instant, which the fire time leaves by a day at most (a zone that skips a day).
    """
    return {"low": id_floor(now - OFFERED_FOR - 2 * _DAY), "high": id_ceil(now + 3 * _DAY)}


def running_bounds(now: datetime) -> dict[str, UUID]:
    """Return the ids between which everything lies that runs."""
    return {"low": id_floor(now - OFFERED_FOR - _RUNS_FOR - 2 * _DAY), "high": id_ceil(now + 2 * _DAY)}


def scope_of(task_uid: UUID) -> str:
    """Name the place that runs of an exclusive task compete for."""
    return f"task:{task_uid}"


@dataclass(frozen=True, slots=True)
class Settled:
    """What is to be known of some tasks: verdicts on what waits, current policies and generations, who is gone."""

    verdicts: Mapping[UUID, Settlement]
    rules: Mapping[UUID, Policy]
    generations: Mapping[UUID, int]
    removed: frozenset[UUID]


async def settlements(
    conn: AsyncConnection,
    tenant_id: UUID,
    uids: Iterable[UUID],
    now: datetime,
    bounds: Mapping[str, UUID] = _EVERYWHERE,
) -> Settled:
    """Settle the due, never-claimed executions of each task."""
    wanted = sorted(set(uids))
    if not wanted:
        return Settled({}, {}, {}, frozenset())
    known = await generations(conn, tenant_id, wanted)
    removed = frozenset(uid for uid in wanted if uid not in known or known[uid][1])
    current = {uid: generation for uid, (generation, _) in known.items()}
    found = await policies(conn, tenant_id, current.items())
    rules = {uid: found[uid, generation] for uid, generation in current.items()}
    waiting: dict[UUID, list[Waiting]] = {uid: [] for uid in wanted}
    parameters = {"tenant": tenant_id, "uids": wanted, "now": now, "limit": _BACKLOG, **bounds}
    for uid, identity, fire_at, deadline, trigger, forced in await fetch(conn, _BACKLOG_OF_TASKS, parameters):
        slot = Trigger(trigger) in lifecycle.SLOTS
        waiting[uid].append(Waiting(id=identity, fire_at=fire_at, start_deadline=deadline, slot=slot, forced=forced))
    scopes = {scope_of(uid): uid for uid in wanted}
    rows = await fetch(conn, _ACTIVE, {"tenant": tenant_id, "scopes": list(scopes)})
    active = {scopes[scope] for scope, _ in rows}
    verdicts = {
        uid: lifecycle.settle(
            waiting[uid], active=uid in active, policy=rules.get(uid, Policy()), now=now, removed=uid in removed
        )
        for uid in wanted
    }
    return Settled(verdicts, rules, current, removed)


async def lock_free(conn: AsyncConnection, tenant_id: UUID, ids: Iterable[UUID]) -> dict[UUID, Run]:
    """Lock those of these executions that still wait for their first claim and that nobody else holds."""
    wanted = sorted(ids)
    if not wanted:
        return {}
    rows = await fetch(conn, _LOCK_FREE, {"tenant": tenant_id, "ids": wanted})
    return {run.id: run for run in map(to_run, rows)}


async def end(
    conn: AsyncConnection,
    tenant_id: UUID,
    settled: Settled,
    locked: Mapping[UUID, Run],
    now: datetime,
    *,
    besides: Collection[UUID] = (),
) -> int:
    """Give their outcome to those that shall not run; leave what others hold to them. Return how many ended.

    Ends the oldest of them if they are very many, and leaves the others to the next time. `locked` are executions
    that this transaction holds already, `besides` those that it decides about elsewhere.
    """
    every = [one for settlement in settled.verdicts.values() for one in settlement.end if one[0] not in besides]
    ends = {identity: (event, reason) for identity, event, reason in heapq.nsmallest(_ENDS, every)}
    held = {identity: locked[identity] for identity in ends.keys() & locked.keys()}
    held |= await lock_free(conn, tenant_id, ends.keys() - locked.keys())
    steps = [
        Step(run, lifecycle.end_unclaimed(run, *ends[identity], now))
        for identity, run in held.items()
        if run.fence == 0
    ]
    return len(await write(conn, steps, now))


async def standing(conn: AsyncConnection, tenant_id: UUID, ids: Iterable[UUID]) -> set[UUID]:
    """Return which of these executions belong to a plan that is in force, or to none."""
    wanted = sorted(ids)
    return {identity for (identity,) in await fetch(conn, _STANDING, {"tenant": tenant_id, "ids": wanted})}


async def expire(
    conn: AsyncConnection, tenant_id: UUID, now: datetime, limit: int = 100, *, recent: bool = False
) -> int:
    """Apply leases, run deadlines, start deadlines of retries and cancellation grace that have passed.

    Looks at `limit` executions of each sort at most and returns how many changed. `recent` leaves out the
    partitions in which, by every rule, nothing is open any more.
    """
    parameters = {"tenant": tenant_id, "now": now, "limit": limit, **(running_bounds(now) if recent else _EVERYWHERE)}
    runs = [to_run(row) for row in await fetch(conn, _TO_CHECK, parameters)]
    runs += [to_run(row) for row in await fetch(conn, _DEADLINES, parameters)]
    if not runs:
        return 0
    wanted = [(run.task_uid, run.generation) for run in runs if run.generation is not None]
    rules = await policies(conn, tenant_id, wanted)
    steps = [Step(run, _expired(run, rules, now)) for run in runs]
    changed = [step for step in steps if step.verdict.run != step.seen]
    return len(await write(conn, changed, now))


def _expired(run: Run, rules: Mapping[tuple[UUID, int], Policy], now: datetime) -> Verdict:
    return lifecycle.expire(run, rules.get((run.task_uid, run.generation or 0), Policy()), now)


async def settle_waiting(
    conn: AsyncConnection, tenant_id: UUID, now: datetime, after: UUID | None, limit: int = 200
) -> tuple[int, UUID | None]:
    """Give an outcome to due slots that shall not run, task by task, with no worker asking.

    Goes through at most `limit` tasks with a uid above `after`. Returns how many executions ended and the uid to
    go on from, None when it came to the end.
    """
    parameters = {"tenant": tenant_id, "now": now, "after": after or UUID(int=0), "limit": limit, **_EVERYWHERE}
    uids = [uid for (uid,) in await fetch(conn, _BACKLOGGED, parameters)]
    settled = await settlements(conn, tenant_id, uids, now)
    ended = await end(conn, tenant_id, settled, {}, now)
    return ended, uids[-1] if len(uids) == limit else None
