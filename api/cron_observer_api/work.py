"""The worker protocol: claims, runs that began by themselves, and what waits; `reports` has what is said of them.

Everything that changes an execution goes through the process's one writer, everything that hands one out through
its one claimer. A report is answered after its commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from litestar import Litestar, Request, Response, Router, get, post
from litestar.params import FromPath
from msgspec import Meta

from cron_observer.clock import ClockGuard
from cron_observer.errors import BadRequest, NotFound
from cron_observer.lifecycle import Status
from cron_observer.model import RESERVED_PREFIX
from cron_observer.run_token import mint
from cron_observer.store import logs, reads, task_reads
from cron_observer.store.executions import Seat, adopt, create_running, resolve
from cron_observer_api import log_upload, paths, reports, wire
from cron_observer_api.auth import check_run, principal_of
from cron_observer_api.claimer import Claimer
from cron_observer_api.completions import complete_many
from cron_observer_api.log_lines import sane
from cron_observer_api.operation import answer, declare, query, read
from cron_observer_api.packing import Packer
from cron_observer_api.reports import Lease, Worker
from cron_observer_api.writer import Writer
from cron_observer_api.writes import transaction

LEASE_DEFAULT: Final = 30.0

Queue = Annotated[str, Meta(min_length=1, max_length=128)]


class ClaimBody(wire.In):
    """Which executions a worker wants, and how long it waits for them."""

    worker: Worker
    queues: Annotated[list[Queue], Meta(min_length=1, max_length=32)] | None = None
    tasks: Annotated[list[wire.TaskReference], Meta(min_length=1, max_length=100)] | None = None
    max: Annotated[int, Meta(ge=1, le=100)] = 1
    wait_seconds: Annotated[float, Meta(ge=0, le=30)] = 0.0
    lease_seconds: Lease = LEASE_DEFAULT
    claim_id: UUID | None = None


class BeginBody(wire.In):
    """A run that a worker has begun by itself."""

    task: wire.TaskReference
    worker: Worker
    id: UUID | None = None
    scheduled_for: wire.GivenInstant | None = None
    started_at: wire.GivenInstant | None = None
    lease_seconds: Lease = LEASE_DEFAULT


class PendingQuery(wire.In):
    """Which waiting executions."""

    limit: wire.Limit = 50
    task: wire.TaskReference | None = None


class Given(wire.Out):
    """Executions, each with everything that is known of it."""

    executions: list[wire.Execution]


_REPORT: Final = ("report",)


async def _task_uid(request: Request[Any, Any, Any], conn: Any, reference: str) -> UUID:
    found = await task_reads.resolve(conn, principal_of(request).tenant_id, reference)
    if not found:
        raise NotFound("there is no such task", hint="name it by its uid or as project/name")
    if len(found) > 1:
        raise BadRequest("several projects have a task of this name", hint="name it as project/name", pointer="/task")
    return found[0]


@post(
    "/claims",
    operation_id="claim",
    status_code=200,
    opt=declare(
        summary="Claim due executions, waiting for them if there are none",
        tag="worker",
        scopes=_REPORT,
        write=True,
        body=ClaimBody,
        answers={200: Given},
        problems=("not_found",),
        description=(
            "Empty after the wait. The same claim_id within the lease returns the same executions, so that a lost "
            'reply is harmless. queues defaults to ["default"], and to any queue where tasks names some, but never to '
            "the platform's own, which begin with @. Each execution comes with a run_token: good in place of a key for "
            "what its run reports, under the fence of this claim."
        ),
    ),
)
async def claim(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Hand out executions."""
    asked = await read(request, ClaimBody)
    tenant_id = principal_of(request).tenant_id
    tasks: frozenset[UUID] | None = None
    if asked.tasks is not None:
        async with transaction(request) as (conn, _):
            tasks = frozenset([await _task_uid(request, conn, one) for one in asked.tasks])
    for number, queue in enumerate(asked.queues or ()):
        if queue.startswith(RESERVED_PREFIX):
            raise BadRequest(
                f"queues that begin with {RESERVED_PREFIX} are the platform's own",
                hint="what waits in them is sent or watched by the server itself; leave the queue out",
                pointer=f"/queues/{number}",
            )
    seat = Seat(
        worker=asked.worker,
        queues=asked.queues or ["default"],
        tasks=tasks,
        any_queue=asked.queues is None and tasks is not None,
        wanted=asked.max,
        lease=timedelta(seconds=asked.lease_seconds),
    )
    gone = asyncio.ensure_future(_gone(request))
    try:
        given = await request.app.state.claimer.claim(tenant_id, seat, asked.claim_id, asked.wait_seconds, gone)
    finally:
        gone.cancel()
    return answer({"executions": given})


async def _gone(request: Request[Any, Any, Any]) -> None:
    """Return when the client has closed its connection; its body has been read whole."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@post(
    "/executions",
    operation_id="beginExecution",
    status_code=201,
    opt=declare(
        summary="Report a run that has begun by itself",
        tag="worker",
        scopes=_REPORT,
        write=True,
        body=BeginBody,
        answers={201: wire.Execution, 200: wire.Execution},
        problems=("not_found", "already_claimed"),
        description="RUNNING and leased, trigger api. The same id again answers 200. Mint a UUIDv7 if you can.",
    ),
)
async def begin(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Take note of a run that nobody had to hand out."""
    asked = await read(request, BeginBody)
    tenant_id = principal_of(request).tenant_id
    signing_key = await request.app.state.signing_keys.own(tenant_id)
    async with transaction(request) as (conn, now):
        task_uid = await _task_uid(request, conn, asked.task)
        identity = await adopt(conn, tenant_id, asked.id, now)
        made = await create_running(
            conn,
            tenant_id,
            task_uid,
            identity=identity,
            worker=asked.worker,
            lease=timedelta(seconds=asked.lease_seconds),
            scheduled_for=sane(asked.scheduled_for, "/scheduled_for"),
            started_at=sane(asked.started_at, "/started_at"),
            now=now,
        )
        shown = await reads.execution(conn, tenant_id, identity)
    if shown is not None and shown["status"] == Status.RUNNING:
        shown["run_token"] = mint(signing_key, tenant_id, identity, shown["fence"])
    return answer(shown, 201 if made else 200)


@get(
    "/executions/pending",
    operation_id="listPending",
    opt=declare(
        summary="List what is due and waits for a worker, in the order of claims",
        tag="worker",
        scopes=("read", "report"),
        write=True,
        query=PendingQuery,
        answers={200: Given},
        problems=("not_found",),
    ),
)
async def pending(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Show what a claim would give."""
    asked = query(request, PendingQuery)
    async with transaction(request) as (conn, now):
        uid = None if asked.task is None else await _task_uid(request, conn, asked.task)
        tenant_id = principal_of(request).tenant_id
        found = await reads.pending(conn, tenant_id, now=now, limit=asked.limit, task_uid=uid)
    return answer({"executions": found})


@get(
    "/executions/{execution_id:str}",
    operation_id="getWorkerExecution",
    opt=declare(
        summary="Read an execution",
        tag="worker",
        scopes=("read", "report"),
        write=True,
        run_token=True,
        answers={200: wire.Execution},
        problems=("not_found",),
    ),
)
async def get_execution(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Show everything that is known of it, for a worker that has lost its memory."""
    identity = paths.uuid(execution_id, "execution")
    principal = principal_of(request)
    async with transaction(request) as (conn, _):
        found = await reads.execution(conn, principal.tenant_id, identity)
        if found is None and (ours := await resolve(conn, principal.tenant_id, identity)) is not None:
            identity = ours
            found = await reads.execution(conn, principal.tenant_id, ours)
    check_run(principal, identity, None if found is None else found["fence"])
    if found is None:
        raise NotFound("there is no such execution")
    return answer(found)


@asynccontextmanager
async def running(app: Litestar) -> AsyncIterator[None]:
    """Run the writer, the claimer and the packer while the app lives; what was taken is written before it ends."""
    chosen = app.state.settings
    caps = logs.Caps(chosen.log_cap_mib * 1024 * 1024, chosen.log_cap_lines)
    writer = Writer(app.state.database, caps=caps)
    packer = Packer(app.state.database)
    claimer = Claimer(app.state.database, ClockGuard(), writer.submit, app.state.signing_keys.own)
    writer.on_change, writer.on_loose = claimer.wake, packer.note
    app.state.writer, app.state.claimer, app.state.packer = writer, claimer, packer
    app.state.to_drain.append(claimer.stop)
    loops = [asyncio.create_task(claimer.run(), name="claimer"), asyncio.create_task(writer.run(), name="writer")]
    packing = asyncio.create_task(packer.run(), name="packer")
    try:
        yield
    finally:
        packing.cancel()
        claimer.stop()
        await loops[0]
        await claimer.settled()
        writer.stop()
        await loops[1]
        await asyncio.gather(packing, return_exceptions=True)


#: The calls that workers make most often.
hot: Final = (
    claim,
    complete_many,
    reports.start,
    reports.heartbeat,
    reports.append_logs,
    reports.complete,
    reports.release,
)

router = Router(
    path="/sdk",
    route_handlers=[claim, begin, pending, get_execution, *reports.handlers, complete_many, *log_upload.handlers],
)
