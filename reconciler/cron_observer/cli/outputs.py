"""Where findings go: to the terminal, into files, and to the page of a job. For `validate` and `plan`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from cron_observer.cli.formats import FORMATS, write

if TYPE_CHECKING:
    from cron_observer.manifest import Report

EXIT_FINDINGS: Final = 1
EXIT_USAGE: Final = 64

#: Where a runner says which file becomes the page of the job.
SUMMARY: Final = "GITHUB_STEP_SUMMARY"

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


class UsageError(click.UsageError):
    """The call is wrong; ends with our exit code, whoever calls the command."""

    exit_code = EXIT_USAGE


class CheckCommand(click.Command):
    """A command whose usage errors end with our exit code."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        """Read the arguments; raise `UsageError` for wrong ones."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise UsageError(error.format_message(), error.ctx) from error


def output_options(forms: Sequence[str] = FORMATS) -> Callable[[_Decorated], _Decorated]:
    """Return a decorator that adds the options which `deliver` takes."""
    file = click.Path(dir_okay=False, path_type=Path)
    options = (
        click.option(
            "--format",
            "form",
            type=click.Choice(list(forms)),
            default="text",
            show_default=True,
            help="How findings are written.",
        ),
        click.option("-o", "--output", type=file, metavar="FILE", help="Write that here, and print text."),
        click.option("--sarif", type=file, metavar="FILE", help="Write SARIF here as well."),
        click.option("--junit", type=file, metavar="FILE", help="Write JUnit XML here as well."),
    )

    def decorate(command: _Decorated) -> _Decorated:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def environment_option(text: str, *names: str) -> Callable[[_Decorated], _Decorated]:
    """Return a decorator that adds ``--environment``; what no environment can be called is a wrong call."""
    return click.option(*names, "--environment", metavar="NAME", help=text, callback=_environment)


def _environment(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    from cron_observer.setting import WrongValueError, a_name

    try:
        return None if value is None else a_name(value)
    except WrongValueError as error:
        raise click.BadParameter(
            f"{click.format_filename(value or '')!r} is no name of an environment: it {error}."
        ) from error


def deliver(
    report: Report,
    form: str,
    output: Path | None = None,
    sarif: Path | None = None,
    junit: Path | None = None,
    told: str | None = None,
    page: str | None = None,
) -> None:
    """Write findings wherever they are wanted; `told` is what is printed for people beside them.

    With the format ``github`` something is also added to the page of the job, if a runner names its file: `page`, or
    the findings. Raises `click.ClickException` for a file that cannot be written.
    """
    from cron_observer.cli.formats import github, text

    for path, wanted in ((sarif, "sarif"), (junit, "junit"), (output, form)):
        if path is not None:
            save(path, click.unstyle(write(wanted, report)))
    if form == "github":
        summarise(github.summary(report) if page is None else page)
    told = text.totals(report) + "\n" if told is None else told
    if form == "text" or output is not None:
        tell(text.explained_all(report) + told)
    elif form == "github":
        tell(write(form, report) + told)
    else:
        echo(write(form, report))


def summarise(markdown: str) -> None:
    """Add Markdown to the page of the job; where nobody asks for it, do nothing."""
    place = os.environ.get(SUMMARY)
    if place:
        save(Path(place), markdown, "a")


def save(path: Path, text: str, mode: str = "w") -> None:
    """Write a file, or add to one. Raises `click.ClickException` where that fails."""
    try:
        with path.open(mode, encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
    except OSError as error:
        raise click.ClickException(f"{click.format_filename(str(path))} cannot be written: {error.strerror}") from error


def tell(text: str) -> None:
    """Print a text for people. In the log of a runner nothing in it is a command but ours.

    Commands in brackets are read anywhere in a line, so that a value of a manifest could be one.
    """
    echo(text.replace("##[", "##\u200b[") if "GITHUB_ACTIONS" in os.environ else text)


def echo(text: str) -> None:
    """Print a text that ends as it is meant to; what the terminal cannot show is escaped.

    Raises `click.ClickException` where that fails.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        plain = False if os.environ.get("NO_COLOR") else None
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False, color=plain)
    except BrokenPipeError:
        raise  # whoever reads has enough
    except OSError as error:
        sys.stdout = None  # or its rest is tried again when the program ends
        raise click.ClickException(f"standard output cannot be written: {error.strerror}") from error
