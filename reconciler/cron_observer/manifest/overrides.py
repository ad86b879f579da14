"""Where a manifest has to say something for its task to be changed, when layers and environments have a say. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from cron_observer.manifest.body import ABSENT, same
from cron_observer.manifest.layers import ENVIRONMENT, LAYERS, Composed, compose, merge
from cron_observer.manifest.schemas import effective
from cron_observer.model import Context

#: A path inside a document, and the value that belongs there; `ABSENT` for none.
Write = tuple[tuple[str, ...], Any]

_ENVIRONMENTS: Final = ("spec", "environments")


def overriding(document: Mapping[str, Any], writes: Sequence[Write], path: str, context: Context) -> list[Write]:
    """Turn writes to the composed spec of a task into writes to its document, which stands in the file `path`.

    What the patch of the environment says is changed there; what a layer says is overridden in the manifest's spec.
    """
    spec = document.get("spec")
    if not isinstance(spec, Mapping):
        return list(writes)
    made = compose(spec, path, context)
    return [_over(at, value, made) if at[:1] == ("spec",) else (at, value) for at, value in writes]


def _over(at: tuple[str, ...], value: Any, made: Composed) -> Write:
    inner, below = at[1:], dict[str, Any]()
    top, said = made.parts[-1]
    if top.kind == ENVIRONMENT and _get(said, inner) is not ABSENT:
        at = (*_ENVIRONMENTS, top.name, *inner)
        parts = made.parts[:-1]
    else:
        parts = tuple(part for part in made.parts if part[0].kind in LAYERS)
    for origin, part in parts:
        below = merge(below, part, literal=origin.kind not in LAYERS)
    old = _get(below, inner)
    if value is ABSENT:
        return at, ABSENT if old is ABSENT else None
    return at, _difference(old, value)


def _difference(old: Any, new: Any) -> Any:
    """Return the merge patch that makes `new` of `old`."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    changed = {key: _difference(old.get(key), value) for key, value in new.items() if not same(old.get(key), value)}
    return changed | {key: None for key in old if key not in new}


def meaning(document: Mapping[str, Any], path: str, context: Context) -> dict[str, Any]:
    """Return what a document means whichever way it is written: here, without an environment, and elsewhere."""
    metadata = document.get("metadata") or {}
    spec = document.get("spec") or {}
    labels = {key: metadata.get(key) or {} for key in ("labels", "annotations")}
    told = {**document, "metadata": {**metadata, **labels}}
    if not isinstance(spec, Mapping) or not (context.layers or context.environment or "environments" in spec):
        return {**told, "spec": effective(spec)}
    alone = Context(layers=context.layers)
    patches = spec.get("environments")
    others = {key: one for key, one in patches.items() if one} if isinstance(patches, Mapping) else patches
    if isinstance(others, dict):
        others.pop(context.environment, None)
    return {
        **told,
        "spec": compose(spec, path, context).spec,
        "alone": compose(spec, path, alone).spec,
        "others": others or {},
    }


def _get(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return ABSENT
        value = value[part]
    return value
