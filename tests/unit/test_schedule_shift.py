"""Calendars in the engine: what they skip and move, what falls together, and where a search ends."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cron_observer import schedule
from cron_observer.errors import ScheduleError
from cron_observer.model import FoldRule, GapRule, OnExcluded, ScheduleSpec, Window
from cron_observer.schedule.calendars import Calendar, read_calendar

BERLIN = "Europe/Berlin"
DAY = timedelta(days=1)
NEXT, PREVIOUS = OnExcluded.NEXT_ALLOWED, OnExcluded.PREVIOUS_ALLOWED


def calendar(**part: Any) -> Calendar:
    """Return the calendar of one part."""
    return read_calendar({"parts": [part]})


WEEKENDS = calendar(weekdays=[0, 6])
EASTER = calendar(dates=[["2026-04-03", "2026-04-06"]])
ALWAYS = calendar(weekdays=[0, 1, 2, 3, 4, 5, 6])


def told(
    cron: str,
    start: str,
    days: float,
    on_excluded: OnExcluded = OnExcluded.SKIP,
    free: Calendar = WEEKENDS,
    **more: Any,
) -> list[str]:
    """Return each slot as ``label > fire reason``, without the fire if it is its label."""
    spec = ScheduleSpec(
        cron=(cron,), timezone=BERLIN, exclude=("free",), on_excluded=on_excluded, **{"seed": "default/a", **more}
    )
    made = schedule.compile(spec, {"free": free})
    begin = datetime.fromisoformat(start).replace(tzinfo=schedule.zone(BERLIN).info) - timedelta(seconds=1)
    found = []
    for slot in made.slots(begin, begin + timedelta(days=days)):
        fire = slot.fire_at.astimezone(schedule.zone(BERLIN).info)
        moved = f" > {fire:%a %d %H:%M}" if slot.moved_by else ""
        found.append(f"{slot.nominal_local:%a %d %H:%M}{moved}" + (f" {slot.skip}" if slot.skip else ""))
    return found


def test_an_excluded_slot_is_skipped_with_its_reason() -> None:
    """It is a slot that does not run, not a slot that does not exist."""
    assert told("0 6 * * *", "2026-06-05", 4) == [
        "Fri 05 06:00",
        "Sat 06 06:00 calendar",
        "Sun 07 06:00 calendar",
        "Mon 08 06:00",
    ]


def test_a_slot_moves_to_the_next_or_previous_day_allowed() -> None:
    """It fires at the same local time there, unless a slot of that day stands there already."""
    assert told("0 6 * * 0", "2026-06-05", 4, NEXT) == ["Sun 07 06:00 > Mon 08 06:00"]
    assert told("0 6 * * 0", "2026-06-05", 4, PREVIOUS) == ["Sun 07 06:00 > Fri 05 06:00"]
    assert told("0 6 * * *", "2026-06-06", 3, NEXT) == [
        "Sat 06 06:00 > Mon 08 06:00 coalesced",
        "Sun 07 06:00 > Mon 08 06:00 coalesced",
        "Mon 08 06:00",
    ]


def test_of_slots_moved_to_one_instant_the_newest_stays() -> None:
    """None of them belongs there, and the newest is the one that matters."""
    assert told("0 6 * * 6,0", "2026-06-05", 4, NEXT) == [
        "Sat 06 06:00 > Mon 08 06:00 coalesced",
        "Sun 07 06:00 > Mon 08 06:00",
    ]
    assert told("0 6 * * 6,0", "2026-06-05", 4, PREVIOUS) == [
        "Sat 06 06:00 > Fri 05 06:00 coalesced",
        "Sun 07 06:00 > Fri 05 06:00",
    ]


def test_a_slot_moves_over_a_clock_change_by_its_local_time() -> None:
    """The rule for gaps holds where it is moved to."""
    free = calendar(dates=[["2026-03-28", "2026-03-28"]])
    assert told("30 2 28 3 *", "2026-03-27", 3, NEXT, free) == ["Sat 28 02:30 > Sun 29 03:00"]
    assert told("30 2 28 3 *", "2026-03-27", 3, NEXT, free, gap=GapRule.SHIFT) == ["Sat 28 02:30 > Sun 29 03:30"]
    assert told("30 2 28 3 *", "2026-03-27", 3, NEXT, free, gap=GapRule.SKIP) == ["Sat 28 02:30 dst_gap"]
    assert told("30 2 28,29 3 *", "2026-03-27", 3, NEXT, free) == [
        "Sat 28 02:30 > Sun 29 03:00 coalesced",
        "Sun 29 02:30 > Sun 29 03:00",
    ]
    autumn = calendar(dates=[["2026-10-24", "2026-10-24"]])
    assert told("30 2 24 10 *", "2026-10-23", 3, NEXT, autumn, overlap=FoldRule.BOTH) == ["Sat 24 02:30 > Sun 25 02:30"]


def test_what_the_clock_skips_is_not_moved_by_calendars() -> None:
    """With `gap: skip` a label that does not exist has no other day either."""
    assert told("30 2 * * 0", "2026-03-27", 4, NEXT, gap=GapRule.SKIP) == ["Sun 29 02:30 dst_gap"]
    assert told("30 2 * * 0", "2026-03-27", 4, NEXT) == ["Sun 29 02:30 > Mon 30 02:30"]


def test_both_passes_of_a_label_move_to_one() -> None:
    """A fold is left behind with its day."""
    assert told("30 2 25 10 *", "2026-10-24", 4, NEXT, overlap=FoldRule.BOTH) == [
        "Sun 25 02:30 > Mon 26 02:30 coalesced",
        "Sun 25 02:30 > Mon 26 02:30",
    ]


def test_a_slot_moves_two_weeks_at_most() -> None:
    """Behind that it is skipped: what would run then is not what was meant."""
    fourteen = calendar(dates=[["2026-06-01", "2026-06-14"]])
    assert told("0 6 1 6 *", "2026-06-01", 1, NEXT, fourteen) == ["Mon 01 06:00 > Mon 15 06:00"]
    fifteen = calendar(dates=[["2026-06-01", "2026-06-15"]])
    assert told("0 6 1 6 *", "2026-06-01", 1, NEXT, fifteen) == ["Mon 01 06:00 calendar"]


def test_a_slot_never_moves_out_of_windows_start_and_end() -> None:
    """The day must be allowed and inside them."""
    weekdays = (Window(frozenset(range(2, 6)), 0, 1440),)
    saturday = (Window(frozenset({2, 3, 4, 5, 6}), 0, 1440),)
    assert told("0 6 * * 6", "2026-06-05", 4, NEXT, windows=saturday) == ["Sat 06 06:00 > Tue 09 06:00"]
    assert told("0 6 * * 6", "2026-06-05", 4, NEXT, windows=weekdays) == []
    assert told("0 6 * * 0", "2026-06-05", 4, NEXT, end_at="2026-06-08T06:00:00") == ["Sun 07 06:00 calendar"]
    assert told("0 6 * * 0", "2026-06-05", 4, PREVIOUS, start_at="2026-06-06T00:00:00") == ["Sun 07 06:00 calendar"]


def test_include_and_exclude_together() -> None:
    """Allowed is what any included calendar holds and no excluded one does."""
    spec = ScheduleSpec(cron=("0 6 * * *",), include=("odd", "even"), exclude=("free",))
    days = {
        "odd": calendar(dates=[["2026-06-01", "2026-06-01"], ["2026-06-03", "2026-06-03"]]),
        "even": calendar(dates=[["2026-06-02", "2026-06-02"]]),
        "free": calendar(weekdays=[2]),
    }
    slots = schedule.compile(spec, days).slots(datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 5, tzinfo=UTC))
    assert [(slot.nominal_at.day, slot.skip) for slot in slots] == [
        (1, None),
        (2, "calendar"),
        (3, None),
        (4, "calendar"),
    ]


def test_elapsed_time_has_no_day_to_move_to() -> None:
    """Moving is refused for interval-like expressions and `every`; skipping works."""
    for more in ({"cron": ("*/5 * * * *",)}, {"every": timedelta(hours=1)}):
        spec = ScheduleSpec(exclude=("free",), on_excluded=NEXT, **more)  # type: ignore[arg-type]
        for call in (
            lambda spec=spec: schedule.check(spec),
            lambda spec=spec: schedule.compile(spec, {"free": EASTER}),
        ):
            with pytest.raises(ScheduleError) as refused:
                call()
            assert (refused.value.rule, refused.value.pointer) == ("CO3021", "/onExcluded")


def test_an_unknown_calendar_is_refused_at_its_place() -> None:
    """The name and its place are said; `check` without calendars looks at the rest."""
    spec = ScheduleSpec(cron=("0 6 * * *",), exclude=("a", "holiday"))
    schedule.check(spec)
    for call in (schedule.check, schedule.compile):
        with pytest.raises(ScheduleError) as refused:
            call(spec, {"a": EASTER, "holidays": EASTER})
        assert (refused.value.rule, refused.value.pointer) == ("CO3017", "/calendars/exclude/1")


def test_equal_calendars_make_one_schedule() -> None:
    """Tasks that share a schedule share its compilation, also when their calendars were read twice."""
    spec = ScheduleSpec(cron=("0 6 * * *",), exclude=("free",))
    assert schedule.compile(spec, {"free": calendar(weekdays=[1])}) is schedule.compile(
        spec, {"free": calendar(weekdays=[1]), "other": EASTER}
    )
    assert schedule.compile(spec, {"free": EASTER}) is not schedule.compile(spec, {"free": WEEKENDS})


@pytest.mark.parametrize("text", ["* * * * *", "0 6 * * *", "0-59 0-23 * * *", "0 0 29 2 *"])
@pytest.mark.parametrize("way", list(OnExcluded))
def test_calendars_that_exclude_everything_cannot_hold_anybody_up(text: str, way: OnExcluded) -> None:
    """The search for a fire is given up; slots go on being made, each with its reason."""
    if text.startswith("*") and way is not OnExcluded.SKIP:
        pytest.skip("it cannot be moved")
    spec = ScheduleSpec(cron=(text,), exclude=("free",), on_excluded=way)
    made = schedule.compile(spec, {"free": ALWAYS})
    began = time.process_time()
    now = datetime(2026, 6, 1, tzinfo=UTC)
    assert made.next_fire(now) is None
    assert list(made.next_fire_slots(now)) == []
    assert time.process_time() - began < 10
    slot = made.next_slot(now)
    assert slot is not None
    assert slot.skip == "calendar"
    with pytest.raises(ScheduleError) as refused:
        schedule.check(spec, {"free": ALWAYS})
    assert refused.value.rule == "CO3022"


def test_a_second_in_a_far_year_is_found() -> None:
    """What is excluded for years is leapt over by days, however dense the schedule is."""
    once = calendar(spans=[["2031-05-05T10:00:30Z", "2031-05-05T10:00:40Z"]])
    spec = ScheduleSpec(every=timedelta(seconds=1), include=("once",))
    fires = schedule.compile(spec, {"once": once}).next_fires(datetime(2026, 6, 1, tzinfo=UTC), 99)
    assert [f"{fire:%Y-%m-%d %H:%M:%S}" for fire in fires] == [f"2031-05-05 10:00:{second}" for second in range(30, 40)]


FREE = st.builds(
    lambda first, length, weekdays: calendar(
        dates=[[str(first.date()), str((first + length * DAY).date())]], weekdays=sorted(weekdays)
    ),
    st.datetimes(datetime.fromisoformat("2026-03-15"), datetime.fromisoformat("2026-04-05")),
    st.integers(0, 16),
    st.frozensets(st.integers(0, 6), max_size=3),
)
CRON = st.sampled_from(["30 2 * * *", "0,30 2,3 * * 1,6", "30 1,2 */2 * *", "0 12 29 * *", "59 23 * * 0"])


@st.composite
def moving(draw: st.DrawFn) -> schedule.Schedule:
    """Return a schedule whose slots are moved off excluded days, near a clock change."""
    spec = ScheduleSpec(
        cron=(draw(CRON),),
        at=("2026-03-29T02:15:00",),
        timezone=draw(st.sampled_from([BERLIN, "America/New_York", "UTC"])),
        gap=draw(st.sampled_from(GapRule)),
        overlap=draw(st.sampled_from(FoldRule)),
        exclude=("free",),
        on_excluded=draw(st.sampled_from([NEXT, PREVIOUS])),
        windows=draw(st.sampled_from([(), (Window(frozenset(range(6)), 0, 180),)])),
        jitter=draw(st.sampled_from([None, timedelta(hours=24), timedelta(minutes=10)])),
        seed="default/a",
    )
    return schedule.compile(spec, {"free": draw(FREE)})


AT = st.datetimes(datetime.fromisoformat("2026-03-10"), datetime.fromisoformat("2026-04-10")).map(
    lambda naive: naive.replace(tzinfo=UTC)
)


@settings(max_examples=120, deadline=None)
@given(moving(), AT, st.lists(st.floats(0, 1), max_size=3))
def test_moved_slots_asked_in_parts_are_those_asked_at_once(
    made: schedule.Schedule, start: datetime, cuts: list[float]
) -> None:
    """Wherever a planner stops and goes on, it plans the same slots with the same fires and marks."""
    span = timedelta(days=20)
    points = [start, *(start + span * cut for cut in sorted(cuts)), start + span]
    parts = [slot for low, high in pairwise(points) for slot in made.slots(low, high)]
    assert parts == list(made.slots(start, start + span))


@settings(max_examples=120, deadline=None)
@given(moving(), AT)
def test_fires_never_meet_and_are_settled(made: schedule.Schedule, at: datetime) -> None:
    """One slot fires at an instant; what fires up to `at` is known at `settled(at)`; next fires are the same."""
    wide = list(made.slots(at - 40 * DAY, at + 40 * DAY))
    fires = sorted(slot.fire_at for slot in wide if slot.skip is None)
    assert len(set(fires)) == len(fires)
    known = [slot for slot in wide if slot.nominal_at <= made.settled(at)]
    assert [slot for slot in wide if slot.skip is None and slot.fire_at <= at and slot not in known] == []
    ahead = [slot.fire_at for slot in takewhile(lambda slot: slot.fire_at <= at + 20 * DAY, made.next_fire_slots(at))]
    assert ahead == [fire for fire in fires if at < fire <= at + 20 * DAY]


@settings(max_examples=120, deadline=None)
@given(moving(), AT)
def test_a_slot_fires_from_14_days_before_to_15_behind_its_nominal_instant(
    made: schedule.Schedule, start: datetime
) -> None:
    """The bounds by which a search for due slots is widened hold, an hour of clock change allowed."""
    for slot in made.slots(start, start + 20 * DAY):
        assert -14 * DAY - timedelta(hours=2) <= slot.fire_at - slot.nominal_at <= 15 * DAY + timedelta(hours=2)


MIXED = read_calendar(
    {
        "parts": [
            {"dates": [["2026-03-30", "2026-04-02"]], "spans": [["2026-03-28T09:30:00Z", "2026-03-28T11:00:00Z"]]},
            {"timezone": "Asia/Tokyo", "weekdays": [3], "spans": [["2026-04-06T10:00:00", "2026-04-06T10:07:00"]]},
        ]
    }
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([BERLIN, "America/New_York", "UTC"]), st.integers(0, 14 * 24 * 60))
def test_a_calendar_is_steady_as_long_as_it_says(name: str, minutes: int) -> None:
    """Before `steady_until` no minute is answered otherwise, so leaping there loses no fire."""
    zone = schedule.zone(name)
    start = 1_774_569_600 + minutes * 60  # from 2026-03-27
    until = MIXED.steady_until(start + zone.offset(start), start, zone)
    assert start < until <= start + 86_400
    answers = {MIXED.holds(at + zone.offset(at), at, zone) for at in range(start, until, 60)}
    assert len(answers) == 1
