"""Which of a task's due slots run: the rules one by one, then their laws over random backlogs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from cron_observer.lifecycle import OFFERED_FOR, Event, Reason, Run, Status, Trigger, Waiting, settle, unfit
from cron_observer.model import Catchup, Overlap, Policy

NOW = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)


def late(*seconds: float, **values: object) -> list[Waiting]:
    return [
        Waiting(id=UUID(int=n + 1), fire_at=NOW - timedelta(seconds=s), **values)  # type: ignore[arg-type]
        for n, s in enumerate(seconds)
    ]


def outcome(waiting: list[Waiting], policy: Policy, **values: bool) -> list[str]:
    """Say what becomes of each, in the order given: ``run`` or the reason."""
    settled = settle(waiting, active=values.pop("active", False), policy=policy, now=NOW, **values)
    ends = {identity: reason.value for identity, _, reason in settled.end}
    return [ends.get(one.id, "run") for one in waiting]


def test_last_runs_the_newest_inside_the_window() -> None:
    """Of a backlog only the newest slot runs, and only inside the window."""
    policy = Policy(catchup=Catchup.LAST, catchup_window=timedelta(minutes=10))

    assert outcome(late(500, 100), policy) == ["too_late", "run"]
    assert outcome(late(5000, 601), policy) == ["too_late", "too_late"]


def test_none_runs_what_is_on_time() -> None:
    """Without catch-up a slot runs when it is at most a minute late."""
    policy = Policy(catchup=Catchup.NONE, overlap=Overlap.ALLOW_ALL)

    assert outcome(late(61, 60, 0), policy) == ["too_late", "run", "run"]


def test_skip_runs_the_newest_if_nothing_is_active() -> None:
    """With overlap skip one slot runs, none while the task is active; allow_all runs every one."""
    policy = Policy(catchup=Catchup.NONE)

    assert outcome(late(20, 10), policy) == ["overlap", "run"]
    assert outcome(late(20, 10), policy, active=True) == ["overlap", "overlap"]
    assert outcome(late(20, 10), Policy(catchup=Catchup.NONE, overlap=Overlap.ALLOW_ALL), active=True) == ["run", "run"]


def test_start_deadline_comes_first() -> None:
    """A slot past its start deadline is missed, not skipped: nobody came."""
    slots = late(30, start_deadline=NOW)

    assert outcome(slots, Policy()) == ["no_worker"]
    assert settle(slots, active=False, policy=Policy(), now=NOW).end[0][1] is Event.MISSED


def test_a_removed_task_starts_nothing() -> None:
    """What is due when its task goes is skipped with that reason."""
    assert outcome(late(30, 0), Policy(), removed=True) == ["task_deleted", "task_deleted"]


def test_a_manual_run_is_no_slot() -> None:
    """Catch-up does not apply to a manual run, overlap does, and force overrules that."""
    manual, forced = late(7000, slot=False), late(7000, slot=False, forced=True)

    assert outcome(manual, Policy()) == ["run"]
    assert outcome(manual, Policy(), active=True) == ["overlap"]
    assert outcome(forced, Policy(), active=True) == ["run"]


policies = st.builds(
    Policy,
    overlap=st.sampled_from(Overlap),
    catchup=st.sampled_from(Catchup),
    catchup_window=st.timedeltas(timedelta(seconds=1), timedelta(days=30)),
)
backlogs = st.lists(st.integers(0, 3_000_000), max_size=12).map(lambda seconds: late(*seconds))


@given(backlogs, policies, st.booleans())
def test_everything_gets_one_verdict(backlog: list[Waiting], policy: Policy, active: bool) -> None:
    """Each due slot either may run or ends with a reason, never both and never neither."""
    settled = settle(backlog, active=active, policy=policy, now=NOW)
    ended = [identity for identity, _, _ in settled.end]

    assert sorted([*settled.run, *ended]) == sorted(one.id for one in backlog)


@given(backlogs, policies, st.booleans())
def test_exclusive_runs_one_and_the_newest(backlog: list[Waiting], policy: Policy, active: bool) -> None:
    """With overlap skip at most one slot may run, none beside an active run, and never an older before a newer."""
    settled = settle(backlog, active=active, policy=policy, now=NOW)
    if policy.overlap is Overlap.SKIP:
        assert len(settled.run) <= (0 if active else 1)
    if settled.run and (policy.overlap is Overlap.SKIP or policy.catchup is Catchup.LAST):
        newest = max(one.fire_at for one in backlog)
        assert next(one for one in backlog if one.id == settled.run[-1]).fire_at == newest


@given(backlogs, policies, st.booleans())
def test_settling_again_changes_nothing(backlog: list[Waiting], policy: Policy, active: bool) -> None:
    """What may run still may when the ended ones are gone: claim, completion and tick agree."""
    first = settle(backlog, active=active, policy=policy, now=NOW)
    second = settle([one for one in backlog if one.id in first.run], active=active, policy=policy, now=NOW)

    assert (second.run, second.end) == (first.run, ())


def test_nothing_is_offered_for_ever() -> None:
    """Whatever the window says, a slot that nobody claimed for a week is missed."""
    policy = Policy(catchup_window=timedelta(days=365))

    assert outcome(late(OFFERED_FOR.total_seconds()), policy) == [Reason.NO_WORKER.value]


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
        (one(trigger=Trigger.MANUAL), window, False, None),
        (one(start_deadline=NOW), Policy(), False, (Status.MISSED, Reason.NO_WORKER)),
        (one(fence=1, attempt=1), window, False, None),
        (one(fence=1, attempt=1), Policy(), True, (Status.FAILED, Reason.TASK_DELETED)),
        (one(fence=1), Policy(), True, (Status.SKIPPED, Reason.TASK_DELETED)),
        (one(fence=1, attempt=1, start_deadline=NOW), Policy(), False, (Status.FAILED, Reason.NO_WORKER)),
    ]
    for run, policy, removed, expected in cases:
        verdict = unfit(run, policy, late_now, removed=removed)
        assert (verdict and (verdict.run.status, verdict.run.reason)) == expected
