"""``cron-observer tasks pause``, ``resume`` and ``backfill``, run as the shell would run them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from cron_observer.cli import USAGE, commands
from support.api import served
from support.databases import Tenant
from support.plans import begin
from support.rows import database_now, make_task

HOUR = timedelta(hours=1)

#: Runs ``cron-observer tasks`` with these words; gives exit code, output and complaints.
Shell = Callable[..., Awaitable[tuple[int, str, str]]]


@asynccontextmanager
async def shell(
    tenant: Tenant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shell]:
    """Serve an hourly task, and give a shell with a key that may trigger and read."""
    now = database_now(tenant.database)
    begin(tenant, make_task(tenant), {"cron": "0 * * * *"}, now - 24 * HOUR)
    for name in [name for name in os.environ if name.startswith("CRON_OBSERVER_")]:
        monkeypatch.delenv(name)

    async def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = await asyncio.to_thread(commands()["tasks"], list(words))
        return code, *capsys.readouterr()

    async with served(tenant) as it:
        monkeypatch.setenv("CRON_OBSERVER_URL", str(it.client.base_url))
        monkeypatch.setenv("CRON_OBSERVER_TOKEN", (await it.key("read", "trigger"))["Authorization"].split()[1])
        yield run


async def test_a_task_is_paused_and_resumed(
    tenant: Tenant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A duration is an end from now; the answer says who, why and until when, and resuming takes it away."""
    async with shell(tenant, capsys, monkeypatch) as run:
        code, out, _ = await run("pause", "export", "--reason", "moving", "--until", "6h", "--on-resume", "last")
        told = dict(line.split(maxsplit=1) for line in out.splitlines())
        listed = await run("list", "--status", "PAUSED", "--format", "json")
        resumed = await run("resume", "default/export", "--reason", "moved", "--format", "json")
    assert code == 0
    assert (told["task"], told["status"], told["reason"], told["on_resume"]) == (
        *("default/export", "PAUSED"),
        *("moving", "last"),
    )
    row = tenant.database.rows("SELECT since, until, ended_at FROM pauses")[0]
    assert abs(row["until"] - row["since"] - 6 * HOUR) < timedelta(minutes=1)
    assert [task["name"] for task in json.loads(listed[1])] == ["export"]
    assert json.loads(resumed[1])["status"] == "ACTIVE"
    assert row["ended_at"] is not None


async def test_a_backfill_is_looked_at_and_made(
    tenant: Tenant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run is a table of slots and makes nothing; without it the runs are made, as many as were foretold."""
    now = database_now(tenant.database)
    asked = ("backfill", "export", "--from", (now - 3 * HOUR).isoformat(), "--to", now.isoformat())
    async with shell(tenant, capsys, monkeypatch) as run:
        _, table, _ = await run(*asked, "--dry-run")
        before = tenant.database.value("SELECT count(*) FROM executions")
        code, made, _ = await run(*asked, "--order", "newest_first", "--max-parallel", "2", "--format", "json")
        again = await run(*asked)
    lines = table.splitlines()
    assert lines[0].split() == ["SCHEDULED", "FOR", "LOCAL", "FOLD", "REPEATS", "EXECUTION"]
    assert (len(lines), lines[-1], before) == (5, "3 runs would be made", 0)
    assert code == 0
    answer = json.loads(made)
    assert (answer["count"], answer["dry_run"]) == (3, False)
    assert tenant.database.rows("SELECT max_parallel, sorted FROM backfills LIMIT 1") == [
        {"max_parallel": 2, "sorted": "newest_first"}
    ]
    assert again[1].startswith("0 runs of backfill ")


@pytest.mark.parametrize(
    "words",
    [
        ("pause", "export", "--until", "2030-01-01T00:00:00"),
        ("pause", "export", "--until", "soon"),
        ("pause", "export", "--on-resume", "some"),
        ("backfill", "export"),
        ("backfill", "export", "--from", "6h"),
        ("backfill", "export", "--from", "2026-01-01T00:00:00Z", "--max-parallel", "0"),
    ],
)
async def test_what_makes_no_sense_is_a_usage_error(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Times without an offset, unknown words and empty ranges are refused before anything is asked."""
    assert await asyncio.to_thread(commands()["tasks"], list(words)) == USAGE
    assert "Error" in capsys.readouterr().err


async def test_what_the_server_refuses_is_told(
    tenant: Tenant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end in the past is refused by the server, with its hint."""
    async with shell(tenant, capsys, monkeypatch) as run:
        code, _, told = await run("pause", "export", "--until", "2020-01-01T00:00:00Z")
    assert code == 1
    assert "out_of_range" in told
