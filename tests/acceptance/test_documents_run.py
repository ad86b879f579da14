"""The tutorial and the how-to guides whose commands can be run as they stand there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from support.checkouts import PATIENCE, environment, make_checkout, run_blocks, terminal
from support.documents import ROOT, Block, blocks, section
from support.processes import until


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone whose environment is prepared."""
    return make_checkout(tmp_path / "cron-observer")


def page(path: str) -> str:
    """Return a document."""
    return (ROOT / "docs" / path).read_text(encoding="utf-8")


@pytest.mark.timeout(PATIENCE + 100)
def test_the_tutorial_about_outcomes(checkout: Path) -> None:
    """What the tutorial shows of missed, failed and overlong runs is what happens."""
    first, *rest = blocks(page("tutorial/outcomes.md"))
    assert "./start" in first.text
    with terminal(checkout, first.text):
        run_blocks(checkout, rest)


def executions(checkout: Path) -> list[str]:
    """Return the ids of what has ended, oldest first."""
    command = [".venv/bin/cron-observer", "executions", "list", "--format", "json", "--status", "FINISHED,FAILED"]
    done = subprocess.run(command, cwd=checkout, env=environment(), capture_output=True, text=True, check=True)
    return sorted(item["id"] for item in json.loads(done.stdout))


@pytest.mark.timeout(PATIENCE + 100)
def test_a_backup_can_be_restored(checkout: Path) -> None:
    """What was backed up by the guide's commands is there after its commands have restored it into a new folder."""
    guide = page("how-to/back-up-and-restore.md")
    made = [block for block in blocks(section(guide, "Back up")) if block.language in {"sh", "text"}]
    start, *restore = blocks(section(guide, "Restore into the embedded PostgreSQL"))
    with terminal(checkout, "./start"):
        until(lambda: len(executions(checkout)) > 1, "executions of the demo")
        before = executions(checkout)
        run_blocks(checkout, made)
    shutil.rmtree(checkout / ".cron-observer")
    assert start == Block("sh", "./start --no-demo\n", start.line)
    with terminal(checkout, start.text):
        assert executions(checkout) == []
        run_blocks(checkout, restore)
    with terminal(checkout, start.text):
        assert set(before) <= set(executions(checkout))


@pytest.mark.timeout(PATIENCE + 100)
def test_manifests_are_checked_before_they_are_merged(checkout: Path) -> None:
    """What the guide about CI shows of a change is what the commands print, and every form can be written."""
    run_blocks(checkout, blocks(section(page("how-to/check-in-ci.md"), "Try it")))
