"""The grammar of cron expressions: five fields, checked and normalised here, expanded by croniter.

The fields are read strictly by our own rules, which refuse what engines disagree about. What is left is
written in the one form that croniter expands reliably, and its value sets are compared with ours.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cron_observer.schedule.codes import refuse

#: Characters of an expression; a longer one is a mistake or an attack, and a list of all minutes is shorter.
MAX_LENGTH: Final = 256

MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def _names(text: str, start: int) -> dict[str, int]:
    return {name: number for number, name in enumerate(text.split(), start)}


_MONTHS: Final = _names("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC", 1)
_WEEKDAYS: Final = _names("SUN MON TUE WED THU FRI SAT", 0)
_HASH: Final = re.compile(r"H(?:\(([0-9]{1,4})-([0-9]{1,4})\))?")
_DIGITS: Final = re.compile(r"[0-9]+")

#: Signs of other systems, and what to write instead.
_FOREIGN: Final = (
    ("?", re.compile(r".*\?.*"), "write * instead"),
    ("~", re.compile(r".*~.*"), "write H(a-b): it spreads by the task's name and never changes"),
    ("R", re.compile(r"R(\(.*\))?(/.*)?"), "write H: it spreads by the task's name and never changes"),
    ("W", re.compile(r"[0-9]*W|LW|WL"), "write the weekdays, as in `0 9 * * 1-5`"),
)


@dataclass(frozen=True, slots=True)
class Field:
    """One of the five fields. `last` is the end of ``*``; `top` the largest number that may be written."""

    name: str
    first: int
    last: int
    top: int
    hash_last: int  #: the end of a plain ``H``: every month has 28 days
    names: dict[str, int]

    @property
    def size(self) -> int:
        """How many different values the field has."""
        return self.last - self.first + 1


MINUTE: Final = Field("minute", 0, 59, 59, 59, {})
HOUR: Final = Field("hour", 0, 23, 23, 23, {})
DAY: Final = Field("day of month", 1, 31, 31, 28, {})
MONTH: Final = Field("month", 1, 12, 12, 12, _MONTHS)
WEEKDAY: Final = Field("day of week", 0, 6, 7, 6, _WEEKDAYS)
FIELDS: Final = (MINUTE, HOUR, DAY, MONTH, WEEKDAY)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression, understood. The masks have bit v set for the value v."""

    minutes: int
    hours: int
    days: int
    months: int
    weekdays: int  #: bit 0 is Sunday
    last_day: bool  #: ``L`` in day-of-month
    nth: tuple[tuple[int, int], ...]  #: (weekday, n) of ``x#n``; n = -1 is the last
    both_days: bool  #: day-of-month and day-of-week must both match: one of them starts with ``*``
    interval_like: bool  #: minute or hour starts with ``*``
    text: str  #: normalised: no macro, no names, H resolved


class _Reading:
    """One field while it is read: its values, its special forms, and the text for croniter."""

    def __init__(self, field: Field, seed: str | None) -> None:
        self.field = field
        self.seed = seed
        self.values: set[int] = set()
        self.plain: list[str] = []  #: what croniter is given
        self.shown: list[str] = []  #: the field, normalised
        self.nth: list[tuple[int, int]] = []
        self.last_day = False

    def take(self, first: int, last: int, step: int = 1, shown: str | None = None) -> None:
        """Add the values of a range, written as `shown` or as the range."""
        values = range(first, last + 1, step)
        stepped = f"/{step}" if step > 1 else ""
        text = str(first) if len(values) == 1 else f"{first}-{last}{stepped}"
        self.shown.append(shown or text)
        if self.field is WEEKDAY:
            # 7 is Sunday again, and croniter counts steps on to it.
            self.values.update(value % 7 for value in values)
            self.plain.extend(str(value % 7) for value in values)
        else:
            # A single value goes without its range: croniter reads 5-5 as * and 5-5/2 as */2.
            self.values.update(values)
            self.plain.append(text)


@lru_cache(maxsize=4096)  # thousands of tasks share few expressions
def parse(text: str, seed: str | None) -> Cron:
    """Understand `text`, or raise `ScheduleError` (without a pointer). `seed` resolves ``H``."""
    parts = split(text)
    readings = []
    for field, part in zip(FIELDS, parts, strict=True):
        reading = _Reading(field, seed)
        for item in part.split(","):
            _read_item(reading, item, part)
        readings.append(reading)
    _compare_with_croniter(text, readings)
    minute, hour, day, month, weekday = readings
    return Cron(
        minutes=_mask(minute.values),
        hours=_mask(hour.values),
        days=_mask(day.values),
        months=_mask(month.values),
        weekdays=_mask(weekday.values),
        last_day=day.last_day,
        nth=tuple(sorted(set(weekday.nth))),
        both_days=parts[2].startswith("*") or parts[4].startswith("*"),
        interval_like=parts[0].startswith("*") or parts[1].startswith("*"),
        text=" ".join(",".join(reading.shown) for reading in readings),
    )


def split(text: str) -> list[str]:
    """The five fields of `text` in capitals, macros resolved, or raise `ScheduleError`."""
    if len(text) > MAX_LENGTH:
        raise refuse("CO3002", f"The cron expression has {len(text)} characters; {MAX_LENGTH} are allowed.")
    stripped = text.strip(" \t\r\n")
    if not stripped:
        raise refuse("CO3002", "The cron expression is empty.", 'write five fields: "30 2 * * 1-5"')
    for char in stripped:
        if not (char.isascii() and char.isprintable()) and char != "\t":
            raise refuse(
                "CO3002",
                f"The cron expression holds {char!a}, which no cron expression has.",
                "use ASCII letters, digits, spaces and * , - / # @ ( )",
            )
    if stripped.startswith("@"):
        stripped = _macro(stripped)
    parts = stripped.upper().split()
    if len(parts) != 5:
        raise refuse("CO3003", f"The cron expression has {len(parts)} fields; it must have 5.", _count_hint(parts))
    return parts


def _macro(text: str) -> str:
    meaning = MACROS.get(text.lower())
    if meaning is not None:
        return meaning
    word = text.split(maxsplit=1)[0].lower()
    if word == "@reboot":
        hint = "nothing here knows when a host starts; write times, or let the host's own cron do it"
    elif word.startswith("@every"):
        hint = "write `every: 5m` beside or instead of `cron`"
    else:
        near = difflib.get_close_matches(word, MACROS, n=1)
        hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(MACROS)
    raise refuse("CO3008", f"{text!r} is not a known macro.", hint)


def _count_hint(parts: list[str]) -> str:
    if len(parts) > 5:
        return "there is no field for seconds or years; for intervals below a minute write `every: 10s`"
    return "write minute, hour, day of month, month and day of week, parted by spaces"


def _read_item(reading: _Reading, item: str, part: str) -> None:
    """Read one entry of a comma list into `reading`."""
    field = reading.field
    if not item:
        raise refuse("CO3004", f"{field.name} {part!r} has an empty entry.", "remove the extra comma")
    body, slash, tail = item.partition("/")
    if body.startswith("H") and (match := _HASH.fullmatch(body)):
        _read_hash(reading, item, match, _step(field, item, tail) if slash else None)
    elif field is DAY and body == "L":
        if slash:
            raise refuse("CO3006", f"{field.name} {item!r}: L takes no step.", "write the days out")
        reading.last_day = True
        reading.shown.append("L")
    elif field is WEEKDAY and ("#" in body or body.startswith("L")) and body != "L":
        _read_nth(reading, item, slash)
    elif body == "*":
        reading.take(field.first, field.last, _step(field, item, tail) if slash else 1, item)
    else:
        _read_range(reading, item, body, _step(field, item, tail) if slash else None)


def _read_range(reading: _Reading, item: str, body: str, step: int | None) -> None:
    field = reading.field
    start, dash, end = body.partition("-")
    first = _value(field, item, start)
    if dash:
        last = _value(field, item, end)
        if last < first:
            raise refuse("CO3005", f"{field.name} {item!r} runs backwards.", _backwards_hint(field, first, last, step))
    elif step is None:
        last = first
    else:
        last = max(first, field.last)
    reading.take(first, last, step or 1)


def _backwards_hint(field: Field, first: int, last: int, step: int | None) -> str:
    if step is not None:
        return "write the values out"
    if field is WEEKDAY and last == 0:
        return f"Sunday at the end of a range is 7: write {first}-7"

    def run(low: int, high: int) -> str:
        return str(low) if low == high else f"{low}-{high}"

    return f"write {run(first, field.last)},{run(field.first, last)}"


def _read_nth(reading: _Reading, item: str, slash: str) -> None:
    """Read ``x#n`` or ``Lx``: the n-th or the last weekday x of a month."""
    if slash:
        raise refuse("CO3006", f"{reading.field.name} {item!r}: this form takes no step.", "remove the step")
    if item.startswith("L"):
        day, n = _value(WEEKDAY, item, item[1:]), -1
    else:
        left, _, right = item.partition("#")
        day = _value(WEEKDAY, item, left)
        if right not in {"1", "2", "3", "4", "5"}:
            raise refuse("CO3004", f"day of week {item!r}: the number behind # must be 1 to 5.")
        n = int(right)
    reading.nth.append((day % 7, n))
    reading.shown.append(f"L{day % 7}" if n < 0 else f"{day % 7}#{n}")


def _read_hash(reading: _Reading, item: str, match: re.Match[str], step: int | None) -> None:
    """Resolve ``H``, ``H(a-b)``, ``H/n`` and ``H(a-b)/n`` by the seed: the same task always gets the same."""
    field = reading.field
    first, last = field.first, field.hash_last
    if match[1] is not None:
        first, last = _value(field, item, match[1]), _value(field, item, match[2])
        if last < first:
            raise refuse("CO3005", f"{field.name} {item!r} runs backwards.", "swap the two numbers")
    if reading.seed is None:
        raise refuse(
            "CO3010",
            f"{field.name} {item!r} needs the task's project and name to be resolved.",
            "give the seed (`project/name`), or write a number instead of H",
        )
    digest = hashlib.sha256(f"{field.name}\n{reading.seed}".encode("utf-8", "surrogatepass")).digest()
    draw = int.from_bytes(digest[:8], "big")
    if step is None:
        value = first + draw % (last - first + 1)
        reading.take(value, value)
    else:
        reading.take(first + draw % min(step, last - first + 1), last, step)


def _step(field: Field, item: str, text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise refuse("CO3006", f"{field.name} {item!r}: behind / must stand a number.")
    step = int(text)
    if step == 0:
        raise refuse("CO3006", f"{field.name} {item!r}: the step is 0.", "write 1 or more")
    if step > field.size:
        raise refuse(
            "CO3006",
            f"{field.name} {item!r}: the step is larger than the field, which has {field.size} values.",
            "cron begins anew in each "
            + {"minute": "hour", "hour": "day", "day of month": "month"}.get(field.name, "round")
            + "; for a longer interval write `every`",
        )
    return step


def _value(field: Field, item: str, text: str) -> int:
    """The number that `text` writes in `field`."""
    named = field.names.get(text)
    if named is not None:
        return named
    if not _DIGITS.fullmatch(text):
        raise _no_value(field, item, text)
    value = int(text)
    if not field.first <= value <= field.top:
        raise refuse(
            "CO3004",
            f"{field.name} {item!r}: {text} is outside {field.first} to {field.top}.",
            _range_hint(field),
        )
    return value


def _range_hint(field: Field) -> str | None:
    return "Sunday is 0 or 7, Monday is 1" if field is WEEKDAY else None


def _no_value(field: Field, item: str, text: str) -> Exception:
    """Say what is wrong with `text`, which is neither a number nor a name of `field`."""
    for sign, pattern, hint in _FOREIGN:
        if pattern.fullmatch(item):
            return refuse("CO3007", f"{field.name} {item!r}: {sign} is not supported.", hint)
    if field is WEEKDAY and re.fullmatch(r"[0-7]L", item):
        return refuse("CO3007", f"{field.name} {item!r} is not supported.", f"write L{item[0]}")
    if item.startswith("L"):
        forms = {DAY.name: "write L alone for the last day", WEEKDAY.name: "write L5 for the last Friday"}
        return refuse(
            "CO3007",
            f"{field.name} {item!r} is not supported.",
            forms.get(field.name, "L belongs to the day fields"),
        )
    near = difflib.get_close_matches(text[:3], field.names, n=1)
    names = f" or a name such as {next(iter(field.names))}" if field.names else ""
    return refuse(
        "CO3004",
        f"{field.name} {item!r}: {text!r} is not a number{names}.",
        f"did you mean {near[0]}?" if near else f"write {field.first} to {field.top}",
    )


def _mask(values: set[int]) -> int:
    return sum(1 << value for value in values)


def _compare_with_croniter(text: str, readings: list[_Reading]) -> None:
    """Refuse an expression that croniter expands to other values than ours: never guess at a time."""
    normal = " ".join(",".join(reading.plain) or "*" for reading in readings)
    expanded = _expand(normal)
    if isinstance(expanded, str):
        raise refuse("CO3016", f"{text.strip()!r}: {expanded}", "please report this expression")
    for reading, values in zip(readings, expanded, strict=True):
        if reading.plain and reading.values != set(values):
            raise refuse(
                "CO3016",
                f"{reading.field.name} of {text.strip()!r} is ambiguous.",
                "please report this expression",
            )


@lru_cache(maxsize=4096)
def _expand(normal: str) -> tuple[frozenset[int], ...] | str:
    """The value sets of the five fields as croniter has them, or why it refuses."""
    from croniter import CroniterError, croniter

    try:
        columns: list[list[Any]] = croniter.expand(normal)[0]
    except CroniterError as error:
        return str(error)
    return tuple(
        frozenset(range(field.first, field.last + 1)) if column == ["*"] else frozenset(column)
        for field, column in zip(FIELDS, columns, strict=True)
    )
