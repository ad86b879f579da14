"""Who takes over another task's uid, history and seed: ``metadata.renamedFrom``. Pure.

A document N that says ``renamedFrom: O`` is the task O as soon as O is declared nowhere any more. Once N is there
the field is history and says nothing. What is in doubt changes nothing: then both keep their last good version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cron_observer.manifest import rules
from cron_observer.model import TaskDefinition
from cron_observer.plan.actions import RENAME_REFUSED, TASK, Action, Actual, Key, Step
from cron_observer.plan.claims import Claim, Scene, choose, keep, place
from cron_observer.plan.references import Known

_POINTER = "/metadata/renamedFrom"


@dataclass(slots=True)
class Renames:
    """What renames decide: some actions, and the keys that are done with."""

    actions: list[Action] = field(default_factory=list)
    done: set[Key] = field(default_factory=set)

    def keep(self, *rows: Actual | None) -> None:
        """Leave tasks at their last good version."""
        for row in rows:
            if row is not None and (TASK, row.name) not in self.done:
                self.done.add((TASK, row.name))
                if not row.removed:
                    self.actions.append(keep(row))


def renames(claims: Mapping[Key, list[Claim]], rows: Mapping[Key, Actual], scene: Scene, known: Known) -> Renames:
    """Decide about every task that says what it was called before, and about the one that it names."""
    made = Renames()
    wishes: dict[str, list[TaskDefinition]] = {}
    for (kind, name), several in sorted(claims.items()):
        if kind != TASK:
            continue
        for claim in several:
            if isinstance(claim.declared, TaskDefinition) and claim.declared.renamed_from not in (None, name):
                wishes.setdefault(str(claim.declared.renamed_from), []).append(claim.declared)
    for tasks in wishes.values():
        for task in tasks:
            rivals = sorted({rival.name for rival in tasks} - {task.name})
            if (TASK, task.name) not in made.done:
                _judge(task, rivals, claims, rows, scene, known, made)
    return made


def _judge(
    task: TaskDefinition,
    rivals: list[str],
    claims: Mapping[Key, list[Claim]],
    rows: Mapping[Key, Actual],
    scene: Scene,
    known: Known,
    made: Renames,
) -> None:
    old_key, new_key = (TASK, str(task.renamed_from)), (TASK, task.name)
    old, new = rows.get(old_key), rows.get(new_key)
    declared = old_key in claims or (old is not None and scene.ours(old) and scene.still_declares(old))
    if new is not None and _is_past(task, claims[new_key], new, scene):
        return
    rule, doubt = RENAME_REFUSED, None
    if declared:
        where = claims[old_key][0].place if old_key in claims else f"{old.path}:{old.line}" if old else ""
        rule, doubt = rules.RENAMED_FROM_DECLARED, (f"is still declared in {where}", "remove one of the two")
    elif old is None or (new is not None and old.removed):
        return  # nothing is left to take over
    elif not scene.ours(old):
        owner = f'the source "{old.source}"' if old.source_id else "the API"
        doubt = f"is owned by {owner}", "rename what this source declares, or leave renamedFrom out"
    elif new is not None:
        was = "there was" if new.removed else "there is"
        doubt = f'cannot become "{task.name}": {was} another task of that name', "choose another name"
    elif rivals:
        rule, doubt = rules.RENAMED_TWICE, (f'is claimed by "{rivals[0]}" too', "only one task can be its successor")
    if doubt is not None:
        scene.findings.add(task, rule, f'the task "{task.renamed_from}" {doubt[0]}', doubt[1], _POINTER)
        made.done.add(new_key)
        if new is not None and not new.removed and scene.ours(new):
            made.actions.append(keep(new))
        if old is not None and not declared and scene.ours(old):
            made.keep(old)
        return
    _take_over(task, old, claims[new_key], scene, known, made)


def _is_past(task: TaskDefinition, claims: list[Claim], new: Actual, scene: Scene) -> bool:
    """Tell whether a task that is there has been renamed already, or its manifest was seen as it is."""
    if not scene.ours(new) or _was_renamed(new):
        return True
    return not new.removed and any(
        claim.declared is task and place(TASK, task, claim.desired.commit, new).step is Step.NOOP for claim in claims
    )


def _was_renamed(row: Actual) -> bool:
    return row.seed is not None and row.seed.partition("/")[2] != row.name


def _take_over(
    task: TaskDefinition, old: Actual | None, claims: list[Claim], scene: Scene, known: Known, made: Renames
) -> None:
    chosen = choose(claims, None, scene)
    made.done.add((TASK, task.name))
    if old is None:
        return
    if chosen is None or not isinstance(chosen.declared, TaskDefinition):
        made.keep(old)
        return
    action = place(TASK, chosen.declared, chosen.desired.commit, old)
    if not known.allows(chosen.declared, action.spec_hash, None, scene):
        made.keep(old)
        return
    made.done.add((TASK, old.name))
    made.actions.append(replace(action, step=Step.RENAME))
