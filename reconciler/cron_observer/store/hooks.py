"""Webhooks of forges: what a delivery is compared with, and which ones were seen."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_FOLLOWED: Final = text("SELECT source_id, ref FROM sources WHERE tenant_id = :tenant_id AND name = :name")

_SEE: Final = text("""
    INSERT INTO hook_deliveries (tenant_id, source_id, delivery, received_at)
    VALUES (:tenant_id, :source_id, :delivery, :now)
    ON CONFLICT DO NOTHING RETURNING delivery""")


class Followed(NamedTuple):
    """A source as far as a delivery has to know it."""

    source_id: UUID
    ref: str | None  #: full name of the ref that is followed, None before the first look


async def followed(conn: AsyncConnection, tenant_id: UUID, name: str) -> Followed | None:
    """Return the source `name`; None when the reconciler has not written it down yet."""
    row = (await conn.execute(_FOLLOWED, {"tenant_id": tenant_id, "name": name})).one_or_none()
    return None if row is None else Followed(row.source_id, row.ref)


async def see(conn: AsyncConnection, tenant_id: UUID, source_id: UUID, delivery: str, now: datetime) -> bool:
    """Remember a delivery; False when it was seen before."""
    values = {"tenant_id": tenant_id, "source_id": source_id, "delivery": delivery, "now": now}
    return (await conn.execute(_SEE, values)).scalar_one_or_none() is not None
