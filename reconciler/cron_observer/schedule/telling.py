"""What a schedule means, for people: its rule for clock changes, when it fires next, what is skipped, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from cron_observer.model import FoldRule, GapRule, OnExcluded, ScheduleSpec
from cron_observer.schedule.build import compile as compile_schedule
from cron_observer.schedule.build import read_crons
from cron_observer.schedule.evaluate import Slot
from cron_observer.schedule.grammar import Cron
from cron_observer.schedule.shift import CalendarLike
from cron_observer.schedule.slots import Schedule
from cron_observer.schedule.words import describe, duration
from cron_observer.schedule.zones import zone

FIXED: Final = "fixed-time"
INTERVAL: Final = "interval-like"
MIXED: Final = "mixed"

#: How many slots are looked through for those that are skipped, and how far behind `after` if nothing fires.
_LOOKED_AT: Final = 20_000
_LOOKED_AHEAD: Final = timedelta(days=31)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)

_GAPS: Final = {
    GapRule.FIRST_VALID: "what a clock change skips fires right after it",
    GapRule.SKIP: "what a clock change skips does not fire",
    GapRule.SHIFT: "what a clock change skips fires as much later as the clock jumps",
}
_FOLDS: Final = {
    FoldRule.FIRST: "what it repeats fires the first time only",
    FoldRule.SECOND: "what it repeats fires the second time only",
    FoldRule.BOTH: "what it repeats fires both times",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """One fire. `local` is the wall clock with its offset, as in ``2026-03-29 03:00:00+02:00``."""

    local: str
    utc: datetime
    note: str | None = None  #: why it is not where the expression says, if it is not


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Slots in a row that do not fire, for one reason. The first would stand at `local` and `utc`."""

    local: str
    utc: datetime
    reason: str  #: dst_gap, calendar or coalesced
    note: str
    slots: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a schedule means. `kind` is ``fixed-time``, ``interval-like``, or ``mixed`` for both in one."""

    words: str
    kind: str
    rule: str  #: what clock changes do to it
    fires: Sequence[Fire]  #: before jitter
    skipped: Sequence[Skipped]  #: up to the last fire
    notes: Sequence[str]


def explain(
    spec: ScheduleSpec, after: datetime, count: int, calendars: Mapping[str, CalendarLike] | None = None
) -> Explanation:
    """Say what `spec` means and when it fires next behind `after`, or raise `ScheduleError`.

    Without `calendars` those that it names are left out, and a note says so.
    """
    known = spec
    if calendars is None:
        known = replace(spec, include=(), exclude=(), on_excluded=OnExcluded.SKIP)
    schedule = compile_schedule(replace(known, jitter=None), calendars or {})
    compile_schedule(known, calendars or {})  # its jitter may be wrong
    crons = read_crons(spec)
    slots = list(islice(schedule.next_fire_slots(after), count)) if count > 0 else []
    ahead = _LOOKED_AHEAD if _NEVER - after > _LOOKED_AHEAD else timedelta()
    until = slots[-1].fire_at if slots else after + ahead
    return Explanation(
        words=describe(spec),
        kind=_kind(spec, crons),
        rule=_rule(spec, crons),
        fires=tuple(_fire(slot, spec, schedule) for slot in slots),
        skipped=tuple(_skipped(schedule, spec, after, until)) if count > 0 else (),
        notes=tuple(_notes(spec, crons, calendars)),
    )


def _kind(spec: ScheduleSpec, crons: list[Cron]) -> str:
    kinds = {INTERVAL if cron.interval_like else FIXED for cron in crons}
    if spec.every is not None:
        kinds.add(INTERVAL)
    if spec.at:
        kinds.add(FIXED)
    return kinds.pop() if len(kinds) == 1 else MIXED


def _rule(spec: ScheduleSpec, crons: list[Cron]) -> str:
    kind = _kind(spec, crons)
    if kind == INTERVAL:
        return "elapsed time: a clock change neither moves nor drops a fire"
    fixed = f"{_GAPS[spec.gap]}, {_FOLDS[spec.overlap]}"
    return fixed if kind == FIXED else f"each part by its own rule, see the notes; of fixed-time parts, {fixed}"


def _fire(slot: Slot, spec: ScheduleSpec, schedule: Schedule) -> Fire:
    local = slot.fire_at.astimezone(zone(spec.timezone).info)
    label, note = slot.nominal_local, None
    if slot.moved_by is not None and "calendar" in slot.moved_by:
        note = f"moved from {label:%Y-%m-%d %H:%M}: {schedule.reason(slot)}"
        if "dst" in slot.moved_by:
            note += "; the clock jumps over that time of this day"
    elif slot.moved_by is not None:
        note = f"{label:%Y-%m-%d %H:%M} does not exist: the clock jumps over it"
    elif slot.fold:
        note = f"the second {label:%H:%M} of this day"
    elif local.replace(fold=1).utcoffset() != local.utcoffset():
        note = f"the first {label:%H:%M} of this day"
    return Fire(local=local.isoformat(sep=" "), utc=slot.fire_at.astimezone(UTC), note=note)


def _skipped(schedule: Schedule, spec: ScheduleSpec, after: datetime, until: datetime) -> Iterator[Skipped]:
    """The slots that are skipped up to `until`, those in a row with one reason together."""
    row: list[Slot] = []
    said = ""
    for slot in schedule.slots(after, until, _LOOKED_AT):
        why = "" if slot.skip is None else _why(slot, schedule)
        if why != said and row:
            yield _together(row, said, spec)
            row = []
        said = why
        if slot.skip is not None:
            row.append(slot)
    if row:
        yield _together(row, said, spec)


def _why(slot: Slot, schedule: Schedule) -> str:
    if slot.skip == "calendar":
        return schedule.reason(slot)
    if slot.skip == "dst_gap":
        return "the clock jumps over it"
    if slot.moved_by is not None and "calendar" in slot.moved_by:
        return f"{schedule.reason(slot)}; another slot fires where it would be moved to"
    return "the clock jumps over it; another slot fires in its stead"


def _together(row: list[Slot], why: str, spec: ScheduleSpec) -> Skipped:
    first = row[0]
    if first.skip == "dst_gap":
        local = first.nominal_local.isoformat(sep=" ")
    else:
        local = first.nominal_at.astimezone(zone(spec.timezone).info).isoformat(sep=" ")
    more = f", and {len(row) - 1:,} more up to {row[-1].nominal_local:%Y-%m-%d %H:%M}" if len(row) > 1 else ""
    return Skipped(
        local=local, utc=first.nominal_at, reason=first.skip or "", note=f"skipped: {why}{more}", slots=len(row)
    )


def _notes(spec: ScheduleSpec, crons: list[Cron], calendars: Mapping[str, CalendarLike] | None) -> Iterator[str]:
    """What may surprise: the class where it matters, both day fields, hashed fields, elapsed days, what narrows it."""
    for text, cron in zip(spec.cron, crons, strict=True):
        quoted = f'"{text.strip()}"'
        if re.search(r"(^|[\s,])[Hh]([\s,(/]|$)", text.strip()):
            yield f"{quoted} is {cron.text!r} for {spec.seed}."
        day, weekday = cron.text.split()[2], cron.text.split()[4]
        if day != "*" and weekday != "*":
            how = "both day of month and day of week" if cron.both_days else "day of month or day of week"
            yield f"{quoted} fires on days that match {how}."
        if len(spec.cron) > 1 or spec.every is not None or spec.at:
            yield f"{quoted} is {INTERVAL if cron.interval_like else FIXED}."
    if spec.every is not None and spec.timezone != "UTC" and spec.every >= timedelta(hours=2):
        yield "every counts elapsed time: its local times move when the clock changes."
    if (spec.gap, spec.overlap) != (GapRule.FIRST_VALID, FoldRule.FIRST) and _kind(spec, crons) == INTERVAL:
        yield "dst changes nothing: the schedule counts elapsed time."
    if spec.windows:
        yield "Outside its windows, which are local time as the expression has it, there are no slots."
    if calendars is None and (spec.include or spec.exclude):
        yield "Its calendars are not known here: the fires are shown without them."
    elif any(calendars[name].uses_holidays for name in (*spec.include, *spec.exclude) if calendars):
        from cron_observer.schedule.calendars import holidays_version

        yield f"Public holidays are those of holiday data {holidays_version()}."
    if spec.jitter:
        by = spec.seed or "the task's project and name"
        yield f"Each fires up to {duration(spec.jitter)} later than shown, drawn from {by} and its nominal time."
