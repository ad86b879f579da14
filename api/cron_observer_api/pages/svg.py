"""Charts, drawn on the server: geometry in attributes, colour by class, every mark a link with words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from cron_observer_api.pages import words

_NAMES: Final = 168  #: width of the timeline's names
_PLOT: Final = 900  #: width of its plot
_ROW: Final = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One run, or several that begin together, on the timeline."""

    begins: datetime
    ends: datetime
    tone: str
    word: str
    href: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One task on the timeline."""

    name: str
    href: str
    marks: list[Mark] = field(default_factory=list)


def _n(value: float) -> str:
    """Write a coordinate briefly."""
    return f"{value:.1f}".removesuffix(".0")


def timeline(
    lanes: Sequence[Lane], since: datetime, until: datetime, now: datetime, zone: ZoneInfo, *, title: str
) -> Markup:
    """Draw when tasks ran and will run, with a line at `now` if it is in the window."""
    height = _ROW * len(lanes) + 30
    whole = (until - since).total_seconds()

    def x(at: datetime) -> float:
        return _NAMES + min(1.0, max(0.0, (at - since).total_seconds() / whole)) * _PLOT

    out = [
        Markup('<svg class="timeline" viewBox="0 0 {} {}" role="group" aria-label="{}" data-rove>').format(
            _NAMES + _PLOT + 12, height, title
        )
    ]
    for at in _hours(since, until, zone):
        left = _n(x(at))
        out.append(Markup('<line class="gl" x1="{0}" x2="{0}" y1="22" y2="{1}"/>').format(left, height))
        label = f"{at.astimezone(zone):%H:%M}"
        if x(at) < _NAMES + _PLOT - 34:
            out.append(
                Markup('<text class="lbl" x="{}" y="14" aria-hidden="true">{}</text>').format(_n(x(at) + 3), label)
            )
    for row, lane in enumerate(lanes):
        out.append(_lane(lane, 30 + _ROW * row, x, zone))
    if since <= now <= until:
        left = _n(x(now))
        out.append(
            Markup(
                '<line class="now" x1="{0}" x2="{0}" y1="18" y2="{1}"/>'
                '<circle class="nowdot" cx="{0}" cy="18" r="3.5"/>'
            ).format(left, height)
        )
    return Markup("").join([*out, Markup("</svg>")])


def _lane(lane: Lane, top: int, x: Any, zone: ZoneInfo) -> Markup:
    short = lane.name if len(lane.name) <= 25 else lane.name[:24] + "…"
    name = escape(lane.name)
    out = [
        (
            f'<a href="{escape(lane.href)}" class="lane"><title>{name}</title>'
            f'<rect class="hit" x="0" y="{top - 4}" width="{_NAMES - 8}" height="24"/>'
            f'<text class="name" x="4" y="{top + 12}">{escape(short)}</text></a>'
        )
    ]
    for mark in lane.marks:
        left = x(mark.begins)
        wide = max(4.0, x(mark.ends) - left)
        several = f", {mark.count} runs" if mark.count > 1 else ""
        said = f"{name}, {mark.begins.astimezone(zone):%H:%M}, {escape(mark.word)}{several}"
        inset = 0.5 if mark.tone in ("plan", "wait") else 0
        out.append(
            f'<a href="{escape(mark.href)}" aria-label="{said}" tabindex="-1"><title>{said}</title>'
            f'<rect class="f-{mark.tone}" x="{_n(left + inset)}" y="{_n(top + inset)}" width="{_n(wide)}" '
            f'height="{_n(16 - 2 * inset)}" rx="3"/></a>'
        )
    return Markup("".join(out))  # noqa: S704  names, words and addresses are escaped above; the rest are numbers


def _hours(since: datetime, until: datetime, zone: ZoneInfo) -> Iterable[datetime]:
    """The round instants of a window at which lines stand: at most ten or so."""
    hours = (until - since).total_seconds() / 3600
    step = timedelta(minutes=15 if hours <= 2 else 60 if hours <= 10 else 180)
    local = since.astimezone(zone)
    first = local.replace(minute=0, second=0, microsecond=0)
    if step > timedelta(hours=1):
        first = first.replace(hour=0)
    at = first.astimezone(since.tzinfo)
    while at <= until:
        if at >= since:
            yield at
        at += step


def spark(values: Sequence[float | None], *, floor: float | None = None) -> Markup:
    """Draw a small line of values; gaps are bridged. `floor` is the value at the bottom, else the least one."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup('<svg class="spark-box" viewBox="0 0 116 22" aria-hidden="true"></svg>')
    low = min(known) if floor is None else floor
    high = max(*known, low)
    spread = (high - low) or 1.0
    step = 116 / (len(values) - 1)
    points = " ".join(
        f"{_n(n * step)},{_n(20 - 18 * (value - low) / spread)}" for n, value in enumerate(values) if value is not None
    )
    return Markup(
        '<svg class="spark-box" viewBox="0 0 116 22" preserveAspectRatio="none" aria-hidden="true">'
        '<polyline class="spark" points="{}" vector-effect="non-scaling-stroke"/></svg>'
    ).format(points)


def bars(runs: Sequence[Sequence[Any]] | None, *, tall: int = 22, slots: int = 24) -> Markup:
    """Draw a task's last runs, [id, status, late, seconds, …] each: height is duration, colour is outcome."""
    runs = runs or ()
    longest = max((run[3] or 0 for run in runs), default=0) or 1
    ill = sum(1 for run in runs if run[1] in ("FAILED", "MISSED"))
    said = f"Last {words.many(len(runs), 'run')}, {ill} failed or missed" if runs else "No runs yet"
    wide = slots * 7 - 2
    out = [
        f'<svg class="bars" viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}" role="img" aria-label="{said}">'
    ]
    for place, run in enumerate(runs):
        high = 4 + (tall - 5) * min(1.0, (run[3] or 0) / longest) ** 0.5 if run[3] is not None else 5
        out.append(
            f'<rect class="f-{words.tone_of(run[1], run[2])}" x="{(slots - len(runs) + place) * 7}" '
            f'y="{_n(tall - high)}" width="5" height="{_n(high)}" rx="1.5"/>'
        )
    return Markup("".join([*out, "</svg>"]))  # noqa: S704  numbers and our own words


def grid(runs: Sequence[Mapping[str, Any]], zone: ZoneInfo, usual: float | None) -> Markup:
    """Draw a task's runs as tall bars that lead to each of them, oldest left."""
    wide, tall, step = 13, 84, 17
    ordered = list(reversed(runs))
    longest = max([run["seconds"] or 0 for run in ordered] + [usual or 0]) or 1
    whole = max(1, len(ordered)) * step
    out = [
        (
            f'<svg class="grid" viewBox="0 0 {whole} {tall}" width="{whole}" height="{tall}" role="group" data-rove '
            f'aria-label="Durations of the last {words.many(len(ordered), "run")}">'
        )
    ]

    def top(seconds: float | None) -> float:
        return tall - (6 + (tall - 10) * (seconds or 0) / longest)

    if usual:
        level = _n(top(usual))
        out.append(f'<line class="usual" x1="0" x2="{len(ordered) * step}" y1="{level}" y2="{level}"/>')
    for place, run in enumerate(ordered):
        badge = words.status(run["status"], late=run["late"], why=run["reason"])
        local = run["fire_at"].astimezone(zone)
        said = f"{badge.word}, {local:%a %d %b %H:%M}, {words.duration(run['seconds'])}"
        high = top(run["seconds"]) if run["seconds"] is not None else tall - 6
        stop = ' tabindex="-1"' if place < len(ordered) - 1 else ""
        out.append(
            f'<a href="/executions/{run["id"]}" aria-label="{said}"{stop}><title>{said}</title>'
            f'<rect class="hit" x="{place * step}" y="0" width="{step}" height="{tall}"/>'
            f'<rect class="f-{badge.tone}" x="{place * step + 2}" y="{_n(high)}" width="{wide}" '
            f'height="{_n(tall - high)}" rx="2.5"/></a>'
        )
    return Markup("".join([*out, "</svg>"]))  # noqa: S704  ids, numbers, dates and our own words


def stack(parts: Sequence[tuple[str, int]]) -> Markup:
    """Draw a day's outcomes as one bar. Whatever went wrong stays visible, however rare."""
    total = sum(number for _, number in parts)
    out = [Markup('<svg class="stack" viewBox="0 0 200 5" preserveAspectRatio="none" aria-hidden="true">')]
    widths = [(tone, max(200 * number / total, 4.0 if tone != "ok" else 0)) for tone, number in parts if number]
    scale = 200 / (sum(width for _, width in widths) or 1)
    at = 0.0
    for tone, width in widths:
        out.append(
            Markup('<rect class="f-{}" x="{}" y="0" width="{}" height="5"/>').format(tone, _n(at), _n(width * scale))
        )
        at += width * scale
    return Markup("").join([*out, Markup("</svg>")])


def heat(cells: Mapping[date, tuple[str, str]], today: date, weeks: int, months: Sequence[str]) -> Markup:
    """Draw one cell for each day of the last `weeks` weeks: (class, words) by date, Monday on top."""
    size = 14.4
    first = today - timedelta(days=today.weekday() + 7 * (weeks - 1))
    out = [
        Markup(
            '<svg class="heat" viewBox="0 0 {0} 118" width="{1}" height="142" role="group" data-rove '
            'aria-label="Success rate of each day, last {2} weeks">'
        ).format(_n(28 + weeks * size), _n((28 + weeks * size) * 1.2), weeks)
    ]
    for row, name in ((0, "M"), (2, "W"), (4, "F")):
        out.append(
            Markup('<text class="lbl" x="4" y="{}" aria-hidden="true">{}</text>').format(_n(26 + row * size), name)
        )
    shown = -3
    for week in range(weeks):
        monday = first + timedelta(days=7 * week)
        month = (monday + timedelta(days=6)).replace(day=1)
        if monday <= month <= monday + timedelta(days=6) and week - shown > 2 and week < weeks - 1:
            shown = week
            out.append(
                Markup('<text class="lbl" x="{}" y="9" aria-hidden="true">{}</text>').format(
                    _n(26 + week * size), months[month.month - 1][:3]
                )
            )
        for weekday in range(7):
            day = monday + timedelta(days=weekday)
            if day <= today:
                out.append(_cell(cells.get(day), day, 26 + week * size, 16 + weekday * size))
    return Markup("").join([*out, Markup("</svg>")])


def _cell(cell: tuple[str, str] | None, day: date, x: float, y: float) -> Markup:
    place = f'x="{_n(x)}" y="{_n(y)}" width="12" height="12" rx="2.5"'
    if cell is None:
        return Markup(f'<rect class="h0" {place}/>')  # noqa: S704  numbers
    kind, said = cell[0], escape(cell[1])
    return Markup(  # noqa: S704  escaped above
        f'<a href="/?date={day.isoformat()}" aria-label="{said}" tabindex="-1"><title>{said}</title>'
        f'<rect class="{kind}" {place}/></a>'
    )
