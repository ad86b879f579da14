"""Findings as a Code Quality report of GitLab."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from cron_observer.cli.formats.identity import fingerprints, hint_of, message_of
from cron_observer.model import Finding, Severity

if TYPE_CHECKING:
    from cron_observer.manifest import Report

_SEVERITIES: Final = {Severity.ERROR: "major", Severity.WARNING: "minor"}


def write(report: Report) -> str:
    """Return an array of findings. GitLab shows one of those with equal fingerprints, so there are no equal ones."""
    return json.dumps([_issue(*one) for one in fingerprints(report.findings, placed=True)], indent=2) + "\n"


def _issue(finding: Finding, fingerprint: str) -> dict[str, object]:
    from cron_observer.manifest.scalars import shown

    hint = hint_of(finding)
    return {
        "description": message_of(finding) + (f" (hint: {hint})" if hint else ""),
        "check_name": finding.code,
        "fingerprint": fingerprint,
        "severity": _SEVERITIES[finding.severity],
        "location": {
            "path": shown(finding.path.removeprefix("./"), 4096),
            "lines": {"begin": finding.line or 1, "end": max(finding.line or 1, finding.end_line or 0)},
        },
    }
