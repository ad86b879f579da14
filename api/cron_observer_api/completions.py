"""Many last words in one request, for workers that claim many executions at a time."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from litestar import Request, Response, post
from msgspec import Meta

from cron_observer.errors import NotFound
from cron_observer.store.executions import Complete
from cron_observer_api import problems, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.body import LOGS_LIMIT
from cron_observer_api.operation import answer, declare, read
from cron_observer_api.reports import CompleteBody, alias, completion
from cron_observer_api.writer import Writer, Written

_log = structlog.get_logger("cron_observer.api")

#: Last words of one request.
ITEMS_MAX: Final = 500


class CompletionItem(CompleteBody, kw_only=True):
    """The last word on one execution."""

    id: UUID


class CompletionsBody(wire.In):
    """Last words, each of which is taken or refused by itself."""

    completions: Annotated[list[CompletionItem], Meta(min_length=1, max_length=ITEMS_MAX)]


class Completed(wire.Out):
    """What became of one of them: how the execution stands, or why its word was refused."""

    id: UUID
    status: wire.Status | None
    problem: wire.Problem | None


class Completions(wire.Out):
    """What became of each, in the order in which they came."""

    results: list[Completed]


@post(
    "/completions",
    operation_id="completeExecutions",
    status_code=200,
    opt=declare(
        summary="Say of many how they ended",
        tag="worker",
        scopes=("report",),
        write=True,
        body=CompletionsBody,
        body_limit=LOGS_LIMIT,
        answers={200: Completions},
        description="Each is taken or refused by itself, as `complete` would: a refusal is the `problem` of its result "
        "and keeps no other from being taken. Several may commit together. A repeat of the request is harmless.",
    ),
)
async def complete_many(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Take many last words."""
    asked = await read(request, CompletionsBody)
    tenant_id = principal_of(request).tenant_id
    writer: Writer = request.app.state.writer
    taken = [Complete(tenant_id=tenant_id, id=one.id, done=completion(one), brief=True) for one in asked.completions]
    results = [_told(report.id, done) for report, done in zip(taken, await _written(writer, taken), strict=True)]
    for number, (report, done) in enumerate(zip(taken, results, strict=True)):
        if done["problem"] is not None and done["problem"]["code"] == NotFound.code:
            ours = await alias(request, report.id)
            if ours is not None:
                again = Complete(tenant_id=tenant_id, id=ours, done=report.done, brief=True)
                results[number] = _told(report.id, (await _written(writer, [again]))[0])
    return answer({"results": results})


async def _written(writer: Writer, reports: list[Complete]) -> list[Written | BaseException]:
    """Hand reports over at once, so that they share commits, and wait for all of them."""
    return await asyncio.gather(*writer.take(reports), return_exceptions=True)


def _told(identity: UUID, done: Written | BaseException) -> dict[str, Any]:
    """Word one result."""
    if isinstance(done, Exception):
        error = problems.ours(done)
        if error.status >= 500 and error.code != "unavailable":
            _log.error("report_failed", report="Complete", exc_info=done)
        return {"id": identity, "status": None, "problem": problems.problem(error)}
    if isinstance(done, BaseException):
        raise done
    run = done.answer.run
    return {"id": identity, "status": None if run is None else run.status, "problem": None}
