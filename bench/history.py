"""A long history: "last 50 of a task", "one day" and "pending now" through the API, with millions of executions.

Goal: each under 10 ms (p50 of a client that asks one by one). The executions are those of a thousand tasks over half a
year, in the product's weekly partitions with all of its indexes, on a disk; beside them are forecasts, and what is due
and runs. The limit of the same run is a read of one execution.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from common import arguments, show, verdict
from load import Server, run, serving

from support import databases
from support.rows import database_now, make_task

GOAL_MS = 10.0

#: Executions that one statement writes.
STEP = 500_000

_FILL = """
INSERT INTO executions (tenant_id, id, project_id, task_uid, status, reason, trigger, nominal_at, nominal_local,
    nominal_fold, timezone, fire_at, available_at, queue, priority, plan_generation, generation, attempt, fence, worker,
    claimed_at, started_at, finished_at, exit_code, error, created_at)
SELECT %(tenant)s, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '8'
        || substr(hash, 1, 3) || '8' || substr(hash, 4, 15))::uuid,
    %(project)s, (%(tasks)s::uuid[])[1 + n %% cardinality(%(tasks)s::uuid[])],
    CASE WHEN n %% 50 = 0 THEN 'FAILED' WHEN n %% 70 = 0 THEN 'SKIPPED' ELSE 'FINISHED' END,
    CASE WHEN n %% 50 = 0 THEN 'error' WHEN n %% 70 = 0 THEN 'overlap' END,
    'schedule', at, at AT TIME ZONE 'UTC', 0, 'UTC', at, at, 'default', 0, 1, 1, 1, 1, 'worker-' || n %% 10,
    at + interval '1 second', at + interval '1 second', at + interval '1 second' * (10 + n * 7919 %% 600),
    CASE WHEN n %% 50 = 0 THEN 1 ELSE 0 END,
    CASE WHEN n %% 50 = 0 THEN '{"type": "exit_code", "message": "it ended with 1"}'::jsonb END, at
FROM (SELECT n, md5(n::text) AS hash, %(first)s::timestamptz + %(step)s * n AS at
      FROM generate_series(%(from)s::bigint, %(to)s::bigint) AS n) AS v
"""

#: Eight slots of each task, a quarter of an hour apart.
_AHEAD = """
INSERT INTO executions (tenant_id, id, project_id, task_uid, status, trigger, nominal_at, nominal_local, nominal_fold,
    timezone, fire_at, available_at, queue, priority, plan_generation, created_at)
SELECT %(tenant)s, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '8'
        || substr(hash, 1, 3) || '8' || substr(hash, 4, 15))::uuid,
    %(project)s, uid, 'PENDING', 'schedule', at, at AT TIME ZONE 'UTC', 0, 'UTC', at, at, 'default', 0, 1, %(now)s
FROM unnest(%(tasks)s::uuid[]) AS uid, generate_series(1, 8) AS k,
    LATERAL (SELECT %(now)s + interval '15 minutes' * k AS at, md5(uid::text || k) AS hash) AS v
"""


def fill(server: Server, tasks: int, executions: int, weeks: int) -> UUID:
    """Write the history, what is open and what lies ahead; return one of the executions."""
    home, now = server.tenant, database_now(server.database)
    uids = [make_task(home, f"t{number}") for number in range(tasks)]
    first = now - timedelta(weeks=weeks)
    server.database.partitions(first - timedelta(weeks=1), now)
    server.database.do("ALTER SYSTEM SET max_wal_size = '8GB'")
    server.database.do("SELECT pg_reload_conf()")
    values: dict[str, Any] = {"tenant": home.tenant_id, "project": home.project_id, "tasks": uids, "now": now}
    history = {**values, "first": first, "step": (now - timedelta(hours=1) - first) / executions}
    parts = [{**history, "from": at, "to": min(executions, at + STEP) - 1} for at in range(0, executions, STEP)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda part: _write(server, part), parts))
    server.database.admin.execute(_AHEAD, values)
    server.due(uids[0], 100)
    server.running(uids[1], 50)
    server.database.do("VACUUM ANALYZE executions")
    server.database.do("ANALYZE tasks, task_revisions, task_plan")
    server.database.do("CHECKPOINT")
    found: UUID = server.database.value(
        "SELECT id FROM executions WHERE fire_at < %s ORDER BY fire_at DESC LIMIT 1", now - timedelta(days=20)
    )
    return found


def _write(server: Server, part: dict[str, Any]) -> None:
    """Write a part of the history, without the marks of its quarters: lists do not look at statistics."""
    with databases.connect(server.database.url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET synchronous_commit = off")
        connection.execute(_FILL, part)


def ask(server: Server, what: str, path: str, times: int) -> float:
    """Ask one by one, after some requests that do not count; return the p50 in milliseconds."""
    run(server, [server.request(path, b"", "GET")] * 10, 1)
    api, postgres = server.seconds(), postgres_seconds(server)
    load = run(server, [server.request(path, b"", "GET")] * times, 1)
    api, postgres = server.seconds() - api, postgres_seconds(server) - postgres
    assert set(load.statuses) == {200}, load.statuses
    p50 = show(what, load.latencies)["p50"]
    spent = f"API {api / times * 1000:.1f} ms, PostgreSQL {postgres / times * 1000:.1f} ms"
    print(f"{'':<44} processor time of each: {spent}")
    return p50


def postgres_seconds(server: Server) -> float:
    """Return the processor time that PostgreSQL's processes have used, but for those that have ended."""
    folder = server.database.value("SHOW data_directory")
    main = (Path(folder) / "postmaster.pid").read_text(encoding="ascii").split()[0]
    children = Path(f"/proc/{main}/task/{main}/children").read_text(encoding="ascii").split()
    spent = 0
    for child in children:
        with suppress(FileNotFoundError):
            fields = Path(f"/proc/{child}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Fill, then ask."""
    asked = arguments(__doc__ or "", executions=10_000_000, tasks=1_000, weeks=26, asks=200)
    with serving() as server:
        began = time.perf_counter()
        one = fill(server, asked.tasks, asked.executions, asked.weeks)
        size = server.database.value("SELECT pg_database_size(current_database())") / 2**30
        print(f"{asked.executions:,} executions in {time.perf_counter() - began:.0f} s, {size:.1f} GiB")
        now: datetime = database_now(server.database)
        day = (now - timedelta(days=20)).date()
        limit = ask(server, "one execution", f"/executions/{one}", asked.asks)
        paths = {
            "last 50 of a task": "/executions?task=default/t7&limit=50",
            "one day": f"/executions?date={day}&limit=50",
            "pending now": "/sdk/executions/pending?limit=50",
            "last 50 of all": "/executions?limit=50",
        }
        worst = max(ask(server, what, path, asked.asks) for what, path in paths.items())
        print(f"load: {os.getloadavg()[0]:.1f}")
    verdict("p50 of the slowest reading", worst, GOAL_MS, limit, "p50 of one execution")


if __name__ == "__main__":
    main()
