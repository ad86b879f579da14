"""Children that end with their parent, and the account that a parent running as root gives them."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cron_observer.errors import DatabaseError

#: Accounts that a server started by root may run as, the best first. None of them is ever created by us.
ACCOUNTS: Final = ("postgres", "cron-observer", "nobody")

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(signum: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """Return a `preexec_fn` by which the kernel sends `signum` to the child when this process ends, however.

    Linux ties the signal to the *thread* that starts the child, so this must be called, and the child
    started, in the main thread; anywhere else it raises `RuntimeError`. Elsewhere than on Linux the child is
    left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a child that dies with its parent must be started in the main thread")
    if sys.platform != "linux":
        return _nothing
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up now: after the fork nothing may be loaded

    def arm() -> None:
        if prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signum), 0, 0, 0) != 0:
            os._exit(126)
        if os.getppid() != parent:  # it died before the call above, and no signal will come
            os._exit(128 + signum)

    return arm


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Account:
    """The account that children of a root process run as; PostgreSQL refuses to be root."""

    name: str
    uid: int
    gid: int

    def child(self) -> dict[str, Any]:
        """Return the arguments for `subprocess` that drop every right of root."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def may_enter(self, directory: Path) -> bool:
        """Tell whether this account can make `directory` its working directory, by trying."""
        return succeeds(["/bin/sh", "-c", 'cd -- "$1"', "sh", os.fspath(directory)], self)


def account_for(cluster: Path) -> Account | None:
    """Choose whom the server of `cluster` runs as: None for ourselves, which is always so unless we are root.

    An existing cluster keeps its owner, so that an account which appears later changes nothing.
    """
    if os.geteuid() != 0:
        return None
    try:
        owner = cluster.stat()
    except (FileNotFoundError, NotADirectoryError):
        owner = None
    if owner is not None and owner.st_uid != 0:
        account = Account(_name_of(owner.st_uid), owner.st_uid, owner.st_gid)
    else:
        account = _first_account()
    if not succeeds(["/bin/sh", "-c", ":"], account):
        raise DatabaseError(
            f"PostgreSQL does not run as root, and this root may not become {account.name}",
            hint="start as an ordinary user, give the container SETUID and SETGID, or set DATABASE_URL",
        )
    return account


def _first_account() -> Account:
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise DatabaseError(
        f"PostgreSQL does not run as root, and none of the accounts {', '.join(ACCOUNTS)} exists",
        hint="start as an ordinary user, or set DATABASE_URL",
    )


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def succeeds(command: list[str], account: Account | None) -> bool:
    """Tell whether `command`, run as `account` from the root directory, ends with status 0."""
    try:
        return run(command, account).returncode == 0
    except OSError:
        return False


def run(command: list[str], account: Account | None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a short command as `account` and return what it printed. It inherits no PG* variable."""
    return subprocess.run(
        command,
        cwd="/",
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        **(account.child() if account else {}),
        **options,
    )


def clean_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without what would change PostgreSQL's settings or language behind our back."""
    source = os.environ if environ is None else environ
    kept = {name: value for name, value in source.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}
