"""What surrounds every request: the checks that come before routing, the fields that go onto every answer.

Plain ASGI, so that it also sees what the framework answers by itself (404, 405).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from cron_observer.errors import BadRequest, CronObserverError, NotFound
from cron_observer.store import addresses
from cron_observer_api import limits, metrics, problems
from cron_observer_api.auth import is_loopback
from cron_observer_api.problems import BadHost, HeadersTooLarge, UriTooLong

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Header fields of a request, and their bytes together; honest clients need a tenth.
MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 16 * 1024

#: Bytes of path and query string; a cursor with every filter needs a quarter.
MAX_TARGET: Final = 8 * 1024

_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:@/\[\]]+))(?::[0-9]{1,5})?")

#: On every answer. Pages set a Content-Security-Policy of their own; whatever sets none gets this one.
SECURITY: Final = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}

#: Escapes that change what a path means once they are undone: slash, backslash, NUL.
_TREACHEROUS: Final = (b"%2f", b"%5c", b"%00")


class Hosts:
    """Which Host header fields are answered. None in `names` means any: we do not know how we are reached."""

    def __init__(self, names: frozenset[str] | None) -> None:
        self.names = names

    @classmethod
    def of(cls, host: str, base_url: str | None, allowed: tuple[str, ...]) -> Hosts:
        """Make the list for a server that listens on `host`; one that is not loopback needs `allowed` to check."""
        if not is_loopback(host) and not allowed:
            return cls(None)
        names = {"localhost", "127.0.0.1", "::1", host.strip("[]"), *allowed}
        if base_url:
            names.add(_name(base_url.split("://", 1)[-1].split("/", 1)[0]))
        return cls(frozenset(name.lower() for name in names))

    def check(self, given: list[bytes]) -> None:
        """Raise `BadHost` unless exactly one Host came and it is one of ours."""
        hint = "use the address that the server printed, or add the name to `allowed_hosts`"
        if len(given) != 1:
            raise BadHost("the request must have exactly one Host header", hint=hint)
        name = _name(given[0].decode("latin-1"))
        if not name or (self.names is not None and name.lower().rstrip(".") not in self.names):
            raise BadHost("the Host header names another server", hint=hint)


def _name(authority: str) -> str:
    """Return the host of ``host:port``, without the brackets of IPv6; an empty text for what is none."""
    match = _AUTHORITY.fullmatch(authority)
    return (match[1] or match[2]) if match else ""


class Edge:
    """Wraps the app; refuses what must not reach it and completes what comes out."""

    def __init__(self, app: App, hosts: Hosts, base_url: str | None = None) -> None:
        """`base_url` is where clients reach us, None for the address that each of them has used."""
        self._app = app
        self._hosts = hosts
        self._base_url = None if base_url is None else base_url.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; lifespan events pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        method = scope["method"]
        sender = _Sender(scope, send, bodiless=method == "HEAD")
        try:
            self._check(scope)
        except CronObserverError as error:
            await _refuse(sender, error)
        else:
            addresses.reached_at.set(self._base_url or _reached(scope))
            if method == "HEAD":
                await self._head(scope, receive, sender)
            else:
                await self._app(scope, receive, sender)
        metrics.count_request(method, scope.get("path_template"), sender.status, time.perf_counter() - began)

    async def _head(self, scope: Scope, receive: Receive, sender: _Sender) -> None:
        """Serve a GET whose body stays here; one that would never end is stopped at its first line."""
        # A copy: the server itself goes by the method when it holds the body against its Content-Length.
        scope.setdefault("state", {})
        asked = dict(scope) | {"method": "GET"}
        serving = asyncio.ensure_future(self._app(asked, receive, sender))
        headed = asyncio.ensure_future(sender.headed.wait())
        try:
            await asyncio.wait({serving, headed}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
        finally:
            headed.cancel()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            scope["path_template"] = asked.get("path_template")

    def _check(self, scope: Scope) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if len(headers) > MAX_HEADERS or sum(len(k) + len(v) for k, v in headers) > MAX_HEADER_BYTES:
            raise HeadersTooLarge(
                f"at most {MAX_HEADERS} header fields and {MAX_HEADER_BYTES} bytes are read",
                hint="send fewer or shorter ones",
            )
        self._hosts.check([value for name, value in headers if name == b"host"])
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        if len(raw) + len(scope["query_string"]) > MAX_TARGET:
            raise UriTooLong(f"the address may have {MAX_TARGET} bytes", hint="ask for less at a time")
        lowered = raw.lower()
        if any(escape in lowered for escape in _TREACHEROUS):
            raise NotFound("there is no such address", hint="names and ids need no escapes")
        if not scope["query_string"].isascii():
            raise BadRequest("the query string is not ASCII", hint="escape it with %")


def _reached(scope: Scope) -> str:
    """Return the address at which a request has reached us; its Host was checked."""
    host = next(value for name, value in scope["headers"] if name == b"host")
    return f"{scope['scheme']}://{host.decode('latin-1')}"


async def _refuse(send: Send, error: CronObserverError) -> None:
    body = msgspec.json.encode(problems.problem(error))
    fields = {"Content-Type": problems.MEDIA_TYPE, "Content-Length": str(len(body))} | problems.headers(error)
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


class _Sender:
    """Sends an answer with the fields that every answer has."""

    def __init__(self, scope: Scope, send: Send, *, bodiless: bool) -> None:
        self._scope = scope
        self._send = send
        self._bodiless = bodiless
        self.status = 0
        self.headed = asyncio.Event()  #: an answer without a body has been sent

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message["headers"])
            there = {name.lower() for name, _ in headers}
            if there.isdisjoint(SECURITY):
                headers += SECURITY.items()
            else:
                headers += [(name, value) for name, value in SECURITY.items() if name not in there]
            headers += self._scope.get("state", {}).get(limits.FIELDS, [])
            message = message | {"headers": headers}
        if not self._bodiless:
            await self._send(message)
        elif message["type"] == "http.response.start":
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self.headed.set()
