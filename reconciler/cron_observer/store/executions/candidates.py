"""What a round of claims may look at: workers that wait, and what is due for them.

What waits for a place that is taken is out of the way of all else: it is found by its task, once that has a place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.lifecycle import REPLACING, Run
from cron_observer.model import RESERVED_PREFIX, Overlap
from cron_observer.store.engine import fetch
from cron_observer.store.executions.apply import Rest
from cron_observer.store.executions.bounds import BETWEEN, CURRENT, due_bounds
from cron_observer.store.executions.places import Need, Places
from cron_observer.store.executions.rows import RUN_COLUMNS, SELECTED, policies, task_rows, to_run

#: Executions of one queue or task that one look locks; what is left comes in the next one, at once.
LOOK_MAX: Final = 1_000

#: Tasks with something held that one look goes through; with more of them each look begins elsewhere.
_HELD_TASKS: Final = 500

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
          AND e.priority = urgency AND e.held_at IS NULL AND e.available_at <= %(now)s
          AND e.task_uid <> ALL (%(without)s::uuid[]) AND {BETWEEN} AND {CURRENT}
        ORDER BY e.available_at
        LIMIT %(limit)s
        FOR UPDATE OF e SKIP LOCKED
    ) AS ready
    LIMIT %(limit)s
) AS due
"""

#: A range for each task, so that the backlog of one does not hide another; NULL is any queue but the platform's.
_DUE_OF_TASKS: Final = f"""
SELECT {", ".join(f"due.{column}" for column in RUN_COLUMNS)}
FROM unnest(%(uids)s::uuid[], %(queues)s::text[]) AS wanted (task_uid, queue)
CROSS JOIN LATERAL (
    SELECT {SELECTED} FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.task_uid = wanted.task_uid
      AND (e.queue = wanted.queue OR wanted.queue IS NULL AND NOT starts_with(e.queue, %(reserved)s))
      AND e.held_at IS NULL AND e.available_at <= %(now)s AND {BETWEEN} AND {CURRENT}
    ORDER BY e.available_at
    LIMIT %(limit)s
    FOR UPDATE OF e SKIP LOCKED
) AS due
"""

#: From one task to the next along the index of what is held, so that a full buffer costs no more than one slot.
_WITH_HELD: Final = f"""
WITH RECURSIVE tasks (uid, n) AS (
    (
        SELECT e.task_uid, 1 FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.held_at IS NOT NULL
          AND e.task_uid >= %(from)s AND {BETWEEN}
        ORDER BY e.task_uid LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT e.task_uid FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.held_at IS NOT NULL
          AND e.task_uid > t.uid AND {BETWEEN}
        ORDER BY e.task_uid LIMIT 1
    ), t.n + 1
    FROM tasks t WHERE t.uid IS NOT NULL AND t.n < %(limit)s
)
SELECT t.uid FROM tasks t
WHERE t.uid IS NOT NULL AND EXISTS (
    SELECT FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.held_at IS NOT NULL AND e.task_uid = t.uid
      AND e.queue = ANY (%(queues)s::text[]) AND {BETWEEN}
)
"""

_HELD_OF_TASKS: Final = f"""
SELECT wanted.task_uid FROM unnest(%(uids)s::uuid[]) AS wanted (task_uid)
WHERE EXISTS (
    SELECT FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.held_at IS NOT NULL
      AND e.task_uid = wanted.task_uid AND {BETWEEN}
)
"""

_NEXT_DUE: Final = f"""
SELECT min(next_at) FROM unnest(%(queues)s::text[]) AS q (name)
CROSS JOIN generate_series(0, 9) AS urgency
CROSS JOIN LATERAL (
    SELECT e.available_at AS next_at FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.queue = q.name
      AND e.priority = urgency AND e.held_at IS NULL AND e.available_at > %(now)s AND {BETWEEN}
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
    any_queue: bool = False  #: with `tasks`: of whatever queue they are, but for the platform's own
    without: frozenset[UUID] = frozenset()  #: tasks of which it takes none
    got: list[Run] = field(default_factory=list)
    rests: dict[UUID, Rest] = field(default_factory=dict)  #: of what it got, beside its `Run`
    more: bool = False  #: the round ended before it had seen everything that is due

    @property
    def room(self) -> int:
        """How many executions it still takes."""
        return self.wanted - len(self.got)

    def takes(self, run: Run) -> bool:
        """Say whether this worker would take `run`."""
        if run.task_uid in self.without:
            return False
        if self.tasks is not None and run.task_uid not in self.tasks:
            return False
        return run.queue in self.queues or (self.any_queue and not run.queue.startswith(RESERVED_PREFIX))

    def ranges(self) -> Iterator[tuple[UUID, str | None]]:
        """Yield the tasks that it is bound to, each with a queue or None for any."""
        for uid in self.tasks or ():
            if self.any_queue:
                yield uid, None
            else:
                yield from ((uid, queue) for queue in self.queues)


def _queues(seats: Sequence[Seat]) -> list[str]:
    return sorted({queue for seat in seats if seat.tasks is None for queue in seat.queues})


async def candidates(
    conn: AsyncConnection, tenant_id: UUID, seats: Sequence[Seat], now: datetime, look: int, *, beyond: bool = True
) -> dict[UUID, Run]:
    """Lock and return what is due for these workers and does not wait for a place.

    With `beyond` also what stands behind all that, of other tasks: a backlog must not hide them. That costs as much
    as there is in the way.
    """
    queues = _queues(seats)
    ranges = sorted({one for seat in seats for one in seat.ranges()}, key=str)
    # Twice as many as can be given away: some will turn out to be skipped or to wait for their task's place.
    room = min((2 * sum(seat.room for seat in seats) + 10) << look, LOOK_MAX)
    parameters = {"tenant": tenant_id, "now": now, "limit": room, **due_bounds(now)}
    rows = []
    if queues:
        refused = frozenset.intersection(*(seat.without for seat in seats if seat.tasks is None))
        chosen = {**parameters, "queues": queues}
        rows += await fetch(conn, _DUE_IN_QUEUES, {**chosen, "without": sorted(refused)})
        if beyond and len(rows) >= room:
            crowd = {to_run(row).task_uid for row in rows}
            rows += await fetch(conn, _DUE_IN_QUEUES, {**chosen, "without": sorted(refused | crowd)})
    if ranges:
        pairs = {"uids": [uid for uid, _ in ranges], "queues": [queue for _, queue in ranges]}
        rows += await fetch(conn, _DUE_OF_TASKS, {**parameters, **pairs, "reserved": RESERVED_PREFIX})
    return {run.id: run for run in map(to_run, rows)}


def _spread(now: datetime) -> UUID:
    """Return where a look begins that cannot see everything: elsewhere each second, everywhere in the end."""
    return UUID(int=int(now.timestamp()) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128))


async def unblocked(conn: AsyncConnection, tenant_id: UUID, seats: Sequence[Seat], now: datetime) -> set[UUID]:
    """Return the tasks of which something waits for a place, and that have one now."""
    uids: set[UUID] = set()
    bound = sorted({uid for seat in seats for uid in seat.tasks or ()})
    if bound:
        rows = await fetch(conn, _HELD_OF_TASKS, {"tenant": tenant_id, "uids": bound, **due_bounds(now)})
        uids |= {uid for (uid,) in rows}
    queues = _queues(seats)
    if queues:
        parameters = {"tenant": tenant_id, "queues": queues, "limit": _HELD_TASKS, **due_bounds(now)}
        rows = await fetch(conn, _WITH_HELD, {**parameters, "from": UUID(int=0)})
        if len(rows) >= _HELD_TASKS:
            rows += await fetch(conn, _WITH_HELD, {**parameters, "from": _spread(now)})
        uids |= {uid for (uid,) in rows}
    known = await task_rows(conn, tenant_id, sorted(uids))
    found = await policies(conn, tenant_id, [(uid, row.generation) for uid, row in known.items()])
    needs = {uid: Need(uid, row.project_id, found[uid, row.generation]) for uid, row in known.items()}
    places = Places(tenant_id)
    await places.learn(conn, needs.values())
    return {uid for uid, need in needs.items() if _open(need, places)}


def _open(need: Need, places: Places) -> bool:
    """Say whether something of a task could begin now."""
    active = places.active(need.task_uid)
    replaced = [one.execution_id for one in active] if need.policy.overlap is Overlap.TERMINATE_OTHER else []
    if places.full_since(need, besides=replaced) is not None:
        return False
    return need.limit is None or len(active) < need.limit or need.policy.overlap in REPLACING


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
