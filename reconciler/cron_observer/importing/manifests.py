"""What was found in a file of another scheduler, and the manifests that say the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cron_observer.manifest import render, rules
from cron_observer.manifest.body import parse_spec
from cron_observer.manifest.files import parse
from cron_observer.manifest.scalars import shown
from cron_observer.model import API_VERSION, TASK_NAME, Finding, Severity

SCHEMA: Final = "https://cron-observer.dev/schemas/v1/task.json"

#: Characters of a name that is made from a command; a person has to type it.
_LONGEST_NAME: Final = 60
_MOST_COMMENT: Final = 200


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the manifests do not say as the file did.

    `refused`: what stands there was not imported. Of several reasons for one thing only the first is marked so.
    """

    line: int | None
    message: str
    refused: bool = False
    path: str = ""  #: of the file, where it is known


@dataclass(slots=True)
class Task:
    """A task to be: `spec` as it is written into the manifest. `origin` are lines of comment about where from."""

    name: str
    spec: dict[str, Any]
    line: int | None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    path: str = ""
    origin: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Imported:
    """Everything that a file held."""

    tasks: list[Task] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def note(self, line: int | None, message: str, *, refused: bool = False, path: str = "") -> None:
        """Add a note."""
        self.notes.append(Note(line, message, refused, path))

    def take(self, other: Imported, path: str) -> None:
        """Add what another file held."""
        for task in other.tasks:
            task.path = path
        self.tasks += other.tasks
        self.notes += [replace(note, path=path) for note in other.notes]

    @property
    def refused(self) -> list[Note]:
        """The notes of what was not imported."""
        return [note for note in self.notes if note.refused]


def name_of(text: str) -> str:
    """Make a task's name of any text: ``/opt/Nightly Backup.sh`` becomes ``opt-nightly-backup.sh``."""
    slug = re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
    return slug[:_LONGEST_NAME].strip("-.") or "task"


def finish(imported: Imported) -> Imported:
    """Give every task a name of its own and judge it as `validate` would.

    A value that looks like a secret is taken out with a note. A task that is wrong in another way is refused.
    """
    done = Imported(notes=list(imported.notes))
    taken: set[str] = set()
    for task in imported.tasks:
        task.name = _free(task.name, taken)
        errors = _without_secrets(task, done)
        for number, error in enumerate(errors):
            hint = f"; {error.hint}" if error.hint else ""
            message = f"not imported: {task.name}: {error.message} [{error.code}]{hint}"
            done.note(task.line, message, refused=number == 0, path=task.path)  # it counts once
        if not errors:
            taken.add(task.name)
            done.tasks.append(task)
    done.notes.sort(key=lambda note: (note.path, note.line or 0))
    return done


def _free(name: str, taken: set[str]) -> str:
    wanted = name if TASK_NAME.fullmatch(name) else name_of(name)
    number, free = 1, wanted
    while free in taken:
        number += 1
        free = f"{wanted}-{number}"
    return free


def _without_secrets(task: Task, done: Imported) -> list[Finding]:
    """Take what looks like a secret out of the payload; return the errors that are left."""
    while True:
        findings = parse("imported.yaml", written([task]).encode()).findings
        errors = [one for one in findings if one.severity is Severity.ERROR]
        secrets = [
            one for one in errors if one.code == rules.SECRET.code and (one.pointer or "").startswith("/spec/payload/")
        ]
        if not secrets:
            return errors
        for one in secrets:
            path = _parts(one.pointer or "")[1:]
            if {"command", "args"} & set(path) or not _take_out(task.spec, path):
                return errors
            message = f"dropped: {'.'.join(path)} of {task.name} looks like a secret; give it to whoever runs the task"
            done.note(task.line, message, path=task.path)


def is_secret(name: str, value: str) -> bool:
    """Tell whether a manifest may not hold a value of that name."""
    spec = {"schedule": {"cron": "@daily"}, "payload": {name: value}}
    return any(one.code == rules.SECRET.code for one in parse_spec("a", spec, {})[1])


def _parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _take_out(spec: dict[str, Any], path: list[str]) -> bool:
    holder: Any = spec
    for part in path[:-1]:
        holder = holder[int(part)] if isinstance(holder, list) else holder[part]
    if isinstance(holder, list):
        return False
    return holder.pop(path[-1], None) is not None


def written(tasks: Iterable[Task]) -> str:
    """Write tasks as the documents of one file, with the comment that editors find the schema by."""
    documents = [_document(task) for task in tasks]
    return f"# yaml-language-server: $schema={SCHEMA}\n" + "---\n".join(documents)


def _document(task: Task) -> str:
    metadata: dict[str, Any] = {"name": task.name}
    if task.labels:
        metadata["labels"] = task.labels
    if task.annotations:
        metadata["annotations"] = task.annotations
    value: Mapping[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Task",
        "metadata": metadata,
        "spec": {name: part for name, part in task.spec.items() if part is not None},
    }
    comment = [f"# {shown(line, _MOST_COMMENT)}" for line in task.origin]
    return "\n".join([*comment, *render.block(value, 0)]) + "\n"
