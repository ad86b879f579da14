"""The receiver of the guide works as it stands there."""

from __future__ import annotations

import base64
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cron_observer import manifest
from cron_observer.settings import load
from support.databases import FreshDatabase, Tenant
from support.documents import ROOT, blocks
from support.processes import clean_environment, free_port
from support.receivers import dispatching, due, ended, row, until

GUIDE = (ROOT / "docs/how-to/run-by-webhook.md").read_text(encoding="utf-8")
SECRET, NEXT = (f"whsec_{base64.b64encode(bytes([number]) * 32).decode()}" for number in (7, 8))


def block(language: str) -> str:
    """Return the first block of a language."""
    return next(one.text for one in blocks(GUIDE) if one.language == language)


def answers(port: int) -> bool:
    """Tell whether something listens."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


async def test_the_receiver_of_the_guide_takes_what_is_signed(
    database: FreshDatabase, tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does what a dispatcher sends, also while the secret is changed, and refuses what anybody else does."""
    (tmp_path / "receiver.py").write_text(block("python"))
    port = free_port()
    monkeypatch.setenv("CRON_OBSERVER_SECRET_JOBS_SIGNING", f"{NEXT} {SECRET}")
    command = [sys.executable, tmp_path / "receiver.py", str(port)]
    environment = clean_environment(WEBHOOK_SECRET=SECRET)
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        await until(lambda: answers(port))
        url = f"http://127.0.0.1:{port}/export"
        identity = due(tenant, url, http={"signing": {"secretRef": "jobs-signing"}})
        async with dispatching(database):
            done = await until(lambda: ended(database, identity))
        unsigned = due(tenant, url, "unsigned")
        async with dispatching(database):
            await until(lambda: ended(database, unsigned))
    finally:
        process.kill()
        process.wait()
    assert (done["status"], done["result"]["rows"]) == ("FINISHED", 3)
    assert row(database, unsigned)["error"]["type"] == "http_401"


def test_the_manifest_and_the_settings_of_the_guide_are_valid(tmp_path: Path) -> None:
    """The task has no finding, and the settings are read."""
    assert manifest.parse("a.yaml", block("yaml").encode()).findings == ()
    (tmp_path / "settings.toml").write_text(block("toml"))
    assert load({}, {}, tmp_path / "settings.toml").webhook_networks == ("10.20.0.0/16",)


def test_a_secret_is_made_as_the_guide_says() -> None:
    """The command prints what a dispatcher signs with."""
    from cron_observer.dispatch.signature import keys_of

    made = subprocess.run(["sh", "-c", block("sh")], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/=]{44}\n", made)
    assert len(keys_of(made, "x")[0]) == 32
