"""``cron-observer serve``: one process with one or more roles, against a database of yours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import rich_click as click

from cron_observer.cli import options
from cron_observer.settings import ROLES


@click.command()
@click.option(
    "--role",
    "roles",
    type=click.Choice(ROLES),
    multiple=True,
    help="What to run; may be repeated. Default: all of them.",
)
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Settings file.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="TCP port to listen on.")
@click.option("--database-url", help="PostgreSQL 15 or newer.")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Folder for mirrors and keys.")
def serve(roles: tuple[str, ...], config: Path | None, **flags: object) -> None:
    """Run roles until SIGTERM or Ctrl-C. The schema must be up to date: run `cron-observer db migrate` first."""
    from cron_observer import log, service
    from cron_observer.errors import DatabaseError

    settings = options.load(flags, config)
    if settings.database_url is None and any(settings.database_of(role) is None for role in roles or ROLES):
        raise DatabaseError(
            "no database is set", hint="set CRON_OBSERVER_DATABASE_URL, or run ./start, which brings its own"
        )
    log.configure(settings.log_format, settings.log_level)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(service.run_roles(settings, set(roles or ROLES)))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the quickest event loop there is."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
