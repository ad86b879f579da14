"""Instants as pages write them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from cron_observer_api.pages.moments import When, long_day, short_day, zone

NOW = datetime(2026, 11, 21, 10, 30, 15, tzinfo=UTC)


def when(name: str = "UTC", now: datetime = NOW) -> When:
    """How a reader in a zone sees it."""
    return When(now, zone(name))


@pytest.mark.parametrize("name", [None, "", "Mars/Olympus", "../etc/passwd", "x" * 5000, "a\0b"])
def test_a_strange_zone_counts_as_utc(name: str | None) -> None:
    """Whatever a cookie says, pages have a zone."""
    assert zone(name).key == "UTC"


def test_relative_times_carry_the_absolute_one() -> None:
    """What is said relatively stands absolutely in the title and for machines in the attribute."""
    assert when().ago(NOW - timedelta(minutes=40)) == (
        '<time datetime="2026-11-21T09:50:15.000Z" title="2026-11-21 09:50:15 UTC" data-rel>40 min ago</time>'
    )
    assert ">in 2 h<" in str(when().ago(NOW + timedelta(hours=2)))


def test_the_day_is_the_readers() -> None:
    """Near midnight, today depends on the zone."""
    late = datetime(2026, 11, 21, 23, 30, tzinfo=UTC)
    assert when("UTC", late).today == date(2026, 11, 21)
    assert when("Europe/Berlin", late).today == date(2026, 11, 22)


def test_another_day_is_named() -> None:
    """A clock time of today stands alone; of this week it has a weekday, else a date."""
    assert ">09:00<" in str(when().clock(NOW.replace(hour=9, minute=0)))
    assert ">Mon 09:00<" in str(when().clock(datetime(2026, 11, 23, 9, tzinfo=UTC)))
    assert ">3 Oct 09:00<" in str(when().clock(datetime(2026, 10, 3, 9, tzinfo=UTC)))
    assert ">3 Oct 2025 09:00<" in str(when().clock(datetime(2025, 10, 3, 9, tzinfo=UTC)))


def test_the_repeated_hour_says_which_one_it_is() -> None:
    """02:30 happens twice when the clock goes back; each says its offset."""
    berlin = when("Europe/Berlin", datetime(2026, 10, 25, 12, tzinfo=UTC))
    assert "02:30 +0200" in str(berlin.clock(datetime(2026, 10, 25, 0, 30, tzinfo=UTC)))
    assert "02:30 +0100" in str(berlin.clock(datetime(2026, 10, 25, 1, 30, tzinfo=UTC)))
    assert "03:30<" in str(berlin.clock(datetime(2026, 10, 25, 2, 30, tzinfo=UTC)))


def test_absolute_times_say_their_zone() -> None:
    """A full time is never ambiguous."""
    assert when().absolute(NOW) == "2026-11-21 10:30:15 UTC"
    assert when("Asia/Kolkata").absolute(NOW) == "2026-11-21 16:00:15 +05:30"


def test_what_is_not_known_is_a_dash() -> None:
    """No instant, no invention."""
    shown = when()
    assert {shown.ago(None), shown.clock(None), shown.full(None), shown.exact(None), shown.next(None)} == {"–"}


def test_days_in_words() -> None:
    """Days are written out."""
    assert long_day(date(2026, 11, 21)) == "Saturday 21 November"
    assert short_day(date(2026, 11, 21)) == "Sat 21"
