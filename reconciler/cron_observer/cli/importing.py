"""`cron-observer import`: other schedulers' files to manifests, saying what could not be said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cron_observer.errors import ScheduleError

if TYPE_CHECKING:
    from cron_observer.importing import Imported, Note

#: Files that we read; a crontab or a cluster's CronJobs are far smaller.
_MOST_BYTES: Final = 16 * 1024 * 1024
_STDIN: Final = "<stdin>"


@click.group("import")
def importing() -> None:
    """Write manifests from crontabs and Kubernetes CronJobs.

    Manifests are printed, or written below --output, one file a task. What they do not say as the file did is told
    on standard error, each piece with its line. What cannot be imported makes the exit code 1; the rest is written.
    """


_FILES: Final = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=str))
_OUTPUT: Final = click.option(
    "--output", "-o", type=click.Path(path_type=Path, file_okay=False), help="Folder to write into, one file a task."
)
_FORCE: Final = click.option("--force", is_flag=True, help="Replace files that are there.")
_QUEUE: Final = click.option("--queue", help="Queue of the tasks. Default: default.")


@importing.command()
@_FILES
@click.option("--timezone", default="UTC", show_default=True, help="Zone of the machine whose crontab it is.")
@click.option(
    "--system/--user",
    default=None,
    help="Whether lines name a user. Default: those of /etc/crontab and /etc/cron.d do.",
)
@_QUEUE
@_OUTPUT
@_FORCE
@click.pass_context
def crontab(
    context: click.Context,
    files: tuple[str, ...],
    timezone: str,
    system: bool | None,
    queue: str | None,
    output: Path | None,
    force: bool,
) -> None:
    """Import crontabs; `-` reads standard input: crontab -l | cron-observer import crontab -."""
    from cron_observer.importing import Imported, read_crontab
    from cron_observer.schedule import zones

    try:
        zones.zone(timezone)
    except ScheduleError as error:
        raise click.UsageError(f"--timezone: {error.message} {error.hint or ''}".strip()) from error
    all_of = Imported()
    for name in files:
        lines_name_users = name.startswith(("/etc/crontab", "/etc/cron.d/")) if system is None else system
        one = read_crontab(_read(name), system=lines_name_users, timezone=timezone, queue=queue)
        all_of.take(one, _STDIN if name == "-" else name)
    _end(context, all_of, output, force=force)


@importing.command()
@_FILES
@_QUEUE
@_OUTPUT
@_FORCE
@click.pass_context
def k8s(context: click.Context, files: tuple[str, ...], queue: str | None, output: Path | None, force: bool) -> None:
    """Import CronJobs; `-` reads standard input: kubectl get cronjobs -A -o yaml | cron-observer import k8s -."""
    from cron_observer.importing import Imported, read_cronjobs

    all_of = Imported()
    for name in files:
        all_of.take(read_cronjobs(_read(name), queue=queue), _STDIN if name == "-" else name)
    _end(context, all_of, output, force=force)


def _read(name: str) -> str:
    try:
        data = sys.stdin.buffer.read(_MOST_BYTES + 1) if name == "-" else Path(name).read_bytes()
        if len(data) > _MOST_BYTES:
            raise click.ClickException(f"{name} has more than {_MOST_BYTES:,} bytes")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise click.ClickException(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{name} is not UTF-8: byte {error.start}") from error


def _end(context: click.Context, found: Imported, output: Path | None, *, force: bool) -> None:
    from cron_observer.importing import finish, written

    done = finish(found)
    if output is None:
        if done.tasks:
            click.echo(written(done.tasks), nl=False)
    else:
        _write(done, output, force=force)
    for note in done.notes:
        click.echo(_told(note), err=True)
    refused = len(done.refused)
    count = f"{len(done.tasks):,} {'task' if len(done.tasks) == 1 else 'tasks'} imported"
    click.echo(f"{count}, {refused:,} refused" if refused else count, err=True)
    if refused or not done.tasks:
        context.exit(1)


def _told(note: Note) -> str:
    from cron_observer.manifest.scalars import shown

    place = f"{note.path}:{note.line}" if note.line else note.path
    return f"{shown(place, 4096)}: {shown(note.message, 1000)}"


def _write(done: Imported, folder: Path, *, force: bool) -> None:
    from cron_observer.importing import written

    paths = {task.name: folder / f"{task.name}.yaml" for task in done.tasks}
    there = [path for path in paths.values() if path.exists()]
    if there and not force:
        raise click.ClickException(f"{there[0]} is there already; nothing was written. --force replaces files.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for task in done.tasks:
            paths[task.name].write_text(written([task]), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{error.filename} cannot be written: {error.strerror}") from error
