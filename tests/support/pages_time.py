"""Pauses, calendars, groups, ranges and repeats, as rows for pages to show."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cron_observer.schedule import new_id
from support.databases import Tenant
from support.rows import database_now, make_slot, make_task

HOUR = timedelta(hours=1)
SCHEDULE = {"cron": "0 * * * *", "timezone": "UTC", "calendars": {"exclude": ["feasts"]}}
DIGEST = "0" * 64


def source(tenant: Tenant) -> UUID:
    """Insert a source whose forge is known."""
    identity, now = new_id(database_now(tenant.database)), database_now(tenant.database)
    tenant.database.insert(
        "sources",
        [
            {
                "tenant_id": tenant.tenant_id,
                "source_id": identity,
                "project_id": tenant.project_id,
                "name": "main",
                "kind": "git",
                "url": "https://github.com/acme-example/schedules.git",
                "ref": "refs/heads/main",
                "poll_seconds": 30.0,
                "next_poll_at": now,
                "created_at": now,
            }
        ],
    )
    return identity


def declare(tenant: Tenant, table: str, name: str, line: int, **columns: Any) -> None:
    """Insert a calendar or a task group as a manifest declares it."""
    now = database_now(tenant.database)
    known = tenant.database.rows("SELECT source_id FROM sources")
    owner = known[0]["source_id"] if known else source(tenant)
    key = "calendar_uid" if table == "calendars" else "group_uid"
    tenant.database.insert(
        table,
        [
            {
                "tenant_id": tenant.tenant_id,
                key: new_id(now),
                "project_id": tenant.project_id,
                "name": name,
                "source_id": owner,
                "path": f"{table}/{name}.yaml",
                "document": 0,
                "line": line,
                "commit": "3f9c2ab0" * 5,
                "author": "Ada <ada@acme.example>",
                "spec": {},
                "spec_hash": b"-",
                "version": 1,
                "sync": "SYNCED",
                "created_at": now,
                "updated_at": now,
            }
            | columns
        ],
    )


def paused(tenant: Tenant, task: UUID, since: datetime, **columns: Any) -> None:
    """Insert a pause of a task."""
    row = {
        "tenant_id": tenant.tenant_id,
        "pause_id": new_id(since, task, since),
        "task_uid": task,
        "since": since,
        "reason": "the <ledger> moves",
        "author": "key:ops",
        "on_resume": "last",
        "created_at": since,
    }
    tenant.database.insert("pauses", [row | columns])


def ranged(tenant: Tenant, task: UUID, first: datetime, last: datetime) -> None:
    """Insert a range: a week of seconds that a pause left out."""
    row = {
        "tenant_id": tenant.tenant_id,
        "task_uid": task,
        "first_at": first,
        "last_at": last,
        "project_id": tenant.project_id,
        "status": "SKIPPED",
        "reason": "paused",
        "slots": 604_800,
        "quarters": [6300] * 96,
        "timezone": "UTC",
        "plan_generation": 1,
        "created_at": last,
    }
    tenant.database.insert("slot_ranges", [row])


def backfilled(tenant: Tenant, task: UUID, slot: UUID, at: datetime, now: datetime) -> tuple[UUID, UUID]:
    """Insert a backfill of one slot and its run, and return the ids of both."""
    cause, run = new_id(now), new_id(now)
    row = {
        "tenant_id": tenant.tenant_id,
        "backfill_id": cause,
        "task_uid": task,
        "from_at": at,
        "to_at": now,
        "selected": "missing",
        "sorted": "oldest_first",
        "max_parallel": 1,
        "runs": 1,
        "author": "key:ops",
        "created_at": now,
    }
    tenant.database.insert("backfills", [row])
    columns = {"id": run, "trigger": "backfill", "nominal_at": at, "repeats": slot, "backfill_id": cause}
    make_slot(tenant, task, now, **columns, plan_generation=None)
    return cause, run


def exclude(tenant: Tenant, task: UUID, now: datetime) -> None:
    """Let the calendar ``feasts`` hold today, and the task's first plan obey it."""
    part: dict[str, Any] = {"timezone": None, "dates": [], "weekdays": [], "holidays": [], "spans": []}
    content = {"parts": [part | {"yearly": [f"{now:%m-%d}"]}]}
    row = {"tenant_id": tenant.tenant_id, "digest": DIGEST, "content": content, "created_at": now}
    tenant.database.insert("calendar_contents", [row])
    block = {**SCHEDULE, "calendars": {"exclude": [f"feasts@{DIGEST}"]}, "seed": "default/export"}
    history = {
        "tenant_id": tenant.tenant_id,
        "task_uid": task,
        "generation": 1,
        "active": True,
        "schedule": block,
        "effective_from": now - HOUR,
        "created_at": now,
    }
    tenant.database.do("DELETE FROM plan_history WHERE task_uid = %s", task)
    tenant.database.insert("plan_history", [history])


def add(tenant: Tenant) -> dict[str, str]:
    """Add a paused task with all of it, and return the addresses of the pages that show it."""
    now = database_now(tenant.database)
    declare(tenant, "calendars", "feasts", 3, digest=DIGEST)
    declare(tenant, "task_groups", "night", 7, spec={})
    calendars = {"exclude": ["feasts"], "include": ["nowhere"]}
    task = make_task(tenant, "ledger-move", group="night", schedule={**SCHEDULE, "calendars": calendars})
    exclude(tenant, task, now)
    paused(tenant, task, now - 3 * HOUR, until=now + 20 * HOUR)
    ranged(tenant, task, now - 30 * HOUR, now - 7 * HOUR)
    at = now - 2 * HOUR
    slot = make_slot(tenant, task, at, status="SKIPPED", reason="paused", finished_at=at, moved_by="jitter")
    _, run = backfilled(tenant, task, slot, at, now)
    feast = make_slot(tenant, task, now - HOUR, status="SKIPPED", reason="calendar", finished_at=now - HOUR)
    window = make_slot(tenant, task, now - 5 * HOUR, status="SKIPPED", reason="window", finished_at=now - HOUR)
    return {
        "paused": "/tasks/default/ledger-move",
        "paused schedule": "/tasks/default/ledger-move?tab=schedule",
        "paused tasks": "/tasks?q=status:paused",
        "paused slot": f"/executions/{slot}",
        "repeat": f"/executions/{run}",
        "feast": f"/executions/{feast}",
        "closed window": f"/executions/{window}",
    }
