"""The guides about the SDK: their commands print what is shown, their Python runs, their options are all there."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from cron_observer_sdk import options, ping, spool_command
from support.checkouts import make_checkout, run_blocks
from support.documents import ROOT, Block, blocks, section
from support.sdk_pings import pinged
from support.sdk_server import TOKEN, serving

HOW_TO = ROOT / "docs" / "how-to"
CLI = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone whose environment is prepared."""
    return make_checkout(tmp_path / "cron-observer")


def commands(page: str, url: str) -> list[Block]:
    """Return the commands and outputs of a page, with a server that there is."""
    found = [block for block in blocks((HOW_TO / page).read_text(encoding="utf-8")) if block.language in {"sh", "text"}]
    begin = Block("sh", 'export PATH="$PWD/.venv/bin:$PATH"\n', 0)
    filled = (block.text.replace("https://cron.example", url).replace("co_…", TOKEN) for block in found)
    return [begin, *(Block(block.language, text, block.line) for block, text in zip(found, filled, strict=True))]


def test_a_cron_job_is_wrapped(checkout: Path) -> None:
    """What the guide shows of `run` and `ping` is what they print; what it says of the log is so."""
    page = commands("wrap-a-cron-job.md", "@")
    first = next(number for number, block in enumerate(page) if "--ping" in block.text)
    with serving() as server:
        run_blocks(checkout, [Block(one.language, one.text.replace("@", server.url), one.line) for one in page[:first]])
        told = [execution["status"] for execution in server.executions.values()]
        assert told == ["FAILED", "FINISHED", "FINISHED", "FINISHED", "FINISHED"]
        assert ["login ***"] in [[line["message"] for line in lines] for lines in server.logs.values()]
        assert list(server.executions.values())[-1]["result"] == {"rows": 12}
    with pinged() as pings:
        setting = Block("sh", f"export CRON_OBSERVER_URL={pings.url}\n", 1)
        run_blocks(checkout, [page[0], setting, *page[first:]])
        assert [one.path.partition("?")[0].rpartition("/")[2] for one in pings.got] == ["start", "0", "start", "0"]
        assert {one.body for one in pings.got} == {b"", b"copied 12 files\n"}


def test_an_outage_is_survived(checkout: Path) -> None:
    """The guide's run without a server is reported by its flush."""
    with serving() as server:
        run_blocks(checkout, commands("survive-an-outage.md", server.url))
        assert server.only()["exit_code"] == 3
        assert server.messages()[0] == "copied 12 files"


def test_code_is_tested_as_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's tests pass, also without settings."""
    monkeypatch.delenv("CRON_OBSERVER_URL", raising=False)
    python = [block.text for block in blocks((HOW_TO / "test-code-that-uses-the-sdk.md").read_text(encoding="utf-8"))]
    shown: dict[str, Any] = {}
    exec("\n".join(python).replace("@pytest.fixture\n", ""), shown)  # noqa: S102  the fixture is called as it stands
    tests = [function for name, function in shown.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        if "events" in inspect.signature(test).parameters:
            for events in shown["events"]():
                test(events)
        else:
            test()


def _options(parser: argparse.ArgumentParser) -> set[str]:
    """Return the long options of a parser and of those below it."""
    found: set[str] = set()
    for action in parser._actions:
        found.update(word for word in action.option_strings if word.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found |= _options(below)
    return found - {"--help"}


@pytest.mark.parametrize(
    ("page", "heading", "parser"),
    [
        ("sdk.md", "`cron-observer run`", options.parser()),
        ("cli.md", "ping", ping.parser()),
        ("cli.md", "spool", spool_command.parser()),
    ],
)
def test_every_option_is_documented(page: str, heading: str, parser: argparse.ArgumentParser) -> None:
    """The reference names each option, and none that there is not."""
    text = section((ROOT / "docs" / "reference" / page).read_text(encoding="utf-8"), heading)
    assert set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text)) == _options(parser)


def test_every_public_name_is_documented() -> None:
    """The reference of the SDK names what can be imported from it."""
    import cron_observer_sdk as co

    text = (ROOT / "docs" / "reference" / "sdk.md").read_text(encoding="utf-8")
    assert {name for name in co.__all__ if not re.search(rf"`[^`]*\b{name}\b[^`]*`", text)} == set()
