"""The guide to sending logs with curl, run as it stands there."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path

from support.api import make_key, served
from support.databases import Tenant
from support.documents import ROOT, blocks
from support.rows import database_now, make_slot, make_task


async def test_what_the_guide_says_is_what_happens(tenant: Tenant, tmp_path: Path) -> None:
    """Every command of the guide works, and prints what the guide says."""
    make_slot(tenant, make_task(tenant), database_now(tenant.database) - timedelta(minutes=1))
    said = blocks((ROOT / "docs/how-to/send-logs-with-curl.md").read_text(encoding="utf-8"))
    # answers have no newline at their end; one behind each makes the lines that a terminal shows
    asking = 'ask() { curl -fsS -w "\\n"'
    script = "".join(block.text for block in said if block.language == "sh").replace("ask() { curl -fsS", asking)
    script = script.replace('ask "$api/executions/$id/logs.ndjson.gz', 'ask -w "" "$api/executions/$id/logs.ndjson.gz')
    expected = [line for block in said if block.language == "text" for line in block.text.splitlines()]
    here = tmp_path / "here"
    here.mkdir()
    async with served(tenant) as it:
        url, token = str(it.client.base_url).rstrip("/"), await make_key(tenant, "report", "read")
        given = os.environ | {"CRON_OBSERVER_URL": url, "CRON_OBSERVER_TOKEN": token}
        done = await asyncio.create_subprocess_exec("bash", "-ec", script, cwd=here, env=given, stdout=-1, stderr=-1)
        out, wrong = await done.communicate()
    assert (done.returncode, wrong) == (0, b"")
    assert [line for line in out.decode().splitlines() if line] == expected
