"""Idempotency keys: the first request does the work, a repeat gets the same answer.

The key is taken in the transaction of the work itself, so that either both are there or neither is. A second
request with the same key waits at the unique key until the first has committed, and then reads its answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import IdempotencyMismatch, InProgress
from cron_observer.store.jsonb import to_json

#: How long an answer is kept for repeats.
KEPT_FOR: Final = timedelta(hours=24)

_FORGET: Final = text("""
    DELETE FROM idempotency_keys
    WHERE tenant_id = :tenant_id AND scope = :scope AND key = :key AND expires_at <= :now""")

_TAKE: Final = text("""
    INSERT INTO idempotency_keys (tenant_id, scope, key, request_hash, created_at, expires_at)
    VALUES (:tenant_id, :scope, :key, :request_hash, :now, :expires_at)
    ON CONFLICT DO NOTHING RETURNING key""")

_READ: Final = text("""
    SELECT request_hash, status, response FROM idempotency_keys
    WHERE tenant_id = :tenant_id AND scope = :scope AND key = :key""")

_ANSWER: Final = text("""
    UPDATE idempotency_keys SET status = :status, response = CAST(:response AS jsonb)
    WHERE tenant_id = :tenant_id AND scope = :scope AND key = :key""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the first request with a key was told."""

    status: int
    body: Any


async def take(
    conn: AsyncConnection, tenant_id: UUID, *, scope: str, key: str, request_hash: bytes, now: datetime
) -> Answered | None:
    """Take `key` for this transaction's work and return None, or return what an earlier request was told.

    Raises `IdempotencyMismatch` when that was another request, `InProgress` when it has no answer yet.
    """
    place = {"tenant_id": tenant_id, "scope": scope, "key": key}
    await conn.execute(_FORGET, place | {"now": now})
    taken = await conn.execute(_TAKE, place | {"request_hash": request_hash, "now": now, "expires_at": now + KEPT_FOR})
    if taken.scalar_one_or_none() is not None:
        return None
    row = (await conn.execute(_READ, place)).mappings().one_or_none()
    if row is None or row["status"] is None:
        raise InProgress("a request with this Idempotency-Key is being worked on", hint="ask again in a moment")
    if bytes(row["request_hash"]) != request_hash:
        raise IdempotencyMismatch(
            "this Idempotency-Key came with another request before",
            hint="use a new key for each new request, and the same one only to repeat it",
        )
    return Answered(status=row["status"], body=row["response"])


async def answer(conn: AsyncConnection, tenant_id: UUID, *, scope: str, key: str, status: int, body: Any) -> None:
    """Keep what this transaction's request is told, for those who repeat it."""
    values = {
        "tenant_id": tenant_id,
        "scope": scope,
        "key": key,
        "status": status,
        "response": to_json(body),
    }
    await conn.execute(_ANSWER, values)
