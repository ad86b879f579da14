"""Schedules in words, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Final

from cron_observer.errors import ScheduleError
from cron_observer.model import OnExcluded, ScheduleSpec, Window
from cron_observer.schedule.grammar import Cron, parse

DAY_NAMES: Final = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTH_NAMES: Final = [
    "",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
ORDINALS: Final = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", -1: "last"}


@lru_cache(maxsize=16_384)
def describe(spec: ScheduleSpec) -> str:
    """Say in words when `spec` fires; a schedule that cannot be evaluated is quoted as it stands."""
    parts = [_describe_cron(text, spec.seed) for text in spec.cron]
    if spec.every is not None:
        parts.append(f"Every {_every(spec.every)}")
    if spec.at:
        shown = ", ".join(_moment(text) for text in spec.at[:3])
        more = f" and {len(spec.at) - 3} more" if len(spec.at) > 3 else ""
        parts.append(f"Once at {shown}{more}" if len(spec.at) == 1 else f"At {shown}{more}")
    if not parts:
        return "Never"
    words = "; ".join([parts[0], *(part[0].lower() + part[1:] for part in parts[1:])])
    words = ", ".join([words, *_narrowed(spec)])
    return words if spec.timezone == "UTC" else f"{words} ({spec.timezone})"


def _narrowed(spec: ScheduleSpec) -> Iterator[str]:
    """Windows, calendars, jitter, start and end, in the order in which they apply."""
    if spec.start_at is not None:
        yield f"from {_moment(spec.start_at)}"
    if spec.end_at is not None:
        yield f"before {_moment(spec.end_at)}"
    if spec.windows:
        yield "only " + " and ".join(_window(window) for window in spec.windows)
    if spec.include:
        yield f"only on days of {_named(spec.include, 'or')}"
    if spec.exclude:
        yield f"not on days of {_named(spec.exclude, 'or')}"
    if spec.on_excluded is not OnExcluded.SKIP and (spec.include or spec.exclude):
        way = "next" if spec.on_excluded is OnExcluded.NEXT_ALLOWED else "previous"
        yield f"but on the {way} day allowed instead"
    if spec.jitter:
        yield f"up to {duration(spec.jitter)} later"


def _window(window: Window) -> str:
    """``Monday through Friday 22:00 to 06:00 of the day after``."""
    numbers = sorted((number + 6) % 7 for number in window.days)
    days = f"{_listed(numbers, DAY_NAMES)} " if 0 < len(numbers) < 7 else "" if numbers else "on no day "
    start, end = (f"{time // 60:02}:{time % 60:02}" for time in (window.start, window.end))
    over = " of the day after" if window.end <= window.start else ""
    return f"{days}{start} to {end}{over}"


def _named(names: Sequence[str], joined: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {joined} {names[-1]}"


def _moment(text: str) -> str:
    return text.replace("T", " ")


def _describe_cron(text: str, seed: str | None) -> str:
    try:
        cron = parse(text, seed)
    except ScheduleError:
        return f'"{text.strip()}"'
    return _describe(cron)


def _describe(cron: Cron) -> str:
    """Say the time of day with cron-descriptor, the days ourselves: it says "and" where cron means "or"."""
    from cron_descriptor import Options, get_description

    options = Options()
    options.use_24hour_time_format = True
    options.locale_code = "en_US"
    written = cron.text.split()
    minute, hour = _sayable(written[0], cron.minutes, 60), _sayable(written[1], cron.hours, 24)
    parts = [str(get_description(f"{minute} {hour} * * *", options))]
    every_date = len(_bits(cron.days)) == 31
    every_weekday = len(_bits(cron.weekdays)) == 7
    if not cron.both_days and (every_date or every_weekday):
        every_date = every_weekday = True
    dates = "" if every_date else _dates(cron)
    weekdays = "" if every_weekday else _weekdays(cron, "or" if cron.both_days and dates else "and")
    if dates and weekdays:
        parts.append(f"on {dates} if it is {weekdays}" if cron.both_days else f"on {dates} or on {weekdays}")
    elif weekdays:
        parts.append(weekdays if not cron.nth else f"on {weekdays}")
    elif dates:
        parts.append(f"on {dates}")
    if len(_bits(cron.months)) < 12:
        parts.append("in " + _listed(_bits(cron.months), MONTH_NAMES))
    return ", ".join(parts)


def _sayable(text: str, mask: int, size: int) -> str:
    """Write the values out where cron-descriptor would stumble: over a list that holds a star or a step."""
    if "," not in text or not ("*" in text or "/" in text):
        return text
    values = _bits(mask)
    return "*" if len(values) == size else ",".join(map(str, values))


def _dates(cron: Cron) -> str:
    """``day 1 and 15 of the month``, ``the last day of the month``."""
    numbers = _bits(cron.days)
    step = numbers[1] - numbers[0] if len(numbers) > 4 else 0
    said = []
    if step > 1 and numbers == list(range(numbers[0], numbers[-1] + 1, step)):
        said.append(f"every {_ordinal(step)} day from day {numbers[0]} to {numbers[-1]} of the month")
    elif numbers:
        said.append(f"day {_listed(numbers, [str(number) for number in range(32)])} of the month")
    if cron.last_day:
        said.append("the last day of the month")
    return " or ".join(said)


def _weekdays(cron: Cron, joined: str) -> str:
    """``Monday through Friday``, ``the third Friday of the month``."""
    # The week begins on Monday here, so that a weekend is one range.
    numbers = sorted((number + 6) % 7 for number in _bits(cron.weekdays))
    said = [_listed(numbers, DAY_NAMES, joined)] if numbers else []
    said += [f"the {ORDINALS[n]} {DAY_NAMES[(number + 6) % 7]} of the month" for number, n in cron.nth]
    return " or ".join(said)


def _listed(numbers: Sequence[int], names: Sequence[str], joined: str = "and") -> str:
    """Name `numbers`, three and more in a row as a range."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    said: list[str] = []
    for run in runs:
        if len(run) > 2:
            said.append(f"{names[run[0]]} through {names[run[-1]]}")
        else:
            said.extend(names[number] for number in run)
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} {joined} {said[-1]}"


def _ordinal(number: int) -> str:
    return f"{number}{ {2: 'nd', 3: 'rd', 22: 'nd', 23: 'rd', 21: 'st', 31: 'st'}.get(number, 'th') }"


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def duration(length: timedelta) -> str:
    """Say a length of time in its largest whole unit: ``1 day``, ``90 seconds``."""
    milliseconds = length // timedelta(milliseconds=1)
    for size, unit in ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second")):
        if milliseconds % size == 0:
            count = milliseconds // size
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return f"{length.total_seconds():g} seconds"


def _every(length: timedelta) -> str:
    return duration(length).removeprefix("1 ")
