"""Check-ins: what a ping says of a job that somebody else fires, and what its silence means. Pure.

A task with ``run.checkin`` has slots like any other, but nobody claims them: the first ping near a slot takes it.
`aim` says which execution a ping speaks of; `take`, `renew` and `end` are what it does to it; `judge_slot` and
`judge_run` say what becomes of one of which nothing was heard. Our own outages accuse nobody: what was expected while
pings could not be received ends as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Any, Final
from uuid import UUID

from msgspec.structs import replace

from cron_observer.durations import CheckIn
from cron_observer.lifecycle import Completion, Ending, Event, Reason, Run, Status, Trigger, Verdict, written_at
from cron_observer.lifecycle.run import moved, noted
from cron_observer.model import RESERVED_QUEUES, Late, Policy

#: The queue of executions that nobody claims, because somebody else fires them.
QUEUE: Final = RESERVED_QUEUES["checkin"]

#: How an attempt was begun that is known from pings.
PROTOCOL: Final = "ping"

#: What silence was taken for, and a late word may take back.
_CONCLUDED: Final = frozenset({(Status.MISSED, Reason.NO_WORKER), (Status.SKIPPED, Reason.OBSERVER_DOWN)})

_GIVEN_UP: Final = frozenset({Reason.TIMED_OUT, Reason.LEASE_LOST})


class Signal(StrEnum):
    """What a ping says."""

    START = "start"
    SUCCESS = "success"
    FAIL = "fail"
    LOG = "log"  #: says nothing of how it goes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """One ping. `lasted` is how long the run took by its own account."""

    signal: Signal
    rid: UUID | None = None  #: which run it speaks of
    latest: bool = False  #: speaks of the newest open run, whoever opened it
    exit_code: int | None = None
    lasted: timedelta | None = None
    sender: str = PROTOCOL


@dataclass(frozen=True, slots=True)
class Opened:
    """A run that a ping has begun or ended. `closed` says that its end was told."""

    run: Run
    rid: UUID | None
    opened_at: datetime
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What there is of a task when a ping comes.

    `same` is the run that the ping names, `loose` the newest one without a name whose end was not told, `newest` the
    newest whose end was not told; `waiting` the slots about now that nobody has taken; `last` the latest slot that
    was due, whatever became of it.
    """

    same: Opened | None = None
    loose: Opened | None = None
    newest: Opened | None = None
    waiting: Sequence[Run] = ()
    last: Run | None = None


class Aim(Enum):
    """What a ping speaks of."""

    RUN = "run"  #: an open run
    SLOT = "slot"  #: a slot that nobody has taken
    LATE = "late"  #: a slot that was given up
    BESIDE = "beside"  #: no slot: an execution of its own
    DONE = "done"  #: a run whose end was told: nothing changes
    OVERDUE = "overdue"  #: a slot that is over, which nobody has noticed yet: it is settled first
    NOTHING = "nothing"


def aim(ping: Ping, known: Known, clocks: CheckIn, now: datetime) -> tuple[Aim, Run | None]:  # noqa: PLR0911
    """Say which execution a ping speaks of."""
    if ping.latest:
        return (Aim.RUN, known.newest.run) if known.newest is not None else (Aim.NOTHING, None)
    if ping.rid is not None and known.same is not None:
        return (Aim.DONE if known.same.closed else Aim.RUN), known.same.run
    loose = known.loose if ping.rid is None else None
    going = loose is not None and loose.run.status is Status.RUNNING
    if ping.signal is Signal.LOG:
        if loose is not None:
            return Aim.RUN, loose.run
        return (Aim.DONE, known.last) if known.last is not None and known.last.fence > 0 else (Aim.NOTHING, None)
    if going and loose is not None and ping.signal is not Signal.START:
        return Aim.RUN, loose.run
    slot = nearest(known.waiting, clocks, now)
    if slot is not None:
        return Aim.SLOT, slot
    if any(slot.start_deadline is not None and slot.start_deadline <= now for slot in known.waiting):
        return Aim.OVERDUE, None
    if going and loose is not None:
        return Aim.RUN, loose.run  # begun anew: nothing was heard of its end
    given_up = known.last is not None and (known.last.status, known.last.reason) in _CONCLUDED
    if given_up and known.last is not None and (loose is None or loose.opened_at < known.last.available_at):
        return Aim.LATE, known.last
    if loose is not None and ping.signal is not Signal.START:
        return Aim.RUN, loose.run
    return Aim.BESIDE, None


def nearest(waiting: Iterable[Run], clocks: CheckIn, now: datetime) -> Run | None:
    """Return the slot that a ping at `now` takes: of those whose time it may be, the nearest; the older of two."""
    fit = [
        run
        for run in waiting
        if run.available_at - clocks.early_margin <= now and (run.start_deadline is None or now < run.start_deadline)
    ]
    return min(fit, key=lambda run: (abs(now - run.available_at), run.available_at), default=None)


# What a ping does


def take(run: Run, ping: Ping, clocks: CheckIn, generation: int, now: datetime) -> Verdict:
    """Let a ping take a slot: it runs from now on."""
    begun = moved(run, Event.CLAIMED, **_begun(run, ping, clocks, generation, now))
    begun = replace(begun, lease_until=_lease(clocks, now), run_deadline=now + clocks.max_runtime)
    return Verdict(run=_watched(begun), event=Event.CLAIMED, actor=ping.sender)


def _begun(run: Run, ping: Ping, clocks: CheckIn, generation: int, now: datetime) -> dict[str, Any]:
    """Return what an attempt begins with. When it has started is unknown if all that was told is how it ended."""
    at = written_at(run, now)
    started: datetime | None = at
    if ping.signal is not Signal.START:
        started = None if ping.lasted is None else at - ping.lasted
    return {
        "reason": None,
        "generation": run.generation if run.generation is not None else generation,
        "attempt": 1,
        "fence": run.fence + 1,
        "worker": ping.sender,
        "protocol": PROTOCOL,
        "closes_at": None,
        "held_at": None,
        "claimed_at": at,
        "started_at": started,
        "lease_seconds": (clocks.heartbeat or clocks.max_runtime).total_seconds(),
    }


def _lease(clocks: CheckIn, now: datetime) -> datetime:
    return now + min(clocks.heartbeat or clocks.max_runtime, clocks.max_runtime)


def _watched(run: Run) -> Run:
    moments = [run.lease_until, run.run_deadline, run.cancel_deadline]
    return replace(run, check_at=min(moment for moment in moments if moment is not None))


def beside(run: Run, ping: Ping, clocks: CheckIn, generation: int, now: datetime) -> Run:
    """Return a run that belongs to no slot, begun now; `run` says whose it is."""
    values = _begun(run, ping, clocks, generation, now)
    begun = replace(run, status=Status.RUNNING, trigger=Trigger.CHECKIN, event_seq=1, **values)
    return _watched(replace(begun, lease_until=_lease(clocks, now), run_deadline=now + clocks.max_runtime))


def renew(run: Run, ping: Ping, clocks: CheckIn, now: datetime) -> Verdict:
    """Take a sign of life: a heartbeat, and of `start` the run deadline anew. Without a name it begins anew."""
    if run.status is not Status.RUNNING or run.run_deadline is None:
        return Verdict(run=run)
    deadline = now + clocks.max_runtime if ping.signal is Signal.START else run.run_deadline
    lease = min(deadline, now + clocks.heartbeat) if clocks.heartbeat is not None else deadline
    alive = replace(run, lease_until=lease, run_deadline=deadline)
    if ping.signal is not Signal.START or ping.rid is not None or ping.latest:
        return Verdict(run=_watched(alive))
    anew = noted(alive, started_at=written_at(run, now))
    return Verdict(run=_watched(anew), event=Event.RESTARTED, actor=ping.sender)


def in_time(run: Run, now: datetime) -> Run:
    """Return a run whose deadline, if it has passed, did so while its end could not be heard."""
    late = run.run_deadline is not None and run.run_deadline <= now
    return replace(run, run_deadline=now + timedelta(seconds=1)) if late else run


def completion(run: Run, ping: Ping, clocks: CheckIn, digest: bytes, now: datetime) -> Completion:
    """Say what a ping tells of the end of a run. Sooner than its least time, a success is a failure."""
    told = ping.lasted if ping.lasted is not None else None if run.started_at is None else now - run.started_at
    failed, error = ping.signal is Signal.FAIL, None
    if not failed and told is not None and clocks.min_runtime is not None and told < clocks.min_runtime:
        took, least = f"{told.total_seconds():g} s", f"{clocks.min_runtime.total_seconds():g} s"
        failed, error = True, {"type": "RanTooShort", "message": f"it took {took}, and minRuntime is {least}"}
    return Completion(
        outcome="failed" if failed else "finished",
        fence=run.fence,
        digest=digest,
        exit_code=ping.exit_code,
        error=error,
        retryable=False,
    )


def late_start(run: Run, ping: Ping, clocks: CheckIn, generation: int, now: datetime) -> Verdict:
    """Note that a slot which was given up has begun after all. It keeps its outcome until the end is told."""
    values = _begun(run, ping, clocks, generation, now) | {"reason": run.reason, "lease_seconds": None}
    return Verdict(run=noted(run, **values), event=Event.LATE_STARTED, actor=ping.sender)


def late_end(run: Run, done: Completion, now: datetime) -> Verdict:
    """Accept what is told of the end of a slot that was given up: it takes that back."""
    good = done.outcome == "finished"
    reason = None if good else Reason.ERROR if done.exit_code in {None, 0} else Reason.EXIT_CODE
    event = Event.LATE_FINISHED if good else Event.LATE_FAILED
    ending = Ending(outcome=done.outcome, reason=reason, exit_code=done.exit_code, error=done.error, digest=done.digest)
    ended = moved(run, event, reason=reason, finished_at=written_at(run, now), late=True, exit_code=done.exit_code)
    return Verdict(run=ended, event=event, actor=run.worker, ending=ending, error=done.error)


def given_up(run: Run) -> bool:
    """Say whether an outcome was concluded from silence, before or after the run began."""
    concluded = (run.status, run.reason) in _CONCLUDED
    return concluded or (run.status is Status.FAILED and run.reason in _GIVEN_UP)


def late_recorded(run: Run, ping: Ping, policy: Policy) -> Verdict | None:
    """Say what becomes of a late ping that may not take an outcome back; None when it may."""
    if policy.late is Late.ACCEPT:
        return None
    data = {"signal": ping.signal.value, "exit_code": ping.exit_code}
    return Verdict(run=noted(run), event=Event.LATE_RECORDED, actor=ping.sender, data=data)


# What silence means


@dataclass(frozen=True, slots=True)
class Outage:
    """A stretch of time in which pings could not be received. `until` None: it is not over."""

    since: datetime
    until: datetime | None = None


class Fate(Enum):
    """What becomes of something of which nothing was heard."""

    WAIT = "wait"
    OVER = "over"  #: it failed to give a sign
    UNKNOWN = "unknown"  #: it may have given one that could not be received


@dataclass(frozen=True, slots=True)
class Judgement:
    """A fate; of one that waits, until when. None: nobody knows yet."""

    fate: Fate
    until: datetime | None = None


def judge(
    expected: datetime, deadline: datetime, again: timedelta, outages: Iterable[Outage], now: datetime
) -> Judgement:
    """Judge the silence of something that was to give a sign between `expected` and `deadline`.

    An outage in between makes it unknown, and gives it `again` as long from the recovery on.
    """
    blind, limit = False, deadline
    for outage in sorted(outages, key=lambda one: one.since):
        if outage.since >= limit or (outage.until is not None and outage.until <= expected):
            continue
        blind = True
        if outage.until is None:
            return Judgement(Fate.WAIT)
        limit = max(limit, outage.until + again)
    if now < limit:
        return Judgement(Fate.WAIT, limit)
    return Judgement(Fate.UNKNOWN if blind else Fate.OVER)


def judge_slot(run: Run, clocks: CheckIn, outages: Iterable[Outage], now: datetime) -> Verdict:
    """Judge a slot that nobody has taken; unchanged while it may still be, but for the moment of the next look."""
    deadline = run.available_at + clocks.grace
    judged = judge(run.available_at - clocks.early_margin, deadline, clocks.grace, outages, now)
    if judged.fate is Fate.WAIT:
        return Verdict(run=run if judged.until is None else replace(run, start_deadline=judged.until))
    event, reason = (
        (Event.UNKNOWN, Reason.OBSERVER_DOWN) if judged.fate is Fate.UNKNOWN else (Event.MISSED, Reason.NO_WORKER)
    )
    return Verdict(run=moved(run, event, reason=reason, finished_at=written_at(run, now)), event=event)


def judge_run(run: Run, clocks: CheckIn, outages: Iterable[Outage], now: datetime) -> Verdict:
    """Judge a run whose end, or next heartbeat, was not told."""
    if run.lease_until is None or run.run_deadline is None:
        raise AssertionError("a running execution has a lease")
    heartbeat = clocks.heartbeat is not None and run.lease_until < run.run_deadline
    deadline = run.lease_until if heartbeat else run.run_deadline
    if now < deadline:
        return Verdict(run=_watched(run))
    last = run.run_deadline - clocks.max_runtime
    if heartbeat and clocks.heartbeat is not None:
        last = run.lease_until - clocks.heartbeat
    judged = judge(last, deadline, clocks.grace, outages, now)
    if judged.fate is Fate.WAIT:
        return Verdict(run=run if judged.until is None else replace(run, check_at=judged.until))
    if judged.fate is Fate.UNKNOWN:
        ending = Ending(outcome="unknown", reason=Reason.OBSERVER_DOWN)
        ended = moved(run, Event.UNKNOWN, reason=ending.reason, finished_at=written_at(run, now))
        return Verdict(run=ended, event=Event.UNKNOWN, ending=ending)
    reason = Reason.LEASE_LOST if heartbeat else Reason.TIMED_OUT
    ended = moved(run, Event.FAILED, reason=reason, finished_at=written_at(run, now))
    return Verdict(run=ended, event=Event.FAILED, ending=Ending(outcome=reason.value, reason=reason))
