"""The overview and the page of a day: what they count is what the ledger holds."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

from cron_observer.schedule import new_id
from support.api import api
from support.databases import Tenant, make_tenant
from support.pages import links_of, older, part, site, statements, stocked, text_of
from support.rows import database_now, make_task

DUE = "available_at <= now() OR fence > 0 OR trigger NOT IN ('schedule', 'catchup')"


async def at_one_moment(ledger: Callable[[], Any], ask: Callable[[], Awaitable[str]]) -> tuple[Any, str]:
    """Return a reading of the ledger and a page that tell of the same moment: nothing came or went meanwhile."""
    while True:
        before, page = ledger(), await ask()
        if ledger() == before:
            return before, page


async def test_an_empty_house_shows_the_way(tenant: Tenant) -> None:
    """Without tasks, the overview is three steps with commands to copy."""
    async with api(tenant) as it:
        page = (await it.client.get("/")).text
    said = text_of(page)
    assert "Three steps to the first execution" in said
    assert "kind: Task" in said
    assert "cron-observer run default/hello" in said
    assert "export CRON_OBSERVER_URL=http://127.0.0.1" in said


async def test_tasks_without_executions_are_shown(tenant: Tenant) -> None:
    """A fresh task that has never been due has an overview of its own, with dashes instead of figures."""
    make_task(tenant)
    async with api(tenant) as it:
        said = text_of((await it.client.get("/")).text)
    assert "1 task" in said
    assert "No runs yet" in said
    assert "Nothing failed, was missed or came late" in said


async def test_the_tiles_say_what_the_ledger_says(tenant: Tenant) -> None:
    """The tiles' figures are those of the database for the last 24 hours."""
    counts = f"""SELECT count(*) AS total, count(*) FILTER (WHERE status = 'FINISHED') AS finished,
        count(*) FILTER (WHERE status IN ('FAILED', 'MISSED')) AS ill,
        (SELECT count(*) FROM executions WHERE status = 'RUNNING') AS running
        FROM executions WHERE fire_at > now() - interval '24 hours' AND fire_at <= now() AND ({DUE})"""
    async with site(tenant) as it:
        (row,), page = await at_one_moment(lambda: tenant.database.rows(counts), lambda: it.get("/"))
    tiles = re.findall(r'<h2>([^<]+)</h2><p class="big[^"]*">(.*?)</p>', page)
    shown = {label: text_of(value).strip() for label, value in tiles}
    assert shown["Executions, 24 h"] == f"{row['total']:,}"
    assert shown["Running now"] == str(row["running"])
    rate = 100 * row["finished"] / (row["finished"] + row["ill"])
    assert shown["Success rate, 24 h"] == f"{rate:.1f} %"
    assert len(tiles) == 6


async def test_the_navigator_counts_days_as_the_ledger_does(tenant: Tenant) -> None:
    """Each listed day shows its number of due executions, and leads to it."""
    async with site(tenant) as it:
        expected = {
            str(row["day"]): row["n"]
            for row in tenant.database.rows(
                f"""SELECT (fire_at AT TIME ZONE 'UTC')::date AS day, count(*) AS n FROM executions
                    WHERE fire_at <= now() AND ({DUE}) GROUP BY 1"""
            )
        }
        page = await it.get("/")
    listed = re.findall(r'<li><a href="/\?date=([\d-]+)"[^>]*><span>[^<]*</span><span class="mono">([\d,]+)', page)
    assert {day: int(n.replace(",", "")) for day, n in listed} == expected


async def test_days_follow_the_readers_zone(tenant: Tenant) -> None:
    """The same executions fall on other days for a reader far east."""
    async with site(tenant) as it:
        day = (it.company.now - timedelta(days=2)).date()
        counts = {}
        for zone in ("UTC", "Pacific/Kiritimati"):
            page = await it.get(f"/?date={day}", headers={"Cookie": f"co_zone={zone}"})
            counts[zone] = int(re.findall(r">All <small>([\d,]+)<", page)[0].replace(",", ""))
            (expected,) = tenant.database.rows(
                f"""SELECT count(*) AS n FROM executions
                    WHERE (fire_at AT TIME ZONE %s)::date = %s AND fire_at <= now() AND ({DUE})""",
                zone,
                day,
            )
            assert counts[zone] == expected["n"]


async def test_paging_through_a_day_shows_each_execution_once(tenant: Tenant) -> None:
    """The pages of a day hold every due execution of it, newest first, none twice."""
    async with site(tenant) as it:
        day = (it.company.now - timedelta(days=1)).date()
        expected = [
            str(row["id"])
            for row in tenant.database.rows(
                f"""SELECT id FROM executions WHERE (fire_at AT TIME ZONE 'UTC')::date = %s AND fire_at <= now()
                    AND ({DUE}) ORDER BY fire_at DESC, id DESC""",
                day,
            )
        ]
        seen: list[str] = []
        path: str | None = f"/?date={day}"
        while path is not None:
            page = await it.get(path)
            seen += re.findall(r'<th scope="row"><a href="/executions/([0-9a-f-]+)"', part(page, "executions"))
            path = older(page)
    assert seen == expected


async def test_a_day_can_be_narrowed(tenant: Tenant) -> None:
    """The failed ones of a day are the failed ones of the ledger."""
    newest = "SELECT max((fire_at AT TIME ZONE 'UTC')::date) FROM executions WHERE status = 'FAILED'"
    async with site(tenant) as it:
        day = tenant.database.value(newest)  # in the first hours of a day nothing has failed on it
        page = part(await it.get(f"/?date={day}&status=failed"), "executions")
        expected = tenant.database.value(
            "SELECT count(*) FROM executions WHERE status = 'FAILED' AND (fire_at AT TIME ZONE 'UTC')::date = %s", day
        )
    assert len(re.findall(r'<th scope="row"><a href="/executions/', page)) == expected
    assert expected > 0
    assert "Finished</span>" not in page


async def test_forecasts_and_replaced_plans_are_no_history(tenant: Tenant) -> None:
    """What is not due yet is no execution of the day, and a slot of a replaced plan is shown nowhere."""
    now = database_now(tenant.database)
    uid = make_task(tenant)
    tenant.database.do("UPDATE task_plan SET generation = 2, effective_from = %s", now - timedelta(hours=1))
    rows = []
    for minutes, generation in ((-30, 2), (-20, 1), (30, 2), (40, 1)):
        at = now + timedelta(minutes=minutes)
        rows.append(
            {
                "tenant_id": tenant.tenant_id,
                "id": new_id(at, uid),
                "project_id": tenant.project_id,
                "task_uid": uid,
                "status": "PENDING",
                "trigger": "schedule",
                "nominal_at": at,
                "fire_at": at,
                "available_at": at,
                "queue": "default",
                "priority": 0,
                "plan_generation": generation,
                "created_at": now,
            }
        )
    tenant.database.insert("executions", rows)
    due, replaced, forecast, gone = (str(row["id"]) for row in rows)
    async with api(tenant) as it:
        overview = (await it.client.get("/?range=2h")).text
        day = (await it.client.get(f"/?date={(now - timedelta(minutes=30)).date()}")).text
        task = (await it.client.get("/tasks/default/export")).text
    assert due in overview
    assert forecast in overview
    assert "due, but nobody has begun it" in text_of(overview)
    executions = part(day, "executions")
    assert due in executions
    assert forecast not in executions
    assert due in part(task, "runs-h")
    for page in (overview, day, task):
        assert replaced not in page
        assert gone not in page


async def test_what_needs_attention_is_listed(tenant: Tenant) -> None:
    """Failed tasks, findings and quarantined tasks are listed, each leading to its place."""
    async with site(tenant) as it:
        page = part(await it.get("/"), "attention-h")
        failed = it.company.known["failed"]
    assert f"/executions/{failed}" in links_of(page)
    assert "/sync/main#f-tasks-mail-digest-eu.yaml" in links_of(page)
    assert "/tasks/default/churn-score" in links_of(page)
    said = text_of(page)
    assert "CO1021, line 11:3" in said
    assert "the zone Europe/Berln is not known" in said


async def test_the_timeline_has_a_table_behind_it(tenant: Tenant) -> None:
    """The same marks stand in the chart and in the table."""

    async def drawn() -> list[str]:
        chart = await it.get("/?range=2h")
        return re.findall(r'<a href="(/executions/[^"]+)" aria-label="[^"]*" tabindex="-1">', chart)

    async with site(tenant) as it:
        marks = await drawn()
        table = await it.get("/?range=2h&timeline=table")
        while (after := await drawn()) != marks:  # the time line moved on: one left it
            marks, table = after, await it.get("/?range=2h&timeline=table")
    rows = re.findall(r'<a href="(/executions/[^"]+)"', part(table, "timeline"))
    assert marks
    assert sorted(marks) == sorted(rows)


async def test_another_tenants_rows_are_nowhere(tenant: Tenant) -> None:
    """No page shows what belongs to somebody else."""
    other = make_tenant(tenant.database, name="other", project="secret")
    make_task(other, name="hidden-task")
    make_task(tenant, name="own-task")
    async with api(tenant) as it:
        pages = [(await it.client.get(path)).text for path in ("/", "/tasks", "/sync")]
        lost = await it.client.get("/tasks/secret/hidden-task")
    assert all("hidden-task" not in page for page in pages)
    assert lost.status_code == 404


async def test_a_page_costs_a_handful_of_statements(tenant: Tenant) -> None:
    """However many tasks there are, a page runs a fixed small number of statements."""
    async with site(tenant) as it:
        await it.get("/")
        paths = {
            "/": 13,  # three of them beside it, where the size of all logs takes long
            f"/?date={it.company.now:%Y-%m-%d}": 8,
            "/tasks": 5,
            "/tasks/default/invoice-export": 7,
            "/tasks/default/invoice-export?tab=schedule": 6,
            f"/executions/{it.company.known['failed']}": 11,
            "/sync": 7,
            "/sync/main": 8,
        }
        spent = {}
        for path in paths:
            with statements() as seen:
                await it.get(path)
            spent[path] = len(seen)
    assert {path: n for path, n in spent.items() if n > paths[path]} == {}


async def test_a_task_made_while_looking_appears(tenant: Tenant) -> None:
    """Nothing that a page shows of the present is remembered from an earlier page."""
    make_task(tenant, name="first")
    async with api(tenant) as it:
        before = (await it.client.get("/tasks")).text
        name = f"later-{uuid4().hex[:6]}"
        make_task(tenant, name=name)
        after = (await it.client.get("/tasks")).text
    assert name not in before
    assert name in after


async def test_a_young_house_has_a_near_timeline(tenant: Tenant) -> None:
    """While all history is of the last two hours, the timeline shows two; with more, eight; a choice wins."""

    def chosen(page: str) -> list[str]:
        ranges = re.search(r'aria-label="Range of the timeline">(.*?)</nav>', page)
        assert ranges is not None
        return re.findall(r'aria-current="true">([^<]+)<', ranges[1])

    make_task(tenant)
    async with api(tenant) as it:
        young = (await it.client.get("/")).text
        asked = (await it.client.get("/?range=24h")).text
        stocked(tenant, days=1)
        grown = (await it.client.get("/")).text
    assert (chosen(young), chosen(asked), chosen(grown)) == (["2 h"], ["24 h"], ["8 h"])
