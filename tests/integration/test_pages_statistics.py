"""The Statistics tab of a task: figures with their error, columns that lead to days, the week of the reader's clock."""

from __future__ import annotations

import re

import pytest

from support.api import api
from support.databases import Tenant
from support.pages import links_of, part, site, text_of
from support.rows import make_task

TAB = "/tasks/default/invoice-export?tab=statistics"


async def test_the_tab_says_what_the_ledger_says(tenant: Tenant) -> None:
    """Totals, success rate and the rows of days are those of the database; percentiles come with their error."""
    async with site(tenant) as it:
        page = await it.get(TAB)
        rows = it.company.rows["executions"]
        counts = tenant.database.rows(
            "SELECT count(*) AS total, count(*) FILTER (WHERE status = 'FINISHED') AS finished, "
            "count(*) FILTER (WHERE status IN ('FAILED', 'MISSED')) AS ill FROM executions AS e "
            "JOIN tasks AS t USING (tenant_id, task_uid) WHERE t.name = 'invoice-export' AND e.fire_at <= now()"
        )[0]
    assert rows
    tiles = dict(re.findall(r'<h2>([^<]+)</h2><p class="big[^"]*">(.*?)</p>', page))
    assert text_of(tiles["Executions"]).strip() == f"{counts['total']:,}"
    rate = 100 * counts["finished"] / (counts["finished"] + counts["ill"])
    assert text_of(tiles["Success rate"]).split()[0] == f"{rate:.1f}"
    said = text_of(page)
    assert "percentiles ± 2 %" in said
    assert "p95 duration" in said
    table = part(page, "days-h") if 'id="days-h"' in page else page
    assert (
        sum(int(n.replace(",", "")) for n in re.findall(r'daybar.*?</td><td class="num r">([\d,]+)', table))
        == (counts["total"])
    )


async def test_columns_lead_to_their_days(tenant: Tenant) -> None:
    """Each column of the chart is a link with words, and the days that it leads to stand."""
    async with site(tenant) as it:
        page = await it.get(TAB)
        chart = re.search(r'<svg class="columns".*?</svg>', page, re.DOTALL)
        assert chart is not None
        days = re.findall(r'<a href="(/\?date=[^"]+)" aria-label="([^"]+)"', chart.group())
        assert len(days) >= 4
        assert all(re.search(r": [\d,]+ execution", said) for _, said in days)
        assert (await it.client.get(days[-1][0])).status_code == 200


async def test_the_reader_chooses_days_and_zone(tenant: Tenant) -> None:
    """Seven, 31 or 90 days can be shown, anything else shows 31; hours are those of the reader's zone."""
    async with site(tenant) as it:
        short = await it.get(f"{TAB}&days=7")
        usual = await it.get(f"{TAB}&days=12345")
        await it.client.get("/preferences?zone=Asia/Kathmandu&next=/")
        local = await it.get(TAB)
    assert "the last 7 days" in short
    assert "the last 31 days" in usual
    assert any("days=90" in one for one in links_of(usual))
    assert "Asia/Kathmandu" in text_of(local)


@pytest.mark.parametrize("path", ["/tasks/default/quiet?tab=statistics", "/tasks/default/quiet?tab=statistics&days=90"])
async def test_a_task_without_history_has_no_figures(tenant: Tenant, path: str) -> None:
    """Where nothing was due, the tab says so."""
    make_task(tenant, name="quiet")
    async with api(tenant) as it:
        page = await it.client.get(path)
    assert page.status_code == 200
    assert "Nothing was due in these days" in text_of(page.text)
