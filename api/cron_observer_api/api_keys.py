"""API keys: made, listed, revoked."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from litestar import Request, Response, delete, get, post
from litestar.params import FromPath

from cron_observer.errors import IdempotencyMismatch, NotFound
from cron_observer.store import audit, keys
from cron_observer_api import body, paths, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import answer, declare, query
from cron_observer_api.writes import Created, create, transaction


@get(
    "/keys",
    operation_id="listKeys",
    opt=declare(
        summary="List API keys by id, revoked ones included",
        tag="keys",
        scopes=("admin",),
        query=wire.PageQuery,
        answers={200: wire.Keys},
        problems=("bad_cursor",),
    ),
)
async def list_keys(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return a page of keys; never a secret."""
    asked = query(request, wire.PageQuery)
    cursors = request.app.state.cursors
    after = cursors.read(request, asked.cursor, str)
    async with transaction(request) as (conn, _):
        items, last = await keys.list_keys(conn, principal_of(request).tenant_id, limit=asked.limit, after=after)
    return answer({"items": items, "next_cursor": cursors.make(request, last)})


@post(
    "/keys",
    operation_id="createKey",
    status_code=201,
    opt=declare(
        summary="Make an API key; it is shown this once",
        tag="keys",
        scopes=("admin",),
        write=True,
        body=wire.KeyBody,
        answers={201: wire.NewKey},
        idempotent=True,
    ),
)
async def create_key(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Make a key.

    The secret is no chance but derived from our own key, the id and the request, so that a repeat with the same
    Idempotency-Key can be told it again although it is stored nowhere. Without that header it is chance.
    """
    raw = await body.read_bytes(request)
    asked = body.decode(raw, wire.KeyBody)
    caller = principal_of(request)
    repeatable = "idempotency-key" in request.headers

    def secret(key_id: str) -> str | None:
        if not repeatable:
            return None
        given = request.headers["idempotency-key"].encode()
        made: bytes = request.app.state.cursors.derive(b"api key", caller.tenant_id.bytes, key_id.encode(), given, raw)
        return base64.urlsafe_b64encode(made).rstrip(b"=").decode()

    async def work(conn: Any, now: datetime) -> Created:
        key_id = keys.new_key_id()
        shown, token = await keys.create(
            conn,
            caller.tenant_id,
            name=asked.name,
            scopes=asked.scopes,
            created_by=caller.actor,
            now=now,
            key_id=key_id,
            secret=secret(key_id),
        )
        await audit.record(
            conn,
            caller.tenant_id,
            actor=caller.actor,
            action="key.create",
            target=f"key:{key_id}",
            now=now,
            data={"name": asked.name, "scopes": shown["scopes"]},
        )
        return Created(status=201, body=shown | {"key": token}, kept=shown | {"sha256": keys.digest(token).hex()})

    def revive(kept: dict[str, Any]) -> dict[str, Any]:
        token = f"co_{kept['id']}_{secret(kept['id'])}"
        if keys.digest(token).hex() != kept.pop("sha256"):
            raise IdempotencyMismatch(
                "another server made this key and only that one can repeat it", hint="revoke it and make another"
            )
        return kept | {"key": token}

    return await create(request, raw, work, revive=revive)


@delete(
    "/keys/{key_id:str}",
    operation_id="revokeKey",
    status_code=204,
    opt=declare(
        summary="Revoke an API key; it is refused everywhere within 5 s",
        tag="keys",
        scopes=("admin",),
        write=True,
        answers={204: None},
        problems=("not_found",),
    ),
)
async def revoke_key(request: Request[Any, Any, Any], key_id: FromPath[str]) -> None:
    """Revoke a key; revoking twice is harmless."""
    name = paths.key_id(key_id)
    caller = principal_of(request)
    async with transaction(request) as (conn, now):
        if not await keys.revoke(conn, caller.tenant_id, name, now):
            raise NotFound("there is no such key", hint="GET /api/v1/keys lists them")
        await audit.record(
            conn, caller.tenant_id, actor=caller.actor, action="key.revoke", target=f"key:{name}", now=now
        )
    request.app.state.key_ring.forget()


handlers = [list_keys, create_key, revoke_key]
