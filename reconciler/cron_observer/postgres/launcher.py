"""Start the server of a data directory, or attach to the one that runs."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from cron_observer.errors import DatabaseError
from cron_observer.postgres import providers
from cron_observer.postgres.cluster import clear_stale, ensure_cluster, last_lines
from cron_observer.postgres.copies import programs_for
from cron_observer.postgres.places import PORT, Home, existing_home, home_for, socket_dir_for
from cron_observer.postgres.process import Account, account_for, clean_environment, die_with_parent
from cron_observer.postgres.providers import Provider
from cron_observer.postgres.server import Server, answers

#: Seconds to wait for another process that initialises, starts or stops the server.
_PATIENCE: Final = 600.0

#: Seconds that a server may take to be ready while its process lives. Recovery after a crash reads all that was
#: written since the last checkpoint, so this is long.
_RECOVERY_CAP: Final = 3600.0

#: Seconds between two reports while waiting.
_REPORT_EVERY: Final = 5.0

#: Bytes of the server's log beyond which a start sets it aside. One old log is kept.
_LOG_LIMIT: Final = 10 * 1024 * 1024

_SETTINGS: Final = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    "logging_collector": "off",
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
    report: Callable[[str], None] = _silent,
) -> Iterator[Server]:
    """Run the server of `data_dir` for the length of the block, or attach to the one that another process holds.

    Must be called in the main thread, for the server dies with the thread that starts it: on Linux the kernel stops
    it cleanly when this process ends in whatever way. `fast_and_unsafe` loses data with the power and is for tests
    only; it has no effect on a server that is attached to. `report` gets a sentence now and then while waiting.
    Raise `DatabaseError` when there is no server to be had.
    """
    data_dir = Path(os.path.abspath(data_dir))  # noqa: PTH100 - resolve() would follow links, and hide what was asked for
    account = account_for(existing_home(data_dir).cluster)
    home, notes = home_for(data_dir, account)
    with _locked(home, report):
        lock = _attach_or_lock(home, report)
        if isinstance(lock, Server):
            server = lock
        else:
            try:
                server = _start(home, provider or providers.find(), account, lock, fast_and_unsafe, report)
            finally:
                os.close(lock)  # the server's processes keep theirs
    server.notes[:0] = notes
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def _locked(home: Home, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock under which servers are initialised and started."""
    descriptor = _open_lock(home.start_lock)
    waiting = _Waiting(f"another process starts the PostgreSQL server in {home.path}", _PATIENCE, report)
    try:
        while not _try_lock(descriptor):
            waiting.pause()
        yield
    finally:
        os.close(descriptor)


def _attach_or_lock(home: Home, report: Callable[[str], None]) -> Server | int:
    """Return the running server if it answers, else the locked descriptor that says that no process of one lives."""
    descriptor = _open_lock(home.server_lock)
    waiting = _Waiting(
        f"a PostgreSQL server in {home.path} is there but does not answer yet", _PATIENCE, report
    )
    try:
        while not _try_lock(descriptor):
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
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    version = answers(home, socket_dir)
    return Server(home, socket_dir, version, None, []) if version else None


def _start(
    home: Home,
    provider: Provider,
    account: Account | None,
    lock: int,
    fast_and_unsafe: bool,
    report: Callable[[str], None],
) -> Server:
    provider, notes = programs_for(provider, account)
    ensure_cluster(home, provider, account, lock, durable=not fast_and_unsafe)
    socket_dir = socket_dir_for(home, account)
    clear_stale(home, socket_dir)
    settings = _SETTINGS | {"unix_socket_directories": str(socket_dir)} | (_UNSAFE if fast_and_unsafe else {})
    command = [os.fspath(provider.bin_dir / "postgres"), "-D", os.fspath(home.cluster)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with _open_log(home) as log:
        begin = log.tell()
        child = subprocess.Popen(
            command,
            cwd="/",
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            start_new_session=True,  # so that Ctrl-C reaches us alone, and we stop it when our work is done
            preexec_fn=die_with_parent(signal.SIGINT),
            **(account.child() if account else {}),
        )
    server = Server(home, socket_dir, provider.version, child, notes)
    try:
        _await_ready(server, home, child, begin, report)
        home.runtime.write_text(json.dumps({"socket_dir": str(socket_dir), "pid": child.pid}) + "\n")
    except BaseException:
        server.stop()
        raise
    return server


def _await_ready(
    server: Server, home: Home, child: subprocess.Popen[bytes], begin: int, report: Callable[[str], None]
) -> None:
    waiting = _Waiting(
        f"PostgreSQL in {home.path} is not ready yet", _RECOVERY_CAP, report, lambda: _log(home, begin)
    )
    while not answers(home, server.socket_dir):
        if child.poll() is not None:
            raise DatabaseError(
                f"PostgreSQL did not start (status {child.returncode}): {_log(home, begin)}",
                hint=f"its whole log is {home.log}",
            )
        waiting.pause()


def _log(home: Home, begin: int) -> str:
    with home.log.open("rb") as file:
        file.seek(begin)
        return last_lines(file.read().decode(errors="replace"))


def _open_log(home: Home) -> BinaryIO:
    if home.log.exists() and home.log.stat().st_size > _LOG_LIMIT:
        home.log.replace(home.log.with_suffix(".log.1"))
    file = home.log.open("ab")
    file.seek(0, os.SEEK_END)
    return file


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DatabaseError(
            f"{path} cannot be written: {error.strerror}",
            hint="start as the account that owns the folder, or use another --data-dir",
        ) from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Waiting:
    """A wait that says now and then what for, and ends in an error."""

    def __init__(
        self, what: str, cap: float, report: Callable[[str], None], detail: Callable[[], str] | None = None
    ) -> None:
        self._what = what
        self._report = report
        self._detail = detail
        self._began = time.monotonic()
        self._cap = cap
        self._next_report = _REPORT_EVERY
        self._step = 0.005

    def pause(self) -> None:
        """Sleep a little, longer each time up to 50 ms."""
        waited = time.monotonic() - self._began
        said = f"{self._what} ({waited:.0f} s)"
        if waited >= self._next_report or waited >= self._cap:
            if self._detail:
                said += f": {self._detail()}"
            if waited >= self._cap:
                raise DatabaseError(said, hint="look at its log, postgres.log in that folder")
            self._report(said)
            self._next_report = waited + _REPORT_EVERY
        time.sleep(self._step)
        self._step = min(self._step * 1.5, 0.05)
