"""The members of a schedule: a cron expression, an interval and one-off times, evaluated on integers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from heapq import merge
from typing import Final, NamedTuple, Protocol

from cron_observer.model import FoldRule, GapRule
from cron_observer.schedule.grammar import Cron
from cron_observer.schedule.matching import days, matches_day, minutes_of_day, month_days, month_length
from cron_observer.schedule.zones import DAY, Gap, Piece, Run, Zone

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LOCAL_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - labels have no zone
_FIRST_DAY: Final = date(1970, 1, 1).toordinal()
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
    moved_by: str | None = None  #: what makes it fire elsewhere than at its label: dst, calendar, jitter, parted by "+"
    closes_at: datetime | None = None  #: when the window of its task group ends that it fires in

    @property
    def coalesced(self) -> bool:
        """Whether another slot fires at the same instant in its stead."""
        return self.skip == "coalesced"


class Member(Protocol):
    """One part of the union that a schedule is."""

    @property
    def moves(self) -> bool:
        """Whether rules for gaps and calendars may move a slot of the member: it does not count elapsed time."""

    def slots(self, after: int, until: int) -> Iterator[Slot]:
        """Slots with `after` < nominal <= `until` (milliseconds since 1970), in order, the gap rule applied."""

    def fires_at(self, instant: int) -> bool:
        """Whether a slot that no gap swallows has the nominal instant `instant`, in seconds."""

    def next_plain(self, after: int) -> int | None:
        """The next nominal instant behind `after` (milliseconds), or None if a clock change is near or it ends."""


class CronMember:
    """The slots of one cron expression in one zone."""

    def __init__(self, cron: Cron, zone: Zone, gap: GapRule, overlap: FoldRule) -> None:
        self.cron = cron
        self.zone = zone
        self.gap = gap
        self.overlap = overlap
        self.moves = not cron.interval_like
        self.minutes = minutes_of_day(cron.minutes, cron.hours)
        self._newest = self.minutes[-1]
        self._months: dict[int, int] = {}
        self._later: dict[int, int] = {}

    def slots(self, after: int, until: int) -> Iterator[Slot]:
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
                utc, local = EPOCH + timedelta(0, base), LOCAL_EPOCH + timedelta(day)
                for index in range(low, high):
                    past = _MINUTES[minutes[index]]
                    at = utc + past
                    yield new((at, local + past, 0, at, None, None, None))
            else:
                beyond = place.last
                yield from self._slots_of(place, after, until)

    def _slots_of(self, run: Run, after: int, until: int) -> Iterator[Slot]:
        """The slots of the days around a clock change."""
        if self.cron.interval_like or not run.gaps:
            return self._shown(run, after, until)
        return merge(self._swallowed(run, after, until), self._shown(run, after, until))

    def _shown(self, run: Run, after: int, until: int) -> Iterator[Slot]:
        """Slots whose label the wall clock shows."""
        for piece in run.pieces:
            if not matches_day(self.cron, piece.day):
                continue
            base = piece.day * DAY - piece.offset
            low = bisect_left(self.minutes, piece.first)
            for minute in self.minutes[low : bisect_left(self.minutes, piece.end)]:
                instant = base + minute * 60
                if after < instant <= until and self._is_slot(run, piece, minute):
                    at = EPOCH + timedelta(0, instant)
                    yield Slot(at, LOCAL_EPOCH + timedelta(piece.day, minute * 60), piece.fold, at)

    def _is_slot(self, run: Run, piece: Piece, minute: int) -> bool:
        """Whether this pass of a label is a slot, by the rule for overlaps."""
        if self.cron.interval_like or self.overlap is FoldRule.BOTH:
            return True
        if self.overlap is FoldRule.FIRST:
            return not piece.fold
        return bool(piece.fold) or not run.repeats(piece.day, minute)

    def _swallowed(self, run: Run, after: int, until: int) -> Iterator[Slot]:
        """Slots whose label a gap swallows."""
        for gap in run.gaps:
            for label in self._labels_in(gap):
                if after < label - gap.before <= until:
                    yield swallowed(gap, label, self.gap)

    def _labels_in(self, gap: Gap) -> Iterator[int]:
        for day in range(gap.first // DAY, (gap.end - 1) // DAY + 1):
            if matches_day(self.cron, day):
                for minute in self.minutes:
                    if gap.first <= day * DAY + minute * 60 < gap.end:
                        yield day * DAY + minute * 60

    def fires_at(self, instant: int) -> bool:
        """`Member.fires_at`."""
        label = instant + self.zone.offset(instant)
        day, second = divmod(label, DAY)
        if second % 60 or not matches_day(self.cron, day):
            return False
        hour, minute = divmod(second // 60, 60)
        if not (self.cron.hours >> hour & 1 and self.cron.minutes >> minute & 1):
            return False
        if self.cron.interval_like or self.overlap is FoldRule.BOTH:
            return True
        return instant == self.zone.passes(label)[0 if self.overlap is FoldRule.FIRST else 1]

    def next_plain(self, after: int) -> int | None:
        """`Member.next_plain`: arithmetic on remembered days."""
        second = after // 1000
        day_of = self.zone.day
        place = day_of(second // DAY)
        if not isinstance(place, int):
            return None
        day, second = divmod(second + place, DAY)
        minute = second // 60
        shown = date.fromordinal(day + _FIRST_DAY)
        bits = self._month(shown.year, shown.month) >> shown.day
        if bits & 1 and minute < self._newest:
            minutes = self.minutes
            minute = minutes[bisect_right(minutes, minute)]
        else:
            minute = self.minutes[0]
            rest = bits >> 1
            day = day + (rest & -rest).bit_length() if rest else self._later_month(day, shown)
        place = day_of(day)
        if isinstance(place, int):
            return ((day * 1440 + minute) * 60 - place) * 1000
        return None

    def _later_month(self, day: int, shown: date) -> int:
        """The first matching day behind the month of `day`."""
        year, month = shown.year, shown.month
        known = self._later.get(year * 12 + month)
        if known is not None:
            return known
        start = day - shown.day  # day 0 of the month
        bits = 0
        while not bits:
            start += month_length(year, month)
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
            bits = self._month(year, month)
        self._later[shown.year * 12 + shown.month] = found = start + (bits & -bits).bit_length() - 1
        return found

    def _month(self, year: int, month: int) -> int:
        """Bit d is set for each day d of a month that matches."""
        number = year * 12 + month
        bits = self._months.get(number)
        if bits is None:
            bits = self._months[number] = month_days(self.cron, year, month)
        return bits


class EveryMember:
    """The slots of an interval: `anchor` plus and minus any multiple of `every` (both milliseconds)."""

    moves = False

    def __init__(self, every: int, anchor: int, zone: Zone) -> None:
        self.every = every
        self.anchor = anchor
        self.zone = zone

    def slots(self, after: int, until: int) -> Iterator[Slot]:
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

    def next_plain(self, after: int) -> int | None:
        """`Member.next_plain`."""
        return after + self.every - (after - self.anchor) % self.every


class Once(NamedTuple):
    """A one-off time; seconds. `gap` swallows its label."""

    instant: int
    label: int
    fold: int
    gap: Gap | None


class OnceMember:
    """The slots of one-off times."""

    moves = True

    def __init__(self, times: list[Once], gap: GapRule) -> None:
        self.times = sorted(set(times), key=lambda time: time[:3])
        self.gap = gap

    def slots(self, after: int, until: int) -> Iterator[Slot]:
        """`Member.slots`."""
        after, until = after // 1000, until // 1000
        for time in self.times:
            if not after < time.instant <= until:
                continue
            if time.gap is not None:
                yield swallowed(time.gap, time.label, self.gap)
            else:
                at = EPOCH + timedelta(0, time.instant)
                yield Slot(at, LOCAL_EPOCH + timedelta(0, time.label), time.fold, at)

    def fires_at(self, instant: int) -> bool:
        """`Member.fires_at`."""
        return any(time.instant == instant and time.gap is None for time in self.times)

    def next_plain(self, after: int) -> int | None:  # noqa: ARG002
        """`Member.next_plain`: there are few of them, nobody is in a hurry."""
        return None


def swallowed(gap: Gap, label: int, rule: GapRule) -> Slot:
    """The slot of a label that `gap` swallows, with the rule for gaps applied."""
    nominal = EPOCH + timedelta(0, label - gap.before)
    local = LOCAL_EPOCH + timedelta(0, label)
    if rule is GapRule.SKIP:
        return Slot(nominal, local, 0, nominal, "dst_gap")
    # Shifted, it fires at its nominal instant: as long after the jump as the label lies in the gap.
    fire = nominal if rule is GapRule.SHIFT else EPOCH + timedelta(0, gap.at)
    return Slot(nominal, local, 0, fire, None, "dst")
