"""Statistics outlive executions: counted by any number of schedulers, frozen before weeks are dropped, swept last."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from cron_observer.settings import Settings
from cron_observer.statistics import bucket_of, quarter_of
from cron_observer.store import statistics, upkeep
from cron_observer.store.statistics_reads import EVERYTHING, Reading
from support.databases import Tenant
from support.rows import database_now, make_slot, make_task

DAY = timedelta(days=1)


async def total(tenant: Tenant, now: datetime, since: datetime) -> dict[str, int]:
    """Return the counts of everything since an instant."""
    async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
        found = await (await Reading.begin(conn, tenant.tenant_id, now)).count(EVERYTHING, [since, now])
    return found[0].counts if found else {}


async def roll(tenant: Tenant, now: datetime, limit: int = 10_000) -> int:
    """Count what is marked."""
    async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
        return await statistics.roll_up(conn, tenant.tenant_id, now, limit)


async def drop(tenant: Tenant, keep_from: datetime, now: datetime, patience: str = "5s") -> tuple[bool, int]:
    """Freeze and drop as the scheduler does; say whether it was frozen, and how many weeks went."""
    async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
        frozen = await statistics.freeze(conn, tenant.tenant_id, keep_from, now)
    async with tenant.database.scheduler.transaction([]) as conn:
        await conn.exec_driver_sql(f"SET LOCAL lock_timeout = '{patience}'")
        return frozen, await upkeep.drop_partitions(conn, keep_from)


def finished(tenant: Tenant, task: UUID, at: datetime) -> None:
    """Insert an execution that ended well."""
    make_slot(tenant, task, at, status="FINISHED", fence=1, claimed_at=at, finished_at=at + timedelta(seconds=5))


async def test_statistics_outlive_their_executions(tenant: Tenant) -> None:
    """A week is dropped only when it is counted for good; then its counts stay, whatever is marked or swept."""
    task, now = make_task(tenant), database_now(tenant.database)
    tenant.database.partitions(now - 40 * DAY, now)
    for days in (1, 25, 26, 27, 28):
        finished(tenant, task, now - days * DAY)
    since = now - 60 * DAY
    frozen, _ = await drop(tenant, now - 10 * DAY, now)
    assert not frozen
    assert tenant.database.value("SELECT count(*) FROM executions") == 5
    assert await roll(tenant, now) == 5
    frozen, dropped = await drop(tenant, now - 10 * DAY, now)
    assert frozen
    assert dropped >= 1
    assert tenant.database.value("SELECT count(*) FROM executions") == 1
    assert await total(tenant, now, since) == {"finished": 5}
    # a mark on a frozen quarter neither hides nor removes what was counted
    tenant.database.do("INSERT INTO stats_marks SELECT tenant_id, at, 1, now() FROM stats_15m ON CONFLICT DO NOTHING")
    assert await total(tenant, now, since) == {"finished": 5}
    await roll(tenant, now)
    assert await total(tenant, now, since) == {"finished": 5}
    async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
        assert await statistics.sweep(conn, tenant.tenant_id, now - 20 * DAY, 100) == 8
    assert await total(tenant, now, since) == {"finished": 1}


async def test_an_open_execution_holds_its_week(tenant: Tenant) -> None:
    """What is still open keeps its quarter from being final, and its week, and those behind it, from being dropped."""
    task, now = make_task(tenant), database_now(tenant.database)
    tenant.database.partitions(now - 40 * DAY, now)
    open_at = now - 25 * DAY
    make_slot(tenant, task, open_at, trigger="manual")
    finished(tenant, task, now - 35 * DAY)
    await roll(tenant, now)
    await drop(tenant, now - 10 * DAY, now)
    assert tenant.database.value("SELECT frozen_before FROM stats_state") == quarter_of(open_at)
    assert tenant.database.value("SELECT count(*) FROM executions") == 1
    assert await total(tenant, now, now - 60 * DAY) == {"finished": 1, "pending": 1}


async def test_a_reading_keeps_partitions(tenant: Tenant) -> None:
    """Between the look at the marks and the counts of the same transaction no week can go."""
    task, now = make_task(tenant), database_now(tenant.database)
    tenant.database.partitions(now - 40 * DAY, now)
    finished(tenant, task, now - 25 * DAY)
    async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
        reading = await Reading.begin(conn, tenant.tenant_id, now)
        await roll(tenant, now)
        with pytest.raises(DBAPIError, match="lock timeout"):
            await drop(tenant, now - 10 * DAY, now, patience="0.3s")
        found = await reading.count(EVERYTHING, [now - 60 * DAY, now])
    assert found[0].counts == {"finished": 1}


async def test_schedulers_share_the_counting(tenant: Tenant) -> None:
    """Many at once count each quarter once, in steps; a second round finds nothing to do."""
    task, now = make_task(tenant), database_now(tenant.database)
    tenant.database.partitions(now - 10 * DAY, now)
    for hours in range(1, 60):
        finished(tenant, task, now - timedelta(hours=hours))
    done = 0
    while done < 59:
        counts = await asyncio.gather(*(roll(tenant, now, 10) for _ in range(4)))
        done += sum(counts)
        assert max(counts) > 0
    assert done == 59
    assert await roll(tenant, now) == 0
    assert tenant.database.value("SELECT count(*) FROM stats_15m WHERE scope = %s", task) == 59
    assert await total(tenant, now, now - 10 * DAY) == {"finished": 59}


async def test_the_scheduler_counts(tenant: Tenant) -> None:
    """A tick counts what has closed, without being asked."""
    from cron_observer.scheduler import Scheduler

    task, now = make_task(tenant), database_now(tenant.database)
    for minutes in (20, 40, 60):
        finished(tenant, task, now - timedelta(minutes=minutes))
    result = await Scheduler(tenant.database.scheduler, Settings()).tick()
    assert (result.counted, result.failures) == (3, 0)
    assert tenant.database.value("SELECT sum(finished) FROM stats_15m WHERE scope = %s", tenant.project_id) == 3


async def test_the_database_counts_in_the_same_buckets(tenant: Tenant) -> None:
    """The bucket that SQL finds for a duration is the one of the pure module."""
    values = sorted({0, 1, 999, 1_000, 1_001, *(int(1_000 * 1.37**n) + d for n in range(1, 78) for d in (0, 1))})
    rows = tenant.database.rows(
        f"SELECT v, {statistics.bucket('v')} AS bucket FROM unnest(%s::bigint[]) AS one (v)", values
    )
    assert {row["v"]: row["bucket"] for row in rows} == {value: bucket_of(value) for value in values}


async def test_a_rollback_leaves_no_mark(tenant: Tenant) -> None:
    """Marks are of their transaction: what was taken back has marked nothing, and tenants mark their own."""
    task, now = make_task(tenant), database_now(tenant.database)
    with tenant.database.admin.transaction(force_rollback=True):
        finished(tenant, task, now - DAY)
    assert tenant.database.value("SELECT count(*) FROM stats_marks") == 0
    finished(tenant, task, now - DAY)
    assert tenant.database.value("SELECT tenant_id FROM stats_marks") == tenant.tenant_id
