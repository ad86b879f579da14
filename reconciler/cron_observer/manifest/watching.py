"""What of a task that somebody else runs the schema cannot say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from cron_observer.manifest import rules
from cron_observer.manifest.values import Fault, Path
from cron_observer.model import parse_duration

#: Settings of how we run a task, with their defaults: they have no effect on what somebody else runs.
_OURS: Final[Mapping[str, Any]] = {
    "queue": "default",
    "priority": 0,
    "payload": None,
    "maxLateness": None,
    "overlap": "skip",
    "maxParallel": None,
    "onResume": "skip",
    "startDeadline": None,
    "timeout": "1h",
}
_NESTED: Final[Mapping[str, Mapping[str, Any]]] = {
    "catchup": {"policy": "last", "window": "1h", "maxRuns": 10},
    "retries": {"max": 0, "backoff": "exponential", "initial": "10s", "cap": "10m"},
}

#: The names of all of them.
OURS: Final = frozenset({*_OURS, *_NESTED})

_INSTEAD: Final = {"startDeadline": "write run.checkin.grace", "timeout": "write run.checkin.maxRuntime"}

_DEFAULTS: Final = {"maxRuntime": timedelta(hours=1)}


def check(spec: Mapping[str, Any], *, partial: bool = False) -> Iterator[Fault]:
    """Yield what is wrong with ``run.checkin``, and with what stands beside it if the spec is a whole one."""
    run = spec.get("run")
    block = run.get("checkin") if isinstance(run, Mapping) else None
    if not isinstance(block, Mapping):
        return
    at: Path = ("spec", "run", "checkin")
    longest = _duration(block, "maxRuntime") or (None if partial else _DEFAULTS["maxRuntime"])
    least, heartbeat = _duration(block, "minRuntime"), _duration(block, "heartbeat")
    if longest is not None and least is not None and least >= longest:
        message = "no run can succeed: it may not end before minRuntime, nor after maxRuntime"
        yield Fault(rules.CONTRADICTION, (*at, "minRuntime"), message, "shorten it, or lengthen maxRuntime")
    if longest is not None and heartbeat is not None and heartbeat >= longest:
        message = "is never reached: maxRuntime ends the run before"
        yield Fault(rules.NO_EFFECT, (*at, "heartbeat"), message, "shorten it, or remove it")
    if not partial:
        yield from _beside(spec)


def _beside(spec: Mapping[str, Any]) -> Iterator[Fault]:
    for name, default in _OURS.items():
        if name in spec and spec[name] != default and not isinstance(spec[name], Mapping | list):
            yield _unused((name,), _INSTEAD.get(name))
        elif name == "payload" and spec.get(name) is not None:
            yield _unused((name,), None)
    for name, defaults in _NESTED.items():
        block = spec.get(name)
        if not isinstance(block, Mapping):
            continue
        said = [inner for inner, default in defaults.items() if block.get(inner, default) not in (default, None)]
        if said:
            yield _unused((name, said[0]), None)


def _unused(path: tuple[str, ...], instead: str | None) -> Fault:
    message = "has no effect: somebody else runs the task, and we only watch"
    return Fault(rules.NO_EFFECT, ("spec", *path), message, instead or "remove it, or write run: {external: {}}")


def _duration(block: Mapping[str, Any], name: str) -> timedelta | None:
    value = block.get(name)
    try:
        return parse_duration(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
