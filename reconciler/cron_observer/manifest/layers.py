"""Layers: what Defaults, a Project and an environment make of the spec that a manifest says. Pure.

From the bottom: built-in defaults, the Project, Defaults from the root to the directory of the file, the manifest, the
environment's patch. Each is an RFC 7396 merge patch over what is below it: mappings are merged, lists are replaced,
null takes away, so that the built-in default is left. `run` says one thing: who says another takes the place of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cron_observer.manifest.nodes import pointer
from cron_observer.manifest.schemas import effective
from cron_observer.manifest.values import Path
from cron_observer.model import DEFAULTS, PROJECT, Context, Definition

#: The kinds of layers.
LAYERS: Final = (DEFAULTS, PROJECT)

BUILT_IN: Final = "built-in"
MANIFEST: Final = "manifest"
ENVIRONMENT: Final = "environment"


def may_bear(data: bytes) -> bool:
    """Tell whether a file may declare a layer. With a backslash the words may be written some other way."""
    return b"Defaults" in data or b"Project" in data or b"\\" in data


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from: built-in, Project, Defaults, manifest or environment, and which of these."""

    kind: str
    name: str = ""
    path: str = ""
    line: int | None = None  #: of the name of a layer; None where only the text of the file can tell

    def __str__(self) -> str:
        """Say it as findings do."""
        place = f"{self.path}:{self.line}" if self.line else self.path
        return " at ".join(part for part in (f"{self.kind} {self.name}".strip(), place) if part)


@dataclass(frozen=True, slots=True)
class Composed:
    """The spec of a task with everything that bears upon it.

    `merged` is what was written somewhere, without the built-in defaults; `parts` are what it was made from, the
    lowest first.
    """

    merged: dict[str, Any]
    parts: tuple[tuple[Origin, Mapping[str, Any]], ...]

    @property
    def spec(self) -> dict[str, Any]:
        """The effective spec."""
        return effective(self.merged)

    @property
    def origins(self) -> dict[str, Origin]:
        """Where each value of the effective spec comes from, by its JSON pointer."""
        return {pointer(path): self.origin(path) for path in leaves(self.spec)}

    def origin(self, path: Path) -> Origin:
        """Say who has the last word about a value of the spec."""
        if not _has(self.merged, path):
            return _BUILT_IN
        return self.speaker(path)

    def speaker(self, path: Path) -> Origin:
        """Say who speaks last about a value of the spec, be it to take it away."""
        return next((origin for origin, said in reversed(self.parts) if _has(said, path)), _BUILT_IN)


_BUILT_IN: Final = Origin(BUILT_IN)


def bearing(layers: Sequence[Definition], path: str) -> tuple[Definition, ...]:
    """Return the layers that bear upon a file, the lowest first."""
    if not layers:
        return ()
    global _last  # noqa: PLW0603  a process reads the files of one source after the other
    known = _last
    if known[0] is not layers:
        _last = known = (layers, {})
    folder = folder_of(path)
    found = known[1].get(folder)
    if found is None:
        found = known[1][folder] = tuple(sorted((one for one in layers if _covers(one, folder)), key=_order))
    return found


#: The layers that were asked for last, and what bears upon each folder by them.
_last: tuple[Sequence[Definition], dict[str, tuple[Definition, ...]]] = ((), {})


def folder_of(path: str) -> str:
    """Return the directory of a file; that of a file at the root is the empty text."""
    return path.rpartition("/")[0]


def below(path: str, folder: str) -> bool:
    """Tell whether a file is in a directory or further down."""
    return not folder or path.startswith(folder + "/")


def _covers(one: Definition, folder: str) -> bool:
    return one.kind == PROJECT or below(folder + "/", folder_of(one.path))


def _order(one: Definition) -> tuple[bool, int, str, int]:
    return one.kind != PROJECT, len(folder_of(one.path)), one.path, one.document


def gives(one: Definition) -> Mapping[str, Any]:
    """Return what a layer says of tasks."""
    said = one.spec.get("spec") if one.kind == DEFAULTS else (one.spec.get("defaults") or {}).get("Task")
    return said if isinstance(said, Mapping) else {}


def project_of(layers: Collection[Definition]) -> Definition | None:
    """Return the Project among layers."""
    return next((one for one in layers if one.kind == PROJECT), None)


def limit(layers: Collection[Definition]) -> int | None:
    """Return how many tasks the source may declare; None for any number."""
    project = project_of(layers)
    return None if project is None else (project.spec.get("limits") or {}).get("tasks")


def changed_folders(old: Sequence[Definition], new: Sequence[Definition]) -> set[str]:
    """Return the directories whose layers say something else than before; a Project's is the root."""
    before, after = _said(old), _said(new)
    return {folder for folder in before.keys() | after.keys() if before.get(folder) != after.get(folder)}


def _said(layers: Sequence[Definition]) -> dict[str, list[Mapping[str, Any]]]:
    said: dict[str, list[Mapping[str, Any]]] = {}
    for one in sorted(layers, key=_order):
        said.setdefault("" if one.kind == PROJECT else folder_of(one.path), []).append({one.kind: one.spec})
    return said


def is_layered(spec: Any) -> bool:
    """Tell whether a spec has patches of environments, so that it is not the whole truth."""
    return isinstance(spec, Mapping) and "environments" in spec


def compose(spec: Mapping[str, Any], path: str, context: Context, name: str = "") -> Composed:
    """Put together what bears upon the spec of a task `name` that is written in the file `path`.

    The spec, and what the layers say, must be valid by themselves; the result may break rules between fields.
    """
    own = {key: value for key, value in spec.items() if key != "environments"}
    parts = [(Origin(one.kind, one.name, one.path, one.line), gives(one)) for one in bearing(context.layers, path)]
    below_own: dict[str, Any] = {}
    for _, said in parts:
        below_own = _over(below_own, said)
    merged: dict[str, Any] = _over(below_own, own, literal=True) if parts else own
    parts.append((Origin(MANIFEST, name, path), own))
    patch = (spec.get("environments") or {}).get(context.environment) if context.environment else None
    if isinstance(patch, Mapping):
        merged = _over(merged, patch)
        parts.append((Origin(ENVIRONMENT, str(context.environment), path), patch))
    return Composed(merged, tuple(parts))


def _over(below: Mapping[str, Any], said: Mapping[str, Any], *, literal: bool = False) -> dict[str, Any]:
    """Merge what a layer says over what is below it; of `run` only the forms stay that it names, if it names one."""
    merged: dict[str, Any] = merge(below, said, literal=literal)
    run = said.get("run")
    if isinstance(run, Mapping) and any(form is not None for form in run.values()):
        merged["run"] = {form: value for form, value in merged["run"].items() if form in run}
    return merged


def merge(target: Any, patch: Any, *, literal: bool = False) -> Any:
    """Apply a JSON merge patch (RFC 7396). With `literal` a null that has nothing to take away stays."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None and (name in merged or not literal):
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value, literal=literal)
    return merged


def leaves(value: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the paths of everything in nested mappings that is no mapping, or an empty one."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(inner, (*at, name))
    else:
        yield at


def _has(value: Any, path: Path) -> bool:
    for part in path:
        listed = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if not listed and not (isinstance(value, Mapping) and part in value):
            return False
        value = value[part]
    return True
