"""The way out of a manifest's hands: a task that Git owns becomes one that the API owns."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from litestar import Request, Response, post
from litestar.params import FromPath

from cron_observer.errors import NotFound
from cron_observer.store import task_reads, tasks
from cron_observer_api import body as bodies
from cron_observer_api import paths, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import declare
from cron_observer_api.writes import Created, create


@post(
    "/projects/{project:str}/tasks/{name:str}/detach",
    operation_id="detachTask",
    status_code=200,
    opt=declare(
        summary="Take a task out of its manifest's hands",
        tag="tasks",
        scopes=("admin",),
        write=True,
        body=wire.DetachBody,
        answers={200: wire.Task},
        problems=("not_found",),
        idempotent=True,
        description="It runs on as it is, with its history, and the API owns it. The next pass over the source says so "
        "as a finding at its manifest; the annotation `adopt` gives it back to Git. Detaching a task that the API owns "
        "changes nothing.",
    ),
)
async def detach_task(request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Make the API the owner of a living task."""
    raw = await bodies.read_bytes(request)
    asked = bodies.decode(raw, wire.DetachBody)
    known = paths.task_name(name)
    caller = principal_of(request)

    async def work(conn: Any, now: datetime) -> Created:
        place = await task_reads.get_project(conn, caller.tenant_id, project)
        row = None if place is None else await tasks.get_by_name(conn, caller.tenant_id, place[0], known)
        if row is None or row.deleting or row.removed:
            raise NotFound("there is no such task", hint="GET /api/v1/projects/{project}/tasks lists them")
        if row.owner == "manifest":
            await tasks.detach(conn, caller.tenant_id, row.task_uid, asked.reason, caller.actor, now)
        return Created(status=200, body=await task_reads.get_task(conn, caller.tenant_id, project, known, now=now))

    return await create(request, raw, work)


handlers = [detach_task]
