"""Slot due to claim answered: workers wait in long polls, slots fall due, the clock runs from the fire time.

Goal: p99 under 50 ms with 50 waiting workers. The limit of the same run is a read of one execution by one client.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from common import Http, Product, arguments, product, show, until, verdict

GOAL_MS = 50.0


async def work(running: Product, late: list[float], seen: set[str], wanted: int, since: datetime) -> None:
    """Wait for executions, note how late each answer came after its fire time (from `since` on), complete them."""
    http = Http(running)
    ask = {"worker": "bench", "wait_seconds": 20, "lease_seconds": 30}
    while len(late) < wanted:
        status, given = await http.ask("POST", "/api/v1/sdk/claims", ask)
        answered = datetime.now(UTC)
        assert status == 200, given
        for one in given["executions"]:
            fired = datetime.fromisoformat(one["fire_at"])
            if fired >= since:
                late.append((answered - fired).total_seconds())
            seen.add(one["id"])
            done = {"fence": one["fence"], "outcome": "finished"}
            status, _ = await http.ask("POST", f"/api/v1/sdk/executions/{one['id']}/complete", done)
            assert status == 200
    http.close()


async def measure(running: Product, workers: int, wanted: int) -> tuple[list[float], list[float]]:
    """Return the lateness of each claim, and the seconds of plain reads for comparison."""
    late: list[float] = []
    seen: set[str] = set()
    async with asyncio.timeout(300):
        since = datetime.now(UTC) + timedelta(seconds=4)  # by then all of them wait
        await asyncio.gather(*(work(running, late, seen, wanted, since) for _ in range(workers)))
    http = Http(running)
    one = next(iter(seen))
    reads = [(await http.timed("GET", f"/api/v1/sdk/executions/{one}"))[0] for _ in range(300)]
    http.close()
    return late, reads


def main() -> None:
    """Let tasks fire every second or so, at instants of their own."""
    asked = arguments(__doc__ or "", workers=50, tasks=10, claims=500)
    with product() as (running, repository):
        files = {}
        for number in range(asked.tasks):
            # Intervals of their own, so that slots fall due one by one and not all at once.
            every = f"{1900 + 37 * number}ms"
            files[f"t{number}.yaml"] = (
                f"apiVersion: cron-observer/v1\nkind: Task\nmetadata:\n  name: t{number}\nspec:\n"
                f"  schedule: {{every: {every}}}\n  overlap: allow_all\n  catchup: {{policy: none}}\n"
            )
        repository.push("Add tasks", files)
        until(lambda: running.task(f"t{asked.tasks - 1}"), "tasks")
        time.sleep(6)  # the plan takes effect five seconds after it is applied
        late, reads = asyncio.run(measure(running, asked.workers, asked.claims))
        figures = show(f"due to claim answered, {asked.workers} workers", late)
        floor = show("one read, one client", reads)
        verdict("due to claim answered, p99", figures["p99"], GOAL_MS, floor["p50"], "one read, p50")


if __name__ == "__main__":
    main()
