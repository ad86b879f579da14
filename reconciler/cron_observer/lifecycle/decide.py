"""What happens to one execution when somebody claims it, reports on it, asks for its end, or falls silent.

Every function takes the execution as it stands (`Run`, read under its lock), the policy of its task and `now`
(the database's clock), and returns a `Verdict`: the execution as it shall stand, the event to append, how the
attempt ends, or the refusal. Nothing is written here. `completion` judges a worker's last word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from msgspec.structs import replace

from cron_observer.errors import AlreadyFinal, CronObserverError, LeaseLost
from cron_observer.lifecycle.moves import FINAL, Event, Reason, Status, Trigger
from cron_observer.lifecycle.run import Ending, Run, Verdict, begun, moved, noted, written_at
from cron_observer.model import Backoff, Policy

#: A lost lease is no failed attempt: the execution is offered again this often before it FAILED(lease_lost).
LEASE_LOSSES_MAX: Final = 3

#: How long a cancelled worker has to end by itself when the request does not say; then it is CANCELLED for it.
GRACE_DEFAULT: Final = timedelta(seconds=30)

#: Who asks a run to stop when no person does: a newer slot of its task, or the end of its group's window.
BY_OVERLAP: Final = "overlap"
BY_WINDOW: Final = "window"

#: Why it ends for that.
_WHY: Final[Mapping[str | None, Reason]] = {BY_OVERLAP: Reason.OVERLAP, BY_WINDOW: Reason.WINDOW}

#: An execution that nobody claims is offered this long after its fire time, whatever its policy says; so that
#: claims need to look at the partitions of the last days only.
OFFERED_FOR: Final = timedelta(days=7)

#: A slot claimed later than this after its fire time is a catch-up run.
CATCHUP_AFTER: Final = timedelta(seconds=60)


def _check_at(run: Run) -> datetime:
    closes_at = run.closes_at if run.cancel_requested_at is None else None
    moments = [run.lease_until, run.run_deadline, run.cancel_deadline, closes_at]
    return min(moment for moment in moments if moment is not None)


def _next_deadline(run: Run, available_at: datetime, policy: Policy) -> datetime:
    patience = None if policy.start_deadline is None else available_at + policy.start_deadline
    moments = [run.fire_at + OFFERED_FOR, patience, run.closes_at]
    return min(moment for moment in moments if moment is not None)


def shut(run: Run, now: datetime) -> bool:
    """Say whether the window of its task group is over for it."""
    return run.closes_at is not None and run.closes_at <= now


def cancelled_for(run: Run) -> Reason:
    """Say why a run ends that was asked to stop, or says so itself."""
    return _WHY.get(run.cancel_by, Reason.CANCELLED)


def retry_wait(policy: Policy, attempt: int, identity: UUID | None = None) -> timedelta:
    """Return how long to wait after the failure of `attempt` (from 1) of the execution `identity`.

    A wait that is spread is drawn by the two, so that whoever asks is told the same.
    """
    if policy.backoff is Backoff.CONSTANT:
        return min(policy.backoff_initial, policy.backoff_cap)
    doublings = min(attempt - 1, 40)  # 2**40 seconds is past every cap
    grown: timedelta = policy.backoff_initial * (1 << doublings)
    longest = min(grown, policy.backoff_cap)
    if not policy.spread or identity is None:
        return longest
    drawn = hashlib.sha256(identity.bytes + attempt.to_bytes(4)).digest()
    return longest * (int.from_bytes(drawn[:6]) / (1 << 48))


def claim(
    run: Run,
    policy: Policy,
    *,
    generation: int,
    worker: str,
    lease: timedelta | None,
    now: datetime,
    cut: bool = False,
) -> Verdict:
    """Give a due execution to `worker`. `lease` None means the simple form: leased until the run deadline.

    `cut` says that its task group stops what runs when the window closes; else the window is only for starting.
    """
    deadline = now + policy.timeout
    waited = run.held_at is not None
    late = run.trigger is Trigger.SCHEDULE and run.fence == 0 and not waited and now - run.fire_at > CATCHUP_AFTER
    claimed = moved(
        run,
        Event.CLAIMED,
        reason=None,
        trigger=Trigger.CATCHUP if late else run.trigger,
        generation=run.generation if run.generation is not None else generation,
        attempt=run.attempt + 1,
        fence=run.fence + 1,
        worker=worker,
        protocol="patch" if lease is None else "lease",
        closes_at=run.closes_at if cut else None,
        held_at=None,
        claimed_at=written_at(run, now),
        started_at=None,
        lease_until=deadline if lease is None else now + lease,
        lease_seconds=(policy.timeout if lease is None else lease).total_seconds(),
        run_deadline=deadline,
        progress=None,
        message=None,
        exit_code=None,
    )
    data = None if run.held_at is None else {"waited_since": run.held_at.isoformat()}
    return Verdict(run=replace(claimed, check_at=_check_at(claimed)), event=Event.CLAIMED, actor=worker, data=data)


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


def start(run: Run, fence: int, now: datetime) -> Verdict:
    """Note that the work begins. A repeat changes nothing."""
    refusal = _refuse(run, fence)
    if refusal is not None:
        return Verdict(run=run, refusal=refusal)
    if run.started_at is not None:
        return Verdict(run=run)
    return Verdict(run=noted(begun(run, now)), event=Event.STARTED, actor=run.worker)


def accept(run: Run, fence: int, now: datetime, *, told: Mapping[str, Any] | None = None) -> Verdict:
    """Note that somebody else has taken the work over and reports from now on, leased until the run deadline."""
    refusal = _refuse(run, fence)
    if refusal is not None:
        return Verdict(run=run, refusal=refusal)
    if run.run_deadline is None:
        raise AssertionError("a running execution has a run deadline")
    left = max(run.run_deadline - now, timedelta(seconds=1))
    taken = noted(begun(run, now), lease_until=now + left, lease_seconds=left.total_seconds())
    return Verdict(run=replace(taken, check_at=_check_at(taken)), event=Event.ACCEPTED, actor=run.worker, data=told)


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
        begun(run, now),
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


def failed(
    run: Run,
    policy: Policy,
    ending: Ending,
    now: datetime,
    *,
    retryable: bool,
    not_before: timedelta | None = None,
) -> Verdict:
    """End the attempt as failed: wait for the next one, at least `not_before` from now, or give up."""
    error = ending.error
    available_at = now + max(retry_wait(policy, run.attempt, run.id), not_before or timedelta(0))
    open_still = available_at < run.fire_at + OFFERED_FOR
    if retryable and run.cancel_requested_at is None and run.attempt <= policy.retries_max and open_still:
        waiting = moved(
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
    ended = moved(run, Event.FAILED, reason=ending.reason, finished_at=written_at(run, now), exit_code=ending.exit_code)
    return Verdict(run=ended, event=Event.FAILED, actor=run.worker, ending=ending, error=error)


def expire(run: Run, policy: Policy, now: datetime) -> Verdict:  # noqa: PLR0911  one return for each deadline
    """Apply every deadline that has passed; return the execution unchanged if none has."""
    if run.status is Status.PENDING:
        if run.start_deadline is None or run.start_deadline > now:
            return Verdict(run=run)
        if shut(run, now):
            return give_up(run, Event.SKIPPED, Reason.WINDOW, now)
        return give_up(run, Event.MISSED, Reason.NO_WORKER, now)
    if run.status is not Status.RUNNING or run.lease_until is None or run.run_deadline is None:
        return Verdict(run=run)
    if run.cancel_deadline is not None and run.cancel_deadline <= now:
        return _cancelled(run, now, actor=run.cancel_by, data={"forced": True})
    if run.run_deadline <= now:
        ending = Ending(outcome="timed_out", reason=Reason.TIMED_OUT)
        return failed(run, policy, ending, now, retryable=True)
    if run.lease_until > now:
        return stop_at_close(run, now) if closing(run, now) else lapse(run, now)
    ending = Ending(outcome="lease_lost", reason=Reason.LEASE_LOST)
    if run.cancel_requested_at is not None:
        return _cancelled(run, now, actor=run.cancel_by, data={"lease_lost": True})
    if run.lease_losses >= LEASE_LOSSES_MAX:
        ended = moved(run, Event.FAILED, reason=Reason.LEASE_LOST, finished_at=written_at(run, now))
        return Verdict(run=ended, event=Event.FAILED, ending=ending)
    offered = moved(
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
    return Verdict(run=moved(run, event, reason=reason, finished_at=written_at(run, now)), event=event)


def give_up(run: Run, event: Event, reason: Reason, now: datetime) -> Verdict:
    """End what waits: as `event` (SKIPPED or MISSED) if it never ran, as FAILED if it was tried, lost leases included.

    A released run has not been tried: its worker gave it back undone.
    """
    tried = run.attempt > 0 or run.lease_losses > 0
    return end_unclaimed(run, Event.GAVE_UP if tried else event, reason, now)


def _cancelled(run: Run, now: datetime, *, actor: str | None, data: Mapping[str, Any] | None = None) -> Verdict:
    reason = _WHY.get(actor, Reason.CANCELLED)
    ending = Ending(outcome="cancelled", reason=reason) if run.status is Status.RUNNING else None
    ended = moved(run, Event.CANCELLED, reason=reason, finished_at=written_at(run, now))
    return Verdict(run=ended, event=Event.CANCELLED, actor=actor, ending=ending, data=data)


def release(run: Run, fence: int, policy: Policy, why: str, now: datetime) -> Verdict:
    """Take the execution back from its worker without counting the attempt."""
    refusal = _refuse(run, fence)
    if refusal is not None:
        return Verdict(run=run, refusal=refusal)
    if run.run_deadline is not None and run.run_deadline <= now:
        # As if the deadline had been noticed in time: giving back does not undo a timeout.
        return replace(expire(run, policy, now), again=True)
    ending = Ending(outcome="released")
    if run.cancel_requested_at is not None:
        return replace(_cancelled(run, now, actor=run.cancel_by), ending=ending)
    waiting = moved(
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
    at = written_at(run, now)
    if run.status is Status.PENDING:
        verdict = _cancelled(run, now, actor=actor, data={"reason": reason})
        asked = replace(verdict.run, cancel_requested_at=at, cancel_by=actor, cancel_reason=reason)
        return replace(verdict, run=asked)
    deadline = now + grace
    if run.cancel_requested_at is not None and run.cancel_deadline is not None and run.cancel_deadline <= deadline:
        return Verdict(run=run)
    asked = noted(
        run,
        cancel_requested_at=run.cancel_requested_at or at,
        cancel_by=actor,
        cancel_reason=reason,
        cancel_deadline=deadline,
    )
    asked = replace(asked, check_at=_check_at(asked))
    data = {"reason": reason, "grace_seconds": grace.total_seconds()}
    return Verdict(run=asked, event=Event.CANCEL_REQUESTED, actor=actor, data=data)


def closing(run: Run, now: datetime) -> bool:
    """Say whether a running execution is to be asked to stop because the window of its task group is over."""
    return run.status is Status.RUNNING and shut(run, now) and run.cancel_requested_at is None


def stop_at_close(run: Run, now: datetime) -> Verdict:
    """Ask a running execution to stop because the window of its task group is over."""
    why = "the window of its task group has closed"
    return request_cancel(run, reason=why, grace=GRACE_DEFAULT, actor=BY_WINDOW, now=now)


def make_room(run: Run, slot: UUID, now: datetime) -> Verdict:
    """Ask an execution to stop because a newer slot of its task is due; unchanged if it was asked before."""
    if run.cancel_requested_at is not None:
        return Verdict(run=run)
    why = f"the newer slot {slot} is due"
    return request_cancel(run, reason=why, grace=GRACE_DEFAULT, actor=BY_OVERLAP, now=now)


def terminate(run: Run, slot: UUID, now: datetime) -> Verdict:
    """End an execution at once because a newer slot takes its place; its worker's next report is refused."""
    if run.status in FINAL:
        return Verdict(run=run)
    return _cancelled(run, now, actor=BY_OVERLAP, data={"for": str(slot)})
