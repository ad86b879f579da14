"""Receivers of webhooks on real sockets: what came, and answers of every kind; and a dispatcher that sends to them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from cron_observer.dispatch import Dispatcher
from cron_observer.settings import Settings
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, make_slot, make_task

#: Seconds in which something has to come about.
PATIENCE = 20.0

#: The networks of the tests' receivers.
LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    def header(self, name: str) -> str:
        """Return the only header of this name."""
        (value,) = [value for key, value in self.headers if key.lower() == name.lower()]
        return value


def reply(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Return a whole answer; header names are written with underscores."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


#: Answers a request: the whole answer, or something that writes it by itself.
Handler = Callable[[Received, asyncio.StreamWriter], Awaitable[bytes | None]]


class Receiver:
    """A server that remembers what it was sent."""

    def __init__(self, handler: Handler | bytes) -> None:
        self.received: list[Received] = []
        self.open = 0
        self.most = 0
        self._handler = handler

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request, answer it, hang up."""
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.split("\r\n")
            headers = [(name, value.strip()) for name, _, value in (one.partition(":") for one in fields if one)]
            size = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            came = Received(line, headers, await reader.readexactly(size))
            self.received.append(came)
            answer = self._handler if isinstance(self._handler, bytes) else await self._handler(came, writer)
            if answer is not None:
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    url = ""
    port = 0


@asynccontextmanager
async def receiver(handler: Handler | bytes = b"", *, path: str = "/hook", **options: Any) -> AsyncIterator[Receiver]:
    """Run a receiver on loopback; without a handler it answers 204."""
    made = Receiver(handler or reply(204))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, **options)
    made.port = server.sockets[0].getsockname()[1]
    made.url = f"{'https' if options else 'http'}://127.0.0.1:{made.port}{path}"
    try:
        yield made
    finally:
        server.close()
        if hasattr(server, "abort_clients"):
            server.abort_clients()


def settings(**changes: Any) -> Settings:
    """Return settings that let webhooks reach the tests' receivers."""
    return Settings(**{"webhook_networks": LOOPBACK, **changes})


def due(tenant: Tenant, url: str, name: str = "export", *, http: dict[str, Any] | None = None, **changes: Any) -> UUID:
    """Make a webhook task with one slot that is due; return the slot's id."""
    run = {"http": {"url": url, "method": "POST", "headers": {}, "timeout": "30s", **(http or {})}}
    task = make_task(tenant, name, run=run, queue="@http", **changes)
    return slot(tenant, task)


def slot(tenant: Tenant, task: UUID, ago: float = 1.0) -> UUID:
    """Make a slot of a webhook task that fell due so many seconds ago."""
    return make_slot(tenant, task, database_now(tenant.database) - timedelta(seconds=ago), queue="@http")


@asynccontextmanager
async def dispatching(
    database: FreshDatabase, dispatcher: Dispatcher | None = None, *, look: float = 0.2, **changes: Any
) -> AsyncIterator[Dispatcher]:
    """Run a dispatcher's loop, which looks each `look` seconds at least; at the end it is stopped as a process is."""
    running = dispatcher or Dispatcher(database.scheduler, settings(**changes))

    async def loop() -> None:
        while True:
            running.wake.clear()
            await running.tick()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(look):
                    await running.wake.wait()

    ticking = asyncio.create_task(loop())
    try:
        yield running
    finally:
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking
        await running.close()


async def until(condition: Callable[[], Any], seconds: float | None = None) -> Any:
    """Wait until a condition holds, and return what it gave."""
    end = time.monotonic() + (PATIENCE if seconds is None else seconds)
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.02)
    return found


def row(database: FreshDatabase, identity: UUID) -> dict[str, Any]:
    """Return an execution's row."""
    (found,) = database.rows("SELECT * FROM executions WHERE id = %s", identity)
    return found


def ended(database: FreshDatabase, identity: UUID) -> dict[str, Any] | None:
    """Return an execution's row once it has ended."""
    found = row(database, identity)
    return found if found["finished_at"] is not None else None


def event(database: FreshDatabase, identity: UUID, kind: str) -> dict[str, Any]:
    """Return the data of the last event of a kind."""
    rows = database.rows(
        "SELECT data FROM execution_events WHERE execution_id = %s AND type = %s ORDER BY seq", identity, kind
    )
    return rows[-1]["data"] or {}


def signature(secret: str, identity: str, timestamp: str, body: bytes) -> str:
    """Compute a Standard Webhooks signature by itself, from the words of the specification."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return (
        "v1," + base64.b64encode(hmac.digest(key, f"{identity}.{timestamp}.".encode() + body, hashlib.sha256)).decode()
    )
