"""Pauses: a stretch in which a task's slots do not run, with who began it, why, and what happens at its end.

A pause is a row beside the task, so that a task of a manifest can be paused as well. Whoever begins or ends one
writes the task's forecasts anew at once; `follow`, on the scheduler, ends those whose time has come, mends what a
planner that knew nothing of the pause has written meanwhile, and carries out `on_resume`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.model import OnResume
from cron_observer.schedule import new_id
from cron_observer.store import audit, pause_slots
from cron_observer.store.engine import clock, fetch
from cron_observer.store.pause_slots import Ended

#: How long after it was asked for a pause ends, as edits take effect: by then it is committed.
MARGIN: Final = timedelta(seconds=5)

#: Who ends a pause whose time has come.
ITSELF: Final = "scheduler"

_COLUMNS: Final = "p.pause_id, p.task_uid, p.since, p.until, p.reason, p.author, p.on_resume, p.ended_at, p.runs"

_LOCK_OPEN: Final = f"""
SELECT {_COLUMNS} FROM pauses p
WHERE p.tenant_id = %(tenant)s AND p.task_uid = %(uid)s AND p.ended_at IS NULL FOR UPDATE
"""

_INSERT: Final = """
INSERT INTO pauses (tenant_id, pause_id, task_uid, since, until, reason, author, on_resume, created_at)
VALUES (%(tenant)s, %(id)s, %(uid)s, %(since)s, %(until)s, %(reason)s, %(author)s, %(on_resume)s, %(since)s)
ON CONFLICT (tenant_id, task_uid) WHERE ended_at IS NULL DO NOTHING
RETURNING pause_id
"""

_REPLACE: Final = """
UPDATE pauses SET until = %(until)s, reason = %(reason)s, author = %(author)s, on_resume = %(on_resume)s,
    followed_at = NULL
WHERE tenant_id = %(tenant)s AND pause_id = %(id)s
"""

_END: Final = """
UPDATE pauses SET ended_at = %(at)s, ended_by = %(by)s, on_resume = %(on_resume)s, followed_at = NULL
WHERE tenant_id = %(tenant)s AND pause_id = %(id)s AND ended_at IS NULL
"""

#: The scheduler's role may write less.
_RUN_OUT: Final = """
UPDATE pauses SET ended_at = until, ended_by = %(by)s, followed_at = NULL
WHERE tenant_id = %(tenant)s AND pause_id = ANY (%(ids)s::uuid[]) AND ended_at IS NULL
"""

_FOLLOWED: Final = """
UPDATE pauses SET followed_at = %(now)s WHERE tenant_id = %(tenant)s AND pause_id = ANY (%(ids)s::uuid[])
"""

#: A plan that somebody writes at the moment is followed the next time, so that nobody waits for anybody.
_TO_FOLLOW: Final = f"""
SELECT {_COLUMNS}
FROM pauses p
JOIN task_plan q ON q.tenant_id = p.tenant_id AND q.task_uid = p.task_uid
WHERE p.tenant_id = %(tenant)s
  AND (p.followed_at IS NULL AND (p.ended_at IS NULL OR p.ended_at <= %(now)s)
       OR p.ended_at IS NULL AND p.until <= %(now)s)
ORDER BY p.task_uid, p.since
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED
"""

_NAMES: Final = """
SELECT t.task_uid, p.name || '/' || t.name
FROM tasks t JOIN projects p ON p.tenant_id = t.tenant_id AND p.project_id = t.project_id
WHERE t.tenant_id = %(tenant)s AND t.task_uid = ANY (%(uids)s::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Resumed:
    """When a pause ends, and how many runs make up for it; None: left to the scheduler, as the plan falls short."""

    at: datetime
    runs: int | None


@dataclass(frozen=True, slots=True)
class Row:
    """A pause as it is stored. `runs`: the executions that its end has made, None until that is done."""

    pause_id: UUID
    task_uid: UUID
    since: datetime
    until: datetime | None
    reason: str | None
    author: str
    on_resume: str
    ended_at: datetime | None
    runs: int | None


async def begin(
    conn: AsyncConnection,
    tenant_id: UUID,
    task_uid: UUID,
    *,
    until: datetime | None,
    reason: str | None,
    on_resume: OnResume,
    author: str,
    now: datetime,
) -> str:
    """Pause a task from `now` on, or give the pause that it is in another end, reason and policy.

    Its slots that are not yet due become SKIPPED(paused), or wait again where the pause has become shorter.
    Returns ``pause``, ``replace``, or ``same`` when nothing differs.
    """
    values = {
        "tenant": tenant_id,
        "uid": task_uid,
        "until": until,
        "reason": reason,
        "author": author,
        "on_resume": on_resume.value,
    }
    row = await _lock(conn, tenant_id, task_uid)
    if row is not None and row.until is not None and row.until <= now:
        # its time has come and the scheduler has not been here since: what begins now is another pause
        await fetch(conn, _RUN_OUT, {"tenant": tenant_id, "ids": [row.pause_id], "by": ITSELF})
        row = None
    if row is None and not await fetch(conn, _INSERT, values | {"id": new_id(now), "since": now}):
        row = await _lock(conn, tenant_id, task_uid)  # somebody else has paused it at the same moment
    done = "pause"
    if row is not None:
        if (row.until, row.reason, row.on_resume) == (until, reason, on_resume.value):
            return "same"
        await fetch(conn, _REPLACE, values | {"id": row.pause_id})
        done = "replace"
    await pause_slots.agree(conn, tenant_id, task_uid, row.since if row else now, now)
    return done


async def _lock(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID) -> Row | None:
    rows = await fetch(conn, _LOCK_OPEN, {"tenant": tenant_id, "uid": task_uid})
    return Row(*rows[0]) if rows else None


async def end(
    conn: AsyncConnection, tenant_id: UUID, task_uid: UUID, *, by: str, on_resume: OnResume | None = None
) -> Resumed | None:
    """End the pause that a task is in, a few seconds from now; None when it is not paused.

    `on_resume` replaces what the pause says. Slots from the end of the pause on wait again; what is due and still
    waits is skipped now, so that it is made up for like the others.
    """
    row = await _lock(conn, tenant_id, task_uid)
    if row is None:
        return None
    # the clock after the lock: whoever held it may have taken long
    now = await clock(conn)
    at = now + MARGIN if row.until is None else min(row.until, now + MARGIN)
    policy = on_resume.value if on_resume else row.on_resume
    values = {"tenant": tenant_id, "id": row.pause_id, "at": at, "by": by, "on_resume": policy}
    await fetch(conn, _END, values)
    await pause_slots.agree(conn, tenant_id, task_uid, row.since, now)
    await pause_slots.settle(conn, tenant_id, task_uid, row.since, at, now)
    ended = Ended(row.pause_id, task_uid, row.since, at, OnResume(policy))
    return Resumed(at, await pause_slots.make_up(conn, tenant_id, ended, now, actor=by))


async def follow(conn: AsyncConnection, tenant_id: UUID, now: datetime, limit: int = 100) -> int:
    """Do what is left to do for up to `limit` pauses, in this transaction; return how many are done with.

    Ends those whose time has come, lets slots agree with each, and makes up for those that have ended as their
    `on_resume` says, once the task is planned up to there. The plans' rows are locked first: a planner that knew
    nothing of a pause has committed by then.
    """
    rows = [Row(*row) for row in await fetch(conn, _TO_FOLLOW, {"tenant": tenant_id, "now": now, "limit": limit})]
    if not rows:
        return 0
    await _run_out(conn, tenant_id, [row for row in rows if row.ended_at is None and _over(row, now)], now)
    done = []
    for row in rows:
        await pause_slots.agree(conn, tenant_id, row.task_uid, row.since, now)
        at = row.ended_at or (row.until if _over(row, now) else None)
        if at is not None:
            await pause_slots.settle(conn, tenant_id, row.task_uid, row.since, at, now)
            ended = Ended(row.pause_id, row.task_uid, row.since, at, OnResume(row.on_resume))
            if row.runs is None and await pause_slots.make_up(conn, tenant_id, ended, now, actor=ITSELF) is None:
                continue
        done.append(row.pause_id)
    await fetch(conn, _FOLLOWED, {"tenant": tenant_id, "ids": done, "now": now})
    return len(done)


def _over(row: Row, now: datetime) -> bool:
    return row.until is not None and row.until <= now


async def _run_out(conn: AsyncConnection, tenant_id: UUID, rows: Sequence[Row], now: datetime) -> None:
    """End these pauses at the instants that they name, and write down that nobody did it."""
    if not rows:
        return
    await fetch(conn, _RUN_OUT, {"tenant": tenant_id, "ids": [row.pause_id for row in rows], "by": ITSELF})
    found: list[Any] = await fetch(conn, _NAMES, {"tenant": tenant_id, "uids": [row.task_uid for row in rows]})
    names = dict(map(tuple, found))
    for row in rows:
        target = f"task:{names.get(row.task_uid, row.task_uid)}"
        data = {"pause": str(row.pause_id), "on_resume": row.on_resume}
        await audit.record(conn, tenant_id, actor=ITSELF, action="task.resume", target=target, now=now, data=data)
