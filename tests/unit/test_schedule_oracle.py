"""The engine against a walker that looks at a wall clock every minute and shares no code with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from cron_observer import schedule
from cron_observer.errors import ScheduleError
from cron_observer.model import ScheduleSpec

MINUTE = timedelta(minutes=1)

#: Zone and a moment near a change of its clock.
CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00Z"),
    ("America/New_York", "2026-03-08T07:00Z"),
    ("America/New_York", "2026-11-01T06:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30Z"),  # half an hour
    ("Australia/Lord_Howe", "2026-04-04T15:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00Z"),  # a whole day is missing
    ("Pacific/Kwajalein", "1993-08-21T12:00Z"),  # and here
    ("America/Sao_Paulo", "2018-11-04T03:00Z"),  # midnight does not exist
    ("America/Sao_Paulo", "2018-02-18T02:00Z"),  # midnight is overtaken
    ("America/St_Johns", "2006-04-02T03:31Z"),  # one minute past midnight
    ("America/St_Johns", "2006-10-29T02:31Z"),  # back into yesterday
    ("Antarctica/Troll", "2026-03-29T01:00Z"),  # two hours
    ("Antarctica/Troll", "2026-10-25T01:00Z"),
    ("Antarctica/Casey", "2010-03-04T15:00Z"),  # three hours back
    ("Africa/Casablanca", "2026-02-15T02:00Z"),  # Ramadan
    ("Africa/Casablanca", "2026-03-22T02:00Z"),
    ("Pacific/Chatham", "2026-09-26T14:00Z"),  # quarters of an hour
    ("Pacific/Chatham", "2026-04-04T14:00Z"),
    ("Asia/Pyongyang", "2018-05-04T15:00Z"),  # half an hour, for good, before midnight
    ("Africa/Monrovia", "1972-01-07T00:44Z"),  # offsets with seconds
    ("Asia/Kathmandu", "1985-12-31T18:30Z"),
    ("UTC", "2026-06-01T00:00Z"),
]


class Reading:
    """A plain expression (numbers, lists, ranges, steps), read as simply as can be."""

    RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))

    def __init__(self, text: str) -> None:
        self.parts = text.split()
        self.sets = [self.values(part, *span) for part, span in zip(self.parts, self.RANGES, strict=True)]
        self.interval = any(part.startswith("*") for part in self.parts[:2])

    @staticmethod
    def values(part: str, low: int, high: int) -> set[int]:
        found: set[int] = set()
        for item in part.split(","):
            span, _, step = item.partition("/")
            if span == "*":
                first, last = low, high
            elif "-" in span:
                first, last = map(int, span.split("-"))
            else:
                first, last = int(span), high if step else int(span)
            found.update(range(first, last + 1)[:: int(step or 1)])
        return {value % 7 for value in found} if high == 6 else found

    def matches(self, label: datetime) -> bool:
        minutes, hours, days, months, weekdays = self.sets
        if label.minute not in minutes or label.hour not in hours or label.month not in months:
            return False
        by_date, by_week = label.day in days, label.isoweekday() % 7 in weekdays
        if any(self.parts[field].startswith("*") for field in (2, 4)):
            return by_date and by_week
        return by_date or by_week


def walk(text: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Look at the wall clock each whole UTC minute of (start, end] and say when the expression fires.

    What it shows is matched; what it jumped over since the last look, and was never shown, fires at once.
    """
    reading, info = Reading(text), ZoneInfo(zone)
    fires = []
    newest = start.astimezone(info).replace(tzinfo=None)
    now = start
    while now < end:
        now += MINUTE
        label = now.astimezone(info).replace(tzinfo=None)
        due = reading.matches(label) and (reading.interval or label > newest)
        skipped = newest + MINUTE
        while skipped < label:
            due = due or (not reading.interval and reading.matches(skipped))
            skipped += MINUTE
        newest = max(newest, label)
        if due:
            fires.append(now)
    return fires


def labels(text: str, zone: str, first: datetime, last: datetime) -> list[tuple[datetime, datetime, int]]:
    """Every slot that the labels from `first` to `last` name: (nominal instant, label, fold), in order."""
    reading, info = Reading(text), ZoneInfo(zone)
    slots = []
    label = first
    while label <= last:
        if reading.matches(label):
            instants = [label.replace(tzinfo=info, fold=fold).astimezone(UTC) for fold in (0, 1)]
            exists = instants[0].astimezone(info).replace(tzinfo=None) == label
            if exists or not reading.interval:
                slots.append((instants[0], label, 0))
            if exists and reading.interval and instants[1] != instants[0]:
                slots.append((instants[1], label, 1))
        label += MINUTE
    return sorted(slots)


def item(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    pair = st.tuples(number, number).map(sorted)
    step = st.integers(1, high - low + 1)
    return st.one_of(
        number.map(str),
        pair.map(lambda ends: f"{ends[0]}-{ends[1]}"),
        st.tuples(pair, step).map(lambda told: f"{told[0][0]}-{told[0][1]}/{told[1]}"),
        st.tuples(number, step).map(lambda told: f"{told[0]}/{told[1]}"),
    )


def field(low: int, high: int, stars: int = 1) -> st.SearchStrategy[str]:
    starred = st.integers(1, high - low + 1).map(lambda step: f"*/{step}" if step > 1 else "*")
    listed = st.lists(item(low, high), min_size=1, max_size=3).map(",".join)
    return st.one_of(listed, *[starred] * stars)


#: Hours lean to the night, when clocks change.
EXPRESSIONS = st.tuples(
    field(0, 59),
    st.one_of(field(0, 23), field(0, 3), st.just("23"), st.just("0")),
    st.one_of(st.just("*"), st.just("*"), field(1, 31)),
    st.one_of(st.just("*"), st.just("*"), field(1, 12)),
    st.one_of(st.just("*"), st.just("*"), field(0, 6)),
).map(" ".join)


def fires(text: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    slots = schedule.compile(ScheduleSpec(cron=(text,), timezone=zone)).slots(
        start - timedelta(days=2), end + timedelta(days=2)
    )
    return sorted(slot.fire_at for slot in slots if not slot.coalesced and start < slot.fire_at <= end)


@settings(max_examples=250, deadline=None)
@given(EXPRESSIONS, st.sampled_from(CHANGES), st.integers(-3, 3))
@example("30 2 * * *", CHANGES[0], 0)
@example("0,30 2 * * *", CHANGES[0], 0)
@example("*/20 2 * * *", CHANGES[4], 0)
@example("0,30 12 * * *", CHANGES[6], 0)
@example("30 23 * * *", CHANGES[11], 0)
@example("0 0 * * *", CHANGES[10], 0)
def test_fires_are_those_of_a_wall_clock(text: str, change: tuple[str, str], hours: int) -> None:
    """Around every kind of clock change, the engine fires exactly when a walker over minutes does."""
    zone, moment = change
    assume(zone != "Africa/Monrovia")  # its minutes are not those of UTC; the test of labels has it
    assume(_possible(text))
    middle = datetime.fromisoformat(moment) + timedelta(hours=hours)
    # A day before: what a gap swallowed before the first look could not be known to the walker.
    start, end = middle - timedelta(hours=30), middle + timedelta(hours=30)
    assert fires(text, zone, start, end) == walk(text, zone, start, end)


@settings(max_examples=250, deadline=None)
@given(EXPRESSIONS, st.sampled_from(CHANGES))
@example("30 2,3 * * *", CHANGES[0])
@example("* * * * *", CHANGES[1])
@example("7 0 * * *", CHANGES[20])
@example("0 12 * * *", CHANGES[6])
def test_slots_are_the_labels_of_the_calendar(text: str, change: tuple[str, str]) -> None:
    """A fixed-time schedule has a slot for each matching label; an interval-like one for each showing."""
    zone, moment = change
    assume(_possible(text))
    middle = datetime.fromisoformat(moment).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    midnight = middle.replace(hour=0, minute=0, second=0)
    wanted = labels(text, zone, midnight - timedelta(days=3), midnight + timedelta(days=4))
    start = datetime.fromisoformat(moment) - timedelta(hours=30)
    end = start + timedelta(hours=60)
    made = schedule.compile(ScheduleSpec(cron=(text,), timezone=zone)).slots(start, end)
    assert [slot[:3] for slot in made] == [slot for slot in wanted if start < slot[0] <= end]


@settings(max_examples=250, deadline=None)
@given(EXPRESSIONS, st.sampled_from([change[0] for change in CHANGES]), st.integers(0, 3000))
def test_cronsim_agrees_where_it_is_right(text: str, zone: str, day: int) -> None:
    """An engine of another author names the same next fires, away from what it is known to misread."""
    assume(_possible(text))
    # cronsim reads 5-5/2 as 5/2, counts steps of a weekday to 7, and steps by whole hours through
    # half-hour changes; it answers with fires before a start that lies in a second pass.
    assume(zone not in {"Australia/Lord_Howe", "Pacific/Chatham", "Asia/Pyongyang", "Africa/Monrovia"})
    assume("/" not in text.split()[4])
    assume(not any(_single(entry) for part in text.split() for entry in part.split(",")))
    after = datetime(2014, 1, 1, 12, tzinfo=UTC) + timedelta(days=day)
    try:
        other = CronSim(text, after.astimezone(ZoneInfo(zone)))
    except CronSimError:
        assume(False)
    compiled = schedule.compile(ScheduleSpec(cron=(text,), timezone=zone))
    theirs = [next(other).astimezone(UTC) for _ in range(5)]
    assert compiled.next_fires(after, 5) == theirs


def _single(entry: str) -> bool:
    span, slash, _ = entry.partition("/")
    first, dash, last = span.partition("-")
    return bool(slash and dash and first == last)


def _possible(text: str) -> bool:
    """Whether any date of 28 years matches."""
    reading = Reading(text)
    start = datetime.fromisoformat(f"2000-01-01T{min(reading.sets[1]):02}:{min(reading.sets[0]):02}")
    return any(reading.matches(start + timedelta(days=day)) for day in range(28 * 366))


@pytest.mark.parametrize("text", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30-31 2 *", "0 0 */31 * 1#2"])
def test_a_schedule_without_a_date_is_found_out(text: str) -> None:
    """`check` knows that no date matches, without trying years."""
    with pytest.raises(ScheduleError) as refused:
        schedule.check(ScheduleSpec(cron=(text,)))
    assert (refused.value.rule, refused.value.pointer) == ("CO3009", "/cron")
