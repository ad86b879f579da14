"""Read a file in which everything is in order, as nearly all are, at a fraction of the cost of one with findings. Pure.

It knows no rule of its own. It builds values without places, asks the same rules whether they find anything, and
remembers their answers by the parts of a document that they can depend on. As soon as there may be anything to say it
gives up, and the file is read with the place of every value.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from cron_observer.manifest import clean, composed, schemas, semantics, validate
from cron_observer.manifest.document import declared
from cron_observer.manifest.layers import bearing, project_of
from cron_observer.model import API_VERSION, Context, Definition, ParsedFile, TaskDefinition

_KINDS: Final = ("Task", "Calendar", "TaskGroup")  # of which a document says everything by itself
#: What no rule between fields looks at, but for the search for secrets.
_FREE: Final = frozenset({"schedule", "description", "payload"})
_ORDINARY_METADATA: Final = frozenset({"name", "labels", "annotations"})
_OURS: Final = "cron-observer/"  # annotations that mean something begin with it

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def parse(path: str, data: bytes, context: Context) -> ParsedFile | None:
    """Return what a file declares, if there is surely no finding about it; else None."""
    documents = clean.read(data)
    if not documents:
        return None
    tasks: list[TaskDefinition] = []
    others: list[Definition] = []
    names: set[tuple[str, str]] = set()
    for index, (value, line) in enumerate(documents):
        whole = _composed(value, path, context) if composed.concerned(value, path, context) else value
        if whole is None or not _in_order(whole):
            return None
        one = declared(path, whole, line, index)
        names.add((value["kind"], one.name))
        if isinstance(one, TaskDefinition):
            tasks.append(one)
        else:
            others.append(one)
    if len(names) < len(documents):
        return None
    return ParsedFile(path=path, tasks=tuple(tasks), others=tuple(others), documents=len(documents))


def _in_order(value: dict[str, Any]) -> bool:
    version, kind = value.get("apiVersion"), value.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        return False
    word = schemas.KINDS.get((version, kind)) if kind in _KINDS else None
    if word is None or not validate.accepts(word, value):
        return False
    return _remembered(value) if kind == "Task" else _silent(value)


def _composed(value: dict[str, Any], path: str, context: Context) -> dict[str, Any] | None:
    """Return a task with what bears upon its spec, if it is right by itself and keeps the rules of its Project."""
    if value.get("apiVersion") != API_VERSION or not validate.accepts("task", value):
        return None
    spec = value["spec"]
    if "environments" in spec and semantics.may_hold_secret(_encode(value), _encode(spec)):
        return None
    whole = composed.composed(value, path, context)[1]
    project = project_of(bearing(context.layers, path))
    if project is not None and any(True for _ in composed.ruled(whole, project)):
        return None
    return whole


def _silent(value: dict[str, Any]) -> bool:
    return next(iter(semantics.check(value, set())), None) is None


def _remembered(value: dict[str, Any]) -> bool:
    """Ask the rules about the schedule and about the other settings of a task apart: no rule sees both."""
    metadata, spec = value["metadata"], value["spec"]
    payload = spec.get("payload")
    if "environments" in spec:
        return False
    if not {"http", "checkin"}.isdisjoint(spec.get("run") or ()):
        return _silent(value)
    if (
        not _ORDINARY_METADATA.issuperset(metadata)
        or any(key.startswith(_OURS) for key in metadata.get("annotations", ()))
        or semantics.may_hold_secret(_encode(value), _encode(payload) if isinstance(payload, dict | list) else b"")
    ):
        return _silent(value)
    settings = {name: spec[name] for name in spec if name not in _FREE}
    return _schedule_in_order(_encode(spec["schedule"])) and _settings_in_order(_encode(settings))


@lru_cache(maxsize=16_384)
def _schedule_in_order(json: bytes) -> bool:
    return _silent({"kind": "Task", "metadata": {}, "spec": {"schedule": _decode(json)}})


@lru_cache(maxsize=4_096)
def _settings_in_order(json: bytes) -> bool:
    return _silent({"kind": "Task", "metadata": {}, "spec": _decode(json)})
