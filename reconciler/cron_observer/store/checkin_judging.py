"""Judge the silence of check-ins: slots that nobody has pinged, and runs whose end was not told."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import checkins, lifecycle
from cron_observer.lifecycle import Run, Status, Verdict
from cron_observer.model import Policy
from cron_observer.store import checkin_rows
from cron_observer.store.engine import fetch
from cron_observer.store.executions.apply import Step, write
from cron_observer.store.executions.bounds import BETWEEN, CURRENT, EVERYWHERE
from cron_observer.store.executions.rows import SELECTED, policies_of, task_rows, to_run

_UNPINGED: Final = f"""
SELECT {SELECTED} FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.status = 'PENDING' AND e.queue = '@checkin' AND e.fence = 0
  AND e.start_deadline <= %(now)s AND {BETWEEN} AND {CURRENT}
ORDER BY e.start_deadline
LIMIT %(limit)s
FOR UPDATE OF e SKIP LOCKED
"""

_SILENT: Final = f"""
SELECT {SELECTED} FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.status = 'RUNNING' AND e.queue = '@checkin' AND e.check_at <= %(now)s
  AND {BETWEEN}
ORDER BY e.check_at
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""


async def judge(conn: AsyncConnection, tenant_id: UUID, now: datetime, limit: int = 1_000) -> tuple[int, bool]:
    """Give their outcome to check-ins that were silent for too long, `limit` slots and runs at most.

    Returns how many ended, and whether there may be more. While nobody receives pings, nothing is judged.
    """
    outages = await checkin_rows.outages(conn, tenant_id, now)
    if any(outage.until is None for outage in outages):
        return 0, False
    parameters = {"tenant": tenant_id, "now": now, "limit": limit, **EVERYWHERE}
    slots = [to_run(row) for row in await fetch(conn, _UNPINGED, parameters)]
    runs = [to_run(row) for row in await fetch(conn, _SILENT, parameters)]
    if not slots and not runs:
        return 0, False
    rules = await policies_of(conn, tenant_id, [*slots, *runs])
    tasks = await task_rows(conn, tenant_id, sorted({run.task_uid for run in slots}))
    gone = {run.task_uid for run in slots if run.task_uid not in tasks or tasks[run.task_uid].removed}
    steps = [Step(run, _judged(run, rules[run.id], outages, now, gone=run.task_uid in gone)) for run in (*slots, *runs)]
    changed = [step for step in steps if step.verdict.run != step.seen]
    await write(conn, changed, now)
    ended = sum(step.verdict.event is not None for step in changed)
    return ended, max(len(slots), len(runs)) == limit


def _judged(run: Run, policy: Policy, outages: list[checkins.Outage], now: datetime, *, gone: bool) -> Verdict:
    if gone:
        return lifecycle.end_unclaimed(run, lifecycle.Event.SKIPPED, lifecycle.Reason.TASK_DELETED, now)
    asked, ours = run.cancel_requested_at is not None, run.protocol in {None, checkins.PROTOCOL}
    if policy.checkin is None or asked or not ours:
        # no check-in any more, somebody wants it to stop, or a worker holds it: the rules of all other executions
        return lifecycle.expire(run, policy, now)
    if run.status is Status.PENDING:
        return checkins.judge_slot(run, policy.checkin, outages, now)
    return checkins.judge_run(run, policy.checkin, outages, now)
