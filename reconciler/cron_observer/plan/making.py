"""The plan as a whole: groups and calendars first, because tasks refer to them; then renames, then tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from cron_observer.model import TaskDefinition
from cron_observer.plan.actions import TASK, Action, Actual, DesiredFile, Findings, Plan
from cron_observer.plan.claims import Scene, claims_of, decide, stay, unclaimed
from cron_observer.plan.contents import Files, resolve
from cron_observer.plan.references import Known
from cron_observer.plan.renames import renames


def plan(
    desired: Sequence[DesiredFile],
    gone: Iterable[str],
    actual: Sequence[Actual],
    *,
    source_id: UUID,
    project_id: UUID,
    files: Files | None = None,
) -> Plan:
    """Compare the files read in this pass, and the paths that are `gone`, with what is in force.

    `desired` holds every file that changed and every one that had findings before, so that whatever is not in
    it is unchanged and valid. `actual` holds the source's tasks of those paths, those that are not in sync,
    whatever lives under the names that `desired` declares or renames from, and all calendars and groups of the
    project, with contents if a calendar is among what was read. `files` are the calendar files of what was read.
    """
    findings = Findings()
    scene = Scene(source_id, project_id, frozenset(gone), {one.file.path: one for one in desired}, findings)
    claims = claims_of(desired)
    rows = {(row.kind, row.name): row for row in actual if row.project_id == project_id}
    keys = sorted(claims.keys() | rows.keys())
    decided = (decide(key, claims.get(key, []), rows.get(key), scene) for key in keys if key[0] != TASK)
    resolved = resolve([one for one in decided if one is not None], rows, files or {}, scene)
    known = Known.after(resolved.actions, rows, claims)
    renamed = renames(claims, rows, scene, known)
    tasks = list(renamed.actions)
    for key in keys:
        if key[0] == TASK and key not in renamed.done:
            one = _allowed(decide(key, claims.get(key, []), rows.get(key), scene), known, scene)
            tasks += [] if one is None else [one]
    # The source was moved to another project: what it had declared in the old one is declared there no more.
    strays = [row for row in actual if row.project_id != project_id and row.source_id == source_id]
    tasks += [unclaimed(row, scene) for row in strays if not row.removed]
    return Plan(
        actions=tuple(sorted([*resolved.actions, *tasks], key=lambda one: (one.kind, one.name))),
        findings=findings.by_path,
        refreshed=tuple(resolved.refreshed),
        contents=resolved.contents,
    )


def _allowed(action: Action | None, known: Known, scene: Scene) -> Action | None:
    """Let a task be put in force only if what it refers to is there; else it keeps its last good version."""
    if action is None or not isinstance(action.declared, TaskDefinition):
        return action
    if known.allows(action.declared, action.spec_hash, action.actual, scene):
        return action
    return None if action.actual is None or action.actual.removed else stay(action.actual, scene)
