"""Statistics as values: quarter hours, which of them are told from what was counted, days of a zone, histograms. Pure.

A histogram counts durations in buckets whose bounds grow by a constant factor, so that any quantile is known within
`ERROR` of its value, histograms of different quarters and tasks can be added up, and adding loses nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

#: What is counted together. Every time zone's day is a sum of these: no offset is finer.
QUARTER: Final = timedelta(minutes=15)

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)

#: A quantile lies within this part of the true one.
ERROR: Final = 0.02

#: By which the bounds of buckets grow, and its logarithm.
GROWTH: Final = (1 + ERROR) / (1 - ERROR)
LOG_GROWTH: Final = math.log(GROWTH)

#: The bound of the first bucket, in microseconds. What takes no longer is told as half of it.
FIRST: Final = 1_000

_MICROSECONDS: Final = 1_000_000


def quarter_of(at: datetime) -> datetime:
    """Return the beginning of the quarter hour that an instant lies in."""
    return at - (at - _EPOCH) % QUARTER


class Stretch(NamedTuple):
    """The instants from `since` to below `until`."""

    since: datetime
    until: datetime


class Split(NamedTuple):
    """A window in parts: `told` is read from what was counted, `live` from the executions themselves."""

    told: list[Stretch]
    live: list[Stretch]


def split(
    since: datetime,
    until: datetime,
    *,
    now: datetime,
    frozen_before: datetime,
    marked: Iterable[datetime],
    parted: Iterable[datetime] = (),
) -> Split:
    """Say which part of [since, until) is read from where.

    `marked` are quarters that have changed since they were counted. The quarter of `now` and all that follow are
    open; so is a quarter that an instant of `parted`, or an end of the window, cuts in two. What lies before
    `frozen_before` is told whatever is marked. Told and live stretches never overlap and leave nothing out.
    """
    begin, end = quarter_of(since), until if quarter_of(until) == until else quarter_of(until) + QUARTER
    cut = {quarter_of(at) for at in (since, until, *parted) if quarter_of(at) != at}
    opened = max(quarter_of(now), begin)
    alive = sorted(
        one for one in {*marked, *cut} if max(begin, frozen_before) <= one < min(opened, end) and quarter_of(one) == one
    )
    live: list[Stretch] = []
    for first, last in [*((one, one + QUARTER) for one in alive), (opened, max(end, opened))]:
        if live and live[-1].until == first:
            live[-1] = Stretch(live[-1].since, last)
        elif first < last:
            live.append(Stretch(first, last))
    edges = [begin, *(at for one in live for at in one), end]
    told = [Stretch(first, last) for first, last in zip(edges[::2], edges[1::2], strict=True) if first < last]
    return Split(told, [Stretch(max(one.since, since), min(one.until, until)) for one in live])


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """Return the instant at which a local date begins, in UTC.

    Where midnight does not exist the day begins with the gap's end; a date that does not exist is empty. A day's end
    is the start of the next, so that every instant belongs to exactly one day. Raises `OverflowError` at the ends of
    the calendar.
    """
    return datetime.combine(day, time.min, tzinfo=zone).astimezone(UTC)


def days_of(first: date, last: date, zone: ZoneInfo) -> tuple[list[date], list[datetime]]:
    """Return the dates from `first` to `last`, and where each begins; one more for the end of the last."""
    every = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return every, [day_start(day, zone) for day in (*every, last + _DAY)]


def hours_of(starts: Sequence[datetime], zone: ZoneInfo) -> list[datetime]:
    """Return the instants at which local hours begin, in the days that begin at `starts`; the last is their end."""
    found: list[datetime] = []
    for begin, end in pairwise(starts):
        if end - begin == _DAY and begin.astimezone(zone).utcoffset() == end.astimezone(zone).utcoffset():
            found += (begin + number * _HOUR for number in range(24))
            continue
        known, at = None, begin
        while at < end:
            local = at.astimezone(zone)
            label = (local.date(), local.hour, local.utcoffset())
            if label != known:
                found.append(at)
            known, at = label, at + QUARTER
    return [*found, starts[-1]]


def place_of(at: datetime, starts: Sequence[datetime]) -> int:
    """Return which of the stretches that begin at `starts` an instant lies in, from 0; -1 before the first."""
    return bisect_right(starts, at) - 1


def bucket_of(microseconds: int) -> int:
    """Return the bucket that counts a duration: 0 up to a millisecond, `n` up to `GROWTH` to the n-th of it."""
    if microseconds <= FIRST:
        return 0
    return math.ceil(math.log(microseconds / FIRST) / LOG_GROWTH)


def value_of(bucket: int) -> float:
    """Return the seconds that a bucket stands for: no duration in it is further away than `ERROR` of itself."""
    if bucket <= 0:
        return FIRST / 2 / _MICROSECONDS
    return float(2 * GROWTH**bucket / (GROWTH + 1)) * FIRST / _MICROSECONDS


@dataclass(slots=True)
class Histogram:
    """Durations, counted in buckets; sum, least and greatest are exact, in microseconds."""

    buckets: dict[int, int] = field(default_factory=dict)
    sum: int = 0
    least: int | None = None
    greatest: int | None = None

    def add(self, microseconds: int) -> None:
        """Count one duration."""
        self.merge(Histogram({bucket_of(microseconds): 1}, microseconds, microseconds, microseconds))

    def merge(self, other: Histogram) -> None:
        """Count all that `other` counts, too."""
        for bucket, n in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + n
        self.note(other.sum, other.least, other.greatest)

    def note(self, total: int | None, least: int | None, greatest: int | None) -> None:
        """Take over the exact figures of durations whose buckets are counted elsewhere."""
        self.sum += total or 0
        if least is not None:
            self.least = least if self.least is None else min(self.least, least)
        if greatest is not None:
            self.greatest = greatest if self.greatest is None else max(self.greatest, greatest)

    @property
    def count(self) -> int:
        """How many durations there are."""
        return sum(self.buckets.values())

    def quantile(self, share: float) -> float | None:
        """Return the seconds that `share` of the durations do not exceed (nearest rank), within `ERROR`; None of none.

        The least and the greatest are exact. A duration below a millisecond is told within a millisecond.
        """
        count = self.count
        if not count or self.least is None or self.greatest is None:
            return None
        rank, seen, found = max(1, math.ceil(share * count)), 0, 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            found = bucket
            if seen >= rank:
                break
        return min(max(value_of(found), self.least / _MICROSECONDS), self.greatest / _MICROSECONDS)

    @property
    def mean(self) -> float | None:
        """The exact mean in seconds; None of none."""
        count = self.count
        return self.sum / count / _MICROSECONDS if count else None

    @property
    def extremes(self) -> tuple[float | None, float | None]:
        """The exact least and greatest in seconds; None of none."""
        least, greatest = self.least, self.greatest
        return (
            None if least is None else least / _MICROSECONDS,
            None if greatest is None else greatest / _MICROSECONDS,
        )


@dataclass(slots=True)
class Totals:
    """What became of the executions of a stretch of time: counts by status in lower case, and how long they took."""

    counts: dict[str, int] = field(default_factory=dict)
    late: int = 0  #: of the finished ones, those whose completion came after its deadline
    durations: Histogram = field(default_factory=Histogram)
    delays: Histogram = field(default_factory=Histogram)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)  #: by status and reason, of what has one
    running: float = 0.0  #: seconds for which what still runs has been running

    @property
    def total(self) -> int:
        """Everything that was due."""
        return sum(self.counts.values())

    @property
    def rate(self) -> float | None:
        """The part that finished of what finished, failed or was missed; None when that is nothing."""
        finished = self.counts.get("finished", 0)
        ended = finished + self.counts.get("failed", 0) + self.counts.get("missed", 0)
        return finished / ended if ended else None

    def why(self) -> list[tuple[str, str, int]]:
        """Return status, reason and number, most first."""
        return [(*key, n) for key, n in sorted(self.reasons.items(), key=lambda one: (-one[1], one[0]))]

    def merge(self, other: Totals) -> None:
        """Count all that `other` counts, too."""
        self.count(other.counts, other.late)
        self.durations.merge(other.durations)
        self.delays.merge(other.delays)
        self.reasons.update(other.reasons)
        self.running += other.running

    def count(self, counts: Mapping[str, int], late: int = 0) -> None:
        """Count more executions by their status."""
        for status, n in counts.items():
            if n:
                self.counts[status] = self.counts.get(status, 0) + n
        self.late += late
