"""Ranges of a task: long stretches of slots that were skipped alike."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from litestar import Request, Response, get
from litestar.params import FromPath

from cron_observer.errors import NotFound
from cron_observer.store import range_reads, task_reads
from cron_observer_api import paths, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import answer, declare, query
from cron_observer_api.writes import transaction


@get(
    "/projects/{project:str}/tasks/{name:str}/ranges",
    operation_id="listTaskRanges",
    opt=declare(
        summary="List stretches of a task's slots that were skipped alike, newest first",
        tag="tasks",
        scopes=("read",),
        query=wire.RangeQuery,
        answers={200: wire.SlotRanges},
        problems=("not_found", "bad_cursor"),
        description=(
            "Of more than 1,000 equal skips in a row, the first 1,000 are executions and the others are counted "
            "here. `GET days` counts both."
        ),
    ),
)
async def list_ranges(request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Return a page of ranges."""
    wanted = paths.task_name(name)
    asked = query(request, wire.RangeQuery)
    cursors = request.app.state.cursors
    after = cursors.read(request, asked.cursor, datetime)
    tenant_id = principal_of(request).tenant_id
    async with transaction(request) as (conn, now):
        uids = await task_reads.resolve(conn, tenant_id, wanted, project)
        if not uids:
            raise NotFound("there is no such task", hint="GET /api/v1/projects/{project}/tasks lists them")
        chosen = range_reads.RangeFilter(task_uid=uids[0], since=asked.from_, until=asked.to, upcoming=asked.upcoming)
        items, last = await range_reads.list_ranges(conn, tenant_id, chosen, now=now, limit=asked.limit, after=after)
    return answer({"items": items, "next_cursor": cursors.make(request, last)})


handlers = [list_ranges]
