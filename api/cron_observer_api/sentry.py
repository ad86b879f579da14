"""Sentry's check-ins, as its SDK sends them: a monitor is a task that somebody else fires, its slug the task's name.

`monitor_config` is left alone: Git, or whoever made the task, says what its schedule is.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
import zlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import brotli
import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath

from cron_observer.checkins import Ping, Signal
from cron_observer.errors import BadRequest, DatabaseError, NotFound, Refused
from cron_observer_api import body as bodies
from cron_observer_api import metrics
from cron_observer_api.operation import answer, declare
from cron_observer_api.pings import BODY_WAIT, WRITE_WAIT, deliver
from cron_observer_api.problems import TooLarge, UnsupportedMedia

#: Bytes of an envelope, as it is sent and unpacked.
LIMIT: Final = 1024 * 1024

#: Items of an envelope that are looked at.
ITEMS_MAX: Final = 1_000

#: What a status says.
_SIGNALS: Final = {"in_progress": Signal.START, "ok": Signal.SUCCESS, "error": Signal.FAIL}

_ID: Final = re.compile(r"(?i)[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY: Final = re.compile(r"[0-9a-f]{32}")
_IN_HEADER: Final = re.compile(r"(?i)\bsentry_key\s*=\s*\"?([0-9a-z]{1,64})")

#: The longest duration that a run may have had.
_LONGEST: Final = 366 * 86400.0


class CheckIn(msgspec.Struct, kw_only=True):
    """What a check-in says of a run; what else it says is left alone."""

    monitor_slug: str
    status: str
    check_in_id: str | None = None
    duration: float | None = None


class CronQuery(msgspec.Struct, kw_only=True):
    """The parameters of a check-in by address."""

    status: str
    check_in_id: str | None = None
    environment: str | None = None
    duration: float | None = None


def ping_of(said: CheckIn) -> Ping:
    """Read a check-in. Raises `BadRequest`."""
    signal = _SIGNALS.get(said.status)
    if signal is None:
        raise BadRequest("the status is not known", hint="write in_progress, ok or error")
    lasted = None
    if said.duration is not None:
        if not math.isfinite(said.duration) or not 0 <= said.duration <= _LONGEST:
            raise BadRequest("the duration is no number of seconds", hint="leave it out, or send what it took")
        lasted = timedelta(seconds=said.duration)
    named = _named(said.check_in_id)
    latest = named is not None and named.int == 0
    return Ping(signal=signal, rid=None if latest else named, latest=latest, lasted=lasted, sender="sentry")


def _named(identity: str | None) -> UUID | None:
    if not identity:
        return None
    if not _ID.fullmatch(identity):
        raise BadRequest("check_in_id is no UUID", hint="send 32 hexadecimal digits, with or without hyphens")
    return UUID(identity)


async def _authenticate(request: Request[Any, Any, Any], key: str | None, number: str) -> str:
    """Return the key if it opens the project of this number. Raises `Refused`, `RateLimited` or `DatabaseError`."""
    state, opened = request.app.state, False
    if key is not None and _KEY.fullmatch(key) and number.isascii() and number.isdecimal() and len(number) <= 15:
        try:
            async with asyncio.timeout(WRITE_WAIT):
                opened = await state.address_book.opens(key, int(number))
        except TimeoutError:
            raise DatabaseError("the check-in could not be written in time") from None
    if not opened or key is None:
        state.ping_misses.count(request, None, time.monotonic())
        raise Refused("the key does not open this project", hint="take the DSN that the task's page shows")
    return key


_PROBLEMS: Final = (
    "forbidden",
    "not_found",
    "already_final",
    "too_large",
    "unsupported_media_type",
    "rate_limited",
    "unavailable",
)


def _declared(summary: str, **more: Any) -> dict[str, Any]:
    return declare(summary=summary, tag="pings", answers={200: Taken}, problems=_PROBLEMS, **more)


class Taken(msgspec.Struct):
    """The answer to a check-in."""

    id: str


async def _cron(request: Request[Any, Any, Any], number: str, task: str, key: str) -> Response[bytes]:
    pairs = {name: request.query_params.get(name) for name in ("status", "check_in_id", "environment", "duration")}
    try:
        asked = msgspec.convert({name: value for name, value in pairs.items() if value}, CronQuery, strict=False)
    except msgspec.ValidationError as error:
        raise bodies.explain(error) from error
    said = CheckIn(monitor_slug=task, status=asked.status, check_in_id=asked.check_in_id, duration=asked.duration)
    ping = ping_of(said)
    opened = await _authenticate(request, key, number)
    await deliver(request, (None, opened, task), ping, known=True)
    metrics.count_ping("taken")
    return answer({"id": (ping.rid or uuid4()).hex})


_CRON: Final = "/api/{number:str}/cron/{task:str}/{key:str}"


@get(
    _CRON,
    operation_id="sentryCheckIn",
    opt=_declared("Take a check-in of Sentry's", query=CronQuery),
)
async def cron_get(
    request: Request[Any, Any, Any], number: FromPath[str], task: FromPath[str], key: FromPath[str]
) -> Response[bytes]:
    """Take a check-in."""
    return await _cron(request, number, task, key)


@post(
    _CRON,
    operation_id="postSentryCheckIn",
    status_code=200,
    opt=_declared("Take a check-in of Sentry's", query=CronQuery),
)
async def cron_post(
    request: Request[Any, Any, Any], number: FromPath[str], task: FromPath[str], key: FromPath[str]
) -> Response[bytes]:
    """Take a check-in; what it brings is left alone."""
    return await _cron(request, number, task, key)


@post(
    "/api/{number:str}/envelope",
    operation_id="sentryEnvelope",
    status_code=200,
    opt=_declared(
        "Take an envelope of Sentry's SDK: check-ins are taken, everything else is left alone",
        body_limit=LIMIT,
        description="Plain, or packed as gzip, deflate or br. The key comes in `X-Sentry-Auth`, in `sentry_key` or in "
        "the envelope's `dsn`. A monitor that is no task is left alone.",
    ),
)
async def envelope(request: Request[Any, Any, Any], number: FromPath[str]) -> Response[bytes]:
    """Take the check-ins of an envelope."""
    try:
        async with asyncio.timeout(BODY_WAIT):
            raw = await bodies.collect(request, LIMIT)
    except TimeoutError:
        raise BadRequest(f"the body took longer than {BODY_WAIT:g} s", hint="send it again") from None
    head, items = read_envelope(unpack(raw, request.headers.get("content-encoding", "")))
    key = await _authenticate(request, _key(request, head), number)
    last = uuid4()
    for said in items:
        ping = ping_of(said)
        try:
            await deliver(request, (None, key, said.monitor_slug), ping, known=True)
        except NotFound:
            continue  # another product's monitor, which nobody has declared here
        last = ping.rid or last
        metrics.count_ping("taken")
    return answer({"id": last.hex})


def _key(request: Request[Any, Any, Any], head: dict[str, Any]) -> str | None:
    found = _IN_HEADER.search(request.headers.get("x-sentry-auth", ""))
    if found:
        return found[1]
    given = request.query_params.get("sentry_key")
    if given:
        return str(given)
    dsn = head.get("dsn")
    try:
        return urlsplit(dsn).username if isinstance(dsn, str) else None
    except ValueError:
        return None


def unpack(raw: bytes, coding: str) -> bytes:
    """Return an envelope unpacked. Raises `BadRequest`, `TooLarge` or `UnsupportedMedia`."""
    word = coding.strip().lower()
    try:
        if word in {"", "identity"}:
            return raw
        if word in {"gzip", "deflate"}:
            engine = zlib.decompressobj(wbits=47)  # either, by what it begins with
            data, whole = engine.decompress(raw, LIMIT + 1), engine.eof
        elif word == "br":
            unpacking = brotli.Decompressor()
            data = unpacking.process(raw, output_buffer_limit=LIMIT + 1)
            whole = unpacking.is_finished()
        else:
            raise UnsupportedMedia("the Content-Encoding is not read here", hint="send gzip, deflate or br")
    except (zlib.error, brotli.error) as error:
        raise BadRequest("the body is not packed as it says", hint="send it again, or as it is") from error
    if len(data) > LIMIT:
        raise TooLarge(f"an envelope may have {LIMIT} bytes", hint="send less at a time", limit_bytes=LIMIT)
    if not whole:
        raise BadRequest("the packed body is cut off", hint="send it again")
    return data


def read_envelope(raw: bytes) -> tuple[dict[str, Any], list[CheckIn]]:
    """Return the head of an envelope and the check-ins in it. Raises `BadRequest` for what is none."""
    first, _, rest = raw.partition(b"\n")
    head = _object(first)
    found = []
    for kind, payload in _items(rest):
        if kind == "check_in":
            try:
                found.append(msgspec.json.decode(payload, type=CheckIn))
            except msgspec.DecodeError as error:
                raise BadRequest("a check-in cannot be read", hint="send what Sentry's SDK sends") from error
    return head, found


def _items(rest: bytes) -> Iterator[tuple[object, bytes]]:
    """Yield the type and the payload of each item: a line of JSON, and as many bytes as it says, or a line."""
    at = 0
    for _ in range(ITEMS_MAX):
        while rest[at : at + 1] == b"\n":
            at += 1
        if at >= len(rest):
            return
        end = rest.find(b"\n", at)
        line = rest[at:] if end < 0 else rest[at:end]
        said, start = _object(line), len(rest) if end < 0 else end + 1
        length = said.get("length")
        if isinstance(length, int) and not isinstance(length, bool):
            if length < 0 or start + length > len(rest):
                raise BadRequest("an item of the envelope is cut off", hint="send it again")
            at = start + length
        else:
            behind = rest.find(b"\n", start)
            at = len(rest) if behind < 0 else behind
        yield said.get("type"), rest[start:at]
    raise BadRequest(f"an envelope may have {ITEMS_MAX} items", hint="send less at a time")


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest("the body is no envelope", hint="send what Sentry's SDK sends") from error
    if not isinstance(found, dict):
        raise BadRequest("the body is no envelope", hint="send what Sentry's SDK sends")
    return found


handlers = [cron_get, cron_post, envelope]
