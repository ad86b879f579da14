"""Pings: a job that somebody else runs says how it goes, in the protocol of Healthchecks.

No key is asked for: whoever knows an address may ping. An answer is plain text, as the clients of that protocol expect.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

from litestar import Litestar, Request, Response, get, post
from litestar.params import FromPath

from cron_observer.checkins import Ping, Signal
from cron_observer.errors import BadRequest, CronObserverError, DatabaseError, NotFound
from cron_observer.store import logs
from cron_observer.store.checkins import Arrived
from cron_observer_api import body as bodies
from cron_observer_api import metrics, problems
from cron_observer_api.limits import Limiter
from cron_observer_api.operation import declare
from cron_observer_api.ping_writer import AddressBook, Door, PingWriter
from cron_observer_api.receiving import Receiving

#: Bytes of a body that are kept, and that are taken at all.
BODY_KEPT: Final = 100_000
BODY_LIMIT: Final = 1024 * 1024

#: Characters of one line; what is longer goes on in the next, so that nothing of it is cut.
_LINE: Final = logs.MESSAGE_MAX // 4

#: Seconds that a body may take to arrive, and that a ping waits for the database.
BODY_WAIT: Final = 10.0
WRITE_WAIT: Final = 1.7

#: Unknown addresses that one client may try at once, and a second on average.
MISSES: Final = 100
MISSES_RATE: Final = 1.0

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_RID: Final = re.compile(r"(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_EXIT: Final = re.compile(r"[0-9]{1,9}")
_WORDS: Final = {"start": Signal.START, "fail": Signal.FAIL, "log": Signal.LOG}

_HEADERS: Final = {
    "Ping-Body-Limit": str(BODY_KEPT),
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Ping-Body-Limit",
    "Cache-Control": "no-store",
}

#: What is said in a word or two where the protocol has one.
_SAID: Final = {404: "not found", 413: "the body is too large", 429: "rate limited", 503: "try again in a moment"}


def misses() -> Limiter:
    """Return what counts the unknown addresses that a client tries."""
    return Limiter(MISSES_RATE, MISSES)


def _text(said: str, status: int = 200, more: dict[str, str] | None = None) -> Response[bytes]:
    headers = _HEADERS | (more or {})
    return Response(said.encode(), status_code=status, media_type="text/plain", headers=headers)


def _refused(error: CronObserverError) -> Response[bytes]:
    return _text(_SAID.get(error.status, error.message), error.status, problems.headers(error))


def said_by(action: str | None) -> tuple[Signal, int | None]:
    """Read the last part of an address: what a ping says, and the exit code. Raises `BadRequest`."""
    if action is None:
        return Signal.SUCCESS, None
    if action in _WORDS:
        return _WORDS[action], None
    if _EXIT.fullmatch(action) and int(action) <= 255:
        code = int(action)
        return (Signal.FAIL if code else Signal.SUCCESS), code
    raise BadRequest("invalid url format")


def _rid(request: Request[Any, Any, Any]) -> UUID | None:
    """Return the name of the run. Raises `BadRequest` for one that is no UUID."""
    pairs = parse_qsl(request.scope["query_string"].decode("ascii", "replace"), keep_blank_values=True)
    given = [value for name, value in pairs if name == "rid"]
    if not given:
        return None
    if not _RID.fullmatch(given[-1]):
        raise BadRequest("invalid uuid format")
    return UUID(given[-1])


async def _lines(request: Request[Any, Any, Any], level: str) -> logs.Lines | None:
    """Return the body of a POST as lines of a log. Raises `BadRequest` or `TooLarge`."""
    if request.method != "POST":
        return None
    try:
        async with asyncio.timeout(BODY_WAIT):
            raw = await bodies.collect(request, BODY_LIMIT)
    except TimeoutError:
        raise BadRequest(f"the body took longer than {BODY_WAIT:g} s") from None
    return lines_of(raw, level) if raw else None


def lines_of(raw: bytes, level: str) -> logs.Lines:
    """Return what is kept of a text as lines of a log."""
    text = raw[:BODY_KEPT].decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    lines = (line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))
    parts = (line[at : at + _LINE] for line in lines for at in range(0, len(line) or 1, _LINE))
    return logs.encode([{"level": level, "message": part} for part in parts])


async def deliver(
    request: Request[Any, Any, Any], door: Door, ping: Ping, lines: logs.Lines | None = None, *, known: bool = False
) -> None:
    """Write a ping at a door; return once it is durable. `known`: who asks has shown a key, and does not guess.

    Raises `NotFound` or `RateLimited` for a door that is nobody's, `DatabaseError` when it cannot be written in time.
    """
    state = request.app.state
    try:
        async with asyncio.timeout(WRITE_WAIT):
            pinged = await state.address_book.find(door)
            if pinged is None:
                if known:
                    raise NotFound("no task of this name is pinged in the project")
                state.ping_misses.count(request, None, time.monotonic())
                raise NotFound("not found")
            await state.ping_writer.submit(Arrived(tenant_id=pinged[0], task_uid=pinged[1], ping=ping, lines=lines))
    except TimeoutError:
        raise DatabaseError("the ping could not be written in time", hint="send it again in a moment") from None


async def _take(request: Request[Any, Any, Any], *parts: str) -> Response[bytes]:
    """Take a ping at an address of one to three parts, and answer it."""
    try:
        door, action = _door(parts)
        signal, code = said_by(action)
        ping = Ping(signal=signal, rid=_rid(request), exit_code=code)
        lines = await _lines(request, "ERROR" if signal is Signal.FAIL else "INFO")
        await deliver(request, door, ping, lines)
    except CronObserverError as error:
        metrics.count_ping("refused" if error.status < 500 else "unavailable")
        return _refused(error)
    metrics.count_ping("taken")
    return _text("OK")


def _door(parts: tuple[str, ...]) -> tuple[Door, str | None]:
    """Tell the address, or the key and the name, from what is said there. Raises `BadRequest`."""
    if _UUID.fullmatch(parts[0]) and len(parts) <= 2:
        return (UUID(parts[0]), None, None), parts[1] if len(parts) == 2 else None
    if len(parts) == 1 or _UUID.fullmatch(parts[0]):
        raise BadRequest("invalid url format")
    return (None, parts[0], parts[1]), parts[2] if len(parts) == 3 else None


def _declared(what: str) -> dict[str, Any]:
    return declare(
        summary=f"Say how a run goes that somebody else fires: {what}",
        tag="pings",
        answers={200: "text/plain"},
        problems=("not_found", "already_final", "too_large", "rate_limited", "unavailable"),
        plain=True,
        description="The protocol of Healthchecks, as docs/reference/pings.md lists it case by case. Answers and "
        "refusals are plain text. GET and HEAD mean the same as POST, whose body goes to the log.",
    )


_ADDRESS: Final = "/ping/{address:str}"
_TWO: Final = "/ping/{address:str}/{action:str}"
_THREE: Final = "/ping/{key:str}/{task:str}/{action:str}"


@get(_ADDRESS, operation_id="ping", opt=_declared("it succeeded"))
async def ping_get(request: Request[Any, Any, Any], address: FromPath[str]) -> Response[bytes]:
    """Take a success."""
    return await _take(request, address)


@post(_ADDRESS, operation_id="postPing", status_code=200, opt=_declared("it succeeded"))
async def ping_post(request: Request[Any, Any, Any], address: FromPath[str]) -> Response[bytes]:
    """Take a success, with what it brings for the log."""
    return await _take(request, address)


@get(_TWO, operation_id="pingAction", opt=_declared("start, fail, log or an exit code; or a key and a task's name"))
async def action_get(request: Request[Any, Any, Any], address: FromPath[str], action: FromPath[str]) -> Response[bytes]:
    """Take what the address says."""
    return await _take(request, address, action)


@post(_TWO, operation_id="postPingAction", status_code=200, opt=_declared("start, fail, log, an exit code, a name"))
async def action_post(
    request: Request[Any, Any, Any], address: FromPath[str], action: FromPath[str]
) -> Response[bytes]:
    """Take what the address says, with what it brings for the log."""
    return await _take(request, address, action)


@get(_THREE, operation_id="pingTask", opt=_declared("start, fail, log or an exit code of a named task"))
async def task_get(
    request: Request[Any, Any, Any], key: FromPath[str], task: FromPath[str], action: FromPath[str]
) -> Response[bytes]:
    """Take what the address says."""
    return await _take(request, key, task, action)


@post(_THREE, operation_id="postPingTask", status_code=200, opt=_declared("start, fail, log or an exit code of a task"))
async def task_post(
    request: Request[Any, Any, Any], key: FromPath[str], task: FromPath[str], action: FromPath[str]
) -> Response[bytes]:
    """Take what the address says, with what it brings for the log."""
    return await _take(request, key, task, action)


@asynccontextmanager
async def running(app: Litestar) -> AsyncIterator[None]:
    """Run the writer of pings, and say that pings are received, for as long as the app lives."""
    database = app.state.database
    app.state.address_book = AddressBook(database)
    writer = app.state.ping_writer = PingWriter(database)
    app.state.ping_misses = misses()
    writing = asyncio.create_task(writer.run(), name="pings")
    receiving = asyncio.create_task(Receiving(database).run(), name="receiving")
    try:
        yield
    finally:
        receiving.cancel()
        with suppress(asyncio.CancelledError):
            await receiving
        writer.stop()
        await writing


handlers = [ping_get, ping_post, action_get, action_post, task_get, task_post]
