"""Findings as workflow commands of GitHub and Forgejo, which make annotations of them, and as a summary of the job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cron_observer.cli.formats.identity import hint_of, message_of
from cron_observer.markdown import MOST_BYTES, Paper, code
from cron_observer.model import Finding

if TYPE_CHECKING:
    from cron_observer.manifest import Report

_DATA: Final = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY: Final = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A", ":": "%3A", ",": "%2C"})


def write(report: Report) -> str:
    """Return a command for each finding, errors first: a forge shows only the first few of a step."""
    worst_first = sorted(report.findings, key=lambda one: one.severity)
    return "".join(_command(finding) + "\n" for finding in worst_first)


def _command(finding: Finding) -> str:
    from cron_observer.manifest.scalars import shown

    places = {"file": shown(finding.path.removeprefix("./"), 4096)}
    if finding.line is not None:
        places["line"] = str(finding.line)
        if finding.end_line and finding.end_line >= finding.line:
            places["endLine"] = str(finding.end_line)
        if finding.column:
            places["col"] = str(finding.column)
            if finding.end_column and finding.end_line == finding.line:
                places["endColumn"] = str(max(finding.column, finding.end_column - 1))  # the last one of the place
    places["title"] = finding.code
    hint = hint_of(finding)
    text = message_of(finding) + (f"\nhint: {hint}" if hint else "") + (f"\n{finding.url}" if finding.url else "")
    words = ",".join(f"{name}={value.translate(_PROPERTY)}" for name, value in places.items())
    return f"::{finding.severity} {words}::{text.translate(_DATA)}"


def summary(report: Report) -> str:
    """Return the findings as Markdown for the page of the job, cut off at `MOST_BYTES`."""
    from cron_observer.cli.formats.text import totals

    paper = Paper(MOST_BYTES)
    paper.add("### Manifests\n\n")
    paper.add(totals(report) + "\n\n")
    for finding in sorted(report.findings, key=lambda one: one.severity):
        hint = hint_of(finding)
        place = finding.path + (f":{finding.line}" if finding.line else "")
        line = f"- **{finding.severity}** {_linked(finding)} {code(place)}: {code(message_of(finding))}"
        paper.add(line + (f" — hint: {code(hint)}" if hint else "") + "\n")
    return paper.text("findings")


def _linked(finding: Finding) -> str:
    return f"[{finding.code}]({finding.url})" if finding.url else finding.code
