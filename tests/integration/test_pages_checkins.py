"""What the pages say of tasks that somebody else runs: waiting is no trouble, and our outages are told."""

from __future__ import annotations

from datetime import timedelta

from support.api import api
from support.checkins import watching
from support.databases import Tenant
from support.pages import part, text_of
from support.rows import database_now, make_task

MINUTE = timedelta(minutes=1)


async def test_a_slot_that_waits_for_its_ping_needs_nobody(tenant: Tenant) -> None:
    """Until its grace is over it waits, and nobody is asked to look at it."""
    async with watching(tenant) as task:
        waiting = task.slot(5 * MINUTE)
        overview = (await task.app.client.get("/")).text
        page = (await task.app.client.get("/tasks/default/backup")).text
    assert str(waiting) not in part(overview, "attention-h")
    assert "Nothing failed, was missed or came late" in text_of(part(overview, "attention-h"))
    assert str(waiting) in part(page, "runs-h")


async def test_an_outage_is_told_for_a_day(tenant: Tenant) -> None:
    """From when to when pings could not be received stands on the overview and on the pages of check-ins."""
    now = database_now(tenant.database)
    make_task(tenant, "export")
    insert = "INSERT INTO outages VALUES (%s, %s, %s)"
    tenant.database.do(insert, tenant.tenant_id, now - 90 * MINUTE, now - 60 * MINUTE)
    async with api(tenant) as app:
        assert "could not be received" not in (await app.client.get("/")).text
    async with watching(tenant) as task:
        pages = [(await task.app.client.get(path)).text for path in ("/", "/tasks/default/backup")]
        other = (await task.app.client.get("/tasks/default/export")).text
        tenant.database.do("UPDATE outages SET since = since - interval '1 day', until = until - interval '1 day'")
        later = (await task.app.client.get("/")).text
    for page in pages:
        assert f"from {now - 90 * MINUTE:%Y-%m-%d %H:%M:%S} UTC to {now - 60 * MINUTE:%Y-%m-%d %H:%M:%S}" in text_of(
            page
        )
    assert "could not be received" not in other + later
