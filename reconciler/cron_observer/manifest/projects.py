"""What a Project asks of a whole source, and a source of its Projects, for manifests without a database. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cron_observer.manifest import rules
from cron_observer.manifest.values import Fault, Path
from cron_observer.model import PROJECT, Definition, TaskDefinition

_NAME: Final[Path] = ("metadata", "name")


def holding(layers: Sequence[Definition]) -> tuple[Definition, ...]:
    """Return the layers that count: of several Projects none does."""
    alone = sum(one.kind == PROJECT for one in layers) <= 1
    return tuple(one for one in layers if alone or one.kind != PROJECT)


def misplaced(one: Definition) -> Fault:
    """Say that a Project stands in a directory."""
    message = f'the Project "{one.name}" speaks for the whole source, and stands in a directory'
    return Fault(rules.PROJECT_NOT_AT_ROOT, _NAME, message, "move its file to the root of the source", within=())


def second(one: Definition, other: Definition) -> Fault:
    """Say that there is another Project."""
    message = f'the source has another Project, "{other.name}" at {other.path}:{other.line}, beside "{one.name}"'
    return Fault(rules.SECOND_PROJECT, _NAME, message, "keep one of them", within=())


def too_many(most: int) -> Fault:
    """Say that a task is one too many."""
    message = f"the source may have {most:,} tasks (limits.tasks of its Project)"
    return Fault(rules.TOO_MANY_TASKS, _NAME, message, "remove others first, or raise the limit", within=())


def beyond(tasks: Sequence[TaskDefinition], most: int) -> list[TaskDefinition]:
    """Return the tasks that are beyond a limit, by path and document."""
    return sorted(tasks, key=lambda one: (one.path, one.document))[most:]
