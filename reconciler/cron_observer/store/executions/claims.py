"""Handing out due executions, and settling those that nobody gets.

A round serves all waiting workers of one tenant in one transaction. It reads what is due, lets `lifecycle.settle`
decide about every task that it touches, takes the places of exclusive tasks by ``INSERT … ON CONFLICT DO NOTHING``,
and moves only what it got. Nothing that is locked by another round is acted upon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import lifecycle
from cron_observer.lifecycle import OFFERED_FOR, Event, Reason, Run, Settlement, Trigger, Verdict, Waiting
from cron_observer.model import Overlap, Policy
from cron_observer.schedule import id_ceil, id_floor
from cron_observer.store.engine import fetch
from cron_observer.store.executions.apply import Step, write
from cron_observer.store.executions.rows import RUN_COLUMNS, SELECTED, generations, policies, to_run

#: Executions that one round looks at; what is left comes in the next one, at once.
_ROUND_MAX: Final = 1_000

#: Due slots of one task that a round looks at; the rest waits for the next one.
_BACKLOG: Final = 2_000

#: A slot of an older plan counts only up to the instant at which the newer one took effect.
_CURRENT: Final = """
(e.plan_generation IS NULL OR EXISTS (
    SELECT FROM task_plan p
    WHERE p.tenant_id = e.tenant_id AND p.task_uid = e.task_uid
      AND (p.generation = e.plan_generation OR e.nominal_at <= p.effective_from)
))
"""

#: What can still be claimed lies in the partitions of these days; see `lifecycle.OFFERED_FOR`.
_RECENT: Final = "e.id BETWEEN %(low)s AND %(high)s"

#: One index range for each queue and priority, most urgent first, so that what is not yet due costs nothing.
_DUE_IN_QUEUES: Final = f"""
SELECT {", ".join(RUN_COLUMNS)}
FROM unnest(%(queues)s::text[]) AS q (name)
CROSS JOIN generate_series(9, 0, -1) AS urgency
CROSS JOIN LATERAL (
    SELECT {SELECTED} FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.queue = q.name
      AND e.priority = urgency AND e.available_at <= %(now)s AND {_RECENT} AND {_CURRENT}
    ORDER BY e.available_at
    LIMIT %(limit)s
    FOR UPDATE OF e SKIP LOCKED
) AS due
LIMIT %(total)s
"""

_DUE_OF_TASKS: Final = f"""
SELECT {SELECTED}
FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.task_uid = ANY (%(uids)s::uuid[])
  AND e.available_at <= %(now)s AND {_RECENT} AND {_CURRENT}
ORDER BY e.priority DESC, e.available_at
LIMIT %(limit)s
FOR UPDATE OF e SKIP LOCKED
"""

#: Without a lock: the whole backlog decides which slot is the newest, whoever holds it at the moment.
_BACKLOG_OF_TASKS: Final = f"""
SELECT e.task_uid, e.id, e.fire_at, e.start_deadline, e.trigger, e.forced
FROM unnest(%(uids)s::uuid[]) AS wanted (task_uid)
CROSS JOIN LATERAL (
    SELECT * FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.task_uid = wanted.task_uid AND e.status = 'PENDING'
      AND e.fence = 0 AND e.available_at <= %(now)s AND {_CURRENT}
    ORDER BY e.available_at DESC
    LIMIT %(limit)s
) AS e
"""

_ACTIVE: Final = """
SELECT r.scope, r.execution_id FROM active_runs r
WHERE r.tenant_id = %(tenant)s AND r.scope = ANY (%(scopes)s::text[])
"""

_TAKE_PLACES: Final = """
INSERT INTO active_runs (tenant_id, scope, n, execution_id, since)
SELECT %(tenant)s, v.scope, 0, v.execution_id, %(now)s
FROM unnest(%(scopes)s::text[], %(ids)s::uuid[]) AS v (scope, execution_id)
ON CONFLICT DO NOTHING
RETURNING execution_id
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
WHERE e.tenant_id = %(tenant)s AND e.status = 'RUNNING' AND e.check_at <= %(now)s
ORDER BY e.check_at
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

#: Waiting retries past their start deadline; slots that were never claimed are settled with their task.
_DEADLINES: Final = f"""
SELECT {SELECTED} FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.fence > 0
  AND e.start_deadline <= %(now)s
ORDER BY e.id
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

_BACKLOGGED: Final = f"""
SELECT e.task_uid
FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.fence = 0 AND e.available_at <= %(now)s
  AND e.task_uid > %(after)s AND {_CURRENT}
GROUP BY e.task_uid
ORDER BY e.task_uid
LIMIT %(limit)s
"""

_NEXT_DUE: Final = f"""
SELECT min(next_at) FROM unnest(%(queues)s::text[]) AS q (name)
CROSS JOIN generate_series(0, 9) AS urgency
CROSS JOIN LATERAL (
    SELECT e.available_at AS next_at FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.queue = q.name
      AND e.priority = urgency AND e.available_at > %(now)s AND {_RECENT}
    ORDER BY e.available_at LIMIT 1
) AS upcoming
"""

_NEXT_DUE_OF_TASKS: Final = f"""
SELECT min(e.available_at) FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.task_uid = ANY (%(uids)s::uuid[])
  AND e.available_at > %(now)s AND {_RECENT}
"""


def _bounds(now: datetime) -> dict[str, UUID]:
    """Return the ids between which everything lies that is or will soon be due.

    An id carries the nominal instant, which the fire time leaves by a day at most (a zone that skips a day).
    """
    day = timedelta(days=1)
    return {"low": id_floor(now - OFFERED_FOR - 2 * day), "high": id_ceil(now + 3 * day)}


def scope_of(task_uid: UUID) -> str:
    """Name the place that runs of an exclusive task compete for."""
    return f"task:{task_uid}"


@dataclass(slots=True)
class Seat:
    """One waiting worker in a round: what it takes, and what it got."""

    worker: str
    queues: Sequence[str]
    tasks: frozenset[UUID] | None  #: None = of any task
    wanted: int
    lease: timedelta
    any_queue: bool = False  #: with `tasks`: of whatever queue they are
    got: list[Run] = field(default_factory=list)

    def takes(self, run: Run) -> bool:
        """Say whether this worker still has room for `run`."""
        if len(self.got) >= self.wanted:
            return False
        if self.tasks is not None and run.task_uid not in self.tasks:
            return False
        return self.any_queue or run.queue in self.queues


async def _candidates(conn: AsyncConnection, tenant_id: UUID, seats: Sequence[Seat], now: datetime) -> list[Run]:
    """Lock and return what is due for these workers, most urgent first."""
    queues = sorted({queue for seat in seats if seat.tasks is None for queue in seat.queues})
    uids = sorted({uid for seat in seats if seat.tasks is not None for uid in seat.tasks})
    # Twice as many as can be given away: some will turn out to be skipped or to wait for their task's place.
    room = min(2 * sum(seat.wanted for seat in seats) + 10, _ROUND_MAX)
    found: dict[UUID, Run] = {}
    if queues:
        parameters = {
            "tenant": tenant_id,
            "queues": queues,
            "now": now,
            "limit": room,
            "total": room * len(queues),
        }
        parameters |= _bounds(now)
        for row in await fetch(conn, _DUE_IN_QUEUES, parameters):
            run = to_run(row)
            found[run.id] = run
    if uids:
        parameters = {"tenant": tenant_id, "uids": uids, "now": now, "limit": room, **_bounds(now)}
        for row in await fetch(conn, _DUE_OF_TASKS, parameters):
            run = to_run(row)
            found[run.id] = run
    return sorted(found.values(), key=lambda run: (-run.priority, run.available_at, run.id))


async def _settlements(
    conn: AsyncConnection, tenant_id: UUID, uids: Iterable[UUID], now: datetime
) -> tuple[dict[UUID, Settlement], dict[UUID, Policy], dict[UUID, int]]:
    """Settle the due, never-claimed executions of each task; return verdicts, policies and generations by task."""
    wanted = sorted(set(uids))
    if not wanted:
        return {}, {}, {}
    known = await generations(conn, tenant_id, wanted)
    found = await policies(conn, tenant_id, [(uid, generation) for uid, (generation, _) in known.items()])
    rules = {uid: found[uid, generation] for uid, (generation, _) in known.items()}
    parameters = {"tenant": tenant_id, "uids": wanted, "now": now, "limit": _BACKLOG}
    waiting: dict[UUID, list[Waiting]] = {uid: [] for uid in wanted}
    for uid, identity, fire_at, deadline, trigger, forced in await fetch(conn, _BACKLOG_OF_TASKS, parameters):
        waiting[uid].append(
            Waiting(
                id=identity,
                fire_at=fire_at,
                start_deadline=deadline,
                slot=trigger in {Trigger.SCHEDULE, Trigger.CATCHUP},
                forced=forced,
            )
        )
    scopes = {scope_of(uid): uid for uid in wanted}
    rows = await fetch(conn, _ACTIVE, {"tenant": tenant_id, "scopes": list(scopes)})
    active = {scopes[scope] for scope, _ in rows}
    settled = {
        uid: lifecycle.settle(
            waiting[uid],
            active=uid in active,
            policy=rules.get(uid, Policy()),
            now=now,
            removed=uid not in known or known[uid][1],
        )
        for uid in wanted
    }
    return settled, rules, {uid: generation for uid, (generation, _) in known.items()}


async def _end(
    conn: AsyncConnection,
    tenant_id: UUID,
    settled: Mapping[UUID, Settlement],
    locked: Mapping[UUID, Run],
    now: datetime,
) -> int:
    """Give their outcome to those that shall not run; leave what others hold to them."""
    ends = {identity: (event, reason) for one in settled.values() for identity, event, reason in one.end}
    missing = sorted(ends.keys() - locked.keys())
    held = {identity: locked[identity] for identity in ends.keys() & locked.keys()}
    if missing:
        rows = await fetch(conn, _LOCK_FREE, {"tenant": tenant_id, "ids": missing})
        held |= {run.id: run for run in map(to_run, rows)}
    steps = [Step(run, _ended(run, *ends[identity], now)) for identity, run in held.items() if run.fence == 0]
    return len(await write(conn, steps, now))


def _ended(run: Run, event: Event, reason: Reason, now: datetime) -> Verdict:
    return lifecycle.end_unclaimed(run, event, reason, now)


async def claim_round(
    conn: AsyncConnection, tenant_id: UUID, seats: Sequence[Seat], now: datetime, *, expiring: bool = True
) -> list[Run]:
    """Give due executions to waiting workers, in the order of their arrival; fill each seat's `got`.

    Expires deadlines of the tenant first, so that dead workers are replaced while no scheduler runs (`expiring`
    False while the clock is not to be trusted). Returns all
    executions that were claimed. At most one run of an exclusive task is active, whoever else claims.
    """
    if expiring:
        await expire(conn, tenant_id, now)
    candidates = await _candidates(conn, tenant_id, seats, now)
    if not candidates:
        return []
    locked = {run.id: run for run in candidates}
    fresh = {run.task_uid for run in candidates if run.fence == 0}
    settled, rules, current = await _settlements(conn, tenant_id, fresh, now)
    await _end(conn, tenant_id, settled, locked, now)
    may_run = {identity for one in settled.values() for identity in one.run}
    pinned = await policies(
        conn, tenant_id, [(run.task_uid, run.generation) for run in candidates if run.generation is not None]
    )

    steps: list[Step] = []
    takers: dict[UUID, Seat] = {}
    for run in candidates:
        if run.fence == 0 and run.id not in may_run:
            continue
        if run.start_deadline is not None and run.start_deadline <= now:
            continue
        policy = rules[run.task_uid] if run.generation is None else pinned[run.task_uid, run.generation]
        seat = next((seat for seat in seats if seat.takes(run)), None)
        if seat is None:
            continue
        verdict = lifecycle.claim(
            run,
            policy,
            generation=current.get(run.task_uid, 0),
            worker=seat.worker,
            lease=seat.lease,
            now=now,
        )
        seat.got.append(verdict.run)
        takers[run.id] = seat
        steps.append(Step(run, verdict))
    kept = await take_places(conn, tenant_id, steps, rules, now)
    done = {identity for _, identity in await write(conn, kept, now)}
    for seat in seats:
        seat.got = [run for run in seat.got if run.id in done]
    return [step.verdict.run for step in kept if step.seen.id in done]


async def take_places(
    conn: AsyncConnection, tenant_id: UUID, steps: Sequence[Step], rules: Mapping[UUID, Policy], now: datetime
) -> list[Step]:
    """Return the claims that may go on: those of exclusive tasks only if they got, or still hold, the place."""
    exclusive = [
        step
        for step in steps
        if step.seen.fence == 0
        and not step.seen.forced
        and rules.get(step.seen.task_uid, Policy()).overlap is Overlap.SKIP
    ]
    if not exclusive:
        return list(steps)
    # In one order for everybody, so that two rounds cannot wait for each other.
    exclusive.sort(key=lambda step: scope_of(step.seen.task_uid))
    rows = await fetch(
        conn,
        _TAKE_PLACES,
        {
            "tenant": tenant_id,
            "scopes": [scope_of(step.seen.task_uid) for step in exclusive],
            "ids": [step.seen.id for step in exclusive],
            "now": now,
        },
    )
    got = {identity for (identity,) in rows}
    lost = {step.seen.id for step in exclusive} - got
    return [step for step in steps if step.seen.id not in lost]


async def next_due(conn: AsyncConnection, tenant_id: UUID, seats: Sequence[Seat], now: datetime) -> datetime | None:
    """Return the next instant at which something falls due for these workers, None if nothing is planned."""
    queues = sorted({queue for seat in seats if seat.tasks is None for queue in seat.queues})
    uids = sorted({uid for seat in seats if seat.tasks is not None for uid in seat.tasks})
    moments: list[datetime | None] = []
    if queues:
        parameters = {"tenant": tenant_id, "queues": queues, "now": now, **_bounds(now)}
        [(moment,)] = await fetch(conn, _NEXT_DUE, parameters)
        moments.append(moment)
    if uids:
        parameters = {"tenant": tenant_id, "uids": uids, "now": now, **_bounds(now)}
        [(moment,)] = await fetch(conn, _NEXT_DUE_OF_TASKS, parameters)
        moments.append(moment)
    return min((moment for moment in moments if moment is not None), default=None)


async def expire(conn: AsyncConnection, tenant_id: UUID, now: datetime, limit: int = 100) -> int:
    """Apply leases, run deadlines, start deadlines of retries and cancellation grace that have passed.

    Looks at `limit` executions of each sort at most and returns how many changed.
    """
    parameters = {"tenant": tenant_id, "now": now, "limit": limit}
    runs = [to_run(row) for row in await fetch(conn, _TO_CHECK, parameters)]
    runs += [to_run(row) for row in await fetch(conn, _DEADLINES, parameters)]
    if not runs:
        return 0
    wanted = [(run.task_uid, run.generation) for run in runs if run.generation is not None]
    rules = await policies(conn, tenant_id, wanted)
    steps = [
        Step(run, lifecycle.expire(run, rules.get((run.task_uid, run.generation or 0), Policy()), now)) for run in runs
    ]
    changed = [step for step in steps if step.verdict.run != step.seen]
    return len(await write(conn, changed, now))


async def settle_waiting(
    conn: AsyncConnection, tenant_id: UUID, now: datetime, after: UUID | None, limit: int = 200
) -> tuple[int, UUID | None]:
    """Give an outcome to due slots that shall not run, task by task, with no worker asking.

    Goes through at most `limit` tasks with a uid above `after`. Returns how many executions ended and the uid to
    go on from, None when it came to the end.
    """
    parameters = {"tenant": tenant_id, "now": now, "after": after or UUID(int=0), "limit": limit}
    uids = [uid for (uid,) in await fetch(conn, _BACKLOGGED, parameters)]
    settled, _, _ = await _settlements(conn, tenant_id, uids, now)
    ended = await _end(conn, tenant_id, settled, {}, now)
    return ended, uids[-1] if len(uids) == limit else None
