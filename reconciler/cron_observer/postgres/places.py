"""Where the data and the socket of a server lie, so that a server without root's rights can reach them.

The mode of nothing that we did not create is changed. What a demoted server cannot reach is put below
`SHARED`.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cron_observer.errors import DatabaseError
from cron_observer.postgres.process import Account

#: Where a root parent puts what its demoted server could not reach otherwise.
SHARED: Final = Path("/var/lib/cron-observer")

#: Bytes that the path of a Unix socket may have.
SOCKET_PATH_LIMIT: Final = 107

#: What the server's socket is called in its folder; the number is the port that clients name.
PORT: Final = 5432
SOCKET_NAME: Final = f".s.PGSQL.{PORT}"

#: Characters that a socket's folder may have, so that no URL, connection string or setting needs to quote it.
_PLAIN: Final = re.compile(r"/[A-Za-z0-9/._-]+")


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one server and what is in it."""

    path: Path

    @property
    def cluster(self) -> Path:
        """Return PostgreSQL's own data directory."""
        return self.path / "cluster"

    @property
    def server_lock(self) -> Path:
        """Return the file that stays locked while any process of the server lives."""
        return self.path / "server.lock"

    @property
    def runtime(self) -> Path:
        """Return the file that tells others how to attach."""
        return self.path / "runtime.json"

    @property
    def log(self) -> Path:
        """Return the server's log."""
        return self.path / "postgres.log"

    @property
    def old_log(self) -> Path:
        """Return the log before that."""
        return self.path / "postgres.log.1"


def home_for(data_dir: Path, account: Account | None, shared: Path) -> tuple[Home, list[str]]:
    """Return the home of `data_dir`, which exists, and what to tell the user about it. The caller holds the start lock.

    It is `data_dir` itself, unless `account` could not enter that when the home was made.
    """
    place = _place_of(data_dir, shared)
    if place is None:
        if account is None or account.may_enter(data_dir):
            return Home(data_dir), []
        if Home(data_dir).cluster.exists():
            raise DatabaseError(
                f"{account.name}, which PostgreSQL runs as, can no longer enter {data_dir}",
                hint="give the folders above it the mode they had (chmod o+x), or use another --data-dir",
            )
        place = _new_place(data_dir, shared)
    return Home(place), [f"its data is in {place}, for its account could not enter {data_dir}"]


def existing_home(data_dir: Path, shared: Path) -> Home:
    """Return where the home of `data_dir` is or would be, without making anything."""
    return Home(_place_of(data_dir, shared) or data_dir)


def make_folder(directory: Path) -> None:
    """Make `directory` and what is missing above it, so that every account may pass through what was made."""
    if directory.is_dir():
        return
    try:
        if not directory.parent.is_dir():
            make_folder(directory.parent)
        directory.mkdir()
        directory.chmod(0o755)  # whatever the umask says
    except FileExistsError:
        if not directory.is_dir():
            raise DatabaseError(f"{directory} is not a folder", hint="use another --data-dir") from None
    except OSError as error:
        raise DatabaseError(
            f"the folder {directory} cannot be made: {error.strerror}", hint="use another --data-dir"
        ) from error


def check_ours(directory: Path) -> None:
    """Refuse a shared place that somebody else than us could have filled."""
    for folder in (directory.parent, directory):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise DatabaseError(
                f"{folder} is not a folder that only root can write to, so nothing in it can be trusted",
                hint=f"move it away: mv {folder} {folder}.old",
            )


def _place_of(data_dir: Path, shared: Path) -> Path | None:
    """Return the place below `shared` that belongs to `data_dir`, if there is one.

    The tie is a random id kept in `data_dir`, so that a new checkout at an old path starts without data. The
    place names its `data_dir`, so that a copy of a checkout does not share data with the original, and a
    moved one keeps it.
    """
    identity = _identity(data_dir)
    if identity is None:
        return None
    place = shared / "data" / identity
    owner = _read(place / "belongs-to")
    if owner is None or (owner != str(data_dir) and _identity(Path(owner)) == identity):
        return None
    return place


def _new_place(data_dir: Path, shared: Path) -> Path:
    root = shared / "data"
    make_folder(root)
    check_ours(root)
    identity = hashlib.sha256(f"{data_dir}\0{secrets.token_hex(16)}".encode()).hexdigest()[:16]
    place = root / identity
    make_folder(place)
    (place / "belongs-to").write_bytes(os.fsencode(data_dir) + b"\n")
    (data_dir / "id").write_text(f"{identity}\n")
    return place


def _identity(data_dir: Path) -> str | None:
    """Return the id of `data_dir`, or None when it has none that we could have written."""
    identity = _read(data_dir / "id")
    return identity if identity and re.fullmatch(r"[0-9a-f]{16}", identity) else None


def _read(path: Path) -> str | None:
    try:
        return os.fsdecode(path.read_bytes()).removesuffix("\n")
    except OSError:
        return None


def socket_dir_for(home: Home, account: Account | None, temporary: Path = Path("/tmp")) -> Path:  # noqa: S108
    """Return a folder of mode 0700 for the server's socket, which is made if need be.

    It is `home`/socket, or one with a short name where that does not fit. A folder of the short name that
    belongs to somebody else is left alone, and another is made.
    """
    wanted = home.path / "socket"
    if not fits(wanted):
        digest = hashlib.sha256(os.fsencode(home.path)).hexdigest()[:12]
        wanted = temporary / f"co-{digest}"
    uid, gid = (account.uid, account.gid) if account else (os.geteuid(), os.getegid())
    try:
        wanted.mkdir(mode=0o700)
    except FileExistsError:
        found = wanted.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == uid and found.st_mode & 0o777 == 0o700:
            return wanted
        wanted = Path(tempfile.mkdtemp(prefix="co-", dir=temporary))
    if account:
        os.chown(wanted, uid, gid)
    return wanted


def fits(socket_dir: Path) -> bool:
    """Tell whether a socket in this folder has a path that is short enough and needs no quoting."""
    path = os.fsencode(socket_dir / SOCKET_NAME)
    return len(path) <= SOCKET_PATH_LIMIT and _PLAIN.fullmatch(os.fspath(socket_dir)) is not None
