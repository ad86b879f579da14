"""`cron-observer plan`: what a change of manifests will do, said before it is merged. Offline.

What is heavy is imported when the command runs, so that the help of the others stays fast.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cron_observer.cli.formats import FORMATS, write
from cron_observer.cli.formats.text import explained_all
from cron_observer.cli.outputs import (
    EXIT_FINDINGS,
    CheckCommand,
    UsageError,
    deliver,
    echo,
    environment_option,
    output_options,
    save,
)

if TYPE_CHECKING:
    from cron_observer.review.results import Review

EXIT_CHANGES: Final = 2

#: The forms of the review itself; the others are those of its findings.
_OWN: Final = ("text", "json", "markdown")

#: The longest time for which fires are compared, in days.
MOST_DAYS: Final = 366


@click.command(cls=CheckCommand, short_help="Say what a change of manifests will do.")
@click.option("--base", required=True, metavar="REF", help="What the manifests were: a branch, a tag or a commit.")
@click.option("--head", metavar="REF", help="What they shall be. Default: the files of the work tree.")
@click.option("--direct", is_flag=True, help="Compare with the base itself, not with where head parted from it.")
@click.option("--path", "paths", multiple=True, metavar="PATH", help="Folder, file or glob of manifests; repeatable.")
@click.option("--ignore", multiple=True, metavar="PATH", help="What is left out of that; may be repeated.")
@output_options((*_OWN, *(form for form in FORMATS if form not in _OWN)))
@click.option("--strict", is_flag=True, help="Let warnings fail the check too.")
@click.option("--detailed-exitcode", is_flag=True, help="End with 2 when something changes.")
@environment_option("The environment of the source.")
@click.option("--project", default="default", show_default=True, help="The project of the source; it decides about H.")
@click.option(
    "--days",
    type=click.IntRange(1, MOST_DAYS),
    default=7,
    show_default=True,
    help="For how long fires are compared.",
)
@click.option("--max-deletes", type=click.IntRange(0), default=5, show_default=True, help="As the source has it.")
@click.option(
    "--max-percent", type=click.FloatRange(0, 100), default=20.0, show_default=True, help="As the source has it."
)
@click.option(
    "--failure-policy",
    type=click.Choice(["isolate", "atomic"]),
    default="isolate",
    show_default=True,
    help="As the source has it.",
)
@click.pass_context
def plan(context: click.Context, /, **options: Any) -> None:
    """Say what a change of manifests will do: tasks that come, change and go, and which fires come, go and move.

    Compares the work tree of the current folder's repository, or --head, with the commit in which it parted from
    --base. Reads the repository and changes nothing; needs no server and no network.

    Exit code: 0 when there are no errors, 1 with findings, 64 when the call is wrong; with --detailed-exitcode 2
    when there are no errors and something changes.
    """
    from cron_observer.errors import SourceError

    form, output, sarif, junit = (options.pop(name) for name in ("form", "output", "sarif", "junit"))
    strict, detailed = options.pop("strict"), options.pop("detailed_exitcode")
    try:
        review = _look(**options)
    except SourceError as error:
        if error.reason in ("RefNotFound", "RepositoryNotFound"):
            hint = f"\n{error.hint}" if error.hint else ""
            raise UsageError(f"{error.message}{hint}", context) from error
        raise
    _deliver(review, form, output, sarif, junit)
    if review.failed or (strict and review.findings):
        context.exit(EXIT_FINDINGS)
    if detailed and review.changed:
        context.exit(EXIT_CHANGES)


def _look(
    base: str,
    head: str | None,
    paths: tuple[str, ...],
    ignore: tuple[str, ...],
    days: int,
    *,
    direct: bool,
    **asked: Any,
) -> Review:
    from cron_observer.review.looking import review
    from cron_observer.review.results import Asked
    from cron_observer.source.checkout import Checkout
    from cron_observer.source.trees import Chooser

    with Checkout(Path.cwd()) as checkout:
        wanted = _below(paths, checkout.top)
        choose = Chooser(wanted, _below(ignore, checkout.top))
        old, new = checkout.commit(base), None if head is None else checkout.commit(head)
        if not direct:
            old = checkout.parting(old, new or checkout.commit("HEAD")) or old
        before = checkout.at(old, choose)
        after = checkout.here(choose) if new is None else checkout.at(new, choose)
        _find(zip(paths, wanted, strict=True), (*before.entries, *after.entries))
        return review(
            before,
            after,
            Asked(now=datetime.now(UTC).replace(microsecond=0), span=timedelta(days=days), **asked),
        )


def _below(paths: tuple[str, ...], top: Path) -> tuple[str, ...]:
    """Return paths from the root of the repository: they are given from the current folder."""
    found = []
    for path in paths:
        whole = Path(os.path.abspath(path))  # noqa: PTH100 - links inside the repository are not followed
        if not whole.is_relative_to(top):
            whole = whole.resolve()
        if not whole.is_relative_to(top):
            raise UsageError(f"{click.format_filename(path)!r} is outside of the repository {top}.")
        below = whole.relative_to(top).as_posix()
        found.append("" if below == "." else below)
    return tuple(found)


def _find(asked: Iterable[tuple[str, str]], entries: Iterable[str]) -> None:
    """Raise `UsageError` for a path at which there is nothing: it is misspelt, and nothing would seem to change."""
    from cron_observer.manifest import is_manifest

    known = set(entries)
    for path, wanted in asked:
        if not os.path.lexists(path or ".") and not any(is_manifest(one, (wanted,)) for one in known):
            raise UsageError(f"There is no manifest below {click.format_filename(path)!r}, neither before nor after.")


def _deliver(review: Review, form: str, output: Path | None, sarif: Path | None, junit: Path | None) -> None:
    """Write the review and its findings wherever they are wanted."""
    from cron_observer.manifest import Report
    from cron_observer.review import as_json, markdown, text

    report = Report(findings=list(review.findings), files=review.files, texts=dict(review.texts))
    told = text.write(review)
    if form not in ("json", "markdown"):
        deliver(report, form, None if form == "text" else output, sarif, junit, told, markdown.write(review))
        if form == "text" and output is not None:
            save(output, click.unstyle(explained_all(report) + told))
        return
    written = as_json.write(review) if form == "json" else markdown.write(review)
    if output is None:
        for path, wanted in ((sarif, "sarif"), (junit, "junit")):
            if path is not None:
                save(path, write(wanted, report))
        echo(written)
    else:
        save(output, written)
        deliver(report, "text", None, sarif, junit, told)
