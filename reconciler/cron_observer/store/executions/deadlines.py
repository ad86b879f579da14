"""What time does to executions that nobody reports on: deadlines that pass, due slots that shall not run.

Claim rounds use it on the tenants they serve, so that tasks go on firing while no scheduler runs; the scheduler uses
it on everybody. Nothing that is locked elsewhere is waited for, or acted upon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import lifecycle
from cron_observer.lifecycle import Run, Verdict
from cron_observer.model import Policy
from cron_observer.store.engine import fetch
from cron_observer.store.executions.apply import Step, write
from cron_observer.store.executions.bounds import BETWEEN, CURRENT, EVERYWHERE, running_bounds
from cron_observer.store.executions.rows import SELECTED, policies, to_run
from cron_observer.store.executions.settling import ask_to_stop, end, hold, settlements, to_hold

#: The silence of check-ins is judged elsewhere (checkin_judging): it may have been us who did not hear.
_TO_CHECK: Final = f"""
SELECT {SELECTED} FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.status = 'RUNNING' AND e.check_at <= %(now)s AND e.queue <> '@checkin'
  AND {BETWEEN}
ORDER BY e.check_at
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

#: Looks of one round, each at twice as many: what is only to be looked at again may be thousands.
_LOOKS: Final = 8

#: Waiting retries past their start deadline; slots that were never claimed are settled with their task.
_DEADLINES: Final = f"""
SELECT {SELECTED} FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.fence > 0
  AND e.start_deadline <= %(now)s AND {BETWEEN}
ORDER BY e.start_deadline
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

#: From one queue to the next along the index of claims, so that what is not yet due costs nothing; then from one
#: task to the next of those with something held.
_BACKLOGGED: Final = f"""
WITH RECURSIVE queues (name) AS (
    (
        SELECT e.queue FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.held_at IS NULL AND {BETWEEN}
        ORDER BY e.queue LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT e.queue FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.held_at IS NULL AND {BETWEEN}
          AND e.queue > q.name
        ORDER BY e.queue LIMIT 1
    )
    FROM queues q WHERE q.name IS NOT NULL
), held (uid, n) AS (
    (
        SELECT e.task_uid, 1 FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.held_at IS NOT NULL
          AND e.task_uid > %(after)s AND {BETWEEN}
        ORDER BY e.task_uid LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT e.task_uid FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.held_at IS NOT NULL
          AND e.task_uid > h.uid AND {BETWEEN}
        ORDER BY e.task_uid LIMIT 1
    ), h.n + 1
    FROM held h WHERE h.uid IS NOT NULL AND h.n < %(limit)s
)
SELECT due.task_uid
FROM queues AS q
CROSS JOIN generate_series(0, 9) AS urgency
CROSS JOIN LATERAL (
    SELECT e.task_uid FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.held_at IS NULL AND e.queue = q.name
      AND e.priority = urgency AND e.available_at <= %(now)s AND e.fence = 0 AND e.task_uid > %(after)s
      AND q.name <> '@checkin' AND {BETWEEN} AND {CURRENT}
) AS due
UNION
SELECT h.uid FROM held h WHERE h.uid IS NOT NULL
ORDER BY task_uid
LIMIT %(limit)s
"""

#: More due slots than this, and they are gone through task by task along their index, so that a round costs what it
#: settles and not what is due.
_MANY: Final = 5_000

_DUE: Final = f"""
SELECT count(*) FROM (
    SELECT FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.available_at <= %(now)s AND {BETWEEN}
    LIMIT %(many)s
) AS due
"""

_BACKLOGGED_MANY: Final = f"""
WITH RECURSIVE tasks (uid, n) AS (
    (
        SELECT e.task_uid, 1 FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.available_at <= %(now)s AND e.fence = 0
          AND e.queue <> '@checkin' AND e.task_uid > %(after)s AND {BETWEEN}
        ORDER BY e.task_uid LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT e.task_uid FROM executions e
        WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.available_at <= %(now)s AND e.fence = 0
          AND e.queue <> '@checkin' AND e.task_uid > t.uid AND {BETWEEN}
        ORDER BY e.task_uid LIMIT 1
    ), t.n + 1
    FROM tasks t WHERE t.uid IS NOT NULL AND t.n < %(limit)s
)
SELECT t.uid FROM tasks t WHERE t.uid IS NOT NULL
"""

_STANDING: Final = f"""
SELECT e.id FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.id = ANY (%(ids)s::uuid[]) AND {CURRENT}
"""


async def standing(conn: AsyncConnection, tenant_id: UUID, ids: Iterable[UUID]) -> set[UUID]:
    """Return which of these executions belong to a plan that is in force, or to none."""
    wanted = sorted(ids)
    return {identity for (identity,) in await fetch(conn, _STANDING, {"tenant": tenant_id, "ids": wanted})}


async def expire(
    conn: AsyncConnection, tenant_id: UUID, now: datetime, limit: int = 100, *, recent: bool = False
) -> int:
    """Apply leases, run deadlines, start deadlines of retries and cancellation grace that have passed.

    Looks at `limit` executions of each sort at a time and returns how many changed. What was only to be looked at
    again, because its lease has been renewed, hides nothing: then it looks further, at twice as many. `recent` leaves
    out the partitions in which, by every rule, nothing is open any more.
    """
    changed = 0
    for look in range(_LOOKS):
        most = limit << look
        seen, ended, moved = await _expire_some(conn, tenant_id, now, most, recent=recent)
        changed += moved
        if ended or seen < most:
            break
    return changed


async def _expire_some(
    conn: AsyncConnection, tenant_id: UUID, now: datetime, limit: int, *, recent: bool
) -> tuple[int, bool, int]:
    """Look once; return how many executions were seen, whether a deadline of one had passed, how many changed."""
    parameters = {"tenant": tenant_id, "now": now, "limit": limit, **(running_bounds(now) if recent else EVERYWHERE)}
    runs = [to_run(row) for row in await fetch(conn, _TO_CHECK, parameters)]
    runs += [to_run(row) for row in await fetch(conn, _DEADLINES, parameters)]
    if not runs:
        return 0, False, 0
    wanted = [(run.task_uid, run.generation) for run in runs if run.generation is not None]
    rules = await policies(conn, tenant_id, wanted)
    steps = [Step(run, _expired(run, rules, now)) for run in runs]
    changed = [step for step in steps if step.verdict.run != step.seen]
    ended = any(step.verdict.event is not None for step in changed)
    return len(runs), ended, len(await write(conn, changed, now))


def _expired(run: Run, rules: Mapping[tuple[UUID, int], Policy], now: datetime) -> Verdict:
    return lifecycle.expire(run, rules.get((run.task_uid, run.generation or 0), Policy()), now)


async def settle_waiting(
    conn: AsyncConnection, tenant_id: UUID, now: datetime, after: UUID | None, limit: int = 200
) -> tuple[int, UUID | None]:
    """Give an outcome to due slots that shall not run, task by task, with no worker asking.

    Goes through at most `limit` tasks with a uid above `after`. Returns how many executions ended and the uid to
    go on from, None when it came to the end.
    """
    parameters = {"tenant": tenant_id, "now": now, "after": after or UUID(int=0), "limit": limit, **EVERYWHERE}
    [(due,)] = await fetch(conn, _DUE, {**parameters, "many": _MANY})
    statement = _BACKLOGGED_MANY if due >= _MANY else _BACKLOGGED
    uids = [uid for (uid,) in await fetch(conn, statement, parameters)]
    settled = await settlements(conn, tenant_id, uids, now)
    ended = await end(conn, tenant_id, settled, {}, now)
    await hold(conn, tenant_id, to_hold(settled), now)
    await ask_to_stop(conn, tenant_id, settled, now)
    return ended, uids[-1] if len(uids) == limit else None
