"""The overview: what runs, what needs a person, how it went; with ``?date=``, one day and its executions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

from litestar import Request, Response, get
from markupsafe import Markup

from cron_observer.statistics import ERROR, quarter_of
from cron_observer.store import checkin_rows, views, views_tasks
from cron_observer.store.views import Row
from cron_observer_api.pages import moments, svg, words
from cron_observer_api.pages.anchors import anchor
from cron_observer_api.pages.day import SLICE, one_day
from cron_observer_api.pages.log_book import LogBook
from cron_observer_api.pages.render import base_url, link, page
from cron_observer_api.pages.shell import Day, Opened, opened
from cron_observer_api.pages.tasks import task_line
from cron_observer_api.pages.tiles import BUSIEST, Pieces, arrow, chart, measured, rate_of, tile, with_units

#: Hours that the timeline can show; a third of them lies ahead.
RANGES: Final = {"2h": 2.0, "8h": 8.0, "24h": 24.0}

#: Slices of two hours that the tiles look back: a day, and the day before it.
SLICES: Final = 24

_NEXT: Final = timedelta(seconds=1)

#: A due slot that nobody claims needs a person after this long.
PATIENCE: Final = timedelta(minutes=2)


@get("/", include_in_schema=False)
async def overview(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Show the present, or the day that ``?date=`` names."""
    async with opened(request) as shown:
        if shown.chosen is not None:
            values = await one_day(shown, shown.chosen)
            template = "day.html"
        elif not shown.days and not await _has_tasks(shown):
            values, template = _start(request), "start.html"
        else:
            values, template = await _present(shown, request.app.state.log_book), "overview.html"
        frame = shown.frame(values.pop("title"), "overview", ("executions", "tasks", "sources"))
    return page(request, template, **frame, **values)


async def _has_tasks(shown: Opened) -> bool:
    found = await views_tasks.tasks(shown.conn, shown.tenant_id, views_tasks.TaskFilter(), shown.when.now, limit=1)
    return bool(found)


def _start(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return {"title": "Welcome", "base": base_url(request)}


async def _present(shown: Opened, book: LogBook) -> dict[str, Any]:
    conn, tenant, when = shown.conn, shown.tenant_id, shown.when
    now = when.now
    slices = await measured(shown, _slices(now), half=SLICES // 2)
    present = await views.present(conn, tenant, now)
    hours = RANGES.get(shown.query.get("range", "")) or _range(slices)
    since, until = now - timedelta(hours=hours * 0.7), now + timedelta(hours=hours * 0.3)
    marks = await views.timeline(conn, tenant, since, until, now, tasks=BUSIEST)
    tasks = await views_tasks.by_attention(conn, tenant, now, limit=BUSIEST)
    problems = await views.attention(conn, tenant, now - timedelta(days=1), now, patience=PATIENCE, limit=6)
    total, suspended = present["tasks"]
    outages = await checkin_rows.deaf(conn, tenant, now - timedelta(days=1))
    return {
        "title": "Overview",
        "heading": f"Today, {moments.long_day(when.today)}",
        "summary": [
            words.many(total, "task") + (f", {suspended} suspended" if suspended else ""),
            words.many(len(shown.sources), "source"),
        ],
        "kpis": _kpis(shown, slices, present),
        "chart": chart(shown, marks, since, until, "last and next hours"),
        "ranges": [
            {"word": name.replace("h", " h"), "href": link("/", range=name), "current": hours == value}
            for name, value in RANGES.items()
        ],
        "as_table": shown.query.get("timeline") == "table",
        "table_href": link("/", range=shown.query.get("range"), timeline="table"),
        "chart_href": link("/", range=shown.query.get("range")),
        "tasks": [task_line(row, when) for row in tasks],
        "task_count": total,
        "outages": outages,
        "problems": [problem(row) for row in _once(problems)],
        "history": _history(shown, slices, await book.read(tenant)),
    }


def _slices(now: datetime) -> list[datetime]:
    """Return where the slices begin: the two days where they do, to the instant, the others where a quarter does."""
    begins = [now + (number - SLICES) * SLICE for number in range(SLICES)]
    whole = [at if number % (SLICES // 2) == 0 else quarter_of(at) for number, at in enumerate(begins)]
    return [*whole, now + _NEXT]


def _range(shown: Pieces) -> float:
    """The hours that the timeline shows by itself: few while there is no older history, so that it is never a void."""
    older = any(place < SLICES - 1 for place in shown.slices)
    return 8.0 if older else 2.0


def _kpis(shown: Opened, measures: Pieces, present: Row) -> list[dict[str, Any]]:
    slices, halves = measures.slices, measures.halves
    last, before = halves.get(1), halves.get(0)
    recent = [slices.get(n) for n in range(12, 24)]
    rate, rate_before = rate_of(last), rate_of(before)
    change = None if rate is None or rate_before is None else rate - rate_before
    today = shown.days.get(shown.when.today)
    ill = last.late + last.missed if last else 0
    running, oldest = present["running"]
    quick, quick_before = last and last.p95, before and before.p95
    trend = None if not quick or not quick_before else 100 * (quick - quick_before) / quick_before
    return [
        tile(
            "Success rate, 24 h",
            with_units("–" if rate is None else f"{rate:.1f} %"),
            _compared(rate, change and f"{arrow(change)} {abs(change):.1f} vs. the day before"),
            svg.spark([rate_of(row) for row in recent]),
        ),
        tile(
            "Executions, 24 h",
            words.count(last.total if last else 0),
            f"{words.count(today.total if today else 0)} today",
            svg.spark([row.total if row else 0 for row in recent], floor=0),
        ),
        tile(
            "Running now",
            words.count(running),
            Markup("oldest since {}").format(shown.when.clock(datetime.fromisoformat(oldest))) if oldest else "idle",
            svg.spark([row.busy / 7200 if row else 0 for row in recent], floor=0),
        ),
        tile(
            "Late or missed, 24 h",
            words.count(ill),
            f"{words.count(last.missed if last else 0)} missed, {words.count(last.failed if last else 0)} failed",
            svg.spark([row.late + row.missed if row else 0 for row in recent], floor=0),
            "late" if ill else "",
        ),
        tile(
            "p95 duration, 24 h",
            with_units(words.duration(quick)),
            _compared(quick, trend and f"{arrow(trend)} {abs(trend):.0f} % vs. the day before"),
            svg.spark([row.p95 if row else None for row in recent], floor=0),
        ),
        _next_tile(shown, present["next"] or []),
    ]


def _compared(figure: float | None, difference: str | float | None) -> str:
    """Say how a figure differs from the day before, or why that cannot be said."""
    if figure is None:
        return "no run has ended yet"
    return difference if isinstance(difference, str) else "as the day before" if difference == 0 else "the first day"


def _next_tile(shown: Opened, coming: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The next fire, and how many slots each five minutes of the next hour hold."""
    if not coming:
        return tile("Next fire", "–", "nothing is planned", svg.spark([]))
    at = datetime.fromtimestamp(coming[0][0], shown.when.now.tzinfo)
    start = shown.when.now.timestamp()
    loads = [sum(1 for one in coming if 0 <= one[0] - start - 300 * n < 300) for n in range(12)]
    more = sum(1 for one in coming if one[0] == coming[0][0]) - 1
    return tile(
        "Next fire",
        shown.when.next(at),
        coming[0][1] + (f" and {more} more" if more else ""),
        svg.spark(loads, floor=0),
    )


def _once(rows: Sequence[Row]) -> list[Row]:
    """Leave out quarantined tasks whose file has a finding: the finding says more."""
    told = {row["path"] for row in rows if row["kind"] == "finding"}
    return [row for row in rows if row["kind"] != "task" or row["path"] not in told]


def problem(row: Row) -> dict[str, Any]:
    """Say what needs a person: which, since when, why, and where to look."""
    if row["kind"] == "finding":
        place = f", line {row['line']}" + (f":{row['column']}" if row["column"] else "") if row["line"] else ""
        return {
            "tone": "fail" if row["status"] == "error" else "late",
            "word": "Manifest error" if row["status"] == "error" else "Manifest warning",
            "title": row["name"],
            "href": f"/sync/{row['source_name']}#{anchor(row['name'])}",
            "at": None,
            "text": f"{row['reason']}{place}: {row['message']}" + (f" – {row['hint']}" if row["hint"] else ""),
        }
    if row["kind"] == "task":
        return {
            "tone": "fail",
            "word": "Quarantined",
            "title": row["name"],
            "href": f"/tasks/{row['project_name']}/{row['name']}",
            "at": row["at"],
            "text": row["message"],
        }
    badge = words.status(row["status"], late=row["late"], why=row["reason"])
    return {
        "tone": "late" if row["recovered"] and badge.tone == "fail" else badge.tone,
        "word": badge.word,
        "title": row["name"],
        "href": f"/executions/{row['id']}",
        "at": row["finished_at"] or row["at"],
        "text": _why(row) + (" – a later run finished" if row["recovered"] else ""),
    }


def _why(row: Row) -> str:
    if row["status"] == "PENDING":
        return "due, but nobody has begun it"
    tries = f"attempt {row['attempt']}: " if row["attempt"] > 1 else ""
    code = f" {row['exit_code']}" if row["exit_code"] and row["reason"] == "exit_code" else ""
    what = row["message"] or ("reported after its deadline" if row["late"] else "")
    return f"{tries}{words.reason(row['reason'])}{code}" + (f": {what}" if row["reason"] and what else what)


def _heat_class(day: Day) -> str:
    rate = day.rate
    if rate is None:
        return "h0"
    if rate >= 0.995:
        return "h3" if rate == 1 else "h2"
    return "h1" if rate >= 0.98 else "h4" if rate >= 0.9 else "h5"


def _streak(days: dict[date, Day]) -> int:
    """The longest row of days with executions and without a failed or missed one."""
    best = run = 0
    for day in sorted(days):
        run = 0 if days[day].ill else run + 1
        best = max(best, run)
    return best


def _history(shown: Opened, measures: Pieces, log_bytes: int | None) -> dict[str, Any]:
    days = dict(shown.days)
    today = shown.when.today
    weeks = max(12, min(53, (today - min(days, default=today)).days // 7 + 2))
    total = sum(day.total for day in days.values())
    failed = sum(day.counts.get("FAILED", 0) for day in days.values())
    missed = sum(day.counts.get("MISSED", 0) for day in days.values())
    late = measures.halves[1].delay if 1 in measures.halves else None
    cells = {day: (_heat_class(one), one.said()) for day, one in days.items()}
    return {
        "weeks": weeks,
        "svg": svg.heat(cells, today, weeks, moments.MONTHS),
        "facts": [
            ("Best streak", words.many(_streak(days), "day"), "none failed or missed"),
            ("Executions", words.count(total), f"in {words.many(len(days), 'day')}"),
            ("Failed", words.count(failed), f"{100 * failed / total:.1f} %" if total else ""),
            ("Missed", words.count(missed), f"{100 * missed / total:.1f} %" if total else ""),
            ("Median start delay", words.duration(late), f"last 24 h, ± {100 * ERROR:.0f} %"),
            ("Log volume", "–" if log_bytes is None else words.size(log_bytes), "before compression"),
        ],
    }
