"""What workers and operators say of executions, many at a time: one transaction, one statement for each kind of write.

The group-commit writer hands over whatever arrived while its last commit was in flight. Rows are locked in
(tenant, id) order, every report is decided by `lifecycle` on what the lock shows, and all of it is written at once.
A report is answered from what was written, never from what was hoped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import lifecycle
from cron_observer.errors import AlreadyClaimed, CronObserverError, LogGap, NotFound, NotRunning
from cron_observer.lifecycle import Completion, Run, Status, Verdict
from cron_observer.model import Policy
from cron_observer.store import logs
from cron_observer.store.engine import clock
from cron_observer.store.executions.apply import Step, keep_evidence, write
from cron_observer.store.executions.claims import take_places
from cron_observer.store.executions.rows import generations, lock, policies_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Something said of one execution by one tenant. The subclasses say what."""

    tenant_id: UUID
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Report):
    """The work begins."""

    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Report):
    """The worker lives; the lease counts from now on."""

    fence: int
    lease: timedelta | None = None
    progress: float | None = None
    message: str | None = None
    checkpoint: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendLogs(Report):
    """Log lines from number `first_seq` on, with ``level``, ``message``, ``ts`` and ``fields``."""

    fence: int
    first_seq: int
    entries: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete(Report):
    """The worker's last word."""

    done: Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Report):
    """The worker gives the execution back without having done it."""

    fence: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Report):
    """A person wants it to stop."""

    reason: str
    actor: str
    grace: timedelta = lifecycle.GRACE_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRunning(Report):
    """The simple form: a script takes this execution, leased until its run deadline."""

    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchEnd(Report):
    """The simple form: the script that took it says how it ended."""

    done: Completion


@dataclass(slots=True)
class Answer:
    """What became of a report: the execution as it stands now, or why not. `again` asks for another round."""

    run: Run | None = None
    refusal: CronObserverError | None = None
    next_seq: int | None = None
    again: bool = False


@dataclass(slots=True)
class _Batch:
    """What a batch will write, gathered while its reports are decided."""

    now: datetime
    steps: list[Step] = field(default_factory=list)
    checkpoints: dict[UUID, Any] = field(default_factory=dict)
    evidence: list[tuple[UUID, UUID, int, Any]] = field(default_factory=list)
    chunks: list[tuple[UUID, UUID, int, logs.Chunk]] = field(default_factory=list)


async def process(conn: AsyncConnection, reports: Sequence[Report]) -> list[Answer]:
    """Decide and write `reports` in the caller's transaction; answer each, in order.

    At most one report of an execution is in a batch. The clock is read once, after all locks are held.
    """
    by_tenant: dict[UUID, list[int]] = {}
    for number, report in enumerate(reports):
        by_tenant.setdefault(report.tenant_id, []).append(number)

    held: dict[UUID, dict[UUID, Run]] = {}
    for tenant_id in sorted(by_tenant):
        held[tenant_id] = await lock(conn, tenant_id, [reports[number].id for number in by_tenant[tenant_id]])
    batch = _Batch(now=await clock(conn))

    answers: list[Answer] = [Answer() for _ in reports]
    for tenant_id, numbers in by_tenant.items():
        runs = held[tenant_id]
        rules = await policies_of(conn, tenant_id, list(runs.values()))
        said = [reports[number] for number in numbers]
        stored = await logs.counts(conn, tenant_id, [key for key in map(_log_key, said) if key is not None])
        claims: list[tuple[int, Step]] = []
        for number in numbers:
            report = reports[number]
            run = runs.get(report.id)
            if run is None:
                answers[number] = Answer(refusal=NotFound("there is no such execution"))
            elif isinstance(report, PatchRunning):
                answers[number] = await _patch_running(conn, run, report, rules[run.id], batch, claims, number)
            elif isinstance(report, AppendLogs):
                answers[number] = _append(run, report, stored.get((run.id, report.fence)), batch)
            else:
                key = _log_key(report)
                seen = stored.get(key) if key is not None else None
                answers[number] = _decide(run, report, rules[run.id], batch, None if seen is None else seen[1])
        await _claim(conn, tenant_id, claims, rules, batch, answers)

    done = await write(conn, batch.steps, batch.now, checkpoints=batch.checkpoints)
    missing = [step.seen.id for step in batch.steps if (step.seen.tenant_id, step.seen.id) not in done]
    if missing:
        raise AssertionError(f"{len(missing)} locked executions changed under their lock")
    await keep_evidence(conn, batch.evidence)
    await logs.append(conn, batch.chunks, batch.now)
    return answers


def _log_key(report: Report) -> tuple[UUID, int] | None:
    """Return the attempt whose row in `attempts` decides about this report."""
    if isinstance(report, AppendLogs):
        return report.id, report.fence
    if isinstance(report, Complete):
        return report.id, report.done.fence
    return None


def _decide(run: Run, report: Report, policy: Policy, batch: _Batch, digest: bytes | None) -> Answer:
    """Let the life cycle judge one report, and note what has to be written."""
    now = batch.now
    match report:
        case Start(fence=fence):
            verdict = lifecycle.start(run, fence, now)
        case Heartbeat(fence=fence):
            verdict = lifecycle.heartbeat(
                run, fence, now, lease=report.lease, progress=report.progress, message=report.message
            )
            if verdict.refusal is None and report.checkpoint is not None:
                batch.checkpoints[run.id] = report.checkpoint
        case Complete(done=done):
            verdict = lifecycle.complete(run, done, policy, now, seen_digest=digest)
        case Release(fence=fence, reason=reason):
            verdict = lifecycle.release(run, fence, policy, reason, now)
        case Cancel(reason=reason, actor=actor, grace=grace):
            verdict = lifecycle.request_cancel(run, reason=reason, grace=grace, actor=actor, now=now)
        case PatchEnd(done=done):
            verdict = _patch_end(run, done, policy, now)
        case _:
            raise AssertionError(f"nobody decides about {type(report).__name__}")
    return _note(run, report, verdict, batch)


def _note(run: Run, report: Report, verdict: Verdict, batch: _Batch) -> Answer:
    if verdict.run != run or run.id in batch.checkpoints:
        batch.steps.append(Step(run, verdict))
    if verdict.late_outcome is not None and isinstance(report, Complete):
        batch.evidence.append((run.tenant_id, run.id, report.done.fence, verdict.late_outcome))
    return Answer(run=verdict.run, refusal=verdict.refusal, again=verdict.again)


def _patch_end(run: Run, done: Completion, policy: Policy, now: datetime) -> Verdict:
    """End only an attempt that the simple form began."""
    if run.protocol == "patch" and run.status.value == done.outcome.upper():
        return Verdict(run=run)  # said before
    if run.status is not Status.RUNNING or run.protocol != "patch":
        hint = "PATCH status=RUNNING takes it first; a claimed execution is completed with its fence"
        return Verdict(run=run, refusal=NotRunning("no attempt was begun by PATCH", hint=hint))
    return lifecycle.complete(run, replace(done, fence=run.fence), policy, now)


async def _patch_running(
    conn: AsyncConnection,
    run: Run,
    report: PatchRunning,
    policy: Policy,
    batch: _Batch,
    claims: list[tuple[int, Step]],
    number: int,
) -> Answer:
    if run.status is not Status.PENDING:
        return Answer(run=run, refusal=AlreadyClaimed(f"the execution is {run.status}"))
    if run.available_at > batch.now:
        return Answer(run=run, refusal=NotRunning("the execution is not due yet", available_at=run.available_at))
    current = await generations(conn, run.tenant_id, [run.task_uid])
    verdict = lifecycle.claim(
        run,
        policy,
        generation=current.get(run.task_uid, (0, True))[0],
        worker=report.worker,
        lease=None,
        now=batch.now,
    )
    claims.append((number, Step(run, verdict)))
    return Answer(run=verdict.run)


async def _claim(
    conn: AsyncConnection,
    tenant_id: UUID,
    claims: Sequence[tuple[int, Step]],
    rules: Mapping[UUID, Policy],
    batch: _Batch,
    answers: list[Answer],
) -> None:
    """Take the places of exclusive tasks for those that PATCH wants to begin."""
    steps = [step for _, step in claims]
    by_task = {step.seen.task_uid: rules[step.seen.id] for step in steps}
    kept = await take_places(conn, tenant_id, steps, by_task, batch.now)
    batch.steps += kept
    for number, step in claims:
        if step not in kept:
            refusal = AlreadyClaimed("another run of the task is active", hint="its overlap policy is skip")
            answers[number] = Answer(run=step.seen, refusal=refusal)


def _append(run: Run, report: AppendLogs, stored: tuple[int, bytes | None] | None, batch: _Batch) -> Answer:
    """Store the lines that are new; the ones that are stored already are dropped, a gap is refused."""
    if stored is None or report.fence != run.fence:
        verdict = lifecycle.start(run, report.fence, batch.now)
        if verdict.refusal is None:
            raise AssertionError("an attempt has a row")
        return Answer(run=run, refusal=verdict.refusal)
    if run.status is not Status.RUNNING:
        ended = run.finished_at
        if ended is None or ended + logs.AFTER_END < batch.now:
            return Answer(run=run, refusal=lifecycle.start(run, report.fence, batch.now).refusal)
    have = stored[0]
    if report.first_seq > have:
        gap = LogGap(f"entries {have} to {report.first_seq - 1} are missing", expected_seq=have)
        return Answer(run=run, refusal=gap)
    fresh = report.entries[have - report.first_seq :]
    if fresh:
        batch.chunks.append((run.tenant_id, run.id, run.fence, logs.pack(have, fresh)))
    if run.status is Status.RUNNING and run.started_at is None:
        begun = replace(run, started_at=batch.now)
        batch.steps.append(Step(run, Verdict(run=begun)))
        run = begun
    return Answer(run=run, next_seq=have + len(fresh))
