"""What the pages tell of pauses, calendars, groups, ranges and repeats."""

from __future__ import annotations

import re

from support.api import Api, api
from support.databases import Tenant
from support.pages import links_of, part, text_of
from support.pages_time import DIGEST, HOUR, SCHEDULE, backfilled, declare, exclude, paused, ranged
from support.rows import database_now, make_slot, make_task


async def get(it: Api, path: str) -> str:
    """Return a page."""
    answer = await it.client.get(path)
    assert answer.status_code == 200, answer.text[:500]
    return answer.text


async def test_a_paused_task_says_who_why_and_until_when(tenant: Tenant) -> None:
    """The banner has author, reason, end and what follows; the list has the badge, and finds it."""
    task, now = make_task(tenant), database_now(tenant.database)
    make_task(tenant, "other")
    paused(tenant, task, now - HOUR, until=now + 2 * HOUR)
    make_slot(tenant, task, now + 3 * HOUR)
    async with api(tenant) as it:
        page = await get(it, "/tasks/default/export")
        listed = await get(it, "/tasks?q=status:paused")
    banner = text_of(part(page, "pause"))
    assert "Paused" in banner
    assert "key:ops : “the <ledger> moves”" in banner.replace("ops:", "ops :")
    assert "It ends by itself" in banner
    assert "at its end the newest slot that it left out runs" in banner
    assert "cron-observer tasks resume default/export" in banner
    assert "after the pause" in text_of(page)
    assert re.findall(r'<th scope="row"><a href="/tasks/default/([^"]+)"', listed) == ["export"]
    assert "Paused" in text_of(part(listed, "results"))


async def test_a_pause_that_is_over_is_not_told(tenant: Tenant) -> None:
    """Neither one that was ended nor one whose time has come puts up a banner."""
    task, now = make_task(tenant), database_now(tenant.database)
    paused(tenant, task, now - 3 * HOUR, ended_at=now - 2 * HOUR, ended_by="key:ops")
    paused(tenant, task, now - 2 * HOUR, until=now - HOUR)
    async with api(tenant) as it:
        page = await get(it, "/tasks/default/export")
    assert 'id="pause"' not in page


async def test_group_and_calendars_lead_back_to_their_lines(tenant: Tenant) -> None:
    """One click leads from the task to file and line of what it uses; what nobody declares is said to be missing."""
    declare(tenant, "calendars", "feasts", 3, digest=DIGEST)
    declare(tenant, "task_groups", "night", 7, spec={"suspend": True})
    calendars = {"exclude": ["feasts"], "include": ["nowhere"]}
    make_task(tenant, group="night", schedule={**SCHEDULE, "calendars": calendars})
    async with api(tenant) as it:
        page = await get(it, "/tasks/default/export")
    base = f"https://github.com/acme-example/schedules/blob/{'3f9c2ab0' * 5}"
    assert f"{base}/calendars/feasts.yaml#L3" in links_of(page)
    assert f"{base}/task_groups/night.yaml#L7" in links_of(page)
    said = text_of(page)
    assert "In the group night Suspended" in said
    assert "Not on days of feasts" in said
    assert "Only on days of nowhere No manifest declares it" in said
    assert "Ada <ada@acme.example>" in said


async def test_ranges_are_one_line_of_history(tenant: Tenant) -> None:
    """A week of skipped seconds is one line with its count, reason and ends, above the runs."""
    task, now = make_task(tenant), database_now(tenant.database)
    ranged(tenant, task, now - 30 * HOUR, now - 7 * HOUR)
    async with api(tenant) as it:
        everything = text_of(await get(it, "/tasks/default/export"))
        failed = text_of(await get(it, "/tasks/default/export?status=failed"))
    assert f"604,800 slots skipped: the task was paused, from {now - 30 * HOUR:%Y-%m-%d %H:%M:%S}" in everything
    assert "slots skipped" not in failed


async def test_lists_say_which_slot_a_run_repeats(tenant: Tenant) -> None:
    """A row that repeats a slot names its nominal time, on the page of the task and on that of the day."""
    task, now = make_task(tenant), database_now(tenant.database)
    at = now - 72 * HOUR
    slot = make_slot(tenant, task, at, status="FAILED", reason="error", finished_at=at)
    backfilled(tenant, task, slot, at, now)
    async with api(tenant) as it:
        for path in ("/tasks/default/export", f"/?date={now.date()}"):
            shown = text_of(await get(it, path))
            assert f"Backfill of {at:%Y-%m-%d %H:%M:%S} UTC" in shown, path


async def test_a_repeat_and_its_slot_lead_to_each_other(tenant: Tenant) -> None:
    """The run names the slot, the slot names the run and what kept it from running; the backfill is described."""
    task, now = make_task(tenant), database_now(tenant.database)
    at = now - 2 * HOUR
    paused(tenant, task, at - HOUR, ended_at=at + HOUR, ended_by="key:ops")
    slot = make_slot(tenant, task, at, status="SKIPPED", reason="paused", finished_at=at)
    cause, run = backfilled(tenant, task, slot, at, now)
    async with api(tenant) as it:
        of_run = await get(it, f"/executions/{run}")
        of_slot = await get(it, f"/executions/{slot}")
    assert f"/executions/{slot}" in links_of(of_run)
    assert f"Backfill {cause} : 1 run, missing slots" in text_of(of_run)
    assert f"/executions/{run}" in links_of(of_slot)
    assert "Repeated by a run (backfill)" in text_of(of_slot)
    assert "Paused by key:ops from" in text_of(of_slot)


async def test_a_skipped_day_names_the_calendar_and_the_feast(tenant: Tenant) -> None:
    """SKIPPED(calendar) says which calendar, what it says of the day, and where it is written."""
    declare(tenant, "calendars", "feasts", 3, digest=DIGEST)
    task, now = make_task(tenant, schedule=SCHEDULE), database_now(tenant.database)
    exclude(tenant, task, now)
    slot = make_slot(tenant, task, now, status="SKIPPED", reason="calendar", finished_at=now)
    async with api(tenant) as it:
        page = await get(it, f"/executions/{slot}")
    assert "The calendar feasts excludes the day: " in text_of(page)
    assert any(link.endswith("/calendars/feasts.yaml#L3") for link in links_of(page))


async def test_what_moved_a_run_is_said(tenant: Tenant) -> None:
    """The page names what moved the fire time, and says when a due run waits for its place."""
    task, now = make_task(tenant), database_now(tenant.database)
    moved = make_slot(tenant, task, now - HOUR, moved_by="calendar+jitter", held_at=now - HOUR)
    async with api(tenant) as it:
        page = text_of(await get(it, f"/executions/{moved}"))
    assert "moved by a calendar and jitter" in page
    assert "It waits for its place since" in page
