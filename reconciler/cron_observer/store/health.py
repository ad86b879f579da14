"""What readiness asks the database: its schema, and whether each source has been looked at once."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_REVISION: Final = text("SELECT version_num FROM alembic_version")

_LOOKED_AT: Final = text("""
    SELECT name, first_pass_at IS NOT NULL AS passed FROM sources WHERE tenant_id = :tenant_id""")


async def revision(conn: AsyncConnection) -> str | None:
    """Return the revision of the schema, None when it has none."""
    found: str | None = (await conn.execute(_REVISION)).scalar_one_or_none()
    return found


async def passes(conn: AsyncConnection, tenant_id: UUID) -> dict[str, bool]:
    """Return, for each source of a tenant, whether its first pass has ended, well or badly."""
    rows = await conn.execute(_LOOKED_AT, {"tenant_id": tenant_id})
    return {row.name: row.passed for row in rows}
