"""Whose turn it is: tasks of one priority are served in turns, however much each of them has waiting.

Start-time fair queueing: every execution that is given has a number, one above that of the one before it of the same
task, and the lowest goes first. A task that had nothing waiting joins at the number that is being served now: it has
nothing to make up for, and nobody has to wait for it. Equal numbers go by age.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from cron_observer.lifecycle import Run

#: Tasks that are remembered; beyond it those whose turn has passed are forgotten, which changes nothing.
_REMEMBERED: Final = 10_000


class Turns:
    """The turns of one tenant's tasks, by priority. Lost with its process: all then begin at the same number."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, UUID], int] = {}  #: the number of the next execution of a task
        self._now: dict[int, int] = {}  #: the number that is being served

    def order(self, runs: Iterable[Run]) -> list[Run]:
        """Return executions in the order in which they are given: by urgency, then in turns, then by age."""
        numbered = []
        ahead: dict[tuple[int, UUID], int] = {}
        for run in sorted(runs, key=lambda run: (run.available_at, run.id)):
            of = (run.priority, run.task_uid)
            number = ahead.get(of, self._number(of))
            ahead[of] = number + 1
            numbered.append(((-run.priority, number, run.available_at, run.id), run))
        numbered.sort(key=lambda one: one[0])
        return [run for _, run in numbered]

    def served(self, runs: Sequence[Run]) -> None:
        """Take note of executions that were given, in their order."""
        for run in runs:
            of = (run.priority, run.task_uid)
            number = self._number(of)
            self._next[of] = number + 1
            self._now[run.priority] = max(self._now.get(run.priority, 0), number)
        if len(self._next) > _REMEMBERED:
            self._next = {of: number for of, number in self._next.items() if number > self._now[of[0]]}

    def _number(self, of: tuple[int, UUID]) -> int:
        return max(self._next.get(of, 0), self._now.get(of[0], 0))
