"""The life of an execution, decided purely: every status against everything that can happen."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from cron_observer.errors import AlreadyFinal, LeaseLost, NotRunning
from cron_observer.lifecycle import (
    FINAL,
    GRACE_DEFAULT,
    LEASE_LOSSES_MAX,
    MOVES,
    OFFERED_FOR,
    OPEN,
    Completion,
    Event,
    Reason,
    Run,
    Status,
    Trigger,
    claim,
    complete,
    expire,
    heartbeat,
    make_room,
    release,
    request_cancel,
    retry_wait,
    start,
    terminate,
)
from cron_observer.model import Backoff, Late, Policy

NOW = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def waiting(**values: object) -> Run:
    base = Run(
        tenant_id=uuid4(), id=uuid4(), project_id=uuid4(), task_uid=uuid4(), status=Status.PENDING,
        fire_at=NOW, available_at=NOW,
    )  # fmt: skip
    return replace(base, **values)  # type: ignore[arg-type]


def running(policy: Policy | None = None, **values: object) -> Run:
    run = claim(waiting(), policy or Policy(), generation=1, worker="w", lease=30 * SECOND, now=NOW).run
    return replace(run, **values)  # type: ignore[arg-type]


def said(outcome: str, fence: int = 1, **values: object) -> Completion:
    return Completion(outcome=outcome, fence=fence, digest=outcome.encode(), **values)  # type: ignore[arg-type]


def test_every_status_is_open_or_final() -> None:
    """No status is both, none is neither, and an open one always has a way on."""
    assert set(Status) == OPEN | FINAL
    assert not OPEN & FINAL
    for status in OPEN:
        assert any(status in move.sources for move in MOVES.values())


def test_a_final_status_is_left_by_late_words_only() -> None:
    """The only moves out of a final status are the listed late words: of a worker out of FAILED, of a ping out of what
    silence was taken for as well."""
    leaving = {(event, source) for event, move in MOVES.items() for source in move.sources & FINAL}

    late = (Event.LATE_FINISHED, Event.LATE_FAILED)
    assert leaving == {(event, status) for event in late for status in (Status.FAILED, Status.MISSED, Status.SKIPPED)}


@pytest.mark.parametrize(("status", "outcome"), list(product(Status, ["finished", "failed", "cancelled", "skipped"])))
def test_completion_moves_running_only(status: Status, outcome: str) -> None:
    """A completion with the current fence ends what runs, and is refused in every other status."""
    run = running() if status is Status.RUNNING else waiting(status=status, fence=1, attempt=1)
    verdict = complete(run, said(outcome), Policy(), NOW + SECOND)

    if status is Status.RUNNING:
        target = {"finished": Status.FINISHED, "failed": Status.FAILED}
        assert verdict.run.status is target.get(outcome, Status.CANCELLED if outcome == "cancelled" else Status.SKIPPED)
        assert verdict.run.lease_until is verdict.run.check_at is None
        assert verdict.run.finished_at == NOW + SECOND
    else:
        assert replace(verdict.run, event_seq=run.event_seq) == run
        assert verdict.event is Event.LATE_RECORDED, "what comes too late is kept, and moves nothing"
        assert isinstance(verdict.refusal, AlreadyFinal if status in FINAL else LeaseLost)


def test_fence_rises_at_every_claim() -> None:
    """Whatever happens between, each claim has a higher fence than the one before."""
    policy = Policy(retries_max=9, backoff_initial=SECOND)
    run, fences = waiting(), []
    for step in range(5):
        now = NOW + timedelta(minutes=step)
        run = claim(run, policy, generation=1, worker="w", lease=SECOND, now=now).run
        fences.append(run.fence)
        if step % 2:
            run = release(run, run.fence, policy, "stop", now).run
        else:
            run = complete(run, said("failed", run.fence), policy, now).run
    assert all(later > earlier for earlier, later in pairwise(fences))


@pytest.mark.parametrize("report", ["start", "heartbeat", "complete", "release"])
def test_old_fence_is_refused(report: str) -> None:
    """No report under an old fence changes anything, whatever it says."""
    run = running(fence=2)
    verdict = {
        "start": lambda: start(run, 1, NOW),
        "heartbeat": lambda: heartbeat(run, 1, NOW),
        "complete": lambda: complete(run, said("finished", 1), Policy(), NOW),
        "release": lambda: release(run, 1, Policy(), "stop", NOW),
    }[report]()

    assert isinstance(verdict.refusal, LeaseLost)
    assert verdict.run == run


def test_an_identical_repeat_changes_nothing() -> None:
    """A completion whose reply was lost may be sent again; another outcome is refused."""
    run = complete(running(), said("finished"), Policy(), NOW).run
    repeat = complete(run, said("finished"), Policy(), NOW, seen_digest=b"finished")
    other = complete(run, said("failed"), Policy(), NOW, seen_digest=b"finished")

    assert (repeat.run, repeat.refusal) == (run, None)
    assert isinstance(other.refusal, AlreadyFinal)


def test_a_failure_waits_for_its_retry() -> None:
    """With retries left a failure waits by backoff, keeps its reason, and counts the attempt."""
    policy = Policy(retries_max=1, backoff_initial=10 * SECOND)
    first = complete(running(policy), said("failed", exit_code=3), policy, NOW)
    second = claim(first.run, policy, generation=2, worker="v", lease=SECOND, now=NOW + 10 * SECOND)
    last = complete(second.run, said("failed", 2), policy, NOW + 11 * SECOND)

    assert (first.run.status, first.run.reason) == (Status.PENDING, Reason.EXIT_CODE)
    assert first.run.available_at == NOW + 10 * SECOND
    assert second.run.attempt == 2
    assert second.run.generation == 1, "a running execution keeps the definition that it began with"
    assert (last.run.status, last.run.reason) == (Status.FAILED, Reason.ERROR)


@pytest.mark.parametrize("values", [{"retryable": False}, {}])
def test_what_shall_not_be_retried_fails(values: dict[str, bool]) -> None:
    """Neither a failure that says so, nor one of a cancelled execution, is tried again."""
    policy = Policy(retries_max=5)
    run = running(policy) if values else running(policy, cancel_requested_at=NOW)

    assert complete(run, said("failed", **values), policy, NOW).run.status is Status.FAILED


def test_backoff_grows_to_its_cap() -> None:
    """Exponential doubles from the initial wait and stops at the cap, at any attempt; constant does not grow."""
    policy = Policy(backoff_initial=10 * SECOND, backoff_cap=timedelta(minutes=1))
    waits = [retry_wait(policy, attempt).total_seconds() for attempt in (1, 2, 3, 4, 100)]

    assert waits == [10, 20, 40, 60, 60]
    assert retry_wait(dataclasses.replace(policy, backoff=Backoff.CONSTANT), 50) == 10 * SECOND


def test_a_lost_lease_is_offered_again_three_times() -> None:
    """A silent worker costs no attempt; after three losses the execution has failed."""
    run = waiting()
    now = NOW
    for _ in range(LEASE_LOSSES_MAX):
        run = claim(run, Policy(), generation=1, worker="w", lease=SECOND, now=now).run
        assert run.attempt == 1
        now += 2 * SECOND
        run = expire(run, Policy(), now).run
        assert (run.status, run.reason, run.attempt) == (Status.PENDING, Reason.LEASE_LOST, 0)
    run = claim(run, Policy(), generation=1, worker="w", lease=SECOND, now=now).run
    run = expire(run, Policy(), now + 2 * SECOND).run

    assert (run.status, run.reason) == (Status.FAILED, Reason.LEASE_LOST)


def test_run_deadline_counts_from_the_claim() -> None:
    """Heartbeats renew the lease, not the run deadline; past it the attempt has timed out."""
    policy = Policy(timeout=timedelta(minutes=1))
    run = heartbeat(running(policy), 1, NOW + 50 * SECOND).run
    assert expire(run, policy, NOW + 59 * SECOND).run.status is Status.RUNNING
    ended = expire(run, policy, NOW + 60 * SECOND)

    assert (ended.run.status, ended.run.reason) == (Status.FAILED, Reason.TIMED_OUT)
    assert ended.ending is not None
    assert ended.ending.outcome == "timed_out"


def test_a_renewal_touches_no_index() -> None:
    """A heartbeat leaves the looked-at instant alone, a shortened lease moves it to the earlier end."""
    run = running()
    assert heartbeat(run, 1, NOW + 5 * SECOND).run.check_at == run.check_at
    assert heartbeat(run, 1, NOW + 5 * SECOND, lease=6 * SECOND).run.check_at == NOW + 11 * SECOND
    renewed = heartbeat(run, 1, NOW + 20 * SECOND).run
    looked = expire(renewed, Policy(), NOW + 31 * SECOND).run
    assert (looked.status, looked.check_at) == (Status.RUNNING, NOW + 50 * SECOND)


def test_start_deadline_is_missed_or_failed() -> None:
    """Past its start deadline an execution is MISSED, and FAILED if it has been tried before."""
    late = NOW + SECOND
    never, tried = waiting(start_deadline=late), waiting(start_deadline=late, attempt=1, fence=1)

    assert expire(never, Policy(), NOW).run == never
    assert expire(never, Policy(), late).run.status is Status.MISSED
    assert expire(tried, Policy(), late).run.status is Status.FAILED
    assert expire(tried, Policy(), late).run.reason is Reason.NO_WORKER


def test_release_gives_the_attempt_back() -> None:
    """A released execution is due again at once, its attempt not consumed; its old fence is worth nothing."""
    verdict = release(running(), 1, Policy(), "deploy", NOW + SECOND)

    assert (verdict.run.status, verdict.run.attempt, verdict.run.available_at) == (Status.PENDING, 0, NOW + SECOND)
    assert isinstance(heartbeat(verdict.run, 1, NOW + SECOND).refusal, LeaseLost)


@pytest.mark.parametrize("reason", [Reason.TIMED_OUT, Reason.LEASE_LOST])
@pytest.mark.parametrize("status", [Status.PENDING, Status.FAILED])
def test_a_late_word_is_accepted_while_nobody_else_runs(status: Status, reason: Reason) -> None:
    """With the fence current and no newer claim, the late outcome counts and withdraws the waiting retry."""
    finished = NOW if status is Status.FAILED else None
    run = waiting(status=status, reason=reason, fence=1, attempt=0, finished_at=finished)
    verdict = complete(run, said("finished"), Policy(), NOW + SECOND)

    assert (verdict.run.status, verdict.run.late) == (Status.FINISHED, True)
    assert verdict.event is Event.LATE_FINISHED


@pytest.mark.parametrize(("late", "kept"), [(Late.RECORD, True), (Late.REJECT, False)])
def test_a_late_word_can_be_recorded_or_rejected(late: Late, kept: bool) -> None:
    """``record`` keeps the outcome as evidence without moving, ``reject`` does not even that."""
    run = waiting(reason=Reason.LEASE_LOST, fence=1)
    verdict = complete(run, said("finished"), Policy(late=late), NOW)

    assert isinstance(verdict.refusal, LeaseLost)
    assert replace(verdict.run, event_seq=run.event_seq) == run
    assert (verdict.late_outcome is not None) is kept
    assert (verdict.event is Event.LATE_RECORDED) is kept
    assert verdict.run.event_seq == run.event_seq + kept


def test_a_newer_claim_decides() -> None:
    """The word of a worker that was replaced is evidence, whatever the policy."""
    verdict = complete(running(fence=2), said("finished", 1), Policy(late=Late.ACCEPT), NOW)

    assert isinstance(verdict.refusal, LeaseLost)
    assert verdict.late_outcome is not None


def test_a_deadline_nobody_noticed_is_applied_first() -> None:
    """Whether a sweep came by must not decide: a completion past the run deadline first ends the attempt."""
    policy = Policy(timeout=10 * SECOND)
    now = NOW + 11 * SECOND
    first = complete(running(policy), said("finished"), policy, now)
    second = complete(first.run, said("finished"), policy, now)

    assert first.again
    assert first.run.reason is Reason.TIMED_OUT
    assert (second.run.status, second.run.late) == (Status.FINISHED, True)


def test_nobody_completes_what_was_never_claimed() -> None:
    """A completion of an execution without a claim is refused and leaves no trace."""
    verdict = complete(waiting(), said("finished", 0), Policy(), NOW)

    assert isinstance(verdict.refusal, NotRunning)


def test_cancelling() -> None:
    """What waits is cancelled at once; what runs is asked, given grace, then cancelled by force."""
    now = NOW + SECOND
    at_once = request_cancel(waiting(), reason="x", grace=5 * SECOND, actor="a", now=now)
    asked = request_cancel(running(), reason="x", grace=5 * SECOND, actor="a", now=now)
    again = request_cancel(asked.run, reason="x", grace=9 * SECOND, actor="a", now=now)
    forced = expire(asked.run, Policy(), now + 5 * SECOND)
    too_late = request_cancel(forced.run, reason="x", grace=SECOND, actor="a", now=now)

    assert at_once.run.status is Status.CANCELLED
    assert (asked.run.status, asked.run.cancel_requested_at) == (Status.RUNNING, now)
    assert again.run == asked.run
    assert (forced.run.status, forced.data) == (Status.CANCELLED, {"forced": True})
    assert isinstance(too_late.refusal, AlreadyFinal)


def test_a_retry_is_not_offered_for_ever() -> None:
    """A retry that would wait past the time for which executions are offered is not made."""
    policy = Policy(retries_max=100, timeout=timedelta(days=1))
    now = NOW + OFFERED_FOR - SECOND
    run = claim(waiting(), policy, generation=1, worker="w", lease=SECOND, now=now).run

    assert complete(run, said("failed"), policy, now).run.status is Status.FAILED


def test_a_late_claim_is_a_catch_up() -> None:
    """A slot claimed over a minute late is marked as a catch-up run, a manual run never is."""
    now = NOW + timedelta(seconds=61)
    triggers = [
        claim(run, Policy(), generation=1, worker="w", lease=SECOND, now=at).run.trigger
        for run, at in [(waiting(), NOW), (waiting(), now), (waiting(trigger=Trigger.MANUAL), now)]
    ]

    assert triggers == [Trigger.SCHEDULE, Trigger.CATCHUP, Trigger.MANUAL]


def test_evidence_is_kept_once() -> None:
    """A late word that was recorded, or speaks of an attempt that never was, is refused and leaves nothing more."""
    for fence in (1, 2):
        run = waiting(reason=Reason.LEASE_LOST, fence=fence, attempt=1)
        verdict = complete(run, said("finished"), Policy(late=Late.RECORD), NOW, recordable=False)

        assert isinstance(verdict.refusal, LeaseLost)
        assert (verdict.run, verdict.event, verdict.late_outcome) == (run, None, None)


def test_another_word_of_a_replaced_worker() -> None:
    """Who completes an old attempt differently hears that its lease is lost; a repeat of its own word is fine."""
    run = running(fence=2)
    repeat = complete(run, said("failed", 1), Policy(), NOW, seen_digest=b"failed")
    other = complete(run, said("finished", 1), Policy(), NOW, seen_digest=b"failed")

    assert (repeat.run, repeat.refusal) == (run, None)
    assert isinstance(other.refusal, LeaseLost)


def test_a_failure_keeps_its_result() -> None:
    """The result of a completion is kept whatever its outcome, also while a retry waits."""
    for retries in (0, 1):
        policy = Policy(retries_max=retries)
        assert complete(running(policy), said("failed", result={"rows": 3}), policy, NOW).result == {"rows": 3}


def test_a_late_word_starts_what_never_started() -> None:
    """A completion sets `started_at` if nothing has before it, also when it comes late."""
    run = expire(running(), Policy(), NOW + timedelta(minutes=1)).run
    verdict = complete(run, said("finished"), Policy(), NOW + timedelta(minutes=2))

    assert run.started_at is None
    assert verdict.run.started_at == verdict.run.finished_at == NOW + timedelta(minutes=2)


def test_times_never_go_backwards() -> None:
    """When the database's clock steps back, what is written stays in order; leases follow the clock."""
    earlier = NOW - timedelta(hours=1)
    run = start(running(), 1, NOW + SECOND).run
    asked = request_cancel(run, reason="x", grace=SECOND, actor="a", now=earlier).run
    ended = complete(asked, said("finished"), Policy(), earlier).run
    again = claim(
        release(run, 1, Policy(), "x", earlier).run, Policy(), generation=1, worker="v", lease=SECOND, now=earlier
    ).run

    assert run.claimed_at is not None
    assert run.started_at is not None
    assert asked.cancel_requested_at == run.started_at
    assert ended.finished_at == run.started_at
    assert (again.claimed_at, again.lease_until) == (run.started_at, earlier + SECOND)
    assert start(replace(run, started_at=None), 1, earlier).run.started_at == run.claimed_at


def test_a_run_that_was_lost_is_not_missed() -> None:
    """MISSED never ran: who lost its worker and found no other has failed, who was given back undone is missed."""
    lost = expire(running(), Policy(start_deadline=SECOND), NOW + timedelta(minutes=1)).run
    given = release(running(), 1, Policy(start_deadline=SECOND), "deploy", NOW + timedelta(minutes=1)).run
    later = NOW + timedelta(minutes=2)

    assert (lost.attempt, given.attempt) == (0, 0)
    assert expire(lost, Policy(), later).run.status is Status.FAILED
    assert expire(given, Policy(), later).run.status is Status.MISSED


def test_release_does_not_undo_a_timeout() -> None:
    """A worker past its run deadline cannot win a new attempt by giving the execution back."""
    policy = Policy(timeout=10 * SECOND)
    first = release(running(policy), 1, policy, "x", NOW + 11 * SECOND)
    second = release(first.run, 1, policy, "x", NOW + 11 * SECOND)

    assert first.again
    assert (first.run.status, first.run.reason) == (Status.FAILED, Reason.TIMED_OUT)
    assert isinstance(second.refusal, AlreadyFinal)


def test_the_end_of_a_window() -> None:
    """A run whose group cuts it off is asked to stop when the window closes; in any other group the window is past."""
    closes = NOW + MINUTE
    for cut in (True, False):
        slot = waiting(closes_at=closes)
        run = claim(slot, Policy(), generation=1, worker="w", lease=60 * MINUTE, now=NOW, cut=cut).run
        assert run.closes_at == (closes if cut else None)
        assert run.check_at == (closes if cut else NOW + 60 * MINUTE)
        asked = expire(run, Policy(), closes)
        if not cut:
            assert asked.run == run
            continue
        assert (asked.event, asked.actor, asked.run.check_at) == (
            Event.CANCEL_REQUESTED,
            "window",
            closes + GRACE_DEFAULT,
        )
        ended = expire(asked.run, Policy(), closes + GRACE_DEFAULT).run
        assert (ended.status, ended.reason) == (Status.CANCELLED, Reason.WINDOW)


def test_a_retry_past_the_window_is_given_up() -> None:
    """Where the window cuts runs off, their retries wait no longer than to its end."""
    closes = NOW + MINUTE
    policy = Policy(retries_max=3, backoff_initial=60 * MINUTE, backoff_cap=60 * MINUTE)
    run = claim(waiting(closes_at=closes), policy, generation=1, worker="w", lease=60 * MINUTE, now=NOW, cut=True).run
    retry = complete(run, Completion(outcome="failed", fence=run.fence, digest=b"x"), policy, NOW).run
    assert (retry.status, retry.start_deadline) == (Status.PENDING, closes)
    ended = expire(retry, policy, closes).run

    assert (ended.status, ended.reason) == (Status.FAILED, Reason.WINDOW)


def test_making_room_for_a_newer_slot() -> None:
    """What runs is asked to stop once, what waits for its retry ends at once; terminated, either ends at once."""
    slot = UUID(int=99)
    run = claim(waiting(), Policy(), generation=1, worker="w", lease=60 * MINUTE, now=NOW).run
    asked = make_room(run, slot, NOW).run
    assert (asked.status, asked.cancel_by, asked.cancel_deadline) == (Status.RUNNING, "overlap", NOW + GRACE_DEFAULT)
    assert make_room(asked, slot, NOW + 60 * MINUTE).run == asked
    word = complete(asked, Completion(outcome="cancelled", fence=1, digest=b"x"), Policy(), NOW).run
    assert (word.status, word.reason) == (Status.CANCELLED, Reason.OVERLAP)
    retry = complete(run, Completion(outcome="failed", fence=1, digest=b"x"), Policy(retries_max=1), NOW).run
    for one, end in ((retry, make_room), (retry, terminate), (run, terminate)):
        ended = end(one, slot, NOW).run
        assert (ended.status, ended.reason) == (Status.CANCELLED, Reason.OVERLAP)
    assert terminate(word, slot, NOW).event is None
    report = heartbeat(terminate(run, slot, NOW).run, 1, NOW)
    assert isinstance(report.refusal, AlreadyFinal)


def test_a_wait_in_a_buffer_is_no_catch_up() -> None:
    """A slot that is late because its place was taken keeps its trigger, and its history says since when it waited."""
    late = NOW + 60 * MINUTE
    held = claim(waiting(held_at=NOW), Policy(), generation=1, worker="w", lease=60 * MINUTE, now=late)
    missed = claim(waiting(), Policy(), generation=1, worker="w", lease=60 * MINUTE, now=late)

    assert (held.run.trigger, held.run.held_at) == (Trigger.SCHEDULE, None)
    assert held.data == {"waited_since": NOW.isoformat()}
    assert (missed.run.trigger, missed.data) == (Trigger.CATCHUP, None)
