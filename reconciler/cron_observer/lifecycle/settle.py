"""Which of a task's due slots run, and why the others do not: one pure function for claim, completion and tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from cron_observer.lifecycle.decide import OFFERED_FOR
from cron_observer.lifecycle.moves import Event, Reason
from cron_observer.model import Catchup, Overlap, Policy

#: A slot at most this late is on time; ``catchup: none`` runs only such slots.
ON_TIME: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A due execution that was never claimed. `slot` is False for one that a person or a client asked for."""

    id: UUID
    fire_at: datetime
    start_deadline: datetime | None = None
    slot: bool = True
    forced: bool = False  #: runs whatever else is active


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What becomes of them: `run` may be claimed, oldest first; `end` gets an outcome without ever running."""

    run: tuple[UUID, ...] = ()
    end: tuple[tuple[UUID, Event, Reason], ...] = ()


def settle(
    waiting: Sequence[Waiting], *, active: bool, policy: Policy, now: datetime, removed: bool = False
) -> Settlement:
    """Decide about all due, never-attempted executions of one task.

    `active` says whether a run holds the task's place; `removed` that the task is gone, so that nothing of it
    starts any more. The order of the rules: start deadline, catch-up, overlap.
    """
    ends: list[tuple[UUID, Event, Reason]] = []
    rest: list[Waiting] = []
    for one in sorted(waiting, key=lambda one: (one.fire_at, one.id)):
        if removed:
            ends.append((one.id, Event.SKIPPED, Reason.TASK_DELETED))
        elif one.fire_at + OFFERED_FOR <= now or (one.start_deadline is not None and one.start_deadline <= now):
            ends.append((one.id, Event.MISSED, Reason.NO_WORKER))
        else:
            rest.append(one)

    window = ON_TIME if policy.catchup is Catchup.NONE else policy.catchup_window
    inside = [one for one in rest if one.slot and now - one.fire_at <= window]
    if policy.catchup is Catchup.LAST:
        inside = inside[-1:]
    kept = {one.id for one in inside}
    ends += [(one.id, Event.SKIPPED, Reason.TOO_LATE) for one in rest if one.slot and one.id not in kept]
    rest = [one for one in rest if not one.slot or one.id in kept]

    if policy.overlap is Overlap.SKIP:
        forced = [one for one in rest if one.forced]
        others = [one for one in rest if not one.forced]
        chosen = [] if active else others[-1:]
        ends += [(one.id, Event.SKIPPED, Reason.OVERLAP) for one in others if one not in chosen]
        rest = sorted([*forced, *chosen], key=lambda one: (one.fire_at, one.id))
    return Settlement(run=tuple(one.id for one in rest), end=tuple(ends))
