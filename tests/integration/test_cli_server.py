"""The commands that ask a server, and those that make keys: run as the shell would run them."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cron_observer.cli import USAGE, commands
from support.api import Api, served
from support.databases import Tenant
from support.rows import make_task


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, read."""
        return json.loads(self.out)


@dataclass
class Shell:
    """Runs commands in this process, with the environment of a shell."""

    capsys: pytest.CaptureFixture[str]

    async def __call__(self, *words: str) -> Ran:
        """Run ``cron-observer`` with these words."""
        self.capsys.readouterr()
        code = await asyncio.to_thread(commands()[words[0]], list(words[1:]))
        out, err = self.capsys.readouterr()
        return Ran(code, out, err)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in an empty folder without settings."""
    for name in [name for name in os.environ if name.startswith("CRON_OBSERVER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


def write_note(folder: Path, it: Api, token: str) -> None:
    """Leave the note that `up` leaves."""
    folder.mkdir(exist_ok=True)
    (folder / "dev.env").write_text(f"CRON_OBSERVER_URL={it.client.base_url}\nCRON_OBSERVER_TOKEN={token}\n")


async def admin(it: Api) -> str:
    """Return a key that may do everything."""
    return (await it.key("admin"))["Authorization"].split()[1]


async def test_a_task_is_triggered_watched_and_cancelled(
    tenant: Tenant, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tasks and executions do from the shell what the API does, as tables and as JSON."""
    make_task(tenant)
    async with served(tenant) as it:
        monkeypatch.setenv("CRON_OBSERVER_URL", str(it.client.base_url))
        monkeypatch.setenv("CRON_OBSERVER_TOKEN", await admin(it))
        listed = await shell("tasks", "list")
        assert listed.out.split()[:6] == ["NAME", "STATUS", "SCHEDULE", "NEXT", "LAST", "DEFINED"]
        assert "export" in listed.out
        assert (await shell("tasks", "list", "--format", "json", "--status", "DISABLED")).json == []
        assert (await shell("tasks", "get", "default/export", "--format", "json")).json["name"] == "export"
        assert "every hour" in (await shell("tasks", "get", "export")).out.lower()
        made = (await shell("tasks", "trigger", "export", "--payload", "[1]")).out.strip()
        assert (await shell("executions", "list", "--status", "PENDING", "--format", "json")).json[0]["id"] == made
        assert (await shell("executions", "get", made, "--format", "json")).json["payload"] == [1]

        claim = await it.call("POST", "/sdk/claims", "report", json={"worker": "w"})
        fence = claim.json()["executions"][0]["fence"]
        entries = [{"level": "INFO", "message": f"line {number}\x1b[2J"} for number in range(3)]
        lines = {"fence": fence, "first_seq": 0, "entries": entries}
        await it.call("POST", f"/sdk/executions/{made}/logs", "report", json=lines)
        following = asyncio.ensure_future(shell("executions", "logs", made, "--follow", "--format", "json"))
        await it.call(
            "POST", f"/sdk/executions/{made}/complete", "report", json={"fence": fence, "outcome": "finished"}
        )
        followed = [json.loads(line)["message"] for line in (await following).out.splitlines()]
        assert [one[:6] for one in followed] == ["line 0", "line 1", "line 2"]
        assert "INFO   line 2" in (await shell("executions", "logs", made)).out

        again = (await shell("tasks", "trigger", "export", "--force", "--format", "json")).json["id"]
        assert (await shell("executions", "cancel", again, "--reason", "no")).out.strip() == "CANCELLED"
        late = await shell("executions", "cancel", again)
    assert late.code == 1
    assert "already_final" in late.err


async def test_sources_are_listed_and_synced(tenant: Tenant, shell: Shell, tmp_path: Path) -> None:
    """sources sync asks for a pass, and --wait returns when it is handled; the note of `up` says where."""
    from support.rows import database_now

    now = database_now(tenant.database)
    row = {"tenant_id": tenant.tenant_id, "source_id": tenant.project_id, "project_id": tenant.project_id}
    row |= {"name": "main", "kind": "git", "url": "https://u:p@x.example/r", "poll_seconds": 1}
    tenant.database.insert("sources", [row | {"next_poll_at": now, "created_at": now}])
    async with served(tenant) as it:
        write_note(tmp_path / ".cron-observer", it, await admin(it))
        write_note(tmp_path / "elsewhere", it, await admin(it))
        listed = await shell("sources", "list", "--format", "json")
        asked = await shell("sources", "sync", "main", "--format", "json", "--data-dir", str(tmp_path / "elsewhere"))
        waiting = asyncio.ensure_future(shell("sources", "sync", "main", "--wait", "--format", "json"))
        async with asyncio.timeout(60):
            while tenant.database.value("SELECT requested_seq FROM sources") < 2:  # noqa: ASYNC110  nothing tells
                await asyncio.sleep(0.02)
        assert not waiting.done()
        tenant.database.do("UPDATE sources SET handled_seq = requested_seq")
        waited = await waiting
    assert listed.json[0]["url"] == "https://x.example/r"
    assert asked.json == {"requested_seq": 1}
    assert waited.json["handled_seq"] == 2


async def test_the_first_key_is_made_in_the_database(
    tenant: Tenant, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """token create, list and revoke need no server and no key; what they make and revoke, the server knows."""
    monkeypatch.setenv("CRON_OBSERVER_DATABASE_URL", tenant.database.url)
    made = await shell("token", "create", "--name", "ci", "--scope", "read", "--scope", "trigger")
    token = made.out.strip()
    other = await shell("token", "create", "--name", "x", "--scope", "admin", "--format", "json")
    listed = await shell("token", "list", "--format", "json")
    async with served(tenant) as it:
        works = await it.client.get("/api/v1/projects", headers={"X-API-Key": token})
        assert works.status_code == 200
    revoked = await shell("token", "revoke", token.split("_")[1])
    missing = await shell("token", "revoke", "zzzzzzzz")
    async with served(tenant) as it:
        refused = await it.client.get("/api/v1/projects", headers={"X-API-Key": token})
    assert refused.status_code == 401
    assert {key["name"]: key["scopes"] for key in listed.json} == {"ci": ["read", "trigger"], "x": ["admin"]}
    assert token not in listed.out
    assert other.json["key"].startswith("co_")
    assert (revoked.code, missing.code) == (0, 1)
    assert "token list" in missing.err
    assert tenant.database.value("SELECT count(*) FROM audit_log WHERE actor = 'command line'") == 3


async def test_mistakes_are_told_with_a_mend(tenant: Tenant, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong use ends with 64; a server that is away, a wrong key and a missing task with 1 and a hint."""
    for words in (
        ("tasks", "nothing"),
        ("tasks", "trigger", "export", "--payload", "{"),
        ("executions", "list", "--limit", "0"),
        ("token", "create", "--name", "x"),
        ("token", "create", "--name", "x", "--scope", "root"),
    ):
        assert (await shell(*words)).code == USAGE, words
    monkeypatch.setenv("CRON_OBSERVER_URL", "http://127.0.0.1:1")
    away = await shell("tasks", "list")
    assert (away.code, away.out) == (1, "")
    assert "does not answer" in away.err
    assert "hint: " in away.err
    monkeypatch.setenv("CRON_OBSERVER_URL", "file:///etc/passwd")
    assert (await shell("tasks", "list")).code == 1
    async with served(tenant) as it:
        monkeypatch.setenv("CRON_OBSERVER_URL", str(it.client.base_url))
        missing = await shell("tasks", "get", "none")
        nokey = await shell("tasks", "trigger", "none")
        monkeypatch.setenv("CRON_OBSERVER_TOKEN", "co_abcdefgh_" + "a" * 43)
        wrong = await shell("tasks", "list")
    assert "(not_found)" in missing.err
    assert "(unauthenticated)" in nokey.err
    assert "(unauthenticated)" in wrong.err
    assert "aaaa" not in wrong.err


def test_what_a_terminal_would_obey_is_made_visible() -> None:
    """Escape sequences, carriage returns and line separators of a log do nothing to the terminal."""
    from cron_observer.cli._http import printable

    assert printable("a\x1b]8;;http://x\x07b\r\u2028\x9b") == r"a\x1b]8;;http://x\x07b\x0d\x2028\x9b"
    assert printable("tab\tline\n") == "tab\tline\n"
