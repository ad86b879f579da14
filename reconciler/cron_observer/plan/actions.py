"""The words of a plan: what is in force, what is declared, and what is done about it."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

from cron_observer.manifest.rules import Rule
from cron_observer.model import (
    DEFAULTS,
    PROJECT,
    Commit,
    Definition,
    Finding,
    GroupSpec,
    ParsedFile,
    Severity,
    TaskDefinition,
)

TASK: Final = "Task"
CALENDAR: Final = "Calendar"
GROUP: Final = "TaskGroup"

#: How people call a kind.
NOUNS: Final = {
    TASK: "task",
    CALENDAR: "calendar",
    GROUP: "task group",
    DEFAULTS: "set of defaults",
    PROJECT: "project document",
}

#: What says what others are made of.
LAYERS: Final = (DEFAULTS, PROJECT)

#: Kind and name.
Key = tuple[str, str]

OWNED_BY_API: Final = Rule("CO1501", "task is owned by the API")
OWNED_BY_SOURCE: Final = Rule("CO1502", "name is owned by another source")
REFERENCE_BROKEN: Final = Rule("CO1503", "calendar or task group is broken")
RENAME_REFUSED: Final = Rule("CO1504", "task cannot be renamed")
NOT_HANDED_OVER: Final = Rule("CO1505", "other source still declares the name")
IN_USE: Final = Rule("CO1506", "calendar or task group is still used")
HELD: Final = Rule("CO1507", "removal is held", Severity.WARNING)

#: What waits for a name that somebody outside of the source has taken, so that every look has to try again.
OUTSIDE: Final = (OWNED_BY_API.code, OWNED_BY_SOURCE.code, NOT_HANDED_OVER.code)

#: The kinds that tasks and calendars refer to by name.
_REFERRED: Final = (CALENDAR, GROUP)


class Step(StrEnum):
    """What is done about one name."""

    CREATE = "create"
    RESTORE = "restore"
    RENAME = "rename"
    ADOPT = "adopt"
    TRANSFER = "transfer"
    UPDATE = "update"
    MOVE = "move"
    NOOP = "noop"
    KEEP = "keep"
    REMOVE = "remove"
    HOLD = "hold"


#: The steps after which the manifest is in force.
APPLIED: Final = (
    *(Step.CREATE, Step.RESTORE, Step.RENAME, Step.ADOPT, Step.TRANSFER),
    *(Step.UPDATE, Step.MOVE, Step.NOOP),
)

_COUNTED: Final = {
    Step.CREATE: "created",
    Step.RESTORE: "restored",
    Step.RENAME: "renamed",
    Step.ADOPT: "adopted",
    Step.TRANSFER: "transferred",
    Step.UPDATE: "updated",
    Step.MOVE: "moved",
    Step.NOOP: "unchanged",
    Step.KEEP: "kept",
    Step.REMOVE: "removed",
    Step.HOLD: "held",
}

#: What the counts of a kind begin with.
_PREFIX: Final = {TASK: "", CALENDAR: "calendars_", GROUP: "groups_", DEFAULTS: "defaults_", PROJECT: "projects_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Actual:
    """A living row: what is in force under a name. `source_id` is None for a task of the API.

    `generation` is the version of what is no task, which has its `spec` here; a calendar has its digest, and its
    content where a plan may need it. `prune` is ``lifecycle.prune`` of the task's spec in force, None for ``allow``.
    """

    uid: UUID
    project_id: UUID
    kind: str = TASK
    name: str
    spec_hash: bytes
    generation: int
    seed: str | None = None
    source_id: UUID | None = None
    source: str | None = None
    path: str | None = None
    document: int | None = None
    line: int | None = None
    commit: str | None = None
    sync: str | None = None
    removed: bool = False
    deleting: bool = False  #: it is about to be forgotten
    prune: str | None = None
    spec: Mapping[str, Any] | None = None
    digest: str | None = None
    content: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredFile:
    """A file that was read in this pass, and the last commit that touched it."""

    file: ParsedFile
    commit: Commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is done about one name. `declared` and `commit` are the manifest's, None where none is applied.

    `digest` addresses what an applied calendar holds. `held` says what a removal waits for: unparseable, prune_off,
    disabled, handed_over, in_use, or one that an approval releases: confirm, too_many, all_of_kind, empty_tree.
    """

    step: Step
    name: str
    kind: str = TASK
    actual: Actual | None = None
    declared: TaskDefinition | Definition | None = None
    commit: Commit | None = None
    compared: bytes | None = None  #: `spec_hash`, where the step depends on it
    digest: str | None = None
    held: str | None = None
    frees: UUID | None = None  #: a removed task that had the name, and is forgotten for what is created

    @property
    def spec_hash(self) -> bytes:
        """Return the hash of what is declared, empty where nothing is. That of what is new is not known before."""
        if self.compared is not None:
            return self.compared
        return b"" if self.declared is None else hash_of(self.declared)

    @property
    def raises(self) -> bool:
        """Whether the row reaches a new generation thereby; a mere change of name or place does not."""
        if self.step is Step.RENAME:
            return self.actual is None or self.actual.removed or self.spec_hash != self.actual.spec_hash
        return self.step in (Step.CREATE, Step.RESTORE, Step.UPDATE, Step.ADOPT, Step.TRANSFER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """A calendar whose manifest is what it was, and which holds something else because of what it is based on."""

    actual: Actual
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All actions, by kind and name, and what is wrong with files beyond what their own text shows.

    `contents` are those of calendars that are new, by digest. `findings` has an entry, which may be empty, for every
    path at which a removal is or was held, also where the file is gone.
    """

    actions: Sequence[Action]
    findings: Mapping[str, Sequence[Finding]] = field(default_factory=dict)
    refreshed: Sequence[Refreshed] = ()
    contents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plan_hash: str | None = None  #: what an approval of the held removals has to say (`approval_hash`)
    approved: str | None = None  #: the approval that this plan makes use of
    refused: bool = False  #: nothing is applied, because there are errors and the policy is atomic
    lets_go: bool = False  #: something that another source holds for its users may have lost one

    @property
    def held(self) -> list[Action]:
        """Return the removals that wait, for an approval or for something else."""
        return [action for action in self.actions if action.step is Step.HOLD]

    def of(self, *steps: Step, kind: str = TASK) -> list[Action]:
        """Return the actions of a kind that are one of `steps`."""
        return [action for action in self.actions if action.kind == kind and action.step in steps]

    def counts(self) -> dict[str, int]:
        """Return how many tasks were created, updated and so on; what did not occur is left out.

        Calendars and groups are counted beside them (``calendars_created``), but for those that nothing befell.
        """
        seen = Counter((action.kind, action.step) for action in self.actions)
        seen[CALENDAR, Step.UPDATE] += len(self.refreshed)
        return {
            _PREFIX[kind] + _COUNTED[step]: seen[kind, step]
            for kind in _PREFIX
            for step in Step
            if seen[kind, step] and (kind == TASK or step is not Step.NOOP)
        }

    def replanned(self, kind: str) -> set[str]:
        """Return the calendars or groups whose tasks have another plan because of them."""
        names = {one.actual.name for one in self.refreshed} if kind == CALENDAR else set()
        changed = self.of(Step.RESTORE, Step.UPDATE, Step.TRANSFER, kind=kind)
        return names | {action.name for action in changed if _matters(action)}

    @property
    def vanished(self) -> bool:
        """Whether a calendar or group is gone that somebody may refer to."""
        return any(action.step is Step.REMOVE and action.kind in _REFERRED for action in self.actions)

    @property
    def appeared(self) -> bool:
        """Whether there is a calendar or group that somebody may have waited for."""
        return any(action.step in (Step.CREATE, Step.RESTORE) and action.kind in _REFERRED for action in self.actions)

    @property
    def concerns_others(self) -> bool:
        """Whether other sources of the project should look again: they may have waited for what this plan does."""
        handed_over = any(
            action.step is Step.TRANSFER
            or (action.held == "handed_over" and action.actual is not None and action.actual.sync != "HELD")
            for action in self.actions
        )
        return self.vanished or self.appeared or self.lets_go or handed_over


def _matters(action: Action) -> bool:
    """Tell whether tasks that refer to what an action changes are to be planned anew."""
    assert action.actual is not None  # noqa: S101  it was there before
    if action.kind == CALENDAR:
        return action.digest != action.actual.digest
    if action.actual.spec is None or action.declared is None:
        return True
    old, new = GroupSpec.read(action.actual.spec), GroupSpec.read(action.declared.spec)
    return (old.windows, old.timezone, old.suspend) != (new.windows, new.timezone, new.suspend)


_quick: Final = msgspec.json.Encoder(order="deterministic").encode
_FRACTION: Final = re.compile(rb"(?:^|[:,\[])-?\d+[.eE]")
_PERHAPS: Final = re.compile(rb"[0-9][.eE]")  #: is found wherever there is a fraction, and several times as fast


def canonical(value: Any) -> bytes:
    """Write JSON so that equal values are equal bytes."""
    try:
        quick = _quick(value)
    except (msgspec.MsgspecError, OverflowError, TypeError, ValueError):
        quick = b"\\"
    # with neither escapes nor fractions, where they may differ, both write the same
    if b"\\" not in quick and not (_PERHAPS.search(quick) and _FRACTION.search(quick)):
        return quick
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


#: Fields that specs got later, with their defaults. Without one a spec means the same, and what was stored before there
#: was one keeps its hash, hence its generation.
LATER_FIELDS: Final[Mapping[str, Any]] = {"lifecycle": {"prune": "allow"}}


def spec_hash(spec: Mapping[str, Any], labels: Mapping[str, str], annotations: Mapping[str, str]) -> bytes:
    """Return the SHA-256 of what a task is: equal hashes are equal tasks, however they were written."""
    content = dict(spec)
    for name, default in LATER_FIELDS.items():
        if content.get(name) == default:
            del content[name]
    return hashlib.sha256(canonical([content, dict(labels), dict(annotations)])).digest()


def hash_of(declared: TaskDefinition | Definition) -> bytes:
    """Return the hash of what a document declares."""
    if isinstance(declared, TaskDefinition):
        return spec_hash(declared.spec, declared.labels, declared.annotations)
    return spec_hash(declared.spec, {}, {})


class Findings:
    """What is wrong with documents that are valid by themselves, by file."""

    def __init__(self) -> None:
        self.by_path: dict[str, list[Finding]] = {}

    def add(
        self,
        declared: TaskDefinition | Definition,
        rule: Rule,
        message: str,
        hint: str | None,
        pointer: str = "/metadata/name",
    ) -> None:
        """Note what is wrong with a document. The line is that of its name; who has the text may know better."""
        self.by_path.setdefault(declared.path, []).append(
            Finding(
                severity=rule.severity,
                code=rule.code,
                path=declared.path,
                line=declared.line,
                pointer=pointer,
                kind=TASK if isinstance(declared, TaskDefinition) else declared.kind,
                name=declared.name,
                message=message,
                hint=hint,
            )
        )

    def tell(self, row: Actual, rule: Rule, message: str, hint: str | None) -> None:
        """Note something about a row, where it stood last."""
        path = row.path or ""
        self.by_path.setdefault(path, []).append(
            Finding(
                severity=rule.severity,
                code=rule.code,
                path=path,
                line=row.line,
                pointer="/metadata/name",
                kind=row.kind,
                name=row.name,
                message=message,
                hint=hint,
            )
        )
