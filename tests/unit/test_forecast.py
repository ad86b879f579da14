"""What is known of a slot when it is planned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from cron_observer.forecast import ROWS_MAX, Foreseen, Skips, foresee, overdue, parted, paused
from cron_observer.lifecycle.settle import Waiting, settle
from cron_observer.model import Catchup, Overlap, Pause, Policy, Window
from cron_observer.schedule import Slot
from cron_observer.schedule.windows import Windows
from cron_observer.schedule.zones import zone

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)

POLICIES = st.builds(
    Policy,
    catchup=st.sampled_from(Catchup),
    catchup_window=st.sampled_from([timedelta(minutes=5), timedelta(hours=1)]),
    max_runs=st.integers(1, 5),
    max_lateness=st.sampled_from([None, timedelta(minutes=2), timedelta(minutes=30)]),
    start_deadline=st.sampled_from([None, timedelta(minutes=10)]),
    overlap=st.just(Overlap.ALLOW_ALL),
)


def slot(at: datetime, skip: str | None = None) -> Slot:
    return Slot(at, at.replace(tzinfo=None), 0, at, skip)


@given(POLICIES, st.lists(st.integers(-60, 9 * 24 * 60), min_size=1, max_size=20, unique=True))
def test_what_is_told_at_once_is_what_settling_would_say(policy: Policy, ages: list[int]) -> None:
    """Of slots that are due when they are planned, those left waiting are exactly those that settling lets run."""
    seen = foresee(slot(NOW - age * MINUTE) for age in sorted(ages, reverse=True))
    left = [one for one in overdue(seen, policy, NOW) if one.waits and one.slot.fire_at <= NOW]
    ended = {one.slot.fire_at: (one.status, one.reason) for one in overdue(seen, policy, NOW) if not one.waits}
    ids = {UUID(int=number): one.slot.fire_at for number, one in enumerate(seen) if one.slot.fire_at <= NOW}
    waiting = [
        Waiting(id=key, fire_at=at, start_deadline=at + policy.start_deadline if policy.start_deadline else None)
        for key, at in ids.items()
    ]
    said = settle(waiting, active=[], policy=policy, now=NOW)
    assert [one.slot.fire_at for one in left] == sorted(ids[key] for key in said.run)
    assert ended == {ids[key]: (event.value.upper(), reason.value) for key, event, reason in said.end}


def test_a_group_says_whether_and_until_when() -> None:
    """Outside the windows of its group a slot is skipped; inside it carries the instant at which they close."""
    windows = Windows([Window.read({"from": "11:00", "to": "12:30"})], zone("UTC"))
    early, inside, off = foresee([slot(NOW - 2 * 60 * MINUTE), slot(NOW), slot(NOW, "calendar")], windows)
    assert (early.status, early.reason, early.closes_at) == ("SKIPPED", "window", None)
    assert (inside.status, inside.reason, inside.closes_at) == ("PENDING", None, NOW + 30 * MINUTE)
    assert off.reason == "calendar"


def test_a_pause_skips_what_fires_in_it_and_nothing_else() -> None:
    """A pause holds from its beginning to below its end; what is skipped for another reason keeps that."""
    seen = foresee([slot(NOW - SECOND), slot(NOW), slot(NOW + SECOND, "calendar"), slot(NOW + MINUTE)])
    held = paused(seen, [Pause(NOW, NOW + MINUTE)])
    assert [one.reason for one in held] == [None, "paused", "calendar", None]


@given(st.lists(st.sampled_from([None, "paused", "calendar"]), max_size=40), st.integers(0, 40))
def test_parting_at_any_place_parts_the_same(reasons: list[str | None], place: int) -> None:
    """However slots are split into plannings, the same ones become rows, and the same ones are told in ranges."""
    seen = [
        one for reason in reasons for one in [foresee([slot(NOW, reason)])[0]] * (400 if reason else 1)
    ]  # three in a row are more than a thousand
    seen = [one._replace(slot=slot(NOW + number * SECOND, one.reason)) for number, one in enumerate(seen)]
    whole = parted(seen, Skips(None, 0))
    cut = min(place * 400, len(seen))
    first = parted(seen[:cut], Skips(None, 0))
    second = parted(seen[cut:], first.run)
    assert whole.rows == first.rows + second.rows
    assert flat(whole.pieces) == flat(first.pieces) + flat(second.pieces)
    assert whole.run == second.run
    assert all(len({one.reason for one in piece}) == 1 for piece in whole.pieces)
    if second.joined:
        assert first.run.length > ROWS_MAX
        assert second.pieces[0][0].slot == seen[cut].slot


def flat(pieces: list[list[Foreseen]]) -> list[Foreseen]:
    return [one for piece in pieces for one in piece]
