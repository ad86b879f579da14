"""Show what tasks are with everything that bears upon them, and where each value comes from. Offline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cron_observer.manifest import render
from cron_observer.manifest.composed import composed
from cron_observer.manifest.layers import ENVIRONMENT, MANIFEST, Origin
from cron_observer.manifest.nodes import Document, Stream, find, pointer
from cron_observer.manifest.tree import Report, Run
from cron_observer.manifest.values import Path as ValuePath
from cron_observer.model import API_VERSION

#: The column of comments, where what is before them is not longer.
_COLUMN: Final = 44


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """One task: its metadata as written, its effective spec, and where each value comes from, by JSON pointer."""

    path: str
    line: int
    metadata: Mapping[str, Any]
    environment: str | None
    spec: Mapping[str, Any]
    origins: Mapping[str, Origin]

    @property
    def name(self) -> str:
        """The task's name."""
        return str(self.metadata["name"])


def rendered(paths: Sequence[Path], environment: str | None = None) -> tuple[list[Rendered], Report]:
    """Return every valid task of files and folders, in order, and what is wrong with the files.

    Raises `OSError` for no file.
    """
    run = Run(Report(), None)
    for path in paths:
        run.take(path)
    run.judge(environment)
    found = []
    for name, seen in run.seen.items():
        below, context = run.places[name]
        for task in seen.parsed.tasks:
            document = seen.stream.documents[task.document]
            value: Any = document.root.value if document.root is not None else {}
            made, _ = composed(value, below, context)
            origins = {at: _placed(origin, at, name, document, seen.stream) for at, origin in made.origins.items()}
            found.append(
                Rendered(
                    path=name,
                    line=task.line,
                    metadata=value["metadata"],
                    environment=context.environment,
                    spec=made.spec,
                    origins=origins,
                )
            )
    return found, run.report


def _placed(origin: Origin, at: str, path: str, document: Document, stream: Stream) -> Origin:
    """Give what stands in the file itself its line."""
    if origin.kind not in (MANIFEST, ENVIRONMENT):
        return origin
    inside = pointer(("spec", "environments", origin.name)) if origin.kind == ENVIRONMENT else "/spec"
    node = find(document.root, inside + at)
    line = None if node is None else stream.place(node.start if node.key_start < 0 else node.key_start)[0]
    return replace(origin, path=path, line=line)


def as_yaml(tasks: Sequence[Rendered]) -> str:
    """Write tasks as manifests, each value with its origin as a comment."""
    return "---\n".join("".join(line + "\n" for line in _document(one)) for one in tasks)


def _document(one: Rendered) -> Iterator[str]:
    where = f"# {one.path}:{one.line}"
    yield where if one.environment is None else f"{where}, environment {one.environment}"
    yield f"apiVersion: {API_VERSION}"
    yield "kind: Task"
    yield from render.entry("metadata", dict(one.metadata), 0)
    yield "spec:"
    for text, origin in _lines(one.spec, one.origins, ()):
        yield text if origin is None else f"{text.ljust(_COLUMN)}  # {_said(origin)}"


def _lines(
    value: Mapping[str, Any], origins: Mapping[str, Origin], at: ValuePath
) -> Iterator[tuple[str, Origin | None]]:
    indent = 2 * (len(at) + 1)
    for name, inner in value.items():
        path = (*at, name)
        if isinstance(inner, Mapping) and inner:
            yield " " * indent + render.scalar(name, key=True) + ":", None
            yield from _lines(inner, origins, path)
        else:
            first, *rest = render.entry(name, inner, indent)
            yield first, origins[pointer(path)]
            yield from ((line, None) for line in rest)


def _said(origin: Origin) -> str:
    """Say where a value comes from; of the file itself the line is enough."""
    if origin.kind == MANIFEST:
        return f"line {origin.line}"
    if origin.kind == ENVIRONMENT:
        return f"line {origin.line}, environment {origin.name}"
    return str(origin)


def as_json(tasks: Sequence[Rendered]) -> list[dict[str, Any]]:
    """Write tasks as JSON; the keys of ``origins`` are pointers into ``spec``."""
    return [
        {
            "path": one.path,
            "line": one.line,
            "name": one.name,
            "environment": one.environment,
            "metadata": dict(one.metadata),
            "spec": dict(one.spec),
            "origins": {at: _members(origin) for at, origin in one.origins.items()},
        }
        for one in tasks
    ]


def _members(origin: Origin) -> dict[str, Any]:
    said = {"kind": origin.kind, "name": origin.name or None, "path": origin.path or None, "line": origin.line}
    return {name: value for name, value in said.items() if value is not None}
