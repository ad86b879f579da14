"""Sources and their sync runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.params import FromPath

from cron_observer.errors import NotFound, OutOfRange
from cron_observer.store import approvals, audit, shapes, source_reads, suspending
from cron_observer_api import body as bodies
from cron_observer_api import paths, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import answer, declare, query
from cron_observer_api.times import LONGEST
from cron_observer_api.writes import Created, create, transaction


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
        requested = await source_reads.request_sync(conn, caller.tenant_id, source, now, by="manual")
        if requested is None:
            raise _missing()
        await _record(conn, request, "source.sync", source, now, {"requested_seq": requested})
    return answer({"requested_seq": requested}, 202)


async def _record(
    conn: Any, request: Request[Any, Any, Any], action: str, source: str, now: datetime, data: dict[str, Any]
) -> None:
    caller = principal_of(request)
    await audit.record(
        conn, caller.tenant_id, actor=caller.actor, action=action, target=f"source:{source}", now=now, data=data
    )


@post(
    "/sources/{source:str}/approvals",
    operation_id="approveRemovals",
    status_code=201,
    opt=declare(
        summary="Approve the removals that wait in a source",
        tag="sources",
        scopes=("admin",),
        write=True,
        body=wire.ApprovalBody,
        answers={201: wire.Approval, 200: wire.Approval},
        problems=("not_found",),
        idempotent=True,
        description="For the plan with this hash and no other: what the source shows as `plan_hash` now. The source is "
        "looked at at once, and that pass uses the approval up. Approving what is approved answers 200.",
    ),
)
async def approve(request: Request[Any, Any, Any], source: FromPath[str]) -> Response[bytes]:
    """Write the consent down, and wake the source."""
    raw = await bodies.read_bytes(request)
    asked = bodies.decode(raw, wire.ApprovalBody)
    caller = principal_of(request)

    async def work(conn: Any, now: datetime) -> Created:
        if await source_reads.get_source(conn, caller.tenant_id, source, now=now) is None:
            raise _missing()
        added = await approvals.add(
            conn,
            caller.tenant_id,
            source,
            plan_hash=asked.plan_hash,
            reason=asked.reason or None,
            actor=caller.actor,
            now=now,
        )
        found = await approvals.find(conn, caller.tenant_id, source, asked.plan_hash)
        if found is None:
            raise NotFound(
                "no removals wait under this plan hash", hint="`plan_hash` of the source says what waits now, if any"
            )
        if added:
            await source_reads.request_sync(conn, caller.tenant_id, source, now, by="approval")
            told = {"plan_hash": asked.plan_hash, "reason": asked.reason}
            await _record(conn, request, "source.approve", source, now, told)
        return Created(status=201 if added else 200, body=found)

    return await create(request, raw, work)


def _check_until(until: datetime | None, now: datetime) -> None:
    if until is not None and not now < until <= now + LONGEST:
        raise OutOfRange(
            "the suspension would be over already, or last longer than ten years",
            hint="`until` must lie ahead; without it the suspension lasts until somebody resumes the source",
            pointer="/until",
        )


@post(
    "/sources/{source:str}/suspend",
    operation_id="suspendSource",
    status_code=200,
    opt=declare(
        summary="Let nobody look at a source for a while",
        tag="sources",
        scopes=("admin",),
        write=True,
        body=wire.SuspendBody,
        answers={200: wire.Source},
        problems=("not_found", "out_of_range"),
        idempotent=True,
        description="What is applied stays in force and goes on running; pushes, `sync` and approvals wait. Suspending "
        "a suspended source gives it another end and reason.",
    ),
)
async def suspend(request: Request[Any, Any, Any], source: FromPath[str]) -> Response[bytes]:
    """Begin a suspension, or change the one that is in force."""
    raw = await bodies.read_bytes(request)
    asked = bodies.decode(raw, wire.SuspendBody)
    caller = principal_of(request)

    async def work(conn: Any, now: datetime) -> Created:
        _check_until(asked.until, now)
        changed = await suspending.suspend(
            conn, caller.tenant_id, source, reason=asked.reason, until=asked.until, actor=caller.actor, now=now
        )
        if changed:
            told = {"reason": asked.reason, "until": shapes.instant(asked.until)}
            await _record(conn, request, "source.suspend", source, now, told)
        return await _shown(conn, caller.tenant_id, source, now)

    return await create(request, raw, work)


@post(
    "/sources/{source:str}/resume",
    operation_id="resumeSource",
    status_code=200,
    opt=declare(
        summary="End the suspension of a source",
        tag="sources",
        scopes=("admin",),
        write=True,
        body=wire.ReasonBody,
        body_optional=True,
        answers={200: wire.Source},
        problems=("not_found",),
        idempotent=True,
        description="It is looked at at once. Resuming a source that is not suspended changes nothing.",
    ),
)
async def resume(request: Request[Any, Any, Any], source: FromPath[str]) -> Response[bytes]:
    """End the suspension that is in force, if one is."""
    raw = await bodies.read_bytes(request, optional=True)
    asked = bodies.decode(raw, wire.ReasonBody)
    caller = principal_of(request)

    async def work(conn: Any, now: datetime) -> Created:
        if await suspending.resume(conn, caller.tenant_id, source):
            await source_reads.request_sync(conn, caller.tenant_id, source, now, by="resume")
            await _record(conn, request, "source.resume", source, now, {"reason": asked.reason})
        return await _shown(conn, caller.tenant_id, source, now)

    return await create(request, raw, work)


async def _shown(conn: Any, tenant_id: UUID, source: str, now: datetime) -> Created:
    found = await source_reads.get_source(conn, tenant_id, source, now=now)
    if found is None:
        raise _missing()
    return Created(status=200, body=found[1])


handlers = [list_sources, get_source, list_runs, get_run, sync_source, approve, suspend, resume]
