"""The product as its users run it: real processes, a real repository, plain HTTP."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Seconds within which anything that a test waits for must have come about.
PATIENCE = 60.0

#: Ports that are named before somebody listens on them; they lie below those that are given out by themselves.
PORTS = range(20_000, 32_000)

COMMAND = [sys.executable, "-m", "cron_observer_sdk"]


def until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Return the first true value of `condition`, or fail saying that `what` never happened."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a port that is free now, and that the kernel gives to nobody who asks it for any."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def clean_environment(**more: str) -> dict[str, str]:
    """Return this environment without settings of the product, with `more`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CRON_OBSERVER_")} | more


@dataclass
class Reply:
    """An answer, whatever its status."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Product:
    """A running ``cron-observer up``."""

    url: str
    data_dir: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def token(self) -> str:
        """The key of this machine."""
        lines = (self.data_dir / "dev.env").read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("CRON_OBSERVER_TOKEN="))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a worker."""
        return clean_environment(CRON_OBSERVER_URL=self.url, CRON_OBSERVER_TOKEN=self.token)

    def ask(self, method: str, path: str, body: Any = None, *, token: str | None = "", **headers: str) -> Reply:
        """Send one request under ``/api/v1`` (or a path of its own) and return the answer as JSON, or as text."""
        url = f"{self.url}{path}" if path.startswith("/") else f"{self.url}/api/v1/{path}"
        request = urllib.request.Request(url, method=method, headers=headers)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token or self.token}")
        if body is not None:
            request.data = body if isinstance(body, bytes) else json.dumps(body).encode()
            if not request.has_header("Content-type"):
                request.add_header("Content-Type", "application/json")
        try:
            answer = urllib.request.urlopen(request, timeout=40)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            raw = answer.read()
            kind = answer.headers.get_content_type()
            parsed = json.loads(raw) if kind.endswith("json") and raw else raw.decode("utf-8", "replace")
            return Reply(answer.status, parsed, dict(answer.headers))

    def get(self, path: str) -> Any:
        """Return the JSON of a reading call that must succeed."""
        reply = self.ask("GET", path)
        assert reply.status == 200, reply
        return reply.body

    def task(self, name: str) -> dict[str, Any] | None:
        """Return a task of the default project, or None."""
        reply = self.ask("GET", f"projects/default/tasks/{name}")
        return reply.body if reply.status == 200 else None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def running(data_dir: Path, *arguments: str, **environment: str) -> Iterator[Product]:
    """Run ``cron-observer up`` until the block ends; wait until it is ready."""
    port = free_port()
    log = data_dir.parent / f"{data_dir.name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*COMMAND, "up", "--data-dir", str(data_dir), "--port", str(port), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=data_dir.parent,
            env=clean_environment(**environment),
        )
    product = Product(f"http://127.0.0.1:{port}", data_dir, process, log)
    try:
        until(lambda: _ready(product), "ready")
        yield product
    finally:
        product.stop()


def _ready(product: Product) -> bool:
    assert product.process.poll() is None, product.log.read_text()
    try:
        with urllib.request.urlopen(f"{product.url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


class Repository:
    """A bare repository and a clone to work in, as a team would have them."""

    def __init__(self, folder: Path) -> None:
        self.bare, self.work = folder / "crons.git", folder / "crons"
        self._run("git", "init", "--quiet", "--bare", "--initial-branch=main", str(self.bare), cwd=folder)
        self._run("git", "clone", "--quiet", str(self.bare), str(self.work), cwd=folder)
        self.git("checkout", "--quiet", "-B", "main")

    def git(self, *arguments: str) -> str:
        """Run git in the clone and return what it printed."""
        return self._run("git", *arguments, cwd=self.work)

    def push(self, subject: str, files: dict[str, str | None]) -> str:
        """Write (or remove: None) files, commit, push; return the commit."""
        for path, text in files.items():
            target = self.work / path
            if text is None:
                target.unlink()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", subject)
        self.git("push", "--quiet", "origin", "main")
        return self.git("rev-parse", "HEAD").strip()

    @staticmethod
    def _run(*command: str, cwd: Path) -> str:
        identity = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "Ada Example"), ("EMAIL", "ada@example.com"))
        }
        settled = clean_environment(GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL=os.devnull, **identity)
        return subprocess.run(command, cwd=cwd, env=settled, check=True, capture_output=True, text=True).stdout


def manifest(name: str, schedule: str = "every: 1h", more: str = "") -> str:
    """Return a small manifest; `more` are further lines of its spec, indented by two."""
    return (
        f"apiVersion: cron-observer/v1\nkind: Task\nmetadata:\n  name: {name}\nspec:\n"
        f"  schedule:\n    {schedule}\n{more}"
    )
