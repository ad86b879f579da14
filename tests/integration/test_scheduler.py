"""The scheduler's tick, and what goes on without it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from cron_observer import clock, horizon
from cron_observer.clock import ClockGuard, boottime
from cron_observer.lifecycle import Completion, Run
from cron_observer.schedule import id_time
from cron_observer.scheduler import Scheduler
from cron_observer.settings import Settings
from cron_observer.store.engine import Database
from cron_observer.store.executions import Complete, Seat, claim_round, process
from support.databases import FreshDatabase, Tenant, make_tenant
from support.plans import begin, fires, plan_of, until
from support.rows import database_now, make_slot, make_task, state

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
TEN_MINUTES = 10 * MINUTE

#: What `serve --role scheduler` runs, in a process of its own.
PROCESS = """
import asyncio, sys
from cron_observer.service import run_roles
from cron_observer.settings import Settings
from cron_observer.store.engine import Database
asyncio.run(run_roles(Settings(database_url=sys.argv[1]), {"scheduler"}))
"""


def scheduler(database: FreshDatabase, **values: Any) -> Scheduler:
    return Scheduler(database.scheduler, Settings(), **values)


def running(tenant: Tenant, task: UUID, now: datetime, lease_until: datetime) -> UUID:
    """Insert a slot that a worker runs since a minute."""
    return make_slot(
        tenant,
        task,
        now - MINUTE,
        status="RUNNING",
        fence=1,
        attempt=1,
        generation=1,
        worker="w",
        claimed_at=now - MINUTE,
        lease_seconds=30.0,
        lease_until=lease_until,
        run_deadline=now + HOUR,
        check_at=lease_until,
    )


async def work_without_scheduler(
    database: FreshDatabase, tenant: Tenant, start: datetime
) -> tuple[set[datetime], list[Run]]:
    """Let workers claim through ten minutes; one dies. Return what was claimed, and the dead one's runs.

    Only the API's role is used. Time is the argument of the claims.
    """
    fired: set[datetime] = set()
    dead: list[Run] = []
    for seconds in range(0, 601, 10):
        now = start + seconds * SECOND
        dying = seconds >= 180 and not dead
        seat = Seat(worker="dead" if dying else "alive", queues=["default"], tasks=None, wanted=50, lease=30 * SECOND)
        async with database.api.transaction([tenant.tenant_id]) as conn:
            runs = await claim_round(conn, tenant.tenant_id, [seat], now)
            fired |= {run.fire_at for run in runs if run.fence == 1}
            if dying:
                dead = list(runs)
                continue
            done = [
                Complete(
                    tenant_id=tenant.tenant_id,
                    id=run.id,
                    done=Completion(fence=run.fence, outcome="finished", digest=b"-"),
                )
                for run in runs
            ]
            assert all(answer.refusal is None for answer in await process(conn, done))
    return fired, dead


def planned_between(database: FreshDatabase, start: datetime, end: datetime) -> set[datetime]:
    return {row["fire_at"] for row in database.rows("SELECT fire_at FROM executions") if start < row["fire_at"] <= end}


async def test_slots_are_claimed_for_ten_minutes_after_the_scheduler_was_killed(
    database: FreshDatabase, tenant: Tenant
) -> None:
    """With the scheduler killed, every slot of ten minutes is claimed, and a dead worker's run is offered again."""
    uid = make_task(tenant, overlap="allow_all")
    begin(tenant, uid, {"every": "20s"}, database_now(database))
    process = subprocess.Popen([sys.executable, "-c", PROCESS, database.url])  # noqa: ASYNC220
    try:
        await until(lambda: len(fires(database, uid)) > 180)
    finally:
        process.kill()
        process.wait()
    start = database_now(database)
    fired, dead = await work_without_scheduler(database, tenant, start)
    expected = {fire for fire in fires_of(database, uid) if start < fire <= start + TEN_MINUTES}
    assert len(expected) == 30
    assert fired >= expected
    assert dead
    assert {state(database, run.id) for run in dead} == {("FINISHED", None)}
    assert {fence(database, run.id) for run in dead} == {2}


async def test_the_check_catches_a_planner_that_plans_too_little(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin that plans five minutes ahead loses the other five."""
    monkeypatch.setattr(horizon, "AHEAD", 5 * MINUTE)
    uid = make_task(tenant, overlap="allow_all")
    begin(tenant, uid, {"every": "20s"}, database_now(database))
    await scheduler(database).tick()
    start = database_now(database)
    fired, _ = await work_without_scheduler(database, tenant, start)
    assert max(fired) < start + 6 * MINUTE


def fires_of(database: FreshDatabase, uid: UUID) -> list[datetime]:
    query = "SELECT fire_at FROM executions WHERE task_uid = %s ORDER BY fire_at"
    return [row["fire_at"] for row in database.rows(query, uid)]


def fence(database: FreshDatabase, execution: UUID) -> int:
    value = database.value("SELECT fence FROM executions WHERE id = %s", execution)
    assert isinstance(value, int)
    return value


@pytest.mark.parametrize(
    ("every", "covered"), [("1s", 12 * MINUTE), ("5s", HOUR), ("1m", HOUR), ("1h", HOUR), ("12h", HOUR)]
)
async def test_the_promise_in_rows(database: FreshDatabase, tenant: Tenant, every: str, covered: timedelta) -> None:
    """Right before its next visit, the scheduler has left rows for an hour, or 720 slots; `every: 5s` has both."""
    uid = make_task(tenant)
    begin(tenant, uid, {"every": every}, database_now(database))
    await scheduler(database).tick()
    visit = plan_of(database, uid)["plan_due_at"]
    ahead = [fire for fire in fires(database, uid) if fire > visit]
    assert ahead[-1] >= visit + covered
    assert len(ahead) <= 780


async def test_a_tick_expires_and_settles(database: FreshDatabase, tenant: Tenant) -> None:
    """A run with a dead lease goes back to waiting, and slots that shall not run get their outcome, with no worker."""
    now, task, other = database_now(database), make_task(tenant), make_task(tenant, "other")
    lost = running(tenant, task, now, now - SECOND)
    old = make_slot(tenant, other, now - 3 * HOUR)
    result = await scheduler(database).tick()
    assert (result.expired, result.settled) == (1, 1)
    assert state(database, lost) == ("PENDING", "lease_lost")
    assert state(database, old) == ("SKIPPED", "too_late")


async def test_nothing_expires_while_the_clock_has_jumped(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a step of the database's clock nobody is accused; planning goes on, and on thaw leases are whole again."""
    now, task, other = database_now(database), make_task(tenant), make_task(tenant, "other")
    lost, old = running(tenant, task, now, now - SECOND), make_slot(tenant, other, now - 3 * HOUR)
    begin(tenant, task, {"cron": "* * * * *"}, now - 2 * HOUR)
    guard = ClockGuard()
    guard.observe(now - HOUR, boottime())
    loop = scheduler(database, guard=guard)
    result = await loop.tick()
    assert (result.frozen, result.expired, result.settled) == (True, 0, 0)
    assert state(database, lost)[0] == "RUNNING"
    assert state(database, old)[0] == "PENDING"
    assert len(fires(database, task)) > 60
    monkeypatch.setattr(clock, "STEADY", 0.0)
    thawed = database_now(database)
    result = await loop.tick()
    assert not result.frozen
    assert state(database, lost)[0] == "RUNNING"
    (row,) = database.rows("SELECT * FROM executions WHERE id = %s", lost)
    assert row["lease_until"] > thawed + 20 * SECOND
    assert row["check_at"] == row["lease_until"]


async def test_a_deletion_waits_for_what_runs(database: FreshDatabase, tenant: Tenant) -> None:
    """A task that is being deleted keeps its name until its last run has ended; what waits is settled."""
    now, task = database_now(database), make_task(tenant)
    run, waits = running(tenant, task, now, now + HOUR), make_slot(tenant, task, now - SECOND)
    database.do("UPDATE tasks SET deleting_at = now() WHERE task_uid = %s", task)
    loop = scheduler(database)
    result = await loop.tick()
    assert (result.deleted, result.settled) == (0, 1)
    assert state(database, waits) == ("SKIPPED", "task_deleted")
    async with database.api.transaction([tenant.tenant_id]) as conn:
        (answer,) = await process(
            conn,
            [Complete(tenant_id=tenant.tenant_id, id=run, done=Completion(fence=1, outcome="finished", digest=b"-"))],
        )
        assert answer.refusal is None
    assert (await loop.tick()).deleted == 1
    assert database.value("SELECT live_name FROM tasks WHERE task_uid = %s", task) is None


async def test_expired_replies_are_swept(database: FreshDatabase, tenant: Tenant) -> None:
    """Remembered claims and requests go when nobody can repeat them any more; fresh ones stay."""
    now = database_now(database)
    for age in (-HOUR, HOUR):
        common = {"tenant_id": tenant.tenant_id, "created_at": now - 2 * HOUR, "expires_at": now + age}
        database.insert("claims", [common | {"claim_id": uuid4(), "worker": "w", "execution_ids": [], "fences": []}])
        database.insert("idempotency_keys", [common | {"scope": "s", "key": str(age), "request_hash": b"-"}])
    assert (await scheduler(database).tick()).swept == 2
    assert database.value("SELECT count(*) FROM claims") == 1
    assert database.value("SELECT key FROM idempotency_keys") == str(HOUR)


async def test_partitions_are_made_ahead_and_dropped_behind(database: FreshDatabase, tenant: Tenant) -> None:
    """A tick makes partitions for two weeks and more, and drops weeks past retention in which nothing is open."""
    now, task = database_now(database), make_task(tenant)
    for weeks in (30, 40):
        database.partitions(now - timedelta(weeks=weeks), now - timedelta(weeks=weeks))
    open_slot = make_slot(tenant, task, now - timedelta(weeks=40))
    future = [
        row["relname"] for row in weeks_of(database) if _week(row["relname"]) > f"{now + timedelta(days=3):%Y%m%d}"
    ]
    for name in future:
        for table in ("executions", "attempts", "execution_events", "log_chunks"):
            database.do(f"DROP TABLE {table}_{_week(name)}")
    begin(tenant, task, {"cron": "0 0 * * *"}, now)
    await scheduler(database).tick()
    left = {_week(row["relname"]) for row in weeks_of(database)}
    assert max(left) >= f"{now + timedelta(days=15):%Y%m%d}"
    assert min(left) == f"{_monday(id_time(open_slot)):%Y%m%d}"
    assert f"{_monday(now - timedelta(weeks=30)):%Y%m%d}" not in left


def weeks_of(database: FreshDatabase) -> list[dict[str, Any]]:
    return database.rows(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'executions'::regclass ORDER BY 1"
    )


def _week(name: str) -> str:
    return name.rpartition("_")[2]


def _monday(at: datetime) -> datetime:
    return at - timedelta(days=at.weekday())


async def test_schedulers_share_the_work(database: FreshDatabase, tenant: Tenant) -> None:
    """Four schedulers, each with connections of its own, plan every task of every tenant at once, each slot once."""
    now, others = database_now(database), [make_tenant(database, name) for name in ("one", "two")]
    uids = [(home, make_task(home, f"task-{number}")) for home in (tenant, *others) for number in range(10)]
    for home, uid in uids:
        begin(home, uid, {"cron": "* * * * *"}, now)
    pools = [Database(database.url, "cron_observer_scheduler") for _ in range(4)]
    try:
        for _ in range(3):
            await asyncio.gather(*(Scheduler(pool, Settings()).tick() for pool in pools))
    finally:
        await asyncio.gather(*(pool.close() for pool in pools))
    assert {len(fires(database, uid)) for _, uid in uids} <= {75, 76, 77}
    assert database.value("SELECT count(*) FROM task_plan WHERE plan_due_at <= now()") == 0
