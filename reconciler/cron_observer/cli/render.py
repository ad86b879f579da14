"""`cron-observer render`: what tasks are with their defaults, and where each value comes from.

What is heavy is imported when the command runs, so that the help of the others stays fast.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cron_observer.cli.outputs import environment_option
from cron_observer.model import Severity

if TYPE_CHECKING:
    from cron_observer.manifest.rendering import Rendered
    from cron_observer.model import Finding

_FAILURE: Final = 1


@click.command(short_help="Show the effective spec of tasks, and where each value comes from.")
@click.argument("what", metavar="PATH|NAME")
@environment_option("The environment whose patches are applied. Default: none.", "-e")
@click.option("-f", "--format", "style", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@click.pass_context
def render(context: click.Context, /, what: str, environment: str | None, style: str) -> None:
    """Show what tasks are with the Defaults, the Project and the environment that bear upon them. Nothing is asked
    of a server.

    PATH is a file or a folder, whose tasks are shown; NAME is a task that is declared in the current folder or below
    it. Each value comes with its origin: as a comment, or with --format json in the member `origins`.

    Exit code: 0 when everything could be shown, 1 when tasks are not valid or there are none, 64 when the call is
    wrong.
    """
    from cron_observer.manifest.rendering import as_json, as_yaml

    tasks, wrong, nothing = _found(what, environment)
    for one in wrong:
        click.echo(f"{one.path}:{one.line or 1}: error[{one.code}]: {one.message}", err=True)
    if tasks:
        as_text = as_yaml(tasks) if style == "yaml" else json.dumps(as_json(tasks), indent=2, ensure_ascii=False) + "\n"
        click.echo(as_text, nl=False)
    elif not wrong:
        click.echo(f"error: {nothing}", err=True)
    if wrong or not tasks:
        context.exit(_FAILURE)


def _found(what: str, environment: str | None) -> tuple[list[Rendered], list[Finding], str]:
    """Return the tasks that are meant, the errors about them, and what to say if there are neither."""
    from cron_observer.manifest.rendering import rendered
    from cron_observer.manifest.scalars import shown
    from cron_observer.manifest.validate import suggest

    by_path = os.path.lexists(what)
    tasks, report = rendered([Path(what if by_path else ".")], environment)
    wrong = [one for one in report.findings if one.severity is Severity.ERROR]
    if by_path:
        return tasks, wrong, f"{shown(what, 4096)} declares no task"
    near = suggest(what, [one.name for one in tasks])
    nothing = f'there is no file "{shown(what, 4096)}", and no task of that name is declared in this folder or below it'
    named = [one for one in tasks if one.name == what]
    about = [one for one in wrong if one.kind == "Task" and one.name == what]
    return named, about, f'{nothing}; did you mean "{near}"?' if near else nothing
