"""Everything on one machine, in one process tree: what `./start` runs.

The parent holds PostgreSQL, the API, the loops and the demo worker as children. Each dies with it, however it ends,
and each is started again when it dies alone.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cron_observer.errors import DatabaseError, SettingsError
from cron_observer.postgres import SUPERUSER, Server, die_with_parent, launch
from cron_observer.settings import Settings, SourceSettings
from cron_observer.store import bootstrap
from cron_observer.store.migrate import migrate

_DEMO_WORKER: Final = "demo worker"

#: The database inside the embedded server.
DATABASE: Final = "cron_observer"

#: Ports tried after the wanted one.
PORTS: Final = 50

#: Seconds that the roles get to answer after their start, and to end after being asked to.
READY_PATIENCE: Final = 90.0
STOP_PATIENCE: Final = 15.0

#: Seconds before a child that has died is started again; doubled each time, to this much.
RESTART_MAX: Final = 30.0

#: Seconds between looks whether the server still runs.
LOOK: Final = 1.0

#: A child that lived this long has recovered: its next death is its first.
STEADY: Final = 60.0


@dataclass(slots=True)
class Child:
    """A process of the tree. Its session is its own, so that Ctrl-C reaches the parent alone."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    fds: tuple[int, ...] = ()  #: what it inherits beside the standard streams
    started: float = 0.0
    deaths: int = 0
    start_at: float = 0.0

    def start(self) -> None:
        """Start it. It ends when this process does."""
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            self.argv,
            env=dict(self.env),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self.fds,
            preexec_fn=die_with_parent(),  # noqa: PLW1509  async-signal-safe: one prctl and one getppid
        )

    def watch(self, now: float) -> str | None:
        """Start it again if it has died; return what to tell the user, if anything."""
        if self.process is not None and self.process.poll() is None:
            return None
        if self.process is None:
            if now >= self.start_at:
                self.start()
            return None
        self.deaths = 1 if now - self.started > STEADY else self.deaths + 1
        wait = min(RESTART_MAX, 0.5 * 2 ** (self.deaths - 1))
        code, self.process, self.start_at = self.process.returncode, None, now + wait
        return f"{self.name} ended with {code}; starting it again in {wait:g} s"

    def stop(self) -> None:
        """Ask it to end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait for its end, by force after `deadline`."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(slots=True)
class Tree:
    """The children, and the server that they use."""

    children: list[Child] = field(default_factory=list)
    server: Server | None = None
    relaunch: Callable[[], Server] | None = None  #: makes the server run again when it, or who held it, has ended


def listen(host: str, wanted: int) -> socket.socket:
    """Return a socket that listens on `wanted`, or on the next port that is free; it is ours from here on.

    The API inherits it, so that nobody else can take the port meanwhile, and that clients who come while the API
    is started again wait instead of being refused. Raises `SettingsError` if no port is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(wanted, min(wanted + PORTS, 65_535) + 1):
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host.strip("[]"), port))
            made.listen(1024)
        except OSError as error:
            made.close()
            if error.errno != errno.EADDRINUSE:
                raise SettingsError(
                    f"cannot listen on {host}:{port}: {error.strerror}", hint="choose --host and --port"
                ) from error
            continue
        return made
    raise SettingsError(f"no port from {wanted} to {wanted + PORTS} is free", hint="choose another with --port")


def say(mark: str, what: str, detail: str = "") -> None:
    """Print one line of the start-up report."""
    print(f"  {mark} {what:<24} {detail}".rstrip(), flush=True)  # noqa: T201  the command's own output


def prepare(admin_url: str, settings: Settings, token_file: Path) -> bool:
    """Make the first tenant, its projects and a key for this machine; return whether the key is new.

    The key in `token_file` is kept while it is valid; the file has mode 0600.
    """
    token, made = bootstrap.settle_in(
        admin_url,
        settings.database_of("api") or admin_url,
        tenant=settings.tenant,
        projects=dict.fromkeys([settings.project, *(source.project for source in settings.sources)]),
        token=_read_token(token_file),
    )
    _write_private(token_file, f"CRON_OBSERVER_URL={url_of(settings)}\nCRON_OBSERVER_TOKEN={token}\n")
    return made


def _read_token(path: Path) -> str | None:
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("=")
            if name == "CRON_OBSERVER_TOKEN":
                return value
    return None


def _write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner can read."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def database(settings: Settings, tree: Tree, stack: ExitStack) -> str:
    """Return the administrator's URL of a database at the newest schema, launching our own server if none is set."""
    url = settings.database_url
    if url is None:

        def run() -> Server:
            return stack.enter_context(launch(settings.data_dir / "pg", report=lambda sentence: say(" ", sentence)))

        tree.relaunch, tree.server = run, run()
        place = "attached to a running one" if tree.server.attached else f"embedded, {tree.server.data_dir}"
        say("✓", f"PostgreSQL {tree.server.version}", place)
        for note in tree.server.notes:
            say(" ", note)
        bootstrap.create_database(tree.server.url(SUPERUSER, "postgres"), DATABASE)
        url = tree.server.url(SUPERUSER, DATABASE)
    applied = migrate(url)
    say("✓", "Schema", f"{len(applied)} migrations applied" if applied else "up to date")
    return url


def write_runtime(settings: Settings, path: Path) -> None:
    """Write the settings in force where children, and other commands on this machine, find them. Mode 0600."""
    lines = []
    for name in settings_written(settings):
        value = getattr(settings, name)
        lines.append(f"{name} = {_toml(value)}")
    for source in settings.sources:
        lines += ["", "[[sources]]"]
        lines += [
            f"{name} = {_toml(getattr(source, name))}"
            for name in SourceSettings.__dataclass_fields__
            if getattr(source, name) is not None
        ]
    _write_private(path, "\n".join(lines) + "\n")


def settings_written(settings: Settings) -> list[str]:
    """Return the names of the scalar settings that have a value."""
    left_out = {"sources", "origins"}
    return [
        name for name in Settings.__dataclass_fields__ if name not in left_out and getattr(settings, name) is not None
    ]


def _toml(value: Any) -> str:
    if isinstance(value, Path):
        value = str(value.absolute())
    # JSON's texts, numbers and lists of texts are TOML's as well.
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=True)


def serving(runtime: Path, listening: socket.socket) -> list[Child]:
    """Return the processes that serve: the API, on a socket that listens already, and the loops."""
    handed = {"CRON_OBSERVER_LISTEN_FD": str(listening.fileno())}
    command = [sys.executable, "-m", "cron_observer_sdk", "serve", "--config", str(runtime)]
    return [
        Child("api", [*command, "--role", "api"], _environment() | handed, fds=(listening.fileno(),)),
        Child("loops", [*command, "--role", "reconciler", "--role", "scheduler", "--role", "dispatcher"], _loops()),
    ]


def demo_worker(token_file: Path) -> Child:
    """Return the demo's worker, which knows the server's address and a key, like any other."""
    known = dict(line.split("=", 1) for line in token_file.read_text(encoding="utf-8").split())
    return Child(_DEMO_WORKER, [sys.executable, "-m", "cron_observer.demo.worker"], _environment() | known)


def _environment() -> dict[str, str]:
    """Return our environment without our settings: children get theirs from the runtime file alone."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CRON_OBSERVER_")}


def _loops() -> dict[str, str]:
    """Return the environment of the loops: with the secrets that manifests name, which nobody else gets."""
    secrets = {name: value for name, value in os.environ.items() if name.startswith("CRON_OBSERVER_SECRET_")}
    return _environment() | secrets


def wait_ready(url: str, tree: Tree, stopped: list[int]) -> bool:
    """Wait until ``/readyz`` answers 200; False if a stop came first. Raises `DatabaseError` when it never does."""
    deadline = time.monotonic() + READY_PATIENCE
    while time.monotonic() < deadline and not stopped:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2):  # noqa: S310
            return True
        for child in tree.children:
            if child.process is not None and child.process.poll() is not None:
                raise DatabaseError(
                    f"{child.name} ended with {child.process.returncode} while starting", hint="its reason stands above"
                )
        time.sleep(0.05)
    if stopped:
        return False
    raise DatabaseError(f"{url}/readyz is not ready after {READY_PATIENCE:g} s", hint=f"curl {url}/readyz says why")


def supervise(tree: Tree, stopped: list[int]) -> None:
    """Keep the children and the server alive until a signal came."""
    look_at = 0.0
    while not stopped:
        now = time.monotonic()
        for child in tree.children:
            trouble = child.watch(now)
            if trouble:
                say("!", trouble)
        if tree.relaunch is not None and tree.server is not None and now >= look_at:
            look_at = now + LOOK
            if not tree.server.alive():
                say("!", "PostgreSQL has ended", "starting it again")
                tree.server = tree.relaunch()
        time.sleep(0.2)


def stop(tree: Tree) -> None:
    """End the children, the worker first, so that it can still report."""
    for child in reversed(tree.children):
        child.stop()
        if child.name == _DEMO_WORKER:
            child.wait(time.monotonic() + 4)
    deadline = time.monotonic() + STOP_PATIENCE
    for child in tree.children:
        child.wait(deadline)


def on_signal(stopped: list[int]) -> None:
    """Note SIGINT, SIGTERM and SIGHUP in `stopped`; a second one ends the process at once."""

    def note(number: int, _frame: object) -> None:
        if stopped:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stopped.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, note)


def in_force(settings: Settings, admin_url: str, port: int, data: Path, sources: Sequence[SourceSettings]) -> Settings:
    """Return the settings that the children get: the database as it was found, and the port that was free."""
    return replace(settings, database_url=admin_url, port=port, data_dir=data, sources=tuple(sources))


def url_of(settings: Settings) -> str:
    """Return the address at which this machine reaches the pages."""
    if settings.base_url:
        return settings.base_url
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  compared, not bound
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{settings.port}"
