"""The simple form: scripts that take one execution by its id, without a lease to renew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import lifecycle
from cron_observer.errors import AlreadyClaimed, NotRunning
from cron_observer.lifecycle import Run, Status, Verdict
from cron_observer.model import Policy
from cron_observer.store import shapes
from cron_observer.store.executions.apply import Step
from cron_observer.store.executions.claims import take_places
from cron_observer.store.executions.deadlines import standing
from cron_observer.store.executions.rows import generations


async def begin(
    conn: AsyncConnection,
    tenant_id: UUID,
    runs: Sequence[Run],
    workers: Mapping[UUID, str],
    rules: Mapping[UUID, Policy],
    now: datetime,
) -> dict[UUID, Verdict]:
    """Judge who may begin; the runs are locked, `workers` and `rules` are by their ids.

    Who asks for one by name need not take the newest of a backlog; all other rules hold as for claims.
    """
    if not runs:
        return {}
    current = await generations(conn, tenant_id, sorted({run.task_uid for run in runs}))
    standing_ids = await standing(conn, tenant_id, [run.id for run in runs])
    verdicts: dict[UUID, Verdict] = {}
    steps: list[Step] = []
    for run in runs:
        generation, removed = current.get(run.task_uid, (0, True))
        refused = _refused(run, rules[run.id], now, removed=removed, obsolete=run.id not in standing_ids)
        if refused is not None:
            verdicts[run.id] = refused
            continue
        verdict = lifecycle.claim(
            run, rules[run.id], generation=generation, worker=workers[run.id], lease=None, now=now
        )
        steps.append(Step(run, verdict))
    kept = {step.seen.id for step in await take_places(conn, tenant_id, steps, rules, now)}
    hint = "its overlap policy is skip"
    for step in steps:
        refusal = AlreadyClaimed("another run of the task is active", hint=hint)
        verdicts[step.seen.id] = step.verdict if step.seen.id in kept else Verdict(run=step.seen, refusal=refusal)
    return verdicts


def _refused(run: Run, policy: Policy, now: datetime, *, removed: bool, obsolete: bool) -> Verdict | None:
    """Say why an execution cannot begin, and how it ends if that shows only now."""
    if run.status is not Status.PENDING:
        return Verdict(run=run, refusal=AlreadyClaimed(f"the execution is {run.status}"))
    if obsolete:
        return Verdict(run=run, refusal=NotRunning("the task's schedule was changed before this slot fell due"))
    if run.available_at > now:
        due = shapes.instant(run.available_at)
        return Verdict(run=run, refusal=NotRunning("the execution is not due yet", available_at=due))
    ended = lifecycle.unfit(run, policy, now, removed=removed)
    if ended is None:
        return None
    refusal = AlreadyClaimed(f"the execution is {ended.run.status}: {ended.run.reason}")
    return Verdict(run=ended.run, event=ended.event, refusal=refusal)
