"""One day: its figures, its timeline, and its executions, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from cron_observer.statistics import ERROR
from cron_observer.store import shapes, views, views_executions
from cron_observer.store.views import Row
from cron_observer_api.pages import moments, svg, words
from cron_observer_api.pages.render import link
from cron_observer_api.pages.shell import Day, Opened
from cron_observer_api.pages.tiles import BUSIEST, Pieces, chart, measured, rate_of, tile, with_units

#: Executions of a day on one page.
PAGE: Final = 50

#: What a point of the small charts stands for.
SLICE: Final = timedelta(hours=2)


#: How the executions of a day can be narrowed: name in the address, word, statuses.
KINDS: Final[Sequence[tuple[str, str, tuple[str, ...] | None]]] = (
    ("", "All", None),
    ("failed", "Failed", ("FAILED",)),
    ("missed", "Missed", ("MISSED",)),
    ("late", "Late", None),
    ("running", "Running", ("RUNNING",)),
    ("waiting", "Waiting", ("PENDING",)),
    ("finished", "Finished", ("FINISHED",)),
    ("skipped", "Skipped", ("SKIPPED",)),
    ("cancelled", "Cancelled", ("CANCELLED",)),
)


async def one_day(shown: Opened, chosen: date) -> dict[str, Any]:
    conn, tenant, when = shown.conn, shown.tenant_id, shown.when
    since, until = shapes.day_bounds(chosen, when.zone)
    kind = next((one for one in KINDS if one[0] == shown.query.get("status", "")), KINDS[0])
    slices = await measured(shown, [*_every(since, until, SLICE), until], half=13)
    marks = await views.timeline(conn, tenant, since, until, when.now, tasks=BUSIEST)
    rows = await views_executions.day(
        conn,
        tenant,
        since,
        until,
        when.now,
        limit=PAGE + 1,
        statuses=kind[2],
        late=kind[0] == "late",
        after=read_position(shown.query.get("after")),
    )
    day = shown.days.get(chosen) or Day(chosen)
    near = {when.today: "Today, ", when.today - timedelta(days=1): "Yesterday, "}.get(chosen, "")
    base = {"date": chosen.isoformat()}
    return {
        "title": moments.long_day(chosen),
        "heading": f"{near}{moments.long_day(chosen)}",
        "summary": [str(chosen.year), words.many(day.total, "execution")],
        "day": day,
        "kpis": _day_kpis(day, slices),
        "chart": chart(shown, marks, since, until, when.zone_name),
        "as_table": shown.query.get("timeline") == "table",
        "table_href": link("/", **base, status=kind[0], timeline="table"),
        "chart_href": link("/", **base, status=kind[0]),
        "kinds": [
            {
                "word": word,
                "href": link("/", **base, status=name),
                "current": name == kind[0],
                "count": _counted(day, name, statuses),
            }
            for name, word, statuses in KINDS
            if name in ("", kind[0]) or _counted(day, name, statuses)
        ],
        "executions": [execution_line(row) for row in rows[:PAGE]],
        "kind": kind[1],
        "whys": [_why(*one) for one in slices.why if one[0] in ("SKIPPED", "MISSED")],
        # What is told as ranges has no rows.
        "together": not rows and not shown.query.get("after") and bool(_counted(day, kind[0], kind[2])),
        "first": link("/", **base, status=kind[0]) if shown.query.get("after") else None,
        "more": link("/", **base, status=kind[0], after=position(rows[PAGE - 1])) if len(rows) > PAGE else None,
    }


def _counted(day: Day, name: str, statuses: Sequence[str] | None) -> int:
    if not name:
        return day.total
    if name == "late":
        return day.late
    return sum(day.counts.get(status, 0) for status in statuses or ())


def _every(since: datetime, until: datetime, step: timedelta) -> list[datetime]:
    """Return where the steps of a window begin."""
    return [since + number * step for number in range(-(-(until - since) // step))]


def _why(status: str, reason: str, number: int) -> str:
    """Say how many slots did not run for one reason."""
    word = "missed" if status == "MISSED" else "skipped"
    return f"{words.count(number)} {word} ({words.reason(reason)})"


def _day_kpis(day: Day, shown: Pieces) -> list[dict[str, Any]]:
    slices, whole = shown.slices, shown.whole
    recent = [slices.get(n) for n in range(12)]
    rate = rate_of(whole)
    failed, missed = day.counts.get("FAILED", 0), day.counts.get("MISSED", 0)
    return [
        tile(
            "Success rate",
            with_units("–" if rate is None else f"{rate:.1f} %"),
            f"{words.count(day.counts.get('FINISHED', 0))} finished",
            svg.spark([rate_of(row) for row in recent]),
        ),
        tile(
            "Executions",
            words.count(day.total),
            f"{words.count(day.counts.get('SKIPPED', 0))} skipped",
            svg.spark([row.total if row else 0 for row in recent], floor=0),
        ),
        tile(
            "Failed",
            words.count(failed),
            f"{words.count(day.counts.get('CANCELLED', 0))} cancelled",
            svg.spark([row.failed if row else 0 for row in recent], floor=0),
            "fail" if failed else "",
        ),
        tile(
            "Late or missed",
            words.count(day.late + missed),
            f"{words.count(missed)} missed",
            svg.spark([row.late + row.missed if row else 0 for row in recent], floor=0),
            "late" if day.late + missed else "",
        ),
        tile(
            "p95 duration",
            with_units(words.duration(whole.p95 if whole else None)),
            f"of runs that ended, ± {100 * ERROR:.0f} %",
            svg.spark([row.p95 if row else None for row in recent], floor=0),
        ),
        tile(
            "Median start delay",
            with_units(words.duration(whole.delay if whole else None)),
            f"from fire time to claim, ± {100 * ERROR:.0f} %",
            svg.spark([row.delay if row else None for row in recent], floor=0),
        ),
    ]


def execution_line(row: Row) -> dict[str, Any]:
    """Return one execution as a row of a table."""
    return {
        "id": row["id"],
        "badge": words.status(row["status"], late=row["late"], why=row["reason"]),
        "late": row["late"],
        "task": row.get("name"),
        "project": row.get("project_name"),
        "fire_at": row["fire_at"],
        "delay": words.delay(row),
        "seconds": row["seconds"],
        "attempt": row["attempt"],
        "worker": row["worker"],
        "trigger": words.TRIGGERS[row["trigger"]],
        "repeats": row["nominal_at"] if row["repeats"] else None,
        "reason": words.reason(row["reason"]),
        "exit_code": row["exit_code"],
    }


def position(row: Row) -> str:
    """Write where a page of executions ended."""
    return f"{row['fire_at'].isoformat()}_{row['id']}"


def read_position(text: str | None) -> tuple[datetime, UUID] | None:
    """Read where a page ended; None for what no page ever wrote."""
    at, _, identity = (text or "").partition("_")
    try:
        read = datetime.fromisoformat(at), UUID(identity)
    except ValueError:
        return None
    return read if read[0].tzinfo is not None else None
