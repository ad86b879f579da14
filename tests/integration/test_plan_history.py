"""The history of plans: a row for every generation, written by the transaction that begins it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from cron_observer.store import plans
from support.databases import FreshDatabase, Tenant
from support.plans import edit, entry, make_unplanned, plan_of
from support.rows import database_now

MINUTELY = {"cron": "* * * * *"}


def history(database: FreshDatabase, uid: UUID) -> list[dict[str, Any]]:
    return database.rows("SELECT * FROM plan_history WHERE task_uid = %s ORDER BY generation", uid)


async def test_every_generation_is_noted(database: FreshDatabase, tenant: Tenant) -> None:
    """Create, edit, suspend and restore each leave a row with their inputs; what changes nothing leaves none."""
    uid = make_unplanned(tenant)
    wanted = [
        entry(tenant, uid, MINUTELY),
        entry(tenant, uid, MINUTELY, queue="other"),
        entry(tenant, uid, {"cron": "*/5 * * * *"}),
        entry(tenant, uid, {"cron": "*/5 * * * *"}, active=False),
        entry(tenant, uid, MINUTELY),
    ]
    starts = [await edit(tenant, one) for one in wanted]
    rows = history(database, uid)
    assert [row["generation"] for row in rows] == [1, 2, 3, 4]
    assert [row["effective_from"] for row in rows] == [start for start in starts if start]
    assert [row["active"] for row in rows] == [True, True, False, True]
    assert [row["schedule"]["cron"] for row in rows] == [["* * * * *"], ["*/5 * * * *"], ["*/5 * * * *"], ["* * * * *"]]
    assert {row["tzdata_version"] for row in rows} == {plan_of(database, uid)["tzdata_version"]}


async def test_newer_data_is_a_generation_too(database: FreshDatabase, tenant: Tenant) -> None:
    """A plan that follows newer zone data is noted with the version that it is made by from then on."""
    uid = make_unplanned(tenant)
    await edit(tenant, entry(tenant, uid, {"cron": "* * * * *", "timezone": "Europe/Berlin"}))
    database.do("UPDATE task_plan SET tzdata_version = '2001a'")
    database.do("UPDATE plan_history SET tzdata_version = '2001a'")
    now = database_now(database)

    async def follow(conn: plans.Connection) -> int:
        return (await plans.follow_zone_data(conn, tenant.tenant_id, 10, now)).tasks

    assert await plans.in_transaction_with_margin(database.scheduler, [tenant.tenant_id], follow) == 1
    first, second = history(database, uid)
    assert (first["tzdata_version"], second["tzdata_version"]) == ("2001a", plan_of(database, uid)["tzdata_version"])
    assert second["effective_from"] == plan_of(database, uid)["effective_from"]


@pytest.mark.parametrize("inline", [0, 1_000])
async def test_many_are_noted_at_once(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, inline: int
) -> None:
    """However many tasks an edit changes, each generation is noted, and an edit that fails notes none."""
    monkeypatch.setattr(plans, "INLINE_MAX", inline)
    uids = [make_unplanned(tenant, f"task-{number}") for number in range(5)]
    await edit(tenant, *(entry(tenant, uid, MINUTELY) for uid in uids))
    assert database.value("SELECT count(*) FROM plan_history") == 5

    async def fail(conn: plans.Connection) -> None:
        changed = [entry(tenant, uid, {"cron": "0 0 * * *"}) for uid in uids]
        await plans.register(conn, tenant.tenant_id, changed, database_now(database))
        raise RuntimeError("and then it broke")

    with pytest.raises(RuntimeError, match="broke"):
        await plans.in_transaction_with_margin(database.api, [tenant.tenant_id], fail)
    assert database.value("SELECT max(generation) FROM plan_history") == 1
