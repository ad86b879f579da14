"""Keys that sign run tokens: one for each tenant, made when first needed, and remembered by each process."""

from __future__ import annotations

import secrets
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.run_token import KEY_BYTES, Claimed, is_genuine, mint, read_token
from cron_observer.store.engine import Database, clock, fetch

__all__ = ["Claimed", "SigningKeys", "is_genuine", "mint", "read_token", "signing_key"]

_READ: Final = "SELECT k.secret FROM signing_keys k WHERE k.tenant_id = %(tenant)s"

#: Of several who make it at once one wins, and all others wait for that one's commit and read what it wrote.
_MAKE: Final = """
INSERT INTO signing_keys (tenant_id, secret, created_at) VALUES (%(tenant)s, %(secret)s, %(now)s)
ON CONFLICT DO NOTHING
"""

#: Tenants whose keys a process remembers; beyond it the memory is emptied, not grown.
_REMEMBERED: Final = 10_000


async def signing_key(conn: AsyncConnection, tenant_id: UUID) -> bytes:
    """Return the signing key of a tenant that exists, made in the caller's transaction if there was none.

    Remember it only after the commit: until then it may never have been.
    """
    found = await fetch(conn, _READ, {"tenant": tenant_id})
    if not found:
        made = {"tenant": tenant_id, "secret": secrets.token_bytes(KEY_BYTES), "now": await clock(conn)}
        await fetch(conn, _MAKE, made)
        found = await fetch(conn, _READ, {"tenant": tenant_id})
    return bytes(found[0][0])


class SigningKeys:
    """Remembers the keys of tenants: a key never changes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[UUID, bytes] = {}

    async def own(self, tenant_id: UUID) -> bytes:
        """Return the key of a tenant that exists; made if there was none."""
        known = self._known.get(tenant_id)
        if known is None:
            async with self._database.transaction([tenant_id]) as conn:
                made = await signing_key(conn, tenant_id)
            known = self._remember(tenant_id, made)
        return known

    async def genuine(self, text: str) -> Claimed | None:
        """Return what a run token says if it is true, else None: nothing is made for who comes with a false one."""
        claimed = read_token(text)
        if claimed is None:
            return None
        known = self._known.get(claimed.tenant_id)
        if known is None:
            async with self._database.transaction([claimed.tenant_id]) as conn:
                found = await fetch(conn, _READ, {"tenant": claimed.tenant_id})
            if not found:
                return None
            known = self._remember(claimed.tenant_id, bytes(found[0][0]))
        return claimed if is_genuine(claimed, known) else None

    def _remember(self, tenant_id: UUID, key: bytes) -> bytes:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[tenant_id] = key
        return key
