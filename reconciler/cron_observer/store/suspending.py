"""Suspensions of sources: for how long nobody looks at one, who said so and why. What is applied stays in force."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: Suspending again gives a suspension another end and reason; since when it lasts stays.
_SUSPEND: Final = text("""
    UPDATE sources SET suspended_by = :actor, suspend_reason = :reason,
        suspended_until = CAST(:until AS timestamptz),
        suspended_at = CASE WHEN suspended_at IS NULL OR suspended_until <= :now THEN :now ELSE suspended_at END
    WHERE tenant_id = :tenant_id AND name = :name
      AND (suspended_at IS NULL OR suspended_until <= :now OR suspend_reason IS DISTINCT FROM CAST(:reason AS text)
           OR suspended_until IS DISTINCT FROM CAST(:until AS timestamptz))
    RETURNING source_id""")

_RESUME: Final = text("""
    UPDATE sources SET suspended_at = NULL, suspended_until = NULL, suspended_by = NULL, suspend_reason = NULL
    WHERE tenant_id = :tenant_id AND name = :name AND suspended_at IS NOT NULL
    RETURNING source_id""")


async def suspend(
    conn: AsyncConnection,
    tenant_id: UUID,
    name: str,
    *,
    reason: str,
    until: datetime | None,
    actor: str,
    now: datetime,
) -> bool:
    """Let nobody look at the source `name` before `until`, None: before `resume`; False when it is so already."""
    values = {"tenant_id": tenant_id, "name": name, "reason": reason, "until": until, "actor": actor, "now": now}
    return (await conn.execute(_SUSPEND, values)).scalar_one_or_none() is not None


async def resume(conn: AsyncConnection, tenant_id: UUID, name: str) -> bool:
    """End the suspension of the source `name`; False when there is none."""
    return (await conn.execute(_RESUME, {"tenant_id": tenant_id, "name": name})).scalar_one_or_none() is not None
