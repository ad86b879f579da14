"""Which of a task's due slots run, and why the others do not: one pure function for claim, completion and tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from cron_observer.lifecycle.decide import OFFERED_FOR, end_unclaimed, expire, give_up
from cron_observer.lifecycle.moves import Event, Reason, Trigger
from cron_observer.lifecycle.run import Run, Verdict
from cron_observer.model import Catchup, Overlap, Policy

#: A slot at most this late is on time; ``catchup: none`` runs only such slots.
ON_TIME: Final = timedelta(seconds=60)

#: What a schedule has made; all else was asked for by a person or a client.
SLOTS: Final = frozenset({Trigger.SCHEDULE, Trigger.CATCHUP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A due execution that was never claimed. `slot` is False for one that a person or a client asked for."""

    id: UUID
    fire_at: datetime
    start_deadline: datetime | None = None
    slot: bool = True
    forced: bool = False  #: runs whatever else is active

    @classmethod
    def of(cls, run: Run) -> Waiting:
        """Return what settling needs to know of an execution."""
        return cls(
            id=run.id,
            fire_at=run.fire_at,
            start_deadline=run.start_deadline,
            slot=run.trigger in SLOTS,
            forced=run.forced,
        )


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
    inside = [one for one in rest if one.slot and (window is None or now - one.fire_at <= window)]
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


def unfit(run: Run, policy: Policy, now: datetime, *, removed: bool) -> Verdict | None:
    """Say how a waiting execution ends that must not begin now whatever else waits; None if it may.

    `policy` is its task's current one for what was never claimed, else the one that the execution pinned.
    """
    if run.fence > 0:
        if removed:
            return give_up(run, Event.SKIPPED, Reason.TASK_DELETED, now)
        verdict = expire(run, policy, now)
        return verdict if verdict.event is not None else None
    ended = settle([Waiting.of(run)], active=False, policy=policy, now=now, removed=removed).end
    return end_unclaimed(run, ended[0][1], ended[0][2], now) if ended else None
