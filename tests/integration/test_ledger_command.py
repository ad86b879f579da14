"""``cron-observer db check`` from a shell: what it prints, and how it exits."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cron_observer.cli import commands
from support.databases import Tenant
from support.documents import ROOT, blocks
from support.plans import begin, make_unplanned, plan_all
from support.rows import database_now


@dataclass
class Ran:
    """What the command left behind."""

    code: int
    out: str
    err: str


@dataclass
class Check:
    """Runs ``db check`` in this process, with the environment of a shell."""

    capsys: pytest.CaptureFixture[str]

    async def __call__(self, *words: str) -> Ran:
        """Run it with these words."""
        self.capsys.readouterr()
        code = await asyncio.to_thread(commands()["db"], ["check", *words])
        return Ran(code, *self.capsys.readouterr())


@pytest.fixture
def check(tenant: Tenant, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """The command, in an empty folder, for the tenant's database."""
    for name in [name for name in os.environ if name.startswith("CRON_OBSERVER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRON_OBSERVER_DATABASE_URL", tenant.database.url)
    monkeypatch.chdir(tmp_path)
    return Check(capsys)


async def planned(tenant: Tenant, name: str) -> UUID:
    """Plan a task that has fired every half hour for a day, and does not fire within the next quarter of an hour."""
    uid, now = make_unplanned(tenant, name), database_now(tenant.database)
    begin(tenant, uid, {"cron": f"{(now.minute + 16) % 30}/30 * * * *"}, now - timedelta(days=1))
    await plan_all(tenant, now)
    return uid


def first_due(tenant: Tenant, uid: UUID) -> dict[str, Any]:
    """Return the oldest slot of a task."""
    (row,) = tenant.database.rows("SELECT * FROM executions WHERE task_uid = %s ORDER BY fire_at LIMIT 1", uid)
    return row


async def test_a_clean_ledger_is_said_to_be_clean(tenant: Tenant, check: Check) -> None:
    """Exit 0, one line with what was looked at; as JSON the same."""
    await planned(tenant, "a")
    await planned(tenant, "b")
    table = await check()
    assert table.code == 0, table
    assert table.out.startswith("2 tasks, 2 generations, 96 slots, 0 ranges checked; nothing is wrong")
    told = json.loads((await check("--format", "json")).out)
    assert told == {
        "ok": True, "tasks": 2, "generations": 2, "slots": 96, "ranges": 0, "unreadable": 0, "defects": [], "more": 0,
    }  # fmt: skip


async def test_a_defect_is_a_line(tenant: Tenant, check: Check) -> None:
    """Exit 1, and a line for each defect: task, label, what it is and how it is mended; the database is not touched."""
    uid = await planned(tenant, "a")
    await planned(tenant, "b")
    lost = first_due(tenant, uid)
    tenant.database.do("DELETE FROM executions WHERE id = %s", lost["id"])
    before = tenant.database.value("SELECT md5(string_agg(e::text, '' ORDER BY id)) FROM executions e")
    table = await check()
    assert table.code == 1
    line, summary = table.out.splitlines()
    assert line.startswith(
        f"default/a  {lost['nominal_local'].isoformat()} UTC  missing: no execution and no range has"
    )
    assert "cron-observer tasks backfill default/a --from" in line
    assert summary.endswith("1 missing")
    told = json.loads((await check("--format", "json", "--task", "default/a")).out)
    assert (told["ok"], told["tasks"]) == (False, 1)
    assert told["defects"][0]["id"] == str(lost["id"])
    assert (await check("--task", "b")).code == 0
    assert (await check("--project", "elsewhere")).out.startswith("0 tasks")
    assert tenant.database.value("SELECT md5(string_agg(e::text, '' ORDER BY id)) FROM executions e") == before


async def test_a_period_is_a_part_of_history(tenant: Tenant, check: Check) -> None:
    """--from and --to take dates and times; what lies outside is not looked at."""
    uid = await planned(tenant, "a")
    lost = first_due(tenant, uid)
    tenant.database.do("DELETE FROM executions WHERE id = %s", lost["id"])
    behind = (lost["nominal_at"] - timedelta(minutes=1)).isoformat()
    assert (await check("--to", behind)).code == 0
    assert (await check("--from", lost["nominal_at"].date().isoformat())).code == 1
    tomorrow = (database_now(tenant.database) + timedelta(days=1)).date().isoformat()
    assert (await check("--from", tomorrow)).code == 0


async def test_the_guide_can_be_followed(tenant: Tenant, check: Check) -> None:
    """Each command of the guide runs as it stands there, and what it shows has the form of what is printed."""
    await planned(tenant, "a")
    guide = blocks((ROOT / "docs/how-to/check-the-ledger.md").read_text(encoding="utf-8"))
    commands_ = [block.text.split()[3:] for block in guide if block.language == "sh"]
    assert len(commands_) == 2
    assert [(await check(*words)).code for words in commands_] == [0, 0]
    (shown,) = [block.text for block in guide if block.language == "text"]
    assert re.sub(r"[\d,]+", "0", shown) == re.sub(r"[\d,]+", "0", (await check()).out)


@pytest.mark.parametrize(
    "words",
    [
        ("--from", "yesterday"),
        ("--from", "2026-07-01T12:00:00"),
        ("--from", "2026-07-02", "--to", "2026-07-01"),
        ("--task", "no/such"),
        ("--format", "xml"),
    ],
)
async def test_a_wrong_call_is_refused(check: Check, words: tuple[str, ...]) -> None:
    """Exit 64 and a reason for times that cannot be read and tasks that are none."""
    ran = await check(*words)
    assert ran.code == 64
    assert ran.err
