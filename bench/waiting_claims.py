"""Waiting workers hold no connection: completions beside 500 long polls, with a pool of four.

Goal: the p99 of completions at 100 a second is at most 20 % worse with 500 waiting claims than without any, in the
same run.
"""

from __future__ import annotations

import asyncio
import time

from common import Http, Product, arguments, manifest, product, show, until, verdict


async def prepare(running: Product, count: int) -> list[tuple[str, int]]:
    """Begin `count` executions of their worker's own, to be completed later."""
    http, begun = Http(running), []
    for _ in range(count):
        body = {"task": "default/busy", "worker": "bench", "lease_seconds": 600}
        status, one = await http.ask("POST", "/api/v1/sdk/executions", body)
        assert status == 201, one
        begun.append((one["id"], one["fence"]))
    http.close()
    return begun


async def complete_all(running: Product, begun: list[tuple[str, int]], rate: float) -> list[float]:
    """Complete them at `rate` a second over eight connections, open loop; return the seconds of each."""
    pool: asyncio.Queue[Http] = asyncio.Queue()
    for _ in range(8):
        pool.put_nowait(Http(running))
    began = time.perf_counter()

    async def one(number: int, identity: str, fence: int) -> float:
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        http = await pool.get()
        body = {"fence": fence, "outcome": "finished"}
        _, status, answer = await http.timed("POST", f"/api/v1/sdk/executions/{identity}/complete", body)
        pool.put_nowait(http)
        assert status == 200, answer
        return time.perf_counter() - due  # from when it was due, so that a queue shows

    return await asyncio.gather(*(one(number, *execution) for number, execution in enumerate(begun)))


async def wait_for_nothing(running: Product, until_set: asyncio.Event) -> None:
    """Long-poll a queue in which nothing ever falls due."""
    http = Http(running)
    while not until_set.is_set():
        body = {"worker": "idle", "queues": ["empty"], "wait_seconds": 30}
        status, given = await http.ask("POST", "/api/v1/sdk/claims", body)
        assert (status, given) == (200, {"executions": []})
    http.close()


async def measure(running: Product, waiting: int, count: int, rate: float) -> tuple[list[float], list[float]]:
    """Return the seconds of completions without and with waiting workers."""
    await complete_all(running, await prepare(running, 100), rate)  # warm
    alone = await complete_all(running, await prepare(running, count), rate)
    begun = await prepare(running, count)
    over = asyncio.Event()
    idle = [asyncio.create_task(wait_for_nothing(running, over)) for _ in range(waiting)]
    await asyncio.sleep(3)  # all of them wait
    beside = await complete_all(running, begun, rate)
    over.set()
    for task in idle:
        task.cancel()
    await asyncio.gather(*idle, return_exceptions=True)
    return alone, beside


def main() -> None:
    """Compare the two in one run."""
    asked = arguments(__doc__ or "", waiting=500, completions=1000, rate=100)
    with product(CRON_OBSERVER_POOL_SIZE_API="4") as (running, repository):
        repository.push("Add busy", {"busy.yaml": manifest("busy", "every: 1h", "  overlap: allow_all\n")})
        until(lambda: running.task("busy"), "the task")
        alone, beside = asyncio.run(measure(running, asked.waiting, asked.completions, float(asked.rate)))
        limit = show("completions alone", alone)
        figures = show(f"completions beside {asked.waiting} waiting claims", beside)
        goal = limit["p99"] * 1.2
        verdict("completions beside waiting claims, p99", figures["p99"], goal, limit["p99"], "completions alone, p99")


if __name__ == "__main__":
    main()
