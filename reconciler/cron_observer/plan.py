"""Decide what an apply changes: `plan` compares what a source declares with what is in force. Pure.

A task is its name inside its project, not its file: a task that moves to another file stays the same task. For
every name that is touched there is exactly one action:

======== ==================================================================================================
create   the name is new
restore  the task had been removed and is declared again: same uid, history kept
update   spec, labels or annotations differ: the generation rises
move     only the place or its commit differs: no new generation
noop     nothing differs
keep     it is declared, but not in a way that can be applied: the last good version stays in force
remove   it is declared nowhere any more: no more slots, history kept
hold     it would be removed, but there are files of which nobody knows what they declare
======== ==================================================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from cron_observer.manifest import rules
from cron_observer.manifest.rules import Rule
from cron_observer.model import Commit, Finding, ParsedFile, Severity, TaskDefinition

OWNED_BY_API: Final = Rule("CO1501", "task is owned by the API")
OWNED_BY_SOURCE: Final = Rule("CO1502", "task is owned by another source")

#: What waits for something outside of the source, so that every look has to try again.
OUTSIDE: Final = (OWNED_BY_API.code, OWNED_BY_SOURCE.code)


class Step(StrEnum):
    """What is done about one task."""

    CREATE = "create"
    RESTORE = "restore"
    UPDATE = "update"
    MOVE = "move"
    NOOP = "noop"
    KEEP = "keep"
    REMOVE = "remove"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actual:
    """A living row of `tasks`: what is in force under a name. `source_id` is None for a task of the API."""

    uid: UUID
    project_id: UUID
    name: str
    spec_hash: bytes
    generation: int
    source_id: UUID | None = None
    source: str | None = None
    path: str | None = None
    document: int | None = None
    line: int | None = None
    commit: str | None = None
    sync: str | None = None
    removed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredFile:
    """A file that was read in this pass, and the last commit that touched it."""

    file: ParsedFile
    commit: Commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is done about one task. `task` and `commit` are those of the manifest, None where none is applied."""

    step: Step
    name: str
    actual: Actual | None = None
    task: TaskDefinition | None = None
    commit: Commit | None = None
    spec_hash: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All actions, by name, and what is wrong with files beyond what their own text shows."""

    actions: Sequence[Action]
    findings: Mapping[str, Sequence[Finding]] = field(default_factory=dict)

    def of(self, *steps: Step) -> list[Action]:
        """Return the actions that are one of `steps`."""
        return [action for action in self.actions if action.step in steps]

    def counts(self) -> dict[str, int]:
        """Return how many tasks were created, updated and so on; kinds that did not occur are left out."""
        seen = Counter(action.step for action in self.actions)
        return {_COUNTED[step]: seen[step] for step in Step if seen[step]}


_COUNTED: Final = {
    Step.CREATE: "created",
    Step.RESTORE: "restored",
    Step.UPDATE: "updated",
    Step.MOVE: "moved",
    Step.NOOP: "unchanged",
    Step.KEEP: "kept",
    Step.REMOVE: "removed",
    Step.HOLD: "held",
}


def canonical(value: Any) -> bytes:
    """Write JSON so that equal values are equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def spec_hash(spec: Mapping[str, Any], labels: Mapping[str, str], annotations: Mapping[str, str]) -> bytes:
    """Return the SHA-256 of what a task is: equal hashes are equal tasks, however they were written."""
    return hashlib.sha256(canonical([dict(spec), dict(labels), dict(annotations)])).digest()


@dataclass(frozen=True, slots=True)
class _Claim:
    """A document that declares a name; `task` is None when it is broken."""

    desired: DesiredFile
    task: TaskDefinition | None

    @property
    def path(self) -> str:
        return self.desired.file.path


@dataclass(frozen=True, slots=True)
class _Scene:
    """What decisions about a name are made from."""

    source_id: UUID
    project_id: UUID
    gone: frozenset[str]
    read: Mapping[str, DesiredFile]
    holding: bool

    def still_declares(self, row: Actual) -> bool:
        """Tell whether the file that `row` comes from declares it for all that is known.

        A file that was not read in this pass has not changed and was valid, so it declares whatever is in sync
        with it. Of one that cannot be parsed nobody knows.
        """
        if row.removed or row.path is None or row.path in self.gone:
            return False
        read = self.read.get(row.path)
        if read is not None:
            return not read.file.parseable and row.sync != "HELD"
        return row.sync == "SYNCED"


def plan(
    desired: Sequence[DesiredFile],
    gone: Iterable[str],
    actual: Sequence[Actual],
    *,
    source_id: UUID,
    project_id: UUID,
) -> Plan:
    """Compare the files read in this pass, and the paths that are `gone`, with what is in force.

    `desired` holds every file that changed and every one that had findings before, so that whatever is not in
    it is unchanged and valid. `actual` holds the source's tasks of those paths, those that are not in sync,
    and whatever lives under the names that `desired` declares.
    """
    read = {one.file.path: one for one in desired}
    holding = any(not one.file.parseable for one in desired)
    scene = _Scene(source_id, project_id, frozenset(gone), read, holding)
    claims: dict[str, list[_Claim]] = {}
    for one in desired:
        for task in one.file.tasks:
            claims.setdefault(task.name, []).append(_Claim(one, task))
        for name in one.file.broken_names:
            claims.setdefault(name, []).append(_Claim(one, None))
    rows = {row.name: row for row in actual if row.project_id == project_id}
    findings: dict[str, list[Finding]] = {}
    actions = []
    for name in sorted(claims.keys() | rows.keys()):
        action = _decide(claims.get(name, []), rows.get(name), scene, findings)
        if action is not None:
            actions.append(action)
    # The source was moved to another project: what it had declared in the old one is declared there no more.
    strays = [row for row in actual if row.project_id != project_id and row.source_id == source_id]
    actions += [_unclaimed(row, scene) for row in strays if not row.removed]
    return Plan(actions=tuple(actions), findings=findings)


def _decide(
    claims: list[_Claim], row: Actual | None, scene: _Scene, findings: dict[str, list[Finding]]
) -> Action | None:
    if row is not None and row.source_id != scene.source_id and not (row.removed and row.source_id):
        for claim in claims:
            if claim.task is not None:
                _add(findings, claim.task, *_owned(row))
        return None
    if not claims:
        if row is None or row.removed:
            return None
        return _stay(row, scene) if scene.still_declares(row) else _unclaimed(row, scene)
    chosen = _choose(claims, row, scene, findings)
    if chosen is None or chosen.task is None:
        return None if row is None or row.removed else _stay(row, scene)
    return _place(chosen.task, chosen.desired.commit, row)


def _choose(
    claims: list[_Claim], row: Actual | None, scene: _Scene, findings: dict[str, list[Finding]]
) -> _Claim | None:
    """Return the claim that counts, and refuse the others: whoever has the name keeps it, newcomers are errors."""
    incumbent: _Claim | None = None
    if row is not None and not row.removed:
        at_home = [claim for claim in claims if claim.path == row.path]
        if len(at_home) == 1:
            incumbent = at_home[0]
        elif not at_home and scene.still_declares(row):
            for claim in claims:
                _refuse(findings, claim, f"{row.path}:{row.line}")
            return None
    if len(claims) == 1:
        return claims[0]
    for claim in claims:
        if claim is not incumbent:
            other = incumbent or next(rival for rival in claims if rival is not claim)
            _refuse(findings, claim, _where(other))
    return incumbent


def _where(claim: _Claim) -> str:
    return claim.path if claim.task is None else f"{claim.path}:{claim.task.line}"


def _refuse(findings: dict[str, list[Finding]], claim: _Claim, other: str) -> None:
    if claim.task is not None:
        message = f'the task "{claim.task.name}" is declared in {other} too'
        _add(findings, claim.task, rules.DUPLICATE_NAME, message, "rename one of them, or remove it")


def _owned(row: Actual) -> tuple[Rule, str, str]:
    if row.source_id is None:
        message = f'the task "{row.name}" was created through the API, which owns it'
        return OWNED_BY_API, message, "delete it through the API, or choose another name"
    message = f'the task "{row.name}" is owned by the source "{row.source}" ({row.path})'
    return OWNED_BY_SOURCE, message, "remove it there first, or choose another name"


def _add(findings: dict[str, list[Finding]], task: TaskDefinition, rule: Rule, message: str, hint: str) -> None:
    findings.setdefault(task.path, []).append(
        Finding(
            severity=Severity.ERROR,
            code=rule.code,
            path=task.path,
            line=task.line,
            pointer="/metadata/name",
            kind="Task",
            name=task.name,
            message=message,
            hint=hint,
        )
    )


def _stay(row: Actual, scene: _Scene) -> Action | None:
    """Leave a task as it is: one that its unchanged file declares is in sync, any other is kept."""
    if scene.still_declares(row) and row.path not in scene.read:
        return None
    return Action(step=Step.KEEP, name=row.name, actual=row)


def _unclaimed(row: Actual, scene: _Scene) -> Action:
    return Action(step=Step.HOLD if scene.holding else Step.REMOVE, name=row.name, actual=row)


def _place(task: TaskDefinition, commit: Commit, row: Actual | None) -> Action:
    whole = spec_hash(task.spec, task.labels, task.annotations)
    if row is None:
        step = Step.CREATE
    elif row.removed:
        step = Step.RESTORE
    elif whole != row.spec_hash:
        step = Step.UPDATE
    else:
        here = (task.path, task.document, task.line, commit.id, "SYNCED")
        there = (row.path, row.document, row.line, row.commit, row.sync)
        step = Step.NOOP if here == there else Step.MOVE
    return Action(step=step, name=task.name, actual=row, task=task, commit=commit, spec_hash=whole)
