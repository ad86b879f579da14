"""What a schedule means, for people: words, the class of its rule for clock changes, and its next fires."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from cron_observer.errors import ScheduleError
from cron_observer.model import ScheduleSpec
from cron_observer.schedule.build import compile as compile_schedule
from cron_observer.schedule.build import read_crons
from cron_observer.schedule.evaluate import Slot
from cron_observer.schedule.grammar import Cron, parse
from cron_observer.schedule.zones import zone

FIXED = "fixed-time"
INTERVAL = "interval-like"
MIXED = "mixed"

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """One fire. `local` is the wall clock with its offset, as in ``2026-03-29 03:00:00+02:00``."""

    local: str
    utc: datetime
    note: str | None = None  #: why it is not where the expression says, if it is not


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a schedule means. `kind` is ``fixed-time``, ``interval-like``, or ``mixed`` for both in one."""

    words: str
    kind: str
    fires: Sequence[Fire]
    notes: Sequence[str]


def explain(spec: ScheduleSpec, after: datetime, count: int) -> Explanation:
    """Say what `spec` means and when it fires next behind `after`, or raise `ScheduleError`."""
    schedule = compile_schedule(spec)
    crons = read_crons(spec)
    fires = []
    for slot in schedule.next_fire_slots(after) if count > 0 else ():
        fires.append(_fire(slot, spec.timezone))
        if len(fires) >= count:
            break
    return Explanation(
        words=describe(spec), kind=_kind(spec, crons), fires=tuple(fires), notes=tuple(_notes(spec, crons))
    )


@lru_cache(maxsize=16_384)
def describe(spec: ScheduleSpec) -> str:
    """Say in words when `spec` fires; a schedule that cannot be evaluated is quoted as it stands."""
    parts = [_describe_cron(text, spec.seed) for text in spec.cron]
    if spec.every is not None:
        parts.append(f"Every {_duration(spec.every)}")
    if spec.at:
        shown = ", ".join(text.replace("T", " ") for text in spec.at[:3])
        more = f" and {len(spec.at) - 3} more" if len(spec.at) > 3 else ""
        parts.append(f"Once at {shown}{more}" if len(spec.at) == 1 else f"At {shown}{more}")
    if not parts:
        return "Never"
    words = "; ".join([parts[0], *(part[0].lower() + part[1:] for part in parts[1:])])
    return words if spec.timezone == "UTC" else f"{words} ({spec.timezone})"


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


def _duration(every: timedelta) -> str:
    milliseconds = every // timedelta(milliseconds=1)
    for size, unit in ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second")):
        if milliseconds % size == 0:
            count = milliseconds // size
            return unit if count == 1 else f"{count} {unit}s"
    return f"{every.total_seconds():g} seconds"


def _kind(spec: ScheduleSpec, crons: list[Cron]) -> str:
    kinds = {INTERVAL if cron.interval_like else FIXED for cron in crons}
    if spec.every is not None:
        kinds.add(INTERVAL)
    if spec.at:
        kinds.add(FIXED)
    return kinds.pop() if len(kinds) == 1 else MIXED


def _fire(slot: Slot, timezone: str) -> Fire:
    local = slot.fire_at.astimezone(zone(timezone).info)
    note = None
    if local.replace(tzinfo=None, fold=0) != slot.nominal_local:
        note = f"{slot.nominal_local:%Y-%m-%d %H:%M} does not exist: the clock jumps over it"
    elif slot.fold:
        note = f"the second {slot.nominal_local:%H:%M} of this day"
    elif local.replace(fold=1).utcoffset() != local.utcoffset():
        note = f"the first {slot.nominal_local:%H:%M} of this day"
    return Fire(local=local.isoformat(sep=" "), utc=slot.fire_at.astimezone(UTC), note=note)


def _notes(spec: ScheduleSpec, crons: list[Cron]) -> list[str]:
    """What may surprise: the class where it matters, both day fields, hashed fields, elapsed days."""
    notes = []
    for text, cron in zip(spec.cron, crons, strict=True):
        quoted = f'"{text.strip()}"'
        if re.search(r"(^|[\s,])[Hh]([\s,(/]|$)", text.strip()):
            notes.append(f"{quoted} is {cron.text!r} for {spec.seed}.")
        day, weekday = cron.text.split()[2], cron.text.split()[4]
        if day != "*" and weekday != "*":
            how = "both day of month and day of week" if cron.both_days else "day of month or day of week"
            notes.append(f"{quoted} fires on days that match {how}.")
        if len(spec.cron) > 1 or spec.every is not None or spec.at:
            notes.append(f"{quoted} is {INTERVAL if cron.interval_like else FIXED}.")
    if spec.every is not None and spec.timezone != "UTC" and spec.every >= timedelta(hours=2):
        notes.append("every counts elapsed time: its local times move when the clock changes.")
    return notes
