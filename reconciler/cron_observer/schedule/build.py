"""From what a manifest says to a `Schedule`: read, checked, compiled."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from cron_observer.errors import ScheduleError
from cron_observer.model import FoldRule, GapRule, OnExcluded, ScheduleSpec
from cron_observer.schedule.codes import refuse
from cron_observer.schedule.evaluate import (
    END,
    EPOCH,
    FIRST,
    LOCAL_EPOCH,
    CronMember,
    EveryMember,
    Member,
    Once,
    OnceMember,
)
from cron_observer.schedule.grammar import Cron, parse
from cron_observer.schedule.jitter import LONGEST_JITTER, Jitter
from cron_observer.schedule.matching import ever_fires
from cron_observer.schedule.shift import CalendarLike, Gate
from cron_observer.schedule.slots import Bounds, Schedule
from cron_observer.schedule.windows import Windows
from cron_observer.schedule.zones import Zone, zone

_SECOND: Final = timedelta(seconds=1)
_MILLISECOND: Final = timedelta(milliseconds=1)

_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?"
)

#: The longest `every`; beyond it, dates are meant: write `cron` or `at`.
LONGEST: Final = timedelta(days=3660)

#: How many expressions `cron` may list, and how many times `at`.
MOST_EXPRESSIONS: Final = 50
MOST_TIMES: Final = 1000
MOST_WINDOWS: Final = 50

_NO_CALENDARS: Final[Mapping[str, CalendarLike]] = MappingProxyType({})
_OUR_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)


def check(spec: ScheduleSpec, calendars: Mapping[str, CalendarLike] | None = None) -> None:
    """Raise `ScheduleError` if the schedule is not well formed or can never fire.

    ``H`` and jitter without a seed are allowed: the seed is known once the task has a name. Without `calendars`,
    what include and exclude name is not looked at: it is known once all manifests are.
    """
    if spec.seed is None:
        spec = replace(spec, seed="-")
    if calendars is None:
        _check_shift(spec, _members(spec, zone(spec.timezone)))
        spec, calendars = replace(spec, include=(), exclude=(), on_excluded=OnExcluded.SKIP), {}
    _check_fires(spec, _build(spec, calendars))


def compile(  # noqa: A001 - the word of the trade
    spec: ScheduleSpec, calendars: Mapping[str, CalendarLike] = _NO_CALENDARS
) -> Schedule:
    """Make the schedule that `spec` describes, or raise `ScheduleError`. The same inputs give the same one.

    `calendars` has a calendar for each name of include and exclude; calendars of equal content are equal.
    """
    named = dict.fromkeys((*spec.include, *spec.exclude))
    return _compile(spec, tuple((name, calendars[name]) for name in named if name in calendars))


@lru_cache(maxsize=16_384)
def _compile(spec: ScheduleSpec, calendars: tuple[tuple[str, CalendarLike], ...]) -> Schedule:
    return _build(spec, dict(calendars))


def _build(spec: ScheduleSpec, calendars: Mapping[str, CalendarLike]) -> Schedule:
    place = zone(spec.timezone)
    members = _members(spec, place)
    bounds = _bounds(spec, place)
    gate = None
    if spec.include or spec.exclude:
        _check_shift(spec, members)
        include, exclude = (_named(names, calendars, key) for names, key in _keys(spec))
        gate = Gate(place, include, exclude, spec.on_excluded, spec.gap, bounds.holds)
    early = spec.gap is GapRule.FIRST_VALID and any(member.moves for member in members)
    return Schedule(place, members, bounds, gate, _jitter(spec), early=early)


def _members(spec: ScheduleSpec, place: Zone) -> tuple[Member, ...]:
    if not spec.cron and spec.every is None and not spec.at:
        raise refuse("CO3001", "The schedule is empty.", "give one of `cron`, `every` and `at`")
    members: list[Member] = [CronMember(cron, place, spec.gap, spec.overlap) for cron in read_crons(spec)]
    if spec.every is not None:
        members.append(_every(spec.every, spec.anchor, place))
    elif spec.anchor is not None:
        raise refuse("CO3013", "anchor stands without every.", "remove it, or add `every`", pointer="/anchor")
    if spec.at:
        members.append(_once(spec, place))
    return tuple(members)


def _keys(spec: ScheduleSpec) -> tuple[tuple[tuple[str, ...], str], ...]:
    return (spec.include, "include"), (spec.exclude, "exclude")


def _named(names: tuple[str, ...], calendars: Mapping[str, CalendarLike], key: str) -> list[CalendarLike]:
    """The calendars that are called so, or raise `ScheduleError` at the first that is not known."""
    found = []
    for number, name in enumerate(names):
        if name not in calendars:
            near = difflib.get_close_matches(name, calendars, n=1)
            hint = f"did you mean {near[0]}?" if near else "write a manifest of kind Calendar in the same project"
            raise refuse(
                "CO3017",
                f"The calendar {name[:150]!r} is not known.",
                hint,
                pointer=f"/calendars/{key}/{number}",
            )
        found.append(calendars[name])
    return found


def _bounds(spec: ScheduleSpec, place: Zone) -> Bounds:
    """Read windows, start and end."""
    if len(spec.windows) > MOST_WINDOWS:
        raise refuse(
            "CO3023", f"{len(spec.windows)} windows are given; {MOST_WINDOWS} are allowed.", pointer="/windows"
        )
    for number, window in enumerate(spec.windows):
        if not (window.days <= frozenset(range(7)) and 0 <= window.start < 1440 and 0 <= window.end <= 1440):
            hint = "write from 00:00 to 23:59, and to up to 24:00"
            raise refuse("CO3023", "The window lies outside a day.", hint, pointer=f"/windows/{number}")
    first, end = FIRST * 1000, END * 1000
    if spec.start_at is not None:
        first = max(first, _instant(spec.start_at, place, "/startAt"))
    if spec.end_at is not None:
        end = min(end, _instant(spec.end_at, place, "/endAt"))
    if first >= end:
        raise refuse(
            "CO3019",
            f"The schedule ends at {spec.end_at}, not after it starts"
            + (f" at {spec.start_at}." if spec.start_at else "."),
            "the first slot may be at startAt, the last one before endAt",
            pointer="/endAt" if spec.end_at is not None else "/startAt",
        )
    return Bounds(Windows(spec.windows, place), first, end)


def _instant(text: str, place: Zone, pointer: str) -> int:
    """The nominal instant of a local time, or the instant of one with an offset, in milliseconds."""
    local = _read_time(text, "CO3018", pointer)
    if local.tzinfo is not None:
        return _since(local, _MILLISECOND)
    return place.locate((local - LOCAL_EPOCH) // _SECOND)[0] * 1000


def _jitter(spec: ScheduleSpec) -> Jitter | None:
    if spec.jitter is None or not spec.jitter:
        return None
    if not _MILLISECOND <= spec.jitter <= LONGEST_JITTER or spec.jitter % _MILLISECOND:
        raise refuse(
            "CO3020",
            f"jitter is {spec.jitter.total_seconds():g} seconds; it may be up to 24 hours.",
            "to spread times of day write H in `cron`",
            pointer="/jitter",
        )
    return Jitter(spec.jitter, spec.seed)


def _check_shift(spec: ScheduleSpec, members: tuple[Member, ...]) -> None:
    if spec.on_excluded is not OnExcluded.SKIP and not all(member.moves for member in members):
        raise refuse(
            "CO3021",
            f"onExcluded is {spec.on_excluded}, but a schedule that counts elapsed time has no day to move a slot to.",
            "write `onExcluded: skip`, or fixed minutes and hours",
            pointer="/onExcluded",
        )


def _check_fires(spec: ScheduleSpec, schedule: Schedule) -> None:
    """Raise `ScheduleError` if windows, start, end and calendars leave no slot that fires."""
    narrowing = {
        "/windows": spec.windows,
        "/startAt": spec.start_at,
        "/endAt": spec.end_at,
        "/calendars": spec.include or spec.exclude,
    }
    given = [pointer for pointer, value in narrowing.items() if value]
    if not given:
        return
    # Any year will do, and calendars know most about those of our time.
    for start in (_OUR_TIME, EPOCH - _SECOND):
        if next(schedule.next_fire_slots(start), None) is not None:
            return
    names = " and ".join(pointer[1:] for pointer in given)
    raise refuse(
        "CO3022",
        f"The schedule never fires: {names} {'leaves' if len(given) == 1 else 'leave'} nothing of it.",
        "ask `cron-observer explain` without them when it fires",
        pointer=given[0] if len(given) == 1 else "",
    )


def read_crons(spec: ScheduleSpec) -> list[Cron]:
    """The cron expressions of `spec`, understood; raise `ScheduleError` with the pointer of the wrong one."""
    if len(spec.cron) > MOST_EXPRESSIONS:
        raise refuse(
            "CO3002",
            f"cron lists {len(spec.cron)} expressions; {MOST_EXPRESSIONS} are allowed.",
            "write lists and ranges inside an expression, or several tasks",
            pointer="/cron",
        )
    crons = []
    for number, text in enumerate(spec.cron):
        pointer = "/cron" if len(spec.cron) == 1 else f"/cron/{number}"
        try:
            cron = parse(text, spec.seed)
        except ScheduleError as error:
            error.pointer = pointer
            raise
        if not ever_fires(cron):
            raise refuse(
                "CO3009",
                f"{text.strip()!r} never fires: no date matches it.",
                "check day of month against month",
                pointer=pointer,
            )
        crons.append(cron)
    return crons


def _every(every: timedelta, anchor: str | None, place: Zone) -> EveryMember:
    if not _SECOND <= every <= LONGEST or every % _MILLISECOND:
        raise refuse(
            "CO3012",
            f"every is {every.total_seconds():g} seconds; it must be 1 s to {LONGEST.days} days.",
            "for dates write `cron` or `at`" if every > LONGEST else "write `1s` or more",
            pointer="/every",
        )
    if anchor is None:
        label = 0
    else:
        local = _read_time(anchor, "CO3013", "/anchor")
        if local.tzinfo is not None:
            return EveryMember(every // _MILLISECOND, _since(local, _MILLISECOND), place)
        label = (local - LOCAL_EPOCH) // _SECOND
    instant, gap = place.locate(label)
    return EveryMember(every // _MILLISECOND, (gap.at if gap else instant) * 1000, place)


def _once(spec: ScheduleSpec, place: Zone) -> OnceMember:
    texts = spec.at
    if len(texts) > MOST_TIMES:
        raise refuse("CO3014", f"at lists {len(texts)} times; {MOST_TIMES} are allowed.", pointer="/at")
    times: list[Once] = []
    for number, text in enumerate(texts):
        pointer = "/at" if len(texts) == 1 else f"/at/{number}"
        local = _read_time(text, "CO3014", pointer)
        if local.tzinfo is None:
            named = _local_times((local - LOCAL_EPOCH) // _SECOND, spec.overlap, place)
        else:
            shown = local.astimezone(place.info)
            label = (shown.replace(tzinfo=None) - LOCAL_EPOCH) // _SECOND
            named = [Once(_since(local, _SECOND), label, shown.fold, None)]
        if not all(FIRST <= time.instant < END for time in named):
            raise refuse("CO3015", f"{text!r} is outside the years 1970 to 2200.", pointer=pointer)
        times += named
    return OnceMember(times, spec.gap)


def _local_times(label: int, overlap: FoldRule, place: Zone) -> list[Once]:
    """The times that a label names: one, or both of its passes."""
    instant, gap = place.locate(label)
    if gap is not None:
        return [Once(instant, label, 0, gap)]
    first, second = place.passes(label)
    passes = [Once(first, label, 0, None), Once(second, label, 1, None)]
    if first == second or overlap is FoldRule.FIRST:
        return passes[:1]
    return passes if overlap is FoldRule.BOTH else passes[1:]


def _read_time(text: str, rule: str, pointer: str) -> datetime:
    """Read an ISO 8601 time to the second, with or without an offset."""
    hint = "write 2026-12-24T18:00:00, with an offset or Z only if it is not in the schedule's zone"
    try:
        time = datetime.fromisoformat(text if _TIME.fullmatch(text) else "")
        utc = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise refuse(rule, f"{text[:60]!r} is not a time.", hint, pointer=pointer) from None
    if time.microsecond:
        raise refuse(rule, f"{text!r} has a fraction of a second.", "write whole seconds", pointer=pointer)
    if not 1900 <= utc.year <= 2200:
        raise refuse("CO3015", f"{text!r} is outside the years 1970 to 2200.", pointer=pointer)
    return time


def _since(at: datetime, unit: timedelta) -> int:
    """Whole units from 1970 to an aware time, rounded down."""
    return (at - EPOCH) // unit
