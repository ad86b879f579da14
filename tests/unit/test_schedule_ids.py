"""Ids of slots and of other executions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_observer import schedule
from cron_observer.model import ScheduleSpec

UID = UUID("0190a5f0-0000-7000-8000-000000000001")
OTHER = UUID("0190a5f0-0000-7000-8000-000000000002")
AT = datetime(2026, 3, 29, 0, 59, 59, 999_000, tzinfo=UTC)

MOMENT = st.datetimes(
    datetime.fromisoformat("1970-01-01"), datetime.fromisoformat("2200-12-31"), timezones=st.just(UTC)
)


def slots(cron: str, hours: int = 24) -> list[schedule.Slot]:
    spec = ScheduleSpec(cron=(cron,), timezone="Europe/Berlin")
    return list(schedule.compile(spec).slots(AT, AT + timedelta(hours=hours)))


def test_a_slot_id_depends_on_task_label_and_fold_alone() -> None:
    """Two planners with different inputs that name the same slot make the same id."""
    wide, narrow = slots("0 * * * *"), slots("0 5 * * *")
    same = next(slot for slot in wide if slot[:3] == narrow[0][:3])
    assert schedule.slot_id(UID, same) == schedule.slot_id(UID, narrow[0])
    assert schedule.slot_id(UID, same) != schedule.slot_id(OTHER, same)
    assert schedule.slot_id(UID, same) != schedule.slot_id(UID, same._replace(fold=1))
    assert schedule.slot_id(UID, same) == schedule.slot_id(UID, same._replace(fire_at=AT, skip="coalesced"))


def test_slots_of_one_nominal_instant_have_two_ids() -> None:
    """02:30, which a gap swallows, and 03:30 share the instant but not the label."""
    first, second = slots("30 2,3 * * *", 2)
    assert first.nominal_at == second.nominal_at
    assert schedule.slot_id(UID, first) != schedule.slot_id(UID, second)


def test_a_slot_id_never_changes() -> None:
    """A release that changed ids would run slots twice: this one is pinned."""
    slot = slots("0 5 * * *")[0]
    assert str(schedule.slot_id(UID, slot)) == "019d3788-b780-82e1-ae2d-41788d3d8edb"


@given(MOMENT, st.lists(st.text(max_size=5), max_size=3))
def test_ids_are_uuids_of_version_8_that_carry_their_time(at: datetime, parts: list[str]) -> None:
    """Every id has the version and variant of its kind, and its millisecond can be read back."""
    made = schedule.new_id(at, *parts)
    assert (made.version, made.variant) == (8, RFC_4122)
    assert schedule.id_time(made) == at - timedelta(microseconds=at.microsecond % 1000)
    assert schedule.id_floor(at) < made < schedule.id_ceil(at)


@given(MOMENT, MOMENT)
def test_ids_sort_by_time(first: datetime, second: datetime) -> None:
    """An earlier millisecond is a smaller id, whatever follows it."""
    if schedule.id_time(schedule.id_floor(first)) < schedule.id_time(schedule.id_floor(second)):
        assert schedule.id_ceil(first) < schedule.id_floor(second)
        assert schedule.new_id(first) < schedule.new_id(second)


def test_ids_with_parts_repeat_and_without_do_not() -> None:
    """A repeated backfill makes the same rows; two triggers of one millisecond do not collide."""
    assert schedule.new_id(AT, UID, 1) == schedule.new_id(AT, UID, 1)
    assert schedule.new_id(AT, "a", "bc") != schedule.new_id(AT, "ab", "c")
    assert len({schedule.new_id(AT) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("at", [datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)])
def test_times_before_1970_begin_no_id(at: datetime) -> None:
    """There are no negative milliseconds."""
    with pytest.raises(ValueError, match="cannot begin"):
        schedule.id_floor(at)


@given(
    st.uuids(),
    MOMENT,
    st.datetimes(datetime.fromisoformat("1970-01-01"), datetime.fromisoformat("2200-12-31")),
    st.sampled_from((0, 1)),
)
def test_the_digits_of_a_slot_id_are_those_of_the_id(task: UUID, at: datetime, label: datetime, fold: int) -> None:
    """The planner's short cut to many ids never makes another id than everybody else."""
    slot = slots("0 5 * * *")[0]._replace(nominal_at=at, nominal_local=label, fold=fold)
    assert UUID(hex=schedule.SlotMark.of(slot).id_of(task.bytes)) == schedule.slot_id(task, slot)
