"""Tasks of every kind in a time of their own, and the check of their ledger."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.ledger import Defect
from cron_observer.schedule.calendars import digest
from cron_observer.store import ledger, plans
from support.rows import make_task
from support.scenes import Scene

#: Saturdays and Sundays, as a resolved calendar.
WEEKEND: dict[str, Any] = {
    "parts": [{"timezone": None, "dates": [], "yearly": [], "weekdays": [0, 6], "holidays": [], "spans": []}]
}

#: Schedules of every kind, for a Friday in March before Berlin's clock jumps.
SCHEDULES: dict[str, Mapping[str, Any]] = {
    "minutely": {"cron": "* * * * *"},
    "nightly": {"cron": "30 2 * * *", "timezone": "Europe/Berlin"},
    "nightly-shift": {"cron": ["0 2 * * *", "30 2 * * *"], "timezone": "Europe/Berlin", "dst": {"gap": "shift"}},
    "nightly-skip": {"cron": "15 2 * * *", "timezone": "Europe/Berlin", "dst": {"gap": "skip"}},
    "half-hourly": {"cron": "*/30 * * * *", "timezone": "Australia/Lord_Howe"},
    "union": {"cron": "0 3 * * 0", "every": "7m", "anchor": "2026-03-01T00:00:00", "timezone": "Europe/Berlin"},
    "once": {"at": ["2026-03-28T10:00:00", "2026-03-29T02:30:00"], "timezone": "Europe/Berlin"},
    "hashed": {"cron": "H H(0-5) * * *", "timezone": "America/New_York"},
    "windowed": {"every": "20m", "windows": [{"days": ["fri"], "from": "22:00", "to": "03:00"}]},
    "bounded": {"every": "1h", "startAt": "2026-03-28T00:00:00Z", "endAt": "2026-03-28T12:00:00Z"},
    "jittered": {"cron": "0 * * * *", "jitter": "10m"},
    "weekdays": {"cron": "0 9 * * *", "calendars": {"exclude": ["weekend"]}},
    "monday": {"cron": "0 9 * * 6", "calendars": {"exclude": ["weekend"]}, "onExcluded": "next_allowed"},
    "friday": {"cron": "0 23 * * 6", "calendars": {"exclude": ["weekend"]}, "onExcluded": "previous_allowed"},
}


class World:
    """Tasks that are planned by the real planner while time passes, hour by hour."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.uids: dict[str, UUID] = {}

    async def add(self, name: str, schedule: Mapping[str, Any], group: Mapping[str, Any] | None = None) -> UUID:
        """Make a task and its first plan."""
        uid = make_task(self.scene.tenant, name)
        self.scene.database.do("DELETE FROM task_plan WHERE task_uid = %s", uid)
        self.uids[name] = uid
        await self.edit(name, schedule, group=group)
        return uid

    async def edit(
        self, name: str, schedule: Mapping[str, Any], *, active: bool = True, group: Mapping[str, Any] | None = None
    ) -> None:
        """Give a task another schedule, as an apply does."""
        tenant = self.scene.tenant
        named = digest(WEEKEND)
        self.scene.database.do(
            "INSERT INTO calendar_contents VALUES (%s, %s, %s, now()) ON CONFLICT DO NOTHING",
            tenant.tenant_id,
            named,
            _json(WEEKEND),
        )
        entry = plans.PlanInput(
            task_uid=self.uids[name],
            project_id=tenant.project_id,
            owner="api",
            active=active,
            schedule=schedule,
            seed=f"default/{name}",
            queue="default",
            priority=0,
            calendars={"weekend": named},
            group=group,
        )

        async def work(conn: AsyncConnection) -> None:
            await plans.register(conn, tenant.tenant_id, [entry], self.scene.now)

        await self.scene.inside(self.scene.database.api, work)

    async def live(self, span: timedelta, step: timedelta = timedelta(hours=1)) -> None:
        """Let time pass, with a scheduler that looks every `step`."""
        end = self.scene.now + span
        while self.scene.now < end:
            await self.scene.tick()
            self.scene.wait(min(step, end - self.scene.now))
        await self.scene.tick()

    async def check(self, since: datetime | None = None, task: str | None = None) -> list[Defect]:
        """Check the ledger; return what is wrong."""
        return [defect for _, verdict in await self.verdicts(since, task) for defect in verdict.defects]

    async def verdicts(self, since: datetime | None = None, task: str | None = None) -> list[tuple[str, Any]]:
        """Check the ledger; return what is said of each task."""
        asked = ledger.Asked(since=since, task=task)
        return [found async for found in ledger.check(self.scene.database.api, self.scene.tenant.tenant_id, asked)]


def _json(value: Any) -> Any:
    from psycopg.types.json import Jsonb

    return Jsonb(value)
