"""The transaction of a write: its clock, its Idempotency-Key, and what a repeat is told."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from litestar import Request, Response

from cron_observer.errors import BadRequest, DatabaseError, InProgress
from cron_observer.store import idempotency
from cron_observer.store.engine import clock, is_transient
from cron_observer.store.plans import Connection, in_transaction_with_margin
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import answer

#: How long an Idempotency-Key may be.
LONGEST_KEY: Final = 255

#: Marks an answer that an earlier request was given.
_REPEATED: Final = object()

#: Keys whose first request this process is working on.
_Under = set[tuple[UUID, str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """What the work of a creating call answers. `kept` is stored for repeats in place of a `body` with a secret."""

    status: int
    body: Any
    kept: Any = None


Work = Callable[[Any, datetime], Awaitable[Created]]


@contextmanager
def _races_told() -> Iterator[None]:
    """Turn a lost race for a lock into `DatabaseError`, which tells the client to try again."""
    try:
        yield
    except Exception as error:
        if is_transient(error):
            raise DatabaseError("something else is changing the same thing", hint="try again in a moment") from error
        raise


@asynccontextmanager
async def transaction(request: Request[Any, Any, Any]) -> AsyncIterator[tuple[Connection, datetime]]:
    """Open a transaction of the caller's tenant; give the connection and the database's clock."""
    with _races_told():
        async with request.app.state.database.transaction([principal_of(request).tenant_id]) as conn:
            yield conn, await clock(conn)


async def write(request: Request[Any, Any, Any], work: Work) -> Created:
    """Do `work` in a transaction that may also change schedules; it may be called again with a later clock."""

    async def timed(conn: Connection) -> Created:
        return await work(conn, await clock(conn))

    with _races_told():
        tenants = [principal_of(request).tenant_id]
        return await in_transaction_with_margin(request.app.state.database, tenants, timed)


async def create(
    request: Request[Any, Any, Any], raw: bytes, work: Work, *, revive: Callable[[Any], Any] | None = None
) -> Response[bytes]:
    """Do `work` like `write`, once for each Idempotency-Key, and answer what it gave.

    `raw` is the body as it came: a repeat must bring the same. `revive` makes the answer of what was `kept`.
    Raises `InProgress` or `IdempotencyMismatch`.
    """
    key = _key(request)
    if key is None:
        made = await write(request, work)
        return answer(made.body, made.status)
    principal = principal_of(request)
    scope = principal.key_id or ""
    place = {"scope": scope, "key": key}
    digest = hashlib.sha256(b"\0".join((request.method.encode(), request.scope["path"].encode(), raw))).digest()

    async def once(conn: Connection, now: datetime) -> Created:
        earlier = await idempotency.take(conn, principal.tenant_id, **place, request_hash=digest, now=now)
        if earlier is not None:
            return Created(status=earlier.status, body=earlier.body, kept=_REPEATED)
        made = await work(conn, now)
        kept = made.body if made.kept is None else made.kept
        await idempotency.answer(conn, principal.tenant_id, **place, status=made.status, body=kept)
        return made

    with _alone(request.app.state.repeating, (principal.tenant_id, scope, key)):
        made = await write(request, once)
    if made.kept is not _REPEATED:
        return answer(made.body, made.status)
    body = made.body if revive is None else revive(made.body)
    return answer(body, made.status, {"Idempotent-Replayed": "true"})


def _key(request: Request[Any, Any, Any]) -> str | None:
    given = request.headers.getall("idempotency-key", [])
    if not given:
        return None
    key = given[0]
    if len(given) > 1 or not 1 <= len(key) <= LONGEST_KEY or not (key.isascii() and key.isprintable()):
        raise BadRequest(
            f"an Idempotency-Key is one text of 1 to {LONGEST_KEY} printable characters",
            hint="use a fresh UUID for each new request",
        )
    return key


@contextmanager
def _alone(under: _Under, place: tuple[UUID, str, str]) -> Iterator[None]:
    """Hold `place`, or raise `InProgress`: a second request must not wait with a connection in its hand."""
    if place in under:
        raise InProgress("a request with this Idempotency-Key is being worked on", hint="ask again in a moment")
    under.add(place)
    try:
        yield
    finally:
        under.discard(place)
