"""Statistics as values: histograms and their error, days and hours of zones, what is told and what is live."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_observer.statistics import (
    ERROR,
    QUARTER,
    Histogram,
    Totals,
    bucket_of,
    day_start,
    days_of,
    hours_of,
    place_of,
    quarter_of,
    split,
    value_of,
)

NOW = datetime(2026, 4, 7, 10, 7, 31, tzinfo=UTC)
LONGEST = 400 * 86_400 * 1_000_000
MICROSECONDS = st.one_of(st.integers(0, 5_000), st.integers(0, 10_000_000), st.integers(0, LONGEST))


def counted(values: list[int]) -> Histogram:
    """Return the histogram of these microseconds."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(st.lists(MICROSECONDS, min_size=1, max_size=60), st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0]))
def test_a_quantile_lies_within_its_error(values: list[int], share: float) -> None:
    """Any quantile lies within two per cent of the nearest-rank one, or within a millisecond of one below that."""
    true = sorted(values)[max(1, math.ceil(share * len(values))) - 1] / 1_000_000
    told = counted(values).quantile(share)
    assert told is not None
    assert abs(told - true) <= (ERROR * true * (1 + 1e-9) if true > 0.001 else 0.001)


def test_every_bucket_keeps_the_error() -> None:
    """At both edges of every bucket up to 400 days, what the bucket stands for is within the error."""
    for bucket in range(1, bucket_of(LONGEST) + 1):
        assert bucket_of(round(value_of(bucket) * 1_000_000)) == bucket
        for edge in (value_of(bucket) / (1 + ERROR), value_of(bucket) / (1 - ERROR)):
            whole = round(edge * 1_000_000)
            if whole > 1_000:
                assert abs(value_of(bucket_of(whole)) - whole / 1_000_000) <= ERROR * whole / 1_000_000 * (1 + 1e-9)


@given(st.lists(st.lists(MICROSECONDS, max_size=20), max_size=6))
def test_merging_loses_nothing(parts: list[list[int]]) -> None:
    """The histogram of all is the sum of the histograms of the parts, in any order; sum and extremes are exact."""
    whole, backwards = Histogram(), Histogram()
    for part in parts:
        whole.merge(counted(part))
    for part in reversed(parts):
        backwards.merge(counted(part))
    every = [value for part in parts for value in part]
    assert whole == backwards == counted(every)
    assert (whole.count, whole.sum) == (len(every), sum(every))
    assert whole.extremes == ((min(every) / 1e6, max(every) / 1e6) if every else (None, None))


def test_nothing_has_no_quantile() -> None:
    """Of no durations there is no quantile, no mean and no rate."""
    assert (Histogram().quantile(0.5), Histogram().mean, Totals().rate) == (None, None, None)


def test_the_rate_leaves_out_what_was_not_to_run() -> None:
    """Skipped, cancelled, waiting and running executions are no part of the success rate."""
    totals = Totals({"finished": 3, "failed": 1, "missed": 1, "skipped": 100, "cancelled": 7, "running": 2})
    assert totals.rate == 3 / 5


INSTANTS = st.integers(-200, 40).map(lambda n: NOW + n * timedelta(minutes=7, seconds=13))


@given(
    since=INSTANTS,
    until=INSTANTS,
    frozen=INSTANTS.map(quarter_of).filter(lambda at: at <= quarter_of(NOW)),
    marked=st.lists(INSTANTS.map(quarter_of), max_size=12),
    parted=st.lists(INSTANTS, max_size=4),
)
def test_a_window_is_told_or_live_and_never_both(
    since: datetime, until: datetime, frozen: datetime, marked: list[datetime], parted: list[datetime]
) -> None:
    """Each instant is read from one place: live if its quarter is open, or marked or parted and not frozen."""
    if since > until:
        since, until = until, since
    parts = split(since, until, now=NOW, frozen_before=frozen, marked=marked, parted=parted)
    cut = {quarter_of(at) for at in (since, until, *parted) if at != quarter_of(at)}
    at = since
    while at < until:
        places = [name for name in ("told", "live") for one in getattr(parts, name) if one.since <= at < one.until]
        quarter = quarter_of(at)
        alive = quarter >= quarter_of(NOW) or (quarter >= frozen and quarter in {*marked, *cut})
        assert places == ["live" if alive else "told"], at
        at += timedelta(minutes=1, seconds=1)
    for one in parts.told:
        assert quarter_of(one.since) == one.since
        assert quarter_of(one.until) == one.until


@pytest.mark.parametrize("name", sorted(available_timezones()))
def test_days_of_every_zone_are_sums_of_quarters(name: str) -> None:
    """In every zone, the days of two years begin where a quarter hour of UTC does."""
    _, starts = days_of(date(2025, 1, 1), date(2026, 12, 31), ZoneInfo(name))
    assert [at for at in starts if quarter_of(at) != at] == []
    assert all(before < after for before, after in pairwise(starts))


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
        ("Australia/Lord_Howe", date(2026, 10, 4), 23.5),
        ("Asia/Kathmandu", date(2026, 4, 5), 24),
        ("Pacific/Apia", date(2011, 12, 30), 0),
    ],
)
def test_days_are_as_long_as_they_are(zone: str, day: date, hours: float) -> None:
    """A day of a clock change has its own length; a date that never was has none."""
    place = ZoneInfo(zone)
    assert day_start(day + timedelta(days=1), place) - day_start(day, place) == timedelta(hours=hours)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "Australia/Lord_Howe", "Europe/Berlin", "America/St_Johns"])
def test_hours_are_those_of_the_wall_clock(zone: str) -> None:
    """Every quarter of days with clock changes lies in the local hour that it is told in."""
    place = ZoneInfo(zone)
    for first in (date(2026, 3, 28), date(2026, 4, 4), date(2026, 10, 3), date(2026, 10, 24)):
        _, starts = days_of(first, first + timedelta(days=2), place)
        hours = hours_of(starts, place)
        at = starts[0]
        while at < starts[-1]:
            begins = hours[place_of(at, hours)].astimezone(place)
            local = at.astimezone(place)
            assert (begins.date(), begins.hour) == (local.date(), local.hour)
            at += QUARTER
