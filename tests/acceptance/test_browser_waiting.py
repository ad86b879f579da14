"""The sync pages while something waits, in a real browser: held removals, a suspension, a forge that is away."""

from __future__ import annotations

import json
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe

from support.api import served
from support.browser import MODES, Complaints, browser, needs_browser, reader
from support.databases import Tenant
from support.pages import stocked

pytestmark = [needs_browser, pytest.mark.browser, pytest.mark.timeout(300)]

HASH = "1a2b3c4d" * 8

COMMAND = f"cron-observer sources approve main {HASH}"


def wait(tenant: Tenant) -> None:
    """Let the source hold removals, be suspended and observed only, and its forge be away."""
    names = ("invoice-export", "ledger-close", "x" * 120, "holidays")
    place = {"path": f"tasks/{'deep/' * 12}file.yaml", "line": 5, "reason": "too_many"}
    held = [{"kind": "Calendar" if name == "holidays" else "Task", "name": name} | place for name in names]
    tenant.database.do(
        "UPDATE sources SET held = %s::jsonb, plan_hash = %s, mode = 'observe', environment = 'production',"
        " suspended_at = now() - interval '2 hours', suspended_until = now() + interval '3 days',"
        " suspended_by = 'key:abcdefgh', suspend_reason = 'freeze until the migration is over'",
        json.dumps(held),
        HASH,
    )
    timings = {"resolve": 0.011, "fetch": 0.034, "gather": 0.008, "plan": 0.002, "apply": 0.021, "pin": 0.004}
    tenant.database.do(
        "UPDATE sync_runs SET strategy = 'tree', timings = %s::jsonb, plan_hash = %s", json.dumps(timings), HASH
    )
    tenant.database.do(
        "INSERT INTO commit_statuses (tenant_id, source_id, commit, context, state, description, due_at, created_at,"
        " error) SELECT tenant_id, source_id, applied_commit, 'main', 'failure', '3 applied', now(), now(),"
        " 'HTTP 401: Bad credentials' FROM sources"
    )


async def test_what_waits_can_be_read_everywhere(tenant: Tenant) -> None:
    """Light, dark and on a telephone: no defect of accessibility, no complaint, nothing wider than the window."""
    stocked(tenant, 1)
    wait(tenant)
    found: dict[str, Any] = {}
    async with served(tenant) as api, browser() as running:
        for mode in MODES:
            context = await reader(running, str(api.client.base_url), mode)
            page = await context.new_page()
            complaints = Complaints(page)
            for path in ("/sync", "/sync/main"):
                await page.goto(path)
                await page.wait_for_function("document.documentElement.classList.contains('scripted')")
                result = await Axe().run(page)
                violations = [one["id"] for one in result.response["violations"]]
                wider = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
                if violations or complaints.heard or wider > 0:
                    found[f"{path} {mode}"] = (violations, complaints.heard, wider)
            assert await page.inner_text("#held copy-text code") == COMMAND
            await context.close()
    assert found == {}
