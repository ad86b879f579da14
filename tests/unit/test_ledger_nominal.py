"""The second witness: slots counted label by label are the slots that the engine computes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cron_observer import schedule
from cron_observer.errors import ScheduleError
from cron_observer.ledger import Nominal, nominal_slots, slot_id
from cron_observer.model import FoldRule, GapRule, OnExcluded, ScheduleSpec, Window
from cron_observer.schedule.calendars import Calendar, read_calendar

UID = UUID("0190a5f0-0000-7000-8000-000000000001")

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "Pacific/Chatham",
    "Asia/Gaza",
    "Africa/Monrovia",
]

EXPRESSION = st.tuples(
    st.sampled_from(["*", "*/7", "0", "30", "0,20,45", "H"]),
    st.sampled_from(["*", "*/2", "0", "2", "1-3", "0,23", "H"]),
    st.sampled_from(["*", "*", "*/2", "1,15,L", "28-31"]),
    st.sampled_from(["*", "*", "*/2", "3,10,12"]),
    st.sampled_from(["*", "*", "0", "1-5", "L7", "0#2"]),
).map(" ".join)

#: The weeks around changes of the zones above, and any time.
MOMENT = st.one_of(
    st.datetimes(datetime.fromisoformat("2011-12-27"), datetime.fromisoformat("2012-01-02")),
    st.datetimes(datetime.fromisoformat("2026-03-07"), datetime.fromisoformat("2026-04-06")),
    st.datetimes(datetime.fromisoformat("2018-10-30"), datetime.fromisoformat("2018-11-06")),
    st.datetimes(datetime.fromisoformat("2026-10-03"), datetime.fromisoformat("2026-11-02")),
    st.datetimes(datetime.fromisoformat("1970-03-02"), datetime.fromisoformat("2100-01-01")),
).map(lambda naive: naive.replace(tzinfo=UTC))

LOCAL = st.datetimes(datetime.fromisoformat("2011-12-28"), datetime.fromisoformat("2026-12-31")).map(
    lambda naive: naive.replace(microsecond=0).isoformat()
)

WINDOW = st.builds(
    Window,
    st.frozensets(st.integers(0, 6), min_size=1),
    st.sampled_from([0, 60, 150, 1320]),
    st.sampled_from([60, 180, 600, 1440]),
)

CONTENT = st.fixed_dictionaries(
    {
        "parts": st.lists(
            st.fixed_dictionaries(
                {
                    "timezone": st.sampled_from([None, "Pacific/Auckland"]),
                    "dates": st.sampled_from([[], [["2026-03-28", "2026-03-30"]], [["2011-12-29", "2012-01-01"]]]),
                    "yearly": st.sampled_from([[], ["10-25", "04-05"]]),
                    "weekdays": st.sampled_from([[], [0, 6], [1, 2, 3, 4, 5]]),
                    "holidays": st.sampled_from([[], [{"country": "DE", "subdivision": "BE"}]]),
                    "spans": st.sampled_from([[], [["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"]]]),
                }
            ),
            min_size=1,
            max_size=2,
        )
    }
)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[ScheduleSpec, dict[str, Calendar]]:
    """Draw a spec with everything that a schedule block may say, and its calendars."""
    cron = tuple(draw(st.lists(EXPRESSION, max_size=2)))
    at = tuple(draw(st.lists(LOCAL, max_size=3)))
    every = draw(st.sampled_from([None, None, timedelta(minutes=7), timedelta(hours=5), timedelta(days=1)]))
    if not cron and not at and every is None:
        cron = ("30 2 * * *",)
    contents = draw(st.dictionaries(st.sampled_from(["a@1", "b@2"]), CONTENT, max_size=2))
    names = sorted(contents)
    some: dict[str, Any] = {}
    if draw(st.booleans()):
        some["windows"] = tuple(draw(st.lists(WINDOW, min_size=1, max_size=2)))
    if draw(st.booleans()):
        some["start_at"] = draw(LOCAL)
    spec = ScheduleSpec(
        cron=cron,
        every=every,
        anchor=draw(st.one_of(st.none(), LOCAL)) if every is not None else None,
        at=at,
        timezone=draw(st.sampled_from(ZONES)),
        gap=draw(st.sampled_from(GapRule)),
        overlap=draw(st.sampled_from(FoldRule)),
        include=tuple(names[:1]) if draw(st.booleans()) else (),
        exclude=tuple(names[1:]) if draw(st.booleans()) else (),
        on_excluded=draw(st.sampled_from(OnExcluded)),
        jitter=draw(st.sampled_from([None, None, timedelta(minutes=5)])),
        seed="p/n",
        **some,
    )
    return spec, {name: read_calendar(content) for name, content in contents.items()}


def agrees(slot: schedule.Slot, witness: Nominal, jitter: timedelta) -> bool:
    """Say whether a slot fires, or stands, where the witness allows it."""
    if slot.skip is not None:
        return slot.fire_at in (*witness.stands, *witness.fires) and (slot.skip != "calendar" or not witness.allowed)
    return any(fire <= slot.fire_at <= fire + jitter for fire in witness.fires)


@settings(max_examples=400, deadline=None)
@given(schedules(), MOMENT, st.sampled_from([timedelta(hours=3), timedelta(days=2), timedelta(days=6)]))
@example(
    (ScheduleSpec(cron=("30 2 * * *",), timezone="Europe/Berlin", gap=GapRule.SKIP, overlap=FoldRule.BOTH), {}),
    datetime(2026, 3, 28, tzinfo=UTC),
    timedelta(days=300),
)
def test_both_witnesses_name_the_same_slots(
    drawn: tuple[ScheduleSpec, dict[str, Calendar]], start: datetime, span: timedelta
) -> None:
    """Nominal instants, labels, folds and ids are the same, and each slot fires where the other witness says."""
    spec, calendars = drawn
    try:
        compiled = schedule.compile(spec, calendars)
    except ScheduleError:
        return
    slots = list(compiled.slots(start, start + span))
    witnesses = nominal_slots(spec, calendars, start, start + span)
    assert [(one.at, one.label, one.fold) for one in witnesses] == sorted(slot[:3] for slot in slots)
    known = {(one.at, one.label, one.fold): one for one in witnesses}
    jitter = spec.jitter or timedelta()
    for slot in slots:
        assert agrees(slot, known[slot[:3]], jitter), slot
        assert schedule.slot_id(UID, slot) == slot_id(UID, *slot[:3])


def test_a_gap_and_its_rules() -> None:
    """What Berlin's clock swallows at 02:30 fires at 03:00, at 03:30, or not, as its rule says."""
    day = datetime(2026, 3, 29, tzinfo=UTC)

    def fires(gap: GapRule) -> list[tuple[datetime, ...]]:
        spec = ScheduleSpec(cron=("30 2 * * *",), timezone="Europe/Berlin", gap=gap)
        return [one.fires for one in nominal_slots(spec, {}, day, day + timedelta(hours=12))]

    assert fires(GapRule.FIRST_VALID) == [(day + timedelta(hours=1),)]
    assert fires(GapRule.SHIFT) == [(day + timedelta(hours=1, minutes=30),)]
    assert fires(GapRule.SKIP) == [()]


def test_an_excluded_day_is_left() -> None:
    """A slot on an excluded day moves to the nearest day that its calendars allow, both ways, or is skipped."""
    content = {
        "parts": [{"timezone": None, "dates": [], "yearly": [], "weekdays": [0, 6], "holidays": [], "spans": []}]
    }
    calendars = {"weekend@1": read_calendar(content)}
    saturday = datetime(2026, 3, 7, tzinfo=UTC)

    def fires(rule: OnExcluded) -> list[tuple[datetime, ...]]:
        spec = ScheduleSpec(cron=("0 9 7 * *",), exclude=("weekend@1",), on_excluded=rule)
        return [one.fires for one in nominal_slots(spec, calendars, saturday, saturday + timedelta(days=1))]

    assert fires(OnExcluded.SKIP) == [()]
    assert fires(OnExcluded.NEXT_ALLOWED) == [(saturday + timedelta(days=2, hours=9),)]
    assert fires(OnExcluded.PREVIOUS_ALLOWED) == [(saturday - timedelta(hours=15),)]
