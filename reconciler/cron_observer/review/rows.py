"""What is in force, made out of manifests alone: as if they had been applied to an empty database. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from cron_observer.model import Definition, TaskDefinition
from cron_observer.plan import TASK, Actual, Plan, Refreshed, Step
from cron_observer.plan.actions import CALENDAR, GROUP, Action, Key

#: Ids of nothing that exists: here names are identity.
SOURCE: Final = uuid5(NAMESPACE_URL, "cron-observer/source")
PROJECT_ID: Final = uuid5(NAMESPACE_URL, "cron-observer/project")

Declared = TaskDefinition | Definition


@dataclass(frozen=True, slots=True)
class State:
    """What is in force under each name: rows for a plan, and the documents that they come from.

    `seeds` are those of tasks, `contents` what the calendars hold, by name.
    """

    rows: Mapping[Key, Actual]
    declared: Mapping[Key, Declared]
    seeds: Mapping[str, str]
    contents: Mapping[str, Mapping[str, Any]]

    def groups(self) -> dict[str, Mapping[str, Any]]:
        """Return the specs of the task groups."""
        return {name: one.spec for (kind, name), one in self.declared.items() if kind == GROUP}


def first_state(plan: Plan, project: str) -> State:
    """Return what a plan puts in force where nothing was before."""
    rows, declared, seeds = {}, {}, {}
    contents: dict[str, Mapping[str, Any]] = {}
    for action in plan.actions:
        one = action.declared
        if one is None:
            continue
        key = (action.kind, action.name)
        declared[key] = one
        if isinstance(one, TaskDefinition):
            # What was renamed keeps the seed of its first name; of older names than one nobody knows here.
            seeds[one.name] = f"{project}/{one.renamed_from or one.name}"
        if action.digest is not None:
            contents[action.name] = plan.contents[action.digest]
        rows[key] = _row(action, one, seeds.get(one.name), contents.get(action.name))
    return State(rows, declared, seeds, contents)


def _row(action: Action, one: Declared, seed: str | None, content: Mapping[str, Any] | None) -> Actual:
    task = isinstance(one, TaskDefinition)
    prune = (one.spec.get("lifecycle") or {}).get("prune") if task else None
    return Actual(
        uid=uuid_of((action.kind, action.name)),
        project_id=PROJECT_ID,
        kind=action.kind,
        name=action.name,
        spec_hash=action.spec_hash,
        generation=1,
        seed=seed if task else None,
        source_id=SOURCE,
        source="this source",
        path=one.path,
        document=one.document,
        line=one.line,
        sync="SYNCED",
        prune=None if prune == "allow" else prune,
        spec=None if task else one.spec,
        digest=action.digest if action.kind == CALENDAR else None,
        content=content if action.kind == CALENDAR else None,
    )


def uuid_of(key: Key) -> UUID:
    """Return the id that a name has here."""
    return uuid5(NAMESPACE_URL, "/".join(("cron-observer", *key)))


def next_state(plan: Plan, before: State, project: str) -> State:
    """Return what is in force after a plan. What the plan does not touch stays as it was."""
    declared, seeds = dict(before.declared), dict(before.seeds)
    contents = dict(before.contents)
    for action in plan.actions:  # first all that goes: names may be exchanged
        if action.actual is not None and action.step in (Step.REMOVE, Step.RENAME):
            declared.pop((action.kind, action.actual.name), None)
            contents.pop(action.actual.name, None) if action.kind == CALENDAR else None
    for action in plan.actions:
        if action.declared is None:
            continue
        declared[action.kind, action.name] = action.declared
        if action.kind == TASK:
            kept = action.actual.seed if action.actual is not None and not action.actual.removed else None
            seeds[action.name] = kept or f"{project}/{action.name}"
        if action.digest is not None and action.digest in plan.contents:
            contents[action.name] = plan.contents[action.digest]
    for one in plan.refreshed:
        contents[one.actual.name] = _content(plan, one)
    return State({}, declared, seeds, contents)


def _content(plan: Plan, one: Refreshed) -> Mapping[str, Any]:
    return plan.contents[one.digest]
