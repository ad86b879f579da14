"""What tasks refer to by name: calendars and a task group of their project. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cron_observer.manifest import rules
from cron_observer.model import Finding, TaskDefinition
from cron_observer.plan.actions import (
    APPLIED,
    CALENDAR,
    GROUP,
    NOUNS,
    REFERENCE_BROKEN,
    TASK,
    Action,
    Actual,
    Key,
    Step,
)
from cron_observer.plan.claims import Claim, Scene

#: The rule that a reference to nothing breaks, by the kind that is referred to.
UNKNOWN: Final = {CALENDAR: rules.UNKNOWN_CALENDAR, GROUP: rules.UNKNOWN_GROUP}


@dataclass(frozen=True, slots=True)
class Reference:
    """A name that a task's spec refers to. `pointer` leads to it inside the spec."""

    kind: str
    name: str
    pointer: str


def references(spec: Mapping[str, Any]) -> list[Reference]:
    """Return what the spec of a task refers to, in the order of its fields."""
    found = [Reference(GROUP, spec["group"], "/group")] if spec.get("group") else []
    named = spec.get("schedule", {}).get("calendars") or {}
    for side in ("include", "exclude"):
        for number, name in enumerate(named.get(side) or ()):
            found.append(Reference(CALENDAR, name, f"/schedule/calendars/{side}/{number}"))
    return found


def missing(one: Reference, known: Collection[str]) -> tuple[str, str]:
    """Say that nobody declares what is referred to, and how to mend it; `known` are the names of its kind."""
    near = difflib.get_close_matches(one.name, known, n=1, cutoff=0.6)
    hint = f'did you mean "{near[0]}"?' if near else f"declare it in a manifest of the project (kind: {one.kind})"
    return f'the {NOUNS[one.kind]} "{one.name}" is not declared', hint


def unknown(one: Reference, known: Collection[Key], name: str) -> Finding:
    """Make the finding of a reference to nothing in a task that came through the API; there are no lines."""
    rule = UNKNOWN[one.kind]
    message, hint = missing(one, [other for kind, other in known if kind == one.kind])
    return Finding(
        severity=rule.severity,
        code=rule.code,
        path="",
        pointer=one.pointer,
        kind=TASK,
        name=name,
        message=message,
        hint=hint,
    )


@dataclass(frozen=True, slots=True)
class Known:
    """The calendars and groups of the project as the pass leaves them; `broken` are kept at an older version."""

    living: Collection[Key]
    broken: Mapping[Key, str]

    @classmethod
    def after(cls, actions: Collection[Action], rows: Mapping[Key, Actual], claims: Mapping[Key, list[Claim]]) -> Known:
        """Look at what is left when `actions` have been carried out on `rows`."""
        applied, kept, removed = (
            {(one.kind, one.name): one for one in actions if one.step in steps}
            for steps in (APPLIED, (Step.KEEP,), (Step.REMOVE,))
        )
        living = {key for key, row in rows.items() if not row.removed}.union(applied) - removed.keys()
        broken = {key: claims[key][0].place if key in claims else str(rows[key].path) for key in kept}
        return cls(living, broken)

    def allows(self, task: TaskDefinition, whole: bytes, row: Actual | None, scene: Scene) -> bool:
        """Tell whether a task may be put in force, and note why not.

        What is broken in the same push only matters to a task that is new or changed: which version of it was
        meant is not known. One that is what it was goes on with what it had.
        """
        changed = row is None or row.removed or row.spec_hash != whole
        good = True
        for one in references(task.spec):
            key = (one.kind, one.name)
            pointer = f"/spec{one.pointer}"
            if key not in self.living:
                names = [name for kind, name in self.living if kind == one.kind]
                scene.findings.add(task, UNKNOWN[one.kind], *missing(one, names), pointer)
                good = False
            elif key in self.broken and changed:
                message = f'the {NOUNS[one.kind]} "{one.name}" is broken in {self.broken[key]}'
                scene.findings.add(task, REFERENCE_BROKEN, message, "mend it first; the task waits for it", pointer)
                good = False
        return good
