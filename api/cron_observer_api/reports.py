"""What workers say of executions: start, heartbeat, logs, completion, release; and the simple form without a lease.

Each is one report to the process's writer, answered after its commit.
"""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Request, Response, patch, post
from litestar.params import FromPath
from msgspec import Meta

from cron_observer.errors import BadRequest, NotFound
from cron_observer.lifecycle import Completion, Run
from cron_observer.store import shapes
from cron_observer.store.executions import (
    AppendLogs,
    Complete,
    Heartbeat,
    PatchEnd,
    PatchRunning,
    Release,
    Report,
    Start,
    resolve,
)
from cron_observer_api import body as bodies
from cron_observer_api import log_lines, paths, wire
from cron_observer_api.auth import check_run, principal_of
from cron_observer_api.log_lines import LogLine
from cron_observer_api.operation import answer, declare, read
from cron_observer_api.problems import TooLarge
from cron_observer_api.writer import Writer, Written
from cron_observer_api.writes import transaction

#: Bytes of a result as JSON.
RESULT_MAX: Final = 64 * 1024

#: Bytes of a completion: a result and an error with its traceback.
COMPLETE_LIMIT: Final = 256 * 1024

#: Bytes of log lines from which on a worker thread reads them.
THREAD_FROM: Final = 256 * 1024

#: Lines of one batch.
LINES_MAX: Final = 10_000

Fence = wire.Fence
Lease = Annotated[float, Meta(ge=5, le=3600)]
Worker = wire.Line


class FenceBody(wire.In):
    """Under which claim."""

    fence: Fence


class HeartbeatBody(FenceBody):
    """A sign of life, with how far the work has come."""

    progress: Annotated[float, Meta(ge=0, le=1)] | None = None
    message: wire.Prose | None = None
    lease_seconds: Lease | None = None
    checkpoint: Any = None


class LogsBody(FenceBody):
    """Lines from number `first_seq` on."""

    first_seq: wire.Sequence
    entries: Annotated[list[LogLine], Meta(min_length=1, max_length=LINES_MAX)]


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


class PatchBody(wire.In):
    """The simple form: take it, then say how it ended."""

    status: Literal["RUNNING", "FINISHED", "FAILED"]
    error_message: Annotated[str, Meta(max_length=16_384)] | None = None
    result: Any = None
    worker: Worker | None = None


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


async def submit(request: Request[Any, Any, Any], text: str, kind: type[Report], **said: Any) -> Written:
    """Write a report on the execution that a path names and return what became of it, or raise its refusal."""
    principal = principal_of(request)
    tenant_id = principal.tenant_id
    identity = paths.uuid(text, "execution")
    if principal.run is not None:
        check_run(principal, await _own(request, identity), said["done"].fence if "done" in said else said["fence"])
    writer: Writer = request.app.state.writer
    try:
        return await writer.submit(kind(tenant_id=tenant_id, id=identity, **said))
    except NotFound:
        ours = await alias(request, identity)
        if ours is None:
            raise
    return await writer.submit(kind(tenant_id=tenant_id, id=ours, **said))


async def _own(request: Request[Any, Any, Any], identity: UUID) -> UUID:
    """Return the id of ours of the run that shows its token, if `identity` is what its client called it."""
    run = principal_of(request).run
    if run is None or identity == run.execution_id:
        return identity
    return await alias(request, identity) or identity


async def alias(request: Request[Any, Any, Any], identity: UUID) -> UUID | None:
    """Return the id of ours that a client's own stands for: it may go on using the one that it minted."""
    async with transaction(request) as (conn, _):
        return await resolve(conn, principal_of(request).tenant_id, identity)


def _fitting(value: Any) -> Any:
    """Return a result or checkpoint that fits, or raise `TooLarge`."""
    if value is not None and len(msgspec.json.encode(value)) > RESULT_MAX:
        raise TooLarge(
            f"a result may have {RESULT_MAX} bytes of JSON",
            hint="store it elsewhere and send a link",
            limit_bytes=RESULT_MAX,
        )
    return value


@post(
    "/executions/{execution_id:str}/start",
    operation_id="startExecution",
    status_code=200,
    opt=declare(
        summary="Say that the work begins", tag="worker", scopes=_REPORT, write=True, run_token=True, body=FenceBody,
        answers={200: wire.Execution}, problems=_LOST,
    ),
)  # fmt: skip
async def start(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Note the start; the first heartbeat, log line or completion implies it."""
    asked = await read(request, FenceBody)
    return answer((await submit(request, execution_id, Start, fence=asked.fence)).execution)


def _run(written: Written) -> Run:
    if written.answer.run is None:
        raise AssertionError("a report that was taken has an execution")
    return written.answer.run


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
        summary="Renew the lease", tag="worker", scopes=_REPORT, write=True, run_token=True, body=HeartbeatBody,
        body_limit=COMPLETE_LIMIT, answers={200: Beat}, problems=_LOST,
    ),
)  # fmt: skip
async def heartbeat(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Renew the lease from now on, and learn whether to stop."""
    asked = await read(request, HeartbeatBody)
    written = await submit(
        request,
        execution_id,
        Heartbeat,
        fence=asked.fence,
        lease=None if asked.lease_seconds is None else timedelta(seconds=asked.lease_seconds),
        progress=asked.progress,
        message=asked.message,
        checkpoint=_fitting(asked.checkpoint),
    )
    return answer(_beat(_run(written)))


@post(
    "/executions/{execution_id:str}/logs",
    operation_id="appendLogs",
    status_code=202,
    opt=declare(
        summary="Append log lines", tag="worker", scopes=_REPORT, write=True, run_token=True, body=LogsBody,
        body_limit=bodies.LOGS_LIMIT, gzip=True, answers={202: Appended}, problems=(*_LOST, "log_gap"),
        description="Lines that are stored already are dropped; a gap is refused with expected_seq.",
    ),
)  # fmt: skip
async def append_logs(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Store lines once."""
    raw = await bodies.read_bytes(request, bodies.LOGS_LIMIT, gzip=True)
    if len(raw) < THREAD_FROM:
        fence, first_seq, lines = log_lines.batch(raw, LogsBody, LINES_MAX)
    else:
        fence, first_seq, lines = await asyncio.to_thread(log_lines.batch, raw, LogsBody, LINES_MAX)
    written = await submit(request, execution_id, AppendLogs, fence=fence, first_seq=first_seq, lines=lines)
    cancelled = _run(written).cancel_requested_at is not None
    return answer({"next_seq": written.answer.next_seq, "cancel_requested": cancelled}, 202)


def completion(asked: CompleteBody) -> Completion:
    said = msgspec.json.encode([asked.outcome, asked.exit_code, asked.error, asked.result, asked.retryable])
    return Completion(
        outcome=asked.outcome,
        fence=asked.fence,
        digest=hashlib.sha256(said).digest(),
        exit_code=asked.exit_code,
        error=None if asked.error is None else msgspec.to_builtins(asked.error),
        result=_fitting(asked.result),
        retryable=asked.retryable,
    )


@post(
    "/executions/{execution_id:str}/complete",
    operation_id="completeExecution",
    status_code=200,
    opt=declare(
        summary="Say how it ended", tag="worker", scopes=_REPORT, write=True, run_token=True, body=CompleteBody,
        body_limit=COMPLETE_LIMIT, answers={200: wire.Execution}, problems=(*_LOST, "not_running"),
        description="An identical repeat answers 200 again. A completion after its deadline is accepted as late, "
        "recorded or refused, as the task's `late` says; while a newer claim runs it is kept as evidence.",
    ),
)  # fmt: skip
async def complete(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Take the last word."""
    asked = await read(request, CompleteBody)
    return answer((await submit(request, execution_id, Complete, done=completion(asked))).execution)


@post(
    "/executions/{execution_id:str}/release",
    operation_id="releaseExecution",
    status_code=200,
    opt=declare(
        summary="Give an execution back", tag="worker", scopes=_REPORT, write=True, run_token=True, body=ReleaseBody,
        answers={200: wire.Execution}, problems=_LOST,
    ),
)  # fmt: skip
async def release(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Make it due again; the attempt is not consumed."""
    asked = await read(request, ReleaseBody)
    written = await submit(request, execution_id, Release, fence=asked.fence, reason=asked.reason)
    return answer(written.execution)


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
    if asked.status == "RUNNING":
        if asked.error_message is not None or asked.result is not None:
            raise BadRequest("a run that begins has no outcome", hint="send status and worker alone")
        worker = asked.worker or principal_of(request).name
        written = await submit(request, execution_id, PatchRunning, worker=worker)
    else:
        if asked.status == "FINISHED" and asked.error_message is not None:
            raise BadRequest("a run that FINISHED has no error_message", hint="send status FAILED with it")
        said = msgspec.json.encode([asked.status, asked.error_message, asked.result])
        done = Completion(
            outcome=asked.status.lower(),
            fence=0,
            digest=hashlib.sha256(said).digest(),
            error=None if asked.error_message is None else {"type": None, "message": asked.error_message},
            result=_fitting(asked.result),
        )
        written = await submit(request, execution_id, PatchEnd, done=done)
    return answer(written.execution)


handlers = [start, heartbeat, append_logs, complete, release, patch_execution]
