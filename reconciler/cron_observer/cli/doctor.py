"""``cron-observer doctor``: look at this machine, the database and the sources, and say what to mend.

It changes nothing, needs no server that runs, and asks every source at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rich_click as click

from cron_observer.cli import _http, options
from cron_observer.errors import CronObserverError, DatabaseError, SettingsError
from cron_observer.model import API_VERSION

if TYPE_CHECKING:
    from cron_observer.settings import Settings, SourceSettings
    from cron_observer.store.doctor import Facts

EXIT_TROUBLE: Final = 1

#: The newest minor version of each major one when this version was made.
NEWEST_MINORS: Final = {15: 20, 16: 16, 17: 12, 18: 6}

#: Bytes of free space below which a busy server is soon in trouble, and below which PostgreSQL may stop at once: it
#: writes its log in files of 16 MiB, and keeps some of them.
SPACE_LOW: Final = 2 * 1024**3
SPACE_OUT: Final = 200 * 1024**2

#: How far the clocks of database and server may be apart: what is shown as "in 3 s" is computed by the latter.
SKEW: Final = timedelta(seconds=2)

#: Seconds that whoever listens on our port has to say that it is Cron Observer.
_PORT_PATIENCE: Final = 2.0

#: Bytes of an answer that are looked at; the schema is a tenth of it.
_SCHEMA_MOST: Final = 256 * 1024


class Status(StrEnum):
    """How it stands with one thing."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


_MARKS: Final = {Status.OK: "✓", Status.WARNING: "!", Status.ERROR: "✕"}


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it stands, and what mends it."""

    name: str
    status: Status
    detail: str
    mend: str | None = None


def good(name: str, detail: str) -> Check:
    """Make a check that found nothing."""
    return Check(name, Status.OK, detail)


def doubtful(name: str, detail: str, mend: str) -> Check:
    """Make a check that found something to know of."""
    return Check(name, Status.WARNING, detail, mend)


def bad(name: str, detail: str, mend: str | None) -> Check:
    """Make a check that found something that does not work."""
    return Check(name, Status.ERROR, detail, mend or "mend what it says")


@click.command()
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Settings file.")
@_http.output
@_http.place
@click.pass_context
def doctor(context: click.Context, config: Path | None, style: str, data_dir: Path | None) -> None:
    """Check this machine, the database and the sources; say what to mend.

    Exit code: 0 when everything works (warnings included), 1 when something does not, 64 when the call is wrong.
    """
    checks = list(examine(config, data_dir))
    well = all(check.status is not Status.ERROR for check in checks)
    if style == "json":
        click.echo(json.dumps({"ok": well, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        _print(checks)
    if not well:
        context.exit(EXIT_TROUBLE)


def _print(checks: Sequence[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        click.echo(f"  {_MARKS[check.status]} {_http.printable(f'{check.name:{width}}  {check.detail}')}")
        if check.mend:
            click.echo(f"    {'':{width}}  → {_http.printable(check.mend)}")
    errors = sum(check.status is Status.ERROR for check in checks)
    warnings = sum(check.status is Status.WARNING for check in checks)
    click.echo(f"\n  {len(checks) - errors - warnings} well, {warnings} to know of, {errors} to mend")


def examine(config: Path | None, data_dir: Path | None) -> Iterator[Check]:
    """Look at everything; what depends on something that is broken is left out."""
    from cron_observer.schedule import tzdata_version

    yield python()
    yield git()
    yield time_zones(tzdata_version(), str(import_module("tzdata").IANA_VERSION))
    try:
        settings, running = _settings(config, data_dir)
    except SettingsError as error:
        yield bad("Settings", error.message, error.hint)
        return
    yield space(settings.data_dir)
    yield port(settings.host, settings.port)
    yield from asyncio.run(database(settings, running))
    yield from sources(settings.sources)


def _settings(config: Path | None, data_dir: Path | None) -> tuple[Settings, bool]:
    """Return the settings; with those of a running `up`, if there is one and no database is set, and whether so."""
    settings = options.load({"data_dir": data_dir}, config)
    runtime = settings.data_dir / options.RUNTIME
    if settings.database_url or not runtime.exists():
        return settings, False
    running = options.load({"data_dir": settings.data_dir}, runtime)
    return replace(running, sources=running.sources or settings.sources), True


def python() -> Check:
    """Say which Python this is; an older one could not have come here."""
    version = ".".join(map(str, sys.version_info[:3]))
    return good("Python", f"{version}  {sys.executable}")


def git() -> Check:
    """Look for a Git that is new enough."""
    from cron_observer.source.command import git_version

    try:
        return good("Git", f"{git_version()}  {shutil.which('git')}")
    except SettingsError as error:
        return bad("Git", error.message, error.hint)


def time_zones(used: str, brought: str) -> Check:
    """Compare the zone data in use with what was installed along with this version."""
    if used == "unknown":
        mend = f"set PYTHONTZPATH to nothing, to use the {brought} that was installed along"
        return doubtful("Time zones", "the system's zone data does not say its version", mend)
    if used < brought:
        mend = f"upgrade the system's package tzdata, or set PYTHONTZPATH to nothing to use {brought}"
        return doubtful("Time zones", f"{used}, older than the {brought} that was installed along", mend)
    return good("Time zones", used)


def space(folder: Path) -> Check:
    """Look whether the data folder can be written, and how much room is there."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return bad("Data folder", f"{there} cannot be written", "give it to this account, or choose another --data-dir")
    free = shutil.disk_usage(there).free
    detail = f"{folder.absolute()}, {free / 1024**3:,.1f} GiB free"
    mend = "make room, or move it with --data-dir"
    if free < SPACE_OUT:
        return bad("Data folder", detail, mend)
    return doubtful("Data folder", detail, mend) if free < SPACE_LOW else good("Data folder", detail)


def port(host: str, number: int) -> Check:
    """Look whether our port is free, or taken by a Cron Observer."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except PermissionError:
            return bad("Port", f"{host}:{number} needs privileges", "choose a --port above 1023")
        except OSError as error:
            if error.errno not in {48, 98}:
                return bad("Port", f"{host}:{number}: {error.strerror}", "choose a --host that this machine has")
        else:
            return good("Port", f"{host}:{number} is free")
    if _is_ours(host, number):
        return good("Port", f"{host}:{number} is served by Cron Observer")
    mend = "`./start` takes the next free one; `serve` needs another --port"
    return doubtful("Port", f"{host}:{number} is used by another program", mend)


def _is_ours(host: str, number: int) -> bool:
    """Ask whoever listens whether it is Cron Observer: ours serves the schema of manifests."""
    from http.client import HTTPConnection, HTTPException

    # Bound to every address, it is reached at loopback.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    connection = HTTPConnection(name, number, timeout=_PORT_PATIENCE)
    try:
        connection.request("GET", "/schemas/v1/task.json")
        answer = connection.getresponse()
        return answer.status == 200 and API_VERSION.encode() in answer.read(_SCHEMA_MOST)
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


async def database(settings: Settings, running: bool) -> list[Check]:
    """Look at the database that is set, or at the embedded one while it runs."""
    from cron_observer.store import doctor as ask

    urls = {role: settings.database_of(role) for role in ("api", "reconciler", "scheduler")}
    url = settings.database_url or next((found for found in urls.values() if found), None)
    if url is None:
        return [embedded()]
    try:
        facts = await ask.look(url, lambda: datetime.now(UTC))
    except DatabaseError as error:
        if running:
            return [doubtful("PostgreSQL", f"the embedded one does not run: {error.message}", "./start starts it")]
        return [bad("PostgreSQL", error.message, error.hint)]
    checks = [minor(facts.version), schema(facts.revision), skew(facts)]
    if facts.revision is not None:
        refusals = {role: await ask.refusal(found or url, f"cron_observer_{role}") for role, found in urls.items()}
        checks.insert(2, roles(refusals))
    return checks


def embedded() -> Check:
    """Say which PostgreSQL `./start` would run."""
    from cron_observer.postgres import find

    try:
        provider = find()
    except DatabaseError as error:
        return bad("PostgreSQL", error.message, error.hint)
    detail = f"{provider.version} ({provider.kind}) would be run by ./start; none is set and none runs"
    return doubtful("PostgreSQL", detail, "./start, or set CRON_OBSERVER_DATABASE_URL")


def minor(version: tuple[int, ...]) -> Check:
    """Judge a server's version: too old, without the newest fixes, or well."""
    shown = ".".join(map(str, version))
    major, patch = (*version, 0, 0)[:2]
    if major < min(NEWEST_MINORS):
        return bad("PostgreSQL", f"{shown} is too old", f"use {min(NEWEST_MINORS)} or newer")
    known = NEWEST_MINORS.get(major, 0)
    if patch < known:
        return doubtful("PostgreSQL", f"{shown} lacks fixes", f"upgrade it to {major}.{known} or newer and restart it")
    return good("PostgreSQL", shown)


def schema(revision: str | None) -> Check:
    """Compare the schema with the one that this version needs."""
    from cron_observer.store.migrate import head

    if revision == head():
        return good("Schema", f"at {revision}")
    if revision is None:
        return bad("Schema", "the database has none", "run cron-observer db migrate")
    if revision > head():
        return bad("Schema", f"at {revision}, newer than {head()}", "install the newer cron-observer that made it")
    return bad("Schema", f"at {revision}, older than {head()}", "run cron-observer db migrate")


def roles(refusals: dict[str, str | None]) -> Check:
    """Say which roles the product could not act as."""
    refused = [f"{role}: {why}" for role, why in refusals.items() if why is not None]
    if not refused:
        return good("Roles", ", ".join(refusals))
    mend = "run cron-observer db migrate, and see docs/how-to/use-your-own-postgresql.md"
    return bad("Roles", "; ".join(refused), mend)


def skew(facts: Facts) -> Check:
    """Judge how far the database's clock is from ours."""
    ahead, unsure = facts.ahead.total_seconds(), facts.unsure.total_seconds()
    shown = f"the database's is {abs(ahead):.3f} s {'ahead' if ahead >= 0 else 'behind'} (within {unsure:.3f} s)"
    if abs(facts.ahead) - facts.unsure > SKEW:
        return doubtful("Clock", shown, "let both machines keep time by NTP; the database's clock decides what is due")
    return good("Clock", shown)


def sources(found: Sequence[SourceSettings]) -> Iterable[Check]:
    """Ask every source where it stands, all at once."""
    if not found:
        return [good("Sources", "none are set; ./start makes a demo repository")]
    with tempfile.TemporaryDirectory(prefix="cron-observer-doctor-") as folder, ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda numbered: source(numbered[1], Path(folder), numbered[0]), enumerate(found)))


def source(settings: SourceSettings, folder: Path, number: int) -> Check:
    """Look where one source stands, without fetching, and whether the keys to verify it with can be read.

    `folder` takes Git's configuration for it. What the look itself needs (keys, authorities, credentials) says so.
    """
    from cron_observer.settings import redacted
    from cron_observer.source import SourceSpec, open_source
    from cron_observer.source.signatures import examine as examine_keys

    name, where = f"Source {settings.name}", redacted(settings.url)
    try:
        spec = SourceSpec.of(settings)
        opened = open_source(spec, folder, str(number))
        try:
            examine_keys(spec)
            target = opened.resolve()
        finally:
            opened.close()
    except CronObserverError as error:
        return bad(name, f"{where}: {error.message}", error.hint)
    if not opened.has_commits:
        return good(name, f"{where}, a plain folder")
    if target.id is None:
        return good(name, f"{where} has no commits yet")
    return good(name, f"{where}, {target.ref or 'HEAD'} at {target.id[:12]}")
