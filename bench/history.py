"""A long history: "last 50 of a task", "one day" and "pending now" through the API, with millions of executions.

Goal: each under 10 ms (p50 of a client that asks one by one). The executions are those of a thousand tasks over eight
weeks; `--executions 10000000` is the full size. The limit of the same run is a read of one execution.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from common import arguments, show
from load import Server, run, serving

from support.rows import database_now, make_task

GOAL_MS = 10.0

_FILL = """
INSERT INTO executions (tenant_id, id, project_id, task_uid, status, trigger, nominal_at, nominal_local, nominal_fold,
    timezone, fire_at, available_at, queue, priority, plan_generation, generation, attempt, fence, claimed_at,
    started_at, finished_at, created_at)
SELECT %s, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '8'
        || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid,
    %s, (%s::uuid[])[1 + n %% %s], 'FINISHED', 'schedule', at, at AT TIME ZONE 'UTC', 0, 'UTC', at, at, 'default', 0, 1,
    1, 1, 1, at, at, at + interval '1 s', at
FROM (SELECT n, %s::timestamptz + (%s * interval '1 second') * n / %s AS at
      FROM generate_series(%s::bigint, %s::bigint) AS n) AS v
"""


def fill(server: Server, tasks: int, executions: int) -> None:
    """Write the history, a million rows at a time."""
    home, now = server.tenant, database_now(server.database)
    uids = [make_task(home, f"t{number}") for number in range(tasks)]
    span = timedelta(days=56)
    server.database.partitions(now - span - timedelta(days=7), now)
    for first in range(0, executions, 1_000_000):
        last = min(executions, first + 1_000_000) - 1
        values = (home.tenant_id, home.project_id, uids, tasks, now - span, span.total_seconds(), executions)
        server.database.do(_FILL, *values, first, last)
    server.due(uids[0], 100)
    server.database.do("VACUUM ANALYZE executions")


def main() -> None:
    """Fill, then ask."""
    asked = arguments(__doc__ or "", executions=1_000_000, tasks=1_000, asks=100)
    with serving() as server:
        began = time.perf_counter()
        fill(server, asked.tasks, asked.executions)
        print(f"{asked.executions} executions in {time.perf_counter() - began:.0f} s")
        one = server.database.value("SELECT id FROM executions WHERE status = 'FINISHED' LIMIT 1")
        day = (database_now(server.database) - timedelta(days=20)).date()
        paths = {
            "one execution": f"/executions/{one}",
            "last 50 of a task": "/executions?task=default/t7&limit=50",
            "one day": f"/executions?date={day}&limit=50",
            "pending now": "/sdk/executions/pending?limit=50",
        }
        worst = 0.0
        for what, path in paths.items():
            run(server, [server.request(path, b"", "GET")] * 10, 1)
            load = run(server, [server.request(path, b"", "GET")] * asked.asks, 1)
            assert set(load.statuses) == {200}, load.statuses
            worst = max(worst, show(what, load.latencies)["p50"])
    print("MISSED" if worst > GOAL_MS else "met")
    sys.exit(worst > GOAL_MS)


if __name__ == "__main__":
    main()
