"""How far ahead a schedule is planned: the promise of one hour, kept at every moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cron_observer.horizon import (
    AHEAD_SLOTS,
    CATCH_UP,
    NEXT_WITHIN,
    PROMISED,
    PROMISED_SLOTS,
    STEP,
    aim,
    remainder,
    stretch,
)
from cron_observer.model import ScheduleSpec, parse_duration
from cron_observer.schedule import Schedule, Slot
from cron_observer.schedule import compile as compile_schedule
from cron_observer.schedule.calendars import read_calendar

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)

SCHEDULES: dict[str, dict[str, Any]] = {
    "every second": {"every": "1s"},
    "every 5 seconds": {"every": "5s"},
    "every 7 seconds": {"every": "7s"},
    "every minute": {"cron": "* * * * *"},
    "every quarter": {"cron": "*/15 * * * *"},
    "hourly": {"cron": "0 * * * *"},
    "daily": {"cron": "30 2 * * *", "timezone": "Europe/Berlin"},
    "weekly": {"cron": "0 6 * * 1"},
    "yearly": {"cron": "0 0 29 2 *"},
    "two daily inside the gap": {"cron": ["30 2 * * *", "50 2 * * *", "10 3 * * *"], "timezone": "Europe/Berlin"},
    "bursts": {"cron": ["* 4 * * *", "0 16 * * *"], "timezone": "America/New_York"},
    "half-hour clock change": {"cron": "45 1,2 * * *", "timezone": "Australia/Lord_Howe"},
    "once": {"at": ["2026-03-01T18:00:00", "2026-03-05T18:00:00"]},
}


#: The calendar of the schedules below: weekends, and a week of March.
OFF = read_calendar({"parts": [{"timezone": None, "weekdays": [0, 6], "dates": [["2026-03-30", "2026-04-03"]]}]})
EXCLUDED = {"calendars": {"exclude": ["off"]}, "timezone": "Europe/Berlin"}

#: Their slots fire before and after their nominal instants, or not at all.
MOVED: dict[str, dict[str, Any]] = {
    "moved on": {"cron": ["30 9 * * *", "45 23 * * 6"], "onExcluded": "next_allowed"} | EXCLUDED,
    "moved back": {"cron": ["30 9 * * *", "45 23 * * 6"], "onExcluded": "previous_allowed"} | EXCLUDED,
    "moved back, often": {"cron": "0-59/7 8-17 * * *", "onExcluded": "previous_allowed"} | EXCLUDED,
    "moved on, with jitter": {"cron": "0 2,9 * * *", "jitter": "24h", "onExcluded": "next_allowed"} | EXCLUDED,
    "left out": {"cron": "*/10 * * * *"} | EXCLUDED,
    "left out, every second": {"every": "1s"} | EXCLUDED,
    "only at night, every second": {"every": "1s", "windows": [{"from": "23:00", "to": "03:00"}], "timezone": "UTC"},
    "jitter": {"every": "10m", "jitter": "8m"},
    "jitter of an hour": {"cron": "0 5 * * *", "jitter": "1h"},
    "jitter of seconds": {"every": "1s", "jitter": "900ms"},
    "windows": {"every": "5m", "windows": [{"days": ["fri", "sun"], "from": "22:00", "to": "03:00"}]},
    "begins and ends": {"every": "1m", "startAt": "2026-03-27T00:00:00", "endAt": "2026-03-28T00:00:00"},
}


def made(block: dict[str, Any]) -> Schedule:
    spec = ScheduleSpec.read(block, "default/export")
    return compile_schedule(spec, {"off": OFF}) if spec.exclude else compile_schedule(spec)


class Planner:
    """Plans one schedule as the scheduler does, and knows what it has planned."""

    def __init__(self, schedule: Schedule, start: datetime) -> None:
        self.schedule = schedule
        self.until = start
        self.due_at: datetime | None = start
        self.planned: set[datetime] = set()
        self.nominal: list[Slot] = []

    def plan(self, now: datetime) -> None:
        """Plan until nothing is due."""
        while self.due_at is not None and self.due_at <= now:
            part = stretch(self.schedule, self.until, aim(self.schedule, now), now)
            assert part.until >= self.until
            assert part.due_at is None or part.due_at > now or part.until > self.until
            self.planned |= {slot.fire_at for slot in part.slots if slot.skip is None}
            self.nominal += part.slots
            self.until, self.due_at = part.until, part.due_at

    def kept(self, now: datetime) -> bool:
        """Say whether the promise holds: what fires in the next hour, or 720 slots, and the next within 48 hours."""
        promised: list[datetime] = []
        for fire in islice(fires(self.schedule, now), PROMISED_SLOTS):
            if fire > now + PROMISED and promised:
                break
            if fire > now + NEXT_WITHIN:
                break
            promised.append(fire)
        return self.planned.issuperset(promised)


def fires(schedule: Schedule, after: datetime) -> Any:
    return (slot.fire_at for slot in schedule.next_fire_slots(after))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    "start", [NOW, datetime(2026, 3, 28, 20, 0, tzinfo=UTC), datetime(2026, 10, 3, 9, 0, tzinfo=UTC)]
)
def test_the_promise_holds_at_every_moment(name: str, start: datetime) -> None:
    """A planner that comes when it is due keeps the promise right before each of its visits, for 30 hours."""
    planner = Planner(made(SCHEDULES[name]), start)
    now, visits = start, 0
    while planner.due_at is not None and now < start + timedelta(hours=30) and visits < 150:
        planner.plan(now)
        visits += 1
        if planner.due_at is None:
            break
        now = planner.due_at
        assert planner.kept(now - timedelta(milliseconds=1)), now


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(SCHEDULES)),
    st.floats(0, 14 * 24 * 3600),
    st.lists(st.floats(0, 36 * 3600), min_size=1, max_size=8),
)
def test_the_promise_holds_whenever_one_looks(name: str, after: float, moments: list[float]) -> None:
    """At any instant between visits, also around clock changes, what is promised is planned."""
    begin = datetime(2026, 3, 25, tzinfo=UTC) + timedelta(seconds=after)
    planner = Planner(made(SCHEDULES[name]), begin)
    now, visits = begin, 0
    looks = sorted(begin + timedelta(seconds=seconds) for seconds in moments)
    while looks and visits < 200:
        planner.plan(now)
        visits += 1
        upcoming = planner.due_at or looks[-1] + HOUR
        while looks and looks[0] < upcoming:
            assert planner.kept(max(looks.pop(0), now))
        now = upcoming


@example("left out, every second", 78001.0, [4799.0, 4800.0, 9000.0])
@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(sorted(MOVED)),
    st.floats(0, 14 * 24 * 3600),
    st.lists(st.floats(0, 60 * 3600), min_size=1, max_size=8),
)
def test_the_promise_holds_by_the_instants_at_which_slots_fire(name: str, after: float, moments: list[float]) -> None:
    """Wherever calendars and jitter move slots, what fires within the hour is planned, and every slot exactly once."""
    begin = datetime(2026, 3, 20, tzinfo=UTC) + timedelta(seconds=after)
    schedule = made(MOVED[name])
    planner = Planner(schedule, begin)
    # What is nominal before is planned as well, as if there had always been a planner.
    back = timedelta(days=16) if "onExcluded" in MOVED[name] else parse_duration(MOVED[name].get("jitter", "0s"))
    planner.planned |= {slot.fire_at for slot in schedule.slots(begin - back, begin) if slot.skip is None}
    now, visits = begin, 0
    looks = sorted(begin + timedelta(seconds=seconds) for seconds in moments)
    while looks and visits < 40:
        planner.plan(now)
        visits += 1
        upcoming = planner.due_at or looks[-1] + HOUR
        while looks and looks[0] < upcoming:
            assert planner.kept(max(looks.pop(0), now))
        now = upcoming
    assert planner.nominal == list(schedule.slots(begin, planner.until))


@pytest.mark.parametrize("name", sorted(MOVED))
def test_what_a_plan_owes_is_what_fires_or_is_nominal_by_its_end(name: str) -> None:
    """A plan that ends owes the slots that are nominal, or fire, up to its end, and no other."""
    schedule = made(MOVED[name])
    since = datetime(2026, 3, 27, tzinfo=UTC)
    end = since + timedelta(hours=20)
    wide = schedule.slots(since, end + (timedelta(days=15) if "onExcluded" in MOVED[name] else HOUR))
    expected = [slot for slot in wide if slot.nominal_at <= end or slot.fire_at <= end]
    assert list(remainder(schedule, since, end)) == expected


@pytest.mark.parametrize("seconds", [-600, 0, 1, 47 * 3600, 48 * 3600])
@pytest.mark.parametrize("block", ["left out, every second", "only at night, every second"])
def test_the_next_slot_is_planned_through_days_that_leave_out_hundreds_of_thousands(block: str, seconds: int) -> None:
    """A dense schedule's first slot after a weekend or a day is planned as far ahead as that of any other."""
    begin = datetime(2026, 3, 20, 22, 0, tzinfo=UTC)
    planner = Planner(made(MOVED[block]), begin)
    now, end, visits = begin, datetime(2026, 3, 20, 23, 0, tzinfo=UTC) + timedelta(seconds=seconds), 0
    while now <= end:
        planner.plan(now)
        visits += 1
        assert planner.due_at is not None
        now = planner.due_at
    assert planner.kept(end)
    assert visits < 300  # a visit for each second would be none that a scheduler could make


def test_a_mutant_without_slack_breaks_the_promise() -> None:
    """The same check catches a planner that comes back an hour later than it should."""
    planner = Planner(made({"cron": "*/15 * * * *"}), NOW)
    planner.plan(NOW)
    assert planner.due_at is not None
    assert not planner.kept(planner.due_at + HOUR)


def test_five_seconds_are_an_hour() -> None:
    """`every: 5s` has exactly one hour promised: 720 slots."""
    assert timedelta(seconds=5) * PROMISED_SLOTS == PROMISED


def test_dense_schedules_are_bounded() -> None:
    """However dense a schedule is, no more than 900 of its slots lie ahead."""
    part = stretch(made({"every": "1s"}), NOW, aim(made({"every": "1s"}), NOW), NOW)
    assert len(part.slots) == AHEAD_SLOTS
    assert part.until == NOW + timedelta(minutes=15)
    assert part.due_at == NOW + timedelta(minutes=2)


def test_rare_schedules_cost_nothing_until_they_come_near() -> None:
    """A slot beyond 48 hours is not planned, and nobody looks at the task until it comes within them."""
    schedule = made({"cron": "0 0 1 6 *"})
    goal = aim(schedule, NOW)
    fire = datetime(2026, 6, 1, tzinfo=UTC)
    assert (goal.next_fire_at, goal.due_at) == (fire, fire - NEXT_WITHIN)
    assert stretch(schedule, NOW, goal, NOW).slots == ()


def test_a_schedule_that_is_over_is_never_looked_at_again() -> None:
    """After the last of its times nothing is due any more."""
    goal = aim(made({"at": "2026-02-01T00:00:00"}), NOW)
    assert (goal.due_at, goal.next_fire_at) == (None, None)


def test_an_absence_is_caught_up_in_steps() -> None:
    """A planner that was away plans what it missed, a bounded number of slots at a time, without a hole."""
    schedule = made({"every": "5s"})
    since, now = NOW - timedelta(days=3), NOW
    goal, until, planned = aim(schedule, now), since, []
    while until < goal.until:
        part = stretch(schedule, until, goal, now)
        assert len(part.slots) <= STEP + 1
        planned += [slot.nominal_at for slot in part.slots]
        assert part.due_at is not None
        assert (part.due_at <= now) == (part.until < goal.until)
        until = part.until
    assert planned == [slot.nominal_at for slot in schedule.slots(since, goal.until)]


def test_a_long_absence_is_not_invented() -> None:
    """What is older than a month when a planner comes back is left out."""
    schedule = made({"every": "1h"})
    part = stretch(schedule, NOW - timedelta(days=400), aim(schedule, NOW), NOW)
    assert part.slots[0].nominal_at == NOW - CATCH_UP + HOUR
