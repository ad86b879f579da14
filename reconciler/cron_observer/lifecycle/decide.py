"""What happens to one execution when somebody reports, asks or falls silent.

Every function takes the execution as it stands (`Run`, read under its lock), the policy of its task and `now`
(the database's clock), and returns a `Verdict`: the execution as it shall stand, the event to append, how the
attempt ends, or the refusal. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from cron_observer.errors import AlreadyFinal, CronObserverError, LeaseLost, NotRunning
from cron_observer.lifecycle.moves import FINAL, MOVES, Event, Reason, Status, Trigger
from cron_observer.model import Backoff, Late, Policy

#: A lost lease is no failed attempt: the execution is offered again this often before it FAILED(lease_lost).
LEASE_LOSSES_MAX: Final = 3

#: How long a cancelled worker has to end by itself when the request does not say; then it is CANCELLED for it.
GRACE_DEFAULT: Final = timedelta(seconds=30)

#: An execution that nobody claims is offered this long after its fire time, whatever its policy says; so that
#: claims need to look at the partitions of the last days only.
OFFERED_FOR: Final = timedelta(days=7)

#: A slot claimed later than this after its fire time is a catch-up run.
CATCHUP_AFTER: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution as it stands, without its bulky parts. Instants are aware UTC on the database's clock."""

    tenant_id: UUID
    id: UUID
    project_id: UUID
    task_uid: UUID
    status: Status
    reason: Reason | None = None
    trigger: Trigger = Trigger.SCHEDULE
    fire_at: datetime
    available_at: datetime
    start_deadline: datetime | None = None
    queue: str = "default"
    priority: int = 0
    generation: int | None = None  #: of the task's definition; pinned by the first claim
    forced: bool = False
    attempt: int = 0  #: the current try, from 1; 0 before the first claim
    fence: int = 0  #: rises at every claim and never falls
    lease_losses: int = 0
    event_seq: int = 0
    worker: str | None = None
    protocol: str | None = None  #: ``lease`` or ``patch``: how the current attempt was begun
    claimed_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    lease_until: datetime | None = None
    lease_seconds: float | None = None
    run_deadline: datetime | None = None
    check_at: datetime | None = None  #: not later than the next deadline; the only one of them with an index
    late: bool = False
    cancel_requested_at: datetime | None = None
    cancel_by: str | None = None
    cancel_reason: str | None = None
    cancel_deadline: datetime | None = None
    progress: float | None = None
    message: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How one attempt ends: what its row in `attempts` keeps."""

    outcome: str
    reason: Reason | None = None
    exit_code: int | None = None
    error: Mapping[str, Any] | None = None
    digest: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a worker says at the end. `digest` identifies the request, so that a repeat is recognised."""

    outcome: str  #: finished, failed, cancelled or skipped
    fence: int
    digest: bytes
    exit_code: int | None = None
    error: Mapping[str, Any] | None = None
    result: Any = None
    retryable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What shall be done. `run` is the execution as it shall stand; unchanged when there is a refusal."""

    run: Run
    event: Event | None = None
    actor: str | None = None
    data: Mapping[str, Any] | None = None
    ending: Ending | None = None
    result: Any = None
    error: Mapping[str, Any] | None = None
    refusal: CronObserverError | None = None
    late_outcome: Mapping[str, Any] | None = None  #: kept on the attempt's row as evidence
    again: bool = False  #: carry this out, then ask again: a deadline was noticed only now


def _moved(run: Run, event: Event, **values: Any) -> Run:
    """Make the legal move of `event`, with what every move brings along."""
    move = MOVES[event]
    if run.status not in move.sources:
        raise AssertionError(f"{event} is not legal from {run.status}")
    ended = move.target is not Status.RUNNING
    if ended:
        values = {"lease_until": None, "check_at": None, "run_deadline": None, **values}
    return replace(run, status=move.target, event_seq=run.event_seq + 1, **values)


def _noted(run: Run, **values: Any) -> Run:
    """Change the execution without a move, for an event of its own."""
    return replace(run, event_seq=run.event_seq + 1, **values)


def _check_at(run: Run) -> datetime:
    moments = [run.lease_until, run.run_deadline, run.cancel_deadline]
    return min(moment for moment in moments if moment is not None)


def _next_deadline(run: Run, available_at: datetime, policy: Policy) -> datetime:
    last = run.fire_at + OFFERED_FOR
    return last if policy.start_deadline is None else min(last, available_at + policy.start_deadline)


def retry_wait(policy: Policy, attempt: int) -> timedelta:
    """Return how long to wait after the failure of `attempt` (from 1)."""
    if policy.backoff is Backoff.CONSTANT:
        return min(policy.backoff_initial, policy.backoff_cap)
    doublings = min(attempt - 1, 40)  # 2**40 seconds is past every cap
    grown: timedelta = policy.backoff_initial * (1 << doublings)
    return min(grown, policy.backoff_cap)


def claim(run: Run, policy: Policy, *, generation: int, worker: str, lease: timedelta | None, now: datetime) -> Verdict:
    """Give a due execution to `worker`. `lease` None means the simple form: leased until the run deadline."""
    deadline = now + policy.timeout
    late = run.trigger is Trigger.SCHEDULE and run.fence == 0 and now - run.fire_at > CATCHUP_AFTER
    claimed = _moved(
        run,
        Event.CLAIMED,
        reason=None,
        trigger=Trigger.CATCHUP if late else run.trigger,
        generation=run.generation if run.generation is not None else generation,
        attempt=run.attempt + 1,
        fence=run.fence + 1,
        worker=worker,
        protocol="patch" if lease is None else "lease",
        claimed_at=now,
        started_at=None,
        lease_until=deadline if lease is None else now + lease,
        lease_seconds=(policy.timeout if lease is None else lease).total_seconds(),
        run_deadline=deadline,
        progress=None,
        message=None,
        exit_code=None,
    )
    return Verdict(run=replace(claimed, check_at=_check_at(claimed)), event=Event.CLAIMED, actor=worker)


def _refuse(run: Run, fence: int) -> CronObserverError | None:
    """Say why a report under `fence` cannot be taken, or None if the execution runs under it."""
    if fence != run.fence:
        return LeaseLost(
            f"fence {fence} is not the current one",
            hint="the execution was taken back and may run elsewhere: stop working on it",
        )
    if run.status in FINAL:
        return AlreadyFinal(f"the execution is {run.status}")
    if run.status is Status.PENDING:
        return LeaseLost("the lease ran out and the execution is offered again", hint="stop working on it")
    return None


def _begun(run: Run, now: datetime) -> Run:
    """Set `started_at` at the first sign of life after the claim."""
    return run if run.started_at is not None else replace(run, started_at=now)


def start(run: Run, fence: int, now: datetime) -> Verdict:
    """Note that the work begins. A repeat changes nothing."""
    refusal = _refuse(run, fence)
    if refusal is not None:
        return Verdict(run=run, refusal=refusal)
    if run.started_at is not None:
        return Verdict(run=run)
    return Verdict(run=_noted(_begun(run, now)), event=Event.STARTED, actor=run.worker)


def heartbeat(
    run: Run,
    fence: int,
    now: datetime,
    *,
    lease: timedelta | None = None,
    progress: float | None = None,
    message: str | None = None,
) -> Verdict:
    """Renew the lease from now on (it may also be shortened). A lease that ran out unnoticed is renewed as well."""
    refusal = _refuse(run, fence)
    if refusal is not None:
        return Verdict(run=run, refusal=refusal)
    seconds = run.lease_seconds if lease is None else lease.total_seconds()
    if seconds is None or run.lease_until is None or run.check_at is None:
        raise AssertionError("a running execution has a lease")
    until = now + timedelta(seconds=seconds)
    renewed = replace(
        _begun(run, now),
        lease_until=until,
        lease_seconds=seconds,
        # Only ever earlier, so that a renewal touches no index.
        check_at=min(run.check_at, until),
        progress=run.progress if progress is None else progress,
        message=run.message if message is None else message,
    )
    return Verdict(run=renewed)


def lapse(run: Run, now: datetime) -> Verdict:
    """Move the mark at which deadlines are looked at again; for a check that found the lease renewed."""
    if run.status is not Status.RUNNING or run.check_at is None or run.check_at > now:
        return Verdict(run=run)
    return Verdict(run=replace(run, check_at=_check_at(run)))


def _failed(run: Run, policy: Policy, ending: Ending, now: datetime, *, retryable: bool) -> Verdict:
    """End the attempt as failed: wait for the next one, or give up."""
    error = ending.error
    available_at = now + retry_wait(policy, run.attempt)
    open_still = available_at < run.fire_at + OFFERED_FOR
    if retryable and run.cancel_requested_at is None and run.attempt <= policy.retries_max and open_still:
        waiting = _moved(
            run,
            Event.RETRY_SCHEDULED,
            reason=ending.reason,
            available_at=available_at,
            start_deadline=_next_deadline(run, available_at, policy),
            exit_code=ending.exit_code,
        )
        data = {"available_at": available_at.isoformat(), "exit_code": ending.exit_code}
        return Verdict(
            run=waiting, event=Event.RETRY_SCHEDULED, actor=run.worker, ending=ending, error=error, data=data
        )
    failed = _moved(run, Event.FAILED, reason=ending.reason, finished_at=now, exit_code=ending.exit_code)
    return Verdict(run=failed, event=Event.FAILED, actor=run.worker, ending=ending, error=error)


def expire(run: Run, policy: Policy, now: datetime) -> Verdict:  # noqa: PLR0911  one return for each deadline
    """Apply every deadline that has passed; return the execution unchanged if none has."""
    if run.status is Status.PENDING:
        if run.start_deadline is None or run.start_deadline > now:
            return Verdict(run=run)
        event = Event.GAVE_UP if run.attempt > 0 else Event.MISSED
        ended = _moved(run, event, reason=Reason.NO_WORKER, finished_at=now)
        return Verdict(run=ended, event=event)
    if run.status is not Status.RUNNING or run.lease_until is None or run.run_deadline is None:
        return Verdict(run=run)
    if run.cancel_deadline is not None and run.cancel_deadline <= now:
        return _cancelled(run, now, actor=run.cancel_by, data={"forced": True})
    if run.run_deadline <= now:
        ending = Ending(outcome="timed_out", reason=Reason.TIMED_OUT)
        return _failed(run, policy, ending, now, retryable=True)
    if run.lease_until > now:
        return lapse(run, now)
    ending = Ending(outcome="lease_lost", reason=Reason.LEASE_LOST)
    if run.cancel_requested_at is not None:
        return _cancelled(run, now, actor=run.cancel_by, data={"lease_lost": True})
    if run.lease_losses >= LEASE_LOSSES_MAX:
        failed = _moved(run, Event.FAILED, reason=Reason.LEASE_LOST, finished_at=now)
        return Verdict(run=failed, event=Event.FAILED, ending=ending)
    offered = _moved(
        run,
        Event.LEASE_EXPIRED,
        reason=Reason.LEASE_LOST,
        available_at=now,
        start_deadline=_next_deadline(run, now, policy),
        attempt=run.attempt - 1,
        lease_losses=run.lease_losses + 1,
    )
    return Verdict(run=offered, event=Event.LEASE_EXPIRED, ending=ending)


def end_unclaimed(run: Run, event: Event, reason: Reason, now: datetime) -> Verdict:
    """Give an outcome to a due execution that shall never run; `settle` says which."""
    return Verdict(run=_moved(run, event, reason=reason, finished_at=now), event=event)


def _cancelled(run: Run, now: datetime, *, actor: str | None, data: Mapping[str, Any] | None = None) -> Verdict:
    ending = Ending(outcome="cancelled", reason=Reason.CANCELLED) if run.status is Status.RUNNING else None
    ended = _moved(run, Event.CANCELLED, reason=Reason.CANCELLED, finished_at=now)
    return Verdict(run=ended, event=Event.CANCELLED, actor=actor, ending=ending, data=data)


def release(run: Run, fence: int, policy: Policy, why: str, now: datetime) -> Verdict:
    """Take the execution back from its worker without counting the attempt."""
    refusal = _refuse(run, fence)
    if refusal is not None:
        return Verdict(run=run, refusal=refusal)
    ending = Ending(outcome="released")
    if run.cancel_requested_at is not None:
        return replace(_cancelled(run, now, actor=run.cancel_by), ending=ending)
    waiting = _moved(
        run,
        Event.RELEASED,
        reason=None,
        available_at=now,
        start_deadline=_next_deadline(run, now, policy),
        attempt=run.attempt - 1,
    )
    return Verdict(run=waiting, event=Event.RELEASED, actor=run.worker, ending=ending, data={"reason": why})


def request_cancel(run: Run, *, reason: str, grace: timedelta, actor: str, now: datetime) -> Verdict:
    """Cancel what waits at once; ask what runs to stop, and stop it by force after `grace`."""
    if run.status in FINAL:
        return Verdict(run=run, refusal=AlreadyFinal(f"the execution is {run.status}"))
    if run.status is Status.PENDING:
        verdict = _cancelled(run, now, actor=actor, data={"reason": reason})
        asked = replace(verdict.run, cancel_requested_at=now, cancel_by=actor, cancel_reason=reason)
        return replace(verdict, run=asked)
    deadline = now + grace
    if run.cancel_requested_at is not None and run.cancel_deadline is not None and run.cancel_deadline <= deadline:
        return Verdict(run=run)
    asked = _noted(
        run,
        cancel_requested_at=run.cancel_requested_at or now,
        cancel_by=actor,
        cancel_reason=reason,
        cancel_deadline=deadline,
    )
    asked = replace(asked, check_at=_check_at(asked))
    data = {"reason": reason, "grace_seconds": grace.total_seconds()}
    return Verdict(run=asked, event=Event.CANCEL_REQUESTED, actor=actor, data=data)


def complete(run: Run, done: Completion, policy: Policy, now: datetime, *, seen_digest: bytes | None = None) -> Verdict:
    """Take a worker's last word.

    `seen_digest` is what the attempt of the same fence was completed with before, if it was: an identical repeat
    changes nothing and is answered well. A word that comes too late is accepted, recorded or refused by
    ``late``; it is never lost when a newer claim decides.
    """
    if seen_digest is not None:
        if seen_digest == done.digest:
            return Verdict(run=run)
        return Verdict(run=run, refusal=AlreadyFinal("this attempt was completed with another outcome"))
    if done.fence == run.fence and run.status is Status.RUNNING:
        if run.run_deadline is not None and run.run_deadline <= now:
            # As if the deadline had been noticed in time: whether a sweep came by must not decide.
            return replace(expire(run, policy, now), again=True)
        return _ended(run, done, policy, now)
    return _late(run, done, policy, now)


def _ending(done: Completion) -> Ending:
    reasons = {
        "failed": Reason.ERROR if done.exit_code in {None, 0} else Reason.EXIT_CODE,
        "cancelled": Reason.CANCELLED,
        "skipped": Reason.WORKER_SKIPPED,
    }
    return Ending(
        outcome=done.outcome,
        reason=reasons.get(done.outcome),
        exit_code=done.exit_code,
        error=done.error,
        digest=done.digest,
    )


def _ended(run: Run, done: Completion, policy: Policy, now: datetime) -> Verdict:
    run, ending = _begun(run, now), _ending(done)
    if done.outcome == "failed":
        return _failed(run, policy, ending, now, retryable=done.retryable)
    event = {
        "finished": Event.FINISHED,
        "cancelled": Event.CANCELLED,
        "skipped": Event.WORKER_SKIPPED,
    }[done.outcome]
    ended = _moved(
        run,
        event,
        reason=ending.reason,
        finished_at=now,
        exit_code=done.exit_code,
        progress=1.0 if done.outcome == "finished" and run.progress is not None else run.progress,
    )
    return Verdict(run=ended, event=event, actor=run.worker, ending=ending, result=done.result, error=done.error)


def _late(run: Run, done: Completion, policy: Policy, now: datetime) -> Verdict:
    """Judge a completion of an attempt that no longer runs."""
    current = done.fence == run.fence and run.reason in {Reason.TIMED_OUT, Reason.LEASE_LOST}
    open_to_it = current and run.status in {Status.PENDING, Status.FAILED}
    if open_to_it and policy.late is Late.ACCEPT and done.outcome in {"finished", "failed"}:
        event = Event.LATE_FINISHED if done.outcome == "finished" else Event.LATE_FAILED
        ending = _ending(done)
        # A lost lease has given the attempt back; the late word takes it again.
        taken_back = run.status is Status.PENDING and run.reason is Reason.LEASE_LOST
        ended = _moved(
            run,
            event,
            reason=ending.reason,
            finished_at=now,
            late=True,
            attempt=run.attempt + 1 if taken_back else run.attempt,
            exit_code=done.exit_code,
        )
        return Verdict(run=ended, event=event, actor=run.worker, ending=ending, result=done.result, error=done.error)
    if run.fence == 0:
        return Verdict(run=run, refusal=NotRunning("nobody has claimed the execution"))
    refusal: CronObserverError
    if run.status in FINAL and done.fence == run.fence:
        refusal = AlreadyFinal(f"the execution is {run.status}")
    else:
        hint = "stop working on it; this outcome is kept with the attempt as evidence"
        refusal = LeaseLost("the execution was taken back and may run elsewhere", hint=hint)
    if current and policy.late is Late.REJECT:
        return Verdict(run=run, refusal=refusal)
    evidence = {
        "outcome": done.outcome,
        "exit_code": done.exit_code,
        "error": done.error,
        "at": now.isoformat(),
    }
    return Verdict(run=run, refusal=refusal, late_outcome=evidence)
