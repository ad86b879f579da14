"""Projects."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.params import FromPath

from cron_observer.errors import NotFound
from cron_observer.store import task_reads
from cron_observer_api import wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import answer, declare, query
from cron_observer_api.writes import transaction


@get(
    "/projects",
    operation_id="listProjects",
    opt=declare(
        summary="List projects by name",
        tag="projects",
        scopes=("read",),
        query=wire.PageQuery,
        answers={200: wire.Projects},
        problems=("bad_cursor",),
    ),
)
async def list_projects(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return a page of projects."""
    asked = query(request, wire.PageQuery)
    cursors = request.app.state.cursors
    after = cursors.read(request, asked.cursor, str)
    async with transaction(request) as (conn, _):
        items, last = await task_reads.list_projects(
            conn, principal_of(request).tenant_id, limit=asked.limit, after=after
        )
    return answer({"items": items, "next_cursor": cursors.make(request, last)})


@get(
    "/projects/{project:str}",
    operation_id="getProject",
    opt=declare(
        summary="Read a project",
        tag="projects",
        scopes=("read",),
        answers={200: wire.Project},
        problems=("not_found",),
    ),
)
async def get_project(request: Request[Any, Any, Any], project: FromPath[str]) -> Response[bytes]:
    """Return one project."""
    async with transaction(request) as (conn, _):
        found = await task_reads.get_project(conn, principal_of(request).tenant_id, project)
    if found is None:
        raise NotFound("there is no such project", hint="GET /api/v1/projects lists them")
    return answer(found[1])


handlers = [list_projects, get_project]
