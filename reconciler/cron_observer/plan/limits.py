"""How many tasks a source may have: its Project says so. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cron_observer.manifest.rules import TOO_MANY_TASKS
from cron_observer.plan.actions import TASK, Action, Step
from cron_observer.plan.claims import Scene

#: The steps by which a source comes to have a task more.
_COMING: Final = (Step.CREATE, Step.RESTORE, Step.ADOPT, Step.TRANSFER)


def within_limit(actions: Sequence[Action], scene: Scene) -> list[Action]:
    """Refuse tasks that are one too many: the last ones by path and document. Those that are in force stay."""
    limit = scene.terms.limit
    if limit is None:
        return list(actions)
    tasks = [one for one in actions if one.kind == TASK]
    left = scene.terms.task_count - sum(1 for one in tasks if one.step is Step.REMOVE)
    coming = [one for one in tasks if _comes(one)]
    refused = sorted(coming, key=_place)[max(0, limit - left) :]
    for action in refused:
        assert action.declared is not None  # noqa: S101  it would be applied
        message = f"the source may have {limit:,} tasks (limits.tasks of its Project)"
        hint = "remove others first, or raise the limit"
        scene.findings.add(action.declared, TOO_MANY_TASKS, message, hint)
    names = {action.name for action in refused}
    return [one for one in actions if not (one.name in names and one.kind == TASK and _comes(one))]


def _comes(action: Action) -> bool:
    """Tell whether the source has a task more by an action."""
    if action.step is Step.RENAME:
        return action.actual is not None and action.actual.removed
    return action.step in _COMING


def _place(action: Action) -> tuple[str, int]:
    assert action.declared is not None  # noqa: S101  it would be applied
    return action.declared.path, action.declared.document
