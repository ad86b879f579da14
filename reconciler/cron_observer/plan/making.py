"""The plan as a whole: groups and calendars first, because tasks refer to them; then renames, then tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from cron_observer.model import Finding, Severity, TaskDefinition
from cron_observer.plan.actions import CALENDAR, GROUP, TASK, Action, Actual, DesiredFile, Findings, Key, Plan, Step
from cron_observer.plan.claims import Claim, Scene, claims_of, decide, stay, unclaimed
from cron_observer.plan.contents import Files, resolve
from cron_observer.plan.guards import guarded, told
from cron_observer.plan.layers import decide_layers
from cron_observer.plan.limits import within_limit
from cron_observer.plan.references import Known
from cron_observer.plan.renames import renames
from cron_observer.plan.terms import NO_TERMS, Terms


def plan(
    desired: Sequence[DesiredFile],
    gone: Iterable[str],
    actual: Sequence[Actual],
    *,
    source_id: UUID,
    project_id: UUID,
    files: Files | None = None,
    terms: Terms = NO_TERMS,
) -> Plan:
    """Compare the files read in this pass, and the paths that are `gone`, with what is in force, under `terms`.

    `desired` holds every file that changed and every one that had findings before, so that whatever is not in
    it is unchanged and valid. `actual` holds the source's tasks of those paths, those that are not in sync,
    whatever lives under the names that `desired` declares or renames from, and all that is no task of the
    project, with contents if a calendar is among what was read. `files` are the calendar files of what was read.
    """
    work = _Work(
        desired=desired,
        gone=frozenset(gone),
        actual=actual,
        source_id=source_id,
        project_id=project_id,
        files=files or {},
        terms=terms,
        claims=claims_of(desired),
        rows={(row.kind, row.name): row for row in actual if row.project_id == project_id},
    )
    made = guarded(work.attempt, terms)
    findings = told(made, actual, source_id, terms)
    everything = [*(one for several in findings.values() for one in several), *work.parsed()]
    if terms.failure_policy == "atomic" and any(one.severity is Severity.ERROR for one in everything):
        return Plan(actions=(), findings=findings, refused=True)
    return replace(made, findings=findings, lets_go=_lets_go(made, actual, source_id))


#: The steps after which a row may refer to something else than before.
_CHANGING: Final = (Step.UPDATE, Step.RENAME, Step.ADOPT, Step.TRANSFER, Step.REMOVE)


def _lets_go(made: Plan, actual: Sequence[Actual], source_id: UUID) -> bool:
    """Tell whether another source holds a calendar or group that this plan may have freed of a user."""
    shared = (row for row in actual if row.kind in (CALENDAR, GROUP) and row.source_id != source_id)
    return any(row.sync == "HELD" for row in shared) and any(one.step in _CHANGING for one in made.actions)


def at_risk(
    desired: Sequence[DesiredFile],
    gone: Iterable[str],
    actual: Sequence[Actual],
    *,
    source_id: UUID,
    project_id: UUID,
) -> list[Key]:
    """Return what a plan may remove: `Terms.holders` and `Terms.awaited` need to know of nothing else."""
    ours = [row for row in actual if row.source_id == source_id and row.project_id == project_id and not row.removed]
    if not ours:
        return []
    claims = claims_of(desired)
    read = {one.file.path: one for one in desired}
    scene = Scene(source_id, project_id, frozenset(gone), read, Findings())
    lost = [row for row in ours if (row.kind, row.name) not in claims and not scene.still_declares(row)]
    return sorted((row.kind, row.name) for row in lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What a plan is made from; `attempt` makes it, as often as guards hold something more."""

    desired: Sequence[DesiredFile]
    gone: frozenset[str]
    actual: Sequence[Actual]
    source_id: UUID
    project_id: UUID
    files: Files
    terms: Terms
    claims: Mapping[Key, list[Claim]]
    rows: Mapping[Key, Actual]

    def parsed(self) -> Iterable[Finding]:
        """Return what is wrong with the files themselves."""
        return (finding for one in self.desired for finding in one.file.findings)

    def attempt(self, holds: Mapping[UUID, str]) -> Plan:
        """Plan once; rows of `holds` are not removed."""
        findings = Findings()
        read = {one.file.path: one for one in self.desired}
        scene = Scene(self.source_id, self.project_id, self.gone, read, findings, self.terms, holds)
        claims, rows = self.claims, self.rows
        keys = sorted(claims.keys() | rows.keys())
        shared = (decide(key, claims.get(key, []), rows.get(key), scene) for key in keys if key[0] in (CALENDAR, GROUP))
        resolved = resolve([one for one in shared if one is not None], rows, self.files, scene)
        known = Known.after(resolved.actions, rows, claims)
        renamed = renames(claims, rows, scene, known)
        tasks = list(renamed.actions)
        for key in keys:
            if key[0] == TASK and key not in renamed.done:
                one = _allowed(decide(key, claims.get(key, []), rows.get(key), scene), known, scene)
                tasks += [] if one is None else [one]
        # The source was moved to another project: what it had declared in the old one is declared there no more.
        strays = [row for row in self.actual if row.project_id != self.project_id and row.source_id == self.source_id]
        tasks += [unclaimed(row, scene) for row in strays if not row.removed]
        actions = [*decide_layers(claims, rows, scene), *resolved.actions, *within_limit(tasks, scene)]
        return Plan(
            actions=tuple(sorted(actions, key=lambda one: (one.kind, one.name))),
            findings=findings.by_path,
            refreshed=tuple(resolved.refreshed),
            contents=resolved.contents,
        )


def _allowed(action: Action | None, known: Known, scene: Scene) -> Action | None:
    """Let a task be put in force only if what it refers to is there; else it keeps its last good version."""
    if action is None or not isinstance(action.declared, TaskDefinition):
        return action
    if known.allows(action.declared, action.compared or b"", action.actual, scene):
        return action
    row = action.actual
    return None if row is None or row.removed or not scene.ours(row) else stay(row, scene)
