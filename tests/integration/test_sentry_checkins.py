"""Sentry's check-ins: its own SDK, unchanged, against a real server; and the endpoints case by case."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
import textwrap
import zlib
from typing import Any
from uuid import UUID, uuid4

import brotli
import httpx
import pytest

from support.api import served
from support.checkins import CLOCKS, Watched, watched, watching
from support.databases import Tenant
from support.documents import ROOT, blocks

ZERO = "0" * 32


def dsn(task: Watched) -> str:
    """Return the DSN of a task as the server's address makes it."""
    base = str(task.app.client.base_url).rstrip("/")
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{task.doors.key}@{rest}/{task.doors.number}"


async def program(task: Watched, text: str) -> str:
    """Run a Python program that finds the DSN in its environment; return what it prints."""
    environment = {**os.environ, "SENTRY_DSN": dsn(task), "no_proxy": "*"}
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-c", textwrap.dedent(text)),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await running.communicate()
    assert running.returncode == 0, complained.decode()
    return said.decode()


HEAD = """
import asyncio, os, sentry_sdk
from sentry_sdk.crons import monitor, capture_checkin
sentry_sdk.init(dsn=os.environ["SENTRY_DSN"])
"""


@pytest.mark.parametrize("packed", ["gzip", "br"])
async def test_the_sdk_unchanged(tenant: Tenant, packed: str) -> None:
    """`@monitor` on functions, coroutines and blocks: a run each, failures as failures, errors sent beside ignored."""
    async with served(tenant) as app:
        task = await watched(app, tenant)
        text = HEAD.replace(
            '["SENTRY_DSN"]', f'["SENTRY_DSN"], _experiments={{"transport_compression_algo": "{packed}"}}'
        )
        await program(
            task,
            text
            + """
config = {"schedule": {"type": "crontab", "value": "* * * * *"}}

@monitor(monitor_slug="backup", monitor_config=config)
def good(): return 1

@monitor(monitor_slug="backup")
async def later(): await asyncio.sleep(0.05)

@monitor(monitor_slug="backup")
def bad(): raise RuntimeError("broken")

@monitor(monitor_slug="nobody")
def elsewhere(): return 2

assert good() == 1 and elsewhere() == 2
asyncio.run(later())
try:
    bad()
except RuntimeError as error:
    sentry_sdk.capture_exception(error)
with monitor(monitor_slug="backup"):
    pass
sentry_sdk.flush()
""",
        )
        states = [(run["status"], run["trigger"]) for run in task.runs()]
        assert sorted(states) == [("FAILED", "checkin")] + [("FINISHED", "checkin")] * 3
        assert all(run["started_at"] is not None and run["finished_at"] > run["started_at"] for run in task.runs())
        assert tenant.database.value("SELECT count(*) FROM tasks") == 1
        shown = tenant.database.value("SELECT spec -> 'schedule' ->> 'every' FROM tasks")
        assert shown == "1h"


async def test_the_guide_about_sentry(tenant: Tenant) -> None:
    """The program of the guide, as it stands there, reports its run."""
    guide = (ROOT / "docs" / "how-to" / "check-in-with-sentry.md").read_text(encoding="utf-8")
    [code] = [block.text for block in blocks(guide) if block.language == "python"]
    async with served(tenant) as app:
        task = await watched(app, tenant, "nightly-invoices")
        assert await program(task, code) == "done\n"
        assert task.states() == [("FINISHED", None, "checkin", False)]


def cron(task: Watched, **query: str) -> str:
    """Return the address of a check-in."""
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    return f"/api/{task.doors.number}/cron/{task.name}/{task.doors.key}/?{asked}"


async def test_case_34_by_address(tenant: Tenant) -> None:
    """GET and POST say how a run goes; the id names the run, and the duration tells when it began."""
    async with watching(tenant) as task:
        name = uuid4()
        began = await task.app.client.get(cron(task, status="in_progress", check_in_id=name.hex, environment="prod"))
        assert (began.status_code, began.json()) == (200, {"id": name.hex})
        assert task.states() == [("RUNNING", None, "checkin", False)]
        await task.app.client.post(cron(task, status="error", check_in_id=str(name)))
        assert task.states() == [("FAILED", "error", "checkin", False)]
        alone = await task.app.client.get(cron(task, status="ok", duration="12.5"))
        assert UUID(alone.json()["id"])
        run = task.runs()[1]
        assert 12.4 <= (run["finished_at"] - run["started_at"]).total_seconds() <= 14
        for wrong in (
            {"status": "missed"},
            {},
            {"status": "ok", "check_in_id": "x"},
            {"status": "ok", "duration": "-1"},
        ):
            assert (await task.app.client.get(cron(task, **wrong))).status_code == 400, wrong
        assert len(task.runs()) == 2


async def test_case_35_the_latest_run(tenant: Tenant) -> None:
    """An id of zeros is the newest open run, whoever named it; in_progress renews it, after the end nothing does."""
    async with watching(tenant) as task:
        name = uuid4()
        await task.app.client.get(cron(task, status="in_progress", check_in_id=name.hex))
        before = task.runs()[0]
        await task.app.client.get(cron(task, status="in_progress", check_in_id=ZERO))
        [after] = task.runs()
        assert after["run_deadline"] > before["run_deadline"]
        assert after["started_at"] == before["started_at"]
        await task.app.client.get(cron(task, status="ok", check_in_id=ZERO))
        await task.app.client.get(cron(task, status="in_progress", check_in_id=name.hex))
        await task.app.client.get(cron(task, status="error", check_in_id=name.hex))
        assert task.states() == [("FINISHED", None, "checkin", False)]


def envelope(task: Watched, *items: dict[str, Any], head: dict[str, Any] | None = None, length: bool = True) -> bytes:
    """Return an envelope of check-ins."""
    lines = [json.dumps(head or {}).encode()]
    for item in items:
        payload = json.dumps(item).encode()
        lines += [json.dumps({"type": "check_in"} | ({"length": len(payload)} if length else {})).encode(), payload]
    return b"\n".join(lines) + b"\n"


async def send(task: Watched, body: bytes, key: str | None = None, **headers: str) -> httpx.Response:
    """Post an envelope."""
    auth = {"X-Sentry-Auth": f"Sentry sentry_version=7, sentry_key={key or task.doors.key}, sentry_client=x/1"}
    path = f"/api/{task.doors.number}/envelope/"
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return await task.app.client.post(path, content=body, headers=given if key == "" else auth | given)


async def test_case_36_envelopes(tenant: Tenant) -> None:
    """Packed or not, with or without lengths, with the key in any of its places; other items are left alone."""
    async with watching(tenant) as task:
        raw = envelope(task, {"monitor_slug": task.name, "status": "ok", "check_in_id": uuid4().hex})
        assert (await send(task, raw)).status_code == 200
        raw = envelope(task, {"monitor_slug": task.name, "status": "ok"}, length=False)
        ways = {"gzip": gzip.compress(raw), "deflate": zlib.compress(raw), "br": brotli.compress(raw)}
        for coding, packed in ways.items():
            assert (await send(task, packed, Content_Encoding=coding)).status_code == 200, coding
        head = {"dsn": dsn(task)}
        in_head = envelope(task, {"monitor_slug": task.name, "status": "error"}, head=head)
        assert (await send(task, in_head, key="")).status_code == 200
        path = f"/api/{task.doors.number}/envelope/?sentry_key={task.doors.key}"
        other = b'{}\n{"type":"event","length":2}\n{}\n{"type":"session"}\n{"sid":1}\n' + raw[3:]
        answered = await task.app.client.post(path, content=other)
        assert answered.status_code == 200
        assert UUID(answered.json()["id"])
        assert sorted(one[0] for one in task.states()) == ["FAILED"] + ["FINISHED"] * 5


async def test_case_37_monitors_are_declared_elsewhere(tenant: Tenant) -> None:
    """No check-in makes or changes a task; an unknown monitor is left alone in an envelope and 404 by address."""
    async with watching(tenant) as task:
        config = {"schedule": {"type": "interval", "value": 1, "unit": "day"}, "checkin_margin": 1}
        before = tenant.database.rows("SELECT name, spec, generation FROM tasks")
        said = {"monitor_slug": task.name, "status": "ok", "monitor_config": config}
        raw = envelope(task, {**said, "monitor_slug": "new"}, said)
        assert (await send(task, raw)).status_code == 200
        assert (await task.app.client.get(cron(task, status="ok").replace(task.name, "new"))).status_code == 404
        assert tenant.database.rows("SELECT name, spec, generation FROM tasks") == before
        assert len(task.runs()) == 1
        assert CLOCKS["grace"] == "10m"


async def test_case_38_refusals(tenant: Tenant) -> None:
    """A wrong key or number is 403, what is no envelope 400, what is too large 413, packed or not."""
    async with watching(tenant) as task:
        good = envelope(task, {"monitor_slug": task.name, "status": "ok"})
        assert (await send(task, good, key="0" * 32)).status_code == 403
        assert (await send(task, good, key="")).status_code == 403
        wrong = f"/api/{task.doors.number + 1}/cron/{task.name}/{task.doors.key}/?status=ok"
        assert (await task.app.client.get(wrong)).status_code == 403
        for bad in (
            b"",
            b"[]",
            b"{",
            b'{}\n{"type":"check_in","length":99}\n{}',
            b'{}\n{"type":"check_in"}\n{"status":1}',
        ):
            assert (await send(task, bad)).status_code == 400, bad
        assert (await send(task, b"x", Content_Encoding="gzip")).status_code == 400
        assert (await send(task, b"x", Content_Encoding="zstd")).status_code == 415
        bomb = b"x" * (1024 * 1024 + 1)
        for coding, packed in {"": bomb, "gzip": gzip.compress(bomb), "br": brotli.compress(bomb)}.items():
            assert (await send(task, packed, Content_Encoding=coding)).status_code == 413, coding
        assert task.runs() == []


async def test_case_38_guessing_is_slowed_down_and_using_is_not(tenant: Tenant) -> None:
    """Who tries keys is told to wait; who has one may name monitors that nobody declared as often as they like."""
    async with watching(tenant) as task:
        items = [{"monitor_slug": f"other-{number}", "status": "ok"} for number in range(150)]
        raw = envelope(task, *items, {"monitor_slug": task.name, "status": "ok"})
        assert (await send(task, raw)).status_code == 200
        assert len(task.runs()) == 1
        tried = [(await send(task, raw, key=f"{number:032x}")).status_code for number in range(103)]
        assert (tried[0], tried[-1]) == (403, 429)
        assert (await send(task, raw)).status_code == 200
        assert len(task.runs()) == 2
