"""Planning with calendars and the windows of groups."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from cron_observer.schedule.calendars import holidays_version
from cron_observer.store import plans
from support.databases import FreshDatabase, Tenant
from support.plans import (
    begin,
    edit,
    entry,
    fires,
    keep_calendar,
    make_unplanned,
    plan,
    plan_all,
    plan_of,
    slots,
    supersede,
)
from support.rows import database_now

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def block(schedule: dict[str, Any], calendars: dict[str, str], group: dict[str, Any] | None = None) -> dict[str, Any]:
    return plans.normalised(schedule, "default/export", calendars, group)


async def test_what_a_calendar_excludes_is_written_down(database: FreshDatabase, tenant: Tenant) -> None:
    """A slot on a day that the calendar excludes is SKIPPED(calendar) from the beginning; the others wait."""
    now = database_now(database)
    tomorrow = midnight(now) + DAY
    calendars = keep_calendar(tenant, "off", dates=[[f"{tomorrow:%Y-%m-%d}", f"{tomorrow:%Y-%m-%d}"]])
    uid = make_unplanned(tenant)
    schedule = {"cron": "*/30 * * * *", "calendars": {"exclude": ["off"]}}
    await edit(tenant, entry(tenant, uid, schedule, calendars=calendars))
    assert plan_of(database, uid)["schedule"]["calendars"] == {"exclude": [f"off@{calendars['off']}"]}
    database.do("DELETE FROM executions")
    begin(tenant, uid, {}, tomorrow - HOUR, schedule=block(schedule, calendars))
    await plan_all(tenant, tomorrow - HOUR / 2)
    assert [(row["status"], row["reason"]) for row in slots(database, uid)][:3] == [
        ("PENDING", None),
        ("SKIPPED", "calendar"),
        ("SKIPPED", "calendar"),
    ]


async def test_a_calendar_that_is_missing_harms_its_task_alone(database: FreshDatabase, tenant: Tenant) -> None:
    """A name that nobody knows, or content that is gone, quarantines the task with the reason; others are planned."""
    uids = {name: make_unplanned(tenant, name) for name in ("unnamed", "gone", "good")}
    schedule = {"cron": "* * * * *", "calendars": {"exclude": ["off"]}}
    good = keep_calendar(tenant, "off", weekdays=[])
    await edit(
        tenant,
        entry(tenant, uids["unnamed"], schedule),
        entry(tenant, uids["gone"], schedule, calendars={"off": "f" * 64}),
        entry(tenant, uids["good"], schedule, calendars=good),
    )
    why = {row["name"]: row["quarantine"] for row in database.rows("SELECT name, quarantine FROM tasks")}
    assert "off" in why["unnamed"]
    assert "off" in why["gone"]
    assert why["good"] is None
    assert len(fires(database, uids["good"])) >= 60
    assert fires(database, uids["gone"]) == []


@pytest.mark.parametrize(
    ("schedule", "left"),
    [
        ({"cron": "0 9 * * sun"}, False),
        ({"every": "7d", "anchor": "2026-01-04T09:00:00"}, False),
        ({"cron": "0 9 * * sun", "endAt": "2200-01-01T00:00:00"}, True),
        ({"at": "2020-01-05T09:00:00"}, True),
    ],
)
async def test_a_schedule_of_which_calendars_leave_nothing_is_put_aside(
    database: FreshDatabase, tenant: Tenant, schedule: dict[str, Any], left: bool
) -> None:
    """A task that would never fire is quarantined until its calendar changes; one that is over is not."""
    uid = make_unplanned(tenant)
    wanted = schedule | {"calendars": {"include": ["work"]}}
    await edit(tenant, entry(tenant, uid, wanted, calendars=keep_calendar(tenant, "work", weekdays=[1, 2, 3, 4, 5])))
    query = "SELECT quarantine FROM tasks WHERE task_uid = %s"
    assert (database.value(query, uid) is None) is left
    if not left:
        assert "never fires" in database.value(query, uid)
        await edit(tenant, entry(tenant, uid, wanted, calendars=keep_calendar(tenant, "work", weekdays=[0])))
        assert database.value(query, uid) is None
        assert plan_of(database, uid)["next_fire_at"] is not None


async def test_the_version_of_holiday_data_is_kept(database: FreshDatabase, tenant: Tenant) -> None:
    """Slots and plan of a task whose calendars name public holidays say by which data they were decided."""
    holidays = keep_calendar(tenant, "de", holidays=[{"country": "DE", "subdivision": None}])
    plain = keep_calendar(tenant, "off", weekdays=[])
    mine, other = make_unplanned(tenant), make_unplanned(tenant, "other")
    by = {"cron": "* * * * *", "calendars": {"exclude": ["de"]}}
    await edit(
        tenant,
        entry(tenant, mine, by, calendars=holidays),
        entry(tenant, other, {"cron": "* * * * *", "calendars": {"exclude": ["off"]}}, calendars=plain),
    )
    assert plan_of(database, mine)["holidays_version"] == holidays_version()
    assert {row["holidays_version"] for row in slots(database, mine)} == {holidays_version()}
    assert plan_of(database, other)["holidays_version"] is None
    assert {row["holidays_version"] for row in slots(database, other)} == {None}


async def test_an_edit_keeps_a_slot_that_was_moved_to_a_later_day(database: FreshDatabase, tenant: Tenant) -> None:
    """What is nominal before an edit keeps its slot, though it fires after it."""
    today = midnight(database_now(database)) + 3 * DAY
    calendars = keep_calendar(tenant, "off", dates=[[f"{today:%Y-%m-%d}", f"{today + DAY:%Y-%m-%d}"]])
    schedule = {"cron": "0 9 * * *", "calendars": {"exclude": ["off"]}, "onExcluded": "next_allowed"}
    uid = make_unplanned(tenant)
    at = today + 10 * HOUR
    # Only one of the two days falls onto the day after them: a weekly task.
    weekly = schedule | {"cron": f"0 9 * * {WEEKDAYS[(today.weekday() + 1) % 7]}"}
    begin(tenant, uid, {}, today - DAY, schedule=block(weekly, calendars))
    await plan_all(tenant, today - HOUR)
    (moved,) = slots(database, uid)
    assert (moved["nominal_at"], moved["fire_at"]) == (today + 9 * HOUR, today + 2 * DAY + 9 * HOUR)
    assert (moved["status"], moved["moved_by"]) == ("PENDING", "calendar")
    await supersede(tenant, uid, at, at, schedule=block({"cron": "0 0 1 1 *"}, {}))
    (kept,) = slots(database, uid)
    assert (kept["id"], kept["status"], kept["fire_at"]) == (moved["id"], "PENDING", moved["fire_at"])


async def test_what_moves_to_an_earlier_day_is_planned_in_time(database: FreshDatabase, tenant: Tenant) -> None:
    """A slot that calendars move to an earlier day is there an hour before it fires."""
    day = midnight(database_now(database)) + 5 * DAY
    calendars = keep_calendar(tenant, "off", dates=[[f"{day:%Y-%m-%d}", f"{day + 2 * DAY:%Y-%m-%d}"]])
    weekly = {
        "cron": f"0 9 * * {WEEKDAYS[(day.weekday() + 3) % 7]}",
        "calendars": {"exclude": ["off"]},
        "onExcluded": "previous_allowed",
    }
    uid = make_unplanned(tenant)
    begin(tenant, uid, {}, day - 2 * DAY, schedule=block(weekly, calendars))
    await plan_all(tenant, day - DAY)
    (moved,) = slots(database, uid)
    assert (moved["nominal_at"], moved["fire_at"]) == (day + 2 * DAY + 9 * HOUR, day - DAY + 9 * HOUR)


async def test_a_groups_windows_are_planned(database: FreshDatabase, tenant: Tenant) -> None:
    """Outside the windows of its group a slot is SKIPPED(window); inside it knows when they close."""
    begins = midnight(database_now(database)) + DAY
    group = {"name": "night", "uid": "u", "timezone": "UTC", "windows": [{"from": "00:30", "to": "02:00"}]}
    uid = make_unplanned(tenant)
    begin(tenant, uid, {}, begins, schedule=block({"cron": "*/15 * * * *"}, {}, group))
    await plan(tenant, begins)
    rows = slots(database, uid)
    assert [(row["reason"], row["closes_at"]) for row in rows][:3] == [
        ("window", None),
        (None, begins + 2 * HOUR),
        (None, begins + 2 * HOUR),
    ]


@pytest.mark.parametrize("changed", ["calendar", "group"])
async def test_a_changed_calendar_or_group_is_an_edit(database: FreshDatabase, tenant: Tenant, changed: str) -> None:
    """What a name means, and when a group is open, are scheduling inputs."""
    uid = make_unplanned(tenant)
    schedule = {"cron": "* * * * *", "calendars": {"exclude": ["off"]}}
    group = {"name": "g", "uid": "u", "timezone": "UTC", "windows": [{"from": "00:00", "to": "23:00"}]}
    first, second = (keep_calendar(tenant, "off", weekdays=[], yearly=[day]) for day in ("02-29", "02-28"))
    assert await edit(tenant, entry(tenant, uid, schedule, calendars=first, group=group))
    assert await edit(tenant, entry(tenant, uid, schedule, calendars=first, group=dict(group))) is None
    if changed == "calendar":
        assert await edit(tenant, entry(tenant, uid, schedule, calendars=second, group=group))
    else:
        assert await edit(tenant, entry(tenant, uid, schedule, calendars=first, group=None))
    assert plan_of(database, uid)["generation"] == 2
