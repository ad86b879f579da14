"""Findings as SARIF 2.1.0, which code scanners read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from cron_observer.cli.formats.identity import fingerprints, hint_of, message_of
from cron_observer.model import Finding, Severity

if TYPE_CHECKING:
    from cron_observer.manifest import Report

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_HOME: Final = "https://cron-observer.dev"

#: What our fingerprints are called; the number rises when they are made in another way.
_FINGERPRINT: Final = "cronObserverIdentity/v1"

_LEVELS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning"}

#: In messages braces are placeholders and brackets begin links: whoever means them says so.
_LITERAL: Final = str.maketrans({"{": "{{", "}": "}}", "[": "\\[", "]": "\\]", "\\": "\\\\"})


def write(report: Report) -> str:
    """Return a log with one run; relative paths are those from the root of the repository."""
    codes = sorted({finding.code for finding in report.findings})
    number = {code: index for index, code in enumerate(codes)}
    first = {finding.code: finding for finding in reversed(report.findings)}
    run = {
        "tool": {
            "driver": {
                "name": "cron-observer",
                "semanticVersion": _version(),
                "informationUri": _HOME,
                "rules": [_rule(first[code]) for code in codes],
            }
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True}],
        "results": [
            _result(finding, number[finding.code], print_) for finding, print_ in fingerprints(report.findings)
        ],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _version() -> str:
    from importlib.metadata import version

    return version("cron-observer")


def _rule(finding: Finding) -> dict[str, Any]:
    level = _LEVELS[finding.severity]
    rule: dict[str, Any] = {"id": finding.code, "defaultConfiguration": {"level": level}}
    title = _titles().get(finding.code)
    if title is not None:
        rule["shortDescription"] = {"text": title}
    if finding.url:
        rule["helpUri"] = finding.url
    return rule


def _titles() -> dict[str, str]:
    """Return what the codes are called."""
    from cron_observer import schedule
    from cron_observer.manifest import RULES
    from cron_observer.manifest.rules import Rule
    from cron_observer.plan import actions
    from cron_observer.review import warnings

    ours = (one for room in (actions, warnings) for one in vars(room).values() if isinstance(one, Rule))
    return {**schedule.CODES, **{rule.code: rule.title for rule in (*RULES.values(), *ours)}}


def _result(finding: Finding, rule: int, fingerprint: str) -> dict[str, Any]:
    hint = hint_of(finding)
    text = message_of(finding) + (f" (hint: {hint})" if hint else "")
    # What is said of a file as a whole stands at its first line: scanners show nothing that has no line.
    place = {"artifactLocation": artifact(finding.path), "region": _region(finding, finding.line or 1)}
    location: dict[str, Any] = {"physicalLocation": place}
    if finding.name and finding.kind:
        location["logicalLocations"] = [
            {"name": finding.name, "fullyQualifiedName": f"{finding.kind}/{finding.name}", "kind": "object"}
        ]
    return {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": text.translate(_LITERAL)},
        "locations": [location],
        "partialFingerprints": {_FINGERPRINT: fingerprint},
    }


def artifact(path: str) -> dict[str, str]:
    """Return the place of a file: a URI, relative where the path is."""
    if Path(path).is_absolute():
        return {"uri": "file://" + quote(os.fsencode(path))}
    return {"uri": quote(os.fsencode(path.removeprefix("./"))), "uriBaseId": "%SRCROOT%"}


def _region(finding: Finding, line: int) -> dict[str, int]:
    region = {"startLine": line}
    if finding.column:
        region["startColumn"] = finding.column
    if finding.end_line and finding.end_line >= line:
        region["endLine"] = finding.end_line
        if finding.column and finding.end_column:
            region["endColumn"] = finding.end_column
    return region
