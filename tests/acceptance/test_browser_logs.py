"""A log of a million lines in a browser: any line at once, by number, by level, by text, by keys and while it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from support import long_logs
from support.api import served
from support.browser import MODES, Complaints, browser, needs_browser, reader
from support.claims import claimed
from support.databases import Tenant
from support.rows import database_now, make_slot, make_task

pytestmark = [needs_browser, pytest.mark.browser, pytest.mark.timeout(300)]

MILLION = 1_000_000


@dataclass
class Viewed:
    """An execution with a long log, open in a browser."""

    tenant: Tenant
    execution: UUID
    page: Page

    async def lines(self) -> list[int]:
        """Return the numbers of the lines that are drawn, once none of them is waited for."""
        await expect(self.page.locator(".lines .wait")).to_have_count(0)
        found = await self.page.evaluate("[...document.querySelectorAll('.lines li')].map((l) => l.id.slice(1))")
        return [int(one) for one in found]

    async def grow(self, first: int, many: int) -> None:
        """Let the log go on."""
        await long_logs.write(self.tenant, self.execution, many, database_now(self.tenant.database), first=first)


@asynccontextmanager
async def viewed(tenant: Tenant, lines: int = MILLION, path: str = "") -> AsyncIterator[Viewed]:
    """Show a running execution's log."""
    now = database_now(tenant.database)
    execution = make_slot(tenant, make_task(tenant), now - timedelta(seconds=1))
    await claimed(tenant.database.api, tenant)
    await long_logs.write(tenant, execution, lines, now)
    async with served(tenant) as api, browser() as running:
        context = await reader(running, str(api.client.base_url).rstrip("/"))
        page = await context.new_page()
        complaints = Complaints(page)
        await page.goto(f"/executions/{execution}{path}")
        yield Viewed(tenant, execution, page)
        assert complaints.heard == []


async def test_a_million_lines(tenant: Tenant) -> None:
    """The last line, the first, one in the middle and what is searched for are there at once, with few elements."""
    async with viewed(tenant) as it:
        page = it.page
        await expect(page.locator("#L1000000 .tx")).to_have_text(long_logs.message(MILLION - 1))
        await page.locator(".logbox").focus()
        await page.keyboard.press("Home")
        await expect(page.locator("#L1 .tx")).to_have_text(long_logs.message(0))
        await page.locator("#log-line").fill("500000")
        await page.keyboard.press("Enter")
        await expect(page.locator("#L500000.sel .tx")).to_have_text(long_logs.message(499_999))
        await expect(page.locator("#L500000")).to_be_in_viewport()
        assert page.url.endswith("#L500000")
        await page.locator("#log-q").fill("PART-9972.")
        await page.keyboard.press("Enter")
        await expect(page.locator("[data-found]")).to_have_text("51 of 100 lines")
        await expect(page.locator("#L508623 mark")).to_have_text("part-9972.")
        await page.locator(".logbox").focus()
        await page.keyboard.press("n")
        await expect(page.locator("[data-found]")).to_have_text("52 of 100 lines")
        await expect(page.locator("#L518596.sel")).to_be_in_viewport()
        assert len(await it.lines()) < 60
        await page.locator("[data-step='0']").click()
        await expect(page.locator(".lines mark")).to_have_count(0)


async def test_wheel_and_keys_move_by_lines(tenant: Tenant) -> None:
    """However long the log, a turn of the wheel and an arrow move by lines, and a page by a page."""
    async with viewed(tenant, path="#L500000") as it:
        page = it.page
        await page.locator("[data-log=wrap]").click()
        before = (await it.lines())[0]
        await page.locator(".logbox").hover()
        await page.mouse.wheel(0, 100)
        await expect(page.locator(f"#L{before}")).to_have_count(0)
        assert (await it.lines())[0] == before + 5
        await page.locator(".logbox").focus()
        for key, moved in (("ArrowDown", 6), ("ArrowUp", 5), ("PageDown", 26), ("PageUp", 5)):
            await page.keyboard.press(key)
            assert (await it.lines())[0] in range(before + moved - 2, before + moved + 3)


async def test_a_level_is_scrolled_like_a_log_of_its_own(tenant: Tenant) -> None:
    """Narrowed to warnings, the viewer has exactly these, first to last."""
    async with viewed(tenant, 100_000, "?level=WARN") as it:
        page = it.page
        await expect(page.locator("#L100000")).to_be_in_viewport()
        await page.locator(".logbox").focus()
        await page.keyboard.press("Home")
        await expect(page.locator("#L501")).to_be_in_viewport()
        assert (await it.lines())[:3] == [501, 1501, 2501]


async def test_following_pauses_when_the_reader_scrolls_up(tenant: Tenant) -> None:
    """New lines are shown as they come, however many; a reader who has scrolled up stays where he is."""
    async with viewed(tenant, 10_000) as it:
        page = it.page
        follow = page.locator("[data-log=follow]")
        await expect(follow).to_have_attribute("aria-pressed", "true")
        await it.grow(10_000, 10)
        await expect(page.locator("#L10010")).to_be_in_viewport()
        await it.grow(10_010, 50_000)
        await expect(page.locator("#L60010")).to_be_in_viewport()
        await page.locator(".logbox").hover()
        await page.mouse.wheel(0, -200)
        await expect(follow).to_have_attribute("aria-pressed", "false")
        seen = await it.lines()
        await it.grow(60_010, 1000)
        await expect(page.locator("[data-said]")).to_contain_text("new line")
        assert await it.lines() == seen
        await page.keyboard.press("f")
        await expect(page.locator("#L61010")).to_be_in_viewport()


async def test_a_log_without_its_middle(tenant: Tenant) -> None:
    """Where lines are not kept, one line says how many; the numbers of the others stay theirs."""
    async with viewed(tenant, 20_000) as it:
        where = "WHERE execution_id = %s AND first_seq >= 5000 AND first_seq < 15000"
        rows = it.tenant.database.rows(
            f"DELETE FROM log_chunks {where} RETURNING first_seq, lines",
            it.execution,
        )
        low, high = min(row["first_seq"] for row in rows), max(row["first_seq"] + row["lines"] for row in rows)
        it.tenant.database.do(
            "UPDATE attempts SET log_cut_from = %s, log_cut_to = %s, log_cut_bytes = 1048576 WHERE execution_id = %s",
            low,
            high,
            it.execution,
        )
        await it.page.goto(f"/executions/{it.execution}#L{high + 1}")
        await it.page.reload()
        await expect(it.page.locator(f"#L{high + 1}")).to_be_in_viewport()
        await expect(it.page.locator(".lines .gap")).to_have_text(f"{high - low:,} lines (1.0 MiB) are not kept")
        await expect(it.page.locator(f"#L{low}")).to_be_in_viewport()


@pytest.mark.parametrize("mode", MODES)
async def test_the_viewer_is_sound_for_everybody(tenant: Tenant, mode: str) -> None:
    """Axe finds nothing, in light, in dark and on a telephone, with colours of every kind in the log."""
    now = database_now(tenant.database)
    execution = make_slot(tenant, make_task(tenant), now - timedelta(seconds=1))
    await claimed(tenant.database.api, tenant)
    await long_logs.write(tenant, execution, 1000, now)
    colours = [
        f"\x1b[{code}mcolour {code}\x1b[0m" for code in (*range(30, 38), *range(40, 48), *range(90, 98), 1, 3, 4, 7)
    ]
    await long_logs.append(tenant, execution, colours, now, first=1000)
    async with served(tenant) as api, browser() as running:
        context = await reader(running, str(api.client.base_url).rstrip("/"), mode)  # type: ignore[arg-type]
        page = await context.new_page()
        await page.goto(f"/executions/{execution}")
        await page.locator(".logbox").scroll_into_view_if_needed()
        await expect(page.locator("#L1028")).to_be_in_viewport()
        found = (await Axe().run(page)).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found] == []


async def test_a_long_log_without_scripts(tenant: Tenant) -> None:
    """With scripts off, the last page comes first, a line is a form away, and links lead on."""
    now = database_now(tenant.database)
    execution = make_slot(tenant, make_task(tenant), now - timedelta(seconds=1))
    await claimed(tenant.database.api, tenant)
    await long_logs.write(tenant, execution, 50_000, now)
    async with served(tenant) as api, browser() as running:
        context = await reader(running, str(api.client.base_url).rstrip("/"), java_script_enabled=False)
        page = await context.new_page()
        await page.goto(f"/executions/{execution}")
        await expect(page.locator("#L50000")).to_have_count(1)
        await page.locator("#log-line").fill("25000")
        await page.locator("#log-line").press("Enter")
        await expect(page.locator("#L25000 .tx")).to_have_text(long_logs.message(24_999))
        await page.get_by_role("link", name="Later lines").click()
        await expect(page.locator("#L25200")).to_have_count(1)
