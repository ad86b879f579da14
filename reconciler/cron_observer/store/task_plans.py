"""What tasks are planned from, as far as their rows and what they refer to say it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.durations import start_patience
from cron_observer.model import effective_queue
from cron_observer.store import arrays, bindings, plans
from cron_observer.store.bindings import Bindings
from cron_observer.store.plans import PlanInput

_PLANNED: Final = text("""
    SELECT task_uid, project_id, owner, seed, spec, removed_at IS NULL AND deleting_at IS NULL AS wanted
    FROM tasks WHERE tenant_id = :tenant_id AND task_uid = ANY (CAST(:task_uid AS uuid[])) ORDER BY task_uid""")


class Planned(NamedTuple):
    """What a task is planned from."""

    task_uid: UUID
    project_id: UUID
    owner: str
    seed: str
    spec: Mapping[str, Any]
    wanted: bool


async def register(conn: AsyncConnection, tenant_id: UUID, uids: Sequence[UUID], now: datetime) -> None:
    """Let the planner know what became of tasks, as their rows say it."""
    if not uids:
        return
    values = {"tenant_id": tenant_id, "task_uid": arrays.uuids(uids)}
    rows = [Planned(*row) for row in await conn.execute(_PLANNED, values)]
    await plans.register(conn, tenant_id, await (await planning(conn, tenant_id, rows)), now)


async def planning(conn: AsyncConnection, tenant_id: UUID, rows: Sequence[Planned]) -> asyncio.Future[list[PlanInput]]:
    """Begin to make what tasks are planned from, in a thread that needs no connection."""
    bound = await bindings.of(conn, tenant_id, [(row.project_id, row.spec) for row in rows])

    def inputs() -> list[PlanInput]:
        made = [_plan_input(row, bound) for row in rows]
        for one in made:
            one.inputs  # noqa: B018  made here, and remembered
        return made

    return asyncio.get_running_loop().run_in_executor(None, inputs)


def _plan_input(row: Planned, bound: Bindings) -> PlanInput:
    patience = start_patience(row.spec)
    group = bound.group(row.project_id, row.spec)
    return PlanInput(
        task_uid=row.task_uid,
        project_id=row.project_id,
        owner=row.owner,
        active=row.wanted and not row.spec["suspend"] and not (group and group["suspend"]),
        schedule=row.spec["schedule"],
        seed=row.seed,
        queue=effective_queue(row.spec),
        priority=row.spec["priority"],
        start_deadline_seconds=None if patience is None else patience.total_seconds(),
        calendars=bound.calendars(row.project_id, row.spec),
        group={name: group[name] for name in ("name", "uid", "timezone", "windows")} if group else None,
    )
