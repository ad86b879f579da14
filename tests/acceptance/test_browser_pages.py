"""The pages in a browser: sound for everybody, live, driven by keys, and whole without JavaScript."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from support import pages_time
from support.api import Api, served
from support.browser import MODES, Complaints, Mode, browser, needs_browser, reader
from support.databases import Tenant
from support.pages import stocked
from support.pages_company import Company
from support.rows import make_task

pytestmark = [needs_browser, pytest.mark.browser, pytest.mark.timeout(300)]


@dataclass
class House:
    """A running server with a company's data, and a browser."""

    api: Api
    base: str
    browser: Browser
    company: Company
    paused: dict[str, str]

    def execution(self, kind: str) -> str:
        """Return the address of an execution of a kind that has a log."""
        return f"/executions/{max(one for one, _, what in self.company.logged if what == kind)}"

    async def page(self, path: str, mode: Mode = "light", **more: Any) -> Page:
        """Open a page as a fresh reader."""
        context = await reader(self.browser, self.base, mode, **more)
        opened: Page = await context.new_page()
        await opened.goto(path)
        return opened


@asynccontextmanager
async def house(tenant: Tenant, days: int = 3) -> AsyncIterator[House]:
    """Serve a company's data and open a browser."""
    company = stocked(tenant, days)
    paused = pages_time.add(tenant)
    async with served(tenant) as api, browser() as running:
        yield House(api, str(api.client.base_url).rstrip("/"), running, company, paused)


def everything(it: House) -> dict[str, str]:
    """Return every kind of page there is."""
    day = f"{it.company.now:%Y-%m-%d}"
    return {
        "overview": "/",
        "timeline as a table": "/?timeline=table",
        "day": f"/?date={day}",
        "tasks": "/tasks",
        "no task": "/tasks?q=nothing status:blue",
        "runs": "/tasks/default/invoice-export",
        "schedule": "/tasks/default/digest-eu?tab=schedule",
        "statistics": "/tasks/default/invoice-export?tab=statistics",
        "definition": "/tasks/default/digest-eu?tab=definition#M4",
        "report": "/tasks/default/invoice-export?tab=report",
        "removed": "/tasks/default/legacy-import",
        "quarantined": "/tasks/default/churn-score",
        "failed": it.execution("failed"),
        "running": it.execution("running"),
        "skipped": f"/executions/{it.company.known['finished dbt-hourly']}",
        "sync": "/sync",
        "source": "/sync/main",
        "dates": "/#dates",
        "failure": "/sync/nothing",
    } | it.paused


@pytest.mark.parametrize("mode", MODES)
async def test_no_page_has_a_defect_of_accessibility(tenant: Tenant, mode: Mode) -> None:
    """axe finds nothing, the browser complains of nothing, and nothing is wider than the window."""
    async with house(tenant) as it:
        context = await reader(it.browser, it.base, mode)
        opened = await context.new_page()
        complaints = Complaints(opened)
        found: dict[str, Any] = {}
        for name, path in everything(it).items():
            complaints.heard.clear()
            await opened.goto("about:blank")
            await opened.goto(path)
            await opened.wait_for_function(
                "document.documentElement.classList.contains('scripted') || !document.scripts.length"
            )
            result = await Axe().run(opened)
            violations = [
                (one["id"], [node["target"] for node in one["nodes"]]) for one in result.response["violations"]
            ]
            wider = await opened.evaluate("document.documentElement.scrollWidth - innerWidth")
            heard = [one for one in complaints.heard if "404" not in one]
            if violations or heard or wider > 0:
                found[name] = (violations, heard, wider)
    assert found == {}


async def test_the_overview_shows_when_tasks_fire_next(tenant: Tenant) -> None:
    """On screens from a small laptop's on, the overview's table is seen whole, its last column with it."""
    async with house(tenant) as it:
        hidden = {}
        for width in (1024, 1150, 1264, 1280, 1440, 1600, 1920):
            page = await it.page("/", viewport={"width": width, "height": 900})
            box = page.get_by_role("group", name="Tasks by attention")
            hidden[width] = await box.evaluate("(box) => box.scrollWidth - box.clientWidth")
            await page.context.close()
        assert {width: pixels for width, pixels in hidden.items() if pixels > 0} == {}


async def test_runs_of_a_source_are_seen_whole(tenant: Tenant) -> None:
    """What the reconciler did, and how long each run took, needs no scrolling on a laptop."""
    async with house(tenant) as it:
        page = await it.page("/sync/main", viewport={"width": 1280, "height": 900})
        box = page.get_by_role("group", name="Recent runs")
        assert await box.evaluate("(box) => box.scrollWidth - box.clientWidth") <= 0


async def test_pages_hold_in_forced_colours_and_without_motion(tenant: Tenant) -> None:
    """With forced colours charts keep shapes apart by system colours; with reduced motion nothing moves."""
    async with house(tenant) as it:
        page = await it.page("/", forced_colors="active", reduced_motion="reduce")
        moving = await page.evaluate(
            "[...document.querySelectorAll('*')].filter((e) => getComputedStyle(e).animationName !== 'none').length"
        )
        fills = await page.evaluate(
            "['f-ok', 'f-fail', 'f-plan'].map((c) => getComputedStyle(document.querySelector('.' + c)).fill)"
        )
        violations = (await Axe().run(page)).response["violations"]
    assert moving == 0
    assert len(set(fills)) == 3
    assert [one["id"] for one in violations] == []


async def test_everything_can_be_read_without_javascript(tenant: Tenant) -> None:
    """With scripts off: figures, dates, theme, search, log pages and the line of the definition all work."""
    async with house(tenant) as it:
        page = await it.page("/", java_script_enabled=False)
        await expect(page.locator(".kpi")).to_have_count(6)
        await expect(page.locator("#live-state")).to_be_hidden()
        await page.get_by_role("link", name="Dark theme").click()
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert await page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
        await page.locator(".days a").first.click()
        assert "date=" in page.url
        await expect(page.locator("#executions tbody tr").first).to_be_visible()
        await page.locator("#q-top").fill("status:running")
        await page.locator("#q-top").press("Enter")
        await expect(page.locator("#results tbody tr")).to_have_count(2)
        await page.goto(it.execution("running"))
        await expect(page.locator("#L1200")).to_be_visible()
        await page.get_by_role("link", name="From the first line").click()
        await expect(page.locator("#L1")).to_be_visible()
        await page.locator(".defined a").first.click()
        await expect(page.locator("#M4.hit")).to_be_in_viewport()


async def test_dates_are_a_sheet_on_a_telephone(tenant: Tenant) -> None:
    """On a narrow window the navigator opens over the page and closes again, without scripts too."""
    async with house(tenant, days=1) as it:
        page = await it.page("/", "mobile", java_script_enabled=False)
        sheet = page.get_by_role("complementary", name="Executions by date")
        await expect(sheet).to_be_hidden()
        await page.get_by_role("link", name="Dates", exact=True).click()
        await expect(sheet).to_be_visible()
        await page.get_by_role("link", name="Close the dates").click()
        await expect(sheet).to_be_hidden()


async def test_a_run_is_seen_as_it_happens(tenant: Tenant) -> None:
    """Claim, log lines and completion show on the open page without a reload."""
    uid = make_task(tenant, name="live-task")
    async with served(tenant) as api, browser() as running:
        made = await api.call("POST", "/projects/default/tasks/live-task/trigger", "trigger", json={})
        assert made.status_code == 201, made.text
        identity = made.json()["id"]
        context = await reader(running, str(api.client.base_url).rstrip("/"))
        page = await context.new_page()
        complaints = Complaints(page)
        await page.goto(f"/executions/{identity}")
        await expect(page.locator("#live-state")).to_have_attribute("data-state", "live")
        await expect(page.locator("main .pill").first).to_have_text("Waiting")
        await page.evaluate("window.kept = true")

        claim = {"worker": "tester", "max": 1, "tasks": [str(uid)]}
        claimed = await api.call("POST", "/sdk/claims", "report", json=claim)
        (execution,) = claimed.json()["executions"]
        await expect(page.locator("main .pill").first).to_have_text("Running")
        for first in (0, 30):
            entries = [{"level": "INFO", "message": f"line {n}"} for n in range(first, first + 30)]
            body = {"fence": execution["fence"], "first_seq": first, "entries": entries}
            sent = await api.call("POST", f"/sdk/executions/{identity}/logs", "report", json=body)
            assert sent.status_code == 202, sent.text
            await expect(page.locator(f"#L{first + 30}")).to_be_in_viewport()
        done = {"fence": execution["fence"], "outcome": "finished", "exit_code": 0, "result": {"rows": 42}}
        ended = await api.call("POST", f"/sdk/executions/{identity}/complete", "report", json=done)
        assert ended.status_code == 200, ended.text
        await expect(page.locator("main .pill").first).to_have_text("Finished")
        await expect(page.locator("#L60")).to_have_count(1)
        await expect(page.get_by_text('"rows": 42')).to_be_visible()
        await expect(page.locator("#log header")).to_contain_text("60 lines")
        await expect(page.locator("table .st").first).to_have_text("Finished")
        assert await page.evaluate("window.kept")
        assert complaints.heard == []


async def test_live_updates_can_be_paused_and_survive_a_lost_stream(tenant: Tenant) -> None:
    """The chip pauses and resumes; where no stream can be had, the page says that it polls."""
    async with house(tenant, days=1) as it:
        page = await it.page("/")
        chip = page.locator("#live-state")
        await expect(chip).to_have_attribute("data-state", "live")
        await page.keyboard.press(".")
        await expect(chip).to_have_attribute("data-state", "off")
        await page.reload()
        await expect(chip).to_have_attribute("data-state", "off")
        await chip.click()
        await expect(chip).to_have_attribute("data-state", "live")
        await page.route("**/api/v1/stream*", lambda route: route.fulfill(status=503))
        await page.reload()
        await expect(chip).to_have_attribute("data-state", "poll")


async def test_keys_lead_everywhere(tenant: Tenant) -> None:
    """Search, places, rows, days and help are a key away, and typing in a box is just typing."""
    async with house(tenant) as it:
        page = await it.page("/")
        await page.keyboard.press("g")
        await page.keyboard.press("t")
        await page.wait_for_url("**/tasks")
        await page.keyboard.press("j")
        await page.keyboard.press("j")
        await expect(page.locator("tr.cur a").first).to_be_focused()
        name = await page.locator("tr.cur th a").inner_text()
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/tasks/default/{name}")
        await page.keyboard.press("[")
        await page.wait_for_url("**/?date=*")
        await page.keyboard.press("t")
        await page.wait_for_url(f"{it.base}/")
        await page.keyboard.press("?")
        await expect(page.locator("#help")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("#help")).to_be_hidden()
        await page.keyboard.press("/")
        await page.keyboard.type("g t")
        assert page.url == f"{it.base}/"
        await expect(page.locator("#q-top")).to_have_value("g t")


async def test_single_keys_can_be_switched_off(tenant: Tenant) -> None:
    """A reader who speaks to the computer can do without single keys; the choice is kept."""
    async with house(tenant, days=1) as it:
        page = await it.page("/tasks")
        await page.keyboard.press("?")
        await page.get_by_role("link", name="Switch single-key shortcuts off").click()
        await expect(page.locator("html")).to_have_attribute("data-keys", "off")
        await page.keyboard.press("?")
        await page.keyboard.press("t")
        await expect(page.locator("#help")).to_be_hidden()
        assert page.url.endswith("/tasks")


async def test_charts_are_one_stop_for_tab_and_arrows_inside(tenant: Tenant) -> None:
    """From a lane's name, arrows go from mark to mark."""
    async with house(tenant) as it:
        page = await it.page("/")
        await page.locator(".timeline .lane").first.focus()
        await page.keyboard.press("ArrowRight")
        label = await page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert label is not None
        assert await page.evaluate("document.activeElement.closest('.timeline') !== null")


async def test_the_list_narrows_while_typing(tenant: Tenant) -> None:
    """The list follows what is typed, the address with it, and the box keeps focus and text."""
    async with house(tenant, days=1) as it:
        page = await it.page("/tasks")
        await page.locator("#q").press_sequentially("invoice", delay=20)
        await expect(page.locator("#results tbody tr")).to_have_count(1)
        await expect(page.locator("#q")).to_be_focused()
        await expect(page.locator("#q")).to_have_value("invoice")
        await expect(page).to_have_url(f"{it.base}/tasks?q=invoice")


async def test_lines_of_a_log_can_be_linked(tenant: Tenant) -> None:
    """A line's number makes a link, Shift a range, and the link opens where it points."""
    async with house(tenant) as it:
        page = await it.page(it.execution("failed"))
        await page.locator("#L330 a.no").click()
        await page.locator("#L334 a.no").click(modifiers=["Shift"])
        await page.wait_for_url("**#L330-L334")
        await expect(page.locator(".lines .sel")).to_have_count(5)
        path = it.execution("failed")
        far = await it.page(f"{path}#L7")
        await expect(far.locator("#L7")).to_be_in_viewport()
        await expect(far.locator("#L7")).to_have_class("info sel")


async def test_a_log_reads_on_upwards(tenant: Tenant) -> None:
    """A log opens at its end; scrolling to its top brings the first lines, each once."""
    async with house(tenant) as it:
        page = await it.page(it.execution("running"))
        await expect(page.locator("#L1200")).to_be_in_viewport()
        await page.locator(".logbox").evaluate("(box) => { box.scrollTop = 0; }")
        await expect(page.locator("#L1")).to_be_in_viewport()
        await expect(page.locator(".lines .wait")).to_have_count(0)
        ids = await page.evaluate("[...document.querySelectorAll('.lines li')].map((line) => Number(line.id.slice(1)))")
    assert ids == list(range(1, len(ids) + 1))


async def test_local_time_is_a_click_away(tenant: Tenant) -> None:
    """The reader's zone is known to the browser; chosen once, the server draws every page in it."""
    async with house(tenant, days=1) as it:
        page = await it.page("/tasks")
        await page.get_by_role("link", name="Local", exact=True).click()
        await expect(page.locator("html")).to_have_attribute("data-zone", "Europe/Berlin")
        await page.goto("/")
        await expect(page.get_by_text("Days in Europe/Berlin.")).to_be_attached()
        await page.get_by_role("link", name="UTC", exact=True).click()
        await expect(page.locator("html")).to_have_attribute("data-zone", "UTC")


async def test_commands_are_copied(tenant: Tenant) -> None:
    """The button puts the command on the clipboard as it stands."""
    async with house(tenant, days=1) as it:
        page = await it.page(
            "/tasks/default/invoice-export?tab=report", permissions=["clipboard-read", "clipboard-write"]
        )
        await page.locator(".copy").first.click()
        await expect(page.locator(".copy").first).to_have_text("Copied")
        copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"export CRON_OBSERVER_URL={it.base}")
    assert "cron-observer run default/invoice-export -- " in copied
