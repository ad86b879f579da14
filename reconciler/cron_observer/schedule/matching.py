"""Which days and minutes a cron expression names, on integers: days count from 1970-01-01."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from cron_observer.schedule.grammar import Cron

_LOCAL: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - labels have no zone


def matches_day(cron: Cron, day: int) -> bool:
    """Whether the expression fires on `day`, counted from 1970-01-01."""
    date = _LOCAL + timedelta(day)
    if not cron.months >> date.month & 1:
        return False
    return bool(_month_days(cron, *_shape(date.year, date.month)) >> date.day & 1)


def days(cron: Cron, first: int, end: int) -> Iterator[int]:
    """The days from `first` to below `end` on which the expression fires."""
    date = _LOCAL + timedelta(first)
    year, month = date.year, date.month
    start = first - date.day  # day 0 of the month
    while start < end:
        length, weekday = _shape(year, month)
        if cron.months >> month & 1:
            for number in _bits(_month_days(cron, length, weekday)):
                day = start + number
                if day >= end:
                    return
                if day >= first:
                    yield day
        start += length
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)


def ever_fires(cron: Cron) -> bool:
    """Whether any date of the calendar matches: there are only fourteen kinds of year."""
    return any(
        cron.months >> month & 1 and _month_days(cron, length, weekday)
        for month in range(1, 13)
        for length in ((28, 29) if month == 2 else (_shape(2001, month)[0],))
        for weekday in range(7)
    )


def month_days(cron: Cron, year: int, month: int) -> int:
    """Bit d is set for each day d of a month on which the expression fires."""
    return _month_days(cron, *_shape(year, month)) if cron.months >> month & 1 else 0


def month_length(year: int, month: int) -> int:
    """How many days a month has."""
    return _shape(year, month)[0]


@lru_cache(maxsize=4096)
def _shape(year: int, month: int) -> tuple[int, int]:
    """The length of a month, and the weekday of its first day (0 = Sunday)."""
    first = datetime(year, month, 1)  # noqa: DTZ001 - a date
    after = datetime(year + month // 12, month % 12 + 1, 1)  # noqa: DTZ001 - a date
    return (after - first).days, first.isoweekday() % 7


@lru_cache(maxsize=16_384)
def _month_days(cron: Cron, length: int, weekday: int) -> int:
    """Bit d is set for each day d of such a month on which the expression fires."""
    by_date = cron.days | (1 << length if cron.last_day else 0)
    by_week = 0
    for day in range(1, length + 1):
        today = (weekday + day - 1) % 7
        if (
            cron.weekdays >> today & 1
            or (today, (day + 6) // 7) in cron.nth
            or (day + 7 > length and (today, -1) in cron.nth)
        ):
            by_week |= 1 << day
    matching = by_date & by_week if cron.both_days else by_date | by_week
    return matching & ((1 << length + 1) - 2)


@lru_cache(maxsize=4096)
def _bits(mask: int) -> tuple[int, ...]:
    return tuple(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


@lru_cache(maxsize=4096)
def minutes_of_day(minutes: int, hours: int) -> tuple[int, ...]:
    """The minutes of a day, counted from midnight, that these hours and minutes (as masks) name."""
    return tuple(hour * 60 + minute for hour in _bits(hours) for minute in _bits(minutes))
