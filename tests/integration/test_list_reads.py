"""Lists of executions: what a page finds however old it is, and that it looks no further back than it must."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store import lists, reads, task_reads
from cron_observer.store.engine import clock
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, make_slot, make_task
from support.statements import executed

#: Ages of executions: within each look for a page, where one ends and the next begins, and behind them all.
AGES = [timedelta(days=days) for days in (0.1, 2.9, 3, 3.1, 20, 44, 45, 46, 100, 300)]

#: Weeks that history reaches back.
WEEKS = 45


async def test_pages_go_through_all_of_history(database: FreshDatabase, tenant: Tenant) -> None:
    """However the pages of a list are cut, they give every execution once, the newest first, of a task and of all."""
    now = database_now(database)
    database.partitions(now - timedelta(weeks=WEEKS), now)
    task, other = make_task(tenant, "rare"), make_task(tenant, "other")
    ours = [make_slot(tenant, task, now - age) for age in AGES]
    theirs = [make_slot(tenant, other, now - age - timedelta(hours=1)) for age in AGES]
    ahead = make_slot(tenant, task, now + timedelta(hours=5))
    every = [one for pair in zip(ours, theirs, strict=True) for one in pair]
    async with database.api.transaction([tenant.tenant_id]) as conn:
        for limit in (1, 3, 7, 50):
            assert await _pages(conn, tenant, lists.ExecutionFilter(tasks=[task]), limit) == ours
            assert await _pages(conn, tenant, lists.ExecutionFilter(), limit) == every
            assert await _pages(conn, tenant, lists.ExecutionFilter(upcoming=True), limit) == [ahead, *every]
            old = lists.ExecutionFilter(since=now - timedelta(days=200), until=now - timedelta(days=2.95))
            assert await _pages(conn, tenant, old, limit) == every[4:-2]


async def test_a_page_touches_the_weeks_around_it(database: FreshDatabase, tenant: Tenant) -> None:
    """A page of what is new, one day, what waits for a worker and one execution leave older weeks alone."""
    now = database_now(database)
    database.partitions(now - timedelta(weeks=WEEKS), now)
    task = make_task(tenant)
    slots = [make_slot(tenant, task, now - timedelta(hours=hours)) for hours in range(1, 5)]
    of_task = lists.ExecutionFilter(tasks=[task])
    one_day = lists.ExecutionFilter().on((now - timedelta(days=100)).date(), "UTC")
    near = lists.Position(now - timedelta(days=100), slots[0])

    async def listed(conn: AsyncConnection, chosen: lists.ExecutionFilter, **more: Any) -> None:
        await lists.list_executions(conn, tenant.tenant_id, chosen, now=now, **more)

    async with database.api.transaction([tenant.tenant_id]) as conn:
        assert await _weeks(conn, lambda: listed(conn, of_task, limit=3)) <= 6
        assert await _weeks(conn, lambda: listed(conn, lists.ExecutionFilter(), limit=3)) <= 6
        assert await _weeks(conn, lambda: listed(conn, one_day, limit=50)) <= 6
        assert await _weeks(conn, lambda: reads.pending(conn, tenant.tenant_id, now=now, limit=50)) <= 7
        assert await _weeks(conn, lambda: reads.execution(conn, tenant.tenant_id, slots[0])) == 1
        # the broken twin: what is found nowhere is looked for everywhere
        assert await _weeks(conn, lambda: listed(conn, of_task, limit=50, after=near)) > 20


async def test_a_task_is_found_by_its_name(database: FreshDatabase, tenant: Tenant) -> None:
    """A reference by name goes through an index, however many tasks there are, deleted ones among them."""
    task = make_task(tenant, "gone")
    database.do(
        "INSERT INTO tasks (tenant_id, task_uid, project_id, name, seed, owner, spec, spec_hash, generation,"
        " created_at, updated_at) SELECT tenant_id, gen_random_uuid(), project_id, name || n, seed, owner, spec,"
        " spec_hash, 1, created_at, updated_at FROM tasks, generate_series(1, 2000) AS n"
    )
    database.do("UPDATE tasks SET deleted_at = now() WHERE task_uid = %s", task)
    database.do("ANALYZE tasks")
    async with database.api.transaction([tenant.tenant_id]) as conn:

        async def resolved() -> None:
            assert await task_reads.resolve(conn, tenant.tenant_id, "default/gone") == [task]

        assert " tasks_by_name" in await _plans(conn, resolved)


async def _pages(conn: AsyncConnection, tenant: Tenant, chosen: lists.ExecutionFilter, limit: int) -> list[UUID]:
    """Return the ids of all pages, one after the other."""
    found: list[UUID] = []
    after, now = None, await clock(conn)
    while True:
        page, after = await lists.list_executions(conn, tenant.tenant_id, chosen, now=now, limit=limit, after=after)
        found += [UUID(item["id"]) for item in page]
        if after is None:
            return found


async def _weeks(conn: AsyncConnection, work: Callable[[], Awaitable[object]]) -> int:
    """Return how many weeks of executions `work` reads, or would if they were not empty."""
    return len(set(re.findall(r" on executions_(\d{8}) ", await _plans(conn, work))))


async def _plans(conn: AsyncConnection, work: Callable[[], Awaitable[object]]) -> str:
    """Return the plans of the statements that `work` runs."""
    with executed() as seen:
        await work()
    plans = [row for told in seen for row in await conn.exec_driver_sql(f"EXPLAIN {told[0]}", told[1])]
    return "\n".join(row[0] for row in plans)
