"""The statistics of a task: how often it goes well, how long it takes and waits, by day, by hour and weekday."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from cron_observer.statistics import ERROR, Histogram, Totals, days_of, hours_of
from cron_observer.store.statistics_reads import Scope
from cron_observer_api.pages import charts, moments, svg, words
from cron_observer_api.pages.render import link
from cron_observer_api.pages.shell import Opened
from cron_observer_api.pages.tiles import tile, with_units

#: Days that the tab can show, and those that it shows by itself.
RANGES: Final = (7, 31, 90)
USUAL: Final = 31

#: The error of percentiles, as it is printed beside them.
WITHIN: Final = f"± {100 * ERROR:.0f} %"


async def tab(shown: Opened, task_uid: UUID, here: str) -> dict[str, Any]:
    """Return what the tab shows of a task whose page is at `here`."""
    asked = shown.query.get("days", "")
    length = int(asked) if asked in map(str, RANGES) else USUAL
    zone, today = shown.when.zone, shown.when.today
    every, starts = days_of(today - timedelta(days=length - 1), today, zone)
    scope, hours = Scope(tasks=[task_uid]), hours_of(starts, zone)
    by_day = {every[n]: one for n, one in (await shown.reading.count(scope, starts, timed=True)).items()}
    by_hour = {hours[n]: one for n, one in (await shown.reading.count(scope, hours)).items()}
    whole = Totals()
    for totals in by_day.values():
        whole.merge(totals)
    recent = [by_day.get(day) for day in every]
    week = _week(by_hour, shown)
    return {
        "whole": whole,
        "within": WITHIN,
        "kpis": _kpis(whole, recent),
        "ranges": [
            {
                "word": f"{n} days",
                "href": link(here, tab="statistics", days=n if n != USUAL else None),
                "current": n == length,
            }
            for n in RANGES
        ],
        "chart": charts.days([_column(day, by_day.get(day)) for day in every]),
        "hours": charts.week(week),
        "worst": _worst(week),
        "times": [_times("Duration", whole.durations), _times("Start delay", whole.delays)],
        "reasons": [_reason(*one) for one in whole.why()],
        "table": [_row(day, by_day[day]) for day in sorted(by_day, reverse=True)],
    }


def _kpis(whole: Totals, recent: Sequence[Totals | None]) -> list[dict[str, Any]]:
    ill = whole.counts.get("failed", 0) + whole.counts.get("missed", 0)

    def told(label: str, histograms: Sequence[Histogram | None], whole_one: Histogram, share: float) -> dict[str, Any]:
        value = whole_one.quantile(share)
        line = [one.quantile(share) if one else None for one in histograms]
        return tile(label, with_units(words.duration(value)), WITHIN, svg.spark(line, floor=0))

    durations = [one.durations if one else None for one in recent]
    delays = [one.delays if one else None for one in recent]
    return [
        tile(
            "Success rate",
            with_units("–" if whole.rate is None else f"{100 * whole.rate:.1f} %"),
            f"{words.count(whole.counts.get('finished', 0))} finished",
            svg.spark([one.rate if one else None for one in recent]),
        ),
        tile(
            "Executions",
            words.count(whole.total),
            f"{words.count(ill)} failed or missed",
            svg.spark([one.total if one else 0 for one in recent], floor=0),
        ),
        told("Median duration", durations, whole.durations, 0.5),
        told("p95 duration", durations, whole.durations, 0.95),
        told("Median start delay", delays, whole.delays, 0.5),
        told("p95 start delay", delays, whole.delays, 0.95),
    ]


def _column(day: date, totals: Totals | None) -> charts.Column:
    if totals is None:
        return charts.Column(day, (), f"{moments.long_day(day)}: no executions")
    return charts.Column(day, _parts(totals), _said(moments.long_day(day), totals))


def _parts(totals: Totals) -> tuple[tuple[str, int], ...]:
    named = totals.counts.get
    return (
        ("ok", max(0, named("finished", 0) - totals.late)),
        ("late", totals.late + named("missed", 0)),
        ("fail", named("failed", 0)),
        ("run", named("running", 0)),
        ("cancel", named("cancelled", 0)),
        ("skip", named("skipped", 0) + named("pending", 0)),
    )


def _said(place: str, totals: Totals) -> str:
    rate = "" if totals.rate is None else f", {100 * totals.rate:.1f} % finished well"
    return f"{place}: {words.many(totals.total, 'execution')}{rate}"


def _week(by_hour: Mapping[datetime, Totals], shown: Opened) -> dict[tuple[int, int], charts.Hour]:
    """Add the hours of all days up by weekday and hour of the reader's wall clock."""
    sums: dict[tuple[int, int], Totals] = {}
    for at, totals in by_hour.items():
        local = at.astimezone(shown.when.zone)
        sums.setdefault((local.weekday(), local.hour), Totals()).merge(totals)
    return {
        (weekday, hour): charts.Hour(
            totals, _said(f"{moments.weekday(weekday)}s, {hour:02}:00 to {(hour + 1) % 24:02}:00", totals)
        )
        for (weekday, hour), totals in sums.items()
    }


def _worst(week: Mapping[tuple[int, int], charts.Hour]) -> str | None:
    """Name the hour of the week in which most went wrong."""
    rated = [one for one in week.values() if one.totals.rate is not None and one.totals.rate < 1]
    if not rated:
        return None
    return min(rated, key=lambda one: (one.totals.rate, -one.totals.total)).said


def _times(name: str, histogram: Histogram) -> dict[str, Any]:
    least, greatest = histogram.extremes
    figures = [*(histogram.quantile(share) for share in (0.5, 0.95, 0.99)), histogram.mean, least, greatest]
    return {"name": name, "count": histogram.count, "figures": [words.duration(one) for one in figures]}


def _reason(status: str, reason: str, number: int) -> dict[str, Any]:
    return {"badge": words.status(status, why=reason), "word": words.reason(reason), "count": number}


def _row(day: date, totals: Totals) -> dict[str, Any]:
    named = totals.counts.get
    return {
        "href": link("/", date=day.isoformat()),
        "day": f"{moments.short_day(day)} {moments.MONTHS[day.month - 1][:3]}",
        "bar": svg.stack(_parts(totals)),
        "total": totals.total,
        "rate": "–" if totals.rate is None else f"{100 * totals.rate:.1f} %",
        "counts": [named(name, 0) for name in ("finished", "failed", "missed", "skipped", "cancelled")],
        "times": [
            words.duration(one)
            for one in (
                totals.durations.quantile(0.5),
                totals.durations.quantile(0.95),
                totals.delays.quantile(0.5),
                totals.delays.quantile(0.95),
            )
        ],
    }
