"""Commands of the documents, run as they stand there in something like a clone, and the outputs that they show."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from support.documents import ROOT, Block
from support.processes import clean_environment, free_port, until

#: Seconds for the commands of one section on a busy machine.
PATIENCE = 200.0

_STAMP = """
root=$PWD; environment=$root/.venv
printf '%s\\n' "$environment $(cat "$root/requirements/runtime.txt" "$root/requirements/bootstrap.txt" \\
    "$root/pyproject.toml" "$root/sdk/pyproject.toml" | cksum)" >"$environment/cron-observer.stamp"
"""


def make_checkout(folder: Path) -> Path:
    """Make a clone in which ./start has prepared its environment before: the one that the tests run in."""
    folder.mkdir()
    for entry in ROOT.iterdir():
        if not entry.name.startswith("."):
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
    # Where two tests start at once, both would find the same port free: each looks from a port of its own on.
    more = {
        "CRON_OBSERVER_PORT": str(free_port()),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "PIP_NO_INDEX": "1",
        "UV_OFFLINE": "1",
    }
    return clean_environment(**identity, **more)


@contextmanager
def terminal(checkout: Path, commands: str) -> Iterator[str]:
    """Run commands that end in ./start; give what it printed until it says Ready, and press Ctrl-C after."""
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
        yield log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        code = process.wait(60)
    assert code == 0, log.read_text()
    assert "The data is kept in" in log.read_text()


def run_blocks(checkout: Path, shown: Sequence[Block]) -> None:
    """Run blocks of commands one after the other in one shell, and compare what they print with what is shown."""
    commands = [block for block in shown if block.language == "sh"]
    script = checkout.parent / "commands.sh"
    script.write_text("\n".join(f"{block.text}\nprintf '\\n@@@{block.line}@@@\\n'" for block in commands))
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
    compare(shown, done.stdout)


def compare(shown: Sequence[Block], printed: str) -> None:
    """Assert that the outputs shown below commands are what the commands printed."""
    outputs = dict(zip(re.findall(r"@@@(\d+)@@@", printed), re.split(r"\n@@@\d+@@@\n", printed), strict=False))
    expected = 0
    for before, after in pairwise(shown):
        if after.language == "text":
            output = outputs[str(before.line)].strip("\n")
            assert re.fullmatch(_pattern(after.text), output), f"shown:\n{after.text}\nprinted:\n{output}"
            expected += 1
    assert expected == sum(block.language == "text" for block in shown)


def _pattern(shown: str) -> str:
    """Return what an output block means: `…` stands for anything on its line."""
    lines = [".*".join(map(re.escape, line.rstrip().split("…"))) for line in shown.strip("\n").split("\n")]
    return r"\s*\n".join(lines) + r"\s*"
