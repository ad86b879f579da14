"""Start the server of a data directory, or attach to the one that runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from cron_observer.errors import DatabaseError
from cron_observer.postgres import providers
from cron_observer.postgres.cluster import clear_stale, ensure_cluster, last_lines, remove_cluster
from cron_observer.postgres.copies import programs_for
from cron_observer.postgres.locks import PATIENCE, Report, Waiting, locked, open_lock, try_lock
from cron_observer.postgres.places import (
    PORT,
    SHARED,
    Home,
    existing_home,
    home_for,
    make_folder,
    socket_dir_for,
)
from cron_observer.postgres.process import Account, account_for, clean_environment, die_with_parent
from cron_observer.postgres.providers import Provider
from cron_observer.postgres.server import Server, answers

#: Seconds that a server may take to be ready while its process lives. After a crash it first reads all that
#: was written since the last checkpoint, so this is long.
_RECOVERY_CAP: Final = 3600.0

#: Bytes of the server's log beyond which a start sets it aside. One old log is kept.
_LOG_LIMIT: Final = 10 * 1024 * 1024

_SETTINGS: Final = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",  # the log is only cut at a start
    "logging_collector": "off",
    # Statements are planned anew each time, for every week of executions that they touch. Partitions are chosen by
    # their bounds all the same; comparing each filter with each check of rows takes a third of the planning, in vain.
    "constraint_exclusion": "off",
    # For many weeks the estimates are so high that a plan, used once, would be compiled for longer than it runs.
    "jit": "off",
}

_UNSAFE: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def _silent(_: str) -> None:
    pass


@contextmanager
def launch(
    data_dir: Path,
    *,
    provider: Provider | None = None,
    fast_and_unsafe: bool = False,
    report: Report = _silent,
    shared: Path = SHARED,
) -> Iterator[Server]:
    """Run the server of `data_dir` for the length of the block, or attach to the one that runs already.

    Must be called in the main thread, since a server dies with the thread that starts it: on Linux the kernel
    stops it cleanly when this process ends in whatever way. `provider` is `providers.find()` by default.
    `fast_and_unsafe` loses data with the power and is for tests only; it changes nothing of a server that is
    attached to. `report` gets a sentence now and then while waiting. `shared` is where a root parent puts
    what its demoted server could not reach otherwise. Raise `DatabaseError` when there is no server to be
    had.
    """
    data_dir = data_dir.resolve()
    make_folder(data_dir)
    with _start_locked(data_dir, report):
        account = account_for(existing_home(data_dir, shared).cluster)
        home, notes = home_for(data_dir, account, shared)
        found = _attach_or_lock(home, report)
        if isinstance(found, Server):
            server = found
        else:
            try:
                programs, more = programs_for(provider or providers.find(), account, shared, report)
                notes += more
                server = _Start(home, programs, account, found, not fast_and_unsafe, report).run()
            finally:
                os.close(found)  # the server's processes keep theirs
    server.notes += notes
    try:
        yield server
    finally:
        server.stop()


def erase(data_dir: Path, *, shared: Path = SHARED, report: Report = _silent) -> None:
    """Delete the server's data for good, wherever it lies. Raise `DatabaseError` while a server runs on it.

    The lock files stay, since others may be waiting for them.
    """
    data_dir = data_dir.resolve()
    if not data_dir.is_dir():
        return
    with _start_locked(data_dir, report):
        home = existing_home(data_dir, shared)
        descriptor = open_lock(home.server_lock)
        try:
            if not try_lock(descriptor):
                raise DatabaseError(
                    f"a PostgreSQL server runs on {home.path}, so its data cannot be deleted",
                    hint="stop the other ./start first",
                )
            remove_cluster(home)
        finally:
            os.close(descriptor)


def _start_locked(data_dir: Path, report: Report) -> AbstractContextManager[None]:
    """Hold the lock under which the server of `data_dir` is placed, initialised, started and erased."""
    return locked(data_dir / "start.lock", f"another process starts the PostgreSQL server of {data_dir}", report)


def _attach_or_lock(home: Home, report: Report) -> Server | int:
    """Return the running server if it answers, else the locked descriptor that proves that none runs.

    In between lies a server that ends or recovers, or what a killed one has left running: that is waited for.
    """
    descriptor = open_lock(home.server_lock)
    waiting = Waiting(f"processes of a PostgreSQL server in {home.path} run, and it does not answer", PATIENCE, report)
    try:
        while not try_lock(descriptor):
            server = _attach(home)
            if server:
                os.close(descriptor)
                return server
            waiting.pause()
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _attach(home: Home) -> Server | None:
    try:
        known = json.loads(home.runtime.read_text())
        socket_dir = Path(known["socket_dir"])
        same_owner = socket_dir.lstat().st_uid == home.cluster.stat().st_uid
    except (OSError, ValueError, KeyError, TypeError):
        return None
    version = answers(home, socket_dir) if same_owner else None
    return Server(home, socket_dir, version, None) if version else None


@dataclass(frozen=True, slots=True)
class _Start:
    """One start of a server. `lock` is the descriptor of the server's lock, held."""

    home: Home
    provider: Provider
    account: Account | None
    lock: int
    durable: bool
    report: Report

    def run(self) -> Server:
        """Make the cluster if there is none, start the server and wait until it takes connections."""
        home = self.home
        ensure_cluster(home, self.provider, self.account, self.lock, durable=self.durable)
        socket_dir = socket_dir_for(home, self.account)
        clear_stale(home, socket_dir)
        with _open_log(home) as log:
            begin = log.tell()
            child = self._spawn(socket_dir, log)
        server = Server(home, socket_dir, self.provider.version, child)
        try:
            self._await_ready(server, child, begin)
            home.runtime.write_text(json.dumps({"socket_dir": str(socket_dir), "pid": child.pid}) + "\n")
        except BaseException:
            server.stop()
            raise
        return server

    def _spawn(self, socket_dir: Path, log: BinaryIO) -> subprocess.Popen[bytes]:
        settings = _SETTINGS | {"unix_socket_directories": str(socket_dir)} | ({} if self.durable else _UNSAFE)
        command = [os.fspath(self.provider.bin_dir / "postgres"), "-D", os.fspath(self.home.cluster)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return subprocess.Popen(
            command,
            cwd="/",
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(self.lock,),
            start_new_session=True,  # so that Ctrl-C reaches us alone, and we stop it when our work is done
            preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509 - two system calls, no lock taken
            **(self.account.child() if self.account else {}),
        )

    def _await_ready(self, server: Server, child: subprocess.Popen[bytes], begin: int) -> None:
        what = f"PostgreSQL in {self.home.path} is not ready yet"
        waiting = Waiting(what, _RECOVERY_CAP, self.report, lambda: _said(self.home, begin))
        while not answers(self.home, server.socket_dir):
            if child.poll() is not None:
                raise DatabaseError(
                    f"PostgreSQL did not start (status {child.returncode}): {_said(self.home, begin)}",
                    hint=f"mend what it says; the whole log is {self.home.log}",
                )
            waiting.pause()


def _open_log(home: Home) -> BinaryIO:
    with suppress(FileNotFoundError):
        if home.log.stat().st_size > _LOG_LIMIT:
            home.log.replace(home.old_log)
    file = os.fdopen(os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "ab")
    file.seek(0, os.SEEK_END)
    return file


def _said(home: Home, begin: int) -> str:
    with home.log.open("rb") as file:
        file.seek(begin)
        return last_lines(file.read().decode(errors="replace"))
