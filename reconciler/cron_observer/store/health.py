"""What readiness asks the database: its schema, and which sources are still to be looked at for the first time."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_REVISION: Final = text("SELECT version_num FROM alembic_version")

_LOOKED_AT: Final = text("""
    SELECT name, first_pass_at IS NOT NULL
        OR suspended_at IS NOT NULL AND (suspended_until IS NULL OR suspended_until > :now) AS settled
    FROM sources WHERE tenant_id = :tenant_id""")


async def revision(conn: AsyncConnection) -> str | None:
    """Return the revision of the schema, None when it has none."""
    found: str | None = (await conn.execute(_REVISION)).scalar_one_or_none()
    return found


async def settled(conn: AsyncConnection, tenant_id: UUID, now: datetime) -> dict[str, bool]:
    """Return, for each source of a tenant, whether its first pass has ended, well or badly, or is not to be made.

    Nobody looks at a source that is suspended, so nobody waits for that.
    """
    rows = await conn.execute(_LOOKED_AT, {"tenant_id": tenant_id, "now": now})
    return {row.name: row.settled for row in rows}
