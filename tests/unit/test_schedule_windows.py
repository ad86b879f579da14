"""Windows: what they show, when they close, and which slots they leave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cron_observer import schedule
from cron_observer.errors import ScheduleError
from cron_observer.model import ScheduleSpec, Window

BERLIN = "Europe/Berlin"
MINUTE = timedelta(minutes=1)


def window(text: str) -> Window:
    """Read ``mon-fri 22:00-06:00``."""
    days, times = text.split() if " " in text else (None, text)
    first, last = times.split("-")
    return Window.read({"days": days.split(",") if days else None, "from": first, "to": last})


def labels(texts: list[str], cron: str, start: str, days: float, zone: str = BERLIN) -> list[str]:
    """Return the labels of the slots that windows leave, short."""
    spec = ScheduleSpec(cron=(cron,), timezone=zone, windows=tuple(map(window, texts)))
    begin = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone))
    slots = schedule.compile(spec).slots(begin - MINUTE, begin - MINUTE + timedelta(days=days))
    return [f"{slot.nominal_local:%a %H:%M}" + ("*" if slot.fold else "") for slot in slots]


def test_slots_outside_do_not_exist() -> None:
    """The first time of a window belongs to it, its end does not."""
    assert labels(["sun-thu 10:00-14:30"], "*/30 * * * *", "2026-06-04T00:00", 3.5) == [
        *(f"Thu {time}" for time in ["10:00", "10:30", "11:00", "11:30", "12:00", "12:30", "13:00", "13:30", "14:00"]),
        *("Sun 10:00", "Sun 10:30", "Sun 11:00", "Sun 11:30"),
    ]


def test_a_window_across_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    """Friday's night goes on into Saturday; Saturday's own night is not open."""
    assert labels(["fri 22:00-02:00"], "0 * * * *", "2026-06-05T00:00", 3) == [
        "Fri 22:00",
        "Fri 23:00",
        "Sat 00:00",
        "Sat 01:00",
    ]
    assert labels(["sat 22:00-02:00"], "0 * * * *", "2026-06-06T12:00", 1) == [
        "Sat 22:00",
        "Sat 23:00",
        "Sun 00:00",
        "Sun 01:00",
    ]


def test_windows_add_up_and_one_of_24_hours_is_always_open() -> None:
    """Overlapping and touching windows are one; the same time twice is a whole day."""
    assert labels(["10:00-11:00", "10:30-12:00"], "*/30 * * * *", "2026-06-05T00:00", 1) == [
        f"Fri {time}" for time in ["10:00", "10:30", "11:00", "11:30"]
    ]
    assert len(labels(["mon 09:00-09:00"], "0 * * * *", "2026-06-01T00:00", 7)) == 24
    zone = schedule.zone(BERLIN)
    assert schedule.Windows([window("00:00-24:00")], zone).always
    assert schedule.Windows([window("sun-sat 18:00-18:00")], zone).always
    assert not schedule.Windows([Window(frozenset(), 0, 60)], zone).shows(0)


def test_windows_judge_the_label_around_clock_changes() -> None:
    """A swallowed label is inside if the wall clock would have been; both passes of a label are."""
    assert labels(["02:00-03:00"], "30 2 * * *", "2026-03-28T00:00", 3) == ["Sat 02:30", "Sun 02:30", "Mon 02:30"]
    assert labels(["03:00-04:00"], "30 2 * * *", "2026-03-28T00:00", 3) == []
    assert labels(["02:00-03:00"], "*/30 * * * *", "2026-10-25T00:00", 1) == [
        "Sun 02:00",
        "Sun 02:30",
        "Sun 02:00*",
        "Sun 02:30*",
    ]
    assert labels(["02:00-02:30"], "45 2 * * *", "2026-10-25T00:00", 1) == []


@pytest.mark.parametrize(
    ("texts", "instant", "closes"),
    [
        (["10:00-14:30"], "2026-06-05T12:00:00+02:00", "2026-06-05T14:30:00+02:00"),
        (["10:00-14:30"], "2026-06-05T14:30:00+02:00", None),
        (["10:00-14:30", "14:30-16:00"], "2026-06-05T12:00:00+02:00", "2026-06-05T16:00:00+02:00"),
        (["fri 22:00-06:00"], "2026-06-06T01:00:00+02:00", "2026-06-06T06:00:00+02:00"),
        (["sat-sun 00:00-24:00"], "2026-06-06T01:00:00+02:00", "2026-06-08T00:00:00+02:00"),
        (["00:00-24:00"], "2026-06-06T01:00:00+02:00", None),
        # The clock jumps over the end: the window closes with the jump.
        (["01:00-02:30"], "2026-03-29T01:15:00+01:00", "2026-03-29T03:00:00+02:00"),
        # An hour is missing inside, or there twice.
        (["00:00-06:00"], "2026-03-29T00:00:00+01:00", "2026-03-29T06:00:00+02:00"),
        (["00:00-06:00"], "2026-10-25T00:00:00+02:00", "2026-10-25T06:00:00+01:00"),
        (["02:00-02:30"], "2026-10-25T02:15:00+02:00", "2026-10-25T02:30:00+02:00"),
        (["02:00-02:30"], "2026-10-25T02:15:00+01:00", "2026-10-25T02:30:00+01:00"),
        (["02:30-03:00"], "2026-10-25T02:45:00+02:00", "2026-10-25T02:00:00+01:00"),
        (["02:00-03:00"], "2026-10-25T02:45:00+02:00", "2026-10-25T03:00:00+01:00"),
    ],
)
def test_when_a_window_closes(texts: list[str], instant: str, closes: str | None) -> None:
    """It closes at the first instant at which the wall clock shows a time outside."""
    windows = schedule.Windows(map(window, texts), schedule.zone(BERLIN))
    at = datetime.fromisoformat(instant)
    assert windows.closes_at(at) == (closes and datetime.fromisoformat(closes))
    assert windows.open_at(at) == (closes is not None or windows.always)


WINDOWS = st.lists(
    st.builds(
        Window,
        st.frozensets(st.integers(0, 6)),
        st.sampled_from([0, 30, 90, 120, 150, 180, 600, 1380]),
        st.sampled_from([0, 60, 150, 165, 180, 720, 1440]),
    ),
    min_size=1,
    max_size=3,
)
NEAR = st.sampled_from(
    ["2026-03-28T20:00Z", "2026-10-24T20:00Z", "2026-06-05T12:00Z", "2011-12-29T00:00Z", "2026-10-03T10:00Z"]
).map(datetime.fromisoformat)
ZONE = st.sampled_from([BERLIN, "Pacific/Apia", "Australia/Lord_Howe", "UTC"])


@settings(max_examples=150, deadline=None)
@given(WINDOWS, NEAR, st.integers(0, 40 * 60), ZONE)
def test_windows_close_where_a_look_every_minute_says(
    spans: list[Window], near: datetime, minutes: int, zone: str
) -> None:
    """`open_at` and `closes_at` agree with looking at the wall clock every minute."""
    windows = schedule.Windows(spans, schedule.zone(zone))
    info = ZoneInfo(zone)

    def shown(at: datetime) -> bool:
        local = at.astimezone(info)
        minute, today = local.hour * 60 + local.minute, local.isoweekday() % 7
        for span in spans:
            over = span.end <= span.start
            if today in span.days and span.start <= minute and (over or minute < span.end):
                return True
            if over and (today - 1) % 7 in span.days and minute < span.end:
                return True
        return False

    at = near + minutes * MINUTE
    closes = windows.closes_at(at)
    assert windows.open_at(at) is shown(at)
    if not shown(at):
        assert closes is None
        return
    end = next((at + step * MINUTE for step in range(1, 8 * 1440) if not shown(at + step * MINUTE)), None)
    assert closes == end


@settings(max_examples=120, deadline=None)
@given(WINDOWS, NEAR, ZONE, st.sampled_from(["*/7 * * * *", "15 */2 * * *", "0,30 2,3,10 * * *", "5 0 * * *"]))
def test_windows_only_filter(spans: list[Window], near: datetime, zone: str, cron: str) -> None:
    """Leaping from window to window gives the slots of the bare schedule whose labels are inside."""
    bare = ScheduleSpec(cron=(cron,), timezone=zone)
    narrowed = ScheduleSpec(cron=(cron,), timezone=zone, windows=tuple(spans))
    windows = schedule.Windows(spans, schedule.zone(zone))
    end = near + timedelta(days=9)
    epoch = datetime(1970, 1, 1)  # noqa: DTZ001  a label
    wanted = [
        slot[:3]
        for slot in schedule.compile(bare).slots(near, end)
        if windows.shows((slot.nominal_local - epoch) // timedelta(seconds=1))
    ]
    assert [slot[:3] for slot in schedule.compile(narrowed).slots(near, end)] == wanted


def test_start_and_end_bound_the_nominal_instants() -> None:
    """The first slot may be at startAt, the last one is before endAt; local times are the schedule's."""
    spec = ScheduleSpec(
        cron=("0 * * * *",), timezone=BERLIN, start_at="2026-06-01T10:00:00", end_at="2026-06-01T12:00:00"
    )
    made = schedule.compile(spec)
    every = made.slots(datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    assert [f"{slot.nominal_at:%H:%M}" for slot in every] == ["08:00", "09:00"]
    assert [f"{fire:%H:%M}" for fire in made.next_fires(datetime(2020, 1, 1, tzinfo=UTC), 9)] == ["08:00", "09:00"]
    assert made.next_fire(datetime(2026, 6, 1, 9, tzinfo=UTC)) is None
    exact = ScheduleSpec(cron=("0 * * * *",), start_at="2026-06-01T10:00:00+05:30")
    assert schedule.compile(exact).next_fire(datetime(2020, 1, 1, tzinfo=UTC)) == datetime(2026, 6, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("narrowed", "rule", "pointer"),
    [
        ({"start_at": "2026-06-01"}, "CO3018", "/startAt"),
        ({"end_at": "soon"}, "CO3018", "/endAt"),
        ({"start_at": "2026-06-01T00:00:00", "end_at": "2026-06-01T00:00:00"}, "CO3019", "/endAt"),
        ({"start_at": "2026-06-01T02:00:00Z", "end_at": "2026-06-01T03:00:00+02:00"}, "CO3019", "/endAt"),
        ({"windows": (Window(frozenset({7}), 0, 60),)}, "CO3023", "/windows/0"),
        ({"windows": (Window(frozenset({1}), 0, 1441),)}, "CO3023", "/windows/0"),
        ({"windows": (Window(frozenset({1}), 0, 60),) * 51}, "CO3023", "/windows"),
    ],
)
def test_wrong_bounds_are_refused(narrowed: dict[str, object], rule: str, pointer: str) -> None:
    """`check` and `compile` refuse alike, and name the field."""
    spec = ScheduleSpec(cron=("0 5 * * *",), **narrowed)  # type: ignore[arg-type]
    for call in (schedule.check, schedule.compile):
        with pytest.raises(ScheduleError) as refused:
            call(spec)
        assert (refused.value.rule, refused.value.pointer) == (rule, pointer)


@pytest.mark.parametrize(
    ("narrowed", "pointer"),
    [
        ({"windows": (window("10:00-11:00"),)}, "/windows"),
        ({"windows": (Window(frozenset(), 0, 1440),)}, "/windows"),
        ({"start_at": "2026-06-01T06:00:00", "end_at": "2026-06-02T05:00:00"}, ""),
        ({"end_at": "1970-01-01T04:00:00"}, "/endAt"),
    ],
)
def test_a_schedule_of_which_nothing_is_left_is_found_out(narrowed: dict[str, object], pointer: str) -> None:
    """`check` looks for a first fire and gives up; `compile` makes it, and it has no fires."""
    spec = ScheduleSpec(cron=("0 5 * * *",), timezone=BERLIN, **narrowed)  # type: ignore[arg-type]
    with pytest.raises(ScheduleError) as refused:
        schedule.check(spec)
    assert (refused.value.rule, refused.value.pointer) == ("CO3022", pointer)
    assert schedule.compile(spec).next_fires(datetime(2026, 1, 1, tzinfo=UTC), 3) == []
    assert schedule.compile(spec).next_slot(datetime(2026, 1, 1, tzinfo=UTC)) is None


def test_a_rare_day_inside_a_window_is_found() -> None:
    """The search is patient enough for the rarest day there is: a 29 February on a given weekday."""
    spec = ScheduleSpec(cron=("0 5 29 2 *",), windows=(window("mon 00:00-24:00"),))
    schedule.check(spec)
    fire = schedule.compile(spec).next_fire(datetime(2052, 3, 1, tzinfo=UTC))
    assert fire == datetime(2072, 2, 29, 5, tzinfo=UTC)
