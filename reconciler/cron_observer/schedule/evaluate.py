"""The members of a schedule: a cron expression, an interval and one-off times, evaluated on integers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from heapq import merge
from typing import Final, NamedTuple, Protocol

from cron_observer.schedule.grammar import Cron
from cron_observer.schedule.zones import DAY, Gap, Run, Zone

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - labels have no zone
_MINUTES: Final = tuple(timedelta(minutes=minute) for minute in range(1441))

#: The first instant that may be nominal, and the first that may not any more.
FIRST: Final = 0
END: Final = int((datetime(2201, 1, 1, tzinfo=UTC) - EPOCH).total_seconds())


class Slot(NamedTuple):
    """One nominal slot of a schedule. Slots compare in the order in which they are listed."""

    nominal_at: datetime  #: aware UTC: the label and its fold, before any rule for gaps
    nominal_local: datetime  #: naive: what the wall clock shows, or would have shown inside a gap
    fold: int  #: 1 = the second time that the wall clock shows it
    fire_at: datetime  #: aware UTC: after the rules for gaps and calendars, and jitter
    skip: str | None = None  #: why it does not run: coalesced, dst_gap, calendar, window or paused
    moved_by: str | None = None  #: what moved `fire_at` off `nominal_at`: dst, calendar, jitter, parted by "+"
    closes_at: datetime | None = None  #: when the window of its task group ends that it fires in

    @property
    def coalesced(self) -> bool:
        """Whether another slot fires at the same instant in its stead."""
        return self.skip == "coalesced"


#: Says of a label swallowed by a gap whether another slot fires in its stead.
Coalesced = Callable[[Gap, int], bool]


class Member(Protocol):
    """One part of the union that a schedule is."""

    def slots(self, after: int, until: int, coalesced: Coalesced) -> Iterator[Slot]:
        """Slots with `after` < nominal <= `until` (milliseconds since 1970), in order."""

    def fires_at(self, instant: int) -> bool:
        """Whether an unshifted slot has the nominal instant `instant`, the end of a gap, in seconds."""

    def newest_in(self, gap: Gap) -> int | None:
        """The newest label of the member that `gap` swallows."""


class CronMember:
    """The slots of one cron expression in one zone."""

    def __init__(self, cron: Cron, zone: Zone) -> None:
        self.cron = cron
        self.zone = zone
        self.minutes = _minutes_of_day(cron.minutes, cron.hours)

    def slots(self, after: int, until: int, coalesced: Coalesced) -> Iterator[Slot]:
        """Walk the matching local days; `Member.slots`."""
        after, until = after // 1000, until // 1000
        minutes, day_of = self.minutes, self.zone.day
        new = Slot._make
        beyond = -1
        for day in days(self.cron, after // DAY - 1, until // DAY + 2):
            if day <= beyond:
                continue
            place = day_of(day)
            if isinstance(place, int):
                base = day * DAY - place
                if base > until:
                    return
                low = bisect_right(minutes, (after - base) // 60) if after >= base else 0
                high = bisect_right(minutes, (until - base) // 60)
                utc, local = EPOCH + timedelta(0, base), _LOCAL + timedelta(day)
                for index in range(low, high):
                    past = _MINUTES[minutes[index]]
                    at = utc + past
                    yield new((at, local + past, 0, at, None, None, None))
            else:
                beyond = place.last
                yield from self._slots_of(place, after, until, coalesced)

    def _slots_of(self, run: Run, after: int, until: int, coalesced: Coalesced) -> Iterator[Slot]:
        """The slots of the days around a clock change."""
        if self.cron.interval_like or not run.gaps:
            return self._shown(run, after, until)
        return merge(self._swallowed(run, after, until, coalesced), self._shown(run, after, until))

    def _shown(self, run: Run, after: int, until: int) -> Iterator[Slot]:
        """Slots whose label the wall clock shows."""
        for piece in run.pieces:
            if (piece.fold and not self.cron.interval_like) or not matches_day(self.cron, piece.day):
                continue
            base = piece.day * DAY - piece.offset
            low = bisect_left(self.minutes, piece.first)
            for minute in self.minutes[low : bisect_left(self.minutes, piece.end)]:
                instant = base + minute * 60
                if after < instant <= until:
                    at = EPOCH + timedelta(0, instant)
                    yield Slot(at, _LOCAL + timedelta(piece.day, minute * 60), piece.fold, at)

    def _swallowed(self, run: Run, after: int, until: int, coalesced: Coalesced) -> Iterator[Slot]:
        """Slots whose label a gap swallows: they fire at its end."""
        for gap in run.gaps:
            for label in self._labels_in(gap):
                if after < label - gap.before <= until:
                    yield swallowed(gap, label, coalesced(gap, label))

    def _labels_in(self, gap: Gap) -> Iterator[int]:
        for day in range(gap.first // DAY, (gap.end - 1) // DAY + 1):
            if matches_day(self.cron, day):
                for minute in self.minutes:
                    if gap.first <= day * DAY + minute * 60 < gap.end:
                        yield day * DAY + minute * 60

    def fires_at(self, instant: int) -> bool:
        """`Member.fires_at`."""
        day, second = divmod(instant + self.zone.offset(instant), DAY)
        if second % 60 or not matches_day(self.cron, day):
            return False
        hour, minute = divmod(second // 60, 60)
        return bool(self.cron.hours >> hour & 1 and self.cron.minutes >> minute & 1)

    def newest_in(self, gap: Gap) -> int | None:
        """`Member.newest_in`; an interval-like schedule has no slots in a gap."""
        return None if self.cron.interval_like else max(self._labels_in(gap), default=None)


class EveryMember:
    """The slots of an interval: `anchor` plus and minus any multiple of `every` (both milliseconds)."""

    def __init__(self, every: int, anchor: int, zone: Zone) -> None:
        self.every = every
        self.anchor = anchor
        self.zone = zone

    def slots(self, after: int, until: int, coalesced: Coalesced) -> Iterator[Slot]:  # noqa: ARG002
        """`Member.slots`; elapsed time knows no gaps."""
        instant = after + self.every - (after - self.anchor) % self.every
        info = self.zone.info
        while instant <= until:
            at = EPOCH + timedelta(milliseconds=instant)
            local = at.astimezone(info)
            yield Slot(at, local.replace(tzinfo=None, fold=0), local.fold, at)
            instant += self.every

    def fires_at(self, instant: int) -> bool:
        """`Member.fires_at`."""
        return (instant * 1000 - self.anchor) % self.every == 0

    def newest_in(self, gap: Gap) -> int | None:  # noqa: ARG002
        """`Member.newest_in`: none."""
        return None


class OnceMember:
    """One-off times: (nominal instant, label, fold, gap), in seconds and in order."""

    def __init__(self, times: list[tuple[int, int, int, Gap | None]]) -> None:
        self.times = sorted(set(times), key=lambda time: time[:3])

    def slots(self, after: int, until: int, coalesced: Coalesced) -> Iterator[Slot]:
        """`Member.slots`."""
        after, until = after // 1000, until // 1000
        for instant, label, fold, gap in self.times:
            if not after < instant <= until:
                continue
            if gap is not None:
                yield swallowed(gap, label, coalesced(gap, label))
            else:
                at = EPOCH + timedelta(0, instant)
                yield Slot(at, _LOCAL + timedelta(0, label), fold, at)

    def fires_at(self, instant: int) -> bool:
        """`Member.fires_at`."""
        return any(time[0] == instant and time[3] is None for time in self.times)

    def newest_in(self, gap: Gap) -> int | None:
        """`Member.newest_in`."""
        return max((time[1] for time in self.times if time[3] == gap), default=None)


def swallowed(gap: Gap, label: int, coalesced: bool) -> Slot:
    """The slot of a label that `gap` swallows: it fires at the first instant after the gap."""
    return Slot(
        EPOCH + timedelta(0, label - gap.before),
        _LOCAL + timedelta(0, label),
        0,
        EPOCH + timedelta(0, gap.at),
        "coalesced" if coalesced else None,
        "dst",
    )


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
def _minutes_of_day(minutes: int, hours: int) -> tuple[int, ...]:
    return tuple(hour * 60 + minute for hour in _bits(hours) for minute in _bits(minutes))
