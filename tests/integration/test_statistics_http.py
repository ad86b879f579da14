"""Statistics over HTTP: `stats` of a task, and `days`; what was answered is in the next reading."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from cron_observer.statistics import ERROR, quarter_of
from cron_observer.store import statistics
from support.api import api
from support.databases import Tenant
from support.rows import database_now, make_slot, make_task

PATH = "/api/v1/projects/default/tasks/export/stats"


async def roll(tenant: Tenant, now: datetime) -> int:
    """Count everything that is marked."""
    async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
        return await statistics.roll_up(conn, tenant.tenant_id, now, limit=10_000)


def ended(tenant: Tenant, task: Any, at: datetime, seconds: float, **columns: Any) -> Any:
    """Insert an execution that began two seconds after it fell due, and ran for so long."""
    begun = at + timedelta(seconds=2)
    row = {"status": "FINISHED", "fence": 1, "attempt": 1, "claimed_at": begun, "started_at": begun}
    return make_slot(tenant, task, at, **row | {"finished_at": begun + timedelta(seconds=seconds)} | columns)


async def test_stats_say_how_a_task_went(tenant: Tenant) -> None:
    """Counts, rate, percentiles with their error, exact extremes, reasons, days; the same before and after counting."""
    task, now = make_task(tenant), database_now(tenant.database)
    tenant.database.partitions(now - timedelta(days=3), now)
    noon = (now - timedelta(days=2)).replace(hour=12, minute=0, second=0, microsecond=0)
    for number in range(100):
        ended(tenant, task, noon + timedelta(seconds=number), 1 + number / 10)
    ended(tenant, task, noon + timedelta(hours=1), 600, status="FAILED", reason="error")
    make_slot(tenant, task, noon + timedelta(hours=2), status="SKIPPED", reason="overlap", finished_at=now)
    make_slot(tenant, task, now - timedelta(minutes=20))
    async with api(tenant) as it:
        key = await it.key("read")
        first = (await it.client.get(PATH, headers=key)).json()
        assert await roll(tenant, now) > 0
        again = await it.client.get(PATH, headers=key)
        days = (await it.client.get("/api/v1/days?task=default/export", headers=key)).json()["items"]
    assert again.status_code == 200
    stats = again.json()
    assert stats == first
    assert (stats["total"], stats["finished"], stats["failed"], stats["skipped"], stats["pending"]) == (
        103,
        100,
        1,
        1,
        1,
    )
    assert stats["success_rate"] == pytest.approx(100 / 101, abs=1e-6)
    assert (stats["task"], stats["timezone"], stats["relative_error"]) == ("default/export", "UTC", ERROR)
    duration = stats["duration_seconds"]
    assert (duration["count"], duration["min"], duration["max"]) == (101, 1.0, 600.0)
    assert duration["p50"] == pytest.approx(6.0, rel=ERROR)
    assert duration["p95"] == pytest.approx(10.5, rel=ERROR)
    assert duration["mean"] == pytest.approx((sum(1 + n / 10 for n in range(100)) + 600) / 101, abs=1e-5)
    assert stats["start_delay_seconds"]["p99"] == 2.0
    assert stats["reasons"] == [
        {"status": "FAILED", "reason": "error", "count": 1},
        {"status": "SKIPPED", "reason": "overlap", "count": 1},
    ]
    by_date = {day["date"]: day for day in stats["days"]}
    assert by_date[f"{noon:%Y-%m-%d}"]["finished"] == 100
    assert sum(day["total"] for day in stats["days"]) == stats["total"]
    assert [{name: by_date[day["date"]][name] for name in day} for day in days] == days


async def test_a_completion_that_was_answered_is_in_the_next_reading(tenant: Tenant) -> None:
    """Each completion counts in the very next answer, also one of a quarter that was counted long ago."""
    task, now = make_task(tenant, overlap="allow_all"), database_now(tenant.database)
    old = quarter_of(now) - timedelta(minutes=40)
    for number in range(6):
        make_slot(tenant, task, old + timedelta(seconds=number), trigger="manual")
    make_slot(tenant, task, old - timedelta(minutes=1), status="SKIPPED", reason="overlap", finished_at=old)
    assert await roll(tenant, now) == 1
    async with api(tenant) as it:
        key = await it.key("read", "report")
        claim = {"worker": "me", "max": 6}
        claimed = (await it.client.post("/api/v1/sdk/claims", json=claim, headers=key)).json()["executions"]
        assert len(claimed) == 6
        for number, one in enumerate(claimed, 1):
            body = {"fence": one["fence"], "outcome": "finished"}
            done = await it.client.post(f"/api/v1/sdk/executions/{one['id']}/complete", json=body, headers=key)
            assert done.status_code == 200
            read = (await it.client.get(PATH, headers=key)).json()
            assert (read["finished"], read["running"], read["total"]) == (number, 6 - number, 7)
            if number % 2:
                await roll(tenant, now)
        read = (await it.client.get(PATH, headers=key)).json()
    assert (read["finished"], read["skipped"], read["duration_seconds"]["count"]) == (6, 1, 6)


async def test_a_worker_that_comes_late_corrects_what_was_counted(tenant: Tenant) -> None:
    """A failure that was counted becomes a late success, and the start delay stays that of the first claim."""
    task, now = make_task(tenant), database_now(tenant.database)
    at = now - timedelta(hours=3)
    identity = ended(tenant, task, at, 30, status="FAILED", reason="timed_out")
    await roll(tenant, now)
    async with api(tenant) as it:
        key = await it.key("read")
        assert (await it.client.get(PATH, headers=key)).json()["failed"] == 1
        tenant.database.do(
            "UPDATE executions SET status = 'FINISHED', reason = NULL, late = true, finished_at = %s WHERE id = %s",
            *(at + timedelta(seconds=92), identity),
        )
        for _ in range(2):
            read = (await it.client.get(PATH, headers=key)).json()
            assert (read["failed"], read["finished"], read["late"]) == (0, 1, 1)
            assert (read["duration_seconds"]["max"], read["start_delay_seconds"]["max"]) == (90.0, 2.0)
            assert await roll(tenant, now) <= 1


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("from=2026-02-02&to=2026-02-01", 400),
        ("from=2024-01-01&to=2026-02-01", 400),
        ("timezone=Mars/Olympus", 400),
        ("from=0001-01-01&to=0001-01-02&timezone=Asia/Tokyo", 400),
        ("to=0001-01-01", 400),
        ("colour=red", 400),
        ("from=1970-01-01&to=1970-01-02", 200),
        ("from=2199-01-01&to=2199-01-02", 200),
    ],
)
async def test_windows_that_cannot_be(tenant: Tenant, query: str, status: int) -> None:
    """A window that ends before it begins, is too long or off the calendar is refused; an empty one is empty."""
    make_task(tenant)
    async with api(tenant) as it:
        key = await it.key("read")
        found = await it.client.get(f"{PATH}?{query}", headers=key)
        lost = await it.client.get("/api/v1/projects/default/tasks/nowhere/stats", headers=key)
    assert (found.status_code, lost.status_code) == (status, 404)
    if status == 200:
        assert (found.json()["total"], found.json()["days"], found.json()["duration_seconds"]["p50"]) == (0, [], None)
