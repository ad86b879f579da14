"""Rows that limit what runs: task groups, backfills, pauses; and what holds places."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from support.databases import FreshDatabase, Tenant
from support.rows import database_now, make_slot


def make_group(tenant: Tenant, name: str = "batch", **spec: Any) -> UUID:
    """Insert a task group of the tenant's project, from a source of its own, and return its uid."""
    now, uid, source = database_now(tenant.database), uuid4(), uuid4()
    source_row = {
        "tenant_id": tenant.tenant_id,
        "source_id": source,
        "project_id": tenant.project_id,
        "name": f"source-{name}",
        "kind": "folder",
        "url": "/manifests",
        "poll_seconds": 60.0,
        "next_poll_at": now,
        "created_at": now,
    }
    tenant.database.insert("sources", [source_row])
    row = {
        "tenant_id": tenant.tenant_id,
        "group_uid": uid,
        "project_id": tenant.project_id,
        "name": name,
        "source_id": source,
        "path": "groups.yaml",
        "document": 0,
        "line": 1,
        "spec": spec,
        "spec_hash": b"-",
        "version": 1,
        "sync": "SYNCED",
        "created_at": now,
        "updated_at": now,
    }
    tenant.database.insert("task_groups", [row])
    return uid


def make_backfill(
    tenant: Tenant, task: UUID, count: int, *, max_parallel: int = 1, queues: Sequence[str] = ("default",)
) -> list[UUID]:
    """Insert a backfill of a task with `count` runs that are due, in turn in `queues`; return them in its order."""
    now, identity = database_now(tenant.database), uuid4()
    row = {
        "tenant_id": tenant.tenant_id,
        "backfill_id": identity,
        "task_uid": task,
        "from_at": now - timedelta(days=1),
        "to_at": now,
        "selected": "all",
        "sorted": "oldest_first",
        "max_parallel": max_parallel,
        "runs": count,
        "author": "me",
        "created_at": now,
    }
    tenant.database.insert("backfills", [row])
    start = now - timedelta(seconds=1)
    columns = {"trigger": "backfill", "backfill_id": identity, "plan_generation": None, "generation": 1}
    return [
        make_slot(tenant, task, start + n * timedelta(milliseconds=1), **columns, queue=queues[n % len(queues)])
        for n in range(count)
    ]


def pause(tenant: Tenant, task: UUID, since: datetime, until: datetime | None = None) -> None:
    """Insert a pause that is in force."""
    row = {
        "tenant_id": tenant.tenant_id,
        "pause_id": uuid4(),
        "task_uid": task,
        "since": since,
        "until": until,
        "author": "me",
        "on_resume": "skip",
        "created_at": since,
    }
    tenant.database.insert("pauses", [row])


def holders(database: FreshDatabase, scope: str = "") -> dict[str, list[UUID]]:
    """Return who holds places, by scopes that begin with `scope`."""
    found: dict[str, list[UUID]] = {}
    for row in database.rows("SELECT scope, execution_id FROM active_runs ORDER BY scope, n"):
        if row["scope"].startswith(scope):
            found.setdefault(row["scope"], []).append(row["execution_id"])
    return found
