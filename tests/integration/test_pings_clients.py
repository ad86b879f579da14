"""Other people's ways to ping, unchanged: curl lines of the guides and the pages, and a client of Healthchecks."""

from __future__ import annotations

import asyncio
import html
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from support.api import make_key, served
from support.checkins import Watched, watched
from support.databases import Tenant
from support.documents import ROOT, blocks, section

GUIDE = (ROOT / "docs" / "how-to" / "check-in-with-pings.md").read_text(encoding="utf-8")


async def shell(task: Watched, text: str, folder: Path, **more: str) -> str:
    """Run shell lines with the server's address in the environment; return what they print."""
    environment = {
        **os.environ,
        "CRON_OBSERVER_URL": str(task.app.client.base_url).rstrip("/"),
        "no_proxy": "*",
        **more,
    }
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    running = await asyncio.create_subprocess_exec(
        *("sh", "-ec", text),
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await running.communicate()
    assert running.returncode == 0, complained.decode()
    return said.decode()


def lines_of(heading: str) -> str:
    """Return the shell lines of a part of the guide."""
    return "".join(block.text for block in blocks(section(GUIDE, heading)) if block.language == "sh")


async def test_the_guide_about_pings(tenant: Tenant, tmp_path: Path) -> None:
    """Each recipe does what the guide says of it, with the address that its first lines find out."""
    token = await make_key(tenant, "read", "admin")
    async with served(tenant) as app:
        task = await watched(app, tenant, "nightly-backup")
        known = {"CRON_OBSERVER_TOKEN": token}
        found = await shell(task, f'{lines_of("Declare what is expected")}printf %s "$PING_URL"', tmp_path, **known)
        assert found == f"{str(app.client.base_url).rstrip('/')}/ping/{task.doors.address}"
        known["PING_URL"] = found
        await shell(task, lines_of("Say that it succeeded"), tmp_path, **known)
        assert task.states() == [("FINISHED", None, "checkin", False)]
        await shell(task, lines_of("Say when it begins, and how it ended"), tmp_path, **known)
        assert task.states()[1:] == [("FINISHED", None, "checkin", False)]
        second = task.runs()[1]
        assert second["exit_code"] == 0
        assert second["started_at"] is not None
        shown = await app.call("GET", f"/executions/{second['id']}/logs", "read")
        assert [one["message"] for one in shown.json()["items"]] == ["42 files"]
        await shell(task, lines_of("Say that it is still alive"), tmp_path, **known)
        assert task.states()[2:] == [("FAILED", "error", "checkin", False)]
        changed = (await shell(task, lines_of("Change an address"), tmp_path, **known)).strip()
        assert changed.startswith(str(app.client.base_url).rstrip("/"))
        assert changed != found
        assert (await app.client.get(found)).status_code == 404
        await shell(task, lines_of("Say that it succeeded"), tmp_path, **known | {"PING_URL": changed})
        key = (await shell(task, "cron-observer tasks new-ping-key default", tmp_path, **known)).strip()
        assert (await app.client.get(f"/ping/{key}/nightly-backup")).text == "OK"


async def test_the_page_shows_lines_that_work(tenant: Tenant, tmp_path: Path) -> None:
    """What "How to report" offers to copy pings the task when it is run, and says nothing of claims."""
    async with served(tenant) as app:
        task = await watched(app, tenant, "backup")
        page = (await app.client.get(f"/tasks/{tenant.project}/backup?tab=report")).text
        ways = [html.unescape(found) for found in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", page, re.DOTALL)]
        assert len(ways) == 4
        assert not any("claims" in way for way in ways)
        assert "reported by pings" in page
        job = tmp_path / "job.sh"
        job.write_text("#!/bin/sh\necho done\n")
        job.chmod(0o755)
        for way in ways[:2]:
            await shell(task, way.replace("/opt/jobs/my-script.sh", str(job)), tmp_path)
        await shell(task, f"curl -fsS -o /dev/null {ways[2]}", tmp_path)
        program = ways[3] + "\n\njob()\nsentry_sdk.flush()\n"
        (tmp_path / "job.py").write_text(program)
        await shell(task, f"{sys.executable} -W ignore job.py", tmp_path)
        assert task.states() == [("FINISHED", None, "checkin", False)] * 4


@pytest.mark.parametrize("good", [True, False])
async def test_a_client_of_healthchecks(tenant: Tenant, tmp_path: Path, good: bool) -> None:
    """`runchecked` reports a success or a failure with the output of its commands, told nothing but the address."""
    program = f"""
import sys
from runchecked import HealthCheckedContext
with HealthCheckedContext(sys.argv[1], working_dir=".") as context:
    context.run(["echo", "hello"])
    context.run(["{"true" if good else "false"}"])
"""
    (tmp_path / "job.py").write_text(program)
    async with served(tenant) as app:
        task = await watched(app, tenant, "backup")
        url = f"{str(app.client.base_url).rstrip('/')}/ping/{task.doors.address}"
        await shell(task, f"{sys.executable} -W ignore job.py {url} || true", tmp_path)
        ended: Any = ("FINISHED", None) if good else ("FAILED", "error")
        assert [one[:2] for one in task.states()] == [ended]
        shown = await app.call("GET", f"/executions/{task.runs()[0]['id']}/logs", "read")
        assert "hello" in [one["message"] for one in shown.json()["items"]]
