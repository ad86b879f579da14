"""Tasks: lists, reads, writes of those that the API owns, and triggers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from litestar import Request, Response, delete, get, patch, post, put
from litestar.params import FromPath

from cron_observer.errors import BadRequest, NameTaken, NotFound
from cron_observer.store import audit, reads, task_reads, tasks
from cron_observer.store.executions import create_manual
from cron_observer_api import body as bodies
from cron_observer_api import metrics, paths, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import answer, declare, query
from cron_observer_api.owned import Refusal, Wanted, current_body, merge, refuse, unchanged, wanted_of
from cron_observer_api.pinging import refuse_watched
from cron_observer_api.writes import Created, Work, create, transaction, write

_PROBLEMS: Final = ("not_found", "manifest_owned", "invalid_spec")

_OWNED: Final = "A task that a manifest owns answers 409 with the owner and a patch to make in Git."


def _missing() -> NotFound:
    return NotFound("there is no such task", hint="GET /api/v1/projects/{project}/tasks lists them")


async def _project_id(conn: Any, tenant_id: UUID, project: str) -> UUID:
    found = await task_reads.get_project(conn, tenant_id, project)
    if found is None:
        raise NotFound("there is no such project", hint="GET /api/v1/projects lists them")
    return found[0]


def _statuses(given: str | None) -> list[str] | None:
    if given is None:
        return None
    words = [word.strip() for word in given.split(",")]
    if not set(words) <= set(task_reads.TASK_STATUSES):
        raise BadRequest(
            "`status` has a word that is not known",
            hint=f"known are {', '.join(task_reads.TASK_STATUSES)}",
            pointer="/status",
        )
    return words


@get(
    "/projects/{project:str}/tasks",
    operation_id="listTasks",
    opt=declare(
        summary="List the tasks of a project by name",
        tag="tasks",
        scopes=("read",),
        query=wire.TaskQuery,
        answers={200: wire.Tasks},
        problems=("not_found", "bad_cursor"),
        description="Removed tasks are listed only when `status` names REMOVED.",
    ),
)
async def list_tasks(request: Request[Any, Any, Any], project: FromPath[str]) -> Response[bytes]:
    """Return a page of tasks."""
    asked = query(request, wire.TaskQuery)
    statuses = _statuses(asked.status)
    cursors = request.app.state.cursors
    after = cursors.read(request, asked.cursor, tuple[str, UUID])
    tenant_id = principal_of(request).tenant_id
    async with transaction(request) as (conn, now):
        chosen = task_reads.TaskFilter(
            project_id=await _project_id(conn, tenant_id, project),
            statuses=statuses,
            owner=asked.owner,
            source=asked.source,
            label=asked.label,
            q=asked.q,
        )
        items, last = await task_reads.list_tasks(conn, tenant_id, chosen, now=now, limit=asked.limit, after=after)
    return answer({"items": items, "next_cursor": cursors.make(request, last)})


@get(
    "/projects/{project:str}/tasks/{name:str}",
    operation_id="getTask",
    opt=declare(
        summary="Read a task; also one whose manifest is gone",
        tag="tasks",
        scopes=("read",),
        answers={200: wire.Task},
        problems=("not_found",),
    ),
)
async def get_task(request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Return one task."""
    wanted = paths.task_name(name)
    async with transaction(request) as (conn, now):
        found = await task_reads.get_task(conn, principal_of(request).tenant_id, project, wanted, now=now)
    if found is None:
        raise _missing()
    return answer(found)


async def _save(
    request: Request[Any, Any, Any], conn: Any, now: datetime, project: str, wanted: Wanted, row: Any
) -> Created | Refusal:
    """Create the task when there is no `row` of it, else change it; or say why neither may be."""
    caller = principal_of(request)
    if row is not None and row.owner == "manifest" and not unchanged(row, wanted):
        return Refusal(row, await tasks.owner_location(conn, caller.tenant_id, row.task_uid), wanted)
    action = None
    if row is None:
        project_id = await _project_id(conn, caller.tenant_id, project)
        await tasks.create_owned(
            conn, caller.tenant_id, project_id, wanted.name, wanted.spec, wanted.labels, caller.actor, now
        )
        action = "task.create"
    elif row.owner == "api":
        saved = await tasks.update_owned(
            conn, caller.tenant_id, row.task_uid, wanted.spec, wanted.labels, caller.actor, now
        )
        action = "task.update" if saved.generation != row.generation else None
    if action is not None:
        await _record(conn, request, action, project, wanted.name, now)
    shown = await task_reads.get_task(conn, caller.tenant_id, project, wanted.name, now=now)
    return Created(status=201 if row is None else 200, body=shown)


async def _record(
    conn: Any, request: Request[Any, Any, Any], action: str, project: str, name: str, now: datetime
) -> None:
    caller = principal_of(request)
    target = f"task:{project}/{name}"
    await audit.record(conn, caller.tenant_id, actor=caller.actor, action=action, target=target, now=now)


async def _find(conn: Any, tenant_id: UUID, project: str, name: str) -> Any:
    return await tasks.get_by_name(conn, tenant_id, await _project_id(conn, tenant_id, project), name)


@post(
    "/projects/{project:str}/tasks",
    operation_id="createTask",
    status_code=201,
    opt=declare(
        summary="Create a task that the API owns",
        tag="tasks",
        scopes=("tasks:write",),
        write=True,
        body=wire.TaskBody,
        answers={201: wire.Task, 200: wire.Task},
        problems=(*_PROBLEMS, "name_taken"),
        idempotent=True,
        description=_OWNED,
    ),
)
async def create_task(request: Request[Any, Any, Any], project: FromPath[str]) -> Response[bytes]:
    """Create a task. The name of a task that Git owns is refused like any other change of it."""
    raw = await bodies.read_bytes(request)
    wanted = await wanted_of(bodies.decode(raw, dict[str, Any]), None)
    tenant_id = principal_of(request).tenant_id

    async def work(conn: Any, now: datetime) -> Created:
        row = await _find(conn, tenant_id, project, wanted.name)
        if row is not None and row.owner == "api":
            raise NameTaken(
                "the project has a task of this name", hint="choose another name, or PUT to replace the task"
            )
        saved = await _save(request, conn, now, project, wanted, row)
        if isinstance(saved, Refusal):
            raise saved
        return saved

    return await _or_refuse(request, create(request, raw, work))


async def _or_refuse(request: Request[Any, Any, Any], answering: Any) -> Response[bytes]:
    """Wait for an answer; make the patch of a refusal outside of its transaction."""
    try:
        found: Response[bytes] = await answering
    except Refusal as refusal:
        metrics.count_refusal(request.method, request.scope["path_template"])
        raise await refuse(refusal) from None
    return found


async def _write(request: Request[Any, Any, Any], work: Work) -> Response[bytes]:
    made = await write(request, work)
    return answer(made.body, made.status)


@put(
    "/projects/{project:str}/tasks/{name:str}",
    operation_id="putTask",
    opt=declare(
        summary="Create a task that the API owns, or replace it",
        tag="tasks",
        scopes=("tasks:write",),
        write=True,
        body=wire.TaskBody,
        answers={200: wire.Task, 201: wire.Task},
        problems=(*_PROBLEMS, "name_taken", "conflict"),
        description=f"{_OWNED} A write that changes nothing answers 200.",
    ),
)
async def put_task(request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Create (201) or replace (200)."""
    given = await bodies.read_body(request, dict[str, Any])
    wanted = await wanted_of(given, paths.task_name(name))
    tenant_id = principal_of(request).tenant_id

    async def work(conn: Any, now: datetime) -> Created:
        row = await _find(conn, tenant_id, project, wanted.name)
        saved = await _save(request, conn, now, project, wanted, row)
        if isinstance(saved, Refusal):
            raise saved
        return saved

    return await _or_refuse(request, _write(request, work))


@patch(
    "/projects/{project:str}/tasks/{name:str}",
    operation_id="patchTask",
    opt=declare(
        summary="Change fields of a task that the API owns",
        tag="tasks",
        scopes=("tasks:write",),
        write=True,
        body=wire.TaskPatch,
        media_types=wire.PATCH_TYPES,
        answers={200: wire.Task},
        problems=(*_PROBLEMS, "conflict"),
        description=f"A JSON merge patch (RFC 7396). {_OWNED} A write that changes nothing answers 200.",
    ),
)
async def patch_task(request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Merge a patch into the task as it is now."""
    given = await bodies.read_body(request, dict[str, Any], media_types=wire.PATCH_TYPES)
    known = paths.task_name(name)
    tenant_id = principal_of(request).tenant_id

    async def work(conn: Any, now: datetime) -> Created:
        row = await _find(conn, tenant_id, project, known)
        if row is None:
            raise _missing()
        wanted = await wanted_of(merge(current_body(row), given), known)
        saved = await _save(request, conn, now, project, wanted, row)
        if isinstance(saved, Refusal):
            raise saved
        return saved

    return await _or_refuse(request, _write(request, work))


@delete(
    "/projects/{project:str}/tasks/{name:str}",
    operation_id="deleteTask",
    status_code=202,
    opt=declare(
        summary="Delete a task that the API owns",
        tag="tasks",
        scopes=("tasks:write",),
        write=True,
        answers={202: wire.Task, 200: wire.Task},
        problems=("not_found", "manifest_owned"),
        description=f"It shows DELETING until the scheduler has carried it out; history stays. {_OWNED}",
    ),
)
async def delete_task(request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Ask for the deletion; asking again changes nothing."""
    known = paths.task_name(name)
    caller = principal_of(request)

    async def work(conn: Any, now: datetime) -> Created:
        row = await _find(conn, caller.tenant_id, project, known)
        if row is None:
            raise _missing()
        if row.owner == "manifest" and not row.removed:
            raise Refusal(row, await tasks.owner_location(conn, caller.tenant_id, row.task_uid), None)
        if row.owner == "api":
            await tasks.delete_owned(conn, caller.tenant_id, row.task_uid, caller.actor, now)
            if not row.deleting:
                await _record(conn, request, "task.delete", project, known, now)
        shown = await task_reads.get_task(conn, caller.tenant_id, project, known, now=now)
        # a manifest that is gone already: nothing is left to delete
        return Created(status=202 if row.owner == "api" else 200, body=shown)

    return await _or_refuse(request, _write(request, work))


@post(
    "/projects/{project:str}/tasks/{name:str}/trigger",
    operation_id="triggerTask",
    status_code=201,
    opt=declare(
        summary="Run a task now",
        tag="tasks",
        scopes=("trigger",),
        write=True,
        body=wire.TriggerBody,
        body_optional=True,
        answers={201: wire.Execution},
        problems=("not_found", "conflict"),
        idempotent=True,
        description="It obeys the task's overlap policy, unless `force`. 409 for one that somebody else runs. Allowed "
        "for tasks that manifests own.",
    ),
)
async def trigger_task(request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Make an execution that is due now."""
    raw = await bodies.read_bytes(request, optional=True)
    asked = bodies.decode(raw, wire.TriggerBody)
    known = paths.task_name(name)
    caller = principal_of(request)

    async def work(conn: Any, now: datetime) -> Created:
        row = await _find(conn, caller.tenant_id, project, known)
        if row is None:
            raise _missing()
        refuse_watched(row.spec)
        made = await create_manual(
            conn,
            caller.tenant_id,
            row.task_uid,
            payload=asked.payload,
            force=asked.force,
            actor=caller.actor,
            now=now,
        )
        await _record(conn, request, "task.trigger", project, known, now)
        return Created(status=201, body=await reads.execution(conn, caller.tenant_id, made))

    told = await create(request, raw, work)
    request.app.state.claimer.wake(caller.tenant_id)
    return told


handlers = [list_tasks, get_task, create_task, put_task, patch_task, delete_task, trigger_task]
