"""Calendar files: which days and spans their events are, and that no file can do harm."""

from __future__ import annotations

import time
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from dateutil.rrule import rrulestr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cron_observer.manifest import ics, recurrence
from cron_observer.manifest.recurrence import Budget
from cron_observer.model import Severity


def event(*lines: str) -> str:
    """Return an event of these lines."""
    return "\n".join(["BEGIN:VEVENT", *lines, "END:VEVENT"]) + "\n"


def read(*events: str, before: str = "") -> ics.CalendarFile:
    """Read a file of these events."""
    text = f"BEGIN:VCALENDAR\nVERSION:2.0\n{before}{''.join(events)}END:VCALENDAR\n"
    return ics.read("a.ics", text.replace("\n", "\r\n").encode())


def held(*events: str, before: str = "") -> list[list[str]]:
    """Return what a file without findings holds: days, then spans."""
    file = read(*events, before=before)
    assert file["findings"] == []
    return file["dates"] + file["spans"]


DAY = "DTSTART;VALUE=DATE:20261224"
NOON = "DTSTART;TZID=Europe/Berlin:20261224T120000"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([DAY], [["2026-12-24", "2026-12-24"]]),
        ([DAY, "DTEND;VALUE=DATE:20261225"], [["2026-12-24", "2026-12-24"]]),
        ([DAY, "DTEND;VALUE=DATE:20270103"], [["2026-12-24", "2027-01-02"]]),
        ([DAY, "DTEND;VALUE=DATE:20261224"], [["2026-12-24", "2026-12-24"]]),
        ([DAY, "DURATION:P3D"], [["2026-12-24", "2026-12-26"]]),
        ([NOON, "DURATION:PT90M"], [["2026-12-24T11:00:00Z", "2026-12-24T12:30:00Z"]]),
        (
            ["DTSTART:20261224T120000Z", "DTEND:20261225T000000Z"],
            [["2026-12-24T12:00:00Z", "2026-12-25T00:00:00Z"]],
        ),
        (["DTSTART:20261224T120000", "DTEND:20261224T130000"], [["2026-12-24T12:00:00", "2026-12-24T13:00:00"]]),
        (
            [NOON, "DTEND;TZID=America/New_York:20261224T120000"],
            [["2026-12-24T11:00:00Z", "2026-12-24T17:00:00Z"]],
        ),
        (
            ["DTSTART;TZID=W. Europe Standard Time:20261224T120000", "DURATION:PT1H"],
            [["2026-12-24T11:00:00Z", "2026-12-24T12:00:00Z"]],
        ),
        (
            ["DTSTART;TZID=/example.org/20260101_1/Europe/Berlin:20261224T120000", "DURATION:PT1H"],
            [["2026-12-24T11:00:00Z", "2026-12-24T12:00:00Z"]],
        ),
        ([DAY, "RRULE:FREQ=YEARLY;COUNT=2"], [["2026-12-24", "2026-12-24"], ["2027-12-24", "2027-12-24"]]),
        ([DAY, "RRULE:FREQ=DAILY;UNTIL=20261225"], [["2026-12-24", "2026-12-24"], ["2026-12-25", "2026-12-25"]]),
        (
            [DAY, "RRULE:FREQ=DAILY;COUNT=3", "EXDATE;VALUE=DATE:20261225"],
            [["2026-12-24", "2026-12-24"], ["2026-12-26", "2026-12-26"]],
        ),
        (
            [DAY, "RDATE;VALUE=DATE:20270105,20270106"],
            [["2026-12-24", "2026-12-24"], ["2027-01-05", "2027-01-05"], ["2027-01-06", "2027-01-06"]],
        ),
        (
            [NOON, "DURATION:PT1H", "RRULE:FREQ=DAILY;COUNT=3", "EXDATE:20261225T110000Z"],
            [["2026-12-24T11:00:00Z", "2026-12-24T12:00:00Z"], ["2026-12-26T11:00:00Z", "2026-12-26T12:00:00Z"]],
        ),
        (
            [NOON, "DURATION:PT1H", "RRULE:FREQ=DAILY;COUNT=2", "EXDATE;VALUE=DATE:20261224"],
            [["2026-12-25T11:00:00Z", "2026-12-25T12:00:00Z"]],
        ),
        (
            [NOON, "DURATION:PT1H", "RDATE;VALUE=PERIOD:20261230T110000Z/PT2H"],
            [["2026-12-24T11:00:00Z", "2026-12-24T12:00:00Z"], ["2026-12-30T11:00:00Z", "2026-12-30T13:00:00Z"]],
        ),
        (
            [NOON, "DURATION:PT1H", "RRULE:FREQ=DAILY;UNTIL=20261225T105959Z"],
            [["2026-12-24T11:00:00Z", "2026-12-24T12:00:00Z"]],
        ),
        (
            # Noon stays noon when the clock changes.
            ["DTSTART;TZID=Europe/Berlin:20261023T120000", "DURATION:PT1H", "RRULE:FREQ=WEEKLY;COUNT=2"],
            [["2026-10-23T10:00:00Z", "2026-10-23T11:00:00Z"], ["2026-10-30T11:00:00Z", "2026-10-30T12:00:00Z"]],
        ),
        ([DAY, "STATUS:CANCELLED"], []),
        (["DTSTART;VALUE=DATE:19600101"], []),
        (["DTSTART;VALUE=DATE:22011231"], []),
        (
            [DAY, "SUMMARY:Folded", " and\\, long", "X-NOISE:x", "BEGIN:VALARM", "TRIGGER:x", "END:VALARM"],
            [["2026-12-24"] * 2],
        ),
    ],
)
def test_events(lines: list[str], expected: list[list[str]]) -> None:
    """Days, spans, zones, repeats and exceptions are what the format says they are."""
    assert held(event(*lines)) == expected


def test_one_occurrence_may_be_moved_or_cancelled() -> None:
    """An override stands for the occurrence that it names, by any way of writing its time."""
    series = event("UID:1", NOON, "DURATION:PT1H", "RRULE:FREQ=DAILY;COUNT=4")
    moved = event(
        "UID:1", "RECURRENCE-ID;TZID=Europe/Berlin:20261225T120000", "DTSTART:20261225T180000Z", "DURATION:PT2H"
    )
    cancelled = event(
        "UID:1", "RECURRENCE-ID:20261226T110000Z", "DTSTART:20261226T110000Z", "DURATION:PT1H", "STATUS:CANCELLED"
    )
    other = event("UID:2", "DTSTART:20261226T110000Z", "DURATION:PT5M")

    assert held(moved, series, cancelled, other) == [
        ["2026-12-24T11:00:00Z", "2026-12-24T12:00:00Z"],
        ["2026-12-25T18:00:00Z", "2026-12-25T20:00:00Z"],
        ["2026-12-26T11:00:00Z", "2026-12-26T11:05:00Z"],
        ["2026-12-27T11:00:00Z", "2026-12-27T12:00:00Z"],
    ]


def test_what_repeats_for_ever_ends_with_2100() -> None:
    """A yearly event without an end has its last day in the year 2100."""
    days = held(event(DAY, "RRULE:FREQ=YEARLY"))

    assert len(days) == 75
    assert days[-1] == ["2100-12-24", "2100-12-24"]


def test_zones_of_the_file_are_known_by_their_place() -> None:
    """A zone that the file calls something else is that of its X-LIC-LOCATION."""
    zone = (
        "BEGIN:VTIMEZONE\nTZID:Home\nX-LIC-LOCATION:Europe/Berlin\nBEGIN:STANDARD\nRRULE:FREQ=SECONDLY\nEND:STANDARD\n"
        "END:VTIMEZONE\n"
    )

    assert held(event("DTSTART;TZID=Home:20261224T120000", "DURATION:PT1H"), before=zone) == [
        ["2026-12-24T11:00:00Z", "2026-12-24T12:00:00Z"]
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["DTSTART:tomorrow"], "cannot be read"),
        (["DTSTART;VALUE=DATE:20260230"], "cannot be read"),
        ([NOON, "DTEND;TZID=Europe/Berlin:20261224T110000"], "ends before it begins"),
        ([NOON, "DTEND;VALUE=DATE:20261225"], "one of its DTSTART and DTEND is a day"),
        ([NOON, "DTEND:20261224T130000"], "one of its DTSTART and DTEND has a time zone"),
        (["DTSTART;TZID=Nowhere:20261224T120000", "DURATION:PT1H"], 'its time zone "Nowhere" is not known'),
        ([NOON, "DURATION:PT1H", "RRULE:FREQ=HOURLY"], "it repeats HOURLY"),
        ([NOON, "DURATION:PT1H", "RRULE:FREQ=SECONDLY"], "it repeats SECONDLY"),
        ([NOON, "DURATION:PT1H", "RRULE:FREQ=DAILY;BYHOUR=1,2"], "BYHOUR"),
        ([DAY, "RRULE:FREQ=YEARLY;BYWEEKNO=3"], "BYWEEKNO"),
        ([DAY, "RRULE:FREQ=DAILY;INTERVAL=0"], "INTERVAL is 0"),
        ([DAY, "RRULE:FREQ=WEEKLY;BYDAY=2MO"], "numbered weekdays"),
        ([DAY, "RRULE:FREQ=DAILY", "RRULE:FREQ=YEARLY"], "several rules"),
        ([DAY, "RRULE:FREQ=DAILY"], "more than 20,000"),
        (["UID:1", DAY, "RECURRENCE-ID;RANGE=THISANDFUTURE;VALUE=DATE:20261224"], "RANGE"),
        ([DAY, "DURATION:P400000D"], "lasts too long"),
    ],
)
def test_an_event_that_is_not_certain_refuses_the_file(lines: list[str], said: str) -> None:
    """A day that is missing would let tasks run: the file is not used, and the finding names the event's line."""
    file = read(event("DTSTART;VALUE=DATE:20270101"), event("SUMMARY:Feast", *lines))

    assert (file["dates"], file["spans"]) == ([], [])
    assert [(one.code, one.severity, one.line) for one in file["findings"]] == [("CO1411", Severity.ERROR, 6)]
    assert said in file["findings"][0].message
    assert '"Feast"' in file["findings"][0].message or "20,000" in said


def test_an_event_without_a_time_is_left_out() -> None:
    """An event that lasts no time holds nothing; the others are read, and a warning says so."""
    file = read(event("SUMMARY:Empty"), event("DTSTART:20261224T120000Z"), event(DAY))

    assert file["dates"] == [["2026-12-24", "2026-12-24"]]
    assert [(one.code, one.line) for one in file["findings"]] == [("CO1412", 3), ("CO1412", 6)]


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "no calendar": b"hello\nworld\n",
    "a page": b"<html><body>404</body></html>",
    "cut off": b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20261224\n",
    "ends too often": b"BEGIN:VCALENDAR\nEND:VEVENT\nEND:VCALENDAR\n",
    "crossed": b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VCALENDAR\nEND:VEVENT\n",
    "latin-1": "BEGIN:VCALENDAR\nX:ü\nEND:VCALENDAR\n".encode("latin-1"),
    "utf-16": "BEGIN:VCALENDAR\nEND:VCALENDAR\n".encode("utf-16"),
    "nul": b"BEGIN:VCALENDAR\nX:\0\nEND:VCALENDAR\n",
    "too large": b"BEGIN:VCALENDAR\n" + b"X:" + b"x" * ics.MAX_BYTES,
    "deep": b"BEGIN:VCALENDAR\n" + b"BEGIN:X\n" * 100_000,
    "a rule without end": b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20260101\nRRULE:FREQ=DAILY;BYSETPOS="
    + b"1," * 200_000
    + b"1\nEND:VEVENT\nEND:VCALENDAR\n",
    "parameters without end": b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nUID"
    + b";A=b" * 1_000_000
    + b":x\nEND:VEVENT\nEND:VCALENDAR\n",
    "many properties": b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20260101\n"
    + b"UID:x\n" * 500_000
    + b"END:VEVENT\nEND:VCALENDAR\n",
    "many events": b"BEGIN:VCALENDAR\n" + b"BEGIN:VEVENT\nEND:VEVENT\n" * 20_001 + b"END:VCALENDAR\n",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_findings(data: bytes) -> None:
    """Whatever a file is, it is one finding that says what, soon, and no traceback."""
    began = time.process_time()
    file = ics.read("a.ics", data)

    assert time.process_time() - began < 5
    assert [one.code for one in file["findings"]] == ["CO1411"]
    assert (file["dates"], file["spans"]) == ([], [])


def test_rules_that_never_match_end() -> None:
    """A thousand events that look for the 30th of February cost a bounded time, and are refused for it."""
    never = event("DTSTART;VALUE=DATE:20260101", "RRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30")
    began = time.process_time()
    file = read(*[never] * 1000)

    assert time.process_time() - began < 8
    assert "take too long" in file["findings"][0].message


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200), st.integers(0, 400))
def test_no_damage_makes_it_raise(noise: bytes, at: int) -> None:
    """Bytes thrown into a good file give days or findings, never an exception."""
    good = (
        b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nUID:1\nDTSTART;TZID=Europe/Berlin:20261224T120000\nDURATION:PT1H\n"
        b"RRULE:FREQ=MONTHLY;BYDAY=-1FR;COUNT=5\nEXDATE:20261225T110000Z\nRDATE;VALUE=DATE:20270105\nEND:VEVENT\n"
        b"BEGIN:VEVENT\nUID:1\nRECURRENCE-ID;VALUE=DATE:20270105\nDTSTART;VALUE=DATE:20270106\nEND:VEVENT\nEND:VCALENDAR\n"
    )
    file = ics.read("a.ics", good[:at] + noise + good[at:])

    assert file.keys() == {"dates", "spans", "findings"}


_NUMBERS = st.sampled_from(["1", "2", "3", "5"])
_RULES = st.fixed_dictionaries(
    {"FREQ": st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"])},
    optional={
        "INTERVAL": _NUMBERS,
        "BYMONTH": st.sampled_from(["2", "1,12", "6,7,8"]),
        "BYMONTHDAY": st.sampled_from(["1", "31", "-1", "15,29,-3"]),
        "BYDAY": st.sampled_from(["MO", "SA,SU", "TU,TH", "FR"]),
        "WKST": st.sampled_from(["MO", "SU"]),
    },
)
_NUMBERED = st.fixed_dictionaries(
    {
        "FREQ": st.sampled_from(["MONTHLY", "YEARLY"]),
        "BYDAY": st.sampled_from(["1MO", "-1FR", "2TU,-2SU", "5WE"]),
    },
    optional={
        "INTERVAL": _NUMBERS,
        "BYMONTH": st.sampled_from(["2", "1,12"]),
        "BYSETPOS": st.sampled_from(["1", "-1"]),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(_RULES, _NUMBERED), st.dates(date(2020, 1, 1), date(2028, 12, 31)))
def test_rules_repeat_as_another_program_does(rule: dict[str, Any], start: date) -> None:
    """Over ten years each rule names the days that dateutil names."""
    last = start + timedelta(days=3650)
    text = ";".join(f"{name}={value}" for name, value in rule.items())
    oracle = rrulestr(f"{text};UNTIL={last:%Y%m%d}", dtstart=datetime(start.year, start.month, start.day))  # noqa: DTZ001
    parts = {name: value.split(",") for name, value in rule.items()}

    assert list(recurrence.days(parts, start, last, Budget(10**7))) == [one.date() for one in oracle]
