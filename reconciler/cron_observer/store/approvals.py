"""Consents to held removals: each holds for one plan of one source, and is used up by the pass that carries it out."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import new_id
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

_WAITING: Final = text("SELECT plan_hash FROM sources WHERE tenant_id = :tenant_id AND name = :name")


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


async def waiting(conn: AsyncConnection, tenant_id: UUID, name: str) -> str | None:
    """Return the plan hash of the removals that wait in the source `name`; None when nothing does."""
    values = {"tenant_id": tenant_id, "name": name}
    found: str | None = (await conn.execute(_WAITING, values)).scalar_one_or_none()
    return found


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
