"""The published JSON Schemas, and the defaults that they declare: the one truth about both."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from cron_observer import errors
from cron_observer.model import API_VERSION

#: (apiVersion, kind) -> the word of the schema's file name and address.
KINDS: Final[dict[tuple[str, str], str]] = {
    (API_VERSION, "Task"): "task",
    (API_VERSION, "Calendar"): "calendar",
    (API_VERSION, "TaskGroup"): "taskgroup",
}

_IN_WHEEL: Final = Path(__file__).parents[1] / "_schemas"
_IN_CHECKOUT: Final = Path(__file__).parents[3] / "schemas"


@cache
def _load(word: str) -> dict[str, Any]:
    folder = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT
    loaded: dict[str, Any] = json.loads((folder / f"{word}.v1.json").read_text(encoding="utf-8"))
    return loaded


def schema(kind: str) -> dict[str, Any]:
    """Return a copy of the JSON Schema of a kind (``task`` or ``Task``); raise `NotFound` for others."""
    word = kind.lower()
    if word not in KINDS.values():
        raise errors.NotFound(
            f"there is no schema for {kind!r}", hint=f"there is one for {', '.join(sorted(KINDS.values()))}"
        )
    return copy.deepcopy(_load(word))


def published(word: str) -> Mapping[str, Any]:
    """Return a schema to read from; it must not be changed."""
    return _load(word)


def effective(spec: Mapping[str, Any], kind: str = "Task") -> dict[str, Any]:
    """Fill every default of the manifest contract into the spec of a valid document.

    Two ways of writing the same thing give equal results, with the same order of fields.
    A default that depends on another field (`anchor` on `every`) is filled in only beside it.
    Applying it twice changes nothing.
    """
    filled: dict[str, Any] = _fill(_load(kind.lower())["properties"]["spec"], spec)
    # Texts that are broken are patched too: nothing is taken for granted here.
    given: Any = spec
    written = given.get("catchup", {}) if isinstance(given, Mapping) else None
    if kind == "Task" and isinstance(written, Mapping) and written.get("window") is None:
        # How far catch-up looks back where it is not said: an hour, but for `all`, which has no bound.
        filled["catchup"]["window"] = None if filled["catchup"]["policy"] == "all" else "1h"
    return filled


def _fill(part: Mapping[str, Any], value: Any) -> Any:
    if isinstance(value, list) and "properties" in part.get("items", {}):
        return [_fill(part["items"], item) for item in value]
    fields = part.get("properties")
    if fields is None or not isinstance(value, Mapping):
        return value
    needs = part.get("dependentRequired", {})
    filled = {}
    for name, field in fields.items():
        if name in value:
            filled[name] = _fill(field, value[name])
        elif "default" in field and all(other in value for other in needs.get(name, ())):
            filled[name] = _fill(field, copy.deepcopy(field["default"]))
    return filled | {name: value[name] for name in value if name not in fields}
