"""A running server, as seen by who holds it or has attached to it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg
from psycopg.conninfo import make_conninfo

from cron_observer.errors import DatabaseError
from cron_observer.postgres.cluster import SUPERUSER
from cron_observer.postgres.places import PORT, Home

#: How a server is asked to end, and seconds of patience with each: fast, immediate, by force.
_ENDINGS: Final = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))


class Server:
    """A PostgreSQL server on a Unix socket.

    `attached` tells that another process holds it: then `stop` leaves it alone, and it ends when its holder
    does.
    """

    def __init__(self, home: Home, socket_dir: Path, version: str, child: subprocess.Popen[bytes] | None) -> None:
        self.data_dir = home.path  #: where the data really is; see `notes` if that is not what was asked for
        self.socket_dir = socket_dir
        self.version = version  #: such as "18.6"
        self.attached = child is None
        self.notes: list[str] = []  #: for the user: where the server's things were put, and why
        self._home = home
        self._child = child
        self._holder = os.getpid()

    def url(self, user: str, database: str) -> str:
        """Return the URL by which SQLAlchemy reaches `database` as `user`, over psycopg."""
        # The port names the socket's file. It is given so that PGPORT changes nothing.
        name, base = quote(user, safe=""), quote(database, safe="")
        return f"postgresql+psycopg://{name}@/{base}?host={self.socket_dir}&port={PORT}"

    def libpq(self, user: str, database: str) -> str:
        """Return the connection string by which psycopg and psql reach `database` as `user`."""
        return _conninfo(self.socket_dir, user, database)

    @property
    def pid(self) -> int | None:
        """Return the server's process id, for people to read; None when another process holds it."""
        return self._child.pid if self._child else None

    def alive(self) -> bool:
        """Tell whether the server runs; if another process holds it, whether it answers (within 2 s)."""
        if self._child:
            return self._child.poll() is None
        return answers(self._home, self.socket_dir) is not None

    def stop(self) -> None:
        """End the server, if it is ours, and wait for that. Open transactions are rolled back.

        It may be called again, and by a fork of the holder, to no effect.
        """
        child = self._child
        if child is None or self._holder != os.getpid() or child.poll() is not None:
            return
        for signum, patience in _ENDINGS:
            child.send_signal(signum)
            try:
                child.wait(patience)
            except subprocess.TimeoutExpired:
                continue
            return
        raise DatabaseError(f"the PostgreSQL server in {self.data_dir} does not end", hint="see whether its disk hangs")


def answers(home: Home, socket_dir: Path) -> str | None:
    """Return the version of the server of `home` if it takes a connection on this socket, else None."""
    try:
        where = _conninfo(socket_dir, SUPERUSER, "postgres")
        with psycopg.connect(where, connect_timeout=2, autocommit=True) as connection:
            row = connection.execute("SELECT current_setting('data_directory')").fetchone()
            version = connection.info.parameter_status("server_version") or ""
    except psycopg.Error:
        return None
    return version.split(" ", 1)[0] if row == (str(home.cluster),) else None


def _conninfo(socket_dir: Path, user: str, database: str) -> str:
    return make_conninfo(host=str(socket_dir), port=PORT, user=user, dbname=database)
