"""Findings for people: message, place, the line itself with the place underlined, and the hint."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from cron_observer.model import Finding, Severity

if TYPE_CHECKING:
    from cron_observer.manifest import Report

_WIDTH: Final = 160  # columns of an excerpt; of longer lines the part around the place is shown
_COLOURS: Final = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


def write(report: Report) -> str:
    """Return every finding with its excerpt, then the totals."""
    return explained_all(report) + totals(report) + "\n"


def explained_all(report: Report) -> str:
    """Return every finding with its excerpt; each is followed by an empty line."""
    texts = _without_secrets(report)
    return "".join(explained(finding, texts) + "\n\n" for finding in report.findings)


def totals(report: Report) -> str:
    """Say in one line what validating came to."""
    found = counted_findings(report)
    return f"checked {counted(report.documents, 'document')} in {counted(report.files, 'file')}: {found}"


def counted_findings(report: Report) -> str:
    """Say how many errors and warnings there are."""
    errors, warnings = report.count(Severity.ERROR), report.count(Severity.WARNING)
    found = [counted(number, word) for number, word in ((errors, "error"), (warnings, "warning")) if number]
    return ", ".join(found) or "no findings"


def counted(number: int, word: str) -> str:
    """Write a number of things, as in ``1,284 documents``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _without_secrets(report: Report) -> dict[str, list[str]]:
    """Return the lines for excerpts; those that may hold a secret are empty."""
    from cron_observer.manifest.excerpts import discreet

    found: dict[str, list[Finding]] = {path: [] for path in report.texts}
    for finding in report.findings:
        if finding.path in found:
            found[finding.path].append(finding)
    return {path: discreet(lines, found[path]) for path, lines in report.texts.items()}


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
