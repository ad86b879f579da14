"""Calendars: what they hold, what it is called, and how manifests become immutable content."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import holidays
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cron_observer.errors import ScheduleError
from cron_observer.schedule import calendars
from cron_observer.schedule.calendars import Calendar, digest, read_calendar, resolve
from cron_observer.schedule.dates import CALENDAR_CODES
from cron_observer.schedule.zones import zone

BERLIN = zone("Europe/Berlin")


def made(*entries: dict[str, Any], timezone: str | None = None, files: dict[str, Any] | None = None) -> Calendar:
    """Return the calendar that has these entries."""
    return read_calendar(resolve("x", {"x": spec(*entries, timezone=timezone)}, files or {}))


def spec(*entries: dict[str, Any], base: list[str] | None = None, timezone: str | None = None) -> dict[str, Any]:
    """Return the effective spec of a calendar."""
    return {"timezone": timezone, "entries": list(entries), "base": base or []}


def asked(calendar: Calendar, local: str, place: str = "Europe/Berlin") -> bool:
    """Ask a calendar about a local time."""
    at = datetime.fromisoformat(local)
    instant = int(at.replace(tzinfo=zone(place).info).timestamp())
    label = int((at - datetime(1970, 1, 1)).total_seconds())  # noqa: DTZ001 - labels have no zone
    held = calendar.holds(label, instant, zone(place))
    assert held == (calendar.name_of(label, instant, zone(place)) is not None)
    return held


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ({"date": "2026-12-24"}, ["2026-12-24T00:00:00", "2026-12-24T23:59:59"], ["2026-12-23T23:59:59", "2026-12-25"]),
        ({"from": "2026-12-24", "to": "2027-01-02"}, ["2026-12-24", "2027-01-02T23:59:59"], ["2027-01-03"]),
        ({"yearly": "12-25"}, ["1999-12-25", "2150-12-25T12:00:00"], ["2026-12-24T23:59:59", "2026-12-26"]),
        ({"yearly": "02-29"}, ["2024-02-29", "2000-02-29"], ["2026-02-28", "2026-03-01", "2100-02-28", "2100-03-01"]),
        ({"weekdays": ["sat", "sun"]}, ["2026-11-21", "2026-11-22T23:59:59"], ["2026-11-20T23:59:59", "2026-11-23"]),
        ({"weekdays": ["fri-mon"]}, ["2026-11-20", "2026-11-23T23:00:00"], ["2026-11-24", "2026-11-19"]),
        (
            {"holidays": {"country": "DE", "subdivision": "BE"}},
            ["2026-03-08T12:00:00", "2026-12-25", "2026-10-03T23:59:59"],
            ["2026-12-24", "2026-11-01"],
        ),
        ({"holidays": {"country": "DE"}}, ["2026-12-25"], ["2026-03-08"]),
    ],
)
def test_entries(entry: dict[str, Any], inside: list[str], outside: list[str]) -> None:
    """Each kind of entry holds its days from midnight to midnight, and nothing beside them."""
    calendar = made(entry)

    assert [text for text in inside if not asked(calendar, text)] == []
    assert [text for text in outside if asked(calendar, text)] == []


@pytest.mark.parametrize(
    ("country", "subdivision"), [("DE", "BY"), ("US", None), ("JP", None), ("GB", "SCT"), ("IN", None)]
)
def test_public_holidays_are_those_of_the_library(country: str, subdivision: str | None) -> None:
    """Day by day over twenty-five years it is what the library says."""
    calendar = made({"holidays": {"country": country, "subdivision": subdivision}})
    known = holidays.country_holidays(country, subdiv=subdivision, years=range(2010, 2035))
    days = [date(2010, 1, 1) + timedelta(days=number) for number in range(25 * 365)]

    assert [day for day in days if asked(calendar, f"{day}T12:00:00") != (day in known)] == []
    assert calendar.uses_holidays
    assert not made({"yearly": "12-25"}).uses_holidays


def test_years_that_the_data_does_not_cover_have_fewer_holidays() -> None:
    """Asking for a year of which the library only warns, or knows nothing, says nothing else."""
    calendar = made({"holidays": {"country": "IN"}})

    assert asked(calendar, "2050-01-26T12:00:00")
    assert not asked(calendar, "2199-01-26T12:00:00")


def test_every_country_can_be_asked() -> None:
    """No country and no subdivision of the list breaks when it is read and asked."""
    for country, subdivisions in calendars.countries().items():
        for subdivision in (None, *subdivisions):
            calendar = made({"holidays": {"country": country, "subdivision": subdivision}})
            assert asked(calendar, "2026-02-03T12:00:00") in (True, False)


def test_what_holds_a_day_is_named() -> None:
    """People are told which holiday, date or weekday it is."""
    calendar = made(
        {"holidays": {"country": "DE"}},
        {"weekdays": ["sun"]},
        {"yearly": "12-24"},
        {"from": "2026-07-06", "to": "2026-07-08"},
        {"date": "2026-05-15"},
    )
    names = {}
    for text in ("2026-12-25", "2026-12-24", "2026-11-22", "2026-07-07", "2026-05-15", "2026-11-23"):
        day = int((datetime.fromisoformat(text) - datetime(1970, 1, 1)).total_seconds())  # noqa: DTZ001 - a label
        names[text] = calendar.name_of(day, day - 3600, BERLIN)

    assert names == {
        "2026-12-25": "Christmas Day",
        "2026-12-24": "24 December of each year",
        "2026-11-22": "Sunday",
        "2026-07-07": "2026-07-06 to 2026-07-08",
        "2026-05-15": "2026-05-15",
        "2026-11-23": None,
    }


def test_a_zone_of_its_own() -> None:
    """With a zone of its own a calendar's days begin and end there; without, in the zone that asks."""
    own, asking = made({"date": "2026-05-05"}, timezone="Asia/Tokyo"), made({"date": "2026-05-05"})

    assert asked(own, "2026-05-04T17:00:00")
    assert not asked(own, "2026-05-04T16:59:59")
    assert not asked(own, "2026-05-05T17:00:00")
    assert asked(asking, "2026-05-05T17:00:00")
    assert asked(asking, "2026-05-05T17:00:00", "Asia/Tokyo")


def test_a_missing_day_belongs_to_the_calendar_of_the_same_zone() -> None:
    """Apia never had 2011-12-30; a slot that was due on it is judged by its label, not by the day that came."""
    calendar = made({"date": "2011-12-30"}, timezone="Pacific/Apia")

    assert asked(calendar, "2011-12-30T12:00:00", "Pacific/Apia")
    assert not asked(calendar, "2011-12-31T12:00:00", "Pacific/Apia")


def test_spans_hold_instants_and_local_times() -> None:
    """A span with Z is the same instant everywhere, one without is local; both end before their end."""
    file = {
        "dates": [],
        "spans": [["2026-12-31T17:00:00Z", "2026-12-31T18:00:00Z"], ["2026-06-01T08:00:00", "2026-06-01T09:00:00"]],
    }
    calendar = made({"ics": "a.ics"}, files={"a.ics": file})

    assert asked(calendar, "2026-12-31T18:00:00")
    assert asked(calendar, "2026-12-31T18:59:59")
    assert not asked(calendar, "2026-12-31T19:00:00")
    assert not asked(calendar, "2026-12-31T17:59:59")
    assert asked(calendar, "2027-01-01T02:00:00", "Asia/Tokyo")
    for place in ("Europe/Berlin", "Asia/Tokyo"):
        assert asked(calendar, "2026-06-01T08:00:00", place)
        assert not asked(calendar, "2026-06-01T09:00:00", place)


def test_bases_are_flattened_once() -> None:
    """A calendar that two others are based on comes once; each keeps its own zone."""
    specs = {
        "top": spec({"date": "2026-01-02"}, base=["left", "right"]),
        "left": spec({"yearly": "05-01"}, base=["ground"]),
        "right": spec(base=["ground"], timezone="Asia/Tokyo"),
        "ground": spec({"weekdays": ["sun"]}),
    }
    content = resolve("top", specs, {})
    calendar = read_calendar(content)

    assert [(part["timezone"], part["dates"], part["yearly"], part["weekdays"]) for part in content["parts"]] == [
        (None, [["2026-01-02", "2026-01-02"]], [], []),
        (None, [], ["05-01"], []),
        (None, [], [], [0]),
        ("Asia/Tokyo", [], [], []),
    ]
    assert asked(calendar, "2026-01-02")
    assert asked(calendar, "2026-05-01")
    assert asked(calendar, "2026-11-22")
    assert not asked(calendar, "2026-11-23")


def test_the_digest_is_that_of_the_meaning() -> None:
    """Two ways of writing the same days give the same content; equal content makes equal calendars."""
    one = resolve("x", {"x": spec({"date": "2026-12-24"}, {"date": "2026-12-25"}, {"weekdays": ["sun", "sat"]})}, {})
    other = resolve("x", {"x": spec({"weekdays": ["sat-sun"]}, {"from": "2026-12-24", "to": "2026-12-25"})}, {})

    assert one == other
    assert digest(one) == digest(json.loads(json.dumps(other)))
    assert read_calendar(one) == read_calendar(other)
    assert hash(read_calendar(one)) == hash(read_calendar(other))
    assert read_calendar(one) != made({"date": "2026-12-24"})
    assert len(digest(one)) == 64


@pytest.mark.parametrize(
    ("entry", "rule", "pointer", "hint"),
    [
        ({"holidays": {"country": "UK"}}, "CO1401", "/entries/0/holidays/country", "did you mean GB?"),
        ({"holidays": {"country": "Germany"}}, "CO1401", "/entries/0/holidays/country", "did you mean DE?"),
        ({"holidays": {"country": "DEU"}}, "CO1401", "/entries/0/holidays/country", "did you mean DE?"),
        ({"holidays": {"country": "??"}}, "CO1401", "/entries/0/holidays/country", "ISO 3166"),
        (
            {"holidays": {"country": "DE", "subdivision": "Berlin"}},
            "CO1402",
            "/entries/0/holidays/subdivision",
            "did you mean BE?",
        ),
        (
            {"holidays": {"country": "US", "subdivision": "US-NY"}},
            "CO1402",
            "/entries/0/holidays/subdivision",
            "did you mean NY?",
        ),
        ({"date": "2026-02-30"}, "CO1405", "/entries/0/date", "a date that exists"),
        ({"date": "2500-01-01"}, "CO1405", "/entries/0/date", "1900 to 2200"),
        ({"from": "2026-02-03", "to": "2026-02-02"}, "CO1406", "/entries/0/to", "swap"),
        ({"yearly": "02-30"}, "CO1405", "/entries/0/yearly", "12-25"),
        ({"ics": "none.ics"}, "CO1408", "/entries/0/ics", ""),
    ],
)
def test_wrong_entries_are_refused(entry: dict[str, Any], rule: str, pointer: str, hint: str) -> None:
    """The error says which entry it is and what was probably meant."""
    with pytest.raises(ScheduleError) as caught:
        made(entry)

    assert (caught.value.rule, caught.value.pointer) == (rule, pointer)
    assert hint in (caught.value.hint or "")
    assert rule in CALENDAR_CODES


@pytest.mark.parametrize(
    ("bases", "rule", "pointer", "said"),
    [
        ({"x": ["x"]}, "CO1404", "/base/0", "x → x"),
        ({"x": ["a", "b"], "a": [], "b": ["c"], "c": ["x"]}, "CO1404", "/base/1", "x → b → c → x"),
        ({"x": ["a"], "a": ["b"], "b": ["a"]}, "CO1404", "/base/0", "a → b → a"),
        ({"x": ["weekend"], "weekends": []}, "CO1403", "/base/0", "'weekend'"),
        ({"x": ["a"], "a": ["none"]}, "CO1403", "/base/0", "'none'"),
        ({"x": ["a0"], **{f"a{n}": [f"a{n + 1}"] for n in range(300)}, "a300": []}, "CO1409", "/base/0", "100"),
    ],
)
def test_bases_that_lead_nowhere_are_refused(bases: dict[str, list[str]], rule: str, pointer: str, said: str) -> None:
    """Circles, unknown names and endless chains are errors at the base that leads there, not crashes."""
    with pytest.raises(ScheduleError) as caught:
        resolve("x", {name: spec(base=base) for name, base in bases.items()}, {})

    assert (caught.value.rule, caught.value.pointer) == (rule, pointer)
    assert said in caught.value.message


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"parts": None},
        {"parts": [3]},
        {"parts": [{"dates": [["2026-13-01", "2026-13-01"]]}]},
        {"parts": [{"dates": [["2026-12-01"]]}]},
        {"parts": [{"spans": [["2026-12-01", "2026-12-02"]]}]},
        {"parts": [{"weekdays": [7]}]},
        {"parts": [{"yearly": [1225]}]},
        {"parts": [{"holidays": [{"country": 3}]}]},
        {"parts": [{"holidays": [{"country": "ZZ"}]}]},
        {"parts": [{"timezone": "Mars/Base"}]},
    ],
)
def test_damaged_content_is_refused(content: dict[str, Any]) -> None:
    """What a database holds that cannot be read quarantines a task, and raises nothing else."""
    with pytest.raises(ScheduleError):
        read_calendar(content)


_DAYS = st.dates(date(1990, 1, 1), date(2060, 12, 31))
_ENTRIES = st.one_of(
    st.builds(lambda day: {"date": day.isoformat()}, _DAYS),
    st.builds(
        lambda day, more: {"from": day.isoformat(), "to": (day + timedelta(days=more)).isoformat()},
        _DAYS,
        st.integers(0, 40),
    ),
    st.builds(lambda day: {"yearly": f"{day:%m-%d}"}, _DAYS),
    st.builds(lambda day: {"weekdays": [day]}, st.sampled_from(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])),
)


def _plainly(entry: dict[str, Any], day: date) -> bool:
    """Say in the plainest way whether an entry holds a day."""
    if "date" in entry:
        return day.isoformat() == str(entry["date"])
    if "from" in entry:
        return str(entry["from"]) <= day.isoformat() <= str(entry["to"])
    if "yearly" in entry:
        return f"{day:%m-%d}" == entry["yearly"]
    return bool(f"{day:%a}".lower() == entry["weekdays"][0])


@settings(max_examples=200)
@given(st.lists(_ENTRIES, min_size=1, max_size=6), st.lists(_DAYS, min_size=1, max_size=20), st.integers(0, 86_399))
def test_any_entries_hold_what_they_say(entries: list[dict[str, Any]], days: list[date], second: int) -> None:
    """A calendar is the union of its entries, whatever the time of day, and however often it is asked."""
    calendar = made(*entries)
    at = timedelta(seconds=second)
    for day in [*days, *days]:
        label = int(
            (datetime(day.year, day.month, day.day, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC) + at).total_seconds()
        )
        held = any(_plainly(entry, day) for entry in entries)
        assert calendar.holds(label, label, zone("UTC")) == held


def test_it_says_which_data_it_uses() -> None:
    """The version of the holiday data is that of the installed package."""
    assert calendars.holidays_version() == holidays.__version__
