"""Settling on the database: what waits of some tasks, judged by `lifecycle.settle`, and what follows from that.

Nothing that is locked elsewhere is waited for, or acted upon.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import lifecycle
from cron_observer.lifecycle import Active, Run, Settlement, Trigger, Waiting
from cron_observer.model import Overlap, Pause, Policy
from cron_observer.store import pauses
from cron_observer.store.engine import fetch
from cron_observer.store.executions.apply import Step, write
from cron_observer.store.executions.bounds import BETWEEN, CURRENT, EVERYWHERE
from cron_observer.store.executions.places import Holder, Need, Places
from cron_observer.store.executions.rows import SELECTED, lock, policies, task_rows, to_run

#: Due slots of one task that settling looks at, of each sort; the rest waits for the next time. More than a buffer
#: and more than catch-up may let run.
_BACKLOG: Final = 2_000

#: Runs of a backfill that it looks at: they wait for each other, so that more of them decide nothing.
_FEW: Final = 200

#: Executions that settling ends, or marks as held, in one statement: a claim must not wait until a day's backlog is
#: put away.
_ENDS: Final = 1_000

#: Without a lock: the whole backlog decides which slot is the newest and who is first in line, whoever holds it at
#: the moment. Of what catch-up is to judge the newest count, of what waits in a buffer the oldest.
_BACKLOG_OF_TASKS: Final = f"""
SELECT e.task_uid, e.id, e.fire_at, e.available_at, e.start_deadline, e.closes_at, e.trigger, e.held_at, e.forced
FROM unnest(%(uids)s::uuid[]) AS wanted (task_uid)
CROSS JOIN LATERAL (
    (
        SELECT * FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.task_uid = wanted.task_uid AND e.status = 'PENDING' AND e.fence = 0
          AND e.held_at IS NULL AND e.available_at <= %(now)s AND {BETWEEN} AND {CURRENT}
        ORDER BY e.available_at DESC
        LIMIT %(limit)s
    ) UNION ALL (
        SELECT * FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.task_uid = wanted.task_uid AND e.status = 'PENDING' AND e.fence = 0
          AND e.held_at IS NOT NULL AND e.backfill_id IS NULL
          AND e.available_at <= %(now)s AND {BETWEEN} AND {CURRENT}
        ORDER BY e.backfill_id, e.available_at
        LIMIT %(limit)s
    ) UNION ALL (
        SELECT * FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.task_uid = wanted.task_uid AND e.status = 'PENDING' AND e.fence = 0
          AND e.held_at IS NOT NULL AND e.backfill_id IS NOT NULL AND e.available_at <= %(now)s AND {BETWEEN}
        ORDER BY e.backfill_id, e.available_at
        LIMIT %(few)s
    )
) AS e
"""

#: The same where nothing is held, or was not a moment ago: a third of the work to plan it.
_BACKLOG_WITHOUT_HELD: Final = f"""
SELECT e.task_uid, e.id, e.fire_at, e.available_at, e.start_deadline, e.closes_at, e.trigger, e.held_at, e.forced
FROM unnest(%(uids)s::uuid[]) AS wanted (task_uid)
CROSS JOIN LATERAL (
    SELECT * FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.task_uid = wanted.task_uid AND e.status = 'PENDING' AND e.fence = 0
      AND e.available_at <= %(now)s AND {BETWEEN} AND {CURRENT}
    ORDER BY e.available_at DESC
    LIMIT %(limit)s
) AS e
"""

_ANYTHING_HELD: Final = f"""
SELECT 1 FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.held_at IS NOT NULL AND {BETWEEN}
LIMIT 1
"""

_HOLDERS: Final = f"""
SELECT e.id, e.fire_at, e.cancel_requested_at IS NOT NULL FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.id = ANY (%(ids)s::uuid[]) AND {BETWEEN}
"""

#: Slots are made for history only, so an id that is locked elsewhere is somebody else's to settle.
_LOCK_FREE: Final = f"""
SELECT {SELECTED} FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.id = ANY (%(ids)s::uuid[]) AND e.status = 'PENDING' AND e.fence = 0
ORDER BY e.id
FOR UPDATE SKIP LOCKED
"""

#: What waits for another try is not held: it has its places, but for the rare one that began without.
_HOLD: Final = f"""
WITH free AS (
    SELECT e.id FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.id = ANY (%(ids)s::uuid[]) AND e.status = 'PENDING'
      AND e.fence = 0 AND e.held_at IS NULL AND {BETWEEN}
    ORDER BY e.id
    FOR UPDATE SKIP LOCKED
)
UPDATE executions e SET held_at = %(now)s
FROM free f
WHERE e.tenant_id = %(tenant)s AND e.id = f.id AND {BETWEEN}
RETURNING e.id
"""


@dataclass(frozen=True, slots=True)
class Settled:
    """What is to be known of some tasks: verdicts on what waits, what they are now, who is gone or paused."""

    verdicts: Mapping[UUID, Settlement]
    rules: Mapping[UUID, Policy]
    generations: Mapping[UUID, int]
    removed: frozenset[UUID]
    paused: Mapping[UUID, Pause]
    places: Places
    held: frozenset[UUID] = frozenset()  #: what is marked already

    def stops(self, overlap: Overlap) -> dict[UUID, UUID]:
        """Return the executions that make room under this policy, each with the slot that wants its place."""
        return {
            one: slot
            for uid, verdict in self.verdicts.items()
            if uid in self.rules and self.rules[uid].overlap is overlap
            for one, slot in verdict.stop
        }


async def settlements(
    conn: AsyncConnection,
    tenant_id: UUID,
    uids: Iterable[UUID],
    now: datetime,
    bounds: Mapping[str, UUID] = EVERYWHERE,
    *,
    seen: Iterable[Run] = (),
    held: bool | None = None,
    claiming: bool = False,
) -> Settled:
    """Settle the due, never-claimed executions of each task; those that were `seen` whatever else there is.

    `held` says whether anything is held just now, if that is known. With `claiming` nothing else is looked at of
    tasks whose executions do not decide about each other.
    """
    wanted = sorted(set(uids))
    places = Places(tenant_id)
    if not wanted:
        return Settled({}, {}, {}, frozenset(), {}, places)
    known = await task_rows(conn, tenant_id, wanted)
    removed = frozenset(uid for uid in wanted if uid not in known or known[uid].removed)
    current = {uid: row.generation for uid, row in known.items()}
    found = await policies(conn, tenant_id, current.items())
    rules = {uid: found[uid, generation] for uid, generation in current.items()}
    needs = {uid: Need(uid, row.project_id, rules[uid]) for uid, row in known.items()}
    await places.learn(conn, needs.values())
    paused = await pauses.in_force(conn, tenant_id, wanted, now)
    if held is None:
        held = await anything_held(conn, tenant_id, bounds)
    alone = {uid for uid, policy in rules.items() if claiming and not held and lifecycle.judged_alone(policy)}
    together = [uid for uid in wanted if uid not in alone]
    parameters = {"tenant": tenant_id, "uids": together, "now": now, "limit": _BACKLOG, "few": _FEW, **bounds}
    statement = _BACKLOG_OF_TASKS if held else _BACKLOG_WITHOUT_HELD
    waiting = _waiting(wanted, await fetch(conn, statement, parameters) if together else [], seen)
    active = await _active(conn, tenant_id, needs, places, bounds)
    verdicts = {}
    for uid in wanted:
        need = needs.get(uid)
        since = None if need is None else _group_since(need, places, active[uid])
        verdicts[uid] = lifecycle.settle(
            waiting[uid],
            active=active.get(uid, ()),
            policy=Policy() if need is None else need.policy,
            now=now,
            removed=uid in removed,
            paused=paused.get(uid),
            group_full=since is not None,
            group_since=since,
        )
    marked = frozenset(one.id for some in waiting.values() for one in some if one.held)
    return Settled(verdicts, rules, current, removed, paused, places, marked)


async def anything_held(conn: AsyncConnection, tenant_id: UUID, bounds: Mapping[str, UUID]) -> bool:
    """Say whether anything of the tenant waits for a place."""
    return bool(await fetch(conn, _ANYTHING_HELD, {"tenant": tenant_id, **bounds}))


def _group_since(need: Need, places: Places, active: Sequence[Active]) -> datetime | None:
    """Return since when its group is full; what a newer slot replaces at once makes room there too."""
    replaced = [one.id for one in active] if need.policy.overlap is Overlap.TERMINATE_OTHER else []
    return places.full_since(need, besides=replaced)


def _waiting(uids: Iterable[UUID], rows: Iterable[Any], seen: Iterable[Run]) -> dict[UUID, list[Waiting]]:
    """Return what waits of each task, and was never claimed."""
    waiting: dict[UUID, dict[UUID, Waiting]] = {uid: {} for uid in uids}
    for uid, identity, fire_at, available_at, deadline, closes_at, trigger, held_at, forced in rows:
        waiting[uid][identity] = Waiting(
            id=identity,
            fire_at=fire_at,
            available_at=available_at,
            start_deadline=deadline,
            closes_at=closes_at,
            slot=Trigger(trigger) in lifecycle.SLOTS,
            repeat=trigger == Trigger.CATCHUP,
            held=held_at is not None,
            forced=forced,
        )
    for run in seen:
        if run.fence == 0:
            waiting[run.task_uid].setdefault(run.id, Waiting.of(run))
    return {uid: list(found.values()) for uid, found in waiting.items()}


async def _active(
    conn: AsyncConnection, tenant_id: UUID, needs: Mapping[UUID, Need], places: Places, bounds: Mapping[str, UUID]
) -> dict[UUID, list[Active]]:
    """Return who holds places of each task; of those that a newer slot replaces, with what decides about that."""
    holders: dict[UUID, list[Holder]] = {uid: places.active(uid) for uid in needs}
    replaced = [
        one.execution_id
        for uid, need in needs.items()
        if need.policy.overlap in lifecycle.REPLACING
        for one in holders[uid]
    ]
    found: dict[UUID, tuple[datetime, bool]] = {}
    if replaced:
        parameters = {"tenant": tenant_id, "ids": sorted(replaced), **bounds}
        found = {one: (fire_at, asked) for one, fire_at, asked in await fetch(conn, _HOLDERS, parameters)}
    active: dict[UUID, list[Active]] = {}
    for uid, some in holders.items():
        active[uid] = []
        for one in some:
            fire_at, asked = found.get(one.execution_id, (one.since, False))
            active[uid].append(Active(id=one.execution_id, since=one.since, fire_at=fire_at, asked=asked))
    return active


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


async def hold(conn: AsyncConnection, tenant_id: UUID, ids: Iterable[UUID], now: datetime) -> int:
    """Mark what waits for a place that is taken, so that catch-up does not judge it; return how many are new."""
    wanted = heapq.nsmallest(_ENDS, set(ids))
    if not wanted:
        return 0
    parameters = {"tenant": tenant_id, "ids": wanted, "now": now, "low": wanted[0], "high": wanted[-1]}
    return len(await fetch(conn, _HOLD, parameters))


def to_hold(settled: Settled) -> list[UUID]:
    """Return what waits for a place and is not marked yet."""
    every = (identity for settlement in settled.verdicts.values() for identity in settlement.hold)
    return [identity for identity in every if identity not in settled.held]


async def ask_to_stop(
    conn: AsyncConnection, tenant_id: UUID, settled: Settled, now: datetime, *, besides: Collection[UUID] = ()
) -> int:
    """Ask what runs beside a newer slot to stop, where the task says so; return how many were asked."""
    stops = {one: slot for one, slot in settled.stops(Overlap.CANCEL_OTHER).items() if one not in besides}
    if not stops:
        return 0
    runs = (await lock(conn, tenant_id, stops)).runs
    steps = [Step(run, lifecycle.make_room(run, stops[run.id], now)) for run in runs.values() if _open(run)]
    return len(await write(conn, [step for step in steps if step.verdict.run != step.seen], now))


def _open(run: Run) -> bool:
    return run.status in lifecycle.OPEN
