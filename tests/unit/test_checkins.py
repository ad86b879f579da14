"""Decisions about check-ins: what a ping speaks of, and what silence means, in virtual time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cron_observer import checkins
from cron_observer.checkins import Aim, Fate, Judgement, Known, Opened, Outage, Ping, Signal
from cron_observer.durations import CheckIn
from cron_observer.lifecycle import Event, Reason, Run, Status
from cron_observer.model import Late, Policy

NOW = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CLOCKS = CheckIn()
SUCCESS = Ping(signal=Signal.SUCCESS)

Judge = Callable[[Run, CheckIn, Iterable[Outage], datetime], object]


def slot(at: datetime, clocks: CheckIn = CLOCKS) -> Run:
    """Return a slot that nobody has taken."""
    return Run(
        tenant_id=UUID(int=1),
        id=uuid4(),
        project_id=UUID(int=2),
        task_uid=UUID(int=3),
        status=Status.PENDING,
        fire_at=at,
        available_at=at,
        start_deadline=at + clocks.grace,
        queue=checkins.QUEUE,
    )


def begun(at: datetime, clocks: CheckIn = CLOCKS) -> Run:
    """Return a run that began at an instant, at its slot."""
    return checkins.take(slot(at, clocks), Ping(signal=Signal.START), clocks, 1, at).run


moments = st.integers(-120, 120).map(lambda n: NOW + n * timedelta(seconds=30))
spans = st.integers(0, 40).map(lambda n: n * timedelta(seconds=30))
outages = st.lists(st.tuples(moments, spans.map(lambda s: s + timedelta(seconds=1))), max_size=4).map(
    lambda pairs: [Outage(since, since + span) for since, span in pairs]
)


@given(expected=moments, patience=spans, again=spans, away=outages, now=moments)
def test_silence_is_held_against_nobody_who_could_not_be_heard(
    expected: datetime, patience: timedelta, again: timedelta, away: list[Outage], now: datetime
) -> None:
    """OVER only if no outage overlapped; never before the deadline; UNKNOWN only `again` after each that did."""
    deadline = expected + patience
    judged = checkins.judge(expected, deadline, again, away, now)
    during = [one for one in away if one.since < deadline and one.until is not None and one.until > expected]

    assert judged.fate is not Fate.OVER or (not during and now >= deadline)
    if judged.fate is Fate.UNKNOWN:
        recovered = [one.until + again for one in during if one.until is not None]
        assert recovered
        assert now >= max(deadline, *recovered)
    if judged.fate is Fate.WAIT:
        assert judged.until is not None
        assert judged.until > now
        assert checkins.judge(expected, deadline, again, away, judged.until).fate is not Fate.WAIT


@given(expected=moments, patience=spans, away=outages, since=moments, now=moments)
def test_nothing_is_concluded_during_an_outage(
    expected: datetime, patience: timedelta, away: list[Outage], since: datetime, now: datetime
) -> None:
    """An outage that is not over, and began before the deadline, leaves it open."""
    deadline = expected + patience
    judged = checkins.judge(expected, deadline, MINUTE, [*away, Outage(since)], now)
    if since < deadline:
        assert judged == Judgement(Fate.WAIT)


@given(st.lists(moments, min_size=1, max_size=6, unique=True), moments)
def test_a_ping_takes_the_nearest_slot_whose_time_it_may_be(times: list[datetime], now: datetime) -> None:
    """None lies nearer that it might have taken, and none is taken before its margin or after its grace."""
    slots = [slot(at) for at in times]
    found = checkins.nearest(slots, CLOCKS, now)
    fit = [one for one in slots if one.available_at - CLOCKS.early_margin <= now < one.available_at + CLOCKS.grace]

    assert (found is None) == (not fit)
    if found is not None:
        assert abs(now - found.available_at) == min(abs(now - one.available_at) for one in fit)


def simulate(judge: Judge, *, checks: int = 1_000, minutes: int = 60) -> tuple[dict[str, int], set[datetime]]:
    """Run 1,000 checks of every five minutes that always ping, ten minutes of which nobody hears.

    Returns how many slots ended how, and the times of those that ended without a ping.
    """
    clocks = CheckIn(grace=2 * MINUTE)
    away = Outage(NOW + 20 * MINUTE, NOW + 30 * MINUTE)
    counts, unheard = {"heard": 0, "missed": 0, "unknown": 0, "open": 0}, set[datetime]()
    for number in range(checks):
        first = NOW + timedelta(seconds=number % 300)
        for at in (first + step * MINUTE for step in range(0, minutes, 5)):
            pinged = at + timedelta(seconds=number % 7)
            if not (away.since <= pinged < away.until):  # type: ignore[operator]
                counts["heard"] += 1
                continue
            one, now = slot(at, clocks), at
            while one.status is Status.PENDING and now < NOW + 2 * minutes * MINUTE:
                now += timedelta(seconds=10)
                known = [] if now < away.since else [Outage(away.since)] if now < away.until else [away]  # type: ignore[operator]
                verdict = judge(one, clocks, known, now)
                one = verdict.run  # type: ignore[attr-defined]
            ended = {Status.MISSED: "missed", Status.SKIPPED: "unknown"}.get(one.status, "open")
            counts[ended] += 1
            unheard.add(at)
    return counts, unheard


def test_i22_our_own_outage_never_accuses_a_job() -> None:
    """1,000 checks, ten minutes away: none is missed, each that could not be heard is unknown, no other is."""
    counts, unheard = simulate(checkins.judge_slot)

    assert counts["missed"] == counts["open"] == 0
    assert counts["unknown"] == 2_000
    assert counts["heard"] == 10_000
    assert all(NOW + 19 * MINUTE < at < NOW + 30 * MINUTE for at in unheard)


def blind_to_outages(run: Run, clocks: CheckIn, away: Iterable[Outage], now: datetime) -> object:
    """Judge as if pings could always be received."""
    return checkins.judge_slot(run, clocks, (), now)


def blind_to_what_is_over(run: Run, clocks: CheckIn, away: Iterable[Outage], now: datetime) -> object:
    """Forget an outage as soon as it is over."""
    return checkins.judge_slot(run, clocks, [one for one in away if one.until is None], now)


@pytest.mark.parametrize("mutant", [blind_to_outages, blind_to_what_is_over])
def test_i22_catches_its_mutants(mutant: Judge) -> None:
    """A judge that does not know of outages, or forgets them, accuses jobs, and is caught."""
    counts, _ = simulate(mutant, checks=50)
    assert counts["missed"] > 0


def test_runs_end_with_the_clock_that_ran_out() -> None:
    """maxRuntime times out, heartbeat loses, an outage in between makes it unknown, and a sign of life renews."""
    clocks = CheckIn(max_runtime=60 * MINUTE, heartbeat=5 * MINUTE, grace=2 * MINUTE)
    run = begun(NOW, clocks)

    assert checkins.judge_run(run, clocks, [], NOW + 4 * MINUTE).event is None
    lost = checkins.judge_run(run, clocks, [], NOW + 5 * MINUTE)
    assert (lost.run.status, lost.run.reason) == (Status.FAILED, Reason.LEASE_LOST)
    alive = checkins.renew(run, Ping(signal=Signal.LOG), clocks, NOW + 4 * MINUTE).run
    assert checkins.judge_run(alive, clocks, [], NOW + 8 * MINUTE).event is None
    assert alive.run_deadline == run.run_deadline
    late = replace(run, lease_until=run.run_deadline)
    ended = checkins.judge_run(late, clocks, [], NOW + 60 * MINUTE)
    assert (ended.run.status, ended.run.reason) == (Status.FAILED, Reason.TIMED_OUT)
    away = [Outage(NOW + 3 * MINUTE, NOW + 6 * MINUTE)]
    assert checkins.judge_run(run, clocks, away, NOW + 7 * MINUTE).event is None
    unknown = checkins.judge_run(run, clocks, away, NOW + 8 * MINUTE)
    assert (unknown.event, unknown.run.status, unknown.run.reason) == (
        Event.UNKNOWN,
        Status.SKIPPED,
        Reason.OBSERVER_DOWN,
    )


def test_what_an_end_speaks_of() -> None:
    """An open run of no name comes before a slot, a slot before what was given up, and that before nothing."""
    open_ = Opened(begun(NOW - 5 * MINUTE), None, NOW - 5 * MINUTE, closed=False)
    waiting = [slot(NOW - MINUTE)]
    missed = replace(slot(NOW - 20 * MINUTE), status=Status.MISSED, reason=Reason.NO_WORKER)

    assert checkins.aim(SUCCESS, Known(loose=open_, waiting=waiting), CLOCKS, NOW)[0] is Aim.RUN
    assert checkins.aim(SUCCESS, Known(waiting=waiting, last=missed), CLOCKS, NOW)[0] is Aim.SLOT
    assert checkins.aim(SUCCESS, Known(last=missed), CLOCKS, NOW)[0] is Aim.LATE
    assert checkins.aim(SUCCESS, Known(waiting=[slot(NOW - 20 * MINUTE)]), CLOCKS, NOW)[0] is Aim.OVERDUE
    assert checkins.aim(SUCCESS, Known(), CLOCKS, NOW)[0] is Aim.BESIDE
    timed_out = dataclasses.replace(open_, run=replace(open_.run, status=Status.FAILED, reason=Reason.TIMED_OUT))
    assert checkins.aim(SUCCESS, Known(loose=timed_out, last=missed), CLOCKS, NOW)[0] is Aim.RUN
    older = dataclasses.replace(timed_out, opened_at=NOW - 60 * MINUTE)
    assert checkins.aim(SUCCESS, Known(loose=older, last=missed), CLOCKS, NOW)[0] is Aim.LATE


def test_late_words_obey_the_policy() -> None:
    """accept takes back what silence was taken for, record and reject do not."""
    missed = replace(slot(NOW), status=Status.MISSED, reason=Reason.NO_WORKER)
    assert checkins.given_up(missed)
    assert not checkins.given_up(replace(missed, status=Status.SKIPPED, reason=Reason.PAUSED))
    assert checkins.late_recorded(missed, SUCCESS, Policy(late=Late.ACCEPT)) is None
    noted = checkins.late_recorded(missed, SUCCESS, Policy(late=Late.RECORD))
    assert noted is not None
    assert (noted.event, noted.run.status) == (Event.LATE_RECORDED, Status.MISSED)
