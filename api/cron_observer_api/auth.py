"""Who calls, and what they may: API keys, tokens of single runs, and reading without any on loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from cron_observer import run_token
from cron_observer.errors import DatabaseError, NotFound, Refused, Unauthenticated
from cron_observer.run_token import Claimed
from cron_observer.store import keys
from cron_observer.store.engine import Database, clock
from cron_observer_api.operation import Operation, operation_of

_log = structlog.get_logger("cron_observer.api")

#: Seconds that a key is trusted without another look: a revoked one is refused everywhere within this time.
TRUSTED_FOR: Final = 3.0

#: Seconds that an unknown key is refused without another look; short, so that a fresh one works at once.
REFUSED_FOR: Final = 0.5

#: Credentials remembered; beyond it the memory is emptied, not grown.
REMEMBERED: Final = 10_000

#: Seconds between writes of `last_used_at`.
TOUCH_EVERY: Final = 30.0

#: What a handler that declares nothing is taken for: a page.
_PAGE: Final = Operation(summary="", tag="pages", scopes=("read",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls. `key_id` is None for a reader on loopback who brought no key, and for a run with its token."""

    tenant_id: UUID
    key_id: str | None
    name: str
    scopes: frozenset[str]
    #: the claim of the run that shows its token, which may do for this one what `Operation.run_token` allows
    run: Claimed | None = None

    @property
    def actor(self) -> str:
        """How events and the audit log call them."""
        if self.run is not None:
            return f"run:{self.run.execution_id}"
        return f"key:{self.key_id}" if self.key_id else "anonymous"

    def may(self, scopes: tuple[str, ...]) -> bool:
        """Say whether any of `scopes` is held."""
        return "admin" in self.scopes or not self.scopes.isdisjoint(scopes)


class KeyRing:
    """Looks keys up, remembers them for seconds, and notes now and then that they were used."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[float, keys.Key | None]] = {}
        self._asking: dict[str, asyncio.Task[keys.Key | None]] = {}
        self._used: set[tuple[UUID, str]] = set()

    async def find(self, token: str) -> keys.Key | None:
        """Return the key that `token` is, or None. Callers who ask at the same time share one look."""
        known = self._known.get(token)
        if known is not None and known[0] > time.monotonic():
            found = known[1]
        else:
            asking = self._asking.get(token)
            if asking is None:
                asking = asyncio.ensure_future(self._ask(token))
                self._asking[token] = asking
            # shielded: one caller who goes away must not take the answer from the others
            found = await asyncio.shield(asking)
        if found is not None:
            self._used.add((found.tenant_id, found.key_id))
        return found

    async def _ask(self, token: str) -> keys.Key | None:
        try:
            found = await keys.find(self._database, token)
        finally:
            del self._asking[token]
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[token] = (time.monotonic() + (TRUSTED_FOR if found else REFUSED_FOR), found)
        return found

    def forget(self) -> None:
        """Look every key up again: one has been revoked."""
        self._known.clear()

    async def touch(self) -> None:
        """Write which keys have been used since the last call."""
        used, self._used = self._used, set()
        for tenant_id in {tenant for tenant, _ in used}:
            async with self._database.transaction([tenant_id]) as conn:
                now: datetime = await clock(conn)
                await keys.touch(conn, tenant_id, [key for tenant, key in used if tenant == tenant_id], now)

    async def run(self) -> None:
        """Touch used keys for as long as the task lives, and once more at its end."""
        try:
            while True:
                await asyncio.sleep(TOUCH_EVERY)
                await self._try_to_touch()
        finally:
            await self._try_to_touch()

    async def _try_to_touch(self) -> None:
        try:
            await self.touch()
        except DatabaseError as error:
            _log.warning("key_use_not_noted", detail=error.message)


def is_loopback(host: str) -> bool:
    """Say whether an address to listen on reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _credential(request: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """Return the key that came with a request, or None. Raises `Unauthenticated` for two or a wrong kind."""
    given = [(name, value) for name, value in request.scope["headers"] if name in (b"authorization", b"x-api-key")]
    if not given:
        return None
    hint = "send Authorization: Bearer co_… or X-API-Key: co_…"
    if len(given) > 1:
        raise Unauthenticated("several credentials came with the request", hint=hint)
    ((name, value),) = given
    said = value.decode("latin-1").strip()
    if name == b"x-api-key":
        return said
    kind, _, token = said.partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise Unauthenticated("the credential is of another kind", hint=hint)
    return token.strip()


async def _principal(request: ASGIConnection[Any, Any, Any, Any], declared: Operation) -> Principal:
    state = request.app.state
    token = _credential(request)
    if token is None:
        if state.loopback and not declared.write:
            return Principal(tenant_id=state.tenant_id, key_id=None, name="anonymous", scopes=frozenset({"read"}))
        raise Unauthenticated(
            "an API key is needed for this",
            hint="send Authorization: Bearer co_…; `cron-observer token create` makes one",
        )
    if token.startswith(run_token.PREFIX):
        return await _run(request, token)
    key = await state.key_ring.find(token)
    if key is None:
        raise Unauthenticated("the API key is not valid", hint="it may have been revoked; make another one")
    return Principal(tenant_id=key.tenant_id, key_id=key.key_id, name=key.name, scopes=key.scopes)


async def _run(request: ASGIConnection[Any, Any, Any, Any], token: str) -> Principal:
    """Return the run that shows its token; every process knows a genuine one, since nothing is stored of it."""
    claimed = await request.app.state.signing_keys.genuine(token)
    if claimed is None:
        raise Unauthenticated("the run token is not valid", hint="use the run_token of the claim, unchanged")
    return Principal(tenant_id=claimed.tenant_id, key_id=None, name="run", scopes=frozenset(), run=claimed)


async def guard(request: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let in who may call `handler`, and put the `Principal` into the request; the app's one guard.

    Raises `Unauthenticated`, `Refused` or `RateLimited`.
    """
    declared = operation_of(handler) or _PAGE
    if handler.opt.get("public") or not declared.scopes:
        return
    principal = await _principal(request, declared)
    request.scope["user"] = principal
    counted = principal.actor if principal.run is not None else principal.key_id
    request.app.state.limiter.count(request, counted, time.monotonic())
    if principal.run is not None:
        if not declared.run_token:
            raise Refused("a run token is good for reports on its own run only", hint="use an API key for this")
        return
    if not principal.may(declared.scopes):
        raise Refused(
            "the API key does not have the scope for this",
            hint=f"use a key with the scope {' or '.join(declared.scopes)}",
            needed_scopes=list(declared.scopes),
        )


def principal_of(request: Request[Any, Any, Any]) -> Principal:
    """Return who calls; only inside handlers that are not public."""
    found = request.scope["user"]
    if not isinstance(found, Principal):
        raise TypeError(f"{request.route_handler} is public: nobody has been asked who they are")
    return found


def check_run(principal: Principal, execution_id: UUID, fence: int | None) -> None:
    """Refuse a run what is not its own; who brings an API key is asked nothing. `fence` None is that of any claim.

    Raises `NotFound` for another execution, as for one that is not there, and `Refused` for another fence.
    """
    run = principal.run
    if run is None:
        return
    if execution_id != run.execution_id:
        raise NotFound("there is no such execution")
    if fence is not None and fence != run.fence:
        raise Refused("the run token is of another claim", hint="send the fence of the claim that gave the token")


async def still_valid(request: Request[Any, Any, Any]) -> bool:
    """Say whether the key that opened a long connection is still good; run tokens open none."""
    token = _credential(request)
    return token is None or await request.app.state.key_ring.find(token) is not None
