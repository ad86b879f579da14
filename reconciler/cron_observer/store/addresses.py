"""Where pings go: an address for each task that somebody else fires, and a key for each project that has one."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.engine import Database, fetch

#: Where whoever is answered has reached us: what addresses begin with that are shown. Empty where nobody asks.
reached_at: ContextVar[str] = ContextVar("reached_at", default="")

#: Bytes of chance in an address and in a key.
CHANCE: Final = 16

_ADD_ADDRESSES: Final = """
INSERT INTO ping_addresses (tenant_id, task_uid, address, created_at)
SELECT %(tenant)s, v.task_uid, v.address, %(now)s
FROM unnest(%(uids)s::uuid[], %(addresses)s::uuid[]) AS v (task_uid, address)
ORDER BY v.task_uid
ON CONFLICT DO NOTHING
"""

_ADD_KEYS: Final = """
INSERT INTO ping_keys (tenant_id, project_id, number, key, created_at)
SELECT %(tenant)s, v.project_id, v.number, v.key, %(now)s
FROM unnest(%(projects)s::uuid[], %(numbers)s::bigint[], %(keys)s::text[]) AS v (project_id, number, key)
ORDER BY v.project_id
ON CONFLICT DO NOTHING
"""

_OF_TASKS: Final = """
SELECT a.task_uid, a.address, k.key, k.number FROM ping_addresses a
JOIN tasks t ON t.tenant_id = a.tenant_id AND t.task_uid = a.task_uid
JOIN ping_keys k ON k.tenant_id = t.tenant_id AND k.project_id = t.project_id
WHERE a.tenant_id = %(tenant)s AND a.task_uid = ANY (%(uids)s::uuid[])
"""

_ROTATE_ADDRESS: Final = """
UPDATE ping_addresses SET address = %(address)s, created_at = %(now)s
WHERE tenant_id = %(tenant)s AND task_uid = %(uid)s
RETURNING task_uid
"""

_ROTATE_KEY: Final = """
UPDATE ping_keys SET key = %(key)s, created_at = %(now)s
WHERE tenant_id = %(tenant)s AND project_id = %(project)s
RETURNING key
"""

#: Whoever knows the address, or the key and the name, may learn whose it is.
_FIND: Final = "SELECT tenant, task FROM pinged_task(%(address)s::uuid, %(key)s::text, %(slug)s::text)"

_OPENS: Final = "SELECT ping_key_opens(%(key)s::text, %(number)s::bigint)"


class Pinged(NamedTuple):
    """Whose an address is."""

    tenant_id: UUID
    task_uid: UUID


class Doors(NamedTuple):
    """Where the pings of a task go, and what its project's clients identify themselves by."""

    address: UUID
    key: str
    number: int

    @property
    def ping_url(self) -> str:
        """Where to ping the task."""
        return f"{reached_at.get()}/ping/{self.address}"

    def named_url(self, name: str) -> str:
        """Return where to ping the task by its name under the key of its project."""
        return f"{reached_at.get()}/ping/{self.key}/{name}"

    @property
    def sentry_dsn(self) -> str | None:
        """What Sentry's SDK is given; None where nobody knows how we are reached."""
        scheme, _, rest = reached_at.get().partition("://")
        return f"{scheme}://{self.key}@{rest}/{self.number}" if rest else None


def new_address() -> UUID:
    """Return a fresh address: all of its 128 bits are chance, so its version and variant say nothing."""
    return UUID(bytes=secrets.token_bytes(CHANCE))


async def ensure(conn: AsyncConnection, tenant_id: UUID, tasks: Sequence[tuple[UUID, UUID]], now: datetime) -> None:
    """Give each task, as (uid, project), an address and its project a key, unless it has one."""
    if not tasks:
        return
    uids = sorted({uid for uid, _ in tasks})
    projects = sorted({project for _, project in tasks})
    addresses = [new_address() for _ in uids]
    await fetch(conn, _ADD_ADDRESSES, {"tenant": tenant_id, "uids": uids, "addresses": addresses, "now": now})
    numbers = [secrets.randbelow(1 << 40) + 1 for _ in projects]
    keys = [secrets.token_hex(CHANCE) for _ in projects]
    parameters = {"tenant": tenant_id, "projects": projects, "numbers": numbers, "keys": keys, "now": now}
    await fetch(conn, _ADD_KEYS, parameters)


async def doors(conn: AsyncConnection, tenant_id: UUID, uids: Iterable[UUID]) -> Mapping[UUID, Doors]:
    """Return where the pings of these tasks go; of those that have an address."""
    wanted = sorted(set(uids))
    if not wanted:
        return {}
    rows = await fetch(conn, _OF_TASKS, {"tenant": tenant_id, "uids": wanted})
    return {uid: Doors(address, key, number) for uid, address, key, number in rows}


async def rotate_address(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID, now: datetime) -> bool:
    """Give a task another address, so that the old one is unknown; False when it has none."""
    parameters = {"tenant": tenant_id, "uid": task_uid, "address": new_address(), "now": now}
    return bool(await fetch(conn, _ROTATE_ADDRESS, parameters))


async def rotate_key(conn: AsyncConnection, tenant_id: UUID, project_id: UUID, now: datetime) -> str | None:
    """Give a project another ping key, so that the old one is unknown, and return it; None when it has none."""
    parameters = {"tenant": tenant_id, "project": project_id, "key": secrets.token_hex(CHANCE), "now": now}
    rows = await fetch(conn, _ROTATE_KEY, parameters)
    return rows[0][0] if rows else None


async def find(database: Database, address: UUID | None, key: str | None, slug: str | None) -> Pinged | None:
    """Return whose an address, or a name under a project's key, is. It opens a transaction that sees nothing else."""
    parameters: dict[str, Any] = {"address": address, "key": key, "slug": slug}
    async with database.transaction([]) as conn:
        rows = await fetch(conn, _FIND, parameters)
    return Pinged(*rows[0]) if len(rows) == 1 else None


async def opens(database: Database, key: str, number: int) -> bool:
    """Say whether a project of this number has this key."""
    async with database.transaction([]) as conn:
        rows = await fetch(conn, _OPENS, {"key": key, "number": number})
    return bool(rows[0][0])
