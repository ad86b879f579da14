"""The SDK runs on every Python from 3.9 on, without a warning."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import free_port
from support.sdk_cli import cli, environment
from support.sdk_server import WireServer, serving

SMOKE = """
import asyncio, importlib, logging, pkgutil, threading
import cron_observer_sdk as co

for module in pkgutil.iter_modules(co.__path__):
    importlib.import_module("cron_observer_sdk." + module.name)

logging.getLogger().addHandler(co.LogHandler())
logging.getLogger().setLevel("INFO")

@co.task("t/plain")
def plain():
    co.current().log("hello", rows=3)
    logging.info("logged")
    return {"rows": 3}

@co.task("t/async")
async def later():
    await asyncio.sleep(0)
    return "later"

assert plain() == {"rows": 3}
assert asyncio.run(later()) == "later"
try:
    with co.task("t/fails"):
        raise ValueError("no")
except ValueError:
    pass
else:
    raise AssertionError("swallowed")

async def handler(run):
    run.progress(0.5, "half")
    run.checkpoint({"row": 1})
    return str(run.scheduled_for)

worker = co.Worker(grace_seconds=5)
threading.Timer(0.3, worker.stop).start()
worker.run({"t/due": handler})
with co.Client() as client:
    assert client.pending() == []
    client.trigger("t/manual", {"x": 1})
for name in co.__all__:
    getattr(co, name)
print("smoke", co.__version__)
"""


def interpreters() -> list[str]:
    """Return the Pythons of this host, one of each minor version from 3.9 on, by asking them."""
    candidates = [shutil.which(f"python3.{minor}") for minor in range(9, 20)]
    root = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv")))
    candidates += [str(path) for path in sorted(root.glob("versions/3.*/bin/python"))]
    found: dict[str, str] = {}
    for candidate in filter(None, candidates):
        asked = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
        )
        minor = asked.stdout.strip().partition(".")[2]
        if minor.isdigit() and int(minor) >= 9:
            found.setdefault(minor, candidate)
    return [found[minor] for minor in sorted(found, key=int)]


@pytest.fixture
def server() -> Iterator[WireServer]:
    """A server that answers."""
    with serving() as state:
        yield state


@pytest.mark.parametrize("python", interpreters())
def test_work_a_worker_and_a_command_run_clean(server: WireServer, python: str) -> None:
    """Decorator, block, coroutine, worker, client and `run` work with warnings as errors, and say nothing."""
    due = server.add_due("t/due")
    done = subprocess.run(
        [python, "-W", "error", "-X", "dev", "-c", SMOKE],
        env=environment(server), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "smoke 0.1.0\n", "")
    assert (due["status"], due["result"]) == ("FINISHED", "2026-03-29 01:30:00+00:00")
    by_task = {execution["task"]["name"]: execution for execution in server.executions.values()}
    assert by_task["plain"]["result"] == {"rows": 3}
    assert by_task["async"]["result"] == "later"
    assert by_task["fails"]["error"]["type"] == "ValueError"
    assert server.messages(by_task["plain"]["id"]) == ["hello", "logged"]

    ran = cli("run", "t/run", "--", "sh", "-c", "echo out; echo err >&2; exit 3", server=server, python=python)
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, b"out\n", b"err\n")
    away = cli("run", "t/run", "--", "sh", "-c", "exit 4", server=f"http://127.0.0.1:{free_port()}", python=python)
    assert (away.returncode, away.stderr.endswith(b"spooled and will be reported later\n")) == (4, True)
    sent = cli("spool", "flush", "--any-server", server=server, python=python)
    assert (sent.stdout, sent.stderr) == (b"delivered 1, refused 0, left 0\n", b"")
    unknown = cli("no-such-command", python=python)
    assert unknown.returncode == 64
