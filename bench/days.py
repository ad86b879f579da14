"""How long `days` and `stats` take over a million executions of 90 days, to one reader.

Goal: p50 of each under 10 ms. The limit of the same run is /livez, which reads nothing; beside it, what it takes to
count a million executions one by one, and to count all of their quarters after an upgrade.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from uuid import UUID

import httpx
from common import arguments, percentile, show, verdict

from cron_observer.store import statistics
from support import databases
from support.api import served
from support.databases import Tenant, make_tenant
from support.rows import database_now, make_task

GOAL_MS = 10.0
DAYS = 90

_FILL = """
INSERT INTO executions (tenant_id, id, project_id, task_uid, status, reason, trigger, nominal_at, fire_at, available_at,
    queue, priority, generation, attempt, fence, claimed_at, started_at, finished_at, created_at)
SELECT %(tenant)s, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '8' || substr(md5(n::text), 1, 3)
        || '8' || substr(md5(n::text), 4, 15))::uuid,
    %(project)s, (%(tasks)s::uuid[])[1 + n %% cardinality(%(tasks)s::uuid[])],
    CASE WHEN n %% 50 = 0 THEN 'FAILED' WHEN n %% 70 = 0 THEN 'SKIPPED' ELSE 'FINISHED' END,
    CASE WHEN n %% 50 = 0 THEN 'error' WHEN n %% 70 = 0 THEN 'overlap' END,
    'schedule', at, at, at, 'default', 0, 1, 1, 1, at + interval '1 second' * (n %% 7),
    at + interval '1 second' * (n %% 7), at + interval '1 second' * (10 + n::bigint * 7919 %% 600), at
FROM (SELECT n, %(first)s::timestamptz + n * %(step)s::interval AS at
      FROM generate_series(0, %(count)s - 1) AS n) AS due
"""
_COUNT = """
SELECT date_trunc('day', fire_at, 'UTC'), status, count(*) FROM executions
WHERE tenant_id = %s AND fire_at >= %s GROUP BY 1, 2
"""


def fill(tenant: Tenant, tasks: list[UUID], now: datetime, count: int) -> None:
    """Insert executions evenly over the days up to an hour ago."""
    first = now - timedelta(days=DAYS)
    tenant.database.partitions(first - timedelta(days=8), now)
    values = {"tenant": tenant.tenant_id, "project": tenant.project_id, "tasks": tasks, "first": first}
    began = time.perf_counter()
    step = (now - timedelta(hours=1) - first) / count
    tenant.database.admin.execute(_FILL, values | {"step": step, "count": count})
    print(f"{count:,} executions written in {time.perf_counter() - began:.1f} s, marks included")
    tenant.database.do("VACUUM ANALYZE executions")


async def count_all(tenant: Tenant, now: datetime) -> None:
    """Count every quarter, in the steps of a scheduler."""
    longest, began, quarters = 0.0, time.perf_counter(), 0
    done = statistics.STEP
    while done == statistics.STEP:
        stepped = time.perf_counter()
        async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
            done = await statistics.roll_up(conn, tenant.tenant_id, now)
        longest, quarters = max(longest, time.perf_counter() - stepped), quarters + done
    spent = time.perf_counter() - began
    print(f"{quarters:,} quarters counted in {spent:.1f} s, the longest step {longest * 1000:.0f} ms")
    await tenant.database.scheduler.close()
    tenant.database.do("VACUUM ANALYZE stats_15m, stats_marks")
    print(f"stats_15m: {tenant.database.value('SELECT pg_total_relation_size(%s)', 'stats_15m') / 2**20:.0f} MiB")


async def timed(client: httpx.AsyncClient, path: str, times: int) -> list[float]:
    """Return the seconds of each of `times` readings."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        answer = await client.get(path)
        spent.append(time.perf_counter() - began)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
    return spent


async def measure(tenant: Tenant, now: datetime, times: int) -> tuple[float, float]:
    """Return the p50 of the slowest reading and that of the limit, in milliseconds."""
    await count_all(tenant, now)
    since = now - timedelta(days=DAYS)
    began = time.perf_counter()
    tenant.database.rows(_COUNT, tenant.tenant_id, since)
    print(f"counting all executions one by one: {(time.perf_counter() - began) * 1000:.0f} ms")
    stats = "/api/v1/projects/default/tasks/task-0/stats"
    long = f"from={since:%Y-%m-%d}&to={now:%Y-%m-%d}"
    judged = {
        "days, 31 days": "/api/v1/days",
        "days, 90 days, Asia/Kathmandu": f"/api/v1/days?{long}&timezone=Asia/Kathmandu",
        "days of a task, 31 days": "/api/v1/days?task=default/task-0",
        "stats of a task, 31 days": stats,
    }
    shown = {
        "stats of a task, 90 days, Lord Howe": f"{stats}?{long}&timezone=Australia/Lord_Howe",
        "Statistics of a task (page)": "/tasks/default/task-0?tab=statistics",
        "overview (page)": "/",
    }
    async with served(tenant) as api:
        for path in (*judged.values(), *shown.values()):
            await timed(api.client, path, 2)
        slowest = max([show(name, await timed(api.client, path, times))["p50"] for name, path in judged.items()])
        for name, path in shown.items():
            show(name, await timed(api.client, path, times))
        return slowest, percentile(await timed(api.client, "/livez", times), 0.5) * 1000


def main() -> None:
    """Fill a database, count it, serve it, and read."""
    asked = arguments(__doc__ or "", times=60, executions=1_000_000, tasks=200)
    with databases.server() as url, databases.template(url) as template, databases.fresh(url, template) as database:
        tenant = make_tenant(database)
        now = database_now(database)
        tasks = [make_task(tenant, f"task-{number}") for number in range(asked.tasks)]
        fill(tenant, tasks, now, asked.executions)
        slowest, limit = asyncio.run(measure(tenant, now, asked.times))
    verdict("p50 of the slowest reading", slowest, GOAL_MS, limit, "p50 of /livez")


if __name__ == "__main__":
    main()
