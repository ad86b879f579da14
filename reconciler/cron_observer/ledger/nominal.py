"""The nominal slots of a schedule, counted once more: slowly, day by day and label by label. Pure.

This is the second witness of the ledger check. It reads the same fields (`grammar.parse`) and the same days of
calendars as the planner, and decides everything else by itself, with `datetime` and `zoneinfo` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from cron_observer.model import FoldRule, GapRule, OnExcluded, ScheduleSpec, Window
from cron_observer.schedule.grammar import Cron, parse

if TYPE_CHECKING:
    from cron_observer.schedule.calendars import Calendar

#: How far a slot may be put off, or brought forward, to a day that its calendars allow.
SHIFT_DAYS: Final = 14

_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)
_MILLISECOND: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - a label has no zone


@dataclass(frozen=True, slots=True)
class Nominal:
    """A nominal slot, and what may become of it."""

    at: datetime  #: aware UTC
    label: datetime  #: naive, on the wall clock of the schedule
    fold: int
    fires: tuple[datetime, ...]  #: when it fires, before jitter; () when a rule skips it
    stands: tuple[datetime, ...]  #: where its row may stand besides, when it is skipped
    allowed: bool  #: whether its calendars allow it as it stands


@dataclass(frozen=True, slots=True)
class _Given:
    """A schedule, read."""

    spec: ScheduleSpec
    zone: ZoneInfo
    crons: tuple[Cron, ...]
    calendars: Mapping[str, Calendar]
    start: datetime | None
    end: datetime | None


def slot_id(task_uid: UUID, at: datetime, label: datetime, fold: int) -> UUID:
    """Return the id that a slot must have: the millisecond of `at`, version 8, and a hash of task, label and fold."""
    digest = hashlib.sha256(task_uid.bytes + f"{label.isoformat()}/{fold}".encode()).digest()
    free = int.from_bytes(digest[:10], "big")
    number = ((at - _EPOCH) // _MILLISECOND) << 80 | (free & (1 << 76) - 1)
    return UUID(int=number & ~(0b11 << 62) | 0b10 << 62 | 8 << 76)


def nominal_slots(
    spec: ScheduleSpec, calendars: Mapping[str, Calendar], after: datetime, until: datetime
) -> list[Nominal]:
    """Return the slots with a nominal instant in (`after`, `until`], by instant.

    Raises whatever is wrong with `spec`: an expression, a zone, a time.
    """
    zone = ZoneInfo(spec.timezone)
    given = _Given(
        spec=spec,
        zone=zone,
        crons=tuple(_cron(text, spec.seed) for text in spec.cron),
        calendars=calendars,
        start=_instant(spec.start_at, zone) if spec.start_at else None,
        end=_instant(spec.end_at, zone) if spec.end_at else None,
    )
    found: dict[tuple[datetime, datetime, int], tuple[datetime, ...]] = {}
    for at, label, fold, fires in _union(given, after, until):
        if after < at <= until and _within(given, at, label):
            found.setdefault((at, label, fold), fires)
    return [_judged(given, *key, found[key]) for key in sorted(found)]


@lru_cache(maxsize=1024)
def _cron(text: str, seed: str | None) -> Cron:
    return parse(text, seed)


def _union(
    given: _Given, after: datetime, until: datetime
) -> Iterator[tuple[datetime, datetime, int, tuple[datetime, ...]]]:
    """Yield what any member of the schedule names, around the window."""
    first, last = after.astimezone(given.zone).date(), until.astimezone(given.zone).date()
    for cron in given.crons:
        for number in range((last - first).days + 5):
            yield from _of_day(given, cron, first + timedelta(days=number - 2))
    if given.spec.every is not None:
        yield from _of_interval(given, given.spec.every, after, until)
    for text in given.spec.at:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            yield from _of_label(given, time)
        else:
            shown = time.astimezone(given.zone)
            at = time.astimezone(UTC)
            yield at, shown.replace(tzinfo=None, fold=0), shown.fold, (at,)


def _of_day(given: _Given, cron: Cron, day: date) -> Iterator[tuple[datetime, datetime, int, tuple[datetime, ...]]]:
    """Yield the slots of one expression on one local day."""
    if not _matches(cron, day):
        return
    for minute in _minutes(cron):
        label = datetime(day.year, day.month, day.day) + timedelta(minutes=minute)  # noqa: DTZ001 - a label
        if cron.interval_like:
            for at, fold in shown_at(label, given.zone):
                yield at, label, fold, (at,)
        else:
            yield from _of_label(given, label)


@lru_cache(maxsize=1024)
def _minutes(cron: Cron) -> tuple[int, ...]:
    return tuple(
        hour * 60 + minute
        for hour in range(24)
        if cron.hours >> hour & 1
        for minute in range(60)
        if cron.minutes >> minute & 1
    )


def _matches(cron: Cron, day: date) -> bool:
    """Say whether an expression names a date."""
    if not cron.months >> day.month & 1:
        return False
    weekday = day.isoweekday() % 7
    by_date = bool(cron.days >> day.day & 1) or (cron.last_day and (day + _DAY).month != day.month)
    last = (day + 7 * _DAY).month != day.month
    by_week = bool(cron.weekdays >> weekday & 1) or any(
        named == weekday and (last if n < 0 else (day.day + 6) // 7 == n) for named, n in cron.nth
    )
    return (by_date and by_week) if cron.both_days else (by_date or by_week)


def _of_label(given: _Given, label: datetime) -> Iterator[tuple[datetime, datetime, int, tuple[datetime, ...]]]:
    """Yield what a fixed label means: the passes that the overlap rule takes, or what the gap rule makes of it."""
    shown = shown_at(label, given.zone)
    if not shown:
        at, fires = _in_gap(given, label)
        yield at, label, 0, fires
        return
    if len(shown) > 1:
        rule = given.spec.overlap
        shown = shown if rule is FoldRule.BOTH else [shown[0] if rule is FoldRule.FIRST else shown[1]]
    for at, fold in shown:
        yield at, label, fold, (at,)


def shown_at(label: datetime, zone: ZoneInfo) -> list[tuple[datetime, int]]:
    """Return when the wall clock shows a label, each time with its fold; [] inside a gap."""
    found: list[tuple[datetime, int]] = []
    for fold in (0, 1):
        at = label.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        back = at.astimezone(zone).replace(tzinfo=None, fold=0)
        if back == label and all(at != known for known, _ in found):
            found.append((at, fold))
    return found


def swallowed(label: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the nominal instant of a label inside a gap, by the offset before it, and the instant of the jump."""
    before = label.replace(tzinfo=zone, fold=0).utcoffset() or timedelta()
    after = label.replace(tzinfo=zone, fold=1).utcoffset() or timedelta()
    low, high = (label - after).replace(tzinfo=UTC), (label - before).replace(tzinfo=UTC)
    nominal = high
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return nominal, high


def _of_interval(
    given: _Given, every: timedelta, after: datetime, until: datetime
) -> Iterator[tuple[datetime, datetime, int, tuple[datetime, ...]]]:
    """Yield the anchor plus every multiple of the interval."""
    text = given.spec.anchor
    anchor = _instant(text, given.zone) if text else _located(_LOCAL_EPOCH, given.zone)
    at = anchor + ((after - anchor) // every + 1) * every
    while at <= until:
        shown = at.astimezone(given.zone)
        yield at, shown.replace(tzinfo=None, fold=0), shown.fold, (at,)
        at += every


def _instant(text: str, zone: ZoneInfo) -> datetime:
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC) if time.tzinfo else _located(time, zone)


def _located(label: datetime, zone: ZoneInfo) -> datetime:
    """Return when the clock first shows a label; the end of the gap that swallows it."""
    shown = shown_at(label, zone)
    return shown[0][0] if shown else swallowed(label, zone)[1]


def _within(given: _Given, at: datetime, label: datetime) -> bool:
    """Say whether such a slot exists at all."""
    if (given.start and at < given.start) or (given.end and at >= given.end):
        return False
    return not given.spec.windows or any(_open(window, label) for window in given.spec.windows)


def _open(window: Window, label: datetime) -> bool:
    weekday, seconds = label.isoweekday() % 7, label.hour * 3600 + label.minute * 60 + label.second
    start, end = window.start * 60, window.end * 60
    if end > start:
        return weekday in window.days and start <= seconds < end
    return (weekday in window.days and seconds >= start) or ((weekday - 1) % 7 in window.days and seconds < end)


def _allowed(given: _Given, at: datetime, label: datetime) -> bool:
    """Ask the calendars about a slot as it stands."""
    from cron_observer.schedule.zones import zone

    spec = given.spec
    if not spec.include and not spec.exclude:
        return True
    place = zone(spec.timezone)
    seconds, instant = (label - _LOCAL_EPOCH) // _SECOND, (at - _EPOCH) // _SECOND

    def holds(name: str) -> bool:
        return given.calendars[name].holds(seconds, instant, place)

    return (not spec.include or any(map(holds, spec.include))) and not any(map(holds, spec.exclude))


def _judged(given: _Given, at: datetime, label: datetime, fold: int, fires: tuple[datetime, ...]) -> Nominal:
    """Say of a slot what its calendars make of it."""
    swallowed_at = () if shown_at(label, given.zone) else swallowed(label, given.zone)
    stands = (at, *fires, *swallowed_at)
    if _allowed(given, at, label):
        return Nominal(at, label, fold, fires, stands, allowed=True)
    shifted = () if given.spec.on_excluded is OnExcluded.SKIP or not fires else _shifted(given, label)
    return Nominal(at, label, fold, shifted, (*stands, *shifted), allowed=False)


def _shifted(given: _Given, label: datetime) -> tuple[datetime, ...]:
    """Return when the slot fires on the nearest day that its calendars allow; () when there is none."""
    step = _DAY if given.spec.on_excluded is OnExcluded.NEXT_ALLOWED else -_DAY
    for number in range(1, SHIFT_DAYS + 1):
        there = label + number * step
        shown = shown_at(there, given.zone)
        at, fires = (shown[0][0], (shown[0][0],)) if shown else _in_gap(given, there)
        if _within(given, at, there) and _allowed(given, at, there):
            return fires
    return ()


def _in_gap(given: _Given, label: datetime) -> tuple[datetime, tuple[datetime, ...]]:
    """Return the nominal instant of a label inside a gap, and when the gap rule fires it."""
    at, end = swallowed(label, given.zone)
    return at, {GapRule.FIRST_VALID: (end,), GapRule.SHIFT: (at,), GapRule.SKIP: ()}[given.spec.gap]
