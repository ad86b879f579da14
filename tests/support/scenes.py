"""Tasks in a time of their own: stories of slots on a real database, told in a virtual clock.

The store takes `now` from its caller; where it reads the database's clock itself, a scene lends it another one.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.lifecycle import Completion, Run
from cron_observer.model import OnResume
from cron_observer.store import engine, pausing, plans, tasks
from cron_observer.store.engine import Database
from cron_observer.store.executions import (
    Cancel,
    Complete,
    Heartbeat,
    Report,
    Seat,
    claim_round,
    create_manual,
    expire,
    process,
    settle_waiting,
)
from support.databases import FreshDatabase, Tenant
from support.rows import spec

T = TypeVar("T")

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

#: When stories begin: a Monday at noon.
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def lend_clock(monkeypatch: pytest.MonkeyPatch, now: Callable[[], datetime]) -> None:
    """Let every module of the store that reads the database's clock read another one."""

    async def clock(_connection: AsyncConnection) -> datetime:
        return now()

    real = engine.clock
    for name, module in list(sys.modules.items()):
        if name.startswith("cron_observer.store") and getattr(module, "clock", None) is real:
            monkeypatch.setattr(module, "clock", clock)


def wanted(**changes: Any) -> dict[str, Any]:
    """Return an effective spec; what is said of the schedule is all of it."""
    return spec(**changes) | ({"schedule": changes["schedule"]} if "schedule" in changes else {})


class Scene:
    """A tenant at a moment. Everything that happens, happens `now`; `to` and `wait` let time pass."""

    def __init__(self, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, now: datetime = NOON) -> None:
        self.tenant, self.now = tenant, now
        self.database: FreshDatabase = tenant.database
        self.database.partitions(now - 40 * DAY, now + 40 * DAY)
        lend_clock(monkeypatch, lambda: self.now)

    def to(self, clock: str) -> None:
        """Let time pass until ``12:05`` or ``12:05:30`` of this or the next day."""
        hour, minute, second = (*map(int, clock.split(":")), 0)[:3]
        then = self.now.replace(hour=hour, minute=minute, second=second)
        self.now = then if then >= self.now else then + DAY

    def wait(self, span: timedelta) -> None:
        """Let time pass."""
        self.now += span

    async def inside(self, role: Database, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do `work` in a transaction of the tenant."""
        async with role.transaction([self.tenant.tenant_id]) as conn:
            return await work(conn)

    async def add(self, name: str = "export", **changes: Any) -> UUID:
        """Create a task as the API does, five seconds before its plan takes effect, and return its uid."""
        tenant = self.tenant

        async def work(conn: AsyncConnection) -> UUID:
            made = await tasks.create_owned(
                conn, tenant.tenant_id, tenant.project_id, name, wanted(**changes), {}, "me", self.now
            )
            return made.task_uid

        return await self.inside(self.database.api, work)

    async def edit(self, uid: UUID, **changes: Any) -> None:
        """Give a task another spec."""
        await self.inside(
            self.database.api,
            lambda conn: tasks.update_owned(conn, self.tenant.tenant_id, uid, wanted(**changes), {}, "me", self.now),
        )

    async def delete(self, uid: UUID) -> None:
        """Ask the API to delete a task."""
        await self.inside(
            self.database.api, lambda conn: tasks.delete_owned(conn, self.tenant.tenant_id, uid, "me", self.now)
        )

    async def pause(self, uid: UUID, *, until: datetime | None = None, on_resume: str = "skip") -> None:
        """Let a person pause a task."""
        policy = OnResume(on_resume)
        await self.inside(
            self.database.api,
            lambda conn: pausing.begin(
                conn, self.tenant.tenant_id, uid, until=until, reason="x", on_resume=policy, author="me", now=self.now
            ),
        )

    async def resume(self, uid: UUID, on_resume: str | None = None) -> None:
        """Let a person end the pause, five seconds from now."""
        policy = OnResume(on_resume) if on_resume else None
        await self.inside(
            self.database.api,
            lambda conn: pausing.end(conn, self.tenant.tenant_id, uid, by="me", on_resume=policy),
        )

    async def plan(self) -> None:
        """Let a scheduler plan whatever is due."""
        more = True
        while more:
            done = await self.inside(
                self.database.scheduler, lambda conn: plans.plan_batch(conn, self.tenant.tenant_id, 100, self.now)
            )
            more = done.more

    async def tick(self) -> None:
        """Let a scheduler plan, follow pauses, expire and settle."""
        await self.plan()
        await self.inside(self.database.scheduler, lambda conn: pausing.follow(conn, self.tenant.tenant_id, self.now))
        await self.inside(self.database.scheduler, lambda conn: expire(conn, self.tenant.tenant_id, self.now))
        await self.inside(
            self.database.scheduler, lambda conn: settle_waiting(conn, self.tenant.tenant_id, self.now, None)
        )

    async def claim(self, wanted: int = 10, tasks: Iterable[UUID] | None = None, lease: timedelta = HOUR) -> list[Run]:
        """Let a worker ask for work; return what it got."""
        seat = Seat(
            worker="w", queues=("default",), wanted=wanted, lease=lease, any_queue=tasks is not None,
            tasks=None if tasks is None else frozenset(tasks),
        )  # fmt: skip
        return await self.inside(
            self.database.api, lambda conn: claim_round(conn, self.tenant.tenant_id, [seat], self.now)
        )

    async def say(self, *reports: Report) -> list[str | None]:
        """Report as the writer does; return the code of each refusal."""
        for _ in range(2):
            answers = await self.inside(
                self.database.api, lambda conn: process(conn, reports, trusted=lambda _read: self.now)
            )
            if not any(answer.again for answer in answers):
                break
        return [answer.refusal and answer.refusal.code for answer in answers]

    async def finish(self, run: Run, outcome: str = "finished") -> str | None:
        """Let the worker of `run` say its last word; return the code of the refusal."""
        done = Completion(outcome=outcome, fence=run.fence, digest=outcome.encode())
        (code,) = await self.say(Complete(tenant_id=self.tenant.tenant_id, id=run.id, done=done))
        return code

    async def beat(self, run: Run) -> bool:
        """Let the worker of `run` send a heartbeat; return whether it is told to stop."""
        beat = Heartbeat(tenant_id=self.tenant.tenant_id, id=run.id, fence=run.fence)
        (answer,) = await self.inside(
            self.database.api, lambda conn: process(conn, [beat], trusted=lambda _read: self.now)
        )
        return answer.refusal is not None or (answer.run is not None and answer.run.cancel_requested_at is not None)

    async def cancel(self, run: Run) -> None:
        """Let a person ask for the end of a run."""
        await self.say(Cancel(tenant_id=self.tenant.tenant_id, id=run.id, reason="x", actor="me"))

    async def trigger(self, uid: UUID, *, force: bool = False) -> UUID:
        """Let a person ask for a run."""
        return await self.inside(
            self.database.api,
            lambda conn: create_manual(conn, self.tenant.tenant_id, uid, force=force, actor="me", now=self.now),
        )

    def executions(self, uid: UUID, *, upcoming: bool = False) -> list[dict[str, Any]]:
        """Return what is due of a task, or also what is not yet, in the order of firing."""
        query = (
            "SELECT e.* FROM executions e LEFT JOIN task_plan p USING (tenant_id, task_uid) WHERE e.task_uid = %s "
            "AND (%s OR e.fire_at <= %s) AND (e.status <> 'PENDING' OR e.plan_generation IS NULL OR e.fence > 0 "
            "OR e.plan_generation = p.generation OR e.nominal_at <= p.effective_from) ORDER BY e.fire_at, e.id"
        )
        return self.database.rows(query, uid, upcoming, self.now)

    def ledger(self, uid: UUID) -> list[str]:
        """Return what is due of a task, each as ``12:05 SKIPPED overlap``."""
        return [told(row) for row in self.executions(uid)]

    def upcoming(self, uid: UUID, count: int) -> list[str]:
        """Return when the next slots fire that will run, as ``12:05``."""
        rows = [row for row in self.executions(uid, upcoming=True) if row["fire_at"] > self.now]
        return [clock(row["fire_at"]) for row in rows if row["status"] == "PENDING"][:count]

    def row(self, run: Run | UUID) -> dict[str, Any]:
        """Return the row of an execution."""
        identity = run if isinstance(run, UUID) else run.id
        (found,) = self.database.rows("SELECT * FROM executions WHERE id = %s", identity)
        return found


def clock(at: datetime) -> str:
    """Write a time as ``12:05``, with seconds if there are any."""
    at = at.astimezone(UTC)
    return f"{at:%H:%M:%S}" if at.second or at.microsecond else f"{at:%H:%M}"


def told(row: Mapping[str, Any]) -> str:
    """Write an execution as ``12:05 SKIPPED overlap``; what no schedule made says so: ``12:05 FINISHED (manual)``."""
    words = [clock(row["fire_at"]), row["status"], row["reason"]]
    words += [] if row["trigger"] == "schedule" else [f"({row['trigger']})"]
    return " ".join(word for word in words if word)


def times(first: str, every: timedelta, count: int) -> list[str]:
    """Return so many times as ``12:05``."""
    hour, minute = map(int, first.split(":"))
    start = NOON.replace(hour=hour, minute=minute)
    return [clock(start + number * every) for number in range(count)]
