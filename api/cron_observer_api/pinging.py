"""What may be asked of tasks that somebody else runs: another address, another key of the project, but no run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from litestar import Request, Response, post
from litestar.params import FromPath

from cron_observer.durations import CheckIn
from cron_observer.errors import Conflict, NotFound
from cron_observer.store import addresses, audit, task_reads, tasks
from cron_observer_api import body as bodies
from cron_observer_api import paths, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import declare
from cron_observer_api.writes import Created, create


def refuse_watched(spec: Mapping[str, Any]) -> None:
    """Raise `Conflict` for a task that somebody else runs: nobody here could run it on demand."""
    if CheckIn.of(spec) is not None:
        raise Conflict("somebody else runs this task", hint="start it where it runs; it says so with its pings")


@post(
    "/projects/{project:str}/tasks/{name:str}/ping-address",
    operation_id="rotatePingAddress",
    status_code=200,
    opt=declare(
        summary="Give a task another address to ping",
        tag="tasks",
        scopes=("admin",),
        write=True,
        body=wire.NoBody,
        body_optional=True,
        answers={200: wire.Task},
        problems=("not_found",),
        idempotent=True,
        description="For tasks with `run.checkin`. The old address is unknown everywhere within three seconds.",
    ),
)
async def rotate_address(
    request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]
) -> Response[bytes]:
    """Draw another address."""
    raw = await bodies.read_bytes(request, optional=True)
    bodies.decode(raw, wire.NoBody)
    known, caller = paths.task_name(name), principal_of(request)

    async def work(conn: Any, now: datetime) -> Created:
        place = await task_reads.get_project(conn, caller.tenant_id, project)
        row = None if place is None else await tasks.get_by_name(conn, caller.tenant_id, place[0], known)
        if row is None or not await addresses.rotate_address(conn, caller.tenant_id, row.task_uid, now):
            raise NotFound("there is no such check-in", hint="only tasks with run.checkin have an address")
        target = f"task:{project}/{known}"
        await audit.record(
            conn, caller.tenant_id, actor=caller.actor, action="task.ping_address", target=target, now=now
        )
        return Created(status=200, body=await task_reads.get_task(conn, caller.tenant_id, project, known, now=now))

    answered = await create(request, raw, work)
    request.app.state.address_book.forget()
    return answered


@post(
    "/projects/{project:str}/ping-key",
    operation_id="rotatePingKey",
    status_code=200,
    opt=declare(
        summary="Give a project another ping key",
        tag="projects",
        scopes=("admin",),
        write=True,
        body=wire.NoBody,
        body_optional=True,
        answers={200: wire.PingKey},
        problems=("not_found",),
        idempotent=True,
        description="The key names the project in `/ping/{key}/{task}` and in the DSNs of its tasks.",
    ),
)
async def rotate_key(request: Request[Any, Any, Any], project: FromPath[str]) -> Response[bytes]:
    """Draw another key."""
    raw = await bodies.read_bytes(request, optional=True)
    bodies.decode(raw, wire.NoBody)
    caller = principal_of(request)

    async def work(conn: Any, now: datetime) -> Created:
        place = await task_reads.get_project(conn, caller.tenant_id, project)
        key = None if place is None else await addresses.rotate_key(conn, caller.tenant_id, place[0], now)
        if key is None:
            raise NotFound("the project has no ping key", hint="it gets one with its first task with run.checkin")
        await audit.record(
            conn, caller.tenant_id, actor=caller.actor, action="project.ping_key", target=f"project:{project}", now=now
        )
        return Created(status=200, body={"project": project, "key": key})

    answered = await create(request, raw, work)
    request.app.state.address_book.forget()
    return answered


handlers = [rotate_address, rotate_key]
