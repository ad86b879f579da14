"""Which Defaults and Project of a source hold: decided by themselves, because tasks are read with them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from cron_observer.manifest.rules import PROJECT_NOT_AT_ROOT, SECOND_PROJECT
from cron_observer.model import PROJECT, Definition
from cron_observer.plan.actions import (
    APPLIED,
    LAYERS,
    Action,
    Actual,
    DesiredFile,
    Findings,
    Key,
    Step,
)
from cron_observer.plan.claims import Claim, Scene, claims_of, decide, keep


def layers_after(
    desired: Sequence[DesiredFile],
    gone: Iterable[str],
    actual: Sequence[Actual],
    *,
    source_id: UUID,
    project_id: UUID,
) -> list[Definition]:
    """Return the Defaults and Projects of a source that hold after a pass, by kind and name.

    `desired` are at least the files that changed and may declare some, `actual` is what is in force of these kinds,
    with specs. One that is broken stays as it is stored, and so does one that an unparseable file may declare.
    """
    read = {one.file.path: one for one in desired}
    scene = Scene(source_id, project_id, frozenset(gone), read, Findings())
    claims = {key: several for key, several in claims_of(desired).items() if key[0] in LAYERS}
    rows = {(row.kind, row.name): row for row in actual if row.kind in LAYERS and row.project_id == project_id}
    actions = {(action.kind, action.name): action for action in decide_layers(claims, rows, scene)}
    after: dict[Key, Definition] = {
        key: _stored(row) for key, row in rows.items() if row.source_id == source_id and not row.removed
    }
    for key, action in actions.items():
        if action.step is Step.REMOVE:
            after.pop(key, None)
        elif isinstance(action.declared, Definition):
            after[key] = action.declared
    return [after[key] for key in sorted(after)]


def decide_layers(claims: Mapping[Key, Sequence[Claim]], rows: Mapping[Key, Actual], scene: Scene) -> list[Action]:
    """Return what is done about Defaults and Projects: as about all that has a name, but for misplaced Projects."""
    keys = sorted(key for key in claims.keys() | rows.keys() if key[0] in LAYERS)
    decided = (decide(key, claims.get(key, []), rows.get(key), scene) for key in keys)
    placed = (_at_root(action, scene) for action in decided if action is not None)
    return _one_project([action for action in placed if action is not None], rows, scene)


def _at_root(action: Action, scene: Scene) -> Action | None:
    """Refuse a Project whose file is in a directory; the one that is in force stays as it is."""
    declared = action.declared
    if action.kind != PROJECT or declared is None or "/" not in declared.path:
        return action
    message = f'the Project "{declared.name}" speaks for the whole source, and stands in a directory'
    scene.findings.add(declared, PROJECT_NOT_AT_ROOT, message, "move its file to the root of the source")
    row = action.actual
    return None if row is None or row.removed else keep(row)


def _one_project(actions: list[Action], rows: Mapping[Key, Actual], scene: Scene) -> list[Action]:
    """Refuse Projects beside the one that the source has; of several new ones, all."""
    removed = {action.name for action in actions if action.kind == PROJECT and action.step is Step.REMOVE}
    old = {name for (kind, name), row in rows.items() if kind == PROJECT and _lives(row, scene)} - removed
    new = [one for one in actions if one.kind == PROJECT and one.step in APPLIED and one.name not in old]
    refused = []
    for action in new if len(old) + len(new) > 1 else ():
        others = sorted({*old, *(one.name for one in new)} - {action.name})
        assert action.declared is not None  # noqa: S101  it would be applied
        message = f'the source has another Project, "{others[0]}", beside "{action.name}"'
        scene.findings.add(action.declared, SECOND_PROJECT, message, "keep one of them")
        refused.append(action)
    return [action for action in actions if action not in refused]


def _lives(row: Actual, scene: Scene) -> bool:
    return row.source_id == scene.source_id and not row.removed


def _stored(row: Actual) -> Definition:
    return Definition(
        kind=row.kind,
        name=row.name,
        spec=row.spec or {},
        path=row.path or "",
        line=row.line or 1,
        document=row.document or 0,
    )
