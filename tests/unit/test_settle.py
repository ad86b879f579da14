"""Which of a task's due executions run, wait or end: every policy over small worlds, then the rules one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_observer.lifecycle import (
    BUFFER_MAX,
    OFFERED_FOR,
    Active,
    Event,
    Reason,
    Run,
    Settlement,
    Status,
    Trigger,
    Waiting,
    settle,
    unfit,
)
from cron_observer.model import Catchup, Overlap, Pause, Policy

NOW = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def late(*seconds: float, **values: Any) -> list[Waiting]:
    """Return waiting slots that fell due so many seconds ago, oldest ids first."""
    return [Waiting(id=UUID(int=n + 1), fire_at=NOW - s * SECOND, **values) for n, s in enumerate(seconds)]


def active(count: int = 1, since: float = 0, **values: Any) -> list[Active]:
    """Return runs that have held their places for so many seconds."""
    at = NOW - since * SECOND
    return [Active(id=UUID(int=1000 + n), since=at, fire_at=NOW - 10 * HOUR, **values) for n in range(count)]


def told(waiting: Sequence[Waiting], settled: Settlement) -> list[str]:
    """Say what becomes of each, in the order given: ``run``, ``hold`` or the reason."""
    ends = {identity: reason.value for identity, _, reason in settled.end}
    holds = dict.fromkeys(settled.hold, "hold")
    return [ends.get(one.id) or holds.get(one.id) or "run" for one in waiting]


def outcome(waiting: Sequence[Waiting], policy: Policy, **values: Any) -> list[str]:
    """Settle at `NOW` and say what becomes of each."""
    return told(waiting, settle(waiting, active=values.pop("active", ()), policy=policy, now=NOW, **values))


#: Every overlap policy, allow_all with places too.
OVERLAPS = [
    *({"overlap": overlap} for overlap in Overlap),
    {"overlap": Overlap.ALLOW_ALL, "max_parallel": 1},
    {"overlap": Overlap.ALLOW_ALL, "max_parallel": 2},
]
CATCHUPS = [
    {"catchup": Catchup.NONE},
    {"catchup": Catchup.LAST, "catchup_window": HOUR},
    {"catchup": Catchup.ALL, "catchup_window": HOUR, "max_runs": 2},
    {"catchup": Catchup.ALL, "catchup_window": None, "max_runs": 10},
]
LATENESS = (5400, 1200, 90, 30)


def worlds() -> Iterator[list[Waiting]]:
    """Yield no to four due slots, each of them held in a buffer already or not."""
    for count in range(5):
        for seconds in combinations(LATENESS, count):
            for held in product((False, True), repeat=count):
                yield [
                    Waiting(id=UUID(int=n + 1), fire_at=NOW - s * SECOND, held=h)
                    for n, (s, h) in enumerate(zip(seconds, held, strict=True))
                ]


def expected(slots: Sequence[Waiting], running: int, since: float, policy: Policy, *, full: bool) -> list[str]:
    """State the rules slot by slot, by counting older and newer ones; `full` is the group."""
    limit = policy.max_parallel if policy.overlap is Overlap.ALLOW_ALL else 1
    taken = limit is not None and running >= limit
    age = {one.id: (NOW - one.fire_at) / SECOND for one in slots}
    buffered = {one.id for one in slots if one.held or (taken and age[one.id] <= since)}

    def caught(one: Waiting) -> bool:
        newer = [x for x in slots if x.id not in buffered and x.fire_at > one.fire_at]
        if one.id in buffered:
            return True
        if policy.catchup is Catchup.NONE:
            return age[one.id] <= 60
        inside = policy.catchup_window is None or age[one.id] <= policy.catchup_window / SECOND
        return inside and len(newer) < (1 if policy.catchup is Catchup.LAST else policy.max_runs)

    stays = [one for one in slots if caught(one)]

    def overlaps(one: Waiting) -> bool:
        older = any(x.fire_at < one.fire_at for x in stays)
        newer = any(x.fire_at > one.fire_at for x in stays)
        return {
            Overlap.SKIP: running > 0 or newer,
            Overlap.BUFFER_ONE: older,
            Overlap.CANCEL_OTHER: newer,
            Overlap.TERMINATE_OTHER: newer,
        }.get(policy.overlap, False)

    line = [one for one in stays if not overlaps(one)]

    def fate(one: Waiting) -> str:
        if not caught(one):
            return "too_late"
        if one not in line:
            return "overlap"
        free = limit is None or line.index(one) < limit - running or policy.overlap is Overlap.TERMINATE_OTHER
        return "run" if free and not full else "hold"

    return [fate(one) for one in slots]


@pytest.mark.parametrize("overlap", OVERLAPS, ids=lambda some: "-".join(str(value) for value in some.values()))
def test_every_policy_over_small_worlds(overlap: dict[str, Any]) -> None:
    """With any overlap and catch-up, whatever is due, held or active, each slot gets what the rules say."""
    for slots, running, since, catchup, full in product(worlds(), range(3), (10, 1000), CATCHUPS, (False, True)):
        policy = Policy(**overlap, **catchup)
        actives = active(running, since)
        settled = settle(slots, active=actives, policy=policy, now=NOW, group_full=full, group_since=NOW)
        assert told(slots, settled) == expected(slots, running, since, policy, full=full), (slots, running, policy)
        stays = [one for one in settled.run + settled.hold if policy.overlap in REPLACED]
        assert settled.stop == tuple((one.id, stays[-1]) for one in actives if stays)


REPLACED = {Overlap.CANCEL_OTHER, Overlap.TERMINATE_OTHER}


policies = st.builds(
    Policy,
    overlap=st.sampled_from(Overlap),
    catchup=st.sampled_from(Catchup),
    catchup_window=st.timedeltas(timedelta(seconds=1), timedelta(days=30)),
    max_runs=st.integers(1, 5),
    max_lateness=st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=2)),
    max_parallel=st.none() | st.integers(1, 4),
)
sorts = st.sampled_from([{}, {}, {"held": True}, {"repeat": True}, {"slot": False}, {"slot": False, "forced": True}])
backlogs = st.lists(st.tuples(st.integers(0, 200_000), sorts), max_size=12).map(
    lambda some: [late(seconds, **values)[0] for seconds, values in some]
)
numbered = backlogs.map(lambda some: [Waiting(**{**_fields(one), "id": UUID(int=n + 1)}) for n, one in enumerate(some)])
actives = st.integers(0, 5).map(active)
pauses = st.none() | st.builds(
    lambda begin, length: Pause(NOW - begin * SECOND, NOW + (length - begin) * SECOND),
    st.integers(0, 100_000),
    st.integers(1, 200_000),
)


def _fields(one: Waiting) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


@given(numbered, policies, actives, pauses, st.booleans())
def test_everything_gets_one_verdict(
    backlog: list[Waiting], policy: Policy, running: list[Active], paused: Pause | None, full: bool
) -> None:
    """Each due execution may run, waits or ends with a reason: exactly one of the three."""
    settled = settle(backlog, active=running, policy=policy, now=NOW, paused=paused, group_full=full)
    ended = [identity for identity, _, _ in settled.end]

    assert sorted([*settled.run, *settled.hold, *ended]) == sorted(one.id for one in backlog)
    ends = set(ended)
    assert not any(not one.slot and one.id in ends for one in backlog), "what somebody asked for waits"


@given(numbered, policies, actives, st.booleans())
def test_no_more_run_than_there_are_places(
    backlog: list[Waiting], policy: Policy, running: list[Active], full: bool
) -> None:
    """What may run fits into the places that are left, but for what is forced and what replaces the active run."""
    settled = settle(backlog, active=running, policy=policy, now=NOW, group_full=full)
    forced = {one.id for one in backlog if one.forced}
    normal = [identity for identity in settled.run if identity not in forced]
    limit = policy.max_parallel if policy.overlap is Overlap.ALLOW_ALL else 1
    if full:
        assert settled.run == ()
    elif limit is not None:
        free = max(0, limit - len(running))
        assert len(normal) <= (1 if policy.overlap is Overlap.TERMINATE_OTHER else free)


@given(numbered, policies, actives, pauses, st.booleans())
def test_settling_again_changes_nothing(
    backlog: list[Waiting], policy: Policy, running: list[Active], paused: Pause | None, full: bool
) -> None:
    """When ends and marks are written, the same comes out again: claim, completion and tick agree."""
    known: dict[str, Any] = {"active": running, "policy": policy, "now": NOW, "paused": paused, "group_full": full}
    first = settle(backlog, **known)
    left = [
        Waiting(**{**_fields(one), "held": one.held or one.id in first.hold})
        for one in backlog
        if one.id in {*first.run, *first.hold}
    ]
    second = settle(left, **known)

    assert second == Settlement(run=first.run, hold=first.hold, stop=first.stop)


def test_last_runs_the_newest_inside_the_window() -> None:
    """Of a backlog only the newest slot runs, and only inside the window."""
    policy = Policy(catchup=Catchup.LAST, catchup_window=timedelta(minutes=10))

    assert outcome(late(500, 100), policy) == ["too_late", "run"]
    assert outcome(late(5000, 601), policy) == ["too_late", "too_late"]


def test_start_deadline_comes_first() -> None:
    """A slot past its start deadline is missed, not skipped: nobody came, even while its task was paused."""
    slots = late(30, start_deadline=NOW)

    assert outcome(slots, Policy(), paused=Pause(NOW - HOUR)) == ["no_worker"]
    assert settle(slots, active=(), policy=Policy(), now=NOW).end[0][1] is Event.MISSED


def test_a_removed_task_starts_nothing() -> None:
    """What is due when its task goes is skipped with that reason, held or not."""
    assert outcome([*late(30), *late(0, held=True)], Policy(), removed=True) == ["task_deleted", "task_deleted"]


def test_a_pause() -> None:
    """Slots of a paused task are skipped, in force now or when they fell due; what was asked for goes on."""
    over, open_still = Pause(NOW - HOUR, NOW - 60 * SECOND), Pause(NOW - 10 * SECOND)
    everything = Policy(overlap=Overlap.ALLOW_ALL, catchup=Catchup.ALL)
    slots = late(7200, 1800, 30)

    assert outcome(slots, Policy(**_with(everything, catchup_window=None)), paused=over) == ["run", "paused", "run"]
    assert outcome(slots, everything, paused=open_still) == ["paused"] * 3
    assert outcome(late(30, slot=False), everything, paused=open_still) == ["run"]
    assert outcome(late(1800, repeat=True), everything, paused=over) == ["run"], "it makes up for that pause"
    assert outcome(late(1800, repeat=True), everything, paused=open_still) == ["paused"], "but not within another"


def _with(policy: Policy, **values: Any) -> dict[str, Any]:
    return {**{name: getattr(policy, name) for name in policy.__dataclass_fields__}, **values}


def test_a_window_that_has_closed() -> None:
    """A slot that has not begun when its group's window closes is skipped, in a buffer too."""
    free = Policy(catchup=Catchup.NONE, overlap=Overlap.ALLOW_ALL)

    assert outcome(late(30, closes_at=NOW), free) == ["window"]
    assert outcome(late(30, closes_at=NOW, held=True), free) == ["window"]
    assert outcome(late(30, closes_at=NOW + SECOND), free) == ["run"]
    assert outcome(late(30, closes_at=NOW, slot=False), free) == ["run"], "an operator may run it any time"


def test_lateness_is_judged_in_a_buffer_too() -> None:
    """Past maxLateness a slot never starts, whatever it waited for; catch-up does not judge what is held."""
    policy = Policy(overlap=Overlap.BUFFER_ALL, max_lateness=HOUR, catchup=Catchup.NONE)

    assert outcome(late(3601, 3600, held=True), policy, active=active()) == ["too_late", "hold"]
    assert outcome(late(61), policy, active=active()) == ["too_late"]


def test_what_fell_due_beside_a_run_is_held() -> None:
    """Whether anybody looked while the place was taken does not decide: a slot that fell due then is in the buffer."""
    policy = Policy(overlap=Overlap.BUFFER_ALL)

    assert outcome(late(5000, 300, 100), policy, active=active(since=500)) == ["too_late", "hold", "hold"]
    assert outcome(late(5000, 300), Policy(), active=active(since=500)) == ["too_late", "overlap"]
    full = {"group_full": True, "group_since": NOW - 500 * SECOND}
    assert outcome(late(5000, 300, 100), policy, **full) == ["too_late", "hold", "hold"]


def test_a_buffer_has_an_end() -> None:
    """A thousand slots wait at most; the newest beyond them do not run."""
    slots = late(*range(BUFFER_MAX + 2, 0, -1), held=True)
    for overlap in (Policy(overlap=Overlap.BUFFER_ALL), Policy(overlap=Overlap.ALLOW_ALL, max_parallel=1)):
        assert outcome(slots, overlap, active=active()) == ["hold"] * BUFFER_MAX + ["overlap"] * 2
    free = Policy(overlap=Overlap.ALLOW_ALL)
    assert outcome(slots, free, active=active()) == ["run"] * (BUFFER_MAX + 2)


def test_only_a_newer_slot_replaces() -> None:
    """A slot that is older than what runs waits for it; who was asked to stop is not asked again."""
    cancel, terminate = Policy(overlap=Overlap.CANCEL_OTHER), Policy(overlap=Overlap.TERMINATE_OTHER)
    younger = [Active(id=UUID(int=7), since=NOW, fire_at=NOW)]
    for policy in (cancel, terminate):
        settled = settle(late(30), active=younger, policy=policy, now=NOW)
        assert (settled.stop, settled.hold) == ((), (UUID(int=1),))
    assert settle(late(30), active=active(asked=True), policy=cancel, now=NOW).stop == ()
    assert settle(late(30), active=active(asked=True), policy=terminate, now=NOW).stop != ()


def test_what_was_asked_for_waits_its_turn() -> None:
    """A manual run is no slot: it waits for the place, is forced past it, and never past a full group."""
    manual, forced = late(7000, slot=False), late(7000, slot=False, forced=True)

    assert outcome(manual, Policy()) == ["run"]
    assert outcome(manual, Policy(), active=active()) == ["hold"]
    assert outcome(forced, Policy(), active=active()) == ["run"]
    assert outcome(forced, Policy(), group_full=True) == ["hold"]
    both = [Waiting(id=UUID(int=9), fire_at=NOW - 60 * SECOND, slot=False), *late(30)]
    assert outcome(both, Policy()) == ["run", "hold"], "first come, first served"
    assert outcome(both, Policy(overlap=Overlap.TERMINATE_OTHER)) == ["hold", "run"], "it would be ended at once"


def test_nothing_is_offered_for_ever() -> None:
    """Whatever the window says, a slot that nobody claimed for a week is missed."""
    policy = Policy(catchup_window=timedelta(days=365))

    assert outcome(late(OFFERED_FOR.total_seconds()), policy) == [Reason.NO_WORKER.value]
    assert outcome(late(OFFERED_FOR.total_seconds(), held=True), policy) == [Reason.NO_WORKER.value]


def one(**values: object) -> Run:
    base = {"tenant_id": UUID(int=1), "id": UUID(int=2), "project_id": UUID(int=3), "task_uid": UUID(int=4)}
    times = {"fire_at": NOW, "available_at": NOW}
    return Run(**{**base, **times, "status": Status.PENDING, **values})  # type: ignore[arg-type]


def test_who_may_not_begin() -> None:
    """A waiting execution that is picked by name obeys what holds for it alone: deadlines, window, its task's end."""
    window, late_now = Policy(catchup_window=timedelta(minutes=1)), NOW + timedelta(minutes=2)
    cases = [
        (one(), Policy(), False, None),
        (one(), Policy(), True, (Status.SKIPPED, Reason.TASK_DELETED)),
        (one(), window, False, (Status.SKIPPED, Reason.TOO_LATE)),
        (one(held_at=NOW), window, False, None),
        (one(trigger=Trigger.MANUAL), window, False, None),
        (one(start_deadline=NOW), Policy(), False, (Status.MISSED, Reason.NO_WORKER)),
        (one(closes_at=NOW), Policy(), False, (Status.SKIPPED, Reason.WINDOW)),
        (one(fence=1, attempt=1), window, False, None),
        (one(fence=1, attempt=1), Policy(), True, (Status.FAILED, Reason.TASK_DELETED)),
        (one(fence=1), Policy(), True, (Status.SKIPPED, Reason.TASK_DELETED)),
        (one(fence=1, attempt=1, start_deadline=NOW), Policy(), False, (Status.FAILED, Reason.NO_WORKER)),
        (one(fence=1, attempt=1, closes_at=NOW), Policy(), False, (Status.FAILED, Reason.WINDOW)),
        (one(fence=1, closes_at=NOW), Policy(), False, (Status.SKIPPED, Reason.WINDOW)),
    ]
    for run, policy, removed, wanted in cases:
        verdict = unfit(run, policy, late_now, removed=removed)
        assert (verdict and (verdict.run.status, verdict.run.reason)) == wanted
    paused = unfit(one(), Policy(), late_now, removed=False, paused=Pause(NOW))
    assert paused is not None
    assert paused.run.reason is Reason.PAUSED
