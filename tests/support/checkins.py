"""Check-ins for tests: tasks that somebody else runs, their slots, and pings of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx

from cron_observer.scheduler import Scheduler
from cron_observer.settings import Settings
from cron_observer.store import addresses
from support.api import Api, api
from support.databases import Tenant
from support.rows import database_now, make_slot, make_task

CLOCKS: dict[str, Any] = {
    "grace": "10m",
    "earlyMargin": "1m",
    "minRuntime": None,
    "maxRuntime": "1h",
    "heartbeat": None,
}


@dataclass
class Watched:
    """One task that is pinged through the real app."""

    app: Api
    tenant: Tenant
    uid: UUID
    name: str
    doors: addresses.Doors
    grace: timedelta

    async def ping(self, tail: str = "", method: str = "GET", **more: Any) -> httpx.Response:
        """Ping the task at its address."""
        return await self.app.client.request(method, f"/ping/{self.doors.address}{tail}", **more)

    def slot(self, ago: timedelta) -> UUID:
        """Make a slot that was due so long ago (negative: that will be)."""
        at = database_now(self.tenant.database) - ago
        return make_slot(self.tenant, self.uid, at, queue="@checkin", start_deadline=at + self.grace)

    def runs(self) -> list[dict[str, Any]]:
        """Return every execution, oldest first."""
        return self.tenant.database.rows(
            "SELECT id, status, reason, trigger, late, started_at, finished_at, exit_code, error, run_deadline, "
            "lease_until, fire_at FROM executions WHERE task_uid = %s ORDER BY fire_at, id",
            self.uid,
        )

    def states(self) -> list[tuple[Any, ...]]:
        """Return status, reason, trigger and lateness of every execution."""
        return [(one["status"], one["reason"], one["trigger"], one["late"]) for one in self.runs()]

    def shift(self, **columns: timedelta) -> None:
        """Move instants of every open run into the past, as if that much time had gone by."""
        for column, by in columns.items():
            self.tenant.database.do(
                f"UPDATE executions SET {column} = {column} - %s WHERE task_uid = %s AND status = 'RUNNING'",
                by,
                self.uid,
            )

    async def sweep(self) -> None:
        """Let a scheduler judge what is silent."""
        scheduler = Scheduler(self.tenant.database.scheduler, Settings(database_url=self.tenant.database.url))
        assert (await scheduler.tick()).failures == 0


async def watched(app: Api, tenant: Tenant, name: str = "backup", late: str = "accept", **clocks: Any) -> Watched:
    """Make a task with these clocks."""
    chosen = {**CLOCKS, **clocks}
    uid = make_task(tenant, name, run={"checkin": chosen, "external": None}, late=late)
    tenant.database.do("UPDATE tasks SET spec = spec #- '{run,external}' WHERE task_uid = %s", uid)
    tenant.database.do("UPDATE task_revisions SET spec = spec #- '{run,external}' WHERE task_uid = %s", uid)
    async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
        await addresses.ensure(conn, tenant.tenant_id, [(uid, tenant.project_id)], database_now(tenant.database))
        doors = (await addresses.doors(conn, tenant.tenant_id, [uid]))[uid]
    number, unit = int(chosen["grace"][:-1]), chosen["grace"][-1]
    grace = timedelta(seconds=number * {"s": 1, "m": 60, "h": 3600}[unit])
    return Watched(app, tenant, uid, name, doors, grace)


@asynccontextmanager
async def watching(tenant: Tenant, late: str = "accept", **clocks: Any) -> AsyncIterator[Watched]:
    """Run the app with one task that is pinged, and note that pings are received."""
    async with api(tenant) as app:
        received(tenant, database_now(tenant.database))
        yield await watched(app, tenant, late=late, **clocks)


def received(tenant: Tenant, until: datetime) -> None:
    """Note up to when pings were received."""
    tenant.database.do(
        "INSERT INTO receiving AS r VALUES (%s, %s) ON CONFLICT (tenant_id) DO UPDATE "
        "SET until = greatest(r.until, EXCLUDED.until)",
        tenant.tenant_id,
        until,
    )
