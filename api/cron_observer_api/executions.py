"""Executions: lists, one with its events, cancellation, and the counts of days."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.params import FromPath

from cron_observer.errors import BadRequest, NotFound
from cron_observer.lifecycle import Reason, Status, Trigger
from cron_observer.store import audit, lists, reads, shapes, task_reads
from cron_observer.store.executions import Cancel
from cron_observer_api import paths, statistics, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import answer, declare, query, read
from cron_observer_api.writes import transaction


def _words(given: str | None, known: Sequence[str], name: str) -> list[str] | None:
    """Read a comma list of known words."""
    if given is None:
        return None
    words = [word.strip() for word in given.split(",")]
    unknown = [word for word in words if word not in known]
    if unknown:
        raise BadRequest(
            f"`{name}` has a word that is not known", hint=f"known are {', '.join(known)}", pointer=f"/{name}"
        )
    return words


async def _chosen(
    conn: Any, tenant_id: UUID, chosen: lists.ExecutionFilter, project: str | None, task: str | None
) -> lists.ExecutionFilter | None:
    """Narrow a filter to a project and a task; None when there are no such things, so that nothing matches."""
    if project is not None:
        found = await task_reads.get_project(conn, tenant_id, project)
        if found is None:
            return None
        chosen = dataclasses.replace(chosen, project_id=found[0])
    if task is not None:
        uids = await task_reads.resolve(conn, tenant_id, task, project)
        if not uids:
            return None
        chosen = dataclasses.replace(chosen, tasks=uids)
    return chosen


@get(
    "/executions",
    operation_id="listExecutions",
    opt=declare(
        summary="List executions, newest first",
        tag="executions",
        scopes=("read",),
        query=wire.ExecutionQuery,
        answers={200: wire.Executions},
        problems=("bad_cursor",),
        description="`from <= fire_at < to`. Only what is due, unless `upcoming` is true.",
    ),
)
async def list_executions(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return a page of executions."""
    asked = query(request, wire.ExecutionQuery)
    narrowed = lists.ExecutionFilter(
        statuses=_words(asked.status, list(Status), "status"),
        reasons=_words(asked.reason, list(Reason), "reason"),
        triggers=_words(asked.trigger, list(Trigger), "trigger"),
        worker=asked.worker,
        since=asked.from_,
        until=asked.to,
        upcoming=asked.upcoming,
    )
    shapes.zone(asked.timezone)
    if asked.date is not None:
        narrowed = narrowed.on(asked.date, asked.timezone)
    cursors = request.app.state.cursors
    position = cursors.read(request, asked.cursor, tuple[datetime, UUID])
    tenant_id = principal_of(request).tenant_id
    async with transaction(request) as (conn, now):
        chosen = await _chosen(conn, tenant_id, narrowed, asked.project, asked.task)
        if chosen is None:
            return answer({"items": [], "next_cursor": None})
        items, last = await lists.list_executions(
            conn,
            tenant_id,
            chosen,
            now=now,
            limit=asked.limit,
            after=lists.Position(*position) if position else None,
        )
    return answer({"items": items, "next_cursor": cursors.make(request, last)})


def _missing() -> NotFound:
    return NotFound("there is no such execution", hint="GET /api/v1/executions lists them")


@get(
    "/executions/{execution_id:str}",
    operation_id="getExecution",
    opt=declare(
        summary="Read an execution in full",
        tag="executions",
        scopes=("read",),
        answers={200: wire.Execution},
        problems=("not_found",),
    ),
)
async def get_execution(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Return one execution."""
    wanted = paths.uuid(execution_id, "execution")
    async with transaction(request) as (conn, _):
        found = await reads.execution(conn, principal_of(request).tenant_id, wanted)
    if found is None:
        raise _missing()
    return answer(found)


@get(
    "/executions/{execution_id:str}/events",
    operation_id="listExecutionEvents",
    opt=declare(
        summary="List what happened to an execution, oldest first",
        tag="executions",
        scopes=("read",),
        query=wire.PageQuery,
        answers={200: wire.Events},
        problems=("not_found", "bad_cursor"),
    ),
)
async def list_events(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Return a page of events."""
    wanted = paths.uuid(execution_id, "execution")
    asked = query(request, wire.PageQuery)
    cursors = request.app.state.cursors
    after = cursors.read(request, asked.cursor, int)
    tenant_id = principal_of(request).tenant_id
    async with transaction(request) as (conn, _):
        if await reads.task_of(conn, tenant_id, wanted) is None:
            raise _missing()
        items = await reads.events(conn, tenant_id, wanted, after=-1 if after is None else after, limit=asked.limit + 1)
    last = items[asked.limit - 1]["seq"] if len(items) > asked.limit else None
    return answer({"items": items[: asked.limit], "next_cursor": cursors.make(request, last)})


@post(
    "/executions/{execution_id:str}/cancel",
    operation_id="cancelExecution",
    status_code=200,
    opt=declare(
        summary="Cancel an execution, or ask its worker to stop",
        tag="executions",
        scopes=("trigger",),
        write=True,
        body=wire.CancelBody,
        body_optional=True,
        answers={200: wire.Execution},
        problems=("not_found", "already_final"),
    ),
)
async def cancel_execution(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """A waiting execution ends at once; a running one is told, and ends at the latest when its grace is over."""
    wanted = paths.uuid(execution_id, "execution")
    asked = await read(request, wire.CancelBody)
    caller = principal_of(request)
    written = await request.app.state.writer.submit(
        Cancel(
            tenant_id=caller.tenant_id,
            id=wanted,
            reason=asked.reason,
            actor=caller.actor,
            grace=timedelta(seconds=asked.grace_seconds),
        )
    )
    async with transaction(request) as (conn, now):
        await audit.record(
            conn,
            caller.tenant_id,
            actor=caller.actor,
            action="execution.cancel",
            target=f"execution:{wanted}",
            now=now,
            data={"reason": asked.reason, "grace_seconds": asked.grace_seconds},
        )
    return answer(written.execution)


@get(
    "/days",
    operation_id="listDays",
    opt=declare(
        summary="Count what became of the slots of each local date",
        tag="executions",
        scopes=("read",),
        query=wire.DaysQuery,
        answers={200: wire.Days},
    ),
)
async def list_days(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the days with something on them, oldest first."""
    asked = query(request, wire.DaysQuery)
    tenant_id = principal_of(request).tenant_id
    async with transaction(request) as (conn, now):
        first, last = statistics.window(asked, now)
        chosen = await _chosen(conn, tenant_id, lists.ExecutionFilter(), asked.project, asked.task)
        if chosen is None:
            return answer({"items": []})
        items = await lists.days(conn, tenant_id, chosen, now=now, first=first, last=last, timezone=asked.timezone)
    return answer({"items": items})


handlers = [
    list_executions,
    get_execution,
    list_events,
    cancel_execution,
    list_days,
]
