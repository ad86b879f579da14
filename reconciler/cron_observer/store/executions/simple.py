"""The simple form: scripts that take one execution by its id, without a lease to renew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import lifecycle
from cron_observer.errors import AlreadyClaimed, NotRunning
from cron_observer.lifecycle import Run, Status, Verdict
from cron_observer.model import Pause, Policy
from cron_observer.store import pauses, shapes
from cron_observer.store.executions.apply import Step
from cron_observer.store.executions.claims import take_places
from cron_observer.store.executions.deadlines import standing
from cron_observer.store.executions.places import Need, Places
from cron_observer.store.executions.rows import TaskRow, task_rows


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
    uids = sorted({run.task_uid for run in runs})
    current = await task_rows(conn, tenant_id, uids)
    paused = await pauses.in_force(conn, tenant_id, uids, now)
    standing_ids = await standing(conn, tenant_id, [run.id for run in runs])
    places = Places(tenant_id)
    await places.learn(conn, [Need.of(run, rules[run.id]) for run in runs])
    verdicts: dict[UUID, Verdict] = {}
    steps: list[Step] = []
    for run in runs:
        task, need = current.get(run.task_uid), Need.of(run, rules[run.id])
        known = _Known(task, paused.get(run.task_uid), obsolete=run.id not in standing_ids)
        refused = _refused(run, need.policy, now, known)
        if refused is None and not places.take(run.id, places.needed(need)):
            refused = Verdict(run=run, refusal=_taken(need))
        if refused is not None:
            verdicts[run.id] = refused
            continue
        verdict = lifecycle.claim(
            run,
            need.policy,
            generation=0 if task is None else task.generation,
            worker=workers[run.id],
            lease=None,
            now=now,
            cut=places.cut(need),
        )
        steps.append(Step(run, verdict))
    kept = {step.seen.id for step in await take_places(conn, steps, places, now)}
    for step in steps:
        lost = Verdict(run=step.seen, refusal=_taken(Need.of(step.seen, rules[step.seen.id])))
        verdicts[step.seen.id] = step.verdict if step.seen.id in kept else lost
    return verdicts


def _taken(need: Need) -> AlreadyClaimed:
    overlap = need.policy.overlap
    return AlreadyClaimed("another run has its place", hint=f"its overlap policy is {overlap}; its group may be full")


class _Known(NamedTuple):
    """What decides beside the execution itself whether it may begin."""

    task: TaskRow | None
    paused: Pause | None
    obsolete: bool


def _refused(run: Run, policy: Policy, now: datetime, known: _Known) -> Verdict | None:
    """Say why an execution cannot begin, and how it ends if that shows only now."""
    if run.status is not Status.PENDING:
        return Verdict(run=run, refusal=AlreadyClaimed(f"the execution is {run.status}"))
    if known.obsolete:
        return Verdict(run=run, refusal=NotRunning("the task's schedule was changed before this slot fell due"))
    if run.available_at > now:
        due = shapes.instant(run.available_at)
        return Verdict(run=run, refusal=NotRunning("the execution is not due yet", available_at=due))
    removed = known.task is None or known.task.removed
    ended = lifecycle.unfit(run, policy, now, removed=removed, paused=known.paused)
    if ended is None:
        return None
    refusal = AlreadyClaimed(f"the execution is {ended.run.status}: {ended.run.reason}")
    return Verdict(run=ended.run, event=ended.event, refusal=refusal)
