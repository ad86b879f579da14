"""What a schema cannot say: bounds of durations, schedules that can be evaluated, no secrets. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import msgspec

from cron_observer import errors
from cron_observer.manifest import calendar, policies, rules, watching, webhooks
from cron_observer.manifest.scalars import looks_secret, may_look_secret
from cron_observer.manifest.values import Fault, Path, walk
from cron_observer.model import OnExcluded, ScheduleSpec, parse_duration

_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)
_LONGEST: Final = timedelta(days=3660)  # ten years; longer is a typing error, and overflows dates

#: Path inside the spec -> shortest and longest duration, and how the longest is written.
_BOUNDS: Final[dict[Path, tuple[timedelta, timedelta, str]]] = {
    ("schedule", "every"): (_SECOND, _LONGEST, "3660d"),
    ("schedule", "jitter"): (_SECOND, _DAY, "24h"),
    ("catchup", "window"): (_SECOND, _LONGEST, "3660d"),
    ("maxLateness",): (_SECOND, _LONGEST, "3660d"),
    ("startDeadline",): (_SECOND, _LONGEST, "3660d"),
    ("timeout",): (_SECOND, 7 * _DAY, "7d"),
    ("run", "checkin", "grace"): (_SECOND, 6 * _DAY, "6d"),
    ("run", "checkin", "minRuntime"): (_SECOND, 7 * _DAY, "7d"),
    ("run", "checkin", "maxRuntime"): (_SECOND, 7 * _DAY, "7d"),
    ("run", "checkin", "heartbeat"): (_SECOND, 7 * _DAY, "7d"),
    ("run", "checkin", "earlyMargin"): (timedelta(0), _DAY, "24h"),
    ("run", "http", "timeout"): (_SECOND, timedelta(minutes=15), "15m"),
    ("retries", "initial"): (_SECOND, _DAY, "24h"),
    ("retries", "cap"): (_SECOND, _DAY, "24h"),
}

#: Fields of the schedule that the engine reads.
_EVALUATED: Final = (
    *("cron", "every", "anchor", "at", "timezone", "dst"),
    *("windows", "calendars", "onExcluded", "jitter", "startAt", "endAt"),
)
_SAMPLE: Final = datetime(2026, 1, 1, tzinfo=UTC)

#: Last words of a key whose value is a secret, once camelCase and dashes are undone.
_SECRET_KEY: Final = re.compile(
    r"(^|_)(password|passwd|pwd|passphrase|secret|token|api_?key|private_?key|access_?key|secret_?key"
    r"|client_?secret|credentials?)\Z"
)
#: Values that name a secret instead of being one: ${X}, {{ x }}, env:X, vault:x, arn:…, path of a file.
_REFERENCE: Final = re.compile(r"\$|\{\{|<|\*+\Z|(env|vault|secret|ref|file|arn|op|aws|gcp|azure|k8s|ssm):|/|~/")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def check(document: Mapping[str, Any], faulty: set[Path]) -> Iterator[Fault]:
    """Yield what is wrong beyond the schema. Fields under a path of `faulty` are left alone."""
    spec, kind = document.get("spec"), document.get("kind")
    if isinstance(spec, Mapping):
        if kind == "Calendar":
            yield from calendar.check(spec, faulty)
        elif kind == "TaskGroup":
            yield from policies.check_group(spec, faulty)
        elif kind in _PARTIAL:
            yield from _partial(spec, _PARTIAL[kind], faulty)
        else:
            yield from _durations(spec, faulty)
            if isinstance(spec.get("schedule"), Mapping):
                yield from _schedule(spec["schedule"], faulty)
            yield from policies.check(document, faulty)
            found = [*webhooks.check(spec), *watching.check(spec)]
            yield from (fault for fault in found if not _within(fault.path, faulty))
    yield from secrets(document)


#: Where the kinds that are no tasks say something of tasks.
_PARTIAL: Final[dict[Any, tuple[str, ...]]] = {"Defaults": ("spec", "spec"), "Project": ("spec", "defaults", "Task")}


def _partial(spec: Mapping[str, Any], at: tuple[str, ...], faulty: set[Path]) -> Iterator[Fault]:
    """Yield what is wrong with a part of a spec whatever it is put together with."""
    said: Any = spec
    for part in at[1:]:
        said = said.get(part) if isinstance(said, Mapping) else None
    if not isinstance(said, Mapping):
        return
    inner = {("spec", *path[len(at) :]) for path in faulty if path[: len(at)] == at}
    found = list(_durations(said, inner))
    runs = [*webhooks.check(said, partial=True), *watching.check(said, partial=True)]
    found += [one for one in runs if not _within(one.path, inner)]
    schedule = said.get("schedule")
    if isinstance(schedule, Mapping):
        found += _schedule({name: value for name, value in schedule.items() if value is not None}, inner)
        found += [one for one in policies.check_windows(schedule, ("spec", "schedule")) if not touched(one.path, inner)]
    yield from (replace(fault, path=(*at, *fault.path[1:])) for fault in found)


def touched(path: Path, faulty: set[Path]) -> bool:
    """Tell whether something at, above or below a path is faulty already."""
    return any(other[: len(path)] == path or path[: len(other)] == other for other in faulty)


def _within(path: Path, faulty: set[Path]) -> bool:
    """Tell whether a value, or something around it but the spec, is faulty already."""
    return any(path[: len(other)] == other for other in faulty if len(other) > 1)


def _durations(spec: Mapping[str, Any], faulty: set[Path]) -> Iterator[Fault]:
    read: dict[Path, timedelta] = {}
    for path, (low, high, most) in _BOUNDS.items():
        value: Any = spec
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        if not isinstance(value, str) or touched(("spec", *path), faulty):
            continue
        try:
            duration = parse_duration(value)
        except OverflowError:
            duration = timedelta.max
        except ValueError:
            continue  # the schema has said so
        read[path] = duration
        if not low <= duration <= high:
            message = f"expected {low.total_seconds():g}s to {most}, got {value}"
            faulty.add(("spec", *path))
            yield Fault(rules.DURATION_OUT_OF_RANGE, ("spec", *path), message)
    initial, cap = read.get(("retries", "initial")), read.get(("retries", "cap"))
    if initial is not None and cap is not None and cap < initial:
        message = "is shorter than the initial wait, so every wait is this long"
        yield Fault(rules.CAP_BELOW_INITIAL, ("spec", "retries", "cap"), message)


def _schedule(block: Mapping[str, Any], faulty: set[Path]) -> Iterator[Fault]:
    sound = {
        name: block[name]
        for name in _EVALUATED
        if name in block and not touched(("spec", "schedule", name), faulty - {("spec", "schedule")})
    }
    fires = bool(sound.keys() & {"cron", "every", "at"})
    if not fires:
        sound["cron"] = "* * * * *"  # so that the rest can be looked at
        sound.pop("onExcluded", None)  # which this expression does not go with
    if "every" not in sound:
        sound.pop("anchor", None)
    for message, pointer, rule, hint in _schedule_faults(ScheduleSpec.read(sound)):
        path: Path = tuple(int(part) if part.isdecimal() else part for part in pointer.split("/")[1:])
        if path[:1] in (("cron",), ("at",)):
            listed = isinstance(block.get(str(path[0])), list)
            path = (path[0], *(path[1:] or (0,))) if listed else path[:1]  # a list may be one of one
        yield Fault(rules.Rule(rule, "schedule"), ("spec", "schedule", *path), message, hint)
    if fires:
        yield from _jitter(ScheduleSpec.read(sound))


def _jitter(spec: ScheduleSpec) -> Iterator[Fault]:
    interval = _interval(spec) if spec.jitter is not None else None
    if spec.jitter is not None and interval is not None and interval < spec.jitter:
        message = f"is longer than the shortest interval of the schedule, {_written(interval)}, and is cut to it"
        yield Fault(rules.JITTER_TOO_LONG, ("spec", "schedule", "jitter"), message)


def _written(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    unit, size = next(((unit, size) for unit, size in (("h", 3600), ("m", 60)) if seconds % size == 0), ("s", 1))
    return f"{seconds / size:g}{unit}"


@lru_cache(maxsize=4096)
def _interval(spec: ScheduleSpec) -> timedelta | None:
    """Return the shortest time between two fires, of the first that come; None where it cannot be known."""
    from cron_observer import schedule

    bare = replace(spec, include=(), exclude=(), on_excluded=OnExcluded.SKIP, jitter=None, seed=spec.seed or "-")
    try:
        fires = schedule.compile(bare).next_fires(_SAMPLE, 30)
    except errors.ScheduleError:
        return None
    return min((later - earlier for earlier, later in pairwise(fires)), default=None)


@lru_cache(maxsize=4096)  # thousands of tasks share few schedules
def _schedule_faults(spec: ScheduleSpec) -> tuple[tuple[str, str, str, str | None], ...]:
    found: dict[str, tuple[str, str, str, str | None]] = {}
    first = _ask(spec)
    if first is None:
        return ()
    found[first[1]] = first
    # The schedule is wrong, and we know one reason; the others are found by asking for each part alone.
    parts = [("", ScheduleSpec(cron=("* * * * *",), timezone=spec.timezone))]
    for index, expression in enumerate(spec.cron):
        parts.append((f"/cron/{index}", ScheduleSpec(cron=(expression,))))
    for index, instant in enumerate(spec.at):
        parts.append((f"/at/{index}", ScheduleSpec(at=(instant,))))
    always = ScheduleSpec(cron=("* * * * *",))
    parts += [("/startAt", replace(always, start_at=spec.start_at)), ("/endAt", replace(always, end_at=spec.end_at))]
    for pointer, part in parts:
        more = _ask(part)
        if more is not None:
            where = pointer or more[1]
            found.setdefault(where, (more[0], where, more[2], more[3]))
    if len(spec.cron) == 1 and "/cron" in found:
        found.pop("/cron/0", None)
    if len(spec.at) == 1 and "/at" in found:
        found.pop("/at/0", None)
    return tuple(found.values())


def _ask(spec: ScheduleSpec) -> tuple[str, str, str, str | None] | None:
    from cron_observer import schedule

    try:
        schedule.check(spec)
    except errors.ScheduleError as error:
        return error.message, error.pointer, error.rule, error.hint
    return None


def secrets(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what in a document may be a secret."""
    hint = "keep the secret where the task runs and name it here; take this one out of use, Git remembers it"
    for path, value in walk(document) if _suspicious(document) else ():
        if not isinstance(value, str):
            continue
        if looks_secret(value):
            yield Fault(rules.SECRET, path, "this looks like a secret", hint)
        elif _in_payload(path) and _named_secretly(path) and is_literal(value):
            yield Fault(rules.SECRET, path, "a secret may not stand in a manifest", hint)


#: Each key that names a secret holds one of these, in lower case.
_SECRET_WORDS: Final = (b"pass", b"pwd", b"secret", b"token", b"key", b"credential")


def _suspicious(document: Mapping[str, Any]) -> bool:
    """Tell whether a document is worth a look at each of its texts."""
    try:
        json = msgspec.json.encode(document)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return True
    return may_hold_secret(json, json)


def may_hold_secret(json: bytes, payload: bytes) -> bool:
    """Tell whether a document may hold what is refused as a secret, from its JSON and that of its payload.

    False is certain.
    """
    if may_look_secret(json):
        return True
    lower = payload.lower()
    return any(word in lower for word in _SECRET_WORDS)


#: Where values stand that are handed on: of a task, of an environment, of what layers give to tasks.
_PAYLOADS: Final[tuple[tuple[str | None, ...], ...]] = tuple(
    (*at, *free)
    for at in (("spec",), ("spec", "environments", None), *_PARTIAL.values())
    for free in (("payload",), ("run", "http", "body"), ("run", "http", "headers"))
)


def _in_payload(path: Path) -> bool:
    """Tell whether a value belongs to a payload, or to what a request carries."""
    return any(part in path for part in ("payload", "http")) and any(
        len(path) >= len(at) and all(part in (None, here) for part, here in zip(at, path, strict=False))
        for at in _PAYLOADS
    )


def _named_secretly(path: Path) -> bool:
    return names_secret(next((part for part in reversed(path) if isinstance(part, str)), ""))


def names_secret(key: str) -> bool:
    """Tell whether a key says that its value is a secret."""
    return _SECRET_KEY.search(_CAMEL.sub("_", key).replace("-", "_").lower()) is not None


def is_literal(value: str) -> bool:
    """Tell whether a text is a value itself, not the name of where it is kept."""
    return bool(value.strip()) and _REFERENCE.match(value) is None
