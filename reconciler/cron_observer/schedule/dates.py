"""Dates, days of a year and spans of a calendar: between text and integers; and the codes of what is wrong. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from datetime import date, datetime
from typing import Final

from cron_observer.errors import ScheduleError

#: What each code means, in a line. Pointers of these errors lead into the calendar's spec.
CALENDAR_CODES: Final[dict[str, str]] = {
    "CO1401": "The country is not known.",
    "CO1402": "The country has no such subdivision.",
    "CO1403": "The calendar that is named is not declared.",
    "CO1404": "The calendar contains itself.",
    "CO1405": "This is no date.",
    "CO1406": "The range ends before it begins.",
    "CO1407": "The stored calendar cannot be read.",
    "CO1408": "The calendar file is not there, or cannot be used.",
    "CO1409": "The calendar is too large.",
}

FIRST_YEAR, LAST_YEAR = 1900, 2200
_FAR: Final = 1 << 62
_LOCAL_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - labels have no zone
FIRST_DAY: Final = date(1970, 1, 1).toordinal()
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_YEARLY: Final = re.compile(r"[0-9]{2}-[0-9]{2}")
_SPAN: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z?")


def refuse(rule: str, message: str, hint: str | None = None, *, pointer: str = "") -> ScheduleError:
    """Make the error for `rule`, one of `CALENDAR_CODES`; `pointer` leads into the calendar's spec."""
    if rule not in CALENDAR_CODES:
        raise KeyError(rule)
    return ScheduleError(message, pointer=pointer, rule=rule, hint=hint)


class Ranges:
    """Half-open ranges of integers, joined and in order."""

    __slots__ = ("ends", "starts")

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        for start, end in sorted(ranges):
            if self.ends and start <= self.ends[-1]:
                self.ends[-1] = max(self.ends[-1], end)
            else:
                self.starts.append(start)
                self.ends.append(end)

    def find(self, value: int) -> int:
        """The position of the range that holds `value`; -1 where none does."""
        at = bisect_right(self.starts, value) - 1
        return at if at >= 0 and value < self.ends[at] else -1

    def turn(self, value: int) -> int:
        """The first start or end behind `value`; far away if there is none."""
        at = bisect_right(self.ends, value)
        if at == len(self.ends):
            return _FAR
        return self.starts[at] if value < self.starts[at] else self.ends[at]


def day_of(text: str) -> int:
    """Read ``2026-12-24`` as days since 1970-01-01; raise `ValueError` for anything else."""
    if not _DATE.fullmatch(text) or not FIRST_YEAR <= int(text[:4]) <= LAST_YEAR:
        raise ValueError(text)
    return date.fromisoformat(text).toordinal() - FIRST_DAY


def month_day(text: str) -> tuple[int, int]:
    """Read ``12-25`` as month and day, ``02-29`` too; raise `ValueError` for anything else."""
    if not _YEARLY.fullmatch(text):
        raise ValueError(text)
    leap = date.fromisoformat(f"2024-{text}")
    return leap.month, leap.day


def seconds_of(text: str) -> int:
    """Read ``2026-12-24T18:00:00``, with ``Z`` or without, as seconds since 1970; raise `ValueError` otherwise."""
    if not _SPAN.fullmatch(text):
        raise ValueError(text)
    shown = datetime.fromisoformat(text.removesuffix("Z"))
    return int((shown - _LOCAL_EPOCH).total_seconds())


def iso(day: int) -> str:
    """Write a day as `day_of` reads it."""
    return date.fromordinal(FIRST_DAY + day).isoformat()
