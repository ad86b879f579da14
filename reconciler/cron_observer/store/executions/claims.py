"""Handing out due executions.

A round serves all waiting workers of one tenant in one transaction. It reads what is due, lets `lifecycle.settle`
decide about every task that it touches, takes the places of exclusive tasks by ``INSERT … ON CONFLICT DO NOTHING``,
and moves only what it got. Nothing that is locked by another round is acted upon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import lifecycle
from cron_observer.lifecycle import Event, Reason, Run
from cron_observer.model import Overlap, Policy
from cron_observer.store.engine import fetch
from cron_observer.store.executions.apply import Step, write
from cron_observer.store.executions.deadlines import (
    BETWEEN,
    CURRENT,
    Settled,
    due_bounds,
    end,
    expire,
    lock_free,
    scope_of,
    settlements,
)
from cron_observer.store.executions.rows import RUN_COLUMNS, SELECTED, policies, to_run

#: Executions of one queue or task that one look locks; what is left comes in the next one, at once.
_LOOK_MAX: Final = 1_000

#: Looks of one round. Each sees twice as much as the one before, so that what only stands in the way (slots that
#: are skipped as soon as they are looked at) hides what can be claimed from nobody.
_LOOKS: Final = 8

#: One index range for each queue and priority, most urgent first, so that what is not yet due costs nothing.
_DUE_IN_QUEUES: Final = f"""
SELECT {", ".join(f"due.{column}" for column in RUN_COLUMNS)}
FROM unnest(%(queues)s::text[]) AS q (name)
CROSS JOIN LATERAL (
    SELECT ready.*
    FROM generate_series(9, 0, -1) AS urgency
    CROSS JOIN LATERAL (
        SELECT {SELECTED} FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.queue = q.name
          AND e.priority = urgency AND e.available_at <= %(now)s AND {BETWEEN} AND {CURRENT}
        ORDER BY e.available_at
        LIMIT %(limit)s
        FOR UPDATE OF e SKIP LOCKED
    ) AS ready
    LIMIT %(limit)s
) AS due
"""

#: A range for each task, so that the backlog of one does not hide another; NULL is any queue.
_DUE_OF_TASKS: Final = f"""
SELECT {", ".join(f"due.{column}" for column in RUN_COLUMNS)}
FROM unnest(%(uids)s::uuid[], %(queues)s::text[]) AS wanted (task_uid, queue)
CROSS JOIN LATERAL (
    SELECT {SELECTED} FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.task_uid = wanted.task_uid
      AND (wanted.queue IS NULL OR e.queue = wanted.queue)
      AND e.available_at <= %(now)s AND {BETWEEN} AND {CURRENT}
    ORDER BY e.available_at
    LIMIT %(limit)s
    FOR UPDATE OF e SKIP LOCKED
) AS due
"""

#: A run that was claimed before may hold its place still.
_TAKE_PLACES: Final = """
WITH wanted AS (
    SELECT v.scope, v.execution_id FROM unnest(%(scopes)s::text[], %(ids)s::uuid[]) AS v (scope, execution_id)
), taken AS (
    INSERT INTO active_runs (tenant_id, scope, n, execution_id, since)
    SELECT %(tenant)s, w.scope, 0, w.execution_id, %(now)s FROM wanted w
    ON CONFLICT DO NOTHING
    RETURNING execution_id
)
SELECT t.execution_id FROM taken t
UNION ALL
SELECT r.execution_id FROM active_runs r JOIN wanted w ON w.scope = r.scope AND w.execution_id = r.execution_id
WHERE r.tenant_id = %(tenant)s
"""

_NEXT_DUE: Final = f"""
SELECT min(next_at) FROM unnest(%(queues)s::text[]) AS q (name)
CROSS JOIN generate_series(0, 9) AS urgency
CROSS JOIN LATERAL (
    SELECT e.available_at AS next_at FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.queue = q.name
      AND e.priority = urgency AND e.available_at > %(now)s AND {BETWEEN}
    ORDER BY e.available_at LIMIT 1
) AS upcoming
"""

_NEXT_DUE_OF_TASKS: Final = f"""
SELECT min(next_at) FROM unnest(%(uids)s::uuid[]) AS wanted (task_uid)
CROSS JOIN LATERAL (
    SELECT e.available_at AS next_at FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.task_uid = wanted.task_uid
      AND e.available_at > %(now)s AND {BETWEEN}
    ORDER BY e.available_at LIMIT 1
) AS upcoming
"""


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
    more: bool = False  #: the round ended before it had seen everything that is due

    @property
    def room(self) -> int:
        """How many executions it still takes."""
        return self.wanted - len(self.got)

    def takes(self, run: Run) -> bool:
        """Say whether this worker would take `run`."""
        if self.tasks is not None and run.task_uid not in self.tasks:
            return False
        return self.any_queue or run.queue in self.queues

    def ranges(self) -> Iterator[tuple[UUID, str | None]]:
        """Yield the tasks that it is bound to, each with a queue or None for any."""
        for uid in self.tasks or ():
            if self.any_queue:
                yield uid, None
            else:
                yield from ((uid, queue) for queue in self.queues)


def _queues(seats: Sequence[Seat]) -> list[str]:
    return sorted({queue for seat in seats if seat.tasks is None for queue in seat.queues})


async def _candidates(
    conn: AsyncConnection, tenant_id: UUID, seats: Sequence[Seat], now: datetime, look: int
) -> dict[UUID, Run]:
    """Lock and return what is due for these workers."""
    queues = _queues(seats)
    ranges = sorted({one for seat in seats for one in seat.ranges()}, key=str)
    # Twice as many as can be given away: some will turn out to be skipped or to wait for their task's place.
    room = min((2 * sum(seat.room for seat in seats) + 10) << look, _LOOK_MAX)
    parameters = {"tenant": tenant_id, "now": now, "limit": room, **due_bounds(now)}
    rows = []
    if queues:
        rows += await fetch(conn, _DUE_IN_QUEUES, {**parameters, "queues": queues})
    if ranges:
        pairs = {"uids": [uid for uid, _ in ranges], "queues": [queue for _, queue in ranges]}
        rows += await fetch(conn, _DUE_OF_TASKS, {**parameters, **pairs})
    return {run.id: run for run in map(to_run, rows)}


async def claim_round(
    conn: AsyncConnection, tenant_id: UUID, seats: Sequence[Seat], now: datetime, *, expiring: bool = True
) -> list[Run]:
    """Give due executions to waiting workers, in the order of their arrival; fill each seat's `got`.

    Expires deadlines of the tenant first, so that dead workers are replaced while no scheduler runs (`expiring`
    False while the clock is not to be trusted). Returns all executions that were claimed. At most one run of an
    exclusive task is active, whoever else claims. A seat's `more` says that another round at once is worth while.
    """
    if expiring:
        await expire(conn, tenant_id, now, recent=True)
    given: list[Run] = []
    waiting = [seat for seat in seats if seat.room > 0]
    for look in range(_LOOKS):
        got, ended = await _hand_out(conn, tenant_id, waiting, now, look)
        given += got
        waiting = [seat for seat in waiting if seat.room > 0]
        for seat in waiting:
            seat.more = ended > 0
        if not ended or not waiting:
            break
    return given


async def _hand_out(
    conn: AsyncConnection, tenant_id: UUID, seats: Sequence[Seat], now: datetime, look: int
) -> tuple[list[Run], int]:
    """Look once at what is due; return what was claimed, and how many others were ended instead."""
    locked = await _candidates(conn, tenant_id, seats, now, look)
    if not locked:
        return [], 0
    bounds = due_bounds(now)
    settled = await settlements(conn, tenant_id, {run.task_uid for run in locked.values()}, now, bounds)
    ended = await end(conn, tenant_id, settled, locked, now)
    may_run = {identity for one in settled.verdicts.values() for identity in one.run}
    # Of a long backlog it is the newest slot that may run, and the oldest ones that were found.
    behind = sorted(may_run - locked.keys(), reverse=True)[: sum(seat.room for seat in seats)]
    locked |= await lock_free(conn, tenant_id, behind)
    orphans = {run.id: run for run in locked.values() if run.fence > 0 and run.task_uid in settled.removed}
    ended += await _give_up(conn, list(orphans.values()), now)
    may_run |= {run.id for run in locked.values() if run.fence > 0} - orphans.keys()
    ready = [run for run in locked.values() if run.id in may_run]
    ready.sort(key=lambda run: (-run.priority, run.available_at, run.id))
    rules = await _rules(conn, tenant_id, ready, settled)
    chosen = _assign(ready, seats, rules, settled.generations, now)
    steps = await take_places(conn, tenant_id, [step for _, step in chosen], rules, now)
    done = {identity for _, identity in await write(conn, steps, now)}
    given = [(seat, step.verdict.run) for seat, step in chosen if step.seen.id in done]
    for seat, run in given:
        seat.got.append(run)
    return [run for _, run in given], ended


async def _give_up(conn: AsyncConnection, runs: Sequence[Run], now: datetime) -> int:
    """End what waits for another try of a task that is gone."""
    steps = [Step(run, lifecycle.give_up(run, Event.SKIPPED, Reason.TASK_DELETED, now)) for run in runs]
    return len(await write(conn, steps, now))


async def _rules(conn: AsyncConnection, tenant_id: UUID, runs: Sequence[Run], settled: Settled) -> dict[UUID, Policy]:
    """Return the policy that each execution obeys: of the definition that it pinned, else of its task as it is now."""
    keys = {run.id: (run.task_uid, run.generation) for run in runs if run.generation is not None}
    pinned = await policies(conn, tenant_id, keys.values())
    return {run.id: pinned[keys[run.id]] if run.id in keys else settled.rules[run.task_uid] for run in runs}


def _assign(
    ready: Sequence[Run],
    seats: Sequence[Seat],
    rules: Mapping[UUID, Policy],
    generations: Mapping[UUID, int],
    now: datetime,
) -> list[tuple[Seat, Step]]:
    """Choose a worker for each execution, as far as there are workers; who has waited longest chooses first."""
    chosen: list[tuple[Seat, Step]] = []
    room = {id(seat): seat.room for seat in seats}
    waiting = list(seats)
    for run in ready:
        if not waiting:
            break
        if run.start_deadline is not None and run.start_deadline <= now:
            continue
        seat = next((seat for seat in waiting if seat.takes(run)), None)
        if seat is None:
            continue
        verdict = lifecycle.claim(
            run,
            rules[run.id],
            generation=generations.get(run.task_uid, 0),
            worker=seat.worker,
            lease=seat.lease,
            now=now,
        )
        chosen.append((seat, Step(run, verdict)))
        room[id(seat)] -= 1
        if not room[id(seat)]:
            waiting.remove(seat)
    return chosen


async def take_places(
    conn: AsyncConnection, tenant_id: UUID, steps: Sequence[Step], rules: Mapping[UUID, Policy], now: datetime
) -> list[Step]:
    """Return the claims that may go on: those of exclusive tasks only if they got, or still hold, the place.

    `rules` has the policy of each execution by its id.
    """
    exclusive = [step for step in steps if not step.seen.forced and rules[step.seen.id].overlap is Overlap.SKIP]
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
    queues = _queues(seats)
    uids = sorted({uid for seat in seats for uid in seat.tasks or ()})
    parameters = {"tenant": tenant_id, "now": now, **due_bounds(now)}
    moments: list[datetime | None] = []
    if queues:
        [(moment,)] = await fetch(conn, _NEXT_DUE, {**parameters, "queues": queues})
        moments.append(moment)
    if uids:
        [(moment,)] = await fetch(conn, _NEXT_DUE_OF_TASKS, {**parameters, "uids": uids})
        moments.append(moment)
    return min((moment for moment in moments if moment is not None), default=None)
