"""Sources and their sync runs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.params import FromPath

from cron_observer.errors import NotFound
from cron_observer.store import audit, source_reads
from cron_observer_api import paths, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import answer, declare, query
from cron_observer_api.writes import transaction


def _missing() -> NotFound:
    return NotFound("there is no such source", hint="GET /api/v1/sources lists them")


@get(
    "/sources",
    operation_id="listSources",
    opt=declare(
        summary="List sources by name",
        tag="sources",
        scopes=("read",),
        query=wire.PageQuery,
        answers={200: wire.Sources},
        problems=("bad_cursor",),
    ),
)
async def list_sources(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return a page of sources."""
    asked = query(request, wire.PageQuery)
    cursors = request.app.state.cursors
    after = cursors.read(request, asked.cursor, str)
    async with transaction(request) as (conn, now):
        items, last = await source_reads.list_sources(
            conn, principal_of(request).tenant_id, now=now, limit=asked.limit, after=after
        )
    return answer({"items": items, "next_cursor": cursors.make(request, last)})


@get(
    "/sources/{source:str}",
    operation_id="getSource",
    opt=declare(
        summary="Read a source, with what is wrong in its files now",
        tag="sources",
        scopes=("read",),
        answers={200: wire.SourceWithFindings},
        problems=("not_found",),
    ),
)
async def get_source(request: Request[Any, Any, Any], source: FromPath[str]) -> Response[bytes]:
    """Return one source."""
    tenant_id = principal_of(request).tenant_id
    async with transaction(request) as (conn, now):
        found = await source_reads.get_source(conn, tenant_id, source, now=now)
        if found is None:
            raise _missing()
        findings = await source_reads.findings(conn, tenant_id, found[0])
    return answer(found[1] | {"findings": findings})


@get(
    "/sources/{source:str}/runs",
    operation_id="listSourceRuns",
    opt=declare(
        summary="List the runs of a source, newest first",
        tag="sources",
        scopes=("read",),
        query=wire.PageQuery,
        answers={200: wire.Runs},
        problems=("not_found", "bad_cursor"),
    ),
)
async def list_runs(request: Request[Any, Any, Any], source: FromPath[str]) -> Response[bytes]:
    """Return a page of runs."""
    asked = query(request, wire.PageQuery)
    cursors = request.app.state.cursors
    after = cursors.read(request, asked.cursor, UUID)
    tenant_id = principal_of(request).tenant_id
    async with transaction(request) as (conn, now):
        found = await source_reads.get_source(conn, tenant_id, source, now=now)
        if found is None:
            raise _missing()
        items, last = await source_reads.list_runs(conn, tenant_id, found[0], limit=asked.limit, after=after)
    return answer({"items": items, "next_cursor": cursors.make(request, last)})


@get(
    "/runs/{run_id:str}",
    operation_id="getRun",
    opt=declare(
        summary="Read a sync run with its findings",
        tag="sources",
        scopes=("read",),
        answers={200: wire.Run},
        problems=("not_found",),
    ),
)
async def get_run(request: Request[Any, Any, Any], run_id: FromPath[str]) -> Response[bytes]:
    """Return one run."""
    wanted = paths.uuid(run_id, "run")
    async with transaction(request) as (conn, _):
        found = await source_reads.get_run(conn, principal_of(request).tenant_id, wanted)
    if found is None:
        raise NotFound("there is no such run", hint="GET /api/v1/sources/{name}/runs lists them")
    return answer(found)


@post(
    "/sources/{source:str}/sync",
    operation_id="syncSource",
    status_code=202,
    opt=declare(
        summary="Ask for a pass over a source at once",
        tag="sources",
        scopes=("trigger", "tasks:write"),
        write=True,
        answers={202: wire.SyncRequested},
        problems=("not_found",),
    ),
)
async def sync_source(request: Request[Any, Any, Any], source: FromPath[str]) -> Response[bytes]:
    """Note the wish; the reconciler looks within a second, and sets `handled_seq` when it has finished."""
    caller = principal_of(request)
    async with transaction(request) as (conn, now):
        requested = await source_reads.request_sync(conn, caller.tenant_id, source, now)
        if requested is None:
            raise _missing()
        await audit.record(
            conn,
            caller.tenant_id,
            actor=caller.actor,
            action="source.sync",
            target=f"source:{source}",
            now=now,
            data={"requested_seq": requested},
        )
    return answer({"requested_seq": requested}, 202)


handlers = [list_sources, get_source, list_runs, get_run, sync_source]
