"""Statistics of a task: what became of its executions, and how long they took and waited."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, Final

from litestar import Request, Response, get
from litestar.params import FromPath

from cron_observer.errors import BadRequest, NotFound
from cron_observer.statistics import ERROR, Histogram, Totals
from cron_observer.store import lists, shapes, task_reads, tasks
from cron_observer.store.statistics_reads import Reading, Scope
from cron_observer_api import paths, wire
from cron_observer_api.auth import principal_of
from cron_observer_api.operation import answer, declare, query
from cron_observer_api.writes import transaction

#: Days that are shown when it is not said which.
DEFAULT_DAYS: Final = 31

_STATUSES: Final = ("finished", "failed", "missed", "skipped", "cancelled", "running", "pending")


def window(asked: wire.StatsQuery | wire.DaysQuery, now: datetime) -> tuple[date, date]:
    """Return the local dates that a query asks for. Raises `BadRequest` at the ends of the calendar."""
    zone, span = shapes.zone(asked.timezone), timedelta(days=DEFAULT_DAYS - 1)
    try:
        last = asked.to or (asked.from_ + span if asked.from_ else now.astimezone(zone).date())
        return asked.from_ or last - span, last
    except OverflowError as error:
        raise BadRequest("the date is out of range", pointer="/from") from error


def times(histogram: Histogram) -> dict[str, Any]:
    """Return a histogram as the wire shows it."""
    least, greatest = histogram.extremes
    return {
        "count": histogram.count,
        "p50": _rounded(histogram.quantile(0.5)),
        "p95": _rounded(histogram.quantile(0.95)),
        "p99": _rounded(histogram.quantile(0.99)),
        "min": _rounded(least),
        "max": _rounded(greatest),
        "mean": _rounded(histogram.mean),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def outcomes(totals: Totals) -> dict[str, Any]:
    """Return what was counted as the wire shows it."""
    counts: Mapping[str, int] = totals.counts
    return (
        {"total": totals.total}
        | {status: counts.get(status, 0) for status in _STATUSES}
        | {
            "late": totals.late,
            "success_rate": None if totals.rate is None else round(totals.rate, 6),
            "duration_seconds": times(totals.durations),
            "start_delay_seconds": times(totals.delays),
        }
    )


@get(
    "/projects/{project:str}/tasks/{name:str}/stats",
    operation_id="getTaskStats",
    opt=declare(
        summary="Count what became of a task's executions, and how long they took",
        tag="tasks",
        scopes=("read",),
        query=wire.StatsQuery,
        answers={200: wire.Stats},
        problems=("not_found",),
        description="Local dates, both included; the last 31 by default, 400 at most. Counts are exact and fresh; "
        f"percentiles lie within {ERROR:.0%} of their value, which `relative_error` says. Durations are of what "
        "finished or failed, start delays of what was offered to workers.",
    ),
)
async def task_stats(request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Return the statistics of one task."""
    asked = query(request, wire.StatsQuery)
    known = paths.task_name(name)
    tenant_id = principal_of(request).tenant_id
    async with transaction(request) as (conn, now):
        every, starts = lists.day_starts(*window(asked, now), asked.timezone)
        place = await task_reads.get_project(conn, tenant_id, project)
        row = None if place is None else await tasks.get_by_name(conn, tenant_id, place[0], known)
        if row is None:
            raise NotFound("there is no such task", hint="GET /api/v1/projects/{project}/tasks lists them")
        scope = Scope(tasks=[row.task_uid])
        reading = await Reading.begin(conn, tenant_id, now, starts[0], starts[-1])
        counted = await reading.count(scope, starts, timed=True)
    whole = Totals()
    for one in counted.values():
        whole.merge(one)
    return answer(
        {
            "task": f"{project}/{known}",
            "from": shapes.instant(starts[0]),
            "to": shapes.instant(starts[-1]),
            "timezone": asked.timezone,
            "relative_error": ERROR,
            **outcomes(whole),
            "reasons": [{"status": status, "reason": reason, "count": n} for status, reason, n in whole.why()],
            "days": [{"date": every[place].isoformat(), **outcomes(one)} for place, one in sorted(counted.items())],
        }
    )


handlers = [task_stats]
