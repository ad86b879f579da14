"""`cron-observer validate`: check manifests offline, as the reconciler would.

What is heavy is imported when the command runs, so that the help of the others stays fast.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cron_observer.cli.outputs import (
    EXIT_FINDINGS,
    CheckCommand,
    UsageError,
    deliver,
    environment_option,
    output_options,
)
from cron_observer.model import Severity


@click.command(cls=CheckCommand, short_help="Check manifests offline.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=str))
@output_options()
@click.option("--strict", is_flag=True, help="Let warnings fail the check too.")
@environment_option("Judge tasks as in this environment. Default: each that they name.")
@click.pass_context
def validate(
    context: click.Context, /, paths: tuple[str, ...], strict: bool, environment: str | None, **outputs: Any
) -> None:
    """Check manifests offline, without a database and without credentials.

    PATHS are files and folders; `-` reads one manifest from standard input. Without PATHS the current
    folder is checked. In folders every *.yaml and *.yml counts, except in those that begin with a dot.
    Calendar files are read where calendars name them. Names that a file alone leaves open are only noted.

    Exit code: 0 when everything is right, 1 with findings, 64 when the call is wrong.
    """
    from cron_observer.manifest import validate_paths

    named = [path for path in (paths or (".",)) if path != "-"]
    missing = [path for path in named if not os.path.lexists(path)]
    if missing:
        raise UsageError(f"There is no file or folder {click.format_filename(missing[0])!r}.", context)
    read = [("<stdin>", sys.stdin.buffer.read())] if "-" in paths else []
    report = validate_paths([Path(path) for path in named], read, datetime.now(UTC), environment=environment)
    here = Path.cwd()
    report.root = next((one for one in (here, *here.parents) if (one / ".git").exists()), None)
    deliver(report, **outputs)
    if report.count(Severity.ERROR) or (strict and report.findings):
        context.exit(EXIT_FINDINGS)
