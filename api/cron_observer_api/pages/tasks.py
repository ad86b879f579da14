"""The list of tasks: one search box, health and sync apart, the last runs as bars."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from litestar import Request, Response, get

from cron_observer.model import ScheduleSpec
from cron_observer.schedule import describe
from cron_observer.store import views_tasks
from cron_observer.store.views import Row
from cron_observer_api.pages import search, svg, words
from cron_observer_api.pages.moments import When
from cron_observer_api.pages.render import link, page
from cron_observer_api.pages.shell import opened

#: Tasks on one page.
PAGE: Final = 50

#: Searches worth a click.
PRESETS: Final = (
    ("All", ""),
    ("Failing", "status:failed"),
    ("Running", "status:running"),
    ("Late", "status:late"),
    ("Missed", "status:missed"),
    ("Kept last good", "sync:kept"),
    ("Paused", "status:paused"),
    ("Suspended", "status:suspended"),
    ("Removed", "status:removed"),
)


@get("/tasks", include_in_schema=False)
async def tasks(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Show the tasks that ``?q=`` names, by name."""
    async with opened(request) as shown:
        query = shown.query.get("q", "")[:400]
        chosen, strange = search.read(query)
        after = _read_position(shown.query.get("after"))
        rows = await views_tasks.tasks(shown.conn, shown.tenant_id, chosen, shown.when.now, limit=PAGE + 1, after=after)
        frame = shown.frame("Tasks", "tasks", ("executions", "tasks"))
    lines = [task_line(row, shown.when) for row in rows[:PAGE]]
    last = rows[PAGE - 1] if len(rows) > PAGE else None
    return page(
        request,
        "tasks.html",
        **frame,
        q=query,
        strange=strange,
        tokens=search.TOKENS,
        presets=[{"word": word, "href": link("/tasks", q=q), "current": query.strip() == q} for word, q in PRESETS],
        tasks=lines,
        projects=len({line["project"] for line in lines}),
        first=link("/tasks", q=query) if after else None,
        more=link("/tasks", q=query, after=f"{last['project_name']}/{last['name']}") if last else None,
    )


def _read_position(text: str | None) -> tuple[str, str] | None:
    project, slash, name = (text or "").replace("\0", "").partition("/")
    return (project, name) if slash else None


def schedule_words(row: Row) -> str:
    """Say in words when a task fires."""
    return describe(ScheduleSpec.read(row["spec"]["schedule"], row["seed"]))


def next_fire(row: Row) -> datetime | None:
    """Return when a task fires next as far as that is known: after its pause, never while nothing is planned."""
    at: datetime | None = row["next_fire_at"]
    if row["status"] == "PAUSED":
        until: datetime | None = row["pause_until"]
        return at if at is not None and until is not None and at >= until else None
    return at if row["status"] == "ACTIVE" else None


def task_line(row: Row, when: When) -> dict[str, Any]:
    """Return one task as a row of a table."""
    bars = row["bars"] or []
    last = bars[-1] if bars else None
    return {
        "name": row["name"],
        "project": row["project_name"],
        "href": f"/tasks/{row['project_name']}/{row['name']}",
        "description": row["spec"].get("description"),
        "schedule": schedule_words(row),
        "health": words.health(row),
        "sync": words.sync(row["sync"], row["owner"]),
        "last_href": f"/executions/{last[0]}" if last else None,
        "bars": svg.bars(bars),
        "next": when.next(next_fire(row)),
        "usual": words.duration(words.usual(bars)),
        "source": row["source_name"],
        "path": row["path"],
        "line": row["line"],
        "labels": sorted(row["labels"].items()),
    }
