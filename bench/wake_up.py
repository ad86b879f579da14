"""A thousand workers that wait: what they cost the API in memory, and how soon one of them has what falls due.

Two ways in which something becomes due: its time comes, or somebody triggers it and is told so. Goal: of both, the p99
from then until a waiting worker has read its claim is below 25 ms. The limit of the same run: a request that does
nothing, p99, beside the same thousand connections.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import timedelta
from uuid import UUID

import uvloop
from common import arguments, percentile, show
from load import Server, drive, serving

from support.rows import database_now, make_task

GOAL = 0.025

#: Slots of one task that fall due one after the other from an instant on; their ids are of their instant.
_AHEAD = """
INSERT INTO executions (tenant_id, id, project_id, task_uid, status, trigger, nominal_at, fire_at, available_at, queue,
    priority, plan_generation, created_at)
SELECT %s, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '8'
        || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid,
    %s, %s, 'PENDING', 'schedule', at, at, at, 'bench', 0, 1, clock_timestamp()
FROM (SELECT n, %s + n * %s AS at FROM generate_series(1, %s) AS n) AS v
RETURNING id, fire_at
"""


class Waiting:
    """What the waiting workers share: when each execution came, and whether they go on."""

    def __init__(self, server: Server, wait: float) -> None:
        body = {"worker": "bench", "max": 1, "queues": ["bench"], "lease_seconds": 300, "wait_seconds": wait}
        self._claim = server.request("/sdk/claims", json.dumps(body).encode())
        self.came: dict[str, float] = {}
        self.over = False

    def __call__(self, status: int, body: bytes) -> bytes | None:
        """Note what was given and claim again."""
        if status:
            assert status == 200, body
            at = time.time()
            for one in json.loads(body)["executions"]:
                self.came[one["id"]] = at
        return None if self.over else self._claim

    async def until(self, wanted: set[str], patience: float) -> None:
        """Return when all of `wanted` have come. Raises `TimeoutError`."""
        async with asyncio.timeout(patience):
            while not wanted <= self.came.keys():  # noqa: ASYNC110  the connections tell it one by one
                await asyncio.sleep(0.01)


async def one_by_one(server: Server, requests: list[bytes], every: float) -> list[tuple[float, float, bytes]]:
    """Send requests at a steady pace over one connection; return when each was sent, what it took, and its answer."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    told = []
    for request in requests:
        at = time.time()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        body = await reader.readexactly(length)
        told.append((at, time.time() - at, body))
        await asyncio.sleep(max(0.0, at + every - time.time()))
    writer.close()
    return told


async def measured(
    server: Server, task: UUID, workers: int, count: int
) -> tuple[list[float], list[float], list[float]]:
    """Return the seconds until a worker had what fell due, what was triggered, and of requests that do nothing."""
    waiting = Waiting(server, 20.0)
    before = server.memory()
    polls = asyncio.create_task(drive(server, [waiting] * workers))
    await asyncio.sleep(3)  # all of them wait
    print(f"memory of the API: {before:.1f} MiB, and {server.memory() - before:+.1f} MiB with {workers} waiting claims")
    home, now = server.tenant, database_now(server.database)
    ahead = server.database.rows(
        _AHEAD, home.tenant_id, home.project_id, task, now + timedelta(seconds=2), timedelta(milliseconds=50), count
    )
    await waiting.until({str(row["id"]) for row in ahead}, 60 + count * 0.05)
    due = [waiting.came[str(row["id"])] - row["fire_at"].timestamp() for row in ahead]
    trigger = server.request("/projects/default/tasks/busy/trigger", b"{}")
    sent = await one_by_one(server, [trigger] * count, 0.05)
    await waiting.until({json.loads(body)["id"] for _, _, body in sent}, 60)
    triggered = [max(0.0, waiting.came[json.loads(body)["id"]] - at - took) for at, took, body in sent]
    nothing = server.request("/sdk/nothing", b'{"fence":1,"outcome":"finished"}')
    idle = await one_by_one(server, [nothing] * count, 0.01)
    waiting.over = True
    polls.cancel()
    await asyncio.gather(polls, return_exceptions=True)
    return due, triggered, [took for _, took, _ in idle]


def main() -> None:
    """Measure both ways."""
    asked = arguments(__doc__ or "", workers=1_000, executions=400)
    with serving() as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        task = make_task(server.tenant, "busy", overlap="allow_all", catchup={"policy": "all"}, queue="bench")
        due, triggered, nothing = runner.run(measured(server, task, asked.workers, asked.executions))
    missed = False
    for what, seconds in (("its time has come", due), ("it was triggered", triggered)):
        figures = show(f"{what}: until a worker has it", seconds)
        missed |= figures["p99"] >= GOAL * 1000
        print(f"p99 {figures['p99']:.1f} ms (goal {GOAL * 1000:.0f} ms)" + (", MISSED" if figures["p99"] >= 25 else ""))
    print(f"a request that does nothing: p99 {percentile(nothing, 0.99) * 1000:.1f} ms")
    sys.exit(missed)


if __name__ == "__main__":
    main()
