"""Turns of tasks: nobody's backlog stands in the way of another task, and urgency comes first."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from cron_observer.lifecycle import Run, Status
from cron_observer.turns import Turns

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
A, B, C = (UUID(int=number) for number in (1, 2, 3))


def backlog(task: UUID, count: int, *, late: float = 0.0, priority: int = 5) -> list[Run]:
    """Return `count` executions of a task, the oldest of them due for `late` seconds."""
    first = NOON - timedelta(seconds=late)
    ids = (UUID(int=task.int << 64 | number) for number in range(count))
    return [
        Run(
            tenant_id=C, id=identity, project_id=C, task_uid=task, status=Status.PENDING, fire_at=first,
            available_at=first + timedelta(milliseconds=number), priority=priority,
        )
        for number, identity in enumerate(ids)
    ]  # fmt: skip


def one_by_one(turns: Turns, runs: list[Run], count: int) -> list[UUID]:
    """Give `count` executions, each in a round of its own, and return their tasks."""
    got = []
    for _ in range(count):
        run = turns.order(runs)[0]
        runs.remove(run)
        turns.served([run])
        got.append(run.task_uid)
    return got


def test_two_backlogs_take_turns() -> None:
    """A backlog of an hour and one of a second are served in turns, in one round as in many."""
    runs = backlog(A, 20, late=3600) + backlog(B, 20, late=1)
    assert [run.task_uid for run in Turns().order(runs)] == [A, B] * 20
    assert one_by_one(Turns(), runs, 40) == [A, B] * 20


def test_without_backlogs_the_oldest_goes_first() -> None:
    """One execution of each task: they go by age."""
    runs = backlog(C, 1, late=3) + backlog(A, 1, late=2) + backlog(B, 1, late=1)
    assert [run.task_uid for run in Turns().order(reversed(runs))] == [C, A, B]


def test_who_comes_late_makes_up_for_nothing() -> None:
    """A task that had nothing waiting goes next when something comes, and takes turns from then on."""
    turns = Turns()
    old = backlog(A, 100, late=3600)
    one_by_one(turns, old, 50)
    assert one_by_one(turns, old + backlog(B, 20), 10) in ([B, A] * 5, [A, B] * 5)


def test_urgency_comes_first() -> None:
    """What is more urgent goes before every turn of what is less, and costs nobody a turn there."""
    turns = Turns()
    urgent, other = backlog(A, 10, priority=9), backlog(A, 2) + backlog(B, 2)
    assert one_by_one(turns, urgent + other, 10) == [A] * 10
    assert sorted(one_by_one(turns, other, 2)) == [A, B]


@given(st.lists(st.sampled_from([A, B, C]), max_size=40), st.lists(st.integers(1, 15), min_size=3, max_size=3))
def test_nobody_is_passed_over(before: list[UUID], sizes: list[int]) -> None:
    """Of tasks that all have something waiting each gets the same number, each in the order of its own age."""
    turns = Turns()
    for task in before:
        turns.served(backlog(task, 1))
    count = 3 * min(sizes)
    runs = [run for task, size in zip((A, B, C), sizes, strict=True) for run in backlog(task, size)]
    got = Counter(run.task_uid for run in Turns().order(runs)[:count])
    assert set(got.values()) == {min(sizes)}
    later = Counter(one_by_one(turns, list(runs), count))
    assert max(later.values()) - min(sizes) <= 1 + max(Counter(before).values(), default=0)
    in_one_round = turns.order(runs)
    assert sorted(run.id for run in in_one_round) == sorted(run.id for run in runs)
    for task in (A, B, C):
        mine = [run for run in in_one_round if run.task_uid == task]
        assert mine == sorted(mine, key=lambda run: run.available_at)


def test_what_is_remembered_is_bounded() -> None:
    """Turns of very many tasks are forgotten once they have passed, and those that have not are kept."""
    turns = Turns()
    for number in range(12_000):
        turns.served(backlog(UUID(int=100 + number), 1))
    turns.served(backlog(A, 3))
    assert len(turns._next) < 12_000
    assert turns.order(backlog(A, 1, late=60) + backlog(B, 1))[0].task_uid == B
