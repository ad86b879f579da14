"""Rows for tests of executions: tasks with an effective spec, due slots, and a way to look at what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from cron_observer.schedule import new_id
from support.databases import FreshDatabase, Tenant

#: An effective spec: every default of the manifest contract.
SPEC: dict[str, Any] = {
    "description": "",
    "suspend": False,
    "queue": "default",
    "priority": 0,
    "payload": None,
    "schedule": {"every": "1h", "timezone": "UTC"},
    "catchup": {"policy": "last", "window": "1h"},
    "overlap": "skip",
    "startDeadline": None,
    "timeout": "1h",
    "retries": {"max": 0, "backoff": "exponential", "initial": "10s", "cap": "10m"},
    "late": "accept",
    "run": {"external": {}},
}


def spec(**changes: Any) -> dict[str, Any]:
    """Return the effective spec with some fields changed; a dict is merged into the field's default."""
    made = dict(SPEC)
    for name, value in changes.items():
        made[name] = {**SPEC[name], **value} if isinstance(value, dict) and isinstance(SPEC.get(name), dict) else value
    return made


def database_now(database: FreshDatabase) -> datetime:
    """Return the server's clock."""
    value = database.value("SELECT clock_timestamp()")
    assert isinstance(value, datetime)
    return value.astimezone(UTC)


def make_task(tenant: Tenant, name: str = "export", **changes: Any) -> UUID:
    """Insert an API-owned task with its first revision and a plan; return its uid."""
    uid, made, now = uuid4(), spec(**changes), database_now(tenant.database)
    base = {"tenant_id": tenant.tenant_id, "task_uid": uid}
    tenant.database.insert(
        "tasks",
        [
            base
            | {
                "project_id": tenant.project_id,
                "name": name,
                "seed": f"{tenant.project}/{name}",
                "owner": "api",
                "spec": made,
                "spec_hash": b"-",
                "generation": 1,
                "created_at": now,
                "updated_at": now,
            }
        ],
    )
    tenant.database.insert(
        "task_revisions",
        [base | {"generation": 1, "owner": "api", "action": "create", "spec": made, "created_at": now}],
    )
    tenant.database.insert(
        "task_plan",
        [
            base
            | {
                "project_id": tenant.project_id,
                "owner": "api",
                "generation": 1,
                "active": True,
                "schedule": made["schedule"],
                "queue": made["queue"],
                "priority": made["priority"],
                "effective_from": now - timedelta(days=30),
                "planned_until": now + timedelta(days=1),
            }
        ],
    )
    return uid


def make_slot(tenant: Tenant, task: UUID, fire_at: datetime, **columns: Any) -> UUID:
    """Insert a waiting slot of `task` and return its id."""
    identity = new_id(fire_at, task, fire_at.isoformat())
    row: Mapping[str, Any] = {
        "tenant_id": tenant.tenant_id,
        "id": identity,
        "project_id": tenant.project_id,
        "task_uid": task,
        "status": "PENDING",
        "trigger": "schedule",
        "nominal_at": fire_at,
        "nominal_local": fire_at.replace(tzinfo=None),
        "nominal_fold": 0,
        "timezone": "UTC",
        "fire_at": fire_at,
        "available_at": fire_at,
        "queue": "default",
        "priority": 0,
        "plan_generation": 1,
        "created_at": fire_at,
    }
    tenant.database.insert("executions", [{**row, **columns}])
    return identity


def state(database: FreshDatabase, execution: UUID) -> tuple[str, str | None]:
    """Return status and reason of an execution."""
    (row,) = database.rows("SELECT status, reason FROM executions WHERE id = %s", execution)
    return row["status"], row["reason"]


def events(database: FreshDatabase, execution: UUID) -> list[str]:
    """Return the types of an execution's events, oldest first."""
    query = "SELECT type FROM execution_events WHERE execution_id = %s ORDER BY seq"
    return [row["type"] for row in database.rows(query, execution)]
