"""`cron-observer validate`: check manifests offline, as the reconciler would.

What is heavy is imported when the command runs, so that the help of the others stays fast.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cron_observer.model import Finding, Severity

if TYPE_CHECKING:
    from cron_observer.manifest import Report

EXIT_FINDINGS: Final = 1
EXIT_USAGE: Final = 64

_WIDTH: Final = 160  # columns of an excerpt; of longer lines the part around the place is shown
_COLOURS: Final = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


class _UsageError(click.UsageError):
    """The call is wrong; ends with our exit code, whoever calls the command."""

    exit_code = EXIT_USAGE


class _Command(click.Command):
    """A command whose usage errors end with our exit code."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise _UsageError(error.format_message(), error.ctx) from error


@click.command(cls=_Command, short_help="Check manifests offline.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=str))
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How findings are printed.",
)
@click.option("--strict", is_flag=True, help="Let warnings fail the check too.")
@click.pass_context
def validate(context: click.Context, paths: tuple[str, ...], form: str, strict: bool) -> None:
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
        raise _UsageError(f"There is no file or folder {click.format_filename(missing[0])!r}.", context)
    read = [("<stdin>", sys.stdin.buffer.read())] if "-" in paths else []
    report = validate_paths([Path(path) for path in named], read, datetime.now(UTC))
    if form == "json":
        click.echo(json.dumps(_summary(report), indent=2))
    else:
        texts = _without_secrets(report)
        for finding in report.findings:
            _echo(explained(finding, texts) + "\n")
        _echo(_totals(report))
    if report.count(Severity.ERROR) or (strict and report.findings):
        context.exit(EXIT_FINDINGS)


def _echo(text: str) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def _without_secrets(report: Report) -> dict[str, list[str]]:
    """Return the lines for excerpts; those of which a part looks like a secret are empty."""
    from cron_observer.manifest.rules import SECRET

    texts = {path: list(lines) for path, lines in report.texts.items()}
    for finding in report.findings:
        if finding.code == SECRET.code and finding.line is not None and finding.path in texts:
            lines = texts[finding.path]
            for number in range(finding.line, min(finding.end_line or finding.line, len(lines)) + 1):
                lines[number - 1] = ""
    return texts


def _summary(report: Report) -> dict[str, object]:
    findings = [asdict(finding) for finding in report.findings]
    return {"findings": findings, "documents": report.documents, "files": report.files}


def _totals(report: Report) -> str:
    errors, warnings = report.count(Severity.ERROR), report.count(Severity.WARNING)
    found = [_counted(number, word) for number, word in ((errors, "error"), (warnings, "warning")) if number]
    result = ", ".join(found) or "no findings"
    return f"checked {_counted(report.documents, 'document')} in {_counted(report.files, 'file')}: {result}"


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def explained(finding: Finding, texts: Mapping[str, Sequence[str]]) -> str:
    """Return a finding as text: what, where, the line itself with the place underlined, and the hint."""
    from cron_observer.manifest.scalars import shown

    word = click.style(f"{finding.severity}[{finding.code}]", fg=_COLOURS[finding.severity], bold=True)
    lines = [f"{word}: {shown(finding.message, 2000)}"]
    place = shown(finding.path, 4096)
    if finding.line is not None:
        place += f":{finding.line}:{finding.column}" if finding.column else f":{finding.line}"
    lines.append(f"  --> {place}")
    margin = ""
    if finding.line is not None and finding.column is not None:
        text = texts.get(finding.path, ())
        if finding.line <= len(text) and text[finding.line - 1].strip():
            margin = " " * len(str(finding.line))
            lines += _excerpt(finding, text[finding.line - 1].rstrip("\r"), margin)
    if finding.hint:
        lines.append(f"{margin} = hint: {shown(finding.hint, 2000)}")
    return "\n".join(lines)


def _excerpt(finding: Finding, line: str, margin: str) -> list[str]:
    start = (finding.column or 1) - 1
    end = len(line)
    if finding.end_line == finding.line and finding.end_column is not None:
        end = finding.end_column - 1
    end = max(end, start + 1)
    first = max(0, start - _WIDTH // 2) if len(line) > _WIDTH else 0
    before, inside, after = line[first:start], line[start:end], line[end : first + _WIDTH]
    before, inside, after = _escaped(before), _escaped(inside[:_WIDTH]), _escaped(after)
    before = "…" + before if first else before
    carets = click.style("^" * max(1, _columns(inside)), fg=_COLOURS[finding.severity], bold=True)
    return [
        f"{margin} |",
        f"{finding.line} | {before}{inside}{after}",
        f"{margin} | {' ' * _columns(before)}{carets}",
    ]


def _escaped(text: str) -> str:
    """Make control and direction characters of a file's line visible: they could rewrite the screen."""
    from cron_observer.manifest.scalars import shown

    return shown(text.replace("\t", " "), len(text))


def _columns(text: str) -> int:
    """Return how many columns a terminal needs for a text."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
