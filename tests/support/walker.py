"""A wall clock that somebody looks at every minute: what a schedule block means, by another way than the engine's.

It shares no code with the product and reads nothing but `zoneinfo`. A walk over UTC notes which labels the clock
shows, how often and when, and which it never shows; everything else is looked up in that. Blocks are those of the
manifest. Read are `cron` (numbers, lists, ranges, steps, ``L``, ``Lx``, ``x#n``), local `at`, `timezone`, `dst`,
`windows`, `startAt`, `endAt`, `onExcluded`, and calendars of dates, days of the year and weekdays.
"""

from __future__ import annotations

import calendar
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
#: How far a slot may move off an excluded day.
REACH = 14


class Wanted(NamedTuple):
    """A slot as it should be: without jitter."""

    nominal_at: datetime
    label: datetime
    fold: int
    fire_at: datetime
    skip: str | None = None


class Swallowed(NamedTuple):
    """A label that the clock jumps over: when it has jumped, and when it would have shown it."""

    jumped_at: datetime
    elapsed_at: datetime


class Clock:
    """What the wall clock of a zone shows from `start` to `end`."""

    def __init__(self, zone: str, start: datetime, end: datetime) -> None:
        self.info = ZoneInfo(zone)
        self.shown: dict[datetime, list[datetime]] = defaultdict(list)
        self.swallowed: dict[datetime, Swallowed] = {}
        # Until 1972 one zone has half minutes: there the clock is looked at twice a minute.
        odd = any((at.astimezone(self.info).utcoffset() or DAY) % MINUTE for at in (start, end))
        pace = MINUTE / 2 if odd else MINUTE
        now = start.replace(second=0, microsecond=0)
        before, seen_at = self.look(now), now
        newest = before
        for instant, label in self.looks(now, end, pace):
            if label - before > pace:
                for missed in minutes(newest + pace, label):
                    self.swallowed[missed] = Swallowed(instant, seen_at + (missed - before))
            if not label.second:
                self.shown[label].append(instant)
            before, seen_at, newest = label, instant, max(newest, label)
        self.first, self.last = min(self.shown).date(), max(self.shown).date()

    def look(self, instant: datetime) -> datetime:
        """Return the label that the clock shows at an instant."""
        return instant.astimezone(self.info).replace(tzinfo=None, fold=0)

    def looks(self, now: datetime, end: datetime, pace: timedelta) -> Iterator[tuple[datetime, datetime]]:
        """Yield instants, a pace apart, and what the clock shows at them.

        Where it is as much further after thirty paces and after sixty, it has been even in between.
        """
        while now <= end:
            label = self.look(now)
            even = all(self.look(now + paces * pace) - label == paces * pace for paces in (30, 60))
            for _ in range(60 if even else 30):
                if now > end:
                    return
                yield now, label if even else self.look(now)
                now, label = now + pace, label + pace

    def dates(self) -> Iterator[date]:
        """Yield every date that the clock shows or jumps over."""
        day = self.first
        while day <= self.last:
            yield day
            day += DAY

    def nominal(self, label: datetime) -> datetime | None:
        """Return the instant that a label names: its first showing, or when it would have been shown."""
        if label in self.swallowed:
            return self.swallowed[label].elapsed_at
        return self.shown[label][0] if label in self.shown else None


def minutes(first: datetime, end: datetime) -> Iterator[datetime]:
    """Yield the whole minutes from `first` to below `end`."""
    label = first.replace(second=0) + (MINUTE if first.second else timedelta(0))
    while label < end:
        yield label
        label += MINUTE


@cache
def changes(zone: str, first: int = 1970, last: int = 2037) -> list[datetime]:
    """Return every instant at which the offset of a zone changes, from year to year."""
    info, found = ZoneInfo(zone), []
    low, end = datetime(first, 1, 1, tzinfo=UTC), datetime(last + 1, 1, 1, tzinfo=UTC)
    here = low.astimezone(info).utcoffset()
    while low < end:
        high = low + DAY / 2
        there = high.astimezone(info).utcoffset()
        if here != there:
            left, right = low, high
            while right - left > timedelta(seconds=1):
                middle = left + (right - left) // 2
                middle = middle.replace(microsecond=0)
                same = middle.astimezone(info).utcoffset() == left.astimezone(info).utcoffset()
                left, right = (middle, right) if same else (left, middle)
            found.append(right)
        low, here = high, there
    return found


class Expression:
    """A cron expression as five sets of numbers."""

    SPANS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))

    def __init__(self, text: str) -> None:
        self.parts = text.upper().split()
        self.minutes, self.hours, self.days, self.months, self.weekdays = (
            self.numbers(part, *span) for part, span in zip(self.parts, self.SPANS, strict=True)
        )
        self.interval = any(part.startswith("*") for part in self.parts[:2])
        self.both = any(self.parts[place].startswith("*") for place in (2, 4))

    @staticmethod
    def numbers(part: str, low: int, high: int) -> set[int]:
        """Read the plain entries of a field."""
        found: set[int] = set()
        for entry in part.split(","):
            span, slash, step = entry.partition("/")
            if "L" in span or "#" in span:
                continue
            if span == "*":
                first, last = low, high
            elif "-" in span:
                first, last = map(int, span.split("-"))
            else:
                first, last = int(span), high if slash else int(span)
            found.update(range(first, last + 1, int(step or 1)))
        return {number % 7 for number in found} if high == 6 else found

    def on(self, day: date) -> bool:
        """Tell whether it fires on a date."""
        if day.month not in self.months:
            return False
        length, weekday = calendar.monthrange(day.year, day.month)[1], day.isoweekday() % 7
        by_date = day.day in self.days or ("L" in self.parts[2].split(",") and day.day == length)
        by_week = weekday in self.weekdays
        for entry in self.parts[4].split(","):
            if entry.startswith("L"):
                by_week |= weekday == int(entry[1:]) % 7 and day.day > length - 7
            if "#" in entry:
                which, _, number = entry.partition("#")
                by_week |= weekday == int(which) % 7 and (day.day + 6) // 7 == int(number)
        return by_date and by_week if self.both else by_date or by_week

    def labels(self, dates: Iterator[date]) -> Iterator[datetime]:
        """Yield the labels that it names on these dates."""
        for day in dates:
            if self.on(day):
                for hour in self.hours:
                    for minute in self.minutes:
                        yield datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001  a label


expression = lru_cache(maxsize=4096)(Expression)


def within(windows: Sequence[Mapping[str, Any]], label: datetime) -> bool:
    """Tell whether a label lies in one of these weekly windows; none at all are always open."""
    minute, today = label.hour * 60 + label.minute, label.isoweekday() % 7
    for window in windows:
        days: set[int] = set()
        for text in window.get("days") or ["sun-sat"]:
            first, _, last = text.partition("-")
            day, end = NAMES.index(first), NAMES.index(last or first)
            days.add(day)
            while day != end:
                day = (day + 1) % 7
                days.add(day)
        (opens, closes) = (int(text[:-3]) * 60 + int(text[-2:]) for text in (window["from"], window["to"]))
        if opens < closes:
            inside = today in days and opens <= minute < closes
        else:
            inside = (today in days and minute >= opens) or ((today - 1) % 7 in days and minute < closes)
        if inside:
            return True
    return not windows


def named(content: Mapping[str, Any], label: datetime, instant: datetime) -> bool:
    """Tell whether the content of a calendar holds a day; a part with a zone of its own asks there which it is."""
    for part in content["parts"]:
        there = instant.astimezone(ZoneInfo(part["timezone"])) if part["timezone"] else label
        day = there.date()
        if any(first <= day.isoformat() <= last for first, last in part.get("dates", ())):
            return True
        if f"{day:%m-%d}" in part.get("yearly", ()) or day.isoweekday() % 7 in part.get("weekdays", ()):
            return True
    return False


class Walker:
    """A schedule block, on a clock. `calendars` gives the content of those that it names."""

    def __init__(self, block: Mapping[str, Any], clock: Clock, calendars: Mapping[str, Any] | None = None) -> None:
        self.clock, self.calendars = clock, calendars or {}
        dst, days = block.get("dst") or {}, block.get("calendars") or {}
        self.gap, self.overlap = dst.get("gap", "first_valid"), dst.get("overlap", "first")
        cron = block.get("cron") or ()
        self.crons = [expression(text) for text in ([cron] if isinstance(cron, str) else cron)]
        self.at = [datetime.fromisoformat(text) for text in block.get("at") or ()]
        self.windows = block.get("windows") or ()
        self.include, self.exclude = days.get("include") or (), days.get("exclude") or ()
        self.on_excluded = block.get("onExcluded", "skip")
        self.start, self.end = self.bound(block.get("startAt")), self.bound(block.get("endAt"))

    def bound(self, text: str | None) -> datetime | None:
        """Read `startAt` or `endAt`; one that the clock does not reach is None."""
        return None if text is None else self.clock.nominal(datetime.fromisoformat(text))

    def slots(self) -> list[Wanted]:
        """Return every slot whose nominal instant lies on the clock, in order."""
        found = {one for cron in self.crons for one in self.named(cron.labels(self.clock.dates()), cron.interval)}
        found.update(self.named(iter(self.at), interval=False))
        kept = [self.judged(one) for one in found if self.exists(one.label, one.nominal_at)]
        return sorted(self.coalesced(kept))

    def fires(self) -> list[datetime]:
        """Return when it fires, in order."""
        return sorted(one.fire_at for one in self.slots() if one.skip is None)

    def named(self, labels: Iterator[datetime], interval: bool) -> Iterator[Wanted]:
        """Yield the slots of these labels, by the rules for gaps and overlaps."""
        for label in labels:
            shown = list(enumerate(self.clock.shown.get(label, ())))
            if not interval and self.overlap != "both":
                shown = shown[:1] if self.overlap == "first" else shown[-1:]
            for fold, instant in shown:
                yield Wanted(instant, label, fold, instant)
            if label in self.clock.swallowed and not interval:
                nominal = self.clock.swallowed[label].elapsed_at
                fire = self.out_of_gap(label)
                yield Wanted(nominal, label, 0, fire or nominal, None if fire else "dst_gap")

    def out_of_gap(self, label: datetime) -> datetime | None:
        """Return when a swallowed label fires, if at all."""
        gap = self.clock.swallowed[label]
        return {"first_valid": gap.jumped_at, "shift": gap.elapsed_at, "skip": None}[self.gap]

    def exists(self, label: datetime, instant: datetime) -> bool:
        """Tell whether windows, start and end leave room for a slot at all."""
        late_enough = self.start is None or self.start <= instant
        return late_enough and (self.end is None or instant < self.end) and within(self.windows, label)

    def allowed(self, label: datetime, instant: datetime) -> bool:
        """Tell whether the calendars allow a day."""
        included = not self.include or any(named(self.calendars[one], label, instant) for one in self.include)
        return included and not any(named(self.calendars[one], label, instant) for one in self.exclude)

    def judged(self, one: Wanted) -> Wanted:
        """Apply the calendars to a slot that no gap has skipped."""
        if one.skip or self.allowed(one.label, one.nominal_at):
            return one
        if self.on_excluded != "skip":
            way = DAY if self.on_excluded == "next_allowed" else -DAY
            for distance in range(1, REACH + 1):
                label = one.label + distance * way
                instant = self.clock.nominal(label)
                if instant and self.exists(label, instant) and self.allowed(label, instant):
                    fire = self.out_of_gap(label) if label in self.clock.swallowed else instant
                    return one._replace(fire_at=fire) if fire else one._replace(skip="dst_gap")
        return one._replace(skip="calendar")

    def coalesced(self, slots: list[Wanted]) -> Iterator[Wanted]:
        """Let one fire of those that fire together: the one that was not moved, else the newest."""
        together: dict[datetime, list[Wanted]] = defaultdict(list)
        for one in slots:
            if one.skip is None:
                together[one.fire_at].append(one)
            else:
                yield one
        for several in together.values():
            several.sort(key=lambda one: (self.unmoved(one), one.nominal_at, one.label), reverse=True)
            yield several[0]
            yield from (one._replace(skip="coalesced") for one in several[1:])

    def unmoved(self, one: Wanted) -> bool:
        """Tell whether a slot fires when the clock shows its label."""
        return one.fire_at == one.nominal_at and one.label not in self.clock.swallowed
