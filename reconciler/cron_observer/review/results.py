"""What a review found, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cron_observer.model import Finding, Severity
from cron_observer.plan import Step
from cron_observer.review.fires import FireDiff


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a review is asked for. `environment`, `project` and the guards are those of the source, as far as known."""

    now: datetime
    span: timedelta = timedelta(days=7)
    environment: str | None = None
    project: str = "default"
    max_deletes: int = 5
    max_percent: float = 20.0
    failure_policy: str = "isolate"
    most_fires: int = 2_000_000  #: compared in all; of tasks beyond, only what the manifests say is told


@dataclass(frozen=True, slots=True)
class Field:
    """One value that differs. `pointer` is a JSON pointer inside the document; what is `ABSENT` is not there."""

    pointer: str
    before: Any
    after: Any


class _Absent:
    """The value of a field that is not there."""

    def __repr__(self) -> str:
        return "ABSENT"


#: In place of a value: there is none.
ABSENT = _Absent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of one name. Of what is removed, held or kept, `path` and `line` are those that it had.

    `because` names what makes it change although its own file does not. `fires` is None where no fire can differ.
    """

    step: Step
    kind: str
    name: str
    path: str
    line: int
    was: str | None = None  #: the former name
    moved_from: str | None = None  #: the former path
    fields: Sequence[Field] = ()
    because: Sequence[str] = ()
    held: str | None = None
    errors: int = 0  #: why the last good version is kept
    fires: FireDiff | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """All of it. `base` and `head` are commits, None for the work tree. `texts` are lines for excerpts, by path."""

    asked: Asked
    base: str
    head: str | None
    files: int  #: manifests and calendar files that differ
    changes: Sequence[Change] = ()
    findings: Sequence[Finding] = ()
    texts: Mapping[str, list[str]] = field(default_factory=dict)
    refused: bool = False  #: nothing would be applied, because there are errors and the policy is atomic
    uncompared: int = 0  #: tasks with another schedule of which no fires were compared: there are too many in all

    @property
    def changed(self) -> bool:
        """Whether an apply would change anything."""
        return any(one.step not in (Step.HOLD, Step.KEEP) for one in self.changes)

    @property
    def failed(self) -> bool:
        """Whether there are errors."""
        return any(one.severity is Severity.ERROR for one in self.findings)

    def counts(self) -> dict[str, int]:
        """Return how many names each step befalls, in the order of the steps."""
        seen = Counter(one.step for one in self.changes)
        return {str(step): seen[step] for step in Step if seen[step]}

    def fire_counts(self) -> dict[str, int]:
        """Return how many fires are removed, added and moved in all."""
        diffs = [one.fires for one in self.changes if one.fires is not None]
        return {
            "removed": sum(len(one.removed) for one in diffs),
            "added": sum(len(one.added) for one in diffs),
            "moved": sum(len(one.moved) for one in diffs),
        }


def fields_of(before: Mapping[str, Any], after: Mapping[str, Any], at: str = "") -> list[Field]:
    """Return the values that differ, by pointer. Mappings are gone into; lists and all else are values."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        pointer = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
        old, new = before.get(name, ABSENT), after.get(name, ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += fields_of(old, new, pointer)
        elif old is ABSENT or new is ABSENT or type(old) is not type(new) or old != new:
            found.append(Field(pointer, old, new))
    return found
