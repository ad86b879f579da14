"""Schedules: checked, compiled, and asked for their slots."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from heapq import merge
from typing import Final

from cron_observer.errors import ScheduleError
from cron_observer.model import ScheduleSpec
from cron_observer.schedule.codes import refuse
from cron_observer.schedule.evaluate import (
    END,
    EPOCH,
    FIRST,
    CronMember,
    EveryMember,
    Member,
    OnceMember,
    Slot,
    ever_fires,
)
from cron_observer.schedule.grammar import Cron, parse
from cron_observer.schedule.zones import Gap, Zone, zone

_SECOND: Final = timedelta(seconds=1)
_MILLISECOND: Final = timedelta(milliseconds=1)
_LOCAL_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - labels have no zone

_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?"
)

#: The longest `every`; beyond it, dates are meant: write `cron` or `at`.
LONGEST: Final = timedelta(days=3660)

#: How many expressions `cron` may list, and how many times `at`.
MOST_EXPRESSIONS: Final = 50
MOST_TIMES: Final = 1000


class Schedule:
    """A compiled schedule: pure, unchangeable, safe to share between threads."""

    def __init__(self, zone: Zone, members: tuple[Member, ...]) -> None:
        self._zone = zone
        self._members = members
        self._winners: dict[Gap, int | None] = {}

    @property
    def timezone(self) -> str:
        """The IANA name of the zone in which the schedule is read."""
        return self._zone.key

    def slots(self, after: datetime, until: datetime, limit: int | None = None) -> Iterator[Slot]:
        """The slots whose nominal instant lies in (`after`, `until`], in the order of `Slot`.

        Nominal instants rise strictly, with one exception: a label that a gap swallows shares its nominal
        instant with the label as far behind the gap. Two such are never parted: the one that `limit` would
        cut off is given all the same. Instants before 1970 or after 2200 are never produced.
        """
        start = max(_floor(after, _MILLISECOND), FIRST * 1000 - 1)
        stop = min(_floor(until, _MILLISECOND), END * 1000 - 1)
        return self._limited(self._all(start, stop), limit)

    def next_slot(self, after: datetime) -> Slot | None:
        """The first slot with a nominal instant behind `after`, coalesced or not; None if there is none."""
        return next(self.slots(after, _FOREVER), None)

    def next_fire_slots(self, after: datetime) -> Iterator[Slot]:
        """The slots that fire strictly behind `after`, in order of `fire_at`, without coalesced ones."""
        settled = None
        waiting: list[Slot] = []
        for slot in self.slots(after, _FOREVER):
            if settled is not None and slot.nominal_at > settled:
                yield from sorted(waiting, key=_by_fire)
                waiting.clear()
                settled = None
            if settled is None:
                settled = self.settled(slot.nominal_at)
            if not slot.coalesced and slot.fire_at > after:
                waiting.append(slot)
        yield from sorted(waiting, key=_by_fire)

    def next_fires(self, after: datetime, count: int) -> list[datetime]:
        """The first `count` instants at which the schedule fires behind `after`: fewer if it ends."""
        fires: list[datetime] = []
        if count > 0:
            for slot in self.next_fire_slots(after):
                fires.append(slot.fire_at)
                if len(fires) == count:
                    break
        return fires

    def settled(self, at: datetime) -> datetime:
        """The nominal instant up to which slots must be known to know all that fires up to `at`.

        It is `at`, but for the length of a gap after the clock jumps forward: what the gap swallowed has
        fired at the jump, while its nominal instants still lie ahead.
        """
        whole = _floor(at, _SECOND)
        settled = self._zone.settled(whole)
        return at if settled == whole else EPOCH + timedelta(seconds=settled)

    def _all(self, after: int, until: int) -> Iterator[Slot]:
        streams = [member.slots(after, until, self._coalesced) for member in self._members]
        return streams[0] if len(streams) == 1 else _distinct(merge(*streams))

    def _limited(self, slots: Iterator[Slot], limit: int | None) -> Iterator[Slot]:
        if limit is None:
            return slots
        return _cut(slots, limit)

    def _coalesced(self, gap: Gap, label: int) -> bool:
        """Of what fires at the end of a gap, the unshifted slot stays, else the newest label."""
        if gap not in self._winners:
            taken = any(member.fires_at(gap.at) for member in self._members)
            newest = [member.newest_in(gap) for member in self._members]
            self._winners[gap] = None if taken else max(found for found in newest if found is not None)
        return self._winners[gap] != label


_FOREVER: Final = EPOCH + timedelta(seconds=END)


def _by_fire(slot: Slot) -> datetime:
    return slot.fire_at


def _floor(at: datetime, unit: timedelta) -> int:
    """Whole units since 1970, rounded down. Raise `ValueError` for a time without a zone."""
    if at.tzinfo is None:
        raise ValueError("a schedule is asked with aware times")
    return (at - EPOCH) // unit


def _distinct(slots: Iterator[Slot]) -> Iterator[Slot]:
    last = None
    for slot in slots:
        if slot != last:
            yield slot
        last = slot


def _cut(slots: Iterator[Slot], limit: int) -> Iterator[Slot]:
    """The first `limit` slots, and one more if it shares the last one's nominal instant."""
    last = None
    for number, slot in enumerate(slots):
        if number >= limit and slot.nominal_at != last:
            return
        yield slot
        last = slot.nominal_at


def check(spec: ScheduleSpec) -> None:
    """Raise `ScheduleError` if the schedule is not well formed or can never fire.

    ``H`` without a seed is allowed: the seed is known once the task has a name.
    """
    _build(spec if spec.seed is not None else _seeded(spec))


@lru_cache(maxsize=16_384)
def compile(spec: ScheduleSpec) -> Schedule:  # noqa: A001 - the word of the trade
    """Make the schedule that `spec` describes, or raise `ScheduleError`. The same spec gives the same one."""
    return _build(spec)


def _seeded(spec: ScheduleSpec) -> ScheduleSpec:
    return ScheduleSpec(
        cron=spec.cron,
        every=spec.every,
        anchor=spec.anchor,
        at=spec.at,
        timezone=spec.timezone,
        seed="-",
    )


def _build(spec: ScheduleSpec) -> Schedule:
    if not spec.cron and spec.every is None and not spec.at:
        raise refuse("CO3001", "The schedule is empty.", "give one of `cron`, `every` and `at`")
    place = zone(spec.timezone)
    members: list[Member] = [CronMember(cron, place) for cron in read_crons(spec)]
    if spec.every is not None:
        members.append(_every(spec.every, spec.anchor, place))
    elif spec.anchor is not None:
        raise refuse("CO3013", "anchor stands without every.", "remove it, or add `every`", pointer="/anchor")
    if spec.at:
        members.append(_once(spec.at, place))
    return Schedule(place, tuple(members))


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
            return EveryMember(every // _MILLISECOND, _floor(local, _MILLISECOND), place)
        label = (local - _LOCAL_EPOCH) // _SECOND
    instant, gap = place.locate(label)
    return EveryMember(every // _MILLISECOND, (gap.at if gap else instant) * 1000, place)


def _once(texts: tuple[str, ...], place: Zone) -> OnceMember:
    if len(texts) > MOST_TIMES:
        raise refuse("CO3014", f"at lists {len(texts)} times; {MOST_TIMES} are allowed.", pointer="/at")
    times = []
    for number, text in enumerate(texts):
        pointer = "/at" if len(texts) == 1 else f"/at/{number}"
        local = _read_time(text, "CO3014", pointer)
        gap: Gap | None = None
        fold = 0
        if local.tzinfo is None:
            label = (local - _LOCAL_EPOCH) // _SECOND
            instant, gap = place.locate(label)
        else:
            instant = _floor(local, _SECOND)
            shown = local.astimezone(place.info)
            label, fold = (shown.replace(tzinfo=None) - _LOCAL_EPOCH) // _SECOND, shown.fold
        if not FIRST <= instant < END:
            raise refuse("CO3015", f"{text!r} is outside the years 1970 to 2200.", pointer=pointer)
        times.append((instant, label, fold, gap))
    return OnceMember(times)


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
