"""Claim and complete over HTTP: one by one at 64 connections, and in batches of 10 and 100, beside the raw SQL floor.

Goals: 4,000 cycles a second one by one, 15,000 executions a second in batches. A cycle is one claim and one request
with the completions of what it gave, over the same connection. The floor is the least that PostgreSQL itself has to do:
one row is claimed and ended by two statements in two durable transactions, by as many connections, without HTTP.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop
from common import arguments, percentile
from load import Load, Next, Server, drive, serving

from cron_observer.store.engine import Database
from cron_observer.store.executions.bounds import due_bounds
from support.rows import database_now, make_task

_CLAIM = """
UPDATE executions e SET status = 'RUNNING', fence = fence + 1, attempt = attempt + 1, worker = 'floor',
    claimed_at = clock_timestamp(), lease_until = clock_timestamp() + interval '30 s',
    check_at = clock_timestamp() + interval '30 s'
WHERE e.tenant_id = %(tenant)s AND e.id BETWEEN %(low)s AND %(high)s AND e.id = ANY (ARRAY(
    SELECT f.id FROM executions f
    WHERE f.tenant_id = %(tenant)s AND f.status = 'PENDING' AND f.queue = 'floor' AND f.priority = 0
      AND f.available_at <= %(now)s AND f.id BETWEEN %(low)s AND %(high)s
    ORDER BY f.available_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
RETURNING e.id
"""

_END = """
UPDATE executions e SET status = 'FINISHED', finished_at = clock_timestamp(), check_at = NULL, lease_until = NULL
WHERE e.tenant_id = %(tenant)s AND e.id BETWEEN %(low)s AND %(high)s AND e.id = ANY (%(ids)s::uuid[])
  AND e.status = 'RUNNING'
"""


class Cycle:
    """One connection that claims and completes until it is given nothing."""

    def __init__(self, server: Server, batch: int) -> None:
        self._server = server
        body = {"worker": "bench", "max": batch, "queues": ["bench"], "lease_seconds": 300}
        self._claim = server.request("/sdk/claims", json.dumps(body).encode())
        self._given: list[tuple[str, int]] = []
        self._claiming = False
        self._told = 0
        self.done = 0
        self.claims: list[float] = []
        self._asked = 0.0

    def __call__(self, status: int, body: bytes) -> bytes | None:
        """Return what to send next."""
        if self._claiming:
            self.claims.append(time.perf_counter() - self._asked)
            self._given = [(one["id"], one["fence"]) for one in json.loads(body)["executions"]]
            self._claiming = False
            if not self._given:
                return None
        elif status:
            assert status == 200, body
            self.done += self._told
            assert b'"problem":{' not in body, body
        if self._given:
            given, self._given, self._told = self._given, [], len(self._given)
            if len(given) == 1:
                ((identity, fence),) = given
                said = b'{"fence":%d,"outcome":"finished","exit_code":0}' % fence
                return self._server.request(f"/sdk/executions/{identity}/complete", said)
            words = [{"id": one, "fence": fence, "outcome": "finished", "exit_code": 0} for one, fence in given]
            return self._server.request("/sdk/completions", json.dumps({"completions": words}).encode())
        self._claiming = True
        self._asked = time.perf_counter()
        return self._claim


async def cycles(server: Server, connections: int, batch: int) -> tuple[Load, int, list[float]]:
    """Claim and complete all there is; return the load, how many executions ended and what claims took."""
    workers = [Cycle(server, batch) for _ in range(connections)]
    following: list[Next] = list(workers)
    load = await drive(server, following)
    return load, sum(one.done for one in workers), [took for one in workers for took in one.claims]


async def floor(server: Server, connections: int, batch: int) -> float:
    """Do the same by SQL alone; return executions a second."""
    database = Database(server.database.url, "cron_observer_api", pool_size=connections)
    tenant = server.tenant.tenant_id
    done, now = 0, database_now(server.database)
    common = {"tenant": tenant, "now": now, **due_bounds(now)}

    async def work() -> None:
        nonlocal done
        while True:
            async with database.transaction([tenant]) as conn:
                found: Any = await conn.exec_driver_sql(_CLAIM, {**common, "batch": batch})
                ids = [one for (one,) in found.fetchall()]
            if not ids:
                return
            async with database.transaction([tenant]) as conn:
                await conn.exec_driver_sql(_END, {**common, "ids": ids})
            done += len(ids)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(connections)))
    took = time.perf_counter() - began
    await database.close()
    return done / took


def main() -> None:
    """Measure each form and its floor."""
    asked = arguments(__doc__ or "", connections=64, cycles=8_000, pool=8)
    missed = False
    with serving(asked.pool) as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        task = make_task(server.tenant, "busy", overlap="allow_all", catchup={"policy": "none"})
        for batch, connections, goal in (
            (1, asked.connections, 4_000),
            (10, asked.connections, 15_000),
            (100, asked.connections, 15_000),
        ):
            server.due(task, asked.cycles, "bench")
            server.due(task, asked.cycles, "floor")
            server.database.do("VACUUM ANALYZE executions")
            raw = runner.run(floor(server, min(connections, 8), batch))
            used = server.seconds()
            load, done, claims = runner.run(cycles(server, connections, batch))
            used = server.seconds() - used
            assert done == asked.cycles, done
            rate = done / load.seconds
            missed |= rate < goal
            p50, p99 = (percentile(claims, share) * 1000 for share in (0.5, 0.99))
            print(
                f"batches of {batch:>3}, {connections} connections: {rate:7.0f} executions/s (goal {goal}, SQL alone "
                f"{raw:7.0f}/s, {rate / raw:.0%} of it); claim p50 {p50:.1f} ms p99 {p99:.1f} ms; "
                f"API {used / done * 1e6:.0f} us each{', MISSED' if rate < goal else ''}"
            )
    sys.exit(missed)


if __name__ == "__main__":
    main()
