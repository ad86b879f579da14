"""``cron-observer sources approve``, ``suspend``, ``resume`` and ``tasks detach``, run as the shell would run them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cron_observer.cli import USAGE, commands
from support.api import served
from support.databases import Tenant
from support.owned import make_owned
from support.repositories import manifest

HASH = "c" * 64

#: Runs ``cron-observer`` with these words; gives exit code, output and complaints.
Shell = Callable[..., Awaitable[tuple[int, str, str]]]


@asynccontextmanager
async def shell(
    tenant: Tenant, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *scopes: str
) -> AsyncIterator[Shell]:
    """Serve a source with a task of its manifest, and give a shell with a key of these scopes."""
    make_owned(tenant, folder, manifest("export"))
    tenant.database.do(
        "UPDATE sources SET plan_hash = %s, held = %s::jsonb",
        HASH,
        '[{"kind": "Task", "name": "old", "path": "old.yaml", "line": 3, "reason": "confirm"}]',
    )
    for name in [name for name in os.environ if name.startswith("CRON_OBSERVER_")]:
        monkeypatch.delenv(name)

    async def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = await asyncio.to_thread(commands()[words[0]], list(words[1:]))
        return code, *capsys.readouterr()

    async with served(tenant) as it:
        monkeypatch.setenv("CRON_OBSERVER_URL", str(it.client.base_url))
        monkeypatch.setenv("CRON_OBSERVER_TOKEN", (await it.key(*scopes))["Authorization"].split()[1])
        yield run


async def test_removals_are_approved(
    tenant: Tenant, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list says that something waits; its hash is approved, with a reason; another hash is refused with a hint."""
    async with shell(tenant, tmp_path, capsys, monkeypatch, "admin") as run:
        listed = await run("sources", "list")
        code, out, _ = await run("sources", "approve", "main", HASH, "--reason", "all moved")
        wrong = await run("sources", "approve", "main", "d" * 64)
        usage = await run("sources", "approve", "main")
    heading, row = listed[1].splitlines()
    assert row[heading.index("HELD") :].split()[0] == "1"
    told = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (code, told["source"], told["plan_hash"], told["reason"]) == (0, "main", HASH, "all moved")
    assert tenant.database.value("SELECT plan_hash FROM approvals") == HASH
    assert (wrong[0], usage[0]) == (1, USAGE)
    assert "plan hash" in wrong[2]


async def test_a_source_is_suspended_and_resumed(
    tenant: Tenant, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A duration is an end from now; a reason is needed; resuming takes it away."""
    async with shell(tenant, tmp_path, capsys, monkeypatch, "admin") as run:
        without = await run("sources", "suspend", "main")
        wrong = await run("sources", "suspend", "main", "--reason", "x", "--until", "tomorrow")
        code, out, _ = await run("sources", "suspend", "main", "--reason", "freeze", "--until", "6h")
        listed = await run("sources", "list")
        resumed = await run("sources", "resume", "main", "--format", "json")
        again = await run("sources", "resume", "main")
    told = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (without[0], wrong[0]) == (USAGE, USAGE)
    assert (code, told["source"], told["suspended"], told["reason"]) == (0, "main", "true", "freeze")
    assert told["until"].endswith("Z")
    assert "freeze" in listed[1]
    assert json.loads(resumed[1])["suspended"] is None
    assert again[1].split() == ["source", "main", "suspended", "false"]


async def test_a_task_is_detached(
    tenant: Tenant, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API owns it afterwards; a reason is needed, and it is audited."""
    async with shell(tenant, tmp_path, capsys, monkeypatch, "admin") as run:
        without = await run("tasks", "detach", "export")
        code, out, err = await run("tasks", "detach", "default/export", "--reason", "the repository is lost")
        again = await run("tasks", "detach", "export", "--reason", "twice", "--format", "json")
        unknown = await run("tasks", "detach", "other", "--reason", "x")
    assert (without[0], code, unknown[0]) == (USAGE, 0, 1), err
    assert out.splitlines() == ["task    default/export", "owner   api", "status  ACTIVE"]
    assert json.loads(again[1])["owner"]["kind"] == "api"
    (entry,) = tenant.database.rows("SELECT * FROM audit_log WHERE action = 'task.detach'")
    assert entry["target"] == "task:default/export"
    assert entry["data"]["reason"] == "the repository is lost"


async def test_who_is_no_administrator_is_refused(
    tenant: Tenant, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that may do everything else cannot approve, suspend, resume or detach."""
    scopes = ("read", "report", "trigger", "tasks:write")
    async with shell(tenant, tmp_path, capsys, monkeypatch, *scopes) as run:
        ran = [
            await run("sources", "approve", "main", HASH),
            await run("sources", "suspend", "main", "--reason", "x"),
            await run("sources", "resume", "main"),
            await run("tasks", "detach", "export", "--reason", "x"),
        ]
    assert [code for code, _, _ in ran] == [1] * 4
    assert all("forbidden" in err for _, _, err in ran)
    assert tenant.database.value("SELECT count(*) FROM audit_log") == 0
