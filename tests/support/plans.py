"""Tasks with schedules, for tests of planning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import new_id
from cron_observer.schedule.calendars import digest
from cron_observer.store import plan_rows, plans
from cron_observer.store.engine import clock, fetch
from cron_observer.store.plan_rows import Plan
from support.databases import FreshDatabase, Tenant
from support.rows import make_task

UTC_HOURLY = {"cron": "0 * * * *"}


def make_unplanned(tenant: Tenant, name: str = "export") -> UUID:
    """Insert a task that has no plan yet, and return its uid."""
    uid = make_task(tenant, name)
    tenant.database.do("DELETE FROM task_plan WHERE task_uid = %s", uid)
    return uid


def entry(tenant: Tenant, uid: UUID, schedule: Mapping[str, Any], **changes: Any) -> plans.PlanInput:
    """Say what the author of an API-owned task wants of its slots."""
    values: dict[str, Any] = {"active": True, "queue": "default", "priority": 0, "seed": "default/export"}
    return plans.PlanInput(
        task_uid=uid, project_id=tenant.project_id, owner="api", schedule=schedule, **(values | changes)
    )


async def edit(tenant: Tenant, *entries: plans.PlanInput) -> datetime | None:
    """Register entries as the API does, and return when they take effect."""

    async def work(conn: AsyncConnection) -> datetime | None:
        return await plans.register(conn, tenant.tenant_id, entries, await clock(conn))

    return await plans.in_transaction_with_margin(tenant.database.api, [tenant.tenant_id], work)


def begin(tenant: Tenant, uid: UUID, wanted: Mapping[str, Any], at: datetime, **columns: Any) -> None:
    """Write a plan that begins `at`, whatever time it is, and has not been planned yet."""
    row = {
        "tenant_id": tenant.tenant_id,
        "task_uid": uid,
        "project_id": tenant.project_id,
        "owner": "api",
        "generation": 1,
        "active": True,
        "schedule": plans.normalised(wanted, "default/export"),
        "queue": "default",
        "priority": 0,
        "effective_from": at,
        "planned_until": at,
        "plan_due_at": at,
    } | columns
    tenant.database.do("DELETE FROM task_plan WHERE task_uid = %s", uid)
    tenant.database.do("DELETE FROM plan_history WHERE task_uid = %s", uid)
    tenant.database.insert("task_plan", [row])
    noted = ("tenant_id", "task_uid", "generation", "active", "schedule", "effective_from")
    tenant.database.insert("plan_history", [{name: row[name] for name in noted} | {"created_at": at}])


def damage(database: FreshDatabase, uid: UUID, schedule: Any) -> None:
    """Write a schedule that no validation has seen, due at once."""
    database.do("UPDATE task_plan SET schedule = %s, plan_due_at = now() WHERE task_uid = %s", Jsonb(schedule), uid)


async def plan(tenant: Tenant, now: datetime, limit: int = 100) -> plans.PlanResult:
    """Let the scheduler's role plan a batch `now`, whatever time it is."""
    async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
        return await plans.plan_batch(conn, tenant.tenant_id, limit, now)


async def supersede(tenant: Tenant, uid: UUID, at: datetime, now: datetime, **changes: Any) -> None:
    """Edit a plan so that the new generation begins `at`, whatever time it is."""
    async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
        (row,) = await fetch(conn, plans._LOCK, {"tenant": tenant.tenant_id, "uids": [uid]})
        old = Plan(*row[:-1])
        new = replace(old.follow(at), **changes)
        await plan_rows.close(conn, tenant.tenant_id, [old], at, now)
        await plan_rows.upsert(conn, tenant.tenant_id, [new], now)
        await plan_rows.write_plans(conn, tenant.tenant_id, [new], now)


def pause(tenant: Tenant, uid: UUID, since: datetime, until: datetime | None = None, **columns: Any) -> None:
    """Write a pause of a task, and nothing of its slots."""
    row = {
        "tenant_id": tenant.tenant_id,
        "pause_id": new_id(since, uid),
        "task_uid": uid,
        "since": since,
        "until": until,
        "author": "tests",
        "on_resume": "skip",
        "created_at": since,
    }
    tenant.database.insert("pauses", [row | columns])


def keep_calendar(tenant: Tenant, name: str, **part: Any) -> dict[str, str]:
    """Store what a calendar holds, and return its name with its digest."""
    content = {"parts": [{"timezone": None, **part}]}
    made = digest(content)
    row = {"tenant_id": tenant.tenant_id, "digest": made, "content": content, "created_at": datetime.now(UTC)}
    tenant.database.insert("calendar_contents", [row])
    return {name: made}


async def plan_all(tenant: Tenant, now: datetime) -> None:
    """Plan until nothing is due `now`."""
    while (await plan(tenant, now)).more:
        pass


def slots(database: FreshDatabase, uid: UUID) -> list[dict[str, Any]]:
    """Return the slots of a task in the order of their nominal instants."""
    return database.rows("SELECT * FROM executions WHERE task_uid = %s ORDER BY nominal_at, id", uid)


def fires(database: FreshDatabase, uid: UUID) -> list[datetime]:
    """Return the instants at which a task's waiting slots fire."""
    query = "SELECT fire_at FROM executions WHERE task_uid = %s AND status = 'PENDING' ORDER BY fire_at"
    return [row["fire_at"] for row in database.rows(query, uid)]


def plan_of(database: FreshDatabase, uid: UUID) -> dict[str, Any]:
    """Return the row of `task_plan` of a task."""
    (row,) = database.rows("SELECT *, xmin::text AS version FROM task_plan WHERE task_uid = %s", uid)
    return row


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition on the database holds; the test's own time limit bounds it."""
    while not condition():  # noqa: ASYNC110  the database sets no event of ours
        await asyncio.sleep(0.01)


async def until_blocked(database: FreshDatabase) -> None:
    """Wait until some connection to the database waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    await until(lambda: database.value(query))
