"""Schedules in words, and `explain`."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cron_observer import schedule
from cron_observer.errors import ScheduleError
from cron_observer.model import FoldRule, GapRule, OnExcluded, ScheduleSpec, Window
from cron_observer.schedule.calendars import read_calendar

NOW = datetime(2026, 3, 27, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("*/15 * * * *", "Every 15 minutes"),
        ("* * * * *", "Every minute"),
        ("@hourly", "Every hour"),
        ("30 2 * * 1-5", "At 02:30, Monday through Friday"),
        ("30 2 * * sat,sun", "At 02:30, Saturday and Sunday"),
        ("0 0,12 * * *", "At 00:00 and 12:00"),
        ("*/15 9-17 * * 1-5", "Every 15 minutes, between 09:00 and 17:59, Monday through Friday"),
        ("0 6 13 * 5", "At 06:00, on day 13 of the month or on Friday"),
        ("0 6 13 * */2", "At 06:00, on day 13 of the month if it is Tuesday, Thursday, Saturday or Sunday"),
        ("0 6 L * *", "At 06:00, on the last day of the month"),
        ("0 6 1,15,L * *", "At 06:00, on day 1 and 15 of the month or the last day of the month"),
        ("0 6 * * 5#3", "At 06:00, on the third Friday of the month"),
        ("0 6 * * L5", "At 06:00, on the last Friday of the month"),
        ("0 6 */10 * *", "At 06:00, on day 1, 11, 21 and 31 of the month"),
        ("0 6 */3 * *", "At 06:00, on every 3rd day from day 1 to 31 of the month"),
        ("0 6 1 jan-mar,12 *", "At 06:00, on day 1 of the month, in January through March and December"),
        ("0 6 1-31 * 1", "At 06:00"),
        ("5-5 6 * * *", "At 06:05"),
        ("H 6 * * *", "At 06:10"),
        ("0 6 15W * *", '"0 6 15W * *"'),
    ],
)
def test_cron_in_words(text: str, words: str) -> None:
    """The words say what fires; a broken expression is quoted."""
    assert schedule.describe(ScheduleSpec(cron=(text,), seed="default/nightly-export")) == words


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ScheduleSpec(cron=("0 6 * * *",), timezone="Europe/Berlin"), "At 06:00 (Europe/Berlin)"),
        (ScheduleSpec(every=timedelta(minutes=15)), "Every 15 minutes"),
        (ScheduleSpec(every=timedelta(days=1)), "Every day"),
        (ScheduleSpec(every=timedelta(milliseconds=1500)), "Every 1.5 seconds"),
        (ScheduleSpec(every=timedelta(seconds=90)), "Every 90 seconds"),
        (ScheduleSpec(at=("2026-12-24T18:00:00",)), "Once at 2026-12-24 18:00:00"),
        (
            ScheduleSpec(cron=("0 6 * * *", "0 9 * * 6"), every=timedelta(hours=5)),
            "At 06:00; at 09:00, Saturday; every 5 hours",
        ),
        (ScheduleSpec(), "Never"),
    ],
)
def test_schedules_in_words(spec: ScheduleSpec, words: str) -> None:
    """Unions are listed, and a zone is named unless it is UTC."""
    assert schedule.describe(spec) == words


def test_explain_shows_where_a_clock_change_moves_a_fire() -> None:
    """Local time with offset, UTC, and why it is not where the expression says."""
    told = schedule.explain(ScheduleSpec(cron=("30 2 * * *",), timezone="Europe/Berlin"), NOW, 3)
    assert told.kind == "fixed-time"
    assert [(fire.local, fire.note is None) for fire in told.fires] == [
        ("2026-03-27 02:30:00+01:00", True),
        ("2026-03-28 02:30:00+01:00", True),
        ("2026-03-29 03:00:00+02:00", False),
    ]
    assert "2026-03-29 02:30 does not exist" in (told.fires[2].note or "")


def test_explain_notes_a_label_at_the_very_start_of_a_gap() -> None:
    """02:00 does not exist either, although its nominal instant is the jump itself."""
    told = schedule.explain(ScheduleSpec(cron=("0 2 29 3 *",), timezone="Europe/Berlin"), NOW, 1)
    assert told.fires[0].local == "2026-03-29 03:00:00+02:00"
    assert "02:00 does not exist" in (told.fires[0].note or "")


def test_explain_tells_the_two_passes_apart() -> None:
    """A label that is shown twice says which of the two it is."""
    spec = ScheduleSpec(cron=("30 * * * *",), timezone="Europe/Berlin")
    told = schedule.explain(spec, datetime(2026, 10, 25, tzinfo=UTC), 3)
    assert [fire.note for fire in told.fires] == [
        "the first 02:30 of this day",
        "the second 02:30 of this day",
        None,
    ]
    assert told.kind == "interval-like"


def test_explain_notes_what_may_surprise() -> None:
    """Both day fields, hashed fields, mixed classes and elapsed days are pointed out."""
    spec = ScheduleSpec(
        cron=("0 H 13 * 5", "*/5 3 * * *"), every=timedelta(days=1), timezone="Europe/Berlin", seed="p/n"
    )
    told = schedule.explain(spec, NOW, 0)
    assert told.kind == "mixed"
    assert told.fires == ()
    notes = " ".join(told.notes)
    for words in ("for p/n", "day of month or day of week", "interval-like", "fixed-time", "elapsed time"):
        assert words in notes


def test_explain_refuses_what_cannot_be_evaluated() -> None:
    """The error is the one that the validator reports."""
    with pytest.raises(ScheduleError) as refused:
        schedule.explain(ScheduleSpec(cron=("0 24 * * *",)), NOW, 1)
    assert refused.value.pointer == "/cron"


def test_explaining_is_planning() -> None:
    """A thousand schedules are explained and planned: the same instants come out."""
    chance = random.Random(20260327)  # noqa: S311 - a repeatable choice
    zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Tehran"]
    for number in range(1000):
        hour = chance.choice(["*", "*/3", "2", "1,2,3", "H", "0-23/2"])
        day = chance.choice(["* * *", "* * 1-5", "1,15 * *", "L * *", "*/2 * 1", "13 * 5", "* * 0#1"])
        spec = ScheduleSpec(
            cron=(f"{chance.choice(['*', '*/20', '30', 'H', '0,15'])} {hour} {day}",),
            every=chance.choice([None, None, timedelta(minutes=50)]),
            timezone=chance.choice(zones),
            seed=f"default/task-{number}",
        )
        start = NOW + timedelta(minutes=chance.randrange(500_000))
        explained = [fire.utc for fire in schedule.explain(spec, start, 20).fires]
        compiled = schedule.compile(spec)
        planned = compiled.slots(start, compiled.settled(explained[-1]))
        fired = sorted(slot.fire_at for slot in planned if not slot.coalesced)
        assert [fire for fire in fired if start < fire <= explained[-1]] == explained


@pytest.mark.parametrize(
    ("narrowed", "words"),
    [
        (
            {"windows": (Window(frozenset({0, 1, 2, 3, 4}), 600, 870),)},
            "only Monday through Thursday and Sunday 10:00 to 14:30",
        ),
        ({"windows": (Window(frozenset(range(7)), 1320, 360),)}, "only 22:00 to 06:00 of the day after"),
        ({"include": ("work", "market")}, "only on days of work or market"),
        (
            {"exclude": ("free",), "on_excluded": OnExcluded.NEXT_ALLOWED},
            "not on days of free, but on the next day allowed instead",
        ),
        ({"jitter": timedelta(minutes=5)}, "up to 5 minutes later"),
        (
            {"start_at": "2026-01-01T00:00:00", "end_at": "2027-01-01T00:00:00"},
            "from 2026-01-01 00:00:00, before 2027-01-01 00:00:00",
        ),
    ],
)
def test_what_narrows_a_schedule_in_words(narrowed: dict[str, Any], words: str) -> None:
    """Windows, calendars, jitter, start and end are said behind what they narrow."""
    spec = ScheduleSpec(cron=("0 6 * * *",), timezone="Europe/Berlin", **narrowed)
    assert schedule.describe(spec) == f"At 06:00, {words} (Europe/Berlin)"


def test_explain_lists_what_is_skipped_where_it_would_stand() -> None:
    """Slots in a row with one reason are one line, with the holiday or weekday that holds them."""
    easter = read_calendar({"parts": [{"holidays": [{"country": "DE", "subdivision": None}], "weekdays": [0, 6]}]})
    spec = ScheduleSpec(cron=("*/30 * * * *",), timezone="Europe/Berlin", exclude=("free",))
    told = schedule.explain(spec, datetime(2026, 4, 2, 21, 45, tzinfo=UTC), 1, {"free": easter})
    assert [(row.local, row.reason, row.note, row.slots) for row in told.skipped] == [
        (
            f"2026-04-{day:02} 00:00:00+02:00",
            "calendar",
            f"skipped: {name}, and 47 more up to 2026-04-{day:02} 23:30",
            48,
        )
        for day, name in [(3, "Good Friday"), (4, "Saturday"), (5, "Sunday"), (6, "Easter Monday")]
    ]
    assert [fire.local for fire in told.fires] == ["2026-04-07 00:00:00+02:00"]
    assert any("holiday data" in note for note in told.notes)


def test_explain_says_what_moved_a_fire() -> None:
    """The day that it was moved from, and the holiday; or the rule for gaps."""
    friday = read_calendar({"parts": [{"holidays": [{"country": "DE", "subdivision": None}]}]})
    spec = ScheduleSpec(
        cron=("0 6 3 4 *",), timezone="Europe/Berlin", exclude=("free",), on_excluded=OnExcluded.PREVIOUS_ALLOWED
    )
    told = schedule.explain(spec, NOW, 1, {"free": friday})
    assert told.fires[0].local == "2026-04-02 06:00:00+02:00"
    assert told.fires[0].note == "moved from 2026-04-03 06:00: Good Friday"
    shifted = ScheduleSpec(cron=("30 2 29 3 *",), timezone="Europe/Berlin", gap=GapRule.SHIFT)
    fire = schedule.explain(shifted, NOW, 1).fires[0]
    assert (fire.local, fire.note) == (
        "2026-03-29 03:30:00+02:00",
        "2026-03-29 02:30 does not exist: the clock jumps over it",
    )


def test_explain_tells_its_rules_and_what_changes_nothing() -> None:
    """The rule for clock changes is that of the schedule; on elapsed time it is noted that it changes nothing."""
    fixed = ScheduleSpec(cron=("30 2 * * *",), gap=GapRule.SKIP, overlap=FoldRule.BOTH)
    assert schedule.explain(fixed, NOW, 0).rule == (
        "what a clock change skips does not fire, what it repeats fires both times"
    )
    spread = ScheduleSpec(cron=("*/5 * * * *",), gap=GapRule.SKIP, jitter=timedelta(minutes=1), seed="p/n")
    notes = " ".join(schedule.explain(spread, NOW, 0).notes)
    assert "dst changes nothing" in notes
    assert "drawn from p/n" in notes


def test_explain_without_calendars_says_so() -> None:
    """Who does not know the calendars sees the schedule without them, and a note."""
    spec = ScheduleSpec(cron=("0 6 * * *",), exclude=("free",), on_excluded=OnExcluded.NEXT_ALLOWED)
    told = schedule.explain(spec, NOW, 2)
    assert len(told.fires) == 2
    assert any("not known here" in note for note in told.notes)
