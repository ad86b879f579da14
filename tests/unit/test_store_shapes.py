"""Times, days and addresses as the wire words them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_observer.errors import BadRequest
from cron_observer.store.links import line_link, public_url
from cron_observer.store.shapes import day_bounds, day_start, instant, seconds_between, zone


def test_instants_are_utc_with_milliseconds() -> None:
    """Whatever the offset, the wire shows Z and three digits."""
    at = datetime(2026, 3, 29, 3, 0, 0, 1999, tzinfo=timezone(timedelta(hours=2)))
    assert instant(at) == "2026-03-29T01:00:00.001Z"
    assert instant(None) is None


def test_durations_are_never_negative() -> None:
    """A clock that steps back gives no negative duration."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert seconds_between(now, now + timedelta(seconds=1.5)) == 1.5
    assert seconds_between(now, now - timedelta(seconds=1)) == 0.0
    assert seconds_between(None, now) is None


@pytest.mark.parametrize(
    ("name", "day", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
        ("America/Sao_Paulo", date(2018, 11, 4), 23),  # midnight does not exist
        ("America/Havana", date(2026, 11, 1), 25),  # midnight comes twice
        ("Pacific/Apia", date(2011, 12, 30), 0),  # the day does not exist
        ("UTC", date(2026, 1, 1), 24),
    ],
)
def test_a_local_day_has_as_many_hours_as_the_clock_shows(name: str, day: date, hours: float) -> None:
    """A day lasts from its first instant to that of the next day."""
    start, end = day_bounds(day, zone(name))
    assert end - start == timedelta(hours=hours)


@given(
    st.dates(date(1980, 1, 1), date(2037, 12, 30)),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Beirut", "Africa/Cairo", "America/Asuncion", "UTC"]),
)
def test_every_instant_belongs_to_one_day(day: date, name: str) -> None:
    """Days follow each other without gap and overlap, and their first instant shows their date."""
    place = zone(name)
    assert day_bounds(day, place)[1] == day_start(day + timedelta(days=1), place)
    assert day_start(day, place).astimezone(place).date() == day


@pytest.mark.parametrize("name", ["", "Nowhere", "../../etc/passwd", "/etc/passwd", "Europe/Berlin\0", "a" * 300])
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    """A name of no zone is the caller's mistake."""
    with pytest.raises(BadRequest):
        zone(name)


def test_the_ends_of_the_calendar_are_refused() -> None:
    """Days whose instants cannot be written are the caller's mistake."""
    for day, name in ((date.min, "Asia/Tokyo"), (date.max, "UTC")):
        with pytest.raises(BadRequest):
            day_bounds(day, zone(name))


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("https://github.com/acme/tasks.git", "https://github.com/acme/tasks/blob/c0ffee/a%20b/x.yaml#L7"),
        ("https://user:pw@github.com/acme/tasks", "https://github.com/acme/tasks/blob/c0ffee/a%20b/x.yaml#L7"),
        ("git@github.com:acme/tasks.git", "https://github.com/acme/tasks/blob/c0ffee/a%20b/x.yaml#L7"),
        (
            "ssh://git@gitlab.example.org:2222/g/s/t.git",
            "https://gitlab.example.org/g/s/t/-/blob/c0ffee/a%20b/x.yaml#L7",
        ),
        ("http://gitea.local:3000/a/b.git", "http://gitea.local:3000/a/b/src/commit/c0ffee/a%20b/x.yaml#L7"),
        ("https://codeberg.org/a/b", "https://codeberg.org/a/b/src/commit/c0ffee/a%20b/x.yaml#L7"),
        ("https://bitbucket.org/a/b.git", "https://bitbucket.org/a/b/src/c0ffee/a%20b/x.yaml#lines-7"),
        ("https://git.example.org/a/b.git", None),
        ("https://notgithub.com/a/b.git", None),
        ("file:///srv/github/tasks.git", None),
        ("/srv/github.com/tasks", None),
        ("javascript:alert(1)//github.com/a", None),
        ("", None),
    ],
)
def test_links_lead_to_the_line_where_the_forge_is_known(url: str, link: str | None) -> None:
    """Known forges give a link to the line at the commit, without credentials; others give none."""
    assert line_link(url, "c0ffee", "a b/x.yaml", 7) == link
    assert line_link(url, None, "a b/x.yaml", 7) is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@host.example/r.git?token=1#x", "https://host.example/r.git"),
        ("https://token@host.example:8443/r.git", "https://host.example:8443/r.git"),
        ("ssh://git@host.example/r.git", "ssh://host.example/r.git"),
        ("git@host.example:r.git", "git@host.example:r.git"),
        ("/srv/r.git", "/srv/r.git"),
        ("file:///srv/r.git", "file:///srv/r.git"),
    ],
)
def test_addresses_are_shown_without_credentials(url: str, shown: str) -> None:
    """What is shown of a repository's address is no secret."""
    assert public_url(url) == shown
