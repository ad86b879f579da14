"""Executions that are no slots: asked for by a person, or begun by a worker of its own accord."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import AlreadyClaimed, BadRequest, NotFound
from cron_observer.lifecycle import OFFERED_FOR, Event, Run, Trigger
from cron_observer.model import Policy, effective_queue
from cron_observer.schedule import id_ceil, id_floor, new_id
from cron_observer.store.engine import fetch
from cron_observer.store.executions.places import Need, Places
from cron_observer.store.jsonb import to_json

_TASK: Final = """
SELECT t.task_uid, t.project_id, t.generation, t.spec, t.removed_at IS NOT NULL OR t.deleting_at IS NOT NULL
FROM tasks t
WHERE t.tenant_id = %(tenant)s AND t.task_uid = %(uid)s
"""

_INSERT: Final = """
WITH made AS (
    INSERT INTO executions (
        tenant_id, id, project_id, task_uid, status, trigger, nominal_at, fire_at, available_at, start_deadline,
        queue, priority, generation, forced, attempt, fence, event_seq, worker, protocol, claimed_at, started_at,
        lease_until, lease_seconds, run_deadline, check_at, payload, created_at)
    VALUES (
        %(tenant)s, %(id)s, %(project)s, %(uid)s, %(status)s, %(trigger)s, %(nominal)s, %(fire)s, %(now)s,
        %(start_deadline)s, %(queue)s, %(priority)s, %(generation)s, %(forced)s, %(attempt)s, %(fence)s, 1,
        %(worker)s, %(protocol)s, %(claimed)s, %(started)s, %(lease_until)s, %(lease_seconds)s, %(run_deadline)s,
        %(check_at)s, %(payload)s::jsonb, %(now)s)
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, id, status, attempt, fence, worker, claimed_at, started_at
), logged AS (
    INSERT INTO execution_events (tenant_id, execution_id, seq, at, type, attempt, fence, status, actor, data)
    SELECT tenant_id, id, 1, %(now)s, %(event)s, attempt, fence, status, %(actor)s, %(data)s::jsonb FROM made
), begun AS (
    INSERT INTO attempts (tenant_id, execution_id, fence, attempt, worker, claimed_at, started_at)
    SELECT tenant_id, id, fence, attempt, worker, claimed_at, started_at FROM made WHERE fence > 0
)
SELECT id FROM made
"""

_OWNER: Final = """
SELECT e.task_uid, e.trigger FROM executions e WHERE e.tenant_id = %(tenant)s AND e.id = %(id)s
"""

#: An id of a client that carries no time of ours stands for one of ours, for as long as history is kept.
_TAKE_ALIAS: Final = """
INSERT INTO idempotency_keys (tenant_id, scope, key, request_hash, execution_id, created_at, expires_at)
VALUES (%(tenant)s, 'execution', %(key)s, ''::bytea, %(id)s, %(now)s, %(until)s)
ON CONFLICT DO NOTHING
"""

_ALIAS: Final = """
SELECT k.execution_id FROM idempotency_keys k
WHERE k.tenant_id = %(tenant)s AND k.scope = 'execution' AND k.key = %(key)s
"""

#: Longer than history is kept by default, so that an alias outlives what it stands for.
_ALIAS_KEPT: Final = timedelta(days=100)

#: Parameters of `_INSERT` that a run which nobody has claimed leaves empty.
_UNCLAIMED: Final[Mapping[str, Any]] = dict.fromkeys(
    ("worker", "protocol", "claimed", "started", "lease_until", "lease_seconds", "run_deadline", "check_at")
)

#: How far the time inside an id that a client minted may lie from ours for the id to be used as it is: as far as
#: those of slots lie from their fire time, by which lists look for executions.
ID_PAST: Final = timedelta(days=1)
ID_FUTURE: Final = timedelta(days=1)


def usable(identity: UUID, now: datetime) -> bool:
    """Say whether a client's id carries its time as ours do (UUIDv7 or v8, recent), so that a partition takes it."""
    return identity.version in {7, 8} and id_floor(now - ID_PAST) <= identity <= id_ceil(now + ID_FUTURE)


async def resolve(conn: AsyncConnection, tenant_id: UUID, identity: UUID) -> UUID | None:
    """Return the id of ours that a client's own id stands for, None if it stands for nothing."""
    found = await fetch(conn, _ALIAS, {"tenant": tenant_id, "key": str(identity)})
    return found[0][0] if found else None


async def adopt(conn: AsyncConnection, tenant_id: UUID, identity: UUID | None, now: datetime) -> UUID:
    """Return the id for a new execution that its client calls `identity`: the same whenever it asks."""
    if identity is None:
        return new_id(now)
    # What it was called before goes first: an id that was too far from our time, or near it, need not be so any more.
    known = await resolve(conn, tenant_id, identity)
    if known is not None:
        return known
    if usable(identity, now) or await fetch(conn, _OWNER, {"tenant": tenant_id, "id": identity}):
        return identity
    parameters = {"tenant": tenant_id, "key": str(identity), "id": new_id(now), "now": now, "until": now + _ALIAS_KEPT}
    await fetch(conn, _TAKE_ALIAS, parameters)
    known = await resolve(conn, tenant_id, identity)
    if known is None:
        raise AssertionError("an alias that was just written is not there")
    return known


async def _task(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID) -> tuple[UUID, int, dict[str, Any]]:
    found = await fetch(conn, _TASK, {"tenant": tenant_id, "uid": task_uid})
    if not found or found[0][4]:
        raise NotFound("there is no such task", hint="GET /api/v1/projects/{project}/tasks lists them")
    _, project_id, generation, spec, _ = found[0]
    return project_id, generation, spec


async def create_manual(
    conn: AsyncConnection,
    tenant_id: UUID,
    task_uid: UUID,
    *,
    payload: Any = None,
    force: bool = False,
    actor: str,
    now: datetime,
) -> UUID:
    """Make an execution that is due now because `actor` asked for it, and return its id.

    It waits for the places of its task and its group, with `force` for that of the group alone. Raises `NotFound`
    if the task is gone.
    """
    project_id, generation, spec = await _task(conn, tenant_id, task_uid)
    policy = Policy.read(spec)
    deadline = now + OFFERED_FOR if policy.start_deadline is None else now + policy.start_deadline
    identity = new_id(now)
    await fetch(
        conn,
        _INSERT,
        {
            **_UNCLAIMED,
            "tenant": tenant_id,
            "id": identity,
            "project": project_id,
            "uid": task_uid,
            "status": "PENDING",
            "trigger": Trigger.MANUAL.value,
            "nominal": None,
            "fire": now,
            "now": now,
            "start_deadline": deadline,
            "queue": effective_queue(spec),
            "priority": spec["priority"],
            "generation": generation,
            "forced": force,
            "attempt": 0,
            "fence": 0,
            "payload": to_json(payload),
            "event": Event.CREATED.value,
            "actor": actor,
            "data": to_json({"force": force}),
        },
    )
    return identity


async def create_running(
    conn: AsyncConnection,
    tenant_id: UUID,
    task_uid: UUID,
    *,
    identity: UUID,
    worker: str,
    lease: timedelta,
    scheduled_for: datetime | None,
    started_at: datetime | None,
    now: datetime,
) -> bool:
    """Take note of a run that a worker has begun by itself: RUNNING, leased, trigger api.

    It takes the places of its task and group if they are free, and is not refused if not: it runs already.
    Returns False when the id is that of such a run of the same task already; raises `AlreadyClaimed` when it is any
    other's.
    """
    project_id, generation, spec = await _task(conn, tenant_id, task_uid)
    policy = Policy.read(spec)
    if started_at is not None and started_at > now + timedelta(minutes=5):
        raise BadRequest("started_at lies in the future", hint="send the time at which the work began, in UTC")
    deadline = now + policy.timeout
    made = await fetch(
        conn,
        _INSERT,
        {
            "tenant": tenant_id,
            "id": identity,
            "project": project_id,
            "uid": task_uid,
            "status": "RUNNING",
            "trigger": Trigger.API.value,
            "nominal": scheduled_for,
            "fire": now,
            "now": now,
            "start_deadline": None,
            "queue": effective_queue(spec),
            "priority": spec["priority"],
            "generation": generation,
            "forced": False,
            "attempt": 1,
            "fence": 1,
            "worker": worker,
            "protocol": "lease",
            "claimed": now,
            "started": min(started_at or now, now),
            "lease_until": now + lease,
            "lease_seconds": lease.total_seconds(),
            "run_deadline": deadline,
            "check_at": min(now + lease, deadline),
            "payload": None,
            "event": Event.CLAIMED.value,
            "actor": worker,
            "data": None,
        },
    )
    if made:
        await _occupy(conn, tenant_id, identity, Need(task_uid, project_id, policy), now)
        return True
    owner = await fetch(conn, _OWNER, {"tenant": tenant_id, "id": identity})
    if owner and tuple(owner[0]) == (task_uid, Trigger.API.value):
        return False
    raise AlreadyClaimed("this id belongs to another execution", hint="mint a new id for each execution")


async def create_begun(conn: AsyncConnection, run: Run, now: datetime) -> None:
    """Take note of a run that has begun without any slot: it holds no place, and nobody has claimed it."""
    parameters = {
        "tenant": run.tenant_id,
        "id": run.id,
        "project": run.project_id,
        "uid": run.task_uid,
        "status": run.status.value,
        "trigger": run.trigger.value,
        "nominal": None,
        "fire": run.fire_at,
        "now": now,
        "start_deadline": None,
        "queue": run.queue,
        "priority": run.priority,
        "generation": run.generation,
        "forced": False,
        "attempt": run.attempt,
        "fence": run.fence,
        "worker": run.worker,
        "protocol": run.protocol,
        "claimed": run.claimed_at,
        "started": run.started_at,
        "lease_until": run.lease_until,
        "lease_seconds": run.lease_seconds,
        "run_deadline": run.run_deadline,
        "check_at": run.check_at,
        "payload": None,
        "event": Event.CLAIMED.value,
        "actor": run.worker,
        "data": None,
    }
    await fetch(conn, _INSERT, parameters)


async def _occupy(conn: AsyncConnection, tenant_id: UUID, identity: UUID, need: Need, now: datetime) -> None:
    """Take the places that a run would have needed, as far as they are free."""
    places = Places(tenant_id)
    await places.learn(conn, [need])
    for place in places.needed(need):
        places.take(identity, [place])
    await places.occupy(conn, [identity], now)
