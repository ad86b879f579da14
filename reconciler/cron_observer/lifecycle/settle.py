"""Which of a task's due executions run, wait or end: one pure function for claim, completion and tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from cron_observer.lifecycle.decide import OFFERED_FOR, end_unclaimed, expire, give_up, shut
from cron_observer.lifecycle.moves import Event, Reason, Trigger
from cron_observer.lifecycle.run import Run, Verdict
from cron_observer.model import Catchup, Overlap, Pause, Policy

#: A slot at most this late is on time; ``catchup: none`` runs only such slots.
ON_TIME: Final = timedelta(seconds=60)

#: What a schedule has made; all else was asked for by a person or a client.
SLOTS: Final = frozenset({Trigger.SCHEDULE, Trigger.CATCHUP})

#: Slots of one task that may wait for a place; the newest beyond it do not run.
BUFFER_MAX: Final = 1_000

#: A newer slot takes the place of what runs.
REPLACING: Final = frozenset({Overlap.CANCEL_OTHER, Overlap.TERMINATE_OTHER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A due execution that was never claimed. `slot` is False for one that a person or a client asked for."""

    id: UUID
    fire_at: datetime
    available_at: datetime | None = None  #: None = its fire time
    start_deadline: datetime | None = None
    closes_at: datetime | None = None  #: when the window of its task group ends
    slot: bool = True
    repeat: bool = False  #: runs a slot of a pause that is over: which of those run has been decided
    held: bool = False  #: waits in a buffer: it fell due while its place was taken
    forced: bool = False  #: runs whatever else of its task is active

    @classmethod
    def of(cls, run: Run) -> Waiting:
        """Return what settling needs to know of an execution."""
        return cls(
            id=run.id,
            fire_at=run.fire_at,
            available_at=run.available_at,
            start_deadline=run.start_deadline,
            closes_at=run.closes_at,
            slot=run.trigger in SLOTS,
            repeat=run.trigger is Trigger.CATCHUP,
            held=run.held_at is not None,
            forced=run.forced,
        )

    @property
    def order(self) -> tuple[datetime, UUID]:
        """Who comes first."""
        return (self.available_at or self.fire_at, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """An execution that holds a place of the task: it runs, or waits for its retry."""

    id: UUID
    since: datetime  #: when it took the place
    fire_at: datetime
    asked: bool = False  #: it was asked to stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What becomes of them: each is in exactly one of `run`, `end` and `hold`.

    `run` may be claimed, first in line first; `hold` waits for a place; `end` gets an outcome without ever running.
    `stop` names active executions that shall make room, each with the slot that wants its place.
    """

    run: tuple[UUID, ...] = ()
    end: tuple[tuple[UUID, Event, Reason], ...] = ()
    hold: tuple[UUID, ...] = ()
    stop: tuple[tuple[UUID, UUID], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What is the same for everything that waits of a task."""

    policy: Policy
    now: datetime
    removed: bool
    paused: Pause | None
    free: int | None  #: places that the task has left; None = any number
    full_since: datetime | None  #: since when a slot that falls due finds no place; None = it finds one


def settle(
    waiting: Sequence[Waiting],
    *,
    active: Sequence[Active],
    policy: Policy,
    now: datetime,
    removed: bool = False,
    paused: Pause | None = None,
    group_full: bool = False,
    group_since: datetime | None = None,
) -> Settlement:
    """Decide about all due, never-attempted executions of one task.

    `active` are those that hold a place of the task; `removed` says that the task is gone, so that nothing of it
    starts any more; `group_full` that its group has no place left, `group_since` since when. The order of the rules:
    start deadline, pause, window of the group, lateness, catch-up, overlap.
    """
    limit = policy.max_parallel if policy.overlap is Overlap.ALLOW_ALL else 1
    taken = limit is not None and len(active) >= limit
    since = [max(one.since for one in active)] if taken else []
    since += [group_since or now] if group_full else []
    free = None if limit is None else max(0, limit - len(active))
    task = _Task(policy=policy, now=now, removed=removed, paused=paused, free=free, full_since=min(since, default=None))
    ends: list[tuple[UUID, Event, Reason]] = []
    rest: list[Waiting] = []
    for one in sorted(waiting, key=lambda one: one.order):
        ended = _unfit(one, task)
        if ended is None:
            rest.append(one)
        else:
            ends.append((one.id, *ended))

    slots = [one for one in rest if one.slot]
    caught = _caught(slots, task)
    ends += [(one.id, Event.SKIPPED, Reason.TOO_LATE) for one in _without(slots, caught)]
    kept = _kept(caught, task)
    ends += [(one.id, Event.SKIPPED, Reason.OVERLAP) for one in _without(caught, kept)]
    asked = [one for one in rest if not one.slot]
    run, hold, stop = _placed(kept, asked, active, task, group_full=group_full)
    return Settlement(run=tuple(one.id for one in run), end=tuple(ends), hold=tuple(one.id for one in hold), stop=stop)


def judged_alone(policy: Policy) -> bool:
    """Say whether `settle` judges each waiting execution of a task without regard to the others, if none is held."""
    unlimited = policy.overlap is Overlap.ALLOW_ALL and policy.max_parallel is None
    return unlimited and policy.catchup is Catchup.NONE and policy.group is None


def _without(many: Sequence[Waiting], some: Sequence[Waiting]) -> list[Waiting]:
    """Return those of `many` that are not among `some`, in their order."""
    ids = {one.id for one in some}
    return [one for one in many if one.id not in ids]


def _unfit(one: Waiting, task: _Task) -> tuple[Event, Reason] | None:
    """Say how one ends for what holds for it alone, whatever else waits or runs."""
    now, paused, lateness = task.now, task.paused, task.policy.max_lateness
    if task.removed:
        return Event.SKIPPED, Reason.TASK_DELETED
    if one.fire_at + OFFERED_FOR <= now or (one.start_deadline is not None and one.start_deadline <= now):
        return Event.MISSED, Reason.NO_WORKER
    if not one.slot:
        return None
    why: Reason | None = None
    if paused is not None and (paused.holds(now) or (paused.holds(one.fire_at) and not one.repeat)):
        why = Reason.PAUSED
    elif one.closes_at is not None and one.closes_at <= now:
        why = Reason.WINDOW
    elif lateness is not None and now - one.fire_at > lateness:
        why = Reason.TOO_LATE
    return None if why is None else (Event.SKIPPED, why)


def _caught(slots: Sequence[Waiting], task: _Task) -> list[Waiting]:
    """Return the slots that catch-up lets run, oldest first; what waits in a buffer is not judged again."""
    policy, full = task.policy, task.full_since
    waits = {one.id for one in slots if one.held or one.repeat or (full is not None and one.fire_at >= full)}
    window = ON_TIME if policy.catchup is Catchup.NONE else policy.catchup_window
    inside = [one for one in slots if one.id not in waits and (window is None or task.now - one.fire_at <= window)]
    if policy.catchup is Catchup.LAST:
        inside = inside[-1:]
    elif policy.catchup is Catchup.ALL:
        inside = inside[-policy.max_runs :]
    chosen = waits | {one.id for one in inside}
    return [one for one in slots if one.id in chosen]


def _kept(slots: Sequence[Waiting], task: _Task) -> list[Waiting]:
    """Return the slots that overlap lets run or wait; `slots` are oldest first."""
    match task.policy.overlap:
        case Overlap.SKIP:
            return list(slots[-1:]) if task.free else []
        case Overlap.BUFFER_ONE:
            return list(slots[:1])
        case Overlap.CANCEL_OTHER | Overlap.TERMINATE_OTHER:
            return list(slots[-1:])
        case Overlap.ALLOW_ALL if task.free is None:
            return list(slots)
        case _:
            return list(slots[:BUFFER_MAX])


def _placed(
    slots: Sequence[Waiting], asked: Sequence[Waiting], active: Sequence[Active], task: _Task, *, group_full: bool
) -> tuple[list[Waiting], list[Waiting], tuple[tuple[UUID, UUID], ...]]:
    """Say who may run, who waits for a place, and whom the newest slot stops."""
    forced = [one for one in asked if one.forced]
    replacing = task.policy.overlap in REPLACING
    # What a slot would replace as soon as it runs had better not begin before that slot.
    line = sorted(
        [*slots, *(one for one in asked if not one.forced)], key=lambda one: (replacing and not one.slot, *one.order)
    )
    stop: tuple[tuple[UUID, UUID], ...] = ()
    if replacing and slots and not task.free:
        newest = slots[-1]
        older = [one for one in active if one.fire_at < newest.fire_at]
        if len(older) == len(active):
            waits = task.policy.overlap is Overlap.CANCEL_OTHER
            stop = tuple((one.id, newest.id) for one in older if not (waits and one.asked))
    if group_full:
        return [], sorted([*forced, *line], key=lambda one: one.order), stop
    count = len(line) if task.free is None else task.free
    if stop and task.policy.overlap is Overlap.TERMINATE_OTHER:
        count = 1
    return sorted([*forced, *line[:count]], key=lambda one: one.order), line[count:], stop


def unfit(run: Run, policy: Policy, now: datetime, *, removed: bool, paused: Pause | None = None) -> Verdict | None:
    """Say how a waiting execution ends that must not begin now whatever else waits; None if it may.

    `policy` is its task's current one for what was never claimed, else the one that the execution pinned.
    """
    if run.fence > 0:
        if removed:
            return give_up(run, Event.SKIPPED, Reason.TASK_DELETED, now)
        if shut(run, now):
            return give_up(run, Event.SKIPPED, Reason.WINDOW, now)
        verdict = expire(run, policy, now)
        return verdict if verdict.event is not None else None
    ended = settle([Waiting.of(run)], active=(), policy=policy, now=now, removed=removed, paused=paused).end
    return end_unclaimed(run, ended[0][1], ended[0][2], now) if ended else None
