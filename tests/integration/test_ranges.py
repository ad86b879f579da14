"""Ranges of slots that were skipped alike: listed, and counted wherever slots are."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prometheus_client.parser import text_string_to_metric_families

from support.api import Api, api
from support.databases import Tenant
from support.pages import text_of
from support.rows import database_now, make_slot, make_task

QUARTER = timedelta(minutes=15)


def midnight(at: datetime) -> datetime:
    """Return the beginning of a UTC day."""
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def make_range(
    tenant: Tenant, task: UUID, first: datetime, last: datetime, counts: Mapping[int, int], **columns: Any
) -> None:
    """Insert a range with these counts by quarter hour (from 0)."""
    row = {
        "tenant_id": tenant.tenant_id,
        "task_uid": task,
        "project_id": tenant.project_id,
        "first_at": first,
        "last_at": last,
        "status": "SKIPPED",
        "reason": "paused",
        "slots": sum(counts.values()),
        "quarters": [counts.get(number, 0) for number in range(96)],
        "timezone": "UTC",
        "plan_generation": 1,
        "created_at": first,
    }
    tenant.database.insert("slot_ranges", [row | columns])


def a_paused_day(tenant: Tenant, task: UUID, day: datetime) -> None:
    """Skip every second of a UTC day."""
    every = dict.fromkeys(range(96), 900)
    make_range(tenant, task, day, day + timedelta(days=1) - timedelta(seconds=1), every)


async def counted(it: Api, query: str = "") -> dict[str, dict[str, Any]]:
    """Return the days of the API by date."""
    return {day["date"]: day for day in (await it.call("GET", f"/days?{query}")).json()["items"]}


async def test_days_count_ranges_in_every_zone(tenant: Tenant) -> None:
    """A local day is a sum of quarter hours: of a UTC day of skips, each zone's dates get exactly their part."""
    task = make_task(tenant)
    day = midnight(database_now(tenant.database)) - timedelta(days=5)
    a_paused_day(tenant, task, day)
    make_slot(tenant, task, day - timedelta(minutes=1))
    dates = [(day + timedelta(days=n)).date().isoformat() for n in (-1, 0, 1)]
    async with api(tenant) as it:
        utc = await counted(it)
        nepal = await counted(it, "timezone=Asia/Kathmandu")
        other = await counted(it, "task=other")
    assert {date: (utc[date]["skipped"], utc[date]["total"]) for date in dates[:2]} == {
        dates[0]: (0, 1),
        dates[1]: (86_400, 86_400),
    }
    assert nepal[dates[1]]["skipped"] == 900 * 73
    assert nepal[dates[2]]["skipped"] == 900 * 23
    assert nepal[dates[1]]["total"] == 900 * 73 + 1
    assert other == {}


async def test_ranges_that_lie_ahead_are_not_counted(tenant: Tenant) -> None:
    """Of a range that reaches into the future, the quarter hours that are over count, and no others."""
    task = make_task(tenant)
    now = database_now(tenant.database)
    day = midnight(now)
    last = day + timedelta(days=1) - timedelta(seconds=1)
    a_paused_day(tenant, task, day)
    a_paused_day(tenant, task, day + timedelta(days=1))

    def over(at: datetime) -> int:
        """Return how many quarter hours of the day are over; after its last second the range is, as a whole."""
        return (at + timedelta(seconds=1) - day) // QUARTER if at >= last else (at - day) // QUARTER

    async with api(tenant) as it:
        days = await counted(it, f"from={day.date()}&to={day.date() + timedelta(days=1)}")
        later = database_now(tenant.database)
    assert sum(one["skipped"] for one in days.values()) in {900 * over(now), 900 * over(later)}
    assert (day + timedelta(days=1)).date().isoformat() not in days


async def test_ranges_are_listed_newest_first(tenant: Tenant) -> None:
    """A task's ranges come page by page; what lies ahead only when it is asked for; another task has none."""
    task = make_task(tenant)
    make_task(tenant, "other")
    today = midnight(database_now(tenant.database))
    for number in (-3, -2, -1, 0, 2):  # none of tomorrow, which may begin meanwhile
        a_paused_day(tenant, task, today + timedelta(days=number))
    place = "/projects/default/tasks/export/ranges"
    async with api(tenant) as it:
        first = (await it.call("GET", f"{place}?limit=3")).json()
        second = (await it.call("GET", f"{place}?limit=3&cursor={first['next_cursor']}")).json()
        ahead = (await it.call("GET", f"{place}?upcoming=true")).json()
        since = (today - timedelta(days=2)).isoformat().replace("+00:00", "Z")
        until = (today - timedelta(days=1)).isoformat().replace("+00:00", "Z")
        some = (await it.call("GET", f"{place}?from={since}&to={until}")).json()
        none = (await it.call("GET", "/projects/default/tasks/other/ranges")).json()
        foreign = await it.call("GET", "/projects/default/tasks/missing/ranges")
        forged = await it.call("GET", f"{place}?cursor=abc")
    assert [one["first_at"][:10] for one in (*first["items"], *second["items"])] == [
        (today - timedelta(days=number)).date().isoformat() for number in range(4)
    ]
    assert second["next_cursor"] is None
    assert first["items"][0] == {
        "first_at": today.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "last_at": (today + timedelta(seconds=86_399)).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "slots": 86_400,
        "status": "SKIPPED",
        "reason": "paused",
        "timezone": "UTC",
    }
    assert len(ahead["items"]) == 5
    assert [one["first_at"][:10] for one in some["items"]] == [since[:10]]
    assert none == {"items": [], "next_cursor": None}
    assert foreign.status_code == 404
    assert forged.json()["code"] == "bad_cursor"


async def test_the_list_of_executions_is_narrowed_by_status_and_reason(tenant: Tenant) -> None:
    """`status` and `reason` take comma lists, both must fit, and an unknown word is refused with its pointer."""
    now = database_now(tenant.database)
    task = make_task(tenant)
    for minutes, status, reason in (
        (1, "SKIPPED", "paused"),
        (2, "SKIPPED", "overlap"),
        (3, "SKIPPED", "calendar"),
        (4, "MISSED", "no_worker"),
        (5, "FAILED", "exit_code"),
        (-5, "SKIPPED", "paused"),
    ):
        make_slot(tenant, task, now - timedelta(minutes=minutes), status=status, reason=reason, finished_at=now)

    async def found(it: Api, query: str) -> list[tuple[str, str]]:
        items = (await it.call("GET", f"/executions?{query}")).json()["items"]
        return [(item["status"], item["reason"]) for item in items]

    async with api(tenant) as it:
        assert await found(it, "reason=paused,no_worker") == [("SKIPPED", "paused"), ("MISSED", "no_worker")]
        assert await found(it, "reason=paused,no_worker&status=MISSED,FAILED") == [("MISSED", "no_worker")]
        assert await found(it, "reason=paused&upcoming=true") == [("SKIPPED", "paused")] * 2
        refused = await it.call("GET", "/executions?reason=paused,bored")
    assert refused.status_code == 400
    assert refused.json()["pointer"] == "/reason"


async def test_metrics_tell_outcomes_by_reason(tenant: Tenant) -> None:
    """The outcomes of the last hour's slots are gauges by status and reason: rows and ranges, runs by hand left out."""
    now = database_now(tenant.database)
    task = make_task(tenant)
    for minutes, columns in (
        (5, {"status": "SKIPPED", "reason": "paused"}),
        (6, {"status": "SKIPPED", "reason": "paused"}),
        (7, {"status": "FINISHED"}),
        (8, {"status": "FINISHED", "trigger": "manual"}),
        (90, {"status": "MISSED", "reason": "no_worker"}),
    ):
        make_slot(tenant, task, now - timedelta(minutes=minutes), finished_at=now, **columns)
    for day in (midnight(now) - timedelta(days=1), midnight(now)):
        a_paused_day(tenant, task, day)
    async with api(tenant) as it:
        told = (await it.client.get("/metrics")).text
    found = {
        (sample.labels["status"], sample.labels["reason"]): sample.value
        for family in text_string_to_metric_families(told)
        for sample in family.samples
        if sample.name == "cron_observer_slot_outcomes"
    }
    # Three or four whole quarter hours ended within the last hour.
    assert found.pop(("SKIPPED", "paused")) in {2 + 900 * quarters for quarters in (3, 4)}
    assert found == {("FINISHED", ""): 1}


async def test_a_day_of_ranges_alone_says_so(tenant: Tenant) -> None:
    """A day on which everything was skipped alike counts its slots, and says why it lists none."""
    task = make_task(tenant)
    day = midnight(database_now(tenant.database)) - timedelta(days=3)
    a_paused_day(tenant, task, day)
    async with api(tenant) as it:
        whole = text_of((await it.client.get(f"/?date={day.date()}")).text)
        skipped = text_of((await it.client.get(f"/?date={day.date()}&status=skipped")).text)
        failed = text_of((await it.client.get(f"/?date={day.date()}&status=failed")).text)
    assert "86,400 executions" in whole
    for page in (whole, skipped):
        assert "have no rows of their own" in page
        assert "Did not run: 86,400 skipped (the task was paused)." in page
    assert "No execution of this day is failed." in failed


async def test_pages_count_ranges(tenant: Tenant) -> None:
    """The strip of days and the page of a day count ranges, and that page says why slots did not run."""
    task = make_task(tenant)
    day = midnight(database_now(tenant.database)) - timedelta(days=3)
    a_paused_day(tenant, task, day)
    make_slot(tenant, task, day, status="MISSED", reason="no_worker", finished_at=day)
    make_slot(tenant, task, day + QUARTER, status="FINISHED", finished_at=day + QUARTER)
    async with api(tenant) as it:
        it.client.cookies.set("zone", "UTC")
        overview = text_of((await it.client.get("/")).text)
        page = text_of((await it.client.get(f"/?date={day.date()}")).text)
    assert "86,402" in overview
    assert "86,402 executions" in page
    assert "Did not run: 86,400 skipped (the task was paused) · 1 missed (nobody took it in time)." in page
    assert "86,400 skipped" in page
