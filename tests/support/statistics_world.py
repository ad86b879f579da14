"""Random histories of executions and ranges, written by several at once, and what a brute-force count says of them."""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import new_id
from cron_observer.store.engine import fetch, is_transient
from support.databases import Tenant
from support.rows import make_task

#: In these days Europe loses an hour, Chatham, Lord Howe (half an hour) and Easter Island win one.
NOW = datetime(2026, 4, 7, 10, 7, 31, tzinfo=UTC)
BEGIN = datetime(2026, 3, 27, tzinfo=UTC)
ZONES = (
    *("UTC", "Asia/Kathmandu", "Australia/Lord_Howe", "Europe/Berlin", "America/St_Johns", "Pacific/Chatham"),
    *("Pacific/Easter", "Pacific/Apia", "America/New_York", "Asia/Kolkata"),
)
REASONS = {"FAILED": "error", "CANCELLED": "cancelled", "SKIPPED": "overlap", "MISSED": "no_worker", "FINISHED": None}

_INSERT = """
INSERT INTO executions (tenant_id, id, project_id, task_uid, status, reason, trigger, nominal_at, fire_at,
    available_at, queue, priority, fence, attempt, claimed_at, started_at, finished_at, lease_until, check_at,
    created_at)
VALUES (%(tenant)s, %(id)s, %(project)s, %(task)s, %(status)s, %(reason)s, 'schedule', %(fire)s, %(fire)s,
    %(fire)s, 'default', 0, %(fence)s, %(fence)s, %(claimed)s, %(claimed)s, %(finished)s, %(lease)s, %(lease)s,
    %(fire)s)
ON CONFLICT DO NOTHING
"""
_END = """
UPDATE executions SET status = %(status)s, reason = %(reason)s, finished_at = %(finished)s, late = %(late)s,
    lease_until = NULL, check_at = NULL
WHERE tenant_id = %(tenant)s AND id = %(id)s AND status = ANY (%(from)s)
"""
_DELETE = """
DELETE FROM executions WHERE tenant_id = %(tenant)s AND id = %(id)s AND fence = 0 AND status IN ('PENDING', 'SKIPPED')
    AND event_seq = 0
"""
_DELETE_TASK = "UPDATE tasks SET deleted_at = %(now)s WHERE tenant_id = %(tenant)s AND task_uid = %(task)s"
_RANGE = """
INSERT INTO slot_ranges (tenant_id, task_uid, first_at, last_at, project_id, status, reason, slots, quarters, timezone,
    plan_generation, created_at)
VALUES (%(tenant)s, %(task)s, %(first)s, %(last)s, %(project)s, 'SKIPPED', 'paused', %(slots)s, %(quarters)s, 'UTC', 1,
    %(first)s)
ON CONFLICT (tenant_id, task_uid, first_at) DO UPDATE SET last_at = EXCLUDED.last_at, slots = EXCLUDED.slots,
    quarters = EXCLUDED.quarters
"""
_CUT = "DELETE FROM slot_ranges WHERE tenant_id = %(tenant)s AND task_uid = %(task)s AND first_at = %(first)s"
_ALL = """
SELECT task_uid, fire_at, status, reason, late, claimed_at, started_at, finished_at FROM executions
WHERE tenant_id = %(tenant)s AND fire_at <= %(now)s
"""
_RANGES = "SELECT task_uid, first_at, last_at, status, reason, quarters FROM slot_ranges WHERE tenant_id = %(tenant)s"


@dataclass(slots=True)
class World:
    """A tenant with three tasks, and whoever writes its history."""

    tenant: Tenant
    random: random.Random
    tasks: list[UUID] = field(default_factory=list)
    ids: list[tuple[UUID, datetime]] = field(default_factory=list)

    @classmethod
    def make(cls, tenant: Tenant, seed: int) -> World:
        """Furnish a tenant."""
        tenant.database.partitions(BEGIN - timedelta(days=2), NOW + timedelta(days=2))
        return cls(tenant, random.Random(seed), [make_task(tenant, f"task-{uuid4()}") for _ in range(3)])  # noqa: S311

    def _fire(self) -> datetime:
        span = (NOW + timedelta(hours=2) - BEGIN).total_seconds()
        if self.random.random() < 0.3:
            return NOW - timedelta(seconds=self.random.randrange(3600))
        return BEGIN + timedelta(seconds=self.random.randrange(int(span)))

    def _finished(self, fire: datetime) -> datetime:
        return fire + timedelta(milliseconds=self.random.choice([0, 1, 700, 3_000, 90_000, 7_000_000]))

    async def step(self, conn: AsyncConnection) -> None:
        """Do one thing to the history."""
        draw = self.random.random()
        base: dict[str, Any] = {"tenant": self.tenant.tenant_id, "project": self.tenant.project_id, "now": NOW}
        base["task"] = self.random.choice(self.tasks)
        if draw < 0.4 or not self.ids:
            await self._add(conn, base)
        elif draw < 0.8:
            identity, fire = self.random.choice(self.ids)
            late = self.random.random() < 0.3
            status = "FINISHED" if late else self.random.choice(list(REASONS))
            sources = ["FAILED", "MISSED"] if late else ["PENDING"] if status == "MISSED" else ["RUNNING", "PENDING"]
            ended = base | {"id": identity, "status": status, "reason": REASONS[status], "late": late, "from": sources}
            await fetch(conn, _END, ended | {"finished": self._finished(fire)})
        elif draw < 0.88:
            identity, _ = self.random.choice(self.ids)
            await fetch(conn, _DELETE, base | {"id": identity})
        elif draw < 0.89:
            await fetch(conn, _DELETE_TASK, base)
        else:
            await self._range(conn, base)

    async def _add(self, conn: AsyncConnection, base: dict[str, Any]) -> None:
        fire = self._fire()
        identity = new_id(fire, self.random.random())
        status = self.random.choice(["PENDING", "RUNNING", "FINISHED", "SKIPPED"])
        ran = status in ("RUNNING", "FINISHED")
        row = base | {
            "id": identity,
            "fire": fire,
            "status": status,
            "reason": REASONS.get(status),
            "fence": int(ran),
            "claimed": fire + timedelta(microseconds=self.random.randrange(5_000_000)) if ran else None,
            "finished": self._finished(fire) if status in ("FINISHED", "SKIPPED") else None,
            "lease": NOW if status == "RUNNING" else None,
        }
        await fetch(conn, _INSERT, row)
        self.ids.append((identity, fire))

    async def _range(self, conn: AsyncConnection, base: dict[str, Any]) -> None:
        day = BEGIN + timedelta(days=self.random.randrange((NOW - BEGIN).days + 1))
        number = self.random.randrange(90)
        length = self.random.randrange(1, 96 - number)
        quarters = [self.random.randrange(1, 9) if number <= n < number + length else 0 for n in range(96)]
        first = day + number * timedelta(minutes=15)
        last = day + (number + length) * timedelta(minutes=15) - timedelta(seconds=1)
        row = base | {"first": first, "last": last, "slots": sum(quarters), "quarters": quarters}
        await fetch(conn, _CUT if self.random.random() < 0.3 else _RANGE, row)

    async def write(self, steps: int) -> None:
        """Do `steps` things, in transactions of several that take their time or are rolled back."""
        while steps > 0:
            together = self.random.randrange(1, 6)
            steps -= together
            try:
                async with self.tenant.database.scheduler.transaction([self.tenant.tenant_id]) as conn:
                    for _ in range(together):
                        await self.step(conn)
                        await asyncio.sleep(0)
                    if self.random.random() < 0.1:
                        await conn.rollback()
            except Exception as error:
                if not is_transient(error):  # two that change the same rows in another order
                    raise


@dataclass(slots=True)
class Counted:
    """What a day holds."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    late: int = 0
    durations: list[int] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)


async def brute(
    conn: AsyncConnection, tenant: Tenant, zone: ZoneInfo, tasks: Sequence[UUID] | None
) -> dict[date, Counted]:
    """Count every execution and every range one by one, by local date."""
    days: dict[date, Counted] = defaultdict(Counted)
    values = {"tenant": tenant.tenant_id, "now": NOW}
    for task, fire, status, _, late, claimed, started, finished in await fetch(conn, _ALL, values):
        if tasks is not None and task not in tasks:
            continue
        day = days[fire.astimezone(zone).date()]
        day.counts[status.lower()] += 1
        day.late += late and status == "FINISHED"
        if claimed is not None and finished is not None:
            if status in ("FINISHED", "FAILED"):
                day.durations.append(max(0, (finished - (started or claimed)) // timedelta(microseconds=1)))
            day.delays.append(max(0, (claimed - fire) // timedelta(microseconds=1)))
    for task, first, last, status, _, quarters in await fetch(conn, _RANGES, values):
        if tasks is not None and task not in tasks:
            continue
        midnight = first.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        for number, n in enumerate(quarters):
            at = midnight + number * timedelta(minutes=15)
            if n and at <= NOW and (at + timedelta(minutes=15) <= NOW or last <= NOW):
                days[at.astimezone(zone).date()].counts[status.lower()] += n
    return {day: one for day, one in days.items() if one.counts}


def rank(values: Sequence[int], share: float) -> float:
    """Return the nearest-rank quantile of microseconds, in seconds."""
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1] / 1_000_000
