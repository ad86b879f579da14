"""Findings as JSON: the members of the wire."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cron_observer.manifest import Report


def write(report: Report) -> str:
    """Return ``{"findings", "documents", "files"}``."""
    findings = [asdict(finding) for finding in report.findings]
    return json.dumps({"findings": findings, "documents": report.documents, "files": report.files}, indent=2) + "\n"
