"""The days on which an event of a calendar file comes again: RFC 5545, by whole days. Pure, and bounded.

Days are walked period by period up to a last day, so that no rule can take longer than its time span allows.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import count
from typing import Any, Final

#: Parts of a rule that are understood; FREQ is one of the four below.
_PARTS: Final = frozenset(
    ("FREQ", "INTERVAL", "COUNT", "UNTIL", "BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYDAY", "BYSETPOS", "WKST")
)
_WEEKDAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_DAY: Final = timedelta(days=1)


class NotSupported(Exception):  # noqa: N818 - it becomes a finding
    """A rule that cannot be followed; the message says why."""


class Budget:
    """How many days may still be looked at."""

    def __init__(self, days: int) -> None:
        self.left = days

    def spend(self, days: int) -> None:
        """Take some away; raise `NotSupported` when nothing is left."""
        self.left -= days
        if self.left < 0:
            raise NotSupported("the rules of the file take too long to follow; end them with UNTIL")


def days(rule: Mapping[str, Sequence[Any]], start: date, last: date, budget: Budget) -> Iterator[date]:
    """Yield the days of a rule from `start` to `last`, in order, without regard to COUNT and UNTIL.

    `rule` maps the names of its parts to lists of values. Raises `NotSupported`.
    """
    unknown = sorted(set(rule) - _PARTS)
    if unknown:
        raise NotSupported(f"the part {unknown[0][:20]} of its rule is not supported")
    frequency = str(_one(rule, "FREQ", "")).upper()
    if frequency not in _PERIODS:
        raise NotSupported(
            f"it repeats {frequency[:20] or 'without FREQ'}; only DAILY, WEEKLY, MONTHLY and YEARLY can be read"
        )
    interval = int(_one(rule, "INTERVAL", 1))
    if not 1 <= interval <= 10_000:
        raise NotSupported(f"its INTERVAL is {interval}; 1 to 10000 can be read")
    matches, months = _filter(rule, frequency, start)
    positions = [int(value) for value in rule.get("BYSETPOS", ())]
    first_of_week = _weekday(str(_one(rule, "WKST", "MO")))[1]
    for number in count(0, interval):
        period = _PERIODS[frequency](start, number, first_of_week)
        if period is None or period[0] > last:
            return
        first, length = period
        budget.spend(1)
        found: list[date] = []
        for piece, size in _of_months(first, length, months):
            budget.spend(size)
            found += (day for day in (piece + step * _DAY for step in range(size)) if matches(day))
        if positions:
            found = _picked(found, positions)
        yield from (day for day in found if start <= day <= last)


def _one(rule: Mapping[str, Sequence[Any]], name: str, default: Any) -> Any:
    values = rule.get(name)
    return values[0] if values else default


def _picked(found: list[date], positions: list[int]) -> list[date]:
    size = len(found)
    places = {place - 1 if place > 0 else size + place for place in positions if place}
    return [found[place] for place in sorted(places) if 0 <= place < size]


# -- periods: their first day and their length ---------------------------------------------------------------

Period = tuple[date, int] | None


def _daily(start: date, number: int, _first_of_week: int) -> Period:
    day = start.toordinal() + number
    return (date.fromordinal(day), 1) if day <= date.max.toordinal() else None


def _weekly(start: date, number: int, first_of_week: int) -> Period:
    day = start.toordinal() - (start.weekday() - first_of_week) % 7 + 7 * number
    return (date.fromordinal(day), 7) if 1 <= day <= date.max.toordinal() - 7 else None


def _monthly(start: date, number: int, _first_of_week: int) -> Period:
    year, month = divmod(start.year * 12 + start.month - 1 + number, 12)
    if year > 9998:
        return None
    return date(year, month + 1, 1), calendar.monthrange(year, month + 1)[1]


def _yearly(start: date, number: int, _first_of_week: int) -> Period:
    year = start.year + number
    if year > 9998:
        return None
    return date(year, 1, 1), 366 if calendar.isleap(year) else 365


_PERIODS: Final = {"DAILY": _daily, "WEEKLY": _weekly, "MONTHLY": _monthly, "YEARLY": _yearly}


# -- which days of a period ------------------------------------------------------------------------------------


def _of_months(first: date, length: int, months: Collection[int]) -> Iterator[tuple[date, int]]:
    """Cut out of a year the months that a rule names; anything else is left whole."""
    if length < 365 or not months:
        yield first, length
        return
    for month in sorted(months):
        if 1 <= month <= 12:
            yield first.replace(month=month), calendar.monthrange(first.year, month)[1]


def _filter(
    rule: Mapping[str, Sequence[Any]], frequency: str, start: date
) -> tuple[Callable[[date], bool], Collection[int]]:
    """Return what tells whether a day belongs to a rule, and the months that count (none: all of them).

    What the rule leaves open is taken from the first day.
    """
    months = {int(value) for value in rule.get("BYMONTH", ())}
    of_month = {int(value) for value in rule.get("BYMONTHDAY", ())}
    of_year = {int(value) for value in rule.get("BYYEARDAY", ())}
    weekdays = {_weekday(str(value)) for value in rule.get("BYDAY", ())}
    if not of_month and not of_year and not weekdays:
        if frequency == "YEARLY":
            months, of_month = months or {start.month}, {start.day}
        elif frequency == "MONTHLY":
            of_month = {start.day}
        elif frequency == "WEEKLY":
            weekdays = {(0, start.weekday())}
    if frequency in ("DAILY", "WEEKLY") and any(nth for nth, _ in weekdays):
        raise NotSupported(f"a rule that is {frequency} has no numbered weekdays")
    in_month = frequency == "MONTHLY" or bool(months)

    def matches(day: date) -> bool:
        if months and day.month not in months:
            return False
        if of_month:
            length = calendar.monthrange(day.year, day.month)[1]
            if day.day not in of_month and day.day - length - 1 not in of_month:
                return False
        if of_year:
            length = 366 if calendar.isleap(day.year) else 365
            number = day.timetuple().tm_yday
            if number not in of_year and number - length - 1 not in of_year:
                return False
        return not weekdays or _on_weekday(day, weekdays, in_month)

    return matches, months


def _on_weekday(day: date, weekdays: set[tuple[int, int]], in_month: bool) -> bool:
    today = day.weekday()
    if (0, today) in weekdays:
        return True
    if in_month:
        number, length = day.day, calendar.monthrange(day.year, day.month)[1]
    else:
        number, length = day.timetuple().tm_yday, 366 if calendar.isleap(day.year) else 365
    return ((number + 6) // 7, today) in weekdays or (-((length - number) // 7 + 1), today) in weekdays


def _weekday(text: str) -> tuple[int, int]:
    """Read ``MO`` as (0, 0), ``-1SU`` as (-1, 6)."""
    number, name = text[:-2], text[-2:].upper()
    if name not in _WEEKDAYS or len(number) > 3:
        raise NotSupported(f"{text[:20]!r} is no weekday of a rule")
    try:
        return int(number or 0), _WEEKDAYS.index(name)
    except ValueError:
        raise NotSupported(f"{text[:20]!r} is no weekday of a rule") from None
