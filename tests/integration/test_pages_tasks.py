"""The list of tasks and the page of one: search, paging, schedule, definition down to the line."""

from __future__ import annotations

import re

from cron_observer.model import ScheduleSpec
from cron_observer.schedule import explain
from support.api import api
from support.databases import Tenant
from support.pages import Site, ids_of, links_of, older, part, site, text_of
from support.pages_manifests import MANIFESTS
from support.rows import database_now, make_task


async def names(it: Site, query: str) -> list[str]:
    """Return the names of the tasks that a search lists."""
    answer = await it.client.get("/tasks", params={"q": query})
    assert answer.status_code == 200
    return re.findall(r'<th scope="row"><a href="/tasks/default/([^"]+)"', part(answer.text, "results"))


async def test_the_search_box_finds_by_words_and_tokens(tenant: Tenant) -> None:
    """Words look in name, path and description; tokens by status, sync, owner, label, source and queue."""
    async with site(tenant) as it:
        assert await names(it, "invoice") == ["invoice-export"]
        assert await names(it, "billing/ INVOICE") == ["invoice-export"]
        assert await names(it, "bookkeeper") == ["invoice-export"]
        assert await names(it, "status:suspended") == ["report-weekly"]
        assert await names(it, "status:quarantined") == ["churn-score"]
        assert await names(it, "status:running") == ["dbt-hourly", "reindex-delta"]
        assert await names(it, "status:failed") == ["invoice-export"]
        assert await names(it, "sync:kept") == ["digest-eu"]
        assert await names(it, "owner:api") == ["adhoc-cleanup"]
        assert await names(it, "label:team=payments tier") == []
        assert await names(it, "label:team=payments label:tier") == ["invoice-export"]
        assert await names(it, "queue:gpu") == ["feature-refresh"]
        assert "adhoc-cleanup" not in await names(it, "source:main")
        assert await names(it, "source:elsewhere") == []
        assert await names(it, "100%") == []


async def test_removed_tasks_are_listed_when_asked_for(tenant: Tenant) -> None:
    """A task whose manifest is gone stays out of the list until somebody asks, and its page still stands."""
    async with site(tenant) as it:
        assert "legacy-import" not in await names(it, "")
        assert await names(it, "status:removed") == ["legacy-import"]
        page = text_of(await it.get("/tasks/default/legacy-import"))
    assert "its manifest is gone. History stays" in page
    assert "Removed" in page


async def test_paging_shows_each_task_once(tenant: Tenant) -> None:
    """A list longer than a page goes on by name, and loses or repeats nothing."""
    made = [f"task-{n:03}" for n in range(120)]
    for name in made:
        make_task(tenant, name=name)
    async with api(tenant) as it:
        path: str | None = "/tasks"
        seen: list[str] = []
        while path is not None:
            page = (await it.client.get(path)).text
            seen += re.findall(r'<th scope="row"><a href="/tasks/default/([^"]+)"', page)
            path = older(page)
    assert seen == made


async def test_health_and_sync_stand_apart(tenant: Tenant) -> None:
    """A task that runs well on its last good version is healthy and out of sync at once."""
    async with site(tenant) as it:
        page = await it.get("/tasks/default/digest-eu")
    said = text_of(page)
    assert "Kept last good" in said
    assert re.search(r"Healthy|Late", said)
    assert "CO1021 , line 11:3" in said.replace("CO1021,", "CO1021 ,")
    assert "/sync/main#f-tasks-mail-digest-eu.yaml" in links_of(page)


async def test_the_schedule_tab_is_what_explain_says(tenant: Tenant) -> None:
    """The next ten fires of the page are those of the engine that plans."""
    async with site(tenant, days=1) as it:
        page = await it.get("/tasks/default/ledger-close?tab=schedule")
    spec = ScheduleSpec.read({"cron": "45 23 * * *", "timezone": "America/New_York"}, "default/ledger-close")
    moments = (it.company.now, database_now(tenant.database))  # the page was made between them
    shown = re.findall(r'<th scope="row" class="num">([^<]+)</th>', page)
    assert shown in [[fire.local for fire in explain(spec, at, 10).fires] for at in moments]
    assert "At 23:45 (America/New_York)" in text_of(page)


async def test_a_schedule_that_cannot_be_evaluated_says_why(tenant: Tenant) -> None:
    """A quarantined task shows the reason, not an error."""
    async with site(tenant, days=1) as it:
        said = text_of(await it.get("/tasks/default/churn-score?tab=schedule"))
    assert "Quarantined:" in said
    assert "Europe/Berln" in said
    assert "Europe/Berlin" in said


async def test_the_definition_is_the_manifest_with_its_line(tenant: Tenant) -> None:
    """The manifest's text stands whole, line by line, with the task's line marked and a link to the forge."""
    async with site(tenant, days=1) as it:
        page = await it.get("/tasks/default/invoice-export?tab=definition")
    lines = MANIFESTS["tasks/billing/invoice-export.yaml"].splitlines()
    anchors = [one for one in ids_of(page) if re.fullmatch(r"M\d+", one)]
    assert anchors == [f"M{n + 1}" for n in range(len(lines))]
    assert '<li id="M4" class="hit">' in page
    said = text_of(page)
    for line in lines:
        assert " ".join(line.split()) in said
    commit = "3f9c2ab4d51e6b0a77c2f1f0d9be6a5c8e1d2f30"
    forge = f"https://github.com/acme-example/schedules/blob/{commit}/tasks/billing/invoice-export.yaml#L4"
    assert forge in links_of(page)
    assert "retries.max" in said
    assert "First schedules" in said


async def test_an_api_owned_task_says_so(tenant: Tenant) -> None:
    """Without a manifest there is no source to show, and the page says that."""
    async with site(tenant, days=1) as it:
        said = text_of(await it.get("/tasks/default/adhoc-cleanup?tab=definition"))
    assert "API-owned" in said
    assert "no manifest defines it" in said


async def test_descriptions_are_text(tenant: Tenant) -> None:
    """A description with markup, on the list and on the page of the task, is shown as it was written."""
    async with site(tenant, days=1) as it:
        for path in ("/tasks", "/tasks/default/digest-eu"):
            page = await it.get(path)
            assert "<b onclick" not in page
            assert "&lt;b onclick=&#34;x()&#34;&gt;of the day&lt;/b&gt;" in page


async def test_runs_go_on_page_by_page(tenant: Tenant) -> None:
    """The runs of a task are listed newest first, each once, over pages."""
    async with site(tenant, days=2) as it:
        expected = [
            str(row["id"])
            for row in tenant.database.rows(
                "SELECT id FROM executions WHERE task_uid = %s AND fire_at <= now() ORDER BY fire_at DESC, id DESC",
                it.company.uids["queue-drain"],
            )
        ]
        path: str | None = "/tasks/default/queue-drain"
        seen: list[str] = []
        while path is not None:
            page = await it.get(path)
            listed = page[page.index('id="runs-h"') :]
            seen += re.findall(r'<th scope="row" class="num"><a href="/executions/([0-9a-f-]+)"', listed)
            path = older(page)
    assert len(expected) > 500
    assert seen == expected


async def test_how_to_report_names_this_server(tenant: Tenant) -> None:
    """The commands to copy carry the address, the task and its queue."""
    async with site(tenant, days=1) as it:
        said = text_of(await it.get("/tasks/default/feature-refresh?tab=report"))
    assert "export CRON_OBSERVER_URL=http://127.0.0.1" in said
    assert "cron-observer run default/feature-refresh -- " in said
    assert '"queues": ["gpu"]' in said


async def test_the_next_fire_may_lie_beyond_the_planned_slots(tenant: Tenant) -> None:
    """A task whose next slot is not planned yet shows the fire that its plan foretells."""
    make_task(tenant, name="yearly")
    tenant.database.do("UPDATE task_plan SET active = true, next_fire_at = now() + interval '9 days 1 minute'")
    async with api(tenant) as it:
        page = (await it.client.get("/tasks/default/yearly")).text
    due = tenant.database.value("SELECT to_char(next_fire_at AT TIME ZONE 'UTC', 'HH24:MI') FROM task_plan")
    assert f" {due}</time>" in page
