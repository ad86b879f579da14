"""API keys: `co_<8 id>_<43 secret>`. Only the SHA-256 of a key is stored; it is shown once."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import BadRequest
from cron_observer.store.engine import Database
from cron_observer.store.shapes import instant

#: What a key may be allowed; `admin` allows everything.
SCOPES: Final = ("read", "report", "trigger", "tasks:write", "admin")

#: Bytes of chance in a secret: 43 characters of base64url.
SECRET_BYTES: Final = 32

_TOKEN: Final = re.compile(r"co_([a-z0-9]{8})_([A-Za-z0-9_-]{43})")
_ALPHABET: Final = string.ascii_lowercase + string.digits

_FIND: Final = text("""
    SELECT tenant_id, key_id, name, scopes, last_used_at FROM api_keys
    WHERE secret_hash = :digest AND revoked_at IS NULL""")

_CREATE: Final = text("""
    INSERT INTO api_keys (tenant_id, key_id, secret_hash, name, scopes, created_at, created_by)
    VALUES (:tenant_id, :key_id, :digest, :name, CAST(:scopes AS text[]), :now, :created_by)""")

_LIST: Final = text("""
    SELECT key_id, name, scopes, created_at, created_by, last_used_at, revoked_at FROM api_keys
    WHERE tenant_id = :tenant_id AND (CAST(:after AS text) IS NULL OR key_id COLLATE "C" > :after)
    ORDER BY key_id COLLATE "C" LIMIT :limit""")

_GET: Final = text("""
    SELECT key_id, name, scopes, created_at, created_by, last_used_at, revoked_at FROM api_keys
    WHERE tenant_id = :tenant_id AND key_id = :key_id""")

_REVOKE: Final = text("""
    UPDATE api_keys SET revoked_at = coalesce(revoked_at, :now)
    WHERE tenant_id = :tenant_id AND key_id = :key_id RETURNING key_id""")

_TOUCH: Final = text("""
    UPDATE api_keys SET last_used_at = :now
    WHERE tenant_id = :tenant_id AND key_id = ANY (CAST(:key_ids AS text[]))
      AND (last_used_at IS NULL OR last_used_at < :now)""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key that is valid: whose it is and what it allows."""

    tenant_id: UUID
    key_id: str
    name: str
    scopes: frozenset[str]


def new_key_id() -> str:
    """Return a fresh id: the part of a key that may be shown."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


def is_token(text_: str) -> bool:
    """Say whether `text_` has the form of a key."""
    return _TOKEN.fullmatch(text_) is not None


def digest(token: str) -> bytes:
    """Return what is stored of a key. A fast hash will do: the secret is 256 bits of chance."""
    return hashlib.sha256(token.encode()).digest()


def check_scopes(scopes: Iterable[str]) -> list[str]:
    """Return the scopes in the order of `SCOPES`, each once. Raises `BadRequest` for none or an unknown one."""
    wanted = set(scopes)
    unknown = sorted(wanted - set(SCOPES))
    if unknown or not wanted:
        raise BadRequest(
            "a scope is not known" if unknown else "a key needs at least one scope",
            hint=f"scopes are {', '.join(SCOPES)}",
            pointer="/scopes",
        )
    return [scope for scope in SCOPES if scope in wanted]


async def find(database: Database, token: str) -> Key | None:
    """Return the valid key that `token` is, or None. It opens a transaction that can see nothing else."""
    if not is_token(token):
        return None
    hashed = digest(token)
    async with database.transaction([], secret_hash=hashed.hex()) as conn:
        row = (await conn.execute(_FIND, {"digest": hashed})).mappings().one_or_none()
    if row is None:
        return None
    return Key(
        tenant_id=row["tenant_id"],
        key_id=row["key_id"],
        name=row["name"],
        scopes=frozenset(row["scopes"]),
    )


async def create(
    conn: AsyncConnection,
    tenant_id: UUID,
    *,
    name: str,
    scopes: Iterable[str],
    created_by: str,
    now: datetime,
    key_id: str | None = None,
    secret: str | None = None,
) -> tuple[dict[str, Any], str]:
    """Make a key; return what the wire shows of it, and the whole key, which nobody can read again.

    `key_id` and `secret` are for a caller that must be able to repeat itself; they are random otherwise.
    """
    key_id = key_id or new_key_id()
    token = f"co_{key_id}_{secret or secrets.token_urlsafe(SECRET_BYTES)}"
    if not is_token(token):
        raise ValueError("a key is co_<8 id>_<43 secret>")
    listed = check_scopes(scopes)
    values = {
        "tenant_id": tenant_id,
        "key_id": key_id,
        "digest": digest(token),
        "name": name,
        "scopes": listed,
        "now": now,
        "created_by": created_by,
    }
    await conn.execute(_CREATE, values)
    shown = {
        "id": key_id,
        "name": name,
        "scopes": listed,
        "created_at": instant(now),
        "created_by": created_by,
        "last_used_at": None,
        "revoked_at": None,
    }
    return shown, token


async def list_keys(
    conn: AsyncConnection, tenant_id: UUID, *, limit: int, after: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return a page of keys by id, revoked ones included, and the id at which it ended; None: the last page."""
    values = {"tenant_id": tenant_id, "after": after, "limit": limit + 1}
    rows = (await conn.execute(_LIST, values)).mappings().all()
    last = rows[limit - 1]["key_id"] if len(rows) > limit else None
    return [_shown(row) for row in rows[:limit]], last


async def get(conn: AsyncConnection, tenant_id: UUID, key_id: str) -> dict[str, Any] | None:
    """Return one key, or None."""
    row = (await conn.execute(_GET, {"tenant_id": tenant_id, "key_id": key_id})).mappings().one_or_none()
    return None if row is None else _shown(row)


async def revoke(conn: AsyncConnection, tenant_id: UUID, key_id: str, now: datetime) -> bool:
    """Make a key worthless from now on; False when there is none. Revoking twice is harmless."""
    done = await conn.execute(_REVOKE, {"tenant_id": tenant_id, "key_id": key_id, "now": now})
    return done.scalar_one_or_none() is not None


async def touch(conn: AsyncConnection, tenant_id: UUID, key_ids: Iterable[str], now: datetime) -> None:
    """Note that keys have been used by `now`."""
    await conn.execute(_TOUCH, {"tenant_id": tenant_id, "key_ids": sorted(key_ids), "now": now})


def _shown(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "id": row["key_id"],
        "name": row["name"],
        "scopes": row["scopes"],
        "created_at": instant(row["created_at"]),
        "created_by": row["created_by"],
        "last_used_at": instant(row["last_used_at"]),
        "revoked_at": instant(row["revoked_at"]),
    }
