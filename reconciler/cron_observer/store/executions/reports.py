"""What workers and operators say of executions, many at a time: one transaction, one statement for each kind of write.

The group-commit writer hands over whatever arrived while its last commit was in flight. Rows are locked in
(tenant, id) order, every report is decided by `lifecycle` on what the lock shows, and all of it is written at once.
A report is answered from what was written, never from what was hoped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import lifecycle
from cron_observer.errors import AlreadyClaimed, CronObserverError, LogGap, NotFound, NotRunning
from cron_observer.lifecycle import FINAL, OPEN, Completion, Reason, Run, Status, Verdict
from cron_observer.model import RESERVED_PREFIX, Overlap, Policy
from cron_observer.store import logs
from cron_observer.store.engine import clock
from cron_observer.store.executions import simple
from cron_observer.store.executions.apply import Done, Rest, Step, keep_evidence, write
from cron_observer.store.executions.bounds import due_bounds
from cron_observer.store.executions.messages import (
    Accept,
    Answer,
    AppendLogs,
    AppendText,
    Cancel,
    Complete,
    Heartbeat,
    PatchEnd,
    PatchRunning,
    Release,
    Report,
    Start,
)
from cron_observer.store.executions.rows import Locked, lock, policies_of
from cron_observer.store.executions.settling import ask_to_stop, end, hold, settlements, to_hold
from cron_observer.store.executions.showing import show

#: Bytes of log lines that are compressed beside the event loop; fewer are done before a thread has woken.
_THREAD_FROM: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class _Lines:
    """New lines of one execution, and how many bytes of plain text they were."""

    run: Run
    first: int
    lines: logs.Lines
    stream: int = 0


@dataclass(slots=True)
class _Batch:
    """What a batch will write, gathered while its reports are decided."""

    now: datetime
    steps: list[Step] = field(default_factory=list)
    checkpoints: dict[UUID, Any] = field(default_factory=dict)
    evidence: list[tuple[UUID, UUID, int, Any]] = field(default_factory=list)
    lines: list[_Lines] = field(default_factory=list)
    freed: dict[UUID, list[Answer]] = field(default_factory=dict)  #: tasks of which a run gives its place back, by it


async def process(
    conn: AsyncConnection,
    reports: Sequence[Report],
    *,
    trusted: Callable[[datetime], datetime] | None = None,
    caps: logs.Caps | None = None,
) -> list[Answer]:
    """Decide and write `reports` in the caller's transaction; answer each, in order.

    At most one report of an execution is in a batch. The clock is read once, after all locks are held; `trusted`
    makes of that reading what is fit for decisions. What somebody else holds locked is answered `busy`.
    """
    by_tenant: dict[UUID, list[int]] = {}
    for number, report in enumerate(reports):
        by_tenant.setdefault(report.tenant_id, []).append(number)

    held: dict[UUID, Locked] = {}
    for tenant_id in sorted(by_tenant):
        held[tenant_id] = await lock(conn, tenant_id, [reports[number].id for number in by_tenant[tenant_id]])
    read = await clock(conn)
    batch = _Batch(now=read if trusted is None else trusted(read))

    answers: list[Answer] = [Answer() for _ in reports]
    for tenant_id in sorted(by_tenant):
        numbers = by_tenant[tenant_id]
        said = [reports[number] for number in numbers]
        judged = await _decide_all(conn, tenant_id, said, held[tenant_id], batch)
        for number, answer in zip(numbers, judged, strict=True):
            answers[number] = answer
        await _settle(conn, tenant_id, held[tenant_id], batch)

    done = await write(conn, batch.steps, batch.now, checkpoints=batch.checkpoints)
    missing = [step.seen.id for step in batch.steps if (step.seen.tenant_id, step.seen.id) not in done]
    if missing:
        raise AssertionError(f"{len(missing)} locked executions changed under their lock")
    await _show(conn, reports, answers, done, batch.now)
    await keep_evidence(conn, batch.evidence)
    appended = await _store(conn, batch, caps)
    for report, answer in zip(reports, answers, strict=True):
        if (one := appended.get((report.tenant_id, report.id))) is not None:
            answer.loose = one.loose
    return answers


async def _decide_all(
    conn: AsyncConnection, tenant_id: UUID, reports: Sequence[Report], held: Locked, batch: _Batch
) -> list[Answer]:
    """Judge the reports of one tenant, and note what has to be written."""
    rules = await policies_of(conn, tenant_id, list(held.runs.values()))
    keys = [key for report in reports if (key := _attempt_of(report, held.runs.get(report.id))) is not None]
    stored = await logs.counts(conn, tenant_id, keys)
    asked = [held.runs[one.id] for one in reports if isinstance(one, PatchRunning) and one.id in held.runs]
    begin = [run for run in asked if not run.queue.startswith(RESERVED_PREFIX)]
    workers = {one.id: one.worker for one in reports if isinstance(one, PatchRunning)}
    begun = await simple.begin(conn, tenant_id, begin, workers, rules, batch.now)
    stops = await _stops(conn, tenant_id, reports, held, rules, batch.now)
    answers = []
    for report in reports:
        run = held.runs.get(report.id)
        if run is None:
            busy = report.id in held.busy
            refusal = None if busy else NotFound("there is no such execution")
            answers.append(Answer(refusal=refusal, busy=busy))
            continue
        key = _attempt_of(report, run)
        attempt = stored.get(key) if key is not None else None
        if isinstance(report, PatchRunning):
            answers.append(_note(run, report, begun[run.id], batch) if run.id in begun else Answer(refusal=_ours()))
        elif isinstance(report, AppendLogs):
            answers.append(_append(run, report, attempt, batch, stops))
        elif isinstance(report, AppendText):
            answers.append(_append_text(run, report, attempt, batch, stops))
        else:
            verdict = _judge(run, report, rules[run.id], batch, attempt)
            answers.append(_note(run, report, _pressed(run, verdict, stops, batch.now), batch))
        after = answers[-1].run
        answers[-1].stop = after is not None and _stopping(after, stops, batch.now)
        if run.status in OPEN and after is not None and after.status in FINAL and _placed(run, rules[run.id]):
            batch.freed.setdefault(run.task_uid, []).append(answers[-1])
    return answers


async def _show(
    conn: AsyncConnection, reports: Sequence[Report], answers: Sequence[Answer], done: Done, now: datetime
) -> None:
    """Put what was moved into its wire shape, as far as the reply carries it."""
    moved: dict[UUID, list[tuple[Run, Rest]]] = {}
    for report, answer in zip(reports, answers, strict=True):
        rest = done.get((report.tenant_id, report.id))
        brief = isinstance(report, Complete) and report.brief
        if rest is not None and answer.run is not None and not brief:
            moved.setdefault(report.tenant_id, []).append((answer.run, rest))
    shown = {tenant_id: await show(conn, tenant_id, some, now) for tenant_id, some in sorted(moved.items())}
    for report, answer in zip(reports, answers, strict=True):
        answer.shown = shown.get(report.tenant_id, {}).get(report.id)


def _ours() -> AlreadyClaimed:
    return AlreadyClaimed(
        "the platform runs this execution itself", hint="only tasks without run.http and run.checkin are for workers"
    )


def _placed(run: Run, policy: Policy) -> bool:
    """Say whether the end of a run may let another one begin."""
    limited = policy.overlap is not Overlap.ALLOW_ALL or policy.max_parallel is not None
    return run.fence > 0 and (limited or policy.group is not None or run.backfill_id is not None)


async def _stops(
    conn: AsyncConnection,
    tenant_id: UUID,
    reports: Sequence[Report],
    held: Locked,
    rules: Mapping[UUID, Policy],
    now: datetime,
) -> dict[UUID, UUID]:
    """Return which of the executions that are reported on make room for a newer slot: whether anybody has looked
    since that fell due must not decide."""
    uids = {
        run.task_uid
        for report in reports
        if isinstance(report, Start | Heartbeat | AppendLogs | AppendText)
        and (run := held.runs.get(report.id)) is not None
        and run.status is Status.RUNNING
        and run.cancel_requested_at is None
        and rules[run.id].overlap is Overlap.CANCEL_OTHER
    }
    if not uids:
        return {}
    settled = await settlements(conn, tenant_id, uids, now, due_bounds(now))
    return settled.stops(Overlap.CANCEL_OTHER)


def _stopping(run: Run, stops: Mapping[UUID, UUID], now: datetime) -> bool:
    return run.status is Status.RUNNING and (run.id in stops or lifecycle.closing(run, now))


def _pressed(run: Run, verdict: Verdict, stops: Mapping[UUID, UUID], now: datetime) -> Verdict:
    """Ask what reports to stop if it is to; one thing at a time, so that what has its own event is asked later."""
    after = verdict.run
    if verdict.refusal is not None or verdict.event is not None or not _stopping(after, stops, now):
        return verdict
    if lifecycle.closing(after, now):
        return lifecycle.stop_at_close(after, now)
    return lifecycle.make_room(after, stops[run.id], now)


async def _settle(conn: AsyncConnection, tenant_id: UUID, held: Locked, batch: _Batch) -> None:
    """Settle what fell due while a run that ends now was active: whether anybody has looked meanwhile must not decide.

    What it did not let begin ends or waits in its buffer; who waits may begin now.
    """
    if not batch.freed:
        return
    settled = await settlements(conn, tenant_id, batch.freed, batch.now, due_bounds(batch.now))
    await end(conn, tenant_id, settled, {}, batch.now, besides=held.runs)
    await hold(conn, tenant_id, [one for one in to_hold(settled) if one not in held.runs], batch.now)
    await ask_to_stop(conn, tenant_id, settled, batch.now, besides=held.runs)
    for uid, answers in batch.freed.items():
        verdict, policy = settled.verdicts[uid], settled.rules.get(uid, Policy())
        for answer in answers:
            answer.wakes = bool(verdict.run or verdict.hold) or policy.group is not None
    batch.freed.clear()


def _attempt_of(report: Report, run: Run | None) -> tuple[UUID, int] | None:
    """Return the attempt whose row in `attempts` decides about this report."""
    if isinstance(report, AppendLogs):
        return report.id, report.fence
    if isinstance(report, AppendText) and (report.fence is not None or run is not None):
        return report.id, run.fence if report.fence is None and run is not None else report.fence or 0
    if isinstance(report, Complete):
        return report.id, report.done.fence
    if isinstance(report, PatchEnd) and run is not None:
        return report.id, run.fence
    return None


def _judge(run: Run, report: Report, policy: Policy, batch: _Batch, attempt: logs.Stored | None) -> Verdict:
    """Let the life cycle judge one report."""
    now = batch.now
    match report:
        case Start(fence=fence):
            return lifecycle.start(run, fence, now)
        case Heartbeat(fence=fence):
            verdict = lifecycle.heartbeat(
                run, fence, now, lease=report.lease, progress=report.progress, message=report.message
            )
            if verdict.refusal is None and report.checkpoint is not None:
                batch.checkpoints[run.id] = report.checkpoint
            return verdict
        case Complete(done=done):
            return _complete(run, done, policy, now, attempt)
        case Release() | Accept():
            return _handed_on(run, report, policy, now)
        case Cancel(reason=reason, actor=actor, grace=grace):
            return lifecycle.request_cancel(run, reason=reason, grace=grace, actor=actor, now=now)
        case PatchEnd(done=done):
            return _patch_end(run, done, policy, now, attempt)
        case _:
            raise AssertionError(f"nobody decides about {type(report).__name__}")


def _handed_on(run: Run, report: Release | Accept, policy: Policy, now: datetime) -> Verdict:
    """Judge a worker's word that it is somebody else's turn: anybody's, or that of the destination it was sent to."""
    if isinstance(report, Accept):
        return lifecycle.accept(run, report.fence, now, told=report.told)
    return lifecycle.release(run, report.fence, policy, report.reason, now)


def _complete(run: Run, done: Completion, policy: Policy, now: datetime, attempt: logs.Stored | None) -> Verdict:
    digest = None if attempt is None else attempt.digest
    recordable = attempt is not None and not attempt.recorded
    return lifecycle.complete(run, done, policy, now, seen_digest=digest, recordable=recordable)


def _patch_end(run: Run, done: Completion, policy: Policy, now: datetime, attempt: logs.Stored | None) -> Verdict:
    """End only an attempt that the simple form began; its word may be repeated, or come late, as any other's."""
    if run.protocol == "patch" and (run.status is Status.RUNNING or run.reason is Reason.TIMED_OUT or _said(attempt)):
        verdict = _complete(run, replace(done, fence=run.fence), policy, now, attempt)
        if verdict.refusal is None:
            return verdict
        return replace(verdict, refusal=NotRunning(f"the execution is {run.status}"))
    hint = "PATCH status=RUNNING takes it first; a claimed execution is completed with its fence"
    return Verdict(run=run, refusal=NotRunning("no attempt was begun by PATCH", hint=hint))


def _said(attempt: logs.Stored | None) -> bool:
    return attempt is not None and attempt.digest is not None


def _note(run: Run, report: Report, verdict: Verdict, batch: _Batch) -> Answer:
    if verdict.run != run or run.id in batch.checkpoints:
        batch.steps.append(Step(run, verdict))
    if verdict.late_outcome is not None:
        fence = report.done.fence if isinstance(report, Complete) else run.fence
        batch.evidence.append((run.tenant_id, run.id, fence, verdict.late_outcome))
    return Answer(run=verdict.run, refusal=verdict.refusal, again=verdict.again)


def _append(
    run: Run, report: AppendLogs, stored: logs.Stored | None, batch: _Batch, stops: Mapping[UUID, UUID]
) -> Answer:
    """Store the lines that are new; the ones that are stored already are dropped, a gap is refused."""
    refusal = _closed(run, report.fence, stored, batch.now)
    if stored is None or refusal is not None:
        return Answer(run=run, refusal=refusal)
    have = stored.lines
    if report.first_seq > have:
        gap = LogGap(f"entries {have} to {report.first_seq - 1} are missing", expected_seq=have)
        return Answer(run=run, refusal=gap)
    fresh = report.lines.part(have - report.first_seq)
    return _take(_Lines(run, have, fresh), stored, batch, stops)


def _append_text(
    run: Run, report: AppendText, stored: logs.Stored | None, batch: _Batch, stops: Mapping[UUID, UUID]
) -> Answer:
    """Store lines of plain text at the end of the log, if that is where they belong."""
    if report.fence is None and run.protocol != "patch":
        hint = "say fence=…, as the claim told it; only what PATCH has taken has none"
        return Answer(run=run, refusal=NotRunning("no attempt was begun by PATCH", hint=hint))
    refusal = _closed(run, run.fence if report.fence is None else report.fence, stored, batch.now)
    if stored is None or refusal is not None:
        return Answer(run=run, refusal=refusal)
    if report.offset is not None and report.offset != stored.stream:
        gap = LogGap(f"the log goes on at byte {stored.stream}", expected_offset=stored.stream)
        return Answer(run=run, refusal=gap, stream=stored.stream)
    return _take(_Lines(run, stored.lines, report.lines, report.size), stored, batch, stops)


def _closed(run: Run, fence: int, stored: logs.Stored | None, now: datetime) -> CronObserverError | None:
    """Return why a claim's log takes nothing, None if it does."""
    lost = stored is None or fence != run.fence
    if lost or (run.status is not Status.RUNNING and not _still_open(run, stored, now)):
        refusal: CronObserverError | None = lifecycle.start(run, fence, now).refusal
        if refusal is None:
            raise AssertionError("an attempt has a row")
        return refusal
    return None


def _take(new: _Lines, stored: logs.Stored, batch: _Batch, stops: Mapping[UUID, UUID]) -> Answer:
    """Note lines that will be stored, and that the execution lives."""
    run = new.run
    if len(new.lines):
        batch.lines.append(new)
    if run.status is Status.RUNNING:
        verdict = _pressed(run, Verdict(run=lifecycle.begun(run, batch.now)), stops, batch.now)
        if verdict.run != run:
            batch.steps.append(Step(run, verdict))
            run = verdict.run
    return Answer(run=run, next_seq=stored.lines + len(new.lines), stream=stored.stream + new.stream)


def _still_open(run: Run, stored: logs.Stored | None, now: datetime) -> bool:
    """Say whether a log takes the last lines of an attempt that has ended by its own word, or for good."""
    ended = run.finished_at
    if ended is None and stored is not None and _said(stored):
        ended = stored.ended_at
    return ended is not None and now <= ended + logs.AFTER_END


async def _store(
    conn: AsyncConnection, batch: _Batch, caps: logs.Caps | None
) -> Mapping[tuple[UUID, UUID], logs.Appended]:
    """Store the lines of a batch."""

    def pack() -> list[tuple[UUID, UUID, int, logs.Chunk]]:
        return [
            (new.run.tenant_id, new.run.id, new.run.fence, chunk)
            for new in batch.lines
            for chunk in logs.pack_lines(new.first, new.lines)
        ]

    size = sum(new.lines.size for new in batch.lines)
    chunks = pack() if size < _THREAD_FROM else await asyncio.to_thread(pack)
    streams = {(new.run.tenant_id, new.run.id): new.stream for new in batch.lines if new.stream}
    done = await logs.append(conn, chunks, batch.now, streams=streams, caps=caps)
    if len(done) != len(batch.lines):
        raise AssertionError("a log changed under the lock of its execution")
    return done
