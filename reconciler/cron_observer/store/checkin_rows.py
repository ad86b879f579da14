"""What is known of tasks that are pinged: slots about now, runs that pings have begun, and our own outages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.checkins import Known, Opened, Outage
from cron_observer.lifecycle import Run, Status
from cron_observer.store.engine import fetch
from cron_observer.store.executions.bounds import BETWEEN, CURRENT, due_bounds
from cron_observer.store.executions.rows import SELECTED, to_run

#: Waiting slots of a task that a ping may take; with more of them, the oldest are given up first.
_SLOTS: Final = 20

#: For how long an outage can matter: the longest run, and a week of grace.
OUTAGES_KEPT: Final = timedelta(days=15)

#: Without a word for longer than this, nobody receives pings. Processes say so every two seconds.
PATIENCE: Final = timedelta(seconds=10)

_LOCK_TASKS: Final = """
SELECT a.task_uid FROM ping_addresses a
WHERE a.tenant_id = %(tenant)s AND a.task_uid = ANY (%(uids)s::uuid[])
ORDER BY a.task_uid
FOR UPDATE
"""

_WAITING: Final = f"""
SELECT due.task_uid, due.id
FROM unnest(%(uids)s::uuid[], %(until)s::timestamptz[]) AS pinged (task_uid, until)
CROSS JOIN LATERAL (
    SELECT e.task_uid, e.id FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.task_uid = pinged.task_uid AND e.status = 'PENDING' AND e.fence = 0
      AND e.available_at <= pinged.until AND {BETWEEN} AND {CURRENT}
    ORDER BY e.available_at DESC
    LIMIT %(limit)s
) AS due
"""

_SAME: Final = """
SELECT c.task_uid, c.execution_id, c.rid, c.opened_at, c.closed_at IS NOT NULL
FROM unnest(%(uids)s::uuid[], %(rids)s::uuid[]) AS named (task_uid, rid)
JOIN checkins c ON c.tenant_id = %(tenant)s AND c.task_uid = named.task_uid AND c.rid = named.rid
"""

#: The newest run of each task whose end was not told, and the newest of those without a name.
_UNTOLD: Final = """
SELECT pinged.task_uid, c.execution_id, c.rid, c.opened_at, false
FROM unnest(%(uids)s::uuid[]) AS pinged (task_uid)
CROSS JOIN (VALUES (true), (false)) AS kinds (nameless)
CROSS JOIN LATERAL (
    SELECT one.execution_id, one.rid, one.opened_at FROM checkins one
    WHERE one.tenant_id = %(tenant)s AND one.task_uid = pinged.task_uid AND one.closed_at IS NULL
      AND (one.rid IS NULL OR NOT kinds.nameless)
    ORDER BY one.opened_at DESC, one.execution_id DESC
    LIMIT 1
) AS c
"""

_LAST: Final = """
SELECT pinged.task_uid, due.id
FROM unnest(%(uids)s::uuid[]) AS pinged (task_uid)
CROSS JOIN LATERAL (
    SELECT e.id FROM executions e
    WHERE e.tenant_id = %(tenant)s AND e.task_uid = pinged.task_uid AND e.fire_at <= %(now)s
    ORDER BY e.fire_at DESC, e.id DESC
    LIMIT 1
) AS due
"""

#: Held only for moments: whoever settles slots skips what is locked, and pings of a task come one after the other.
_LOCK_RUNS: Final = f"""
SELECT {SELECTED} FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.id = ANY (%(ids)s::uuid[])
ORDER BY e.id
FOR UPDATE
"""

_REMEMBER: Final = """
INSERT INTO checkins AS c (tenant_id, task_uid, execution_id, rid, opened_at, closed_at)
SELECT v.tenant_id, v.task_uid, v.execution_id, v.rid, %(now)s, CASE WHEN v.closed THEN %(now)s::timestamptz END
FROM unnest(%(tenants)s::uuid[], %(uids)s::uuid[], %(ids)s::uuid[], %(rids)s::uuid[], %(closed)s::boolean[])
    AS v (tenant_id, task_uid, execution_id, rid, closed)
ON CONFLICT (tenant_id, task_uid, execution_id) DO UPDATE SET closed_at = coalesce(c.closed_at, EXCLUDED.closed_at)
"""

_OUTAGES: Final = """
SELECT o.since, o.until FROM outages o
WHERE o.tenant_id = %(tenant)s AND o.until >= %(from)s ORDER BY o.since
"""

#: Of a tenant with check-ins: to all others it is nothing.
_DEAF: Final = """
SELECT o.since, o.until FROM outages o
WHERE o.tenant_id = %(tenant)s AND o.until >= %(from)s
  AND EXISTS (SELECT 1 FROM ping_addresses a WHERE a.tenant_id = %(tenant)s)
ORDER BY o.since DESC
"""

_RECEIVED: Final = "SELECT r.until FROM receiving r WHERE r.tenant_id = %(tenant)s"

_RECEIVE: Final = "SELECT receive_pings(%(now)s, %(patience)s * interval '1 second', %(audit)s::uuid)"

_SWEEP: Final = """
DELETE FROM checkins c
USING (
    SELECT old.task_uid, old.execution_id FROM checkins old
    WHERE old.tenant_id = %(tenant)s AND old.opened_at < %(before)s ORDER BY old.opened_at LIMIT %(limit)s
) AS old
WHERE c.tenant_id = %(tenant)s AND c.task_uid = old.task_uid AND c.execution_id = old.execution_id
RETURNING c.execution_id
"""

_SWEEP_OUTAGES: Final = """
DELETE FROM outages o WHERE o.tenant_id = %(tenant)s AND o.until < %(before)s
RETURNING o.since
"""


class Row(NamedTuple):
    """A run that a ping has begun, or whose end it told."""

    tenant_id: UUID
    task_uid: UUID
    execution_id: UUID
    rid: UUID | None
    closed: bool


async def lock_tasks(conn: AsyncConnection, tenant_id: UUID, uids: Iterable[UUID]) -> None:
    """Let nobody else judge pings of these tasks until the end of the transaction."""
    await fetch(conn, _LOCK_TASKS, {"tenant": tenant_id, "uids": sorted(set(uids))})


async def known(
    conn: AsyncConnection,
    tenant_id: UUID,
    margins: Mapping[UUID, timedelta],
    rids: Mapping[UUID, UUID],
    now: datetime,
) -> dict[UUID, Known]:
    """Return what there is of each task in `margins`, which say how early a ping may come; all of it locked."""
    uids = sorted(margins)
    base = {"tenant": tenant_id, "uids": uids}
    until = [now + margins[uid] for uid in uids]
    slots = await fetch(conn, _WAITING, {**base, "until": until, "limit": _SLOTS, **due_bounds(now)})
    named = sorted(uid for uid in rids if uid in margins)
    same = await fetch(conn, _SAME, {**base, "uids": named, "rids": [rids[uid] for uid in named]})
    untold = await fetch(conn, _UNTOLD, base)
    last = await fetch(conn, _LAST, {**base, "now": now})
    wanted = {row[1] for rows in (slots, same, untold, last) for row in rows}
    runs = await _locked(conn, tenant_id, wanted)
    found = {uid: Known() for uid in uids}
    for uid in uids:
        waiting = [runs[one] for task, one in slots if task == uid and one in runs]
        found[uid] = replace(found[uid], waiting=[run for run in waiting if run.status is Status.PENDING])
    for field, rows in (("same", same), ("untold", untold)):
        for uid, one, rid, opened_at, closed in rows:
            if one not in runs:
                continue
            opened = Opened(runs[one], rid, opened_at, closed)
            if field == "same":
                found[uid] = replace(found[uid], same=opened)
                continue
            newest = found[uid].newest
            if newest is None or newest.opened_at < opened_at:
                found[uid] = replace(found[uid], newest=opened)
            if rid is None:
                found[uid] = replace(found[uid], loose=opened)
    for uid, one in last:
        found[uid] = replace(found[uid], last=runs.get(one))
    return found


async def _locked(conn: AsyncConnection, tenant_id: UUID, ids: Iterable[UUID]) -> dict[UUID, Run]:
    wanted = sorted(ids)
    rows: Sequence[Any] = await fetch(conn, _LOCK_RUNS, {"tenant": tenant_id, "ids": wanted}) if wanted else ()
    return {run.id: run for run in map(to_run, rows)}


async def remember(conn: AsyncConnection, rows: Sequence[Row], now: datetime) -> None:
    """Note which runs pings have begun, and of which they told the end."""
    if rows:
        parameters = {
            "tenants": [row.tenant_id for row in rows],
            "uids": [row.task_uid for row in rows],
            "ids": [row.execution_id for row in rows],
            "rids": [row.rid for row in rows],
            "closed": [row.closed for row in rows],
            "now": now,
        }
        await fetch(conn, _REMEMBER, parameters)


async def outages(conn: AsyncConnection, tenant_id: UUID, now: datetime) -> list[Outage]:
    """Return when pings could not be received, as far as it may still matter; the last may not be over."""
    rows = await fetch(conn, _OUTAGES, {"tenant": tenant_id, "from": now - OUTAGES_KEPT})
    found = [Outage(since, until) for since, until in rows]
    received = await fetch(conn, _RECEIVED, {"tenant": tenant_id})
    if not received:
        return [*found, Outage(now - OUTAGES_KEPT)]
    until = received[0][0]
    return [*found, Outage(until)] if until + PATIENCE < now else found


async def deaf(conn: AsyncConnection, tenant_id: UUID, since: datetime) -> list[Outage]:
    """Return the outages that ended at `since` or later, newest first, of a tenant that has check-ins."""
    return [Outage(*row) for row in await fetch(conn, _DEAF, {"tenant": tenant_id, "from": since})]


async def receive(conn: AsyncConnection, now: datetime, patience: timedelta, audit: UUID) -> int:
    """Note that pings are received, of every tenant. What lies more than `patience` back was an outage.

    Each is written once, with a notice in the audit log. Returns how many were.
    """
    parameters = {"now": now, "patience": patience.total_seconds(), "audit": audit}
    return int((await fetch(conn, _RECEIVE, parameters))[0][0])


async def sweep(conn: AsyncConnection, tenant_id: UUID, before: datetime, limit: int) -> int:
    """Forget runs that began, and outages that ended, before `before`; return how many."""
    parameters = {"tenant": tenant_id, "before": before, "limit": limit}
    return len(await fetch(conn, _SWEEP, parameters)) + len(await fetch(conn, _SWEEP_OUTAGES, parameters))
