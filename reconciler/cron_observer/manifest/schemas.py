"""The published JSON Schemas, and the defaults that they declare: the one truth about both."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import msgspec

from cron_observer import errors
from cron_observer.model import API_VERSION

#: (apiVersion, kind) -> the word of the schema's file name and address.
KINDS: Final[dict[tuple[str, str], str]] = {
    (API_VERSION, "Task"): "task",
    (API_VERSION, "Calendar"): "calendar",
    (API_VERSION, "TaskGroup"): "taskgroup",
    (API_VERSION, "Defaults"): "defaults",
    (API_VERSION, "Project"): "project",
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
    filled: dict[str, Any] = _filler(kind)(spec)
    # Texts that are broken are patched too: nothing is taken for granted here.
    given: Any = spec
    written = given.get("catchup", {}) if isinstance(given, Mapping) else None
    if kind == "Task" and isinstance(written, Mapping) and written.get("window") is None:
        # How far catch-up looks back where it is not said: an hour, but for `all`, which has no bound.
        filled["catchup"]["window"] = None if filled["catchup"]["policy"] == "all" else "1h"
    return filled


_Fill = Callable[[Any], Any]
_decode = msgspec.json.Decoder().decode

#: A field of a mapping: its name, what fills its value in, what it needs beside it to get its default, whether it has
#: one, that default where it is a scalar, and else how it is made.
_Field = tuple[str, _Fill | None, tuple[str, ...], bool, Any, Callable[[], Any] | None]


@cache
def _filler(kind: str) -> _Fill:
    fill = _compiled(_load(kind.lower())["properties"]["spec"])
    if fill is None:
        raise errors.NotFound(f"the spec of {kind} has no fields")
    return fill


def _compiled(part: Mapping[str, Any]) -> _Fill | None:
    """Return what fills the defaults of a part of a schema into a value; None where it declares none."""
    each = _compiled(part["items"]) if "properties" in part.get("items", {}) else None
    properties = part.get("properties")
    if properties is None and each is None:
        return None
    needs = part.get("dependentRequired", {})
    fields: list[_Field] = []
    for name, field in (properties or {}).items():
        inner = _compiled(field)
        default = field.get("default")
        make = _maker(default, inner) if isinstance(default, dict | list) else None
        fields.append((name, inner, tuple(needs.get(name, ())), "default" in field, default, make))
    known = frozenset(properties or ())

    def fill(value: Any) -> Any:
        if each is not None and isinstance(value, list):
            return [each(item) for item in value]
        if properties is None or (type(value) is not dict and not isinstance(value, Mapping)):
            return value
        filled = {}
        for name, inner, others, has_default, default, make in fields:
            if name in value:
                filled[name] = value[name] if inner is None else inner(value[name])
            elif has_default and (not others or all(other in value for other in others)):
                filled[name] = default if make is None else make()
        if not known.issuperset(value):
            filled |= {name: value[name] for name in value if name not in known}
        return filled

    return fill


def _maker(default: Any, inner: _Fill | None) -> Callable[[], Any]:
    """Return what makes a list or a mapping that is a default: each time another one."""
    filled = default if inner is None else inner(default)
    return partial(_decode, msgspec.json.encode(filled))  # faster than a deep copy, and than filling it again
