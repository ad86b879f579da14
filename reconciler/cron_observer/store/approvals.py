"""Consents to held removals: each holds for one plan of one source, and is used up by the pass that carries it out."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import new_id
from cron_observer.store import shapes
from cron_observer.store.sources import Lease

_APPROVED: Final = text("""
    SELECT plan_hash FROM approvals
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND used_at IS NULL""")

_USE: Final = text("""
    UPDATE approvals SET used_at = :now, run_id = :run_id
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND plan_hash = :plan_hash AND used_at IS NULL""")

#: Only what waits now can be approved: a hash of yesterday may not release what is held tomorrow.
_ADD: Final = text("""
    INSERT INTO approvals (tenant_id, approval_id, source_id, plan_hash, reason, actor, created_at)
    SELECT :tenant_id, :approval_id, s.source_id, s.plan_hash, :reason, :actor, :now
    FROM sources AS s
    WHERE s.tenant_id = :tenant_id AND s.name = :name AND s.plan_hash = :plan_hash
    ON CONFLICT (tenant_id, source_id, plan_hash) WHERE used_at IS NULL DO NOTHING
    RETURNING approval_id""")

_FORGET: Final = text("""
    DELETE FROM approvals WHERE tenant_id = :tenant_id AND source_id = :source_id AND created_at < :before""")

_FIND: Final = text("""
    SELECT s.name AS source, a.plan_hash, a.reason, a.actor, a.created_at
    FROM approvals AS a JOIN sources AS s ON s.tenant_id = a.tenant_id AND s.source_id = a.source_id
    WHERE a.tenant_id = :tenant_id AND s.name = :name AND a.plan_hash = :plan_hash AND a.used_at IS NULL""")


async def approved(conn: AsyncConnection, held: Lease) -> set[str]:
    """Return the plan hashes of the source that somebody approved and no pass has carried out yet."""
    values = {"tenant_id": held.tenant_id, "source_id": held.source_id}
    return set((await conn.execute(_APPROVED, values)).scalars())


async def use(conn: AsyncConnection, held: Lease, plan_hash: str, run_id: UUID, now: datetime) -> None:
    """Note that the run `run_id` carries out what was approved; in the transaction that does it."""
    values = {
        "tenant_id": held.tenant_id,
        "source_id": held.source_id,
        "plan_hash": plan_hash,
        "run_id": run_id,
        "now": now,
    }
    await conn.execute(_USE, values)


async def find(conn: AsyncConnection, tenant_id: UUID, name: str, plan_hash: str) -> dict[str, Any] | None:
    """Return the approval of `plan_hash` in the source `name` that no pass has used yet, as the wire shows it."""
    values = {"tenant_id": tenant_id, "name": name, "plan_hash": plan_hash}
    row = (await conn.execute(_FIND, values)).mappings().one_or_none()
    return None if row is None else {**row, "created_at": shapes.instant(row["created_at"])}


async def add(
    conn: AsyncConnection, tenant_id: UUID, name: str, *, plan_hash: str, reason: str | None, actor: str, now: datetime
) -> bool:
    """Approve what waits in the source `name` under `plan_hash`; False: not waiting, or approved already."""
    values = {
        "tenant_id": tenant_id,
        "approval_id": new_id(now),
        "name": name,
        "plan_hash": plan_hash,
        "reason": reason,
        "actor": actor,
        "now": now,
    }
    return (await conn.execute(_ADD, values)).scalar_one_or_none() is not None


async def forget(conn: AsyncConnection, held: Lease, *, before: datetime) -> None:
    """Remove the approvals that were given before `before`, used or not: none holds for ever."""
    values = {"tenant_id": held.tenant_id, "source_id": held.source_id, "before": before}
    await conn.execute(_FORGET, values)
