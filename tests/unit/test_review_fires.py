"""The difference of fire times: what goes, what comes, what moves, and what deserves a warning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_observer.model import FoldRule, GapRule, GroupSpec, ScheduleSpec, Window
from cron_observer.review import fires, warnings
from cron_observer.review.fires import Clockwork, FireDiff, Moved, compare

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
MIDDAYS = GroupSpec(windows=(Window(frozenset(range(7)), 600, 840),))


def clockwork(cron: str, timezone: str = "UTC", group: GroupSpec | None = None, **schedule: Any) -> Clockwork:
    """Make what decides about a task's fires."""
    spec = ScheduleSpec(cron=(cron,), timezone=timezone, seed="default/export", **schedule)
    return Clockwork(spec=spec, group=group)


def counted(before: str, after: str) -> tuple[int, int, int]:
    """Return how many fires of a week go, come and move."""
    diff = compare(clockwork(before), clockwork(after), NOW, WEEK)
    return len(diff.removed), len(diff.added), len(diff.moved)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("0 2 * * *", "0 2 * * *", (0, 0, 0)),
        ("0 2 * * *", "15 2 * * *", (0, 0, 7)),
        ("0 2 * * *", "45 1 * * *", (0, 0, 7)),
        ("0 2 * * 1-5", "0 2 * * *", (0, 2, 0)),
        ("0 2 * * 1-5", "30 2 * * *", (0, 2, 5)),
        ("0 * * * *", "*/15 * * * *", (0, 504, 0)),
        ("*/15 * * * *", "0 * * * *", (504, 0, 0)),
        ("0 * * * *", "30 * * * *", (0, 0, 168)),
        ("0 2 * * 1", "0 2 * * 4", (0, 0, 1)),
    ],
)
def test_fires_go_come_and_move(before: str, after: str, expected: tuple[int, int, int]) -> None:
    """A fire that goes and a neighbour that comes are one that moves; what stays parts neighbours."""
    assert counted(before, after) == expected


def test_a_fire_moves_across_the_end() -> None:
    """What the end of the time cuts between its old and its new instant moves all the same."""
    at_two = NOW.replace(hour=2, minute=5)
    diff = compare(clockwork("0 2 * * *"), clockwork("15 2 * * *"), at_two, timedelta(days=7, minutes=-10))
    assert (len(diff.removed), len(diff.added), len(diff.moved)) == (0, 1, 6)
    diff = compare(clockwork("0 2 * * *"), clockwork("15 2 * * *"), at_two - timedelta(minutes=10), WEEK)
    assert (diff.before, diff.after, len(diff.moved)) == (7, 7, 7)


def test_the_first_change_and_the_next_fires_are_told() -> None:
    """Both as instants, before and after."""
    diff = compare(clockwork("0 2 * * *", "Europe/Berlin"), clockwork("15 2 * * *", "Europe/Berlin"), NOW, WEEK)
    old, new = datetime(2026, 11, 22, 1, tzinfo=UTC), datetime(2026, 11, 22, 1, 15, tzinfo=UTC)
    assert diff.first == (old, new)
    assert (diff.next_before, diff.next_after, diff.timezone) == (old, new, "Europe/Berlin")


def test_next_fires_are_found_beyond_the_time_compared() -> None:
    """A yearly task has a next fire, too."""
    diff = compare(clockwork("0 2 1 3 *"), clockwork("0 3 1 3 *"), NOW, WEEK)
    assert diff.same
    assert (diff.next_before, diff.next_after) == (
        datetime(2027, 3, 1, 2, tzinfo=UTC),
        datetime(2027, 3, 1, 3, tzinfo=UTC),
    )


def test_new_and_removed_tasks_are_compared_with_nothing() -> None:
    """Every fire of a new task comes, every one of a removed task goes."""
    one = clockwork("0 2 * * *")
    assert len(compare(None, one, NOW, WEEK).added) == len(compare(one, None, NOW, WEEK).removed) == 7
    assert compare(one, None, NOW, WEEK).first == (datetime(2026, 11, 22, 2, tzinfo=UTC), None)


def test_many_fires_are_compared_for_a_shorter_time() -> None:
    """The end says how far the comparison reaches."""
    every_second = Clockwork(spec=ScheduleSpec(every=timedelta(seconds=1)))
    diff = compare(every_second, clockwork("0 13 * * *"), NOW, WEEK)
    assert diff.until == NOW + timedelta(seconds=fires.MOST_FIRES)
    assert (diff.before, diff.after) == (fires.MOST_FIRES, 1)


def test_windows_suspension_and_jitter_count() -> None:
    """What a group's windows leave out, what is suspended, and what jitter moves are differences."""
    hourly = clockwork("0 * * * *")
    assert compare(hourly, clockwork("0 * * * *", group=MIDDAYS), NOW, WEEK).after == 28
    suspended = Clockwork(spec=hourly.spec, suspended=True)
    assert compare(hourly, suspended, NOW, WEEK).after == 0
    drawn = compare(hourly, clockwork("0 * * * *", jitter=timedelta(minutes=30)), NOW, WEEK)
    assert len(drawn.moved) > 150
    assert all(timedelta() < one.after - one.before <= timedelta(minutes=30) for one in drawn.moved)


_MINUTES = st.sets(st.integers(0, 600), max_size=40)


@given(_MINUTES, _MINUTES)
def test_every_fire_is_in_one_place(old: set[int], new: set[int]) -> None:
    """What stays, goes, comes and moves is each fire once; only neighbours move, and nothing that stays moves."""
    before, after = (sorted(NOW + timedelta(minutes=minute) for minute in side) for side in (old, new))
    removed, added, moved = fires._paired(before, after)
    stays = set(before) & set(after)
    assert sorted([*stays, *removed, *(one.before for one in moved)]) == before
    assert sorted([*stays, *added, *(one.after for one in moved)]) == after
    for one in moved:
        low, high = sorted((one.before, one.after))
        assert not any(low < at < high for at in {*before, *after})


# -- warnings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "warned"),
    [
        ("0 * * * *", "* * * * *", True),
        ("0 * * * *", "*/15 * * * *", False),
        ("0 2 1 * *", "0 2 * * *", False),
        ("0 2 * * *", "0 * * * *", True),
    ],
)
def test_far_more_fires_are_a_warning(before: str, after: str, warned: bool) -> None:
    """Ten times as often, and at least hourly."""
    said = warnings.more_often(compare(clockwork(before), clockwork(after), NOW, WEEK))
    assert (said is not None) == warned


def test_how_often_is_said() -> None:
    """The numbers are those of the comparison."""
    diff = compare(clockwork("0 * * * *"), clockwork("* * * * *"), NOW, WEEK)
    assert warnings.more_often(diff) == "it fires 10,000 times in 166.7 hours instead of 166: 60 times as often"


def a_move(minute: int) -> FireDiff:
    """Make a difference of one fire that moves to a minute past one."""
    moved = [Moved(before=NOW, after=NOW + timedelta(hours=1, minutes=minute))]
    return FireDiff(timezone="UTC", since=NOW, until=NOW + WEEK, before=1, after=1, moved=moved)


def test_what_fired_seldom_is_far_more_often_too() -> None:
    """A task that fires later than was looked at counts as once until then; one that is new or ended does not."""
    monthly, hourly = clockwork("0 2 1 * *"), clockwork("0 * * * *")
    every_second = Clockwork(spec=ScheduleSpec(every=timedelta(seconds=1)))
    said = warnings.more_often(compare(monthly, hourly, NOW, WEEK))
    assert said == "it fires 168 times in 7 days instead of once until 2026-12-01 02:00 UTC"
    said = warnings.more_often(compare(clockwork("0 4 * * *"), every_second, NOW, WEEK))
    assert said == "it fires 10,000 times in 2.8 hours instead of once until 2026-11-22 04:00 UTC"
    assert warnings.more_often(compare(None, every_second, NOW, WEEK)) is None
    assert warnings.more_often(compare(monthly, clockwork("0 2 2 * *"), NOW, WEEK)) is None


def test_crowds_are_a_warning() -> None:
    """The fullest minute is told, once, at the first of its tasks."""
    several = {f"task-{number:02}": a_move(0) for number in range(warnings.CROWDED)} | {"other": a_move(1)}
    ((name, said),) = warnings.crowds(several)
    assert name == "task-00"
    assert said == "20 tasks of this change newly fire at 2026-11-21 13:00 UTC: this one and 19 others"
    del several["task-03"]
    assert list(warnings.crowds(several)) == []
    assert list(warnings.crowds({})) == []


@pytest.mark.parametrize(
    ("cron", "rules", "said"),
    [
        (
            "30 2 * * *",
            {},
            (
                "02:30 does not exist on 2027-03-28 in Europe/Berlin: it fires at 03:00; "
                "02:30 comes twice on 2027-10-31 in Europe/Berlin: it fires the first time only"
            ),
        ),
        (
            "30 2 * * *",
            {"gap": GapRule.SKIP, "overlap": FoldRule.BOTH},
            "02:30 does not exist on 2027-03-28 in Europe/Berlin: it does not fire that day",
        ),
        (
            "30 2 * * *",
            {"gap": GapRule.SHIFT, "overlap": FoldRule.SECOND},
            (
                "02:30 does not exist on 2027-03-28 in Europe/Berlin: it fires at 03:30; "
                "02:30 comes twice on 2027-10-31 in Europe/Berlin: it fires the second time only"
            ),
        ),
        ("0 4 * * *", {}, None),
        ("*/15 * * * *", {}, None),
    ],
)
def test_what_clock_changes_do_is_said(cron: str, rules: dict[str, Any], said: str | None) -> None:
    """The first jump forward and the first jump back of the year that touch the schedule."""
    assert warnings.touched(clockwork(cron, "Europe/Berlin", **rules), NOW) == said


def test_a_clock_change_that_was_told_before_is_not_told_again() -> None:
    """Only what is new about it is a warning; UTC never is."""
    old, new = clockwork("30 2 * * *", "Europe/Berlin"), clockwork("30 2 * * 1-6,0", "Europe/Berlin")
    assert warnings.clock_changes(old, new, NOW) is None
    assert warnings.clock_changes(None, new, NOW) is not None
    assert warnings.clock_changes(None, clockwork("30 2 * * *"), NOW) is None
    assert warnings.clock_changes(None, Clockwork(spec=new.spec, suspended=True), NOW) is None
    assert warnings.clock_changes(None, Clockwork(spec=ScheduleSpec(every=timedelta(hours=1))), NOW) is None
