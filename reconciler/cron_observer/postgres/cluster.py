"""A PostgreSQL data directory: made whole or not at all, and never touched by another major version."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Final

from cron_observer.errors import DatabaseError
from cron_observer.postgres import providers
from cron_observer.postgres.places import SOCKET_NAME, Home
from cron_observer.postgres.process import Account, die_with_parent, run
from cron_observer.postgres.providers import Provider

#: The bootstrap role. It owns nothing of the schema; migrations make the roles that do.
SUPERUSER: Final = "cron_observer_admin"

#: A process id beyond what any kernel gives out (Linux: 2^22).
_NOBODYS_PID: Final = "2147483647"


def ensure_cluster(home: Home, provider: Provider, account: Account | None, lock: int, *, durable: bool) -> None:
    """Make the cluster if there is none, and refuse one that these programs cannot run.

    The caller holds both locks; `lock` is the descriptor of the server's, which initdb's processes share.
    """
    for left in home.path.glob("init-*"):
        shutil.rmtree(left, ignore_errors=True)
    if not home.cluster.exists():
        _initialise(home, provider, account, lock, durable=durable)
    _check_version(home.cluster, provider)


def _initialise(home: Home, provider: Provider, account: Account | None, lock: int, *, durable: bool) -> None:
    build = Path(tempfile.mkdtemp(prefix="init-", dir=home.path))
    if account:
        os.chown(build, account.uid, account.gid)
    initdb = os.fspath(provider.bin_dir / "initdb")
    options = {"preexec_fn": die_with_parent(signal.SIGKILL), "pass_fds": (lock,), "start_new_session": True}
    try:
        made = run([initdb, *_init_options(provider), "-D", os.fspath(build)], account, **options)
        if made.returncode == 0 and durable:
            made = run([initdb, "--sync-only", "-D", os.fspath(build)], account, **options)
        if made.returncode != 0:
            raise DatabaseError(
                f"PostgreSQL's data directory {home.cluster} cannot be made: {last_lines(made.stderr)}",
                hint="mend what it says and start again; nothing was left behind",
            )
        build.rename(home.cluster)
    finally:
        shutil.rmtree(build, ignore_errors=True)
    if durable:
        _sync_folder(home.path)


def _init_options(provider: Provider) -> list[str]:
    options = ["--no-sync", "--data-checksums", "--encoding=UTF8", "--no-instructions"]
    options += ["--username", SUPERUSER, "--auth-local=trust", "--auth-host=reject"]
    if provider.major >= 17:
        return [*options, "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return [*options, "--locale=C.UTF-8"]


def _check_version(cluster: Path, provider: Provider) -> None:
    try:
        made_by = (cluster / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise DatabaseError(
            f"{cluster} is not a PostgreSQL data directory: {error.strerror} (PG_VERSION)",
            hint=f"move it away and start again: mv {cluster} {cluster}.old",
        ) from error
    if made_by == str(provider.major):
        return
    raise DatabaseError(
        f"{cluster} belongs to PostgreSQL {made_by}, and {provider.bin_dir} is {provider.version}",
        hint="\n".join([*_ways_to_run(made_by), "or begin anew without the data: ./start --reset"]),
    )


def _ways_to_run(major: str) -> list[str]:
    """Return the command that runs a cluster of this major version, if there is one."""
    variable = providers.BIN_VARIABLE
    for one in providers.system():
        if str(one.major) == major:
            return [f"run it on PostgreSQL {major}: {variable}={one.bin_dir} ./start"]
    if major.isdigit() and int(major) >= providers.OLDEST_MAJOR:
        return [f"install PostgreSQL {major} and run it on that: {variable}=FOLDER_OF_ITS_PROGRAMS ./start"]
    return []


def clear_stale(home: Home, socket_dir: Path) -> None:
    """Make the lock files of a server that is gone harmless, whatever process has its number now.

    The caller holds the server's lock, so no process of that server lives; but its number may be that of
    another process by now, or of a zombie that nobody reaps, and PostgreSQL takes either for a living server.
    Only the number is replaced: by the rest of the file PostgreSQL still finds out, from the shared memory
    that it names, whether somebody runs this cluster without our locks.
    """
    pid_file = home.cluster / "postmaster.pid"
    try:
        descriptor = os.open(pid_file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    else:
        with os.fdopen(descriptor, "r+") as file:
            _, newline, rest = file.read().partition("\n")
            file.seek(0)
            file.write(_NOBODYS_PID + newline + rest)
            file.truncate()
    for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (socket_dir / name).unlink(missing_ok=True)


def remove_cluster(home: Home) -> None:
    """Delete all of the server's files but the locks. The caller holds both."""
    for path in (*home.path.glob("init-*"), home.cluster, home.path / "socket"):
        if path.exists():
            shutil.rmtree(path)
    for path in (home.runtime, home.log, home.old_log):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def last_lines(text: str, count: int = 5) -> str:
    """Return the end of what a program printed, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " · ".join(lines[-count:]) or "it said nothing"
