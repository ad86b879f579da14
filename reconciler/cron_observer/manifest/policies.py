"""What of a task's or a group's settings contradicts the rest, or can have no effect. Pure.

Settings that have their default say nothing: a spec in which every default is written is as good as one without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from cron_observer.manifest import rules
from cron_observer.manifest.values import Fault, Path
from cron_observer.model import ADOPT, NEW_IDENTITY, parse_duration

_HOUR: Final = timedelta(hours=1)
_PROMPT: Final = timedelta(seconds=60)  # how late a slot may be with `catchup: none`
_SHIFTS: Final = ("next_allowed", "previous_allowed")


def check(document: Mapping[str, Any], faulty: set[Path]) -> Iterator[Fault]:
    """Yield what is wrong with how the settings of a task go together. What is `faulty` is left alone."""
    metadata, spec = document.get("metadata"), document["spec"]
    former = _text(metadata, "renamedFrom")
    if former is not None and former == _text(metadata, "name"):
        message = "is the name that the task has"
        hint = "write the name that it had before, or remove the line"
        yield Fault(rules.RENAMED_TO_ITSELF, ("metadata", "renamedFrom"), message, hint)
    found = [*_annotations(metadata), *_parallel(spec), *_late(spec)]
    if isinstance(spec.get("schedule"), Mapping):
        found += [*_windows(spec["schedule"].get("windows"), ("spec", "schedule")), *_calendars(spec["schedule"])]
    yield from (fault for fault in found if not _beside(fault.path, faulty))


def check_group(spec: Mapping[str, Any], faulty: set[Path]) -> Iterator[Fault]:
    """Yield what is wrong with a task group beyond its schema."""
    from cron_observer.manifest.calendar import check_zone

    yield from check_zone(spec, faulty)
    found = [*_windows(spec.get("windows"), ("spec",))]
    if spec.get("onWindowClose") == "cancel" and not spec.get("windows"):
        message = "has no effect without windows"
        found.append(Fault(rules.NO_EFFECT, ("spec", "onWindowClose"), message, "add windows, or remove it"))
    yield from (fault for fault in found if not _beside(fault.path, faulty))


def _annotations(metadata: Any) -> Iterator[Fault]:
    """Annotations of ours that are neither of the two words that mean something."""
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    if not isinstance(annotations, Mapping):
        return
    for key in (ADOPT, NEW_IDENTITY):
        if annotations.get(key, "true") not in ("true", "false"):
            message = "has no effect: only true and false mean something"
            hint = 'write "true" or "false", in quotes'
            yield Fault(rules.NEITHER_TRUE_NOR_FALSE, ("metadata", "annotations", key), message, hint)


def check_windows(schedule: Any, at: Path) -> Iterator[Fault]:
    """Yield what is wrong with the windows of a schedule that is no whole one."""
    yield from _windows(schedule.get("windows") if isinstance(schedule, Mapping) else None, at)


def _beside(path: Path, faulty: set[Path]) -> bool:
    return any(other[: len(path)] == path or path[: len(other)] == other for other in faulty if len(other) > 1)


def _text(block: Any, name: str) -> str | None:
    value = block.get(name) if isinstance(block, Mapping) else None
    return value if isinstance(value, str) else None


def _duration(block: Any, name: str) -> timedelta | None:
    try:
        return parse_duration(_text(block, name) or "")
    except (ValueError, OverflowError):
        return None


def _parallel(spec: Mapping[str, Any]) -> Iterator[Fault]:
    overlap = spec.get("overlap", "skip")
    if spec.get("maxParallel") is not None and overlap != "allow_all":
        message = f"with overlap {overlap} the task never runs beside itself"
        yield Fault(rules.CONTRADICTION, ("spec", "maxParallel"), message, "write overlap: allow_all, or remove it")


def _late(spec: Mapping[str, Any]) -> Iterator[Fault]:
    """Bounds that another bound never lets anything reach."""
    catchup = spec.get("catchup")
    policy = _text(catchup, "policy") or "last"
    window = _duration(catchup, "window") or (None if policy == "all" else _HOUR)
    if policy == "none" and window != _HOUR:
        message = "has no effect with policy none"
        yield Fault(rules.NO_EFFECT, ("spec", "catchup", "window"), message, "write policy: last or all, or remove it")
    runs = catchup.get("maxRuns", 10) if isinstance(catchup, Mapping) else 10
    if runs != 10 and policy != "all" and spec.get("onResume") != "all":
        message = f"has no effect with policy {policy}, which runs at most one slot of a backlog"
        yield Fault(rules.NO_EFFECT, ("spec", "catchup", "maxRuns"), message, "write policy: all, or remove it")
    reach = _PROMPT if policy == "none" else window
    said = "catch-up with policy none looks back 60 s" if policy == "none" else "catch-up looks no further back"
    bounds = [("maxLateness", _duration(spec, "maxLateness")), ("startDeadline", _duration(spec, "startDeadline"))]
    waits = spec.get("overlap") in ("buffer_one", "buffer_all")  # what waits for its turn is not judged by catch-up
    for name, bound in bounds:
        if bound is not None and reach is not None and bound > reach and not waits:
            message = f"is never reached: {said}, so a slot is SKIPPED(too_late) before"
            yield Fault(rules.NO_EFFECT, ("spec", name), message, "lengthen catchup.window, or remove it")
    lateness, deadline = bounds[0][1], bounds[1][1]
    if lateness is not None and deadline is not None and deadline > lateness:
        message = "is never reached: with maxLateness a slot is SKIPPED(too_late) before"
        yield Fault(rules.NO_EFFECT, ("spec", "startDeadline"), message, "lengthen maxLateness, or remove it")


def _windows(windows: Any, at: Path) -> Iterator[Fault]:
    for number, window in enumerate(windows if isinstance(windows, list) else ()):
        start, end = _text(window, "from"), _text(window, "to")
        if start is not None and start == end:
            message = "the window ends where it begins"
            hint = 'for the whole day write from: "00:00" and to: "24:00"'
            yield Fault(rules.EMPTY_WINDOW, (*at, "windows", number, "to"), message, hint)


def _calendars(schedule: Mapping[str, Any]) -> Iterator[Fault]:
    at: Path = ("spec", "schedule", "calendars")
    named = schedule.get("calendars")
    listed = {
        key: [name for name in named[key] if isinstance(name, str)]
        for key in ("include", "exclude")
        if isinstance(named, Mapping) and isinstance(named.get(key), list)
    }
    for key, names in listed.items():
        for number, name in enumerate(names):
            if name in names[:number]:
                message = f'names "{name}" a second time'
                yield Fault(rules.NO_EFFECT, (*at, key, number), message, "remove it")
    for number, name in enumerate(listed.get("exclude", ())):
        if name in listed.get("include", ()):
            message = f'"{name}" is included and excluded: the schedule never fires on it'
            yield Fault(rules.CONTRADICTION, (*at, "exclude", number), message, "remove it from one of the two")
    shifts = schedule.get("onExcluded") in _SHIFTS
    if shifts and not any(listed.values()):
        message = "has no effect without calendars"
        yield Fault(rules.NO_EFFECT, ("spec", "schedule", "onExcluded"), message, "name a calendar, or remove it")
