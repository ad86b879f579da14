"""Slots: what coalesces, what a union names, intervals, one-off times, limits and bounds."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from cron_observer import schedule
from cron_observer.errors import ScheduleError
from cron_observer.model import FoldRule, GapRule, ScheduleSpec

BERLIN = "Europe/Berlin"
#: The day on which Berlin has no 02:00 to 03:00.
SPRING = datetime(2026, 3, 29, tzinfo=UTC)
#: The day on which Berlin has 02:00 to 03:00 twice.
AUTUMN = datetime(2026, 10, 25, tzinfo=UTC)
DAY = timedelta(days=1)


def told(
    spec: ScheduleSpec, after: datetime, until: datetime, limit: int | None = None
) -> list[tuple[str, str, str, bool]]:
    """Each slot as (label/fold, nominal, fire, coalesced), short."""
    return [
        (
            f"{slot.nominal_local:%d %H:%M:%S}/{slot.fold}",
            f"{slot.nominal_at:%d %H:%M:%S}",
            f"{slot.fire_at:%d %H:%M:%S}",
            slot.coalesced,
        )
        for slot in schedule.compile(spec).slots(after, until, limit)
    ]


def cron(*texts: str, zone: str = BERLIN) -> ScheduleSpec:
    return ScheduleSpec(cron=texts, timezone=zone)


def test_a_swallowed_label_fires_at_the_end_of_the_gap() -> None:
    """Its nominal instant is what the label would have been without the jump."""
    assert told(cron("30 2 * * *"), SPRING, SPRING + timedelta(hours=25)) == [
        ("29 02:30:00/0", "29 01:30:00", "29 01:00:00", False),
        ("30 02:30:00/0", "30 00:30:00", "30 00:30:00", False),
    ]


def test_of_several_swallowed_labels_the_newest_fires() -> None:
    """The others are kept as coalesced slots: each nominal slot has an outcome."""
    assert told(cron("0,20,40 2 * * *"), SPRING, SPRING + timedelta(hours=12)) == [
        ("29 02:00:00/0", "29 01:00:00", "29 01:00:00", True),
        ("29 02:20:00/0", "29 01:20:00", "29 01:00:00", True),
        ("29 02:40:00/0", "29 01:40:00", "29 01:00:00", False),
    ]


def test_an_unshifted_slot_at_the_end_of_the_gap_stays() -> None:
    """A label that exists goes before labels that were moved onto it."""
    assert told(cron("0,30 2,3 * * *"), SPRING, SPRING + timedelta(hours=12)) == [
        ("29 02:00:00/0", "29 01:00:00", "29 01:00:00", True),
        ("29 03:00:00/0", "29 01:00:00", "29 01:00:00", False),
        ("29 02:30:00/0", "29 01:30:00", "29 01:00:00", True),
        ("29 03:30:00/0", "29 01:30:00", "29 01:30:00", False),
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"cron": ("30 2 * * *", "0 * * * *")},
        {"cron": ("30 2 * * *",), "every": timedelta(hours=1)},
        {"cron": ("30 2 * * *",), "at": ("2026-03-29T03:00:00",)},
    ],
)
def test_slots_coalesce_across_the_union(other: dict[str, object]) -> None:
    """It does not matter which part of the schedule holds the unshifted slot."""
    spec = ScheduleSpec(timezone=BERLIN, **other)  # type: ignore[arg-type]
    moved = [slot for slot in schedule.compile(spec).slots(SPRING, SPRING + DAY) if slot.fire_at < slot.nominal_at]
    assert [(slot.nominal_local.hour, slot.coalesced) for slot in moved] == [(2, True)]


def test_fixed_time_fires_at_the_first_pass_only() -> None:
    """A label that is shown twice is one slot."""
    assert told(cron("30 2 * * *"), AUTUMN, AUTUMN + timedelta(hours=12)) == [
        ("25 02:30:00/0", "25 00:30:00", "25 00:30:00", False)
    ]


def test_interval_like_fires_in_both_passes() -> None:
    """The two passes are two slots with two ids."""
    spec = cron("30 * * * *")
    assert told(spec, AUTUMN, AUTUMN + timedelta(hours=3)) == [
        ("25 02:30:00/0", "25 00:30:00", "25 00:30:00", False),
        ("25 02:30:00/1", "25 01:30:00", "25 01:30:00", False),
        ("25 03:30:00/0", "25 02:30:00", "25 02:30:00", False),
    ]


def test_a_union_names_each_instant_once() -> None:
    """Expressions, interval and one-off times that fall together are one slot."""
    spec = ScheduleSpec(cron=("0 6 * * *", "0 6,18 * * *"), every=timedelta(hours=12), at=("2026-06-01T06:00:00",))
    start = datetime(2026, 6, 1, tzinfo=UTC)
    assert [label for label, *_ in told(spec, start, start + DAY)] == [
        "01 06:00:00/0",
        "01 12:00:00/0",
        "01 18:00:00/0",
        "02 00:00:00/0",
    ]


def test_a_missing_day_is_a_gap() -> None:
    """Apia had no 30 December 2011: its noon fires when the 31st begins, beside the noon of the 31st."""
    start = datetime(2011, 12, 30, tzinfo=UTC)
    assert told(cron("0 12 * * *", zone="Pacific/Apia"), start, start + DAY) == [
        ("30 12:00:00/0", "30 22:00:00", "30 10:00:00", False),
        ("31 12:00:00/0", "30 22:00:00", "30 22:00:00", False),
    ]


def test_fires_come_in_order_of_firing() -> None:
    """What a gap moved forward stands where it fires, not where its nominal instant is."""
    compiled = schedule.compile(cron("30 2 * * *", "15 3 * * *"))
    fires = compiled.next_fires(SPRING, 3)
    assert [f"{fire:%d %H:%M}" for fire in fires] == ["29 01:00", "29 01:15", "30 00:30"]
    assert compiled.next_fires(fires[0], 2) == fires[1:]
    assert compiled.next_fires(SPRING + timedelta(hours=1, minutes=10), 1) == fires[1:2]


def test_slots_are_settled_behind_the_gap() -> None:
    """To know all that fires up to the jump one must know nominal instants of a gap's length beyond it."""
    compiled = schedule.compile(cron("30 2 * * *"))
    jump = SPRING + timedelta(hours=1)
    assert compiled.settled(jump - timedelta(seconds=1)) == jump - timedelta(seconds=1)
    assert compiled.settled(jump) == jump + timedelta(minutes=59, seconds=59)
    assert compiled.settled(jump + timedelta(hours=1)) == jump + timedelta(hours=1)
    made = [slot for slot in compiled.slots(SPRING, compiled.settled(jump)) if slot.fire_at <= jump]
    assert len(made) == 1
    assert schedule.compile(cron("0 * * * *", zone="UTC")).settled(jump) == jump


def test_a_limit_never_parts_slots_of_one_nominal_instant() -> None:
    """A planner that goes on behind the last nominal instant loses nothing."""
    spec = cron("30 2,3 * * *")
    assert len(told(spec, SPRING, SPRING + DAY, 0)) == 0
    assert [label for label, *_ in told(spec, SPRING, SPRING + DAY, 1)] == ["29 02:30:00/0", "29 03:30:00/0"]
    assert len(told(spec, SPRING, SPRING + DAY, 2)) == 2
    assert len(told(cron("* * * * *"), AUTUMN, AUTUMN + DAY, 7)) == 7


def test_every_counts_elapsed_time_from_its_anchor() -> None:
    """Clock changes do not move it; the anchor may lie in the future, it only gives the phase."""
    spec = ScheduleSpec(every=timedelta(hours=6), anchor="2030-01-01T01:30:00", timezone=BERLIN)
    assert [label for label, *_ in told(spec, SPRING - timedelta(hours=1), SPRING + timedelta(hours=18))] == [
        "29 01:30:00/0",
        "29 08:30:00/0",
        "29 14:30:00/0",
    ]
    shifted = ScheduleSpec(every=timedelta(hours=6), anchor="2030-01-01T01:30:00+05:30")
    assert [label for label, *_ in told(shifted, SPRING, SPRING + timedelta(hours=6))] == ["29 02:00:00/0"]


def test_every_begins_at_local_midnight_by_default() -> None:
    """The default anchor is midnight of 1970-01-01 in the schedule's zone; fold tells the passes apart."""
    spec = ScheduleSpec(every=timedelta(days=1), timezone="Asia/Kolkata")
    start = datetime(1970, 1, 5, tzinfo=UTC)
    assert told(spec, start, start + DAY) == [("06 00:00:00/0", "05 18:30:00", "05 18:30:00", False)]
    half = ScheduleSpec(every=timedelta(minutes=30), timezone=BERLIN)
    assert [label for label, *_ in told(half, AUTUMN, AUTUMN + timedelta(hours=2))] == [
        "25 02:30:00/0",
        "25 02:00:00/1",
        "25 02:30:00/1",
        "25 03:00:00/0",
    ]


def test_an_anchor_follows_the_rule_of_clock_changes() -> None:
    """An anchor that the clock skips is the end of the gap; one that it shows twice is the first."""
    skipped = ScheduleSpec(every=timedelta(days=1), anchor="2026-03-29T02:30:00", timezone=BERLIN)
    assert [fire for _, _, fire, _ in told(skipped, SPRING, SPRING + DAY)] == ["29 01:00:00"]
    twice = ScheduleSpec(every=timedelta(days=1), anchor="2026-10-25T02:30:00", timezone=BERLIN)
    assert [fire for _, _, fire, _ in told(twice, AUTUMN, AUTUMN + DAY)] == ["25 00:30:00"]


def test_every_of_milliseconds_keeps_them() -> None:
    """1500 ms is a second and a half."""
    spec = ScheduleSpec(every=timedelta(milliseconds=1500))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    fires = schedule.compile(spec).next_fires(start + timedelta(microseconds=1), 3)
    assert [fire - start for fire in fires] == [timedelta(milliseconds=ms) for ms in (1500, 3000, 4500)]


def test_one_off_times_follow_the_rule_of_clock_changes() -> None:
    """A local time in a gap fires at its end, one that comes twice at the first; an offset is exact."""
    spec = ScheduleSpec(
        at=(
            "2026-10-25T02:30:00",
            "2026-10-25T02:30:00+01:00",
            "2026-03-29T02:30:15",
            "2026-03-29T00:30:00Z",
            "2026-03-29T01:30",
        ),
        timezone=BERLIN,
    )
    assert told(spec, SPRING, AUTUMN + DAY) == [
        ("29 01:30:00/0", "29 00:30:00", "29 00:30:00", False),
        ("29 02:30:15/0", "29 01:30:15", "29 01:00:00", False),
        ("25 02:30:00/0", "25 00:30:00", "25 00:30:00", False),
        ("25 02:30:00/1", "25 01:30:00", "25 01:30:00", False),
    ]


def test_a_schedule_of_past_times_never_fires_again() -> None:
    """`next_slot` is None and `next_fires` is empty when nothing is left."""
    compiled = schedule.compile(ScheduleSpec(at=("2020-02-02T00:00:00",)))
    assert compiled.next_slot(datetime(2020, 2, 2, tzinfo=UTC)) is None
    assert compiled.next_fires(datetime(2026, 1, 1, tzinfo=UTC), 5) == []
    before = compiled.next_slot(datetime(2020, 2, 1, 23, 59, 59, 999_999, tzinfo=UTC))
    assert before is not None
    assert before.nominal_at == datetime(2020, 2, 2, tzinfo=UTC)


def test_the_next_slot_of_a_rare_schedule_is_quick() -> None:
    """29 February, also across 2100, is found by months, not by minutes."""
    compiled = schedule.compile(cron("0 0 29 2 *", zone="UTC"))
    began = time.process_time()
    found = compiled.next_slot(datetime(2096, 3, 1, tzinfo=UTC))
    assert time.process_time() - began < 0.2
    assert found is not None
    assert found.nominal_at == datetime(2104, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    "spec",
    [cron("0 0 1 * *"), cron("* * * * *"), ScheduleSpec(every=timedelta(days=30), timezone="Pacific/Kiritimati")],
)
def test_nothing_is_produced_outside_1970_to_2200(spec: ScheduleSpec) -> None:
    """The ends of the calendar are ends of the schedule, not errors."""
    compiled = schedule.compile(spec)
    first = next(compiled.slots(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)))
    assert datetime(1970, 1, 1, tzinfo=UTC) <= first.nominal_at < datetime(1970, 3, 1, tzinfo=UTC)
    late = datetime(2200, 12, 31, 23, 58, tzinfo=UTC)
    assert all(slot.nominal_at.year == 2200 for slot in compiled.slots(late, datetime.max.replace(tzinfo=UTC)))
    assert compiled.next_slot(datetime(2201, 1, 1, tzinfo=UTC)) is None


def test_times_without_a_zone_are_a_mistake() -> None:
    """A naive time is refused at once, not when the first slot is taken."""
    compiled = schedule.compile(cron("* * * * *"))
    with pytest.raises(ValueError, match="aware"):
        compiled.slots(datetime.fromisoformat("2026-01-01"), datetime(2026, 1, 2, tzinfo=UTC))


def test_the_same_spec_compiles_to_the_same_schedule() -> None:
    """A storm of tasks with one schedule compiles it once."""
    assert schedule.compile(cron("1 2 3 4 5")) is schedule.compile(cron("1 2 3 4 5"))


@pytest.mark.parametrize(
    ("spec", "rule", "pointer"),
    [
        (ScheduleSpec(), "CO3001", ""),
        (ScheduleSpec(cron=("0 0 * * *",) * 51), "CO3002", "/cron"),
        (ScheduleSpec(every=timedelta(0)), "CO3012", "/every"),
        (ScheduleSpec(every=timedelta(milliseconds=999)), "CO3012", "/every"),
        (ScheduleSpec(every=timedelta(seconds=-5)), "CO3012", "/every"),
        (ScheduleSpec(every=timedelta(seconds=1, microseconds=1)), "CO3012", "/every"),
        (ScheduleSpec(every=timedelta(days=3661)), "CO3012", "/every"),
        (ScheduleSpec(every=timedelta(days=1), anchor="tomorrow"), "CO3013", "/anchor"),
        (ScheduleSpec(every=timedelta(days=1), anchor="1066-10-14T00:00:00"), "CO3015", "/anchor"),
        (ScheduleSpec(cron=("0 0 * * *",), anchor="2026-01-01T00:00:00"), "CO3013", "/anchor"),
        (ScheduleSpec(at=("2026-01-01",)), "CO3014", "/at"),
        (ScheduleSpec(at=("2026-W01-1T00:00",)), "CO3014", "/at"),
        (ScheduleSpec(at=("2026-02-30T00:00:00",)), "CO3014", "/at"),
        (ScheduleSpec(at=("2026-01-01T24:00:00",)), "CO3014", "/at"),
        (ScheduleSpec(at=("2026-01-01T00:00:00.5",)), "CO3014", "/at"),
        (ScheduleSpec(at=("2026-01-01T00:00:00", "x" * 1000)), "CO3014", "/at/1"),
        (ScheduleSpec(at=("1969-12-31T23:59:59",)), "CO3015", "/at"),
        (ScheduleSpec(at=("0001-01-01T00:00:00+14:00",)), "CO3014", "/at"),
        (ScheduleSpec(at=("2201-01-01T00:00:00",)), "CO3015", "/at"),
        (ScheduleSpec(at=("2026-01-01T00:00:00",) * 1001), "CO3014", "/at"),
    ],
)
def test_what_is_no_schedule_is_refused_at_its_place(spec: ScheduleSpec, rule: str, pointer: str) -> None:
    """`check` and `compile` refuse alike, and name the field."""
    for call in (schedule.check, schedule.compile):
        with pytest.raises(ScheduleError) as refused:
            call(spec)
        assert (refused.value.rule, refused.value.pointer) == (rule, pointer)
        assert len(refused.value.message) < 200


@pytest.mark.parametrize("parts", [{"cron": ("30 2 29 3 *",)}, {"at": ("2026-03-29T02:30:00",)}])
@pytest.mark.parametrize(
    ("gap", "fire", "skip", "moved_by"),
    [
        (GapRule.FIRST_VALID, "01:00", None, "dst"),
        (GapRule.SKIP, "01:30", "dst_gap", None),
        (GapRule.SHIFT, "01:30", None, "dst"),
    ],
)
def test_the_rule_for_gaps(
    parts: dict[str, tuple[str, ...]], gap: GapRule, fire: str, skip: str | None, moved_by: str | None
) -> None:
    """A skipped label is one slot by every rule, with the same identity; cron and one-off times alike."""
    made = schedule.compile(ScheduleSpec(timezone=BERLIN, gap=gap, **parts))  # type: ignore[arg-type]
    (slot,) = made.slots(SPRING, SPRING + DAY)
    assert (f"{slot.nominal_local:%H:%M}", f"{slot.nominal_at:%H:%M}", slot.fold) == ("02:30", "01:30", 0)
    assert (f"{slot.fire_at:%H:%M}", slot.skip, slot.moved_by) == (fire, skip, moved_by)
    fires = [fire for fire in made.next_fires(SPRING, 1) if fire < SPRING + DAY]
    assert fires == ([] if skip else [slot.fire_at])


@pytest.mark.parametrize("parts", [{"cron": ("30 2 25 10 *",)}, {"at": ("2026-10-25T02:30:00",)}])
@pytest.mark.parametrize(
    ("overlap", "wanted"),
    [
        (FoldRule.FIRST, [("00:30", 0)]),
        (FoldRule.SECOND, [("01:30", 1)]),
        (FoldRule.BOTH, [("00:30", 0), ("01:30", 1)]),
    ],
)
def test_the_rule_for_overlaps(
    parts: dict[str, tuple[str, ...]], overlap: FoldRule, wanted: list[tuple[str, int]]
) -> None:
    """Of a label that is shown twice the chosen passes are slots; cron and one-off times alike."""
    made = schedule.compile(ScheduleSpec(timezone=BERLIN, overlap=overlap, **parts))  # type: ignore[arg-type]
    slots = list(made.slots(AUTUMN, AUTUMN + DAY))
    assert [(f"{slot.nominal_at:%H:%M}", slot.fold) for slot in slots] == wanted
    assert all(slot.fire_at == slot.nominal_at and slot.moved_by is None for slot in slots)


def test_exact_times_have_no_clock_to_follow() -> None:
    """A one-off time with an offset is an instant, whatever the rules say."""
    for overlap in FoldRule:
        spec = ScheduleSpec(at=("2026-10-25T02:30:00+01:00",), timezone=BERLIN, overlap=overlap, gap=GapRule.SKIP)
        assert told(spec, AUTUMN, AUTUMN + DAY) == [("25 02:30:00/1", "25 01:30:00", "25 01:30:00", False)]


def test_a_shifted_slot_gives_way_to_the_one_that_stands_there() -> None:
    """02:30 comes to 03:30, where 03:30 has its own slot."""
    spec = ScheduleSpec(cron=("30 2,3 * * *",), timezone=BERLIN, gap=GapRule.SHIFT)
    assert told(spec, SPRING, SPRING + timedelta(hours=12)) == [
        ("29 02:30:00/0", "29 01:30:00", "29 01:30:00", True),
        ("29 03:30:00/0", "29 01:30:00", "29 01:30:00", False),
    ]


def test_the_rules_leave_elapsed_time_alone() -> None:
    """Interval-like expressions and `every` run on in spring and autumn alike."""
    for parts in ({"cron": ("*/30 * * * *",)}, {"every": timedelta(minutes=30)}):
        for day in (SPRING, AUTUMN):
            plain = schedule.compile(ScheduleSpec(timezone=BERLIN, **parts))  # type: ignore[arg-type]
            ruled = ScheduleSpec(timezone=BERLIN, gap=GapRule.SKIP, overlap=FoldRule.SECOND, **parts)  # type: ignore[arg-type]
            assert list(schedule.compile(ruled).slots(day, day + DAY)) == list(plain.slots(day, day + DAY))
            assert len(plain.next_fires(day, 48)) == 48
