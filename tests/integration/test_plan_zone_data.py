"""Newer data on zones and holidays: only what lies ahead is planned anew, and what moves is said."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog

from cron_observer.schedule import tzdata_version
from cron_observer.schedule.calendars import holidays_version
from cron_observer.scheduler import Scheduler
from cron_observer.settings import Settings
from cron_observer.store import plans
from support.databases import FreshDatabase, Tenant
from support.plans import begin, edit, entry, keep_calendar, make_unplanned, plan_all, plan_of, slots
from support.rows import database_now

HOUR = timedelta(hours=1)
BERLIN = {"cron": "*/20 * * * *", "timezone": "Europe/Berlin"}


async def follow(tenant: Tenant) -> plans.Followed:
    """Follow our data as the scheduler does."""
    now = database_now(tenant.database)

    async def work(conn: plans.Connection) -> plans.Followed:
        return await plans.follow_zone_data(conn, tenant.tenant_id, 100, now)

    return await plans.in_transaction_with_margin(tenant.database.scheduler, [tenant.tenant_id], work)


def pretend(database: FreshDatabase, uid: UUID, hours: int) -> None:
    """Write a plan as data of 2001 would have made it, in which the zone's clock is hours behind ours."""
    database.do("UPDATE task_plan SET tzdata_version = '2001a' WHERE task_uid = %s", uid)
    database.do(
        "UPDATE executions SET tzdata_version = '2001a', nominal_local = nominal_local - %s * interval '1 hour' "
        "WHERE task_uid = %s",
        hours,
        uid,
    )


async def test_newer_data_says_what_it_moves(database: FreshDatabase, tenant: Tenant) -> None:
    """Each slot that fires at another instant is named by its label, in the log and in the audit log of its task."""
    uid, same = make_unplanned(tenant, "export"), make_unplanned(tenant, "same")
    for task in (uid, same):
        begin(tenant, task, BERLIN, database_now(database))
    await plan_all(tenant, database_now(database))
    past = {row["id"]: row["fire_at"] for row in slots(database, uid)}
    pretend(database, uid, 1)
    pretend(database, same, 0)
    with structlog.testing.capture_logs() as logs:
        await Scheduler(database.scheduler, Settings()).tick()
    (said,) = [event for event in logs if event["event"] == "zone_data_moved"]
    assert said["count"] >= 3
    assert {one["task"] for one in said["moved"]} == {"default/export"}
    both = [one for one in said["moved"] if one["from"] and one["to"]]
    assert both
    for one in both:
        assert one["from"] != one["to"]
    (row,) = database.rows("SELECT * FROM audit_log WHERE action = 'task.zone_data'")
    assert row["target"] == "task:default/export"
    assert (row["data"]["from"], row["data"]["to"], row["data"]["count"]) == ("2001a", tzdata_version(), said["count"])
    assert row["data"]["moved"][0]["label"] == said["moved"][0]["label"]
    await plan_all(tenant, database_now(database))
    start = plan_of(database, uid)["effective_from"]
    now_planned = {row["id"]: row["fire_at"] for row in slots(database, uid)}
    assert {key: at for key, at in now_planned.items() if at <= start} == {
        k: at for k, at in past.items() if at <= start
    }
    assert len([at for at in now_planned.values() if at > start]) >= 3


async def test_data_that_moves_nothing_is_silent(database: FreshDatabase, tenant: Tenant) -> None:
    """A new version under which every slot stays where it is says nothing, and is noted all the same."""
    uid = make_unplanned(tenant)
    begin(tenant, uid, BERLIN, database_now(database))
    await plan_all(tenant, database_now(database))
    pretend(database, uid, 0)
    followed = await follow(tenant)
    assert (followed.tasks, followed.moved) == (1, [])
    assert database.value("SELECT count(*) FROM audit_log") == 0
    assert plan_of(database, uid)["tzdata_version"] == tzdata_version()


async def test_newer_holidays_are_followed_by_those_that_use_them(database: FreshDatabase, tenant: Tenant) -> None:
    """Only plans whose calendars name public holidays follow their data, forward only."""
    holidays = keep_calendar(tenant, "de", holidays=[{"country": "DE", "subdivision": None}])
    uids = {name: make_unplanned(tenant, name) for name in ("old", "newer", "without")}
    by: dict[str, Any] = {"cron": "*/10 * * * *", "calendars": {"exclude": ["de"]}}
    await edit(
        tenant,
        *(entry(tenant, uids[name], by, calendars=holidays) for name in ("old", "newer")),
        entry(tenant, uids["without"], {"cron": "*/10 * * * *"}),
    )
    database.do("UPDATE task_plan SET holidays_version = '0.9' WHERE task_uid = %s", uids["old"])
    database.do("UPDATE task_plan SET holidays_version = '99.0' WHERE task_uid = %s", uids["newer"])
    later = slots(database, uids["old"])[-1]["id"]
    database.do(
        "UPDATE executions SET status = 'SKIPPED', reason = 'calendar', finished_at = fire_at WHERE id = %s", later
    )
    followed = await follow(tenant)
    assert followed.tasks == 1
    assert [(one.task, one.before) for one in followed.moved] == [("default/old", "calendar")]
    data = database.value("SELECT data FROM audit_log")
    assert data["holidays"] == {"from": "0.9", "to": holidays_version()}
    assert {name: plan_of(database, uid)["generation"] for name, uid in uids.items()} == {
        "old": 2,
        "newer": 1,
        "without": 1,
    }
    assert (await follow(tenant)).tasks == 0
