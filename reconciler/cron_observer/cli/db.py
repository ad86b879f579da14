"""``cron-observer db``: the database as a whole."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import rich_click as click

from cron_observer.cli import options
from cron_observer.errors import DatabaseError


@click.group()
def db() -> None:
    """Migrate the database, or copy it to a file."""


@db.command()
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Settings file.")
def migrate(config: Path | None) -> None:
    """Bring the schema to this version, in one transaction, and make the first tenant and the projects.

    Safe to repeat, and from several machines at once.
    """
    from cron_observer.store import bootstrap
    from cron_observer.store import migrate as migrations

    settings = options.load(config=config)
    url = options.database_url(settings)
    applied = migrations.migrate(url)
    projects = dict.fromkeys([settings.project, *(source.project for source in settings.sources)])
    bootstrap.make_places(url, tenant=settings.tenant, projects=projects)
    click.echo(f"applied {', '.join(applied)}" if applied else "the schema is up to date")


@db.command()
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Settings file.")
def backup(target: Path, config: Path | None) -> None:
    """Write a dump of the database to TARGET with pg_dump; `pg_restore` reads it, also in a newer PostgreSQL."""
    from cron_observer.store.bootstrap import libpq

    program = _pg_dump()
    if target.exists():
        raise DatabaseError(f"{target} exists", hint="name another file; a backup is never overwritten")
    url = libpq(options.database_url(options.load(config=config)))
    arguments = [program, "--format=custom", f"--file={target}", url]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        target.unlink(missing_ok=True)
        raise DatabaseError(f"pg_dump failed: {done.stderr.strip().splitlines()[-1]}", hint="nothing was written")
    click.echo(f"{target}: {target.stat().st_size:,} bytes; restore with pg_restore --dbname=URL {target}")


def _pg_dump() -> str:
    """Return the pg_dump that belongs to our server's binaries, else the one on PATH."""
    from cron_observer.postgres import find

    try:
        beside = find().bin_dir / "pg_dump"
    except DatabaseError:
        beside = Path("pg_dump")
    program = str(beside) if beside.exists() else shutil.which("pg_dump")
    if program is None:
        raise DatabaseError("there is no pg_dump", hint="install your system's postgresql-client")
    return program
