"""The guides about forges and removals: their settings can be read, their commands and requests do what they say."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cron_observer import settings as module
from cron_observer.cli import commands
from cron_observer.forge import place_of
from cron_observer.settings import SourceSettings
from support.api import served
from support.databases import Tenant
from support.documents import ROOT, blocks
from support.forges import ADDRESSES
from support.hooked import add_source, woken
from support.owned import make_owned
from support.repositories import manifest

GUIDES = ("sync-on-push", "show-commit-statuses", "approve-removals")

#: Where the guide puts the secret.
PLACE = "/etc/cron-observer/hook-secret"


def guide(name: str) -> str:
    """Return a guide."""
    return (ROOT / "docs" / "how-to" / f"{name}.md").read_text(encoding="utf-8")


def of(name: str, language: str) -> list[str]:
    """Return the blocks of a guide in one language."""
    return [block.text for block in blocks(guide(name)) if block.language == language]


TABLES = [(name, text) for name in GUIDES for text in of(name, "toml")]


@pytest.mark.parametrize(("name", "text"), TABLES)
def test_the_settings_of_the_guides_can_be_read(name: str, text: str, tmp_path: Path) -> None:
    """Every block of settings is one that the server takes, with a provider and a place on its forge."""
    file = tmp_path / "cron-observer.toml"
    file.write_text(text)
    (source,) = module.load({}, {}, file).sources
    assert source.provider is not None
    assert place_of(source.provider, source.url, source.forge_url) is not None
    assert source.secret_ref or source.status_ref, name


async def shell(text: str, **environment: str) -> str:
    """Run commands as a reader would; return what they print."""
    names = {**os.environ, **environment}
    ran = await asyncio.to_thread(
        subprocess.run, ["sh", "-eu", "-c", text], env=names, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


async def test_the_delivery_of_the_guide_wakes_its_source(tenant: Tenant, tmp_path: Path) -> None:
    """The secret is made, and the request is signed and sent, by the guide's own commands."""
    secret = tmp_path / "hook-secret"
    make, send = (text.replace(PLACE, str(secret)) for text in of("sync-on-push", "sh"))
    await shell(make)
    assert secret.stat().st_mode & 0o777 == 0o600
    await add_source(tenant, "main", ADDRESSES["github"])
    one = SourceSettings(name="main", url=ADDRESSES["github"], provider="github", secret_ref=(f"file:{secret}",))
    async with served(tenant, sources=(one,)) as it:
        url = str(it.client.base_url)
        assert await shell(send, CRON_OBSERVER_URL=url) == '{"accepted":true}'
        assert woken(tenant) == 1
        refused = await shell(send.replace("sha256=$SIGNATURE", "sha256=0"), CRON_OBSERVER_URL=url)
    assert "unauthenticated" in refused
    assert woken(tenant) == 1


async def test_the_commands_about_removals_do_what_they_say(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Approving by command and by request, suspending, resuming and detaching, as they stand in the guide."""
    make_owned(tenant, tmp_path, manifest("nightly-export"))
    texts = of("approve-removals", "sh")
    (plan_hash,) = {found for text in texts for found in re.findall(r"\b[0-9a-f]{64}\b", text)}
    tenant.database.do("UPDATE sources SET plan_hash = %s", plan_hash)
    ran: list[Any] = []
    async with served(tenant) as it:
        token = (await it.key("admin"))["Authorization"].split()[1]
        for name in [name for name in os.environ if name.startswith("CRON_OBSERVER_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("CRON_OBSERVER_URL", str(it.client.base_url))
        monkeypatch.setenv("CRON_OBSERVER_TOKEN", token)
        for text in texts:
            if text.startswith("curl"):
                ran.append(await shell(text))
                continue
            for line in text.splitlines():
                _, command, *words = shlex.split(line)
                assert await asyncio.to_thread(commands()[command], words) == 0, (line, capsys.readouterr().err)
                ran.append(line)
    assert len(ran) == 5
    assert plan_hash in ran[1]
    actions = "SELECT action FROM audit_log ORDER BY at"
    assert [row["action"] for row in tenant.database.rows(actions)] == [
        *("source.approve", "source.suspend", "source.resume", "task.detach"),
    ]
