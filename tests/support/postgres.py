"""A PostgreSQL server for tests: fast, thrown away, one for each process that asks."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from cron_observer.postgres import Provider, Server, launch, providers

#: Names the folder of the PostgreSQL programs that the whole suite runs on; the default is the wheel's.
BIN_VARIABLE = "CRON_OBSERVER_TEST_PG_BIN"

#: A folder of Linux whose files live in memory, and the bytes that must be free there to be used.
_MEMORY, _ROOM = Path("/dev/shm"), 4 << 30


def test_provider() -> Provider:
    """Return the programs that tests run on."""
    named = os.environ.get(BIN_VARIABLE)
    return providers.find({providers.BIN_VARIABLE: named} if named else {})


#: Where what has to be durable is put, to be measured.
DISK: Final = "/var/tmp"


@cache
def quick_place() -> str:
    """Return where to put what is thrown away: in memory if there is room for it, else on disk.

    To copy and drop a database of 500 files costs ten times as much on a disk.
    """
    try:
        seen = os.statvfs(_MEMORY)
    except OSError:
        return "/tmp"
    usable = os.access(_MEMORY, os.W_OK | os.X_OK) and not seen.f_flag & os.ST_NOEXEC
    return str(_MEMORY) if usable and seen.f_bavail * seen.f_frsize >= _ROOM else "/tmp"


@contextmanager
def short_folder(prefix: str = "co-test-", place: str | None = None) -> Iterator[Path]:
    """Make an empty folder that every account can enter, short enough for a socket, and remove it after.

    It is made where `place` says: what is measured with durable commits belongs on a disk.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place or quick_place()))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def test_server() -> Iterator[Server]:
    """Run an empty server without durability for the length of the block, and remove it after."""
    with (
        short_folder("co-test-pg-") as folder,
        launch(folder / "pg", provider=test_provider(), fast_and_unsafe=True) as server,
    ):
        yield server


# pytest would take them for tests where they are imported.
for _helper in (test_provider, test_server):
    _helper.__dict__["__test__"] = False
