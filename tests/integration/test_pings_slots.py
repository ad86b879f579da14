"""Which execution a ping speaks of, and what silence is taken for."""

from __future__ import annotations

from datetime import timedelta

from support.checkins import watching
from support.databases import Tenant
from support.rows import events

MINUTE = timedelta(minutes=1)


async def test_a_success_takes_the_slot(tenant: Tenant) -> None:
    """A ping after its time and one just before it take the slot, and nobody knows how long the run took."""
    async with watching(tenant) as task:
        task.slot(2 * MINUTE)
        assert (await task.ping()).text == "OK"
        task.slot(timedelta(seconds=-30))
        assert (await task.ping()).text == "OK"

        assert task.states() == [("FINISHED", None, "schedule", False)] * 2
        assert [run["started_at"] for run in task.runs()] == [None, None]
        assert events(tenant.database, task.runs()[0]["id"]) == ["claimed", "finished"]
