"""Who takes over another task's uid, history and seed: ``metadata.renamedFrom``. Pure.

A document N that says ``renamedFrom: O`` is the task O as soon as O is declared nowhere any more, or by a document
that is itself some other task renamed: then all of them change their names at once, also in a circle. Once N is
there the field is history and says nothing. What is in doubt changes nothing: then both keep their last good version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cron_observer.manifest import rules
from cron_observer.manifest.rules import Rule
from cron_observer.model import TaskDefinition
from cron_observer.plan.actions import RENAME_REFUSED, TASK, Action, Actual, Key, Step
from cron_observer.plan.claims import Claim, Scene, choose, keep, place, stay
from cron_observer.plan.references import Known

_POINTER = "/metadata/renamedFrom"


def renames(claims: Mapping[Key, list[Claim]], rows: Mapping[Key, Actual], scene: Scene, known: Known) -> Renames:
    """Decide about every task that says what it was called before, and about the one that it names."""
    made = Renames(claims, rows, scene, known)
    wishes: dict[str, list[TaskDefinition]] = {}
    for (kind, name), several in sorted(claims.items()):
        if kind != TASK:
            continue
        for claim in several:
            if isinstance(claim.declared, TaskDefinition) and claim.declared.renamed_from not in (None, name):
                wishes.setdefault(str(claim.declared.renamed_from), []).append(claim.declared)
    made.shift({tasks[0].name: tasks[0] for tasks in wishes.values() if len(tasks) == 1})
    for tasks in wishes.values():
        for task in tasks:
            rivals = sorted({rival.name for rival in tasks} - {task.name})
            if (TASK, task.name) not in made.done:
                made.judge(task, rivals)
    return made


@dataclass(slots=True)
class Renames:
    """What renames decide: some actions, and the keys that are done with."""

    claims: Mapping[Key, list[Claim]]
    rows: Mapping[Key, Actual]
    scene: Scene
    known: Known
    actions: list[Action] = field(default_factory=list)
    done: set[Key] = field(default_factory=set)

    def shift(self, wishes: Mapping[str, TaskDefinition]) -> None:
        """Rename tasks that take names from each other, each group of them as a whole or not at all."""
        moving = {name: task for name, task in wishes.items() if self._is_free_to_move(task)}
        while stuck := {name for name, task in moving.items() if not self._has_room(task, moving)}:
            moving = {name: task for name, task in moving.items() if name not in stuck}
        givers = {str(task.renamed_from): name for name, task in moving.items()}
        for name in sorted(moving):
            group = [name]
            while (before := givers.get(group[0])) not in (None, *group):
                group.insert(0, str(before))
            while (after := str(moving[group[-1]].renamed_from)) in moving and after not in group:
                group.append(after)
            # one that takes no name from another is judged by itself
            if len(group) > 1 and (TASK, name) not in self.done:
                self._shift_all([moving[one] for one in group])

    def _shift_all(self, group: Sequence[TaskDefinition]) -> None:
        olds = [self.rows[TASK, str(task.renamed_from)] for task in group]
        taken, good = [], True
        for task, old in zip(group, olds, strict=True):
            action = place(TASK, task, self.claims[TASK, task.name][0].desired.commit, old)
            good = self.known.allows(task, action.spec_hash, None, self.scene) and good
            taken.append(replace(action, step=Step.RENAME))
        if good:
            self.actions += taken
            self.done |= {(TASK, old.name) for old in olds}
        else:
            self.keep(*olds)
        self.done |= {(TASK, task.name) for task in group}

    def _is_free_to_move(self, task: TaskDefinition) -> bool:
        """Tell whether a document is the only one of its name, names a living task, and is not past."""
        old, new = (self.rows.get((TASK, name)) for name in (str(task.renamed_from), task.name))
        if len(self.claims[TASK, task.name]) > 1 or old is None or old.removed or not self.scene.ours(old):
            return False
        return new is None or not (new.removed or self._is_past(task, new))

    def _has_room(self, task: TaskDefinition, moving: Mapping[str, TaskDefinition]) -> bool:
        """Tell whether both names of a task come free when those that are `moving` do."""
        old, new = str(task.renamed_from), task.name
        leaving = {str(one.renamed_from) for one in moving.values()}
        if self.scene.still_declares(self.rows[TASK, old]):
            return False
        return ((TASK, old) not in self.claims or old in moving) and ((TASK, new) not in self.rows or new in leaving)

    def judge(self, task: TaskDefinition, rivals: Sequence[str]) -> None:
        """Decide about one task by itself; `rivals` say that they were called the same."""
        scene, key = self.scene, (TASK, str(task.renamed_from))
        old, new = self.rows.get(key), self.rows.get((TASK, task.name))
        declared = key in self.claims or (old is not None and scene.ours(old) and scene.still_declares(old))
        if new is not None and not scene.ours(new):
            if old is not None and scene.ours(old) and not declared:
                self.keep(old)  # its new name is somebody else's, which is told elsewhere
            return
        if new is not None and self._is_past(task, new):
            return
        if not declared and (old is None or old.deleting or (new is not None and old.removed)):
            return  # nothing is left to take over
        doubt = self._doubt(task, old, new, rivals, declared=declared)
        if doubt is not None:
            rule, what, hint = doubt
            scene.findings.add(task, rule, f'the task "{task.renamed_from}" {what}', hint, _POINTER)
            self._refuse(task, old, new, declared=declared)
        elif old is not None:
            self._take_over(task, old)

    def _doubt(
        self, task: TaskDefinition, old: Actual | None, new: Actual | None, rivals: Sequence[str], *, declared: bool
    ) -> tuple[Rule, str, str] | None:
        """Say why `task` cannot be what `old` is, None when it can: the rule, what is wrong, and a hint."""
        if declared or old is None:
            claims = self.claims.get((TASK, str(task.renamed_from)))
            where = claims[0].place if claims else f"{old.path}:{old.line}" if old else ""
            return rules.RENAMED_FROM_DECLARED, f"is still declared in {where}", "remove one of the two"
        if not self.scene.ours(old):
            owner = f'the source "{old.source}"' if old.source_id else "the API"
            hint = "rename what this source declares, or leave renamedFrom out"
            return RENAME_REFUSED, f"is owned by {owner}", hint
        if new is not None:
            was = "there was" if new.removed else "there is"
            what = f'cannot become "{task.name}": {was} another task of that name'
            return RENAME_REFUSED, what, "choose another name"
        if rivals:
            return rules.RENAMED_TWICE, f'is claimed by "{rivals[0]}" too', "only one task can be its successor"
        return None

    def _refuse(self, task: TaskDefinition, old: Actual | None, new: Actual | None, *, declared: bool) -> None:
        """Leave what is in force as it is."""
        key = (TASK, task.name)
        self.done.add(key)
        # the others wait as well, and are told so, but for the one that has the name
        chosen = choose(self.claims[key], new, self.scene)
        if new is not None and not new.removed:
            action = self._at_home(chosen, task, new) or stay(new, self.scene)
            self.actions += [action] if action is not None else []
        if old is not None and not declared and self.scene.ours(old):
            self.keep(old)

    def _at_home(self, chosen: Claim | None, task: TaskDefinition, new: Actual) -> Action | None:
        """Put what the owner of a name says about it in force; None when that is what was refused, or invalid."""
        if chosen is None or chosen.declared is task or not isinstance(chosen.declared, TaskDefinition):
            return None
        action = place(TASK, chosen.declared, chosen.desired.commit, new)
        return action if self.known.allows(chosen.declared, action.spec_hash, new, self.scene) else None

    def _take_over(self, task: TaskDefinition, old: Actual) -> None:
        chosen = choose(self.claims[TASK, task.name], None, self.scene)
        self.done.add((TASK, task.name))
        if chosen is None or not isinstance(chosen.declared, TaskDefinition):
            self.keep(old)
            return
        action = place(TASK, chosen.declared, chosen.desired.commit, old)
        if not self.known.allows(chosen.declared, action.spec_hash, None, self.scene):
            self.keep(old)
            return
        self.done.add((TASK, old.name))
        self.actions.append(replace(action, step=Step.RENAME))

    def _is_past(self, task: TaskDefinition, new: Actual) -> bool:
        """Tell whether a task that is there has been renamed already, or its manifest was seen as it is."""
        if _was_renamed(new):
            return True
        return not new.removed and any(
            claim.declared is task and place(TASK, task, claim.desired.commit, new).step is Step.NOOP
            for claim in self.claims[TASK, task.name]
        )

    def keep(self, *rows: Actual | None) -> None:
        """Leave tasks at their last good version."""
        for row in rows:
            if row is not None and (TASK, row.name) not in self.done:
                self.done.add((TASK, row.name))
                if not row.removed:
                    self.actions.append(keep(row))


def _was_renamed(row: Actual) -> bool:
    return row.seed is not None and row.seed.partition("/")[2] != row.name
