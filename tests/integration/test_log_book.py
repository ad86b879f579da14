"""The size of all logs on the overview: summed up beside the page, remembered, and never waited for."""

from __future__ import annotations

import asyncio

from cron_observer_api.pages.log_book import PATIENCE, LogBook
from support.api import api
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, make_slot, make_task


def _logs(tenant: Tenant, size: int) -> None:
    """Let one run have logs of this size."""
    slot = make_slot(tenant, make_task(tenant), database_now(tenant.database))
    tenant.database.insert(
        "attempts",
        [
            {
                "tenant_id": tenant.tenant_id,
                "execution_id": slot,
                "fence": 1,
                "attempt": 1,
                "claimed_at": database_now(tenant.database),
                "log_bytes": size,
            }
        ],
    )


async def test_the_overview_tells_the_size_of_all_logs(tenant: Tenant) -> None:
    """The first page that asks is told, if it is quickly summed up."""
    _logs(tenant, 2_500_000)
    async with api(tenant) as it:
        page = (await it.client.get("/")).text
    assert "2.5 MB" in page


async def test_a_page_does_not_wait_for_a_long_sum(database: FreshDatabase, tenant: Tenant) -> None:
    """While attempts cannot be read nobody knows, and pages go on; afterwards the next one is told, and it is kept."""
    _logs(tenant, 7)
    book = LogBook(database.api)
    with database.admin.transaction():
        database.do("LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE")
        began = asyncio.get_running_loop().time()
        first = await asyncio.gather(book.read(tenant.tenant_id), book.read(tenant.tenant_id))
        assert asyncio.get_running_loop().time() - began < PATIENCE + 5
        assert first == [None, None]
    while await book.read(tenant.tenant_id) is None:
        pass
    database.do("UPDATE attempts SET log_bytes = 8")
    assert await book.read(tenant.tenant_id) == 7
    await book.close()


async def test_what_is_under_way_ends_with_the_book(database: FreshDatabase, tenant: Tenant) -> None:
    """Closing ends a sum that is being made, so that the server can stop."""
    book = LogBook(database.api)
    with database.admin.transaction():
        database.do("LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE")
        assert await book.read(tenant.tenant_id) is None
        await asyncio.wait_for(book.close(), 10)
