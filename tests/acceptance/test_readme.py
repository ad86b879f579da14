"""Every command of the README, run as it stands there, and every output that it shows."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest

from support.checkouts import PATIENCE, compare, make_checkout, run_blocks, terminal
from support.documents import ROOT, Block, blocks, section

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone whose environment is prepared."""
    return make_checkout(tmp_path / "cron-observer")


def test_quickstart(checkout: Path) -> None:
    """The quickstart's one command leads to a served page with the demo's tasks and its deliberate error."""
    (command,) = [block.text for block in blocks(section(README, "Quickstart")) if block.language == "sh"]
    with terminal(checkout, command) as printed:
        said = re.search(r"Web +(http://\S+)", printed)
        assert said is not None

        def page(path: str) -> str:
            with urllib.request.urlopen(f"{said[1]}{path}", timeout=60) as answer:
                text: str = answer.read().decode()
                return text

        assert "invoice-export" in page("/tasks")
        assert "birthday-greetings.yaml" in page("/sync/main")
    assert (checkout / ".cron-observer").is_dir()


@pytest.mark.timeout(PATIENCE + 100)
def test_five_minutes(checkout: Path) -> None:
    """Each command of the tutorial works where the one before it has left off, and shows what the README shows."""
    first, *rest = blocks(section(README, "Five minutes"))
    assert "./start" in first.text
    with terminal(checkout, first.text):
        run_blocks(checkout, rest)


def test_an_output_that_differs_is_caught() -> None:
    """The comparison is not content with anything: another line, or one line more, fails."""
    shown = [Block("sh", "echo a", 1), Block("text", "a…c\n", 3)]
    compare(shown, "abc\n@@@1@@@\n")
    for printed in ("abd\n@@@1@@@\n", "abc\nabc\n@@@1@@@\n", "\n@@@1@@@\n"):
        with pytest.raises(AssertionError):
            compare(shown, printed)


def test_a_command_that_fails_is_caught(checkout: Path) -> None:
    """A tutorial with a command that fails fails."""
    with pytest.raises(AssertionError):
        run_blocks(checkout, [Block("sh", "echo before\nfalse\n", 1)])
