"""Judge a task as it is with everything that bears upon it, and say in which file each fault is to be mended. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Final

from cron_observer.manifest import rules, semantics, validate, watching
from cron_observer.manifest.layers import ENVIRONMENT, LAYERS, Composed, bearing, compose, project_of
from cron_observer.manifest.values import Fault
from cron_observer.model import RESERVED_QUEUES, Context, Definition, effective_queue

_Document = dict[str, Any]

_NAME: Final = ("metadata", "name")


def concerned(value: Mapping[str, Any], path: str, context: Context) -> bool:
    """Tell whether a task is more than its document says by itself. Asked of every document: it costs nothing."""
    if value.get("kind") != "Task":
        return False
    spec = value.get("spec")
    return (isinstance(spec, Mapping) and "environments" in spec) or bool(bearing(context.layers, path))


def examine(value: _Document, path: str, context: Context, *, each: bool = False) -> tuple[list[Fault], _Document]:
    """Return what is wrong with a task that `concerned` is true of, and the document with its composed spec.

    With `each`, and no environment in the context, it is judged in every environment that it names as well.
    """
    own = validate.check("task", value)
    if own:  # what is not right by itself is not put together
        return [*own, *semantics.check(value, {fault.path for fault in own})], value
    faults = list(semantics.secrets(value))
    found, whole = _in(value, path, context)
    faults += found
    for name in value["spec"].get("environments") or () if each and context.environment is None else ():
        faults += _in(value, path, replace(context, environment=name))[0]
    return list(dict.fromkeys(faults)), whole


def composed(value: _Document, path: str, context: Context) -> tuple[Composed, _Document]:
    """Put a valid document together with what bears upon it."""
    made = compose(value["spec"], path, context, value["metadata"]["name"])
    return made, {**value, "spec": made.merged}


def _in(value: _Document, path: str, context: Context) -> tuple[list[Fault], _Document]:
    made, whole = composed(value, path, context)
    faults = validate.check("task", whole)
    faults += semantics.check(whole, {fault.path for fault in faults})
    project = project_of(bearing(context.layers, path))
    if project is not None:
        faults += ruled(whole, project)
    # Secrets were looked for in the text itself, and those of a layer are its own fault.
    said = [fault for fault in faults if fault.rule is not rules.SECRET and not _only_shared(fault, made)]
    return [_blamed(fault, made) for fault in said], whole


def _only_shared(fault: Fault, made: Composed) -> bool:
    """Tell whether a fault says that what a layer gives to all tasks alike has no effect on one that we do not run."""
    unused = fault.rule is rules.NO_EFFECT and fault.path[1:] and fault.path[1] in watching.OURS
    return bool(unused) and made.speaker(fault.path[1:]).kind in LAYERS


def ruled(value: Mapping[str, Any], project: Definition) -> Iterator[Fault]:
    """Yield the rules of a Project that a composed task breaks."""
    place = f"Project {project.name} at {project.path}:{project.line}"
    labels = value["metadata"].get("labels") or {}
    for key in (project.spec.get("labels") or {}).get("required") or ():
        if key not in labels:
            message = f'the label "{key}" is missing, which {place} asks for'
            yield Fault(rules.LABEL_REQUIRED, ("metadata", "labels", key), message, f"add {key}", within=())
    allowed = (project.spec.get("queues") or {}).get("allow") or ()
    queue = effective_queue({"queue": value["spec"].get("queue") or "default", "run": value["spec"].get("run")})
    ours = queue in RESERVED_QUEUES.values()
    if allowed and not ours and not any(fnmatchcase(queue, pattern) for pattern in allowed):
        message = f'the queue "{queue}" is not allowed by {place}'
        yield Fault(rules.QUEUE_NOT_ALLOWED, ("spec", "queue"), message, f"allowed: {', '.join(allowed)}", within=())


def _blamed(fault: Fault, made: Composed) -> Fault:
    """Move a fault to where the value stands; one of another file is told at the name, with its place."""
    if fault.path[:1] != ("spec",):
        return fault
    origin = made.speaker(fault.path[1:])
    if origin.kind == ENVIRONMENT:
        path = ("spec", "environments", origin.name, *fault.path[1:])
        return replace(fault, path=path, within=None if fault.within is None else path)
    if origin.kind in LAYERS:
        within = fault.path if fault.within is None else fault.within
        message = f"{fault.message} (from {origin})"
        return replace(fault, path=_NAME, message=message, within=within, on_key=False)
    return fault
