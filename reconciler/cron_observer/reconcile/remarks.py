"""What a pass has to say about files: findings at their lines, with the text around them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from cron_observer.manifest.excerpts import discreet
from cron_observer.model import Finding, Severity
from cron_observer.plan import Plan
from cron_observer.reconcile.gather import Gathered
from cron_observer.source.reader import Reader

#: Findings by file, each with the lines around it.
Remarks = dict[str, list[tuple[Finding, str | None]]]

#: Lines of text around a finding that are kept with it, each cut to so many characters.
_AROUND: Final = 1
_WIDEST: Final = 200


def remarks(found: Gathered, made: Plan, reader: Reader) -> Remarks:
    """Return the findings of every file that was read, and none for those that are gone."""
    told: Remarks = {path: [] for path in found.gone}
    for one in found.desired:
        path = one.file.path
        text = found.texts.get(path, "")
        later = [*found.noted.get(path, ()), *made.findings.get(path, ())]
        told[path] = _excerpted([*one.file.findings, *_placed(later, path, text, reader)], text)
    for path, several in found.ratcheted.items():
        told[path] = _excerpted(several, found.texts.get(path, ""))
    for path, several in made.findings.items():  # what is held where there is no file any more
        if path not in told or path in found.gone:
            told[path] = [(finding, None) for finding in several]
    return told


def erroneous(told: Remarks) -> set[str]:
    """Return the files that have an error."""
    return {path for path, several in told.items() if any(one.severity is Severity.ERROR for one, _ in several)}


def first_error(told: Remarks) -> str | None:
    """Return where the first error is: ``tasks/etl.yaml:9``."""
    errors = [one for several in told.values() for one, _ in several if one.severity is Severity.ERROR]
    if not errors:
        return None
    first = min(errors, key=lambda one: (one.path, one.line or 0))
    return f"{first.path}:{first.line}" if first.line else first.path


def supplied(made: Plan) -> set[str]:
    """Return the paths that tasks in force come from by this plan."""
    return {action.declared.path for action in made.actions if action.declared is not None}


def _excerpted(several: Sequence[Finding], text: str) -> list[tuple[Finding, str | None]]:
    lines = discreet(re.split(r"\r\n|\r|\n", text), several) if several else []
    return [(finding, excerpt(lines, finding.line)) for finding in several]


def _placed(told: Sequence[Finding], path: str, text: str, reader: Reader) -> list[Finding]:
    """Move findings of plans, which know names alone, to the lines that their pointers mean."""
    inner = [one for one in told if one.pointer not in (None, "/metadata/name")]
    if not inner:
        return list(told)
    lines = reader.lines(path, text.encode(), [(one.kind, one.name, str(one.pointer)) for one in inner])
    moved = {id(one): replace(one, line=line) for one, line in zip(inner, lines, strict=True) if line is not None}
    return [moved.get(id(one), one) for one in told]


def excerpt(lines: Sequence[str], line: int | None) -> str | None:
    """Return a line with its neighbours, each with its number: ``11 | timeout: 1h``."""
    if line is None or not 1 <= line <= len(lines):
        return None
    first, last = max(1, line - _AROUND), min(len(lines), line + _AROUND)
    shown = (f"{number} | {lines[number - 1][:_WIDEST]}" for number in range(first, last + 1))
    return "\n".join(shown).replace("\0", " ")


def told_briefly(counts: Mapping[str, int], did: Mapping[str, int], place: str | None) -> str:
    """Say in one line what became of a commit, for the forge: ``3 applied, 1 invalid: tasks/ops/etl.yaml:9``."""
    changed = sum(n for name, n in did.items() if name.rpartition("_")[2] in _CHANGES)
    several = [f"{changed:,} applied" if changed else "nothing to change"]
    if errors := counts.get("errors", 0):
        several.append(f"{errors:,} invalid" + (f": {place}" if place else ""))
    return ", ".join(several)


#: What counts as a change that was applied.
_CHANGES: Final = frozenset({"created", "restored", "renamed", "adopted", "transferred", "updated", "moved", "removed"})
