"""Any history of edits, suspensions, absences and clock changes leaves the slots that a small model says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cron_observer.model import ScheduleSpec
from cron_observer.schedule import compile as compile_schedule
from cron_observer.schedule import slot_id
from cron_observer.store import plans
from cron_observer.store.engine import Database
from support.databases import FreshDatabase, Tenant
from support.plans import entry, make_unplanned

#: Berlin's clock jumps forward at this instant, and back seven months later.
JUMP = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

SCHEDULES: list[dict[str, Any]] = [
    {"every": "1m"},
    {"every": "7m", "anchor": "2026-01-01T00:00:13"},
    {"cron": ["30 2 * * *", "50 2 * * *", "40 3 * * *"], "timezone": "Europe/Berlin"},
    {"cron": "*/20 * * * *", "timezone": "Europe/Berlin"},
    {"cron": "10 1-4 * * *", "timezone": "Europe/Berlin"},
    {"at": ["2026-03-29T02:15:00", "2026-03-29T03:15:00", "2026-03-30T12:00:00"], "timezone": "Europe/Berlin"},
]

#: One step: how long it takes, what happens at its end, and with which schedule.
STEP = st.tuples(
    st.sampled_from([SECOND, 3 * SECOND, MINUTE, 9 * MINUTE, 40 * MINUTE, 2 * HOUR, 5 * HOUR]),
    st.sampled_from(["plan", "plan", "edit", "edit", "suspend", "edit unplanned", "absence"]),
    st.integers(0, len(SCHEDULES) - 1),
)


@dataclass
class Model:
    """What has been wanted, from when on."""

    since: list[tuple[datetime, dict[str, Any] | None]] = field(default_factory=list)

    def want(self, at: datetime, schedule: dict[str, Any] | None) -> None:
        """Note an edit that takes effect at an instant."""
        self.since.append((at, schedule))

    def fires(self, uid: UUID, until: datetime) -> dict[UUID, datetime]:
        """Return id and fire time of every slot up to then, by the rule alone: each stretch has its own schedule."""
        found: dict[UUID, datetime] = {}
        ends = [at for at, _ in self.since[1:]] + [None]
        for (start, wanted), end in zip(self.since, ends, strict=True):
            if wanted is None:
                continue
            schedule = compile_schedule(ScheduleSpec.read(wanted, "default/export"))
            for slot in schedule.slots(start, until + 2 * HOUR):
                begun = slot.fire_at > start
                ended = end is not None and slot.nominal_at > end and slot.fire_at > end
                if begun and not ended and slot.fire_at <= until and not slot.coalesced:
                    found[slot_id(uid, slot)] = slot.fire_at
        return found


@dataclass
class Run:
    """One history on a real database, in a time of its own."""

    tenant: Tenant
    pools: tuple[Database, Database]
    uid: UUID
    now: datetime
    model: Model = field(default_factory=Model)
    read: list[Any] = field(default_factory=list)

    async def edit(self, schedule: dict[str, Any], *, active: bool = True) -> None:
        """Let the author want something else."""
        api, _ = self.pools
        async with api.transaction([self.tenant.tenant_id]) as conn:
            wanted = [entry(self.tenant, self.uid, schedule, active=active)]
            at = await plans.register(conn, self.tenant.tenant_id, wanted, self.now)
        if at is not None:
            self.model.want(at, schedule if active else None)

    async def plan(self) -> None:
        """Let a scheduler plan whatever is due."""
        _, scheduler = self.pools
        more = True
        while more:
            async with scheduler.transaction([self.tenant.tenant_id]) as conn:
                more = (await plans.plan_batch(conn, self.tenant.tenant_id, 10, self.now)).more


@pytest.fixture
def world(database: FreshDatabase, tenant: Tenant) -> tuple[FreshDatabase, Tenant]:
    """A database with partitions for the days around the jump."""
    database.partitions(JUMP - timedelta(days=9), JUMP + timedelta(days=9))
    return database, tenant


async def live(run: Run, history: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Play a history."""

    async def clock(_: Any) -> datetime:
        return run.now

    monkeypatch.setattr(plans, "clock", clock)
    await run.edit(SCHEDULES[0])
    schedule = SCHEDULES[0]
    for wait, what, number in history:
        run.now += wait
        match what:
            case "plan":
                await run.plan()
            case "edit":
                schedule = SCHEDULES[number]
                await run.edit(schedule)
            case "suspend":
                await run.edit(schedule, active=False)
            case "edit unplanned":
                with monkeypatch.context() as many:
                    many.setattr(plans, "INLINE_MAX", 0)
                    schedule = SCHEDULES[number]
                    await run.edit(schedule)
            case "absence":
                run.now += 3 * HOUR
    await run.plan()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(STEP, min_size=1, max_size=12), st.integers(0, 8 * 60))
def test_histories(
    world: tuple[FreshDatabase, Tenant],
    monkeypatch: pytest.MonkeyPatch,
    history: list[Any],
    before: int,
) -> None:
    """After any history, what fires up to an hour from now is exactly what the model says, with its ids."""
    database, tenant = world
    for table in ("executions", "task_plan"):
        database.do(f"DELETE FROM {table}")

    async def play() -> Run:
        pools = Database(database.url, "cron_observer_api"), Database(database.url, "cron_observer_scheduler")
        try:
            uid = make_unplanned(tenant, f"task-{database.value('SELECT count(*) FROM tasks')}")
            run = Run(tenant, pools, uid, JUMP - before * MINUTE)
            await live(run, history, monkeypatch)
            return run
        finally:
            for pool in pools:
                await pool.close()

    run = asyncio.run(play())
    until = run.now + HOUR
    rows = database.rows(
        "SELECT e.id, e.fire_at FROM executions e JOIN task_plan p USING (tenant_id, task_uid) "
        "WHERE e.task_uid = %s AND (e.status = 'PENDING' OR e.reason = 'too_late') AND e.fire_at <= %s "
        "AND (p.generation = e.plan_generation OR e.nominal_at <= p.effective_from)",
        run.uid,
        until,
    )
    planned = {row["id"]: row["fire_at"] for row in rows}
    assert len(planned) == len(rows)
    assert planned == run.model.fires(run.uid, until)
