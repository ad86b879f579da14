"""What holds for every schedule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from cron_observer import schedule
from cron_observer.model import FoldRule, GapRule, ScheduleSpec

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
    "Asia/Tehran",
    "Africa/Monrovia",
]

FIELD = st.sampled_from(["*", "*/7", "0", "30", "0,20,45"])
EXPRESSION = st.tuples(
    FIELD,
    st.sampled_from(["*", "*/2", "0", "2", "1-3", "0,23", "H"]),
    st.sampled_from(["*", "*", "*/2", "1,15,L", "28-31"]),
    st.sampled_from(["*", "*", "*/2", "3,10,12"]),
    st.sampled_from(["*", "*", "0", "1-5", "L7", "0#2"]),
).map(" ".join)

MOMENT = st.one_of(
    st.datetimes(datetime.fromisoformat("1970-01-02"), datetime.fromisoformat("2100-01-01")),
    # The half year around changes of most of the zones above.
    st.datetimes(datetime.fromisoformat("2011-12-28"), datetime.fromisoformat("2012-01-02")),
    st.datetimes(datetime.fromisoformat("2026-03-07"), datetime.fromisoformat("2026-04-06")),
    st.datetimes(datetime.fromisoformat("2018-02-16"), datetime.fromisoformat("2018-02-20")),
    st.datetimes(datetime.fromisoformat("2026-10-03"), datetime.fromisoformat("2026-11-02")),
).map(lambda naive: naive.replace(tzinfo=UTC))

LOCAL = st.datetimes(datetime.fromisoformat("2011-12-28"), datetime.fromisoformat("2026-12-31")).map(
    lambda naive: naive.replace(microsecond=0).isoformat()
)


@st.composite
def specs(draw: st.DrawFn) -> ScheduleSpec:
    cron = tuple(draw(st.lists(EXPRESSION, max_size=3)))
    at = tuple(draw(st.lists(LOCAL, max_size=3)))
    every = draw(st.sampled_from([None, None, timedelta(minutes=7), timedelta(hours=5), timedelta(days=1)]))
    if not cron and not at and every is None:
        cron = ("* * * * *",)
    anchor = draw(st.one_of(st.none(), LOCAL)) if every is not None else None
    return ScheduleSpec(cron=cron, every=every, anchor=anchor, at=at, timezone=draw(st.sampled_from(ZONES)), seed="p/n")


def shown(slot: schedule.Slot, zone: str) -> bool:
    """Whether the wall clock shows the slot's label at its nominal instant, or a gap swallowed it."""
    return slot.nominal_at.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0) == slot.nominal_local


SPAN = st.sampled_from([timedelta(hours=3), timedelta(days=2), timedelta(days=6)])


@settings(max_examples=200, deadline=None)
@given(specs(), MOMENT, SPAN)
def test_slots_rise_and_their_ids_with_them(spec: ScheduleSpec, start: datetime, span: timedelta) -> None:
    """No two slots are the same, ids sort by nominal instant, and only shared labels share an instant."""
    slots = list(schedule.compile(spec).slots(start, start + span))
    assert all(first[:3] < second[:3] for first, second in pairwise(slots))
    assert all(start < slot.nominal_at <= start + span for slot in slots)
    ids = [schedule.slot_id(UID, slot) for slot in slots]
    assert len(set(ids)) == len(ids)
    for slot, made in zip(slots, ids, strict=True):
        assert schedule.id_time(made) == slot.nominal_at
        assert schedule.id_floor(slot.nominal_at) < made < schedule.id_ceil(slot.nominal_at)
    for first, second in pairwise(slots):
        if first.nominal_at == second.nominal_at:
            assert not shown(first, spec.timezone)  # a gap swallowed the first
            assert shown(second, spec.timezone)


@settings(max_examples=200, deadline=None)
@given(specs(), MOMENT, SPAN, st.lists(st.floats(0, 1), max_size=4))
def test_slots_asked_in_parts_are_the_slots_asked_at_once(
    spec: ScheduleSpec, start: datetime, span: timedelta, cuts: list[float]
) -> None:
    """Wherever a planner stops and goes on, it plans the same slots with the same marks."""
    compiled = schedule.compile(spec)
    whole = list(compiled.slots(start, start + span))
    points = [start, *(start + span * cut for cut in sorted(cuts)), start + span]
    parts = [slot for low, high in pairwise(points) for slot in compiled.slots(low, high)]
    assert parts == whole


@settings(max_examples=100, deadline=None)
@given(specs(), MOMENT, st.integers(1, 9))
def test_planning_by_limits_reaches_the_same_slots(spec: ScheduleSpec, start: datetime, limit: int) -> None:
    """Going on behind the last nominal instant of a limited answer loses and repeats nothing."""
    compiled = schedule.compile(spec)
    end = start + timedelta(hours=30)
    planned, at = [], start
    while batch := list(compiled.slots(at, end, limit)):
        assert len(batch) <= limit + 1
        planned += batch
        at = batch[-1].nominal_at
        if len(planned) > 60:
            end = at
            break
    assert planned == list(compiled.slots(start, end))


@settings(max_examples=200, deadline=None)
@given(specs(), MOMENT)
def test_fires_are_the_slots_in_order_of_firing(spec: ScheduleSpec, start: datetime) -> None:
    """What explains is what plans: fires are distinct, ordered, and exactly the slots that stay."""
    compiled = schedule.compile(spec)
    fires = compiled.next_fires(start, 40)
    assert all(first < second for first, second in pairwise(fires))
    assert all(fire > start for fire in fires)
    end = fires[-1] if len(fires) == 40 else datetime(2200, 1, 1, tzinfo=UTC)
    if len(fires) == 40:
        stay = [
            slot.fire_at
            for slot in compiled.slots(start, compiled.settled(end))
            if not slot.coalesced and start < slot.fire_at <= end
        ]
        assert sorted(stay) == fires


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(ZONES),
    MOMENT,
    st.integers(0, 23),
    st.integers(0, 59),
)
def test_daily_is_once_a_local_day(zone: str, start: datetime, hour: int, minute: int) -> None:
    """A fixed daily time has one slot for each date of the calendar and fires once on each day there is."""
    compiled = schedule.compile(ScheduleSpec(cron=(f"{minute} {hour} * * *",), timezone=zone))
    slots = list(compiled.slots(start, start + timedelta(days=40)))
    dates = [slot.nominal_local.date() for slot in slots]
    assert sorted(dates) == [min(dates) + timedelta(days=number) for number in range(len(dates))]
    assert len(dates) in {39, 40, 41}
    fired = [slot for slot in slots if not slot.coalesced]
    assert len({slot.fire_at for slot in fired}) == len(fired)
    # Only midnight of a day that Apia never had falls onto another midnight.
    assert {f"{slot.nominal_local:%Y-%m-%d %H:%M} {zone}" for slot in slots if slot.coalesced} <= {
        "2011-12-30 00:00 Pacific/Apia"
    }


@settings(max_examples=150, deadline=None)
@given(specs(), MOMENT)
def test_a_slot_shows_its_label(spec: ScheduleSpec, start: datetime) -> None:
    """An unshifted slot's wall clock shows its label and fold; a shifted one fires at the end of its gap."""
    info = ZoneInfo(spec.timezone)
    for slot in schedule.compile(spec).slots(start, start + timedelta(days=1)):
        assert slot.nominal_local.replace(tzinfo=info, fold=slot.fold).astimezone(UTC) == slot.nominal_at
        if shown(slot, spec.timezone):
            assert slot.fire_at == slot.nominal_at
            assert slot.nominal_at.astimezone(info).fold == slot.fold
        else:
            before = (slot.fire_at - timedelta(seconds=1)).astimezone(info).replace(tzinfo=None)
            assert before < slot.nominal_local < slot.fire_at.astimezone(info).replace(tzinfo=None)


@settings(max_examples=150, deadline=None)
@given(specs(), MOMENT)
def test_the_next_slot_is_the_first_slot(spec: ScheduleSpec, start: datetime) -> None:
    """`next_slot` agrees with `slots`."""
    compiled = schedule.compile(spec)
    found = compiled.next_slot(start)
    slots = compiled.slots(start, start + timedelta(days=3))
    if found is None or found.nominal_at > start + timedelta(days=3):
        assert list(slots) == []
    else:
        assert next(slots) == found


@settings(max_examples=200, deadline=None)
@given(specs(), st.sampled_from(GapRule), st.sampled_from(FoldRule), MOMENT, st.floats(0, 1))
def test_the_short_cut_names_the_fires_of_the_slots(
    spec: ScheduleSpec, gap: GapRule, overlap: FoldRule, start: datetime, fraction: float
) -> None:
    """`next_fire`, which calculates where no clock change is near, gives what `slots` gives."""
    compiled = schedule.compile(replace(spec, gap=gap, overlap=overlap))
    at = start + timedelta(seconds=fraction)
    span = timedelta(days=2)
    # What fires in the span is nominal up to a missing day later.
    slots = compiled.slots(at - timedelta(days=1), compiled.settled(at + span) + timedelta(days=1))
    fires = sorted(slot.fire_at for slot in slots if slot.skip is None and at < slot.fire_at <= at + span)
    made = []
    while len(made) < 30 and (fire := compiled.next_fire(at)) is not None and fire <= start + span:
        made.append(fire)
        at = fire
    assert made == [fire for fire in fires if fire <= start + span][: len(made)]
    assert len(made) == 30 or len(made) == len([fire for fire in fires if fire <= start + span])


@settings(max_examples=200, deadline=None)
@given(specs(), st.sampled_from(GapRule), st.sampled_from(FoldRule), MOMENT)
def test_rules_for_clock_changes_change_nothing_else(
    spec: ScheduleSpec, gap: GapRule, overlap: FoldRule, start: datetime
) -> None:
    """Away from labels that are skipped or repeated, and for elapsed time, all nine pairs of rules give one answer."""
    info = ZoneInfo(spec.timezone)

    def plain(rules: ScheduleSpec) -> list[tuple[datetime, datetime]]:
        slots = schedule.compile(rules).slots(start, start + timedelta(days=3))
        return [
            (slot.nominal_at, slot.fire_at)
            for slot in slots
            if shown(slot, spec.timezone)
            and len({slot.nominal_local.replace(tzinfo=info, fold=fold).utcoffset() for fold in (0, 1)}) == 1
        ]

    assert plain(replace(spec, gap=gap, overlap=overlap)) == plain(spec)
    if not spec.at and all(text.startswith("*") for text in spec.cron):
        bare, ruled = schedule.compile(spec), schedule.compile(replace(spec, gap=gap, overlap=overlap))
        end = start + timedelta(days=3)
        assert list(bare.slots(start, end)) == list(ruled.slots(start, end))


@settings(max_examples=150, deadline=None)
@given(specs(), st.sampled_from(GapRule), st.sampled_from(FoldRule), MOMENT, st.lists(st.floats(0, 1), max_size=3))
def test_every_pair_of_rules_is_asked_in_parts(
    spec: ScheduleSpec, gap: GapRule, overlap: FoldRule, start: datetime, cuts: list[float]
) -> None:
    """Wherever a planner stops and goes on, the slots and their marks are the same, and fires never meet."""
    compiled = schedule.compile(replace(spec, gap=gap, overlap=overlap))
    span = timedelta(days=3)
    points = [start, *(start + span * cut for cut in sorted(cuts)), start + span]
    whole = list(compiled.slots(start, start + span))
    assert [slot for low, high in pairwise(points) for slot in compiled.slots(low, high)] == whole
    fires = [slot.fire_at for slot in whole if slot.skip is None]
    assert len(set(fires)) == len(fires)
