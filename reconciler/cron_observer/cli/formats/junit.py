"""Findings as JUnit XML, which test viewers read: a suite for each file, a case for each document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from cron_observer.cli.formats.identity import hint_of, message_of
from cron_observer.model import Finding, Severity

if TYPE_CHECKING:
    from cron_observer.manifest import Report
    from cron_observer.manifest.tree import Outline


def write(report: Report) -> str:
    """Return a document of suites. Errors are failures; warnings are told in the output of a case that passes."""
    outlines = {_safe(path): several for path, several in report.outlines.items()}
    found: dict[str, list[Finding]] = {path: [] for path in outlines}
    for finding in report.findings:
        found.setdefault(_safe(finding.path), []).append(finding)
    root = Element("testsuites", name="cron-observer")
    for path in sorted(found):
        root.append(_suite(path, outlines.get(path, ()), found[path]))
    for name in ("tests", "failures"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    root.set("errors", "0")
    indent(root)
    # As ASCII with references, so that it is what its first line says wherever it is printed.
    text: bytes = tostring(root, encoding="us-ascii")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text.decode("ascii")}\n'


def _suite(path: str, outlines: Sequence[Outline], findings: Sequence[Finding]) -> Element:
    """Make the suite of a file. What belongs to no document of it is a case called ``file``."""
    suite = Element("testsuite", name=path)
    cases: dict[int, list[Finding]] = {index: [] for index in range(len(outlines))}
    for finding in findings:
        cases.setdefault(_place(finding, outlines), []).append(finding)
    for index, ours in sorted(cases.items()):
        outline = outlines[index] if index >= 0 else None
        name = "file" if outline is None else _title(outline, index)
        case = SubElement(suite, "testcase", classname=path, name=name, file=path)
        if outline is not None:
            case.set("line", str(outline.line))
        _fill(case, ours)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in suite)))
    suite.set("errors", "0")
    suite.set("skipped", "0")
    return suite


def _place(finding: Finding, outlines: Sequence[Outline]) -> int:
    """Return the number of the document that a finding is about: the last that begins at its line or above."""
    if finding.line is None:
        return -1
    return max((index for index, one in enumerate(outlines) if one.line <= finding.line), default=-1)


def _title(outline: Outline, index: int) -> str:
    words = f"{outline.kind or 'document'} {outline.name or index + 1}"
    return _safe(words)


def _fill(case: Element, findings: Sequence[Finding]) -> None:
    warnings = []
    for finding in findings:
        place = f"{_safe(finding.path)}:{finding.line or 1}" + (f":{finding.column}" if finding.column else "")
        hint = hint_of(finding)
        said = f"{place}: {finding.severity}[{finding.code}]: {message_of(finding)}"
        said += f"\nhint: {hint}" if hint else ""
        if finding.severity is Severity.ERROR:
            failure = SubElement(case, "failure", type=finding.code, message=message_of(finding))
            failure.text = said
        else:
            warnings.append(said)
    if warnings:
        SubElement(case, "system-out").text = "\n".join(warnings)


def _safe(text: str) -> str:
    from cron_observer.manifest.scalars import shown

    return shown(text, 4096)
