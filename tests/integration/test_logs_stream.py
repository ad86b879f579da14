"""Streams of logs that grow quickly: bounded, honest about what they leave out, nothing lost and nothing twice."""

from __future__ import annotations

from datetime import timedelta

from integration.test_api_stream import listening, next_of
from support import long_logs
from support.api import served
from support.claims import claimed
from support.databases import Tenant
from support.rows import database_now, make_slot, make_task


async def test_a_quick_log_is_told_as_more(tenant: Tenant) -> None:
    """Beyond what one look passes on, the stream says which lines it leaves out, and goes on with the latest."""
    now = database_now(tenant.database)
    execution = make_slot(tenant, make_task(tenant), now - timedelta(seconds=1))
    await claimed(tenant.database.api, tenant)
    await long_logs.write(tenant, execution, 10, now)
    async with served(tenant) as it:
        async with listening(it, f"logs:{execution}") as lines:
            for number in range(10):
                assert (await next_of(lines, "log"))["data"]["seq"] == number
            await long_logs.write(tenant, execution, 20_000, now, first=10)
            more = await next_of(lines, "more")
            assert more["data"] == {
                "execution": str(execution), "attempt": 1, "from_seq": 10, "lines": 19_900, "next_seq": 19_910
            }  # fmt: skip
            for number in range(19_910, 20_010):
                told = await next_of(lines, "log")
                assert told["data"]["seq"] == number
        await long_logs.write(tenant, execution, 3000, now, first=20_010)
        async with listening(it, f"logs:{execution}", more["id"]) as again:
            assert (await next_of(again, "more"))["data"]["from_seq"] == 19_910
        async with listening(it, f"logs:{execution}", told["id"]) as again:
            assert (await next_of(again, "more"))["data"]["from_seq"] == 20_010
            assert (await next_of(again, "log"))["data"]["seq"] == 22_910
