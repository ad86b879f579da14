"""The worker protocol: claim, report, complete; and the simple form for scripts without a lease.

Everything that changes an execution goes through the process's one writer, everything that hands one out through
its one claimer. A report is answered after its commit.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Litestar, Request, Response, Router, get, patch, post
from litestar.params import FromPath
from msgspec import Meta

from cron_observer.clock import ClockGuard
from cron_observer.errors import BadRequest, NotFound
from cron_observer.lifecycle import Completion, Run
from cron_observer.store import reads, shapes, task_reads
from cron_observer.store.executions import (
    AppendLogs,
    Complete,
    Heartbeat,
    PatchEnd,
    PatchRunning,
    Release,
    Seat,
    Start,
    adopt,
    create_running,
    resolve,
    usable,
)
from cron_observer_api import body as bodies
from cron_observer_api import paths, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.claimer import Claimer
from cron_observer_api.operation import answer, declare, query, read
from cron_observer_api.problems import TooLarge
from cron_observer_api.writer import Writer
from cron_observer_api.writes import transaction

#: Bytes of a result as JSON.
RESULT_MAX: Final = 64 * 1024

#: Bytes of a completion: a result and an error with its traceback.
COMPLETE_LIMIT: Final = 256 * 1024

LEASE_DEFAULT: Final = 30.0

Fence = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Lease = Annotated[float, Meta(ge=5, le=3600)]
Queue = Annotated[str, Meta(min_length=1, max_length=128)]
Worker = wire.Line


class ClaimBody(wire.In):
    """Which executions a worker wants, and how long it waits for them."""

    worker: Worker
    queues: Annotated[list[Queue], Meta(min_length=1, max_length=32)] | None = None
    tasks: Annotated[list[wire.TaskReference], Meta(min_length=1, max_length=100)] | None = None
    max: Annotated[int, Meta(ge=1, le=100)] = 1
    wait_seconds: Annotated[float, Meta(ge=0, le=30)] = 0.0
    lease_seconds: Lease = LEASE_DEFAULT
    claim_id: UUID | None = None


class FenceBody(wire.In):
    """Under which claim."""

    fence: Fence


class HeartbeatBody(FenceBody):
    """A sign of life, with how far the work has come."""

    progress: Annotated[float, Meta(ge=0, le=1)] | None = None
    message: wire.Prose | None = None
    lease_seconds: Lease | None = None
    checkpoint: Any = None


class LogLine(wire.In):
    """One line."""

    level: wire.Level
    message: str
    ts: wire.GivenInstant | None = None
    fields: dict[str, Any] | None = None


class LogsBody(FenceBody):
    """Lines from number `first_seq` on."""

    first_seq: wire.Sequence
    entries: Annotated[list[LogLine], Meta(min_length=1, max_length=10_000)]


class ErrorBody(wire.In):
    """What went wrong."""

    type: wire.Words | None = None
    message: Annotated[str, Meta(max_length=16_384)] | None = None
    traceback: Annotated[str, Meta(max_length=65_536)] | None = None


class CompleteBody(FenceBody):
    """The last word of a worker."""

    outcome: Literal["finished", "failed", "cancelled", "skipped"]
    exit_code: Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)] | None = None
    error: ErrorBody | None = None
    result: Any = None
    retryable: bool = True


class ReleaseBody(FenceBody):
    """Why a worker gives an execution back."""

    reason: wire.Prose


class BeginBody(wire.In):
    """A run that a worker has begun by itself."""

    task: wire.TaskReference
    worker: Worker
    id: UUID | None = None
    scheduled_for: wire.GivenInstant | None = None
    started_at: wire.GivenInstant | None = None
    lease_seconds: Lease = LEASE_DEFAULT


class PatchBody(wire.In):
    """The simple form: take it, then say how it ended."""

    status: Literal["RUNNING", "FINISHED", "FAILED"]
    error_message: Annotated[str, Meta(max_length=16_384)] | None = None
    result: Any = None
    worker: Worker | None = None


class PendingQuery(wire.In):
    """Which waiting executions."""

    limit: wire.Limit = 50
    task: wire.TaskReference | None = None


class Given(wire.Out):
    """Executions, each with everything that is known of it."""

    executions: list[wire.Execution]


class Beat(wire.Out):
    """What a worker learns from its heartbeat."""

    lease_until: wire.Instant | None
    cancel_requested: bool
    run_deadline: wire.Instant | None
    heartbeat_every_seconds: wire.Seconds | None


class Appended(wire.Out):
    """Where the log goes on."""

    next_seq: int
    cancel_requested: bool


_REPORT: Final = ("report",)
_LOST: Final = ("not_found", "lease_lost", "already_final")


async def _execution_id(request: Request[Any, Any, Any], text: str) -> UUID:
    """Return the id of ours for the one in the path; a client may go on using the one that it minted."""
    identity = paths.uuid(text, "execution")
    if usable(identity, datetime.now(UTC)):
        return identity
    async with transaction(request) as (conn, _):
        return await resolve(conn, principal_of(request).tenant_id, identity) or identity


async def _task_uid(request: Request[Any, Any, Any], conn: Any, reference: str) -> UUID:
    found = await task_reads.resolve(conn, principal_of(request).tenant_id, reference)
    if not found:
        raise NotFound("there is no such task", hint="name it by its uid or as project/name")
    if len(found) > 1:
        raise BadRequest("several projects have a task of this name", hint="name it as project/name", pointer="/task")
    return found[0]


def _shown(value: Any) -> Any:
    """Return a result or checkpoint that fits, or raise `TooLarge`."""
    if value is not None and len(msgspec.json.encode(value)) > RESULT_MAX:
        raise TooLarge(
            f"a result may have {RESULT_MAX} bytes of JSON",
            hint="store it elsewhere and send a link",
            limit_bytes=RESULT_MAX,
        )
    return value


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
            'reply is harmless. queues defaults to ["default"], and to any queue where tasks names some.'
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
    "/executions/{execution_id:str}/start",
    operation_id="startExecution",
    status_code=200,
    opt=declare(
        summary="Say that the work begins", tag="worker", scopes=_REPORT, write=True, body=FenceBody,
        answers={200: wire.Execution}, problems=_LOST,
    ),
)  # fmt: skip
async def start(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Note the start; the first heartbeat, log line or completion implies it."""
    asked = await read(request, FenceBody)
    identity = await _execution_id(request, execution_id)
    report = Start(tenant_id=principal_of(request).tenant_id, id=identity, fence=asked.fence)
    return answer((await request.app.state.writer.submit(report)).execution)


def _beat(run: Run) -> dict[str, Any]:
    seconds = run.lease_seconds
    return {
        "lease_until": shapes.instant(run.lease_until),
        "cancel_requested": run.cancel_requested_at is not None,
        "run_deadline": shapes.instant(run.run_deadline),
        "heartbeat_every_seconds": round(seconds / shapes.HEARTBEATS_PER_LEASE, 3) if seconds else None,
    }


@post(
    "/executions/{execution_id:str}/heartbeat",
    operation_id="heartbeat",
    status_code=200,
    opt=declare(
        summary="Renew the lease", tag="worker", scopes=_REPORT, write=True, body=HeartbeatBody,
        body_limit=COMPLETE_LIMIT, answers={200: Beat}, problems=_LOST,
    ),
)  # fmt: skip
async def heartbeat(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Renew the lease from now on, and learn whether to stop."""
    asked = await read(request, HeartbeatBody)
    report = Heartbeat(
        tenant_id=principal_of(request).tenant_id,
        id=await _execution_id(request, execution_id),
        fence=asked.fence,
        lease=None if asked.lease_seconds is None else timedelta(seconds=asked.lease_seconds),
        progress=asked.progress,
        message=asked.message,
        checkpoint=_shown(asked.checkpoint),
    )
    written = await request.app.state.writer.submit(report)
    return answer(_beat(written.answer.run))


@post(
    "/executions/{execution_id:str}/logs",
    operation_id="appendLogs",
    status_code=202,
    opt=declare(
        summary="Append log lines", tag="worker", scopes=_REPORT, write=True, body=LogsBody,
        body_limit=bodies.LOGS_LIMIT, gzip=True, answers={202: Appended}, problems=(*_LOST, "log_gap"),
        description="Lines that are stored already are dropped; a gap is refused with expected_seq.",
    ),
)  # fmt: skip
async def append_logs(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Store lines once."""
    asked = await read(request, LogsBody)
    entries = [
        {"ts": shapes.instant(one.ts), "level": one.level, "message": one.message, "fields": one.fields}
        for one in asked.entries
    ]
    report = AppendLogs(
        tenant_id=principal_of(request).tenant_id,
        id=await _execution_id(request, execution_id),
        fence=asked.fence,
        first_seq=asked.first_seq,
        entries=entries,
    )
    written = await request.app.state.writer.submit(report)
    run = written.answer.run
    return answer({"next_seq": written.answer.next_seq, "cancel_requested": run.cancel_requested_at is not None}, 202)


def _completion(asked: CompleteBody) -> Completion:
    said = msgspec.json.encode([asked.outcome, asked.exit_code, asked.error, asked.result, asked.retryable])
    return Completion(
        outcome=asked.outcome,
        fence=asked.fence,
        digest=hashlib.sha256(said).digest(),
        exit_code=asked.exit_code,
        error=None if asked.error is None else msgspec.to_builtins(asked.error),
        result=_shown(asked.result),
        retryable=asked.retryable,
    )


@post(
    "/executions/{execution_id:str}/complete",
    operation_id="completeExecution",
    status_code=200,
    opt=declare(
        summary="Say how it ended", tag="worker", scopes=_REPORT, write=True, body=CompleteBody,
        body_limit=COMPLETE_LIMIT, answers={200: wire.Execution}, problems=(*_LOST, "not_running"),
        description="An identical repeat answers 200 again. A completion after its deadline is accepted as late, "
        "recorded or refused, as the task's `late` says; while a newer claim runs it is kept as evidence.",
    ),
)  # fmt: skip
async def complete(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Take the last word."""
    asked = await read(request, CompleteBody)
    identity = await _execution_id(request, execution_id)
    report = Complete(tenant_id=principal_of(request).tenant_id, id=identity, done=_completion(asked))
    return answer((await request.app.state.writer.submit(report)).execution)


@post(
    "/executions/{execution_id:str}/release",
    operation_id="releaseExecution",
    status_code=200,
    opt=declare(
        summary="Give an execution back", tag="worker", scopes=_REPORT, write=True, body=ReleaseBody,
        answers={200: wire.Execution}, problems=_LOST,
    ),
)  # fmt: skip
async def release(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Make it due again; the attempt is not consumed."""
    asked = await read(request, ReleaseBody)
    identity = await _execution_id(request, execution_id)
    tenant_id = principal_of(request).tenant_id
    report = Release(tenant_id=tenant_id, id=identity, fence=asked.fence, reason=asked.reason)
    return answer((await request.app.state.writer.submit(report)).execution)


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
            scheduled_for=asked.scheduled_for,
            started_at=asked.started_at,
            now=now,
        )
        shown = await reads.execution(conn, tenant_id, identity)
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
        answers={200: wire.Execution},
        problems=("not_found",),
    ),
)
async def get_execution(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Show everything that is known of it, for a worker that has lost its memory."""
    identity = await _execution_id(request, execution_id)
    async with transaction(request) as (conn, _):
        found = await reads.execution(conn, principal_of(request).tenant_id, identity)
    if found is None:
        raise NotFound("there is no such execution")
    return answer(found)


@patch(
    "/executions/{execution_id:str}",
    operation_id="patchExecution",
    opt=declare(
        summary="Take an execution, or say how it ended, without a lease",
        tag="worker",
        scopes=_REPORT,
        write=True,
        body=PatchBody,
        body_limit=COMPLETE_LIMIT,
        answers={200: wire.Execution},
        problems=("not_found", "already_claimed", "not_running"),
        description="RUNNING claims it with the task's run deadline as lease; FINISHED and FAILED end only that.",
    ),
)
async def patch_execution(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Serve scripts that do not renew a lease."""
    asked = await read(request, PatchBody)
    identity = await _execution_id(request, execution_id)
    principal = principal_of(request)
    report: PatchRunning | PatchEnd
    if asked.status == "RUNNING":
        if asked.error_message is not None or asked.result is not None:
            raise BadRequest("a run that begins has no outcome", hint="send status and worker alone")
        report = PatchRunning(tenant_id=principal.tenant_id, id=identity, worker=asked.worker or principal.name)
    else:
        if asked.status == "FINISHED" and asked.error_message is not None:
            raise BadRequest("a run that FINISHED has no error_message", hint="send status FAILED with it")
        said = msgspec.json.encode([asked.status, asked.error_message, asked.result])
        done = Completion(
            outcome=asked.status.lower(),
            fence=0,
            digest=hashlib.sha256(said).digest(),
            error=None if asked.error_message is None else {"type": None, "message": asked.error_message},
            result=_shown(asked.result),
        )
        report = PatchEnd(tenant_id=principal.tenant_id, id=identity, done=done)
    return answer((await request.app.state.writer.submit(report)).execution)


@asynccontextmanager
async def running(app: Litestar) -> AsyncIterator[None]:
    """Run the writer and the claimer for as long as the app lives; what was taken is written before it ends."""
    writer = Writer(app.state.database)
    claimer = Claimer(app.state.database, ClockGuard(), writer.submit)
    writer.on_change = claimer.wake
    app.state.writer, app.state.claimer = writer, claimer
    app.state.to_drain.append(claimer.stop)
    loops = [asyncio.create_task(claimer.run(), name="claimer"), asyncio.create_task(writer.run(), name="writer")]
    try:
        yield
    finally:
        claimer.stop()
        await loops[0]
        await claimer.settled()
        writer.stop()
        await loops[1]


router = Router(
    path="/sdk",
    route_handlers=[
        claim, start, heartbeat, append_logs, complete, release, begin, pending, get_execution, patch_execution,
    ],
)  # fmt: skip
