"""The audit log: who changed what, written in the transaction of the change."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import new_id
from cron_observer.store.jsonb import to_json

_RECORD: Final = text("""
    INSERT INTO audit_log (tenant_id, audit_id, at, actor, action, target, data)
    VALUES (:tenant_id, :audit_id, :now, :actor, :action, :target, CAST(:data AS jsonb))""")


async def record(
    conn: AsyncConnection,
    tenant_id: UUID,
    *,
    actor: str,
    action: str,
    target: str,
    now: datetime,
    data: dict[str, Any] | None = None,
) -> None:
    """Write that `actor` did `action` (``task.update``) to `target` (``task:default/export``); never secrets."""
    values = {
        "tenant_id": tenant_id,
        "audit_id": new_id(now),
        "now": now,
        "actor": actor,
        "action": action,
        "target": target,
        "data": to_json(data),
    }
    await conn.execute(_RECORD, values)
