"""Charts of outcomes, drawn on the server: days as stacked columns, the week as hours. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final, NamedTuple

from markupsafe import Markup, escape

from cron_observer.statistics import Totals
from cron_observer_api.pages import moments

_TALL: Final = 132  #: height of the columns
_WIDE: Final = 840  #: width of the chart, about


class Column(NamedTuple):
    """One day: its outcomes by tone, from the bottom up, and what it says."""

    day: date
    parts: Sequence[tuple[str, int]]
    said: str


class Hour(NamedTuple):
    """One hour of the week, all weeks together."""

    totals: Totals
    said: str


def days(columns: Sequence[Column]) -> Markup:
    """Draw a column for each day, a link to the day where there is anything."""
    most = max((sum(n for _, n in one.parts) for one in columns), default=0) or 1
    step = _WIDE / max(1, len(columns))
    gap = min(4.0, step / 4)
    out = [
        Markup(
            '<svg class="columns" viewBox="0 0 {} {}" role="group" data-rove aria-label="Executions of each day, '
            'the last {} days">'
        ).format(_WIDE + 40, _TALL + 24, len(columns))
    ]
    for share in (0, 0.5, 1):
        y = 8 + _TALL * (1 - share)
        out.append(
            Markup(
                '<line class="gl" x1="36" x2="{0}" y1="{1}" y2="{1}"/>'
                '<text class="lbl" x="30" y="{2}" text-anchor="end" aria-hidden="true">{3}</text>'
            ).format(_WIDE + 40, _n(y), _n(y + 4), f"{most * share:,.0f}" if share < 1 or most > 1 else "1")
        )
    every = max(1, round(len(columns) / 8))
    for place, one in enumerate(columns):
        out.append(_column(one, 38 + place * step, step - gap, most))
        if (len(columns) - 1 - place) % every == 0:
            out.append(
                Markup('<text class="lbl" x="{}" y="{}" text-anchor="{}" aria-hidden="true">{}</text>').format(
                    _n(38 + (place + 0.5) * step if place < len(columns) - 1 else _WIDE + 38),
                    _TALL + 21,
                    "middle" if place < len(columns) - 1 else "end",
                    f"{one.day.day} {moments.MONTHS[one.day.month - 1][:3]}",
                )
            )
    return Markup("").join([*out, Markup("</svg>")])


def _column(one: Column, x: float, wide: float, most: int) -> Markup:
    """Draw one day. Whatever went wrong stays visible, however rare."""
    if not one.parts or not any(n for _, n in one.parts):
        return Markup("")
    said, at, drawn = escape(one.said), 8.0 + _TALL, []
    for tone, n in one.parts:
        if n:
            high = max(2.0, _TALL * n / most)
            at = max(4.0, at - high)
            drawn.append(
                f'<rect class="f-{tone}" x="{_n(x)}" y="{_n(at)}" width="{_n(wide)}" height="{_n(high)}" rx="1.5"/>'
            )
    return Markup(  # noqa: S704  escaped above; the rest are numbers and our own words
        f'<a href="/?date={one.day.isoformat()}" aria-label="{said}" tabindex="-1"><title>{said}</title>'
        f'<rect class="hit" x="{_n(x)}" y="8" width="{_n(wide)}" height="{_TALL}"/>{"".join(drawn)}</a>'
    )


def tone(totals: Totals) -> str:
    """Return the class of a cell: how much of what ended went well."""
    rate = totals.rate
    if rate is None:
        return "h0"
    if rate >= 0.995:
        return "h3" if rate == 1 else "h2"
    return "h1" if rate >= 0.98 else "h4" if rate >= 0.9 else "h5"


def week(hours: Mapping[tuple[int, int], Hour]) -> Markup:
    """Draw the hours of the week, Monday on top."""
    size = 19
    out = [
        Markup(
            '<svg class="hours" viewBox="0 0 {} {}" role="img" aria-label="Success rate by weekday and hour, '
            'all weeks together">'
        ).format(44 + 24 * size, 20 + 7 * size)
    ]
    out += [
        Markup('<text class="lbl" x="{}" y="12" aria-hidden="true">{:02}</text>').format(44 + hour * size, hour)
        for hour in range(0, 24, 3)
    ]
    for weekday in range(7):
        out.append(
            Markup('<text class="lbl" x="4" y="{}" aria-hidden="true">{}</text>').format(
                33 + weekday * size, moments.weekday(weekday)[:3]
            )
        )
        for hour in range(24):
            one = hours.get((weekday, hour))
            place = f'x="{44 + hour * size}" y="{20 + weekday * size}" width="16" height="16" rx="3"'
            kind, said = (tone(one.totals), one.said) if one else ("h0", "")
            title = Markup("<title>{}</title>").format(said) if said else ""
            out.append(Markup('<rect class="{}" {}>{}</rect>').format(kind, Markup(place), title))  # noqa: S704  numbers
    return Markup("").join([*out, Markup("</svg>")])


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
