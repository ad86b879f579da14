"""The documentation of schedules against the code."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from cron_observer import schedule
from cron_observer.cli import batch
from cron_observer.cli import explain as command
from cron_observer.schedule.grammar import MACROS

PAGE = (Path(__file__).parents[2] / "docs/reference/schedule.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_code_is_documented() -> None:
    """The page lists each code with its meaning, and no other."""
    assert dict(re.findall(r"^\| `(CO\d{4})` \| (.*) \|$", PAGE, re.MULTILINE)) == schedule.CODES


def test_every_macro_is_documented() -> None:
    """The page names each macro and what it stands for."""
    for macro, meaning in MACROS.items():
        assert f"`{macro}`" in PAGE
        assert f"`{meaning}`" in PAGE


def test_the_console_example_is_true() -> None:
    """The command of the page prints what the page shows."""
    for block in blocks("console"):
        line, _, shown = block.partition("\n")
        arguments = shlex.split(line.removeprefix("$ cron-observer explain "))
        assert CliRunner(env={"TZ": "UTC"}).invoke(command.explain, arguments).output == shown


def test_the_batch_example_is_true() -> None:
    """The request of the page gets the answer of the page."""
    request, answer = blocks("json")
    assert batch.answer(request.encode()) == json.loads(answer)
