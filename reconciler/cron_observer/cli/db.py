"""``cron-observer db``: the database as a whole."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import rich_click as click

from cron_observer.cli import options
from cron_observer.cli.ledger import check
from cron_observer.errors import DatabaseError


@click.group()
def db() -> None:
    """Migrate the database, copy it to a file, or check its ledger of slots."""


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

    if target.exists():
        raise DatabaseError(f"{target} exists", hint="name another file; a backup is never overwritten")
    url, secret = libpq(options.database_url(options.load(config=config)))
    # The owner's role sees every row; a user who is no superuser would be refused for the row-level security.
    whole = ["--role=cron_observer_owner", "--enable-row-security"]
    arguments = [program("pg_dump"), "--format=custom", f"--file={target}", *whole, url]
    done = subprocess.run(arguments, env={**os.environ, **secret}, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        target.unlink(missing_ok=True)
        said = [line for line in done.stderr.splitlines() if "error:" in line] or [*done.stderr.splitlines(), ""]
        raise DatabaseError(f"pg_dump failed: {said[0].strip()}", hint="nothing was written")
    click.echo(f"{target}: {target.stat().st_size:,} bytes; restore with pg_restore --dbname=URL {target}")


db.add_command(check)


def program(name: str) -> str:
    """Return the program of PostgreSQL that belongs to our server's binaries, else the one on PATH."""
    from cron_observer.postgres import find

    try:
        beside = find().bin_dir / name
    except DatabaseError:
        beside = Path(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise DatabaseError(f"there is no {name}", hint="install your system's postgresql-client")
    return found
