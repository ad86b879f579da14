"""How long the server takes to draw each page of sixty days of a small company's work, to one reader.

Goal: p50 of the slowest page under 50 ms. The limit of the same run is /livez, which reads nothing.
"""

from __future__ import annotations

import asyncio
import time

import httpx
from common import arguments, percentile, show, verdict

from support import databases, pages_data, pages_logs
from support.api import served
from support.databases import Tenant, make_tenant
from support.pages_company import Company
from support.rows import database_now

GOAL_MS = 50.0


def paths(company: Company) -> dict[str, str]:
    """Return the pages to draw."""
    return {
        "overview": "/",
        "a day": f"/?date={company.now:%Y-%m-%d}",
        "tasks": "/tasks",
        "runs of a task": "/tasks/default/queue-drain",
        "schedule of a task": "/tasks/default/invoice-export?tab=schedule",
        "definition of a task": "/tasks/default/invoice-export?tab=definition",
        "execution with a log": f"/executions/{company.known['running']}",
        "200 lines of a log": f"/executions/{company.known['running']}/log",
        "sync": "/sync",
        "source": "/sync/main",
    }


async def timed(client: httpx.AsyncClient, path: str, times: int) -> list[float]:
    """Return the seconds of each of `times` readings."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        answer = await client.get(path)
        spent.append(time.perf_counter() - began)
        assert answer.status_code == 200, (path, answer.status_code)
    return spent


async def measure(tenant: Tenant, company: Company, times: int) -> tuple[float, float]:
    """Return the p50 of the slowest page and that of the limit, in milliseconds."""
    async with served(tenant) as api:
        await timed(api.client, "/", 2)
        slowest = 0.0
        for name, path in paths(company).items():
            slowest = max(slowest, show(name, await timed(api.client, path, times))["p50"])
        return slowest, percentile(await timed(api.client, "/livez", times), 0.5) * 1000


def main() -> None:
    """Fill a database, serve it, and read every page."""
    asked = arguments(__doc__ or "", times=60, days=60)
    with databases.server() as url, databases.template(url) as template, databases.fresh(url, template) as database:
        tenant = make_tenant(database)
        company = pages_data.make(tenant, database_now(database), days=asked.days)
        pages_data.insert(database, company)
        pages_logs.add_logs(database, company)
        print(f"{len(company.rows['executions']):,} executions in {asked.days} days")
        slowest, limit = asyncio.run(measure(tenant, company, asked.times))
    verdict("p50 of the slowest page", slowest, GOAL_MS, limit, "p50 of /livez")


if __name__ == "__main__":
    main()
