"""Claims for tests: seats, rounds, and executions that run."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cron_observer.lifecycle import Completion, Run
from cron_observer.store.engine import Database, clock
from cron_observer.store.executions import Answer, Complete, Report, Seat, claim_round, process
from support.databases import FreshDatabase, Tenant

SECOND = timedelta(seconds=1)


def seat(wanted: int = 1, lease: float = 30, queues: tuple[str, ...] = ("default",), **values: Any) -> Seat:
    """Return a waiting worker; `tasks` binds it to tasks in any queue, with `any_queue=False` in its own."""
    tasks = values.get("tasks")
    anywhere = values.get("any_queue", tasks is not None)
    return Seat(worker="w", queues=queues, tasks=tasks, wanted=wanted, lease=lease * SECOND, any_queue=anywhere)


async def claimed(database: Database, tenant: Tenant, *seats: Seat, now: datetime | None = None) -> list[Run]:
    """Serve one round, at `now` if it is given, and return what was claimed."""
    async with database.transaction([tenant.tenant_id]) as conn:
        return await claim_round(conn, tenant.tenant_id, list(seats) or [seat()], now or await clock(conn))


async def said(database: FreshDatabase, *reports: Report, now: datetime | None = None) -> list[Answer]:
    """Write reports in one batch, at `now` if it is given, and return their answers."""
    async with database.api.transaction({report.tenant_id for report in reports}) as conn:
        return await process(conn, reports, trusted=None if now is None else lambda _read: now)


def complete(tenant: Tenant, execution: UUID, outcome: str = "finished", fence: int = 1, **values: Any) -> Complete:
    """Return a worker's last word; the same words have the same digest."""
    done = Completion(outcome=outcome, fence=fence, digest=f"{outcome}{values}".encode(), **values)
    return Complete(tenant_id=tenant.tenant_id, id=execution, done=done)
