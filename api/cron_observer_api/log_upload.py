"""Plain text and NDJSON as they come, for scripts: any length, stored piece by piece while it arrives.

Each piece is one report, acknowledged by its commit. What has been taken is counted in bytes of the text as it was
before compression: with `offset` a body that was cut off, or sent again, goes on where the log ends.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from email.message import Message
from typing import Annotated, Any, Final

from litestar import Request, Response, post, put
from litestar.params import FromPath
from msgspec import Meta

from cron_observer.errors import BadRequest, LogGap
from cron_observer.store import logs
from cron_observer.store.executions import AppendText
from cron_observer_api import log_lines, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import answer, declare, query
from cron_observer_api.problems import TooLarge, UnsupportedMedia
from cron_observer_api.reports import submit
from cron_observer_api.writer import Written

#: Bytes of text that one report stores, about.
PIECE: Final = 256 * 1024

#: So much may come out of a compressed body whatever it was; beyond it, no more than so many times what was sent.
FREE: Final = 16 * 1024 * 1024
RATIO: Final = 20

NDJSON: Final = "application/x-ndjson"

#: What text is labelled as; `curl --data-binary` says that it is a form, and `curl -T` says nothing.
TEXTS: Final = ("text/plain", "application/octet-stream", "application/x-www-form-urlencoded")


class UploadQuery(wire.In):
    """Under which claim, from which byte on, and as which level."""

    fence: wire.Fence | None = None
    offset: Annotated[int, Meta(ge=0, le=1 << 62)] | None = None
    level: wire.Level = "INFO"
    partial: bool = False


class Uploaded(wire.Out):
    """Where the log and the text go on."""

    next_seq: int
    next_offset: int
    cancel_requested: bool


@dataclass(slots=True)
class _Upload:
    """A body on its way into a log."""

    send: Callable[..., Awaitable[Written]]
    ndjson: bool
    level: str
    offset: int | None  #: of the first byte that is kept here
    kept: bytes = b""
    torn: bool = False  #: what is kept goes on in the middle of a line
    number: int = 0  #: of NDJSON lines before it, for messages

    async def take(self, raw: bytes) -> None:
        """Store what is whole of `raw` and what was kept."""
        self.kept += raw
        while len(self.kept) >= PIECE:
            end = self.kept.rfind(b"\n", 0, PIECE) + 1
            if end == 0 and self.ndjson:
                raise TooLarge("a line of NDJSON is too long", hint="send shorter lines", limit_bytes=PIECE)
            await self.store(end or _whole(self.kept, PIECE))

    async def end(self, *, partial: bool) -> Written:
        """Store the rest; with `partial`, only up to its last newline."""
        if partial:
            self.kept = self.kept[: self.kept.rfind(b"\n") + 1]
        return await self.store(len(self.kept))

    async def store(self, size: int) -> Written:
        """Store the first `size` bytes of what is kept, but those that the log has already."""
        while True:
            piece = self.kept[:size]
            try:
                written = await self._store(piece)
            except LogGap as gap:
                have = int(gap.facts["expected_offset"])
                if self.offset is None or have <= self.offset:
                    raise
                known = min(have - self.offset, size)
                self.kept, self.offset, size = self.kept[known:], self.offset + known, size - known
                self.torn = False
                if size:
                    continue
                return await self.send(offset=None, size=0, lines=logs.split(b""))
            self.kept = self.kept[size:]
            if self.offset is not None:
                self.offset += size
            return written

    async def _store(self, piece: bytes) -> Written:
        if self.ndjson:
            try:
                lines = log_lines.ndjson(piece)
            except BadRequest as error:
                _, number, *rest = str(error.facts.get("pointer", "/0")).split("/", 2)
                error.facts["pointer"] = "/".join(["", str(self.number + int(number)), *rest])
                raise
        else:
            lines = logs.split(piece, self.level, continues=self.torn)
        written = await self.send(offset=self.offset, size=len(piece), lines=lines)
        self.number += piece.count(b"\n")
        self.torn = bool(piece) and not piece.endswith(b"\n")
        return written


def _whole(raw: bytes, size: int) -> int:
    """Return where to cut bytes, at `size` or a little before, so that no character is torn apart."""
    lead = size - 1
    while size - lead < 4 and raw[lead] & 0xC0 == 0x80:
        lead -= 1
    first = raw[lead]
    many = 4 if first >= 0xF0 else 3 if first >= 0xE0 else 2 if first >= 0xC0 else 1
    return lead if lead + many > size else size


def _kind(request: Request[Any, Any, Any]) -> bool:
    """Say whether the body is NDJSON; raise `UnsupportedMedia` if it is neither that nor text."""
    given = request.headers.get("content-type", "")
    if not given:
        return False
    message = Message()
    message["content-type"] = given
    kind = message.get_content_type()
    charset = message.get_param("charset", "utf-8")
    if kind not in (*TEXTS, NDJSON):
        raise UnsupportedMedia("the body is neither text nor NDJSON", hint=f"send it as text/plain or as {NDJSON}")
    if str(charset).lower() not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia("the text is not labelled as UTF-8", hint="leave the charset away")
    return kind == NDJSON


async def _pieces(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """Yield the body as it comes, inflated a little at a time."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip"):
        raise UnsupportedMedia("the Content-Encoding is not read here", hint="send the body as it is or gzip")
    engine = zlib.decompressobj(wbits=31) if coding == "gzip" else None
    sent = came = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] != "http.request":
            raise BadRequest("the client went away before its body was whole")
        more, raw = message["more_body"], message["body"]
        sent += len(raw)
        if engine is None:
            yield raw
            continue
        while raw:
            try:
                out = engine.decompress(raw, PIECE)
            except zlib.error as error:
                raise BadRequest("the body is not gzip", hint="compress it again, or send it as it is") from error
            came += len(out)
            if came > FREE and came > RATIO * sent:
                raise TooLarge("the body inflates too much", hint="send it in parts", limit_bytes=FREE)
            yield out
            raw = engine.unconsumed_tail or (engine.unused_data if engine.eof else b"")
            if engine.eof and raw:  # another member follows, as tools write them that append
                engine = zlib.decompressobj(wbits=31)
    if engine is not None and sent and not engine.eof:
        raise BadRequest("the gzip body is cut off", hint="send all of it; next_offset says what has been stored")


async def _upload(request: Request[Any, Any, Any], execution_id: str) -> Response[bytes]:
    asked = query(request, UploadQuery)
    run = principal_of(request).run
    fence = run.fence if asked.fence is None and run is not None else asked.fence

    async def send(**said: Any) -> Written:
        return await submit(request, execution_id, AppendText, fence=fence, **said)

    upload = _Upload(send, _kind(request), asked.level, asked.offset)
    async for raw in _pieces(request):
        await upload.take(raw)
    written = await upload.end(partial=asked.partial)
    run_now = written.answer.run
    cancelled = run_now is not None and run_now.cancel_requested_at is not None
    said = {"next_seq": written.answer.next_seq, "next_offset": written.answer.stream, "cancel_requested": cancelled}
    return answer(said, 202)


_SAID: Final = {
    "tag": "worker",
    "scopes": ("report",),
    "write": True,
    "run_token": True,
    "query": UploadQuery,
    "answers": {202: Uploaded},
    "problems": ("not_found", "lease_lost", "already_final", "not_running", "log_gap"),
    "gzip": True,
    "description": (
        "The body is text/plain (or unlabelled), or application/x-ndjson with an object `{message, level?, ts?, "
        "fields?}` a line; of any length, gzip allowed. Each line of text is a line of the log; what is longer than "
        "16 KiB is split, what is no UTF-8 replaced and flagged. `fence` may be missing for what PATCH has taken. "
        "With `offset`, the place of the body in the whole text in bytes, what is stored already is dropped and a "
        "gap refused with `expected_offset`; without, the text is appended. `partial` keeps back what stands behind "
        "the last newline: go on at `next_offset`."
    ),
}


@post(
    "/executions/{execution_id:str}/logs/raw",
    operation_id="uploadLog",
    status_code=202,
    opt=declare(summary="Append text to the log, as it is", **_SAID),
)
async def upload_log(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Store the lines of a body while it comes."""
    return await _upload(request, execution_id)


@put(
    "/executions/{execution_id:str}/logs/raw",
    operation_id="putLog",
    status_code=202,
    opt=declare(summary="Append text to the log, as tools send it that upload files", **_SAID),
)
async def put_log(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Do the same for `curl -T`."""
    return await _upload(request, execution_id)


handlers = [upload_log, put_log]
