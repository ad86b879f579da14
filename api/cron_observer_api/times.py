"""Pauses, resumes and backfills: what may be done to the time of any task, also of one that a manifest owns."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from litestar import Request, Response, post
from litestar.params import FromPath

from cron_observer.errors import NotFound, OutOfRange
from cron_observer.model import OnResume, Policy
from cron_observer.store import audit, backfills, pausing, shapes, task_reads, tasks
from cron_observer_api import body as bodies
from cron_observer_api import paths, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import declare
from cron_observer_api.pinging import refuse_watched
from cron_observer_api.writes import Created, create

#: A pause that ends later than this is a mistake.
LONGEST: Final = timedelta(days=3660)


async def _find(conn: Any, tenant_id: UUID, project: str, name: str) -> Any:
    """Return the row of a living task. Raises `NotFound`."""
    place = await task_reads.get_project(conn, tenant_id, project)
    row = None if place is None else await tasks.get_by_name(conn, tenant_id, place[0], name)
    if row is None or row.deleting or row.removed:
        raise NotFound("there is no such task", hint="GET /api/v1/projects/{project}/tasks lists them")
    return row


def _check_until(until: datetime | None, now: datetime) -> None:
    if until is None:
        return
    if until <= now:
        raise OutOfRange("the pause would be over already", hint="`until` must lie ahead", pointer="/until")
    if until - now > LONGEST:
        raise OutOfRange(
            "the pause would last longer than ten years",
            hint="leave `until` away: then it lasts until somebody resumes the task",
            pointer="/until",
        )


def _check_resume(asked: str | None, spec: Any) -> None:
    """Refuse to run what a pause of a task that somebody else runs has left out. Raises `Conflict`."""
    if asked not in (None, OnResume.SKIP.value):
        refuse_watched(spec)


@post(
    "/projects/{project:str}/tasks/{name:str}/pause",
    operation_id="pauseTask",
    status_code=200,
    opt=declare(
        summary="Let the slots of a task not run for a while",
        tag="tasks",
        scopes=("trigger",),
        write=True,
        body=wire.PauseBody,
        body_optional=True,
        answers={200: wire.Task},
        problems=("not_found", "out_of_range", "conflict"),
        idempotent=True,
        description="Pausing a paused task gives the pause another end, reason and policy. What runs goes on, and "
        "runs by hand stay possible. Allowed for tasks that manifests own.",
    ),
)
async def pause_task(request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Begin a pause, or replace the one that is in force."""
    raw = await bodies.read_bytes(request, optional=True)
    asked = bodies.decode(raw, wire.PauseBody)
    known = paths.task_name(name)
    caller = principal_of(request)

    async def work(conn: Any, now: datetime) -> Created:
        row = await _find(conn, caller.tenant_id, project, known)
        _check_until(asked.until, now)
        _check_resume(asked.on_resume, row.spec)
        on_resume = OnResume(asked.on_resume) if asked.on_resume else Policy.read(row.spec).on_resume
        done = await pausing.begin(
            conn,
            caller.tenant_id,
            row.task_uid,
            until=asked.until,
            reason=asked.reason or None,
            on_resume=on_resume,
            author=caller.actor,
            now=now,
        )
        if done != "same":
            told = {"reason": asked.reason, "until": shapes.instant(asked.until), "on_resume": on_resume.value}
            await _record(conn, request, "task.pause", project, known, now, told | {"replaces": done == "replace"})
        shown = await task_reads.get_task(conn, caller.tenant_id, project, known, now=now)
        return Created(status=200, body=shown)

    return await create(request, raw, work)


async def _record(
    conn: Any, request: Request[Any, Any, Any], action: str, project: str, name: str, now: datetime, data: Any
) -> None:
    caller = principal_of(request)
    target = f"task:{project}/{name}"
    await audit.record(conn, caller.tenant_id, actor=caller.actor, action=action, target=target, now=now, data=data)


@post(
    "/projects/{project:str}/tasks/{name:str}/resume",
    operation_id="resumeTask",
    status_code=200,
    opt=declare(
        summary="End the pause of a task",
        tag="tasks",
        scopes=("trigger",),
        write=True,
        body=wire.ResumeBody,
        body_optional=True,
        answers={200: wire.Task},
        problems=("not_found", "conflict"),
        idempotent=True,
        description="It ends a few seconds from now; then `on_resume` says which of its slots run after all. "
        "Resuming a task that is not paused changes nothing. Allowed for tasks that manifests own.",
    ),
)
async def resume_task(request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """End the pause that is in force, if one is."""
    raw = await bodies.read_bytes(request, optional=True)
    asked = bodies.decode(raw, wire.ResumeBody)
    known = paths.task_name(name)
    caller = principal_of(request)

    async def work(conn: Any, now: datetime) -> Created:
        row = await _find(conn, caller.tenant_id, project, known)
        _check_resume(asked.on_resume, row.spec)
        on_resume = OnResume(asked.on_resume) if asked.on_resume else None
        ended = await pausing.end(conn, caller.tenant_id, row.task_uid, by=caller.actor, on_resume=on_resume)
        if ended is not None:
            told = {"reason": asked.reason, "on_resume": asked.on_resume, "runs": ended.runs}
            await _record(conn, request, "task.resume", project, known, now, told)
        shown = await task_reads.get_task(conn, caller.tenant_id, project, known, now=now)
        return Created(status=200, body=shown)

    told = await create(request, raw, work)
    request.app.state.claimer.wake(caller.tenant_id)
    return told


@post(
    "/projects/{project:str}/tasks/{name:str}/backfill",
    operation_id="backfillTask",
    status_code=202,
    opt=declare(
        summary="Run the slots of a range of time again",
        tag="tasks",
        scopes=("trigger",),
        write=True,
        body=wire.BackfillBody,
        answers={202: wire.Backfill},
        problems=("not_found", "out_of_range", "conflict"),
        idempotent=True,
        description="At most 10,000 runs, and a range of 400 days that ends in the past. `missing` are slots without "
        "a run, `failed` those whose run failed; neither selects what a repeat waits for, runs or has finished. "
        "Allowed for tasks that manifests own.",
    ),
)
async def backfill_task(
    request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]
) -> Response[bytes]:
    """Make a run for each slot of a range, or say which slots it would be."""
    raw = await bodies.read_bytes(request)
    asked = bodies.decode(raw, wire.BackfillBody)
    known = paths.task_name(name)
    caller = principal_of(request)
    wanted = backfills.Wanted(
        start=asked.from_,
        end=asked.to,
        select=asked.select,
        order=asked.order,
        max_parallel=asked.max_parallel,
    )

    async def work(conn: Any, now: datetime) -> Created:
        row = await _find(conn, caller.tenant_id, project, known)
        refuse_watched(row.spec)
        selection = await backfills.select(conn, caller.tenant_id, row.task_uid, wanted, now)
        made = None
        if not asked.dry_run:
            made = await backfills.begin(conn, caller.tenant_id, selection, wanted, author=caller.actor, now=now)
            told = {
                "backfill": str(made),
                "from": shapes.instant(asked.from_),
                "to": shapes.instant(asked.to),
                "select": asked.select,
                "order": asked.order,
                "max_parallel": asked.max_parallel,
                "runs": len(selection.repeats),
            }
            await _record(conn, request, "task.backfill", project, known, now, told)
        body = {
            "backfill_id": None if made is None else str(made),
            "dry_run": asked.dry_run,
            "count": len(selection.repeats),
            "slots": backfills.shown(selection, made, now),
        }
        return Created(status=202, body=body)

    told = await create(request, raw, work)
    request.app.state.claimer.wake(caller.tenant_id)
    return told


handlers = [pause_task, resume_task, backfill_task]
