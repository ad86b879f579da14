"""Long backlogs for tests, made in one statement."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cron_observer.schedule import new_id
from support.databases import Tenant

_INSERT = """
INSERT INTO executions (tenant_id, id, project_id, task_uid, status, trigger, nominal_at, nominal_local, nominal_fold,
    timezone, fire_at, available_at, queue, priority, plan_generation, created_at)
SELECT %s, v.id, %s, %s, 'PENDING', 'schedule', v.at, v.at AT TIME ZONE 'UTC', 0, 'UTC', v.at, v.at, %s, %s, 1, v.at
FROM unnest(%s::uuid[], %s::timestamptz[]) AS v (id, at)
"""

#: A task whose every slot runs, however many are due.
EVERY: dict[str, Any] = {"overlap": "allow_all", "catchup": {"policy": "all", "window": "7d", "maxRuns": 100_000}}


def make_backlog(
    tenant: Tenant, task: UUID, first: datetime, count: int, *, queue: str = "default", priority: int = 0
) -> list[UUID]:
    """Insert `count` slots of `task`, a millisecond apart, and return their ids from the oldest to the newest."""
    fires = [first + timedelta(milliseconds=number) for number in range(count)]
    ids = [new_id(at, task, at.isoformat()) for at in fires]
    tenant.database.do(_INSERT, tenant.tenant_id, tenant.project_id, task, queue, priority, ids, fires)
    return ids
