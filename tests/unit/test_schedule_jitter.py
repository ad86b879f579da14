"""Jitter: drawn, not rolled; within its bounds; never past the next fire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cron_observer import schedule
from cron_observer.errors import ScheduleError
from cron_observer.model import GapRule, ScheduleSpec

NOW = datetime(2026, 3, 27, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def made(jitter: timedelta | None, seed: str | None = "default/a", **spec: Any) -> schedule.Schedule:
    """Return a schedule with this jitter, daily at 02:30 in Berlin unless it says something else."""
    block = spec or {"cron": ("30 2 * * *",), "timezone": "Europe/Berlin"}
    return schedule.compile(ScheduleSpec(jitter=jitter, seed=seed, **block))


def delays(one: schedule.Schedule, days: int = 40) -> list[timedelta]:
    """Return how much later than without jitter the slots fire."""
    return [slot.fire_at - slot.nominal_at for slot in one.slots(NOW + 3 * DAY, NOW + days * DAY)]


def test_everybody_draws_the_same() -> None:
    """The delay is a function of seed and nominal instant: another process or another range gives the same."""
    told = [(slot.nominal_at, slot.fire_at) for slot in made(HOUR).slots(NOW, NOW + 9 * DAY)]
    again = [(slot.nominal_at, slot.fire_at) for slot in made(HOUR).slots(NOW + 3 * DAY, NOW + 9 * DAY)]
    assert told[3:] == again
    # The rule is written down, so the numbers may not change: stored slots were drawn by it.
    assert [f"{fire:%H:%M:%S.%f}"[:-3] for _, fire in told[:2]] == ["02:13:45.288", "01:42:18.781"]


def test_delays_spread_over_their_range() -> None:
    """They are not negative, stay below the jitter, differ from day to day and from task to task."""
    found = delays(made(HOUR), 300)
    assert all(timedelta(0) <= delay < HOUR for delay in found)
    assert len(set(found)) > 290
    thirds = [sum(HOUR * third / 3 <= delay < HOUR * (third + 1) / 3 for delay in found) for third in range(3)]
    assert min(thirds) > 70
    assert delays(made(HOUR, "default/b")) != delays(made(HOUR))


def test_a_slot_says_that_jitter_moved_it() -> None:
    """What moved it is listed in the order in which it happened; what is skipped has no jitter."""
    spring = made(HOUR, cron=("0,30 2 * * *",), timezone="Europe/Berlin")
    slots = list(spring.slots(datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 3, 30, 12, tzinfo=UTC)))
    assert [(slot.moved_by, slot.skip) for slot in slots] == [
        ("dst", "coalesced"),
        ("dst+jitter", None),
        ("jitter", None),
        ("jitter", None),
    ]
    skipped = made(HOUR, cron=("30 2 29 3 *",), timezone="Europe/Berlin", gap=GapRule.SKIP).next_slot(NOW)
    assert skipped is not None
    assert (skipped.skip, skipped.moved_by, skipped.fire_at) == ("dst_gap", None, skipped.nominal_at)


def test_next_fires_come_before_jitter_and_slots_after_it() -> None:
    """`next_fires` says what the expression says; `next_fire_slots` when it really fires."""
    one = made(HOUR)
    assert one.next_fires(NOW, 5) == made(None).next_fires(NOW, 5)
    ahead = list(islice(one.next_fire_slots(NOW), 5))
    assert ahead == list(one.slots(NOW, one.next_fires(NOW, 5)[-1] + MINUTE))[:5]
    # Between the nominal instant and the fire, the slot is still to come.
    first = ahead[0]
    assert next(one.next_fire_slots(first.fire_at - timedelta(milliseconds=1))) == first
    assert next(one.next_fire_slots(first.fire_at)) == ahead[1]


def test_without_a_seed_nothing_is_drawn() -> None:
    """The fires can be explained without the task's name; its slots cannot be planned."""
    assert len(made(HOUR, None).next_fires(NOW, 3)) == 3
    with pytest.raises(ScheduleError) as refused:
        list(made(HOUR, None).slots(NOW, NOW + DAY))
    assert refused.value.rule == "CO3010"


@pytest.mark.parametrize("jitter", [timedelta(days=1, milliseconds=1), timedelta(microseconds=5), -HOUR])
def test_jitter_out_of_range_is_refused(jitter: timedelta) -> None:
    """It is at most a day, in whole milliseconds."""
    with pytest.raises(ScheduleError) as refused:
        made(jitter)
    assert (refused.value.rule, refused.value.pointer) == ("CO3020", "/jitter")


def test_no_jitter_is_no_jitter() -> None:
    """Zero moves nothing."""
    assert set(delays(made(timedelta(0)))) <= {timedelta(0), -HOUR}


BLOCKS: list[dict[str, Any]] = [
    {"cron": ("*/5 * * * *",)},
    {"cron": ("0,1,30 2 * * *", "0 3 * * *"), "timezone": "Europe/Berlin"},
    {"cron": ("59 1 * * *",), "every": timedelta(hours=7), "timezone": "America/New_York"},
    {"every": timedelta(seconds=1)},
    {"every": timedelta(milliseconds=1500)},
    {"at": ("2026-03-29T02:15:00", "2026-03-29T03:00:00", "2026-03-29T03:00:01"), "timezone": "Europe/Berlin"},
]


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(BLOCKS),
    st.sampled_from([timedelta(milliseconds=1), timedelta(seconds=30), 10 * MINUTE, DAY]),
    st.integers(0, 4 * 24 * 60),
    st.sampled_from(GapRule),
)
def test_jitter_never_reorders_fires_nor_lets_them_meet(
    block: dict[str, Any], jitter: timedelta, minutes: int, gap: GapRule
) -> None:
    """Each fires at or behind its time and strictly before the next one without jitter."""
    start = NOW + minutes * MINUTE
    end = start + (timedelta(seconds=90) if "every" in block and "cron" not in block else 2 * DAY)
    spec = {**block, "gap": gap}
    plain = [slot for slot in made(None, **spec).slots(start, end) if slot.skip is None]
    moved = [slot for slot in made(jitter, **spec).slots(start, end) if slot.skip is None]
    assert [slot[:3] for slot in plain] == [slot[:3] for slot in moved]
    fires = sorted((one.fire_at, other.fire_at) for one, other in zip(plain, moved, strict=True))
    for before, after in fires:
        assert before <= after < before + jitter
    for (_, late), (following, _) in pairwise(fires):
        assert late < following
