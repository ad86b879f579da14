"""Every command of the README, run as it stands there, and every output that it shows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from support.documents import ROOT, Block, blocks, section
from support.processes import clean_environment, until

README = (ROOT / "README.md").read_text(encoding="utf-8")

#: Seconds for a whole section on a busy machine; somebody who reads along needs five minutes.
PATIENCE = 200.0

_STAMP = """
root=$PWD; environment=$root/.venv
printf '%s\\n' "$environment $(cat "$root/requirements/runtime.txt" "$root/requirements/bootstrap.txt" \\
    "$root/pyproject.toml" "$root/sdk/pyproject.toml" | cksum)" >"$environment/cron-observer.stamp"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone in which ./start has prepared its environment before: the one that these tests run in."""
    folder = tmp_path / "cron-observer"
    folder.mkdir()
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".") or entry.name == ".github":
            (folder / entry.name).symlink_to(entry)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, arguments in (("python", ""), ("cron-observer", "-m cron_observer_sdk ")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        program.chmod(0o755)
    subprocess.run(["bash", "-euc", _STAMP], cwd=folder, check=True)
    return folder


def environment() -> dict[str, str]:
    """Return what a newcomer's shell has. No package may be installed on the way: everything is there."""
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Ada Example"), ("EMAIL", "ada@example.com"))
    }
    more = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}
    return clean_environment(**identity, **more)


@contextmanager
def terminal(checkout: Path, commands: str) -> Iterator[Path]:
    """Run commands that end in ./start; give the file of their output when it says Ready, and press Ctrl-C after."""
    log = checkout.parent / "terminal.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-euc", commands],
            cwd=checkout,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return "Ready in" in log.read_text()

        until(ready, "Ready")
        yield log
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        code = process.wait(60)
    assert code == 0, log.read_text()
    assert "The data is kept in" in log.read_text()


def as_pattern(shown: str) -> str:
    """Return what an output block means: `…` stands for anything on its line."""
    lines = [".*".join(map(re.escape, line.rstrip().split("…"))) for line in shown.strip("\n").split("\n")]
    return r"\s*\n".join(lines) + r"\s*"


def test_quickstart(checkout: Path) -> None:
    """The quickstart's one command leads to a served page with the demo's tasks and its deliberate error."""
    (command,) = [block.text for block in blocks(section(README, "Quickstart")) if block.language == "sh"]
    with terminal(checkout, command) as log:
        said = re.search(r"Web +(http://\S+)", log.read_text())
        assert said is not None

        def page(path: str) -> str:
            with urllib.request.urlopen(f"{said[1]}{path}", timeout=10) as answer:
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
    commands = [block for block in rest if block.language == "sh"]
    script = checkout.parent / "commands.sh"
    script.write_text("\n".join(f"{block.text}\nprintf '\\n@@@{block.line}@@@\\n'" for block in commands))
    with terminal(checkout, first.text):
        done = subprocess.run(
            ["bash", "-eu", str(script)],
            cwd=checkout,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    assert done.returncode == 0, done.stdout
    compare(rest, done.stdout)


def compare(shown: list[Block], printed: str) -> None:
    """Assert that the outputs shown below commands are what the commands printed."""
    outputs = dict(zip(re.findall(r"@@@(\d+)@@@", printed), re.split(r"\n@@@\d+@@@\n", printed), strict=False))
    expected = 0
    for before, after in pairwise(shown):
        if after.language == "text":
            output = outputs[str(before.line)].strip("\n")
            assert re.fullmatch(as_pattern(after.text), output), f"shown:\n{after.text}\nprinted:\n{output}"
            expected += 1
    assert expected == sum(block.language == "text" for block in shown)


def test_an_output_that_differs_is_caught() -> None:
    """The comparison is not content with anything: another line, or one line more, fails."""
    shown = [Block("sh", "echo a", 1), Block("text", "a…c\n", 3)]
    compare(shown, "abc\n@@@1@@@\n")
    for printed in ("abd\n@@@1@@@\n", "abc\nabc\n@@@1@@@\n", "\n@@@1@@@\n"):
        with pytest.raises(AssertionError):
            compare(shown, printed)
