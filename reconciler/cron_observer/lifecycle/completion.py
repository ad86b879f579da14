"""A worker's last word: in time, repeated, late, or from somebody who has been replaced."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from msgspec.structs import replace

from cron_observer.errors import AlreadyFinal, CronObserverError, LeaseLost, NotRunning
from cron_observer.lifecycle.decide import cancelled_for, expire, failed
from cron_observer.lifecycle.moves import FINAL, Event, Reason, Status
from cron_observer.lifecycle.run import Completion, Ending, Run, Verdict, begun, moved, noted, written_at
from cron_observer.model import Late, Policy

#: Only these endings can be taken back by a late word; a person's cancellation, for one, stands.
_TAKEN_BACK: Final = frozenset({Reason.TIMED_OUT, Reason.LEASE_LOST})

_REPLACED: Final = "stop working on it; this outcome is kept with the attempt as evidence"


def complete(
    run: Run,
    done: Completion,
    policy: Policy,
    now: datetime,
    *,
    seen_digest: bytes | None = None,
    recordable: bool = True,
) -> Verdict:
    """Take a worker's last word.

    `seen_digest` is what the attempt of the same fence was completed with before, if it was: an identical repeat
    changes nothing and is answered well. A word that comes too late is accepted, recorded or refused by
    ``late``; it is never lost when a newer claim decides. `recordable` says that there is such an attempt, with
    nothing recorded yet.
    """
    if seen_digest is not None:
        if seen_digest == done.digest:
            return Verdict(run=run)
        if done.fence != run.fence:
            return Verdict(
                run=run, refusal=LeaseLost("the execution was claimed again since", hint="stop working on it")
            )
        return Verdict(run=run, refusal=AlreadyFinal("this attempt was completed with another outcome"))
    if done.fence == run.fence and run.status is Status.RUNNING:
        if run.run_deadline is not None and run.run_deadline <= now:
            # As if the deadline had been noticed in time: whether a sweep came by must not decide.
            return replace(expire(run, policy, now), again=True)
        return _ended(run, done, policy, now)
    return _late(run, done, policy, now, recordable=recordable)


def _ending(run: Run, done: Completion) -> Ending:
    reasons = {
        "failed": Reason.ERROR if done.exit_code in {None, 0} else Reason.EXIT_CODE,
        "cancelled": cancelled_for(run),
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
    run, ending = begun(run, now), _ending(run, done)
    if done.outcome == "failed":
        verdict = failed(run, policy, ending, now, retryable=done.retryable, not_before=done.not_before)
        data = {**(verdict.data or {}), **(done.told or {})} or None
        return replace(verdict, result=done.result, data=data)
    event = {
        "finished": Event.FINISHED,
        "cancelled": Event.CANCELLED,
        "skipped": Event.WORKER_SKIPPED,
    }[done.outcome]
    ended = moved(
        run,
        event,
        reason=ending.reason,
        finished_at=written_at(run, now),
        exit_code=done.exit_code,
        progress=1.0 if done.outcome == "finished" and run.progress is not None else run.progress,
    )
    return _said(Verdict(run=ended, event=event, ending=ending), done)


def _said(verdict: Verdict, done: Completion) -> Verdict:
    """Add to a verdict what the worker said beside the outcome."""
    return replace(verdict, actor=verdict.run.worker, data=done.told, result=done.result, error=done.error)


def _late(run: Run, done: Completion, policy: Policy, now: datetime, *, recordable: bool) -> Verdict:
    """Judge a completion of an attempt that no longer runs."""
    current = done.fence == run.fence and run.reason in _TAKEN_BACK
    open_to_it = current and run.status in {Status.PENDING, Status.FAILED}
    if open_to_it and policy.late is Late.ACCEPT and done.outcome in {"finished", "failed"}:
        return _taken(run, done, now)
    if run.fence == 0:
        return Verdict(run=run, refusal=NotRunning("nobody has claimed the execution"))
    refusal: CronObserverError
    if run.status in FINAL and done.fence == run.fence:
        refusal = AlreadyFinal(f"the execution is {run.status}")
    else:
        refusal = LeaseLost("the execution was taken back and may run elsewhere", hint=_REPLACED)
    if not recordable or (current and policy.late is Late.REJECT):
        return Verdict(run=run, refusal=refusal)
    evidence = {
        "outcome": done.outcome,
        "exit_code": done.exit_code,
        "error": done.error,
        "at": now.isoformat(),
    }
    if done.fence != run.fence:
        # Somebody else has claimed it since: what the old one says leaves no trace on the execution itself.
        return Verdict(run=run, refusal=refusal, late_outcome=evidence)
    data = {"outcome": done.outcome, "exit_code": done.exit_code}
    return Verdict(
        run=noted(run),
        event=Event.LATE_RECORDED,
        actor=run.worker,
        data=data,
        refusal=refusal,
        late_outcome=evidence,
    )


def _taken(run: Run, done: Completion, now: datetime) -> Verdict:
    """Accept a late word: it takes back the failure, or the retry that waits."""
    run, ending = begun(run, now), _ending(run, done)
    event = Event.LATE_FINISHED if done.outcome == "finished" else Event.LATE_FAILED
    # A lost lease has given the attempt back; the late word takes it again.
    given_back = run.status is Status.PENDING and run.reason is Reason.LEASE_LOST
    ended = moved(
        run,
        event,
        reason=ending.reason,
        finished_at=written_at(run, now),
        late=True,
        attempt=run.attempt + 1 if given_back else run.attempt,
        exit_code=done.exit_code,
    )
    return _said(Verdict(run=ended, event=event, ending=ending), done)
