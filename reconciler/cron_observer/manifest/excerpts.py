"""Lines of a file that may be shown around a finding. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from cron_observer.manifest.rules import SECRET
from cron_observer.manifest.scalars import looks_secret
from cron_observer.manifest.semantics import is_literal, names_secret
from cron_observer.model import Finding

#: A key and what follows it, also in a file that is not YAML: of such a one nothing is known but its lines.
_MEMBER: Final = re.compile(r"(?<![\w-])([\w-]{1,256})[\"']?[ \t]{0,99}:[ \t]+[\"']?(?=\S)")


def discreet(lines: Sequence[str], findings: Iterable[Finding]) -> list[str]:
    """Return the lines of a file; those that hold a secret, or that may for all that one line tells, are empty."""
    found = ["" if _may_tell(line) else line for line in lines]
    for one in findings:
        if one.code == SECRET.code and one.line is not None:
            for number in range(one.line, min(one.end_line or one.line, len(found)) + 1):
                found[number - 1] = ""
    return found


def _may_tell(line: str) -> bool:
    if looks_secret(line):
        return True
    return any(names_secret(member[1]) and is_literal(line[member.end() :]) for member in _MEMBER.finditer(line))
