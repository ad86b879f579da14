"""Runs the console script `cron-observer` as a process, with warnings as errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.sdk_server import TOKEN, WireServer

SDK = Path(__file__).parents[2] / "sdk"


def environment(server: WireServer | str | None, **more: str) -> dict[str, str]:
    """Return an environment that reports to the server, or to none."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CRON_OBSERVER_")}
    env["PYTHONPATH"] = str(SDK)
    if server is not None:
        env["CRON_OBSERVER_URL"] = server if isinstance(server, str) else server.url
        env["CRON_OBSERVER_TOKEN"] = TOKEN
    return env | more


def arguments(*words: str, python: str = sys.executable) -> list[str]:
    """Return the command line of the console script."""
    return [python, "-W", "error", "-X", "dev", "-m", "cron_observer_sdk", *words]


def cli(
    *words: str, server: WireServer | str | None = None, python: str = sys.executable, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the console script to its end."""
    more = options.pop("env", {})
    options = {"capture_output": True, "timeout": 60, **options}
    return subprocess.run(arguments(*words, python=python), env=environment(server, **more), **options)


def start(*words: str, server: WireServer | str | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """Start the console script; the test ends it."""
    more = options.pop("env", {})
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(arguments(*words), env=environment(server, **more), **options)
