"""One task: its runs, its schedule, its definition down to the line, and how to report to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from litestar import Request, Response, get
from litestar.params import FromPath

from cron_observer.durations import CheckIn
from cron_observer.errors import NotFound, ScheduleError
from cron_observer.model import ScheduleSpec
from cron_observer.schedule import Explanation, explain
from cron_observer.schedule.calendars import Calendar
from cron_observer.store import addresses, checkin_rows, reruns, views_tasks, views_time
from cron_observer.store.links import line_link
from cron_observer.store.views import Row
from cron_observer_api.pages import reporting, statistics, svg, words
from cron_observer_api.pages.day import KINDS, execution_line, position, read_position
from cron_observer_api.pages.moments import When
from cron_observer_api.pages.render import base_url, link, page
from cron_observer_api.pages.shell import Opened, opened
from cron_observer_api.pages.tasks import next_fire, schedule_words

#: Runs on one page; the grid shows the same ones.
PAGE: Final = 50

#: Fires that the schedule tab foretells.
FIRES: Final = 10

#: What the class of a schedule means when the clock changes.
CLOCK: Final = {
    "fixed-time": "keeps its local time",
    "interval-like": "keeps its rhythm",
    "mixed": "each part by its own rule",
}

#: The fields of a spec, in the order of the manual; the database keeps none.
ORDER: Final = (
    "description",
    "suspend",
    "queue",
    "priority",
    "payload",
    "group",
    "schedule",
    "catchup",
    "onResume",
    "maxLateness",
    "overlap",
    "maxParallel",
    "startDeadline",
    "timeout",
    "retries",
    "late",
    "run",
)

TABS: Final = (
    ("runs", "Runs"),
    ("statistics", "Statistics"),
    ("schedule", "Schedule"),
    ("definition", "Definition"),
    ("report", "How to report"),
)


@get("/tasks/{project:str}/{name:str}", include_in_schema=False)
async def task(request: Request[Any, Any, Any], project: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Show one task, on the tab that ``?tab=`` names."""
    async with opened(request) as shown:
        row = None
        if "\0" not in project + name:
            row = await views_tasks.task(shown.conn, shown.tenant_id, project, name, shown.when.now)
        if row is None:
            raise NotFound(f"there is no task {project}/{name}", hint="look for it in the list of tasks")
        beside = await views_time.of_task(shown.conn, shown.tenant_id, row, row["project_id"], shown.when.now)
        outages = []
        if CheckIn.of(row["spec"]) is not None:
            outages = await checkin_rows.deaf(shown.conn, shown.tenant_id, shown.when.now - timedelta(days=1))
        tab = next((one for one, _ in TABS if one == shown.query.get("tab")), "runs")
        values = await _tab(request, shown, row, tab, beside)
        frame = shown.frame(name, "tasks", ("executions", "tasks"))
    here = f"/tasks/{project}/{name}"
    return page(
        request,
        "task.html",
        **frame,
        **_head(row, shown.when),
        declared=beside["declared"],
        outages=outages,
        here_path=here,
        tab=tab,
        tabs=[
            {"word": word, "href": link(here, tab=one if one != "runs" else None), "current": one == tab}
            for one, word in TABS
        ],
        **values,
    )


def _head(row: Row, when: When) -> dict[str, Any]:
    bars = row["bars"] or []
    ended = [bar for bar in bars if bar[1] in ("FINISHED", "FAILED", "MISSED")]
    good = sum(1 for bar in ended if bar[1] == "FINISHED")
    return {
        "task": row,
        "description": row["spec"].get("description"),
        "health": words.health(row),
        "sync": words.sync(row["sync"], row["owner"]),
        "schedule": schedule_words(row),
        "labels": sorted(row["labels"].items()),
        "annotations": sorted(row["annotations"].items()),
        "facts": [
            ("Next fire", when.next(next_fire(row)), _next_note(row)),
            ("Usual duration", words.duration(words.usual(bars)), "p50 of the last runs"),
            (
                "Success",
                f"{100 * good / len(ended):.0f} %" if ended else "–",
                f"{good} of the last {len(ended)}" if ended else "no run has ended",
            ),
            _limits(row["spec"]),
        ],
        "findings": row["findings"] or [],
        "forge": line_link(row["source_url"], row["commit"], row["path"], row["line"]),
    }


def _limits(spec: dict[str, Any]) -> tuple[str, str, str]:
    watched = (spec.get("run") or {}).get("checkin")
    if watched is not None:
        return ("Grace", watched["grace"], f"runs at most {watched['maxRuntime']}")
    retries = spec["retries"]["max"]
    return ("Timeout", spec["timeout"], "1 retry" if retries == 1 else f"{retries} retries")


def _next_note(row: Row) -> str:
    if row["status"] == "PAUSED":
        return "after the pause" if row["pause_until"] else "when it is resumed"
    if row["status"] != "ACTIVE":
        return "no slots are planned"
    zone = row["spec"]["schedule"].get("timezone") or "UTC"
    return str(zone)


async def _tab(
    request: Request[Any, Any, Any], shown: Opened, row: Row, tab: str, beside: dict[str, Any]
) -> dict[str, Any]:
    if tab == "statistics":
        return await statistics.tab(shown, row["task_uid"], f"/tasks/{row['project_name']}/{row['name']}")
    if tab == "schedule":
        return await _schedule(shown, row, beside["block"])
    if tab == "definition":
        return _definition(row)
    if tab == "report":
        return await _report(request, shown, row)
    return await _runs(shown, row, beside["ranges"])


async def _runs(shown: Opened, row: Row, ranges: Sequence[dict[str, Any]]) -> dict[str, Any]:
    kind = next((one for one in KINDS if one[0] == shown.query.get("status", "") and one[0] != "late"), KINDS[0])
    after = read_position(shown.query.get("after"))
    rows = await views_tasks.runs(
        shown.conn,
        shown.tenant_id,
        row["task_uid"],
        shown.when.now,
        limit=PAGE + 1,
        statuses=kind[2],
        after=after,
    )
    here = f"/tasks/{row['project_name']}/{row['name']}"
    listed = rows[:PAGE]
    return {
        "grid": svg.grid(listed, shown.when.zone, words.usual(row["bars"])) if listed else None,
        "executions": [execution_line(one) for one in listed],
        "kinds": [
            {"word": word, "href": link(here, status=name), "current": name == kind[0]}
            for name, word, _ in KINDS
            if name != "late"
        ],
        "kind": kind[1],
        "ranges": [_range(one) for one in ranges] if not after and kind[0] in ("", "skipped", "missed") else [],
        "first": link(here, status=kind[0]) if after else None,
        "more": link(here, status=kind[0], after=position(rows[PAGE - 1])) if len(rows) > PAGE else None,
    }


def _range(one: dict[str, Any]) -> dict[str, Any]:
    """Return a stretch of slots that did not run, as one line of history."""
    many = f"{one['slots']:,} slots" if one["slots"] > 1 else "1 slot"
    word = "missed" if one["status"] == "MISSED" else "skipped"
    said = f"{many} {word}: {words.reason(one['reason'])}"
    return {"said": said, "badge": words.status(one["status"], why=one["reason"])} | one


async def _schedule(shown: Opened, row: Row, block: Any) -> dict[str, Any]:
    spec, calendars = ScheduleSpec.read(row["spec"]["schedule"], row["seed"]), None
    if block is not None and (spec.include or spec.exclude):
        try:
            # the calendars as they are planned with; names as the manifest writes them
            _, found = await reruns.calendars_of(shown.conn, shown.tenant_id, block)
            calendars = {name.rpartition("@")[0]: calendar for name, calendar in found.items()}
        except ScheduleError:
            calendars = None
    # compiling a schedule can take a while, and the loop serves others
    explained = await asyncio.to_thread(_explain, spec, shown.when.now, calendars)
    if isinstance(explained, str):
        return {"trouble": explained, "fires": [], "notes": [], "kind": None, "block": row["spec"]["schedule"]}
    return {
        "trouble": None,
        "fires": [
            {"local": fire.local, "utc": fire.utc, "note": fire.note, "place": number + 1}
            for number, fire in enumerate(explained.fires)
        ],
        "notes": explained.notes,
        "kind": CLOCK[explained.kind],
        "block": row["spec"]["schedule"],
    }


def _explain(spec: ScheduleSpec, now: datetime, calendars: Mapping[str, Calendar] | None) -> Explanation | str:
    try:
        return explain(spec, now, FIRES, calendars)
    except ScheduleError as error:
        return f"{error.message}" + (f" – {error.hint}" if error.hint else "")


def _definition(row: Row) -> dict[str, Any]:
    text: str | None = row["file_text"]
    revisions: Sequence[dict[str, Any]] = row["revisions"] or []
    return {
        "lines": text.splitlines() if text is not None else None,
        "first_line": _first_line(text, row["line"]),
        "revisions": [
            revision
            | {
                "at": datetime.fromtimestamp(revision["at"], row["created_at"].tzinfo),
                "url": line_link(row["source_url"], revision["commit"], revision["path"], revision["line"]),
            }
            for revision in revisions
        ],
        "effective": _effective(row["spec"]),
    }


def _first_line(text: str | None, line: int | None) -> int | None:
    return line if text is not None and line and line <= len(text.splitlines()) else None


def _effective(spec: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten a spec into rows of a table: ``retries.max`` and its value."""
    rows: list[tuple[str, Any]] = []
    ranked = sorted(spec.items(), key=lambda item: ORDER.index(item[0]) if item[0] in ORDER else len(ORDER))
    for name, value in ranked:
        if isinstance(value, dict) and value and name != "payload":
            rows += _effective(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value))
    return rows


async def _report(request: Request[Any, Any, Any], shown: Opened, row: Row) -> dict[str, Any]:
    if CheckIn.of(row["spec"]) is not None:
        doors = await addresses.doors(shown.conn, shown.tenant_id, [row["task_uid"]])
        return {"ways": [way for one in doors.values() for way in reporting.ping_ways(row["name"], one)]}
    http = (row["spec"].get("run") or {}).get("http")
    if http is not None:
        return {"ways": reporting.sent_ways(base_url(request), http)}
    name = f"{row['project_name']}/{row['name']}"
    return {"ways": reporting.run_ways(base_url(request), name, row["spec"]["queue"])}
