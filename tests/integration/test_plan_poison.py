"""A task that cannot be planned harms nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from cron_observer.scheduler import Scheduler
from cron_observer.settings import Settings
from cron_observer.store import plan_rows
from support.databases import FreshDatabase, Tenant, make_tenant
from support.plans import begin, damage, edit, entry, fires, make_unplanned, plan, plan_of
from support.rows import database_now

MINUTELY = {"cron": "* * * * *"}


def quarantine(database: FreshDatabase, uid: Any) -> str | None:
    why = database.value("SELECT quarantine FROM tasks WHERE task_uid = %s", uid)
    assert why is None or isinstance(why, str)
    return why


@pytest.mark.parametrize(
    "schedule",
    [
        {"cron": ["* * * * *"], "timezone": "Europe/Nowhere"},
        {"cron": ["61 * * * *"], "timezone": "UTC"},
        {"cron": 5},
        {"every": "soon"},
        {"cron": ["H * * * *"]},
        {},
        [],
        "oops",
        None,
    ],
    ids=repr,
)
async def test_a_damaged_schedule_is_put_aside(database: FreshDatabase, tenant: Tenant, schedule: Any) -> None:
    """A schedule that cannot be evaluated quarantines its task with the reason; the rest of the batch is planned."""
    now = database_now(database)
    good, bad, late = (make_unplanned(tenant, name) for name in ("good", "bad", "late"))
    for uid in (good, bad, late):
        begin(tenant, uid, MINUTELY, now)
    damage(database, bad, schedule)
    done = await plan(tenant, database_now(database))
    assert (done.tasks, done.quarantined, done.more) == (2, 1, False)
    assert quarantine(database, bad)
    assert quarantine(database, good) is None
    assert plan_of(database, bad)["plan_due_at"] is None
    assert fires(database, bad) == []
    assert len(fires(database, good)) >= 60
    assert len(fires(database, late)) >= 60


async def test_the_reason_says_what_was_meant(database: FreshDatabase, tenant: Tenant) -> None:
    """The reason of a quarantine is the sentence that validation would have said."""
    uid = make_unplanned(tenant)
    begin(tenant, uid, MINUTELY, database_now(database))
    damage(database, uid, {"cron": ["* * * * *"], "timezone": "Europe/Berln"})
    await plan(tenant, database_now(database))
    why = quarantine(database, uid)
    assert why is not None
    assert "'Europe/Berln' is not a known time zone" in why
    assert "did you mean Europe/Berlin?" in why


@pytest.mark.parametrize("mended", [MINUTELY, {"cron": "*/5 * * * *"}], ids=["the same", "another"])
async def test_the_next_definition_ends_the_quarantine(
    database: FreshDatabase, tenant: Tenant, mended: dict[str, Any]
) -> None:
    """Whatever its author registers next is planned again."""
    uid = make_unplanned(tenant)
    await edit(tenant, entry(tenant, uid, MINUTELY))
    good = plan_of(database, uid)["schedule"]
    damage(database, uid, {"cron": ["* * * * *"], "timezone": "Europe/Nowhere", "seed": "default/export"})
    await plan(tenant, database_now(database))
    assert quarantine(database, uid)
    damage(database, uid, good)
    start = await edit(tenant, entry(tenant, uid, mended))
    assert start is not None
    assert quarantine(database, uid) is None
    assert len([fire for fire in fires(database, uid) if fire > start]) >= 12


async def test_slots_that_the_database_refuses_are_put_aside(database: FreshDatabase, tenant: Tenant) -> None:
    """A task whose rows cannot be written spoils the batch of its tenant once, then stands aside alone."""
    now = database_now(database)
    uids = [make_unplanned(tenant, f"task-{number}") for number in range(4)]
    for uid in uids:
        begin(tenant, uid, MINUTELY, now)
    database.do("UPDATE task_plan SET start_deadline_seconds = 1e300 WHERE task_uid = %s", uids[1])
    scheduler = Scheduler(database.scheduler, Settings())
    result = await scheduler.tick()
    assert (result.quarantined, result.failures) == (1, 0)
    why = quarantine(database, uids[1])
    assert why is not None
    assert why.startswith("its slots cannot be written")
    assert all(len(fires(database, uid)) >= 60 for uid in uids if uid != uids[1])
    assert (await scheduler.tick()).quarantined == 0


async def test_a_tenant_in_trouble_is_alone_with_it(database: FreshDatabase, tenant: Tenant) -> None:
    """When everything fails for one tenant, the tick goes on and serves the others."""
    other = make_tenant(database, "other")
    now = database_now(database)
    mine, theirs = make_unplanned(tenant), make_unplanned(other)
    begin(tenant, mine, MINUTELY, now)
    begin(other, theirs, MINUTELY, now)
    database.do("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$")
    database.do(
        f"CREATE TRIGGER refuse BEFORE UPDATE ON task_plan FOR EACH ROW WHEN (OLD.tenant_id = '{tenant.tenant_id}') "
        "EXECUTE FUNCTION refuse()"
    )
    scheduler = Scheduler(database.scheduler, Settings())
    result = await scheduler.tick()
    assert result.failures >= 1
    assert fires(database, mine) == []
    assert len(fires(database, theirs)) >= 60


async def test_a_full_batch_leaves_the_rest_due(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch writes a bounded number of slots; tasks that do not fit stay due, and the next batch has them."""
    monkeypatch.setattr(plan_rows, "SLOTS_MAX", 100)
    now = database_now(database)
    uids = [make_unplanned(tenant, f"task-{number}") for number in range(5)]
    for uid in uids:
        begin(tenant, uid, MINUTELY, now)
    done = await plan(tenant, now)
    assert (done.tasks, done.more) == (2, True)
    result = await Scheduler(database.scheduler, Settings()).tick()
    assert result.planned == 3
    assert all(len(fires(database, uid)) >= 60 for uid in uids)
