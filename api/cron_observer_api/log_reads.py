"""Logs read back: lines by number, level and text, the numbers of what matches, and whole logs as files."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from uuid import UUID

from litestar import Request, Response, get
from litestar.params import FromPath
from litestar.response import Stream

from cron_observer.errors import BadRequest, NotFound
from cron_observer.store import logs, reads
from cron_observer_api import paths, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import answer, declare, query
from cron_observer_api.writes import transaction

#: How hard a log is compressed for a download: it is stored compressed lightly, and read once.
_LEVEL: Final = 6


def _missing() -> NotFound:
    return NotFound("there is no such execution", hint="GET /api/v1/executions lists them")


async def _parts(
    request: Request[Any, Any, Any], conn: Any, execution_id: UUID, attempt: int | None
) -> Sequence[logs.Part]:
    """Return the claims of an attempt; what is to be packed is packed in the background."""
    tenant_id = principal_of(request).tenant_id
    found = await logs.parts(conn, tenant_id, execution_id, attempt)
    if not found and await reads.task_of(conn, tenant_id, execution_id) is None:
        raise _missing()
    for part in found:
        if part.loose >= logs.LOOSE_MAX:
            request.app.state.packer.note(tenant_id, execution_id, part.fence)
    return found


@get(
    "/executions/{execution_id:str}/logs",
    operation_id="readExecutionLogs",
    opt=declare(
        summary="Read lines of an execution's log",
        tag="executions",
        scopes=("read",),
        query=wire.LogQuery,
        answers={200: wire.LogEntries},
        problems=("not_found",),
        description="`cuts` says which lines of the attempt are not kept.",
    ),
)
async def read_logs(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Return lines of one attempt, the latest by default."""
    wanted = paths.uuid(execution_id, "execution")
    asked = query(request, wire.LogQuery)
    tenant_id = principal_of(request).tenant_id
    async with transaction(request) as (conn, _):
        of = await _parts(request, conn, wanted, asked.attempt)
        found, next_seq = await logs.look(
            conn,
            tenant_id,
            wanted,
            of,
            from_seq=asked.from_seq,
            limit=asked.limit,
            wanted=logs.Wanted.of(asked.level, asked.q),
        )
    cuts = [cut.shown() for cut in logs.cuts(of)]
    return answer({"items": logs.items(found), "next_seq": next_seq, "cuts": cuts})


@get(
    "/executions/{execution_id:str}/logs/matches",
    operation_id="searchExecutionLogs",
    opt=declare(
        summary="Search an execution's log for the numbers of lines",
        tag="executions",
        scopes=("read",),
        query=wire.LogMatchQuery,
        answers={200: wire.LogMatches},
        problems=("not_found",),
        description="Looks through some 32 MiB at a time: go on at `next_seq` until it is null.",
    ),
)
async def read_matches(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Return which lines have a text in them."""
    wanted = paths.uuid(execution_id, "execution")
    asked = query(request, wire.LogMatchQuery)
    tenant_id = principal_of(request).tenant_id
    async with transaction(request) as (conn, _):
        of = await _parts(request, conn, wanted, asked.attempt)
        found, next_seq = await logs.look(
            conn,
            tenant_id,
            wanted,
            of,
            from_seq=asked.from_seq,
            limit=asked.limit,
            wanted=logs.Wanted.of(asked.level, asked.q),
        )
    numbers = [one.seq(number) for one in found for number in one.numbers]
    lines = of[-1].base + of[-1].lines if of else 0
    return answer({"items": numbers, "next_seq": next_seq, "lines": lines})


async def _download(request: Request[Any, Any, Any], execution_id: str, *, ndjson: bool, packed: bool) -> Stream:
    wanted = paths.uuid(execution_id, "execution")
    asked = query(request, wire.LogTextQuery)
    if asked.all_attempts and asked.attempt is not None:
        raise BadRequest("`attempt` and `all_attempts` exclude each other", hint="leave one away", pointer="/attempt")
    tenant_id = principal_of(request).tenant_id
    async with transaction(request) as (conn, _):
        of = await _parts(request, conn, wanted, asked.attempt)
        last = of[-1].attempt if of else None
    attempts = [last] if last is not None else []
    if asked.all_attempts and last is not None:
        attempts = list(range(1, last + 1))
    name = f"{wanted}.{'ndjson' if ndjson else 'log'}{'.gz' if packed else ''}"
    kind = "application/x-ndjson" if ndjson else "text/plain"
    pieces = _pieces(request, tenant_id, wanted, asked, attempts, ndjson=ndjson)
    return Stream(
        _gzip(pieces) if packed else pieces,
        media_type="application/gzip" if packed else kind,
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'{"attachment" if packed or ndjson else "inline"}; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
        },
    )


async def _pieces(
    request: Request[Any, Any, Any],
    tenant_id: UUID,
    execution_id: UUID,
    asked: wire.LogTextQuery,
    attempts: Sequence[int],
    *,
    ndjson: bool,
) -> AsyncIterator[bytes]:
    """Yield whole logs a piece at a time; no connection of the pool is held between two."""
    for attempt in attempts:
        from_seq: int | None = asked.from_seq
        while from_seq is not None:
            async with transaction(request) as (conn, _):
                of = await logs.parts(conn, tenant_id, execution_id, attempt)
                piece = await logs.export(
                    conn,
                    tenant_id,
                    execution_id,
                    of,
                    from_seq=from_seq,
                    wanted=logs.Wanted.of(asked.level, asked.q),
                    ndjson=ndjson,
                )
            if piece.data:
                yield piece.data
            from_seq = piece.following


async def _gzip(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    engine = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)
    async for piece in pieces:
        if packed := await asyncio.to_thread(engine.compress, piece):
            yield packed
    yield engine.flush()


def _said(summary: str, kind: str) -> dict[str, Any]:
    return declare(
        summary=summary,
        tag="executions",
        scopes=("read",),
        query=wire.LogTextQuery,
        answers={200: kind},
        problems=("not_found",),
        description="Streamed, whatever its length. What is not kept is said where it was.",
    )


@get(
    "/executions/{execution_id:str}/logs.txt",
    operation_id="readExecutionLogText",
    opt=_said("Read an execution's log as plain text", "text/plain"),
)
async def text(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Stream:
    """Stream lines of time, level and message."""
    return await _download(request, execution_id, ndjson=False, packed=False)


@get(
    "/executions/{execution_id:str}/logs.txt.gz",
    operation_id="downloadExecutionLogText",
    opt=_said("Download an execution's log as compressed text", "application/gzip"),
)
async def text_packed(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Stream:
    """Stream the same, compressed."""
    return await _download(request, execution_id, ndjson=False, packed=True)


@get(
    "/executions/{execution_id:str}/logs.ndjson",
    operation_id="readExecutionLogObjects",
    opt=_said("Read an execution's log as NDJSON", "application/x-ndjson"),
)
async def objects(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Stream:
    """Stream an object for each line, and `{"cut": …}` for what is not kept."""
    return await _download(request, execution_id, ndjson=True, packed=False)


@get(
    "/executions/{execution_id:str}/logs.ndjson.gz",
    operation_id="downloadExecutionLogObjects",
    opt=_said("Download an execution's log as compressed NDJSON", "application/gzip"),
)
async def objects_packed(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Stream:
    """Stream the same, compressed."""
    return await _download(request, execution_id, ndjson=True, packed=True)


handlers = [read_logs, read_matches, text, text_packed, objects, objects_packed]
