"""What no single document shows: names that lead nowhere or in circles, and schedules that calendars leave empty.

Pure: what is declared, what calendar files hold and the time are given. The reconciler's plan does the same checks
against what is in force; this is for manifests without a database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cron_observer import errors
from cron_observer.manifest import rules
from cron_observer.manifest.calendar import circle, named_files
from cron_observer.manifest.files import NOUNS
from cron_observer.manifest.values import Fault, Path
from cron_observer.model import Definition, ScheduleSpec, Severity, TaskDefinition

if TYPE_CHECKING:
    from cron_observer.manifest.ics import CalendarFile
    from cron_observer.schedule.calendars import Calendar

#: A document and what is wrong with it in the company of the others.
Crossing = tuple[TaskDefinition | Definition, Fault]


@dataclass(slots=True)
class Declared:
    """What a set of manifests declares. Paths of the calendars are those from the root of the source."""

    tasks: Collection[TaskDefinition] = ()
    calendars: Mapping[str, Definition] = field(default_factory=dict)
    groups: Mapping[str, Definition] = field(default_factory=dict)
    broken: Collection[tuple[str, str]] = ()  #: kind and name of documents with errors of their own
    whole: bool = True  #: False when other manifests may declare what is missing here


def crossings(declared: Declared, files: Mapping[str, CalendarFile], now: datetime | None = None) -> Iterator[Crossing]:
    """Yield what is wrong with the documents of a set together.

    `files` holds the calendar files by their path from the root; one that is not in it is missing. Without `now`
    nothing is said of schedules that have ended.
    """
    yield from _renames(declared)
    contents, found = resolve_calendars(declared, files)
    yield from found
    for task in declared.tasks:
        lost = list(_lost(task, declared))
        yield from ((task, fault) for fault in lost)
        yield from ((task, fault) for fault in _schedule(task, contents, now))


def resolve_calendars(
    declared: Declared, files: Mapping[str, CalendarFile]
) -> tuple[dict[str, Calendar], list[Crossing]]:
    """Return the calendars that can be asked, and what is wrong with the others."""
    from cron_observer.schedule import calendars

    found = [*_files(declared, files), *_bases(declared)]
    specs = {name: _rooted(one) for name, one in declared.calendars.items()}
    contents: dict[str, Calendar] = {}
    for name, one in declared.calendars.items():
        try:
            contents[name] = calendars.read_calendar(calendars.resolve(name, specs, files))
        except errors.ScheduleError as error:
            if error.rule == rules.CALENDAR_TOO_LARGE.code:
                found.append((one, Fault(rules.CALENDAR_TOO_LARGE, ("spec",), error.message)))
    return contents, found


def _rooted(one: Definition) -> Mapping[str, Any]:
    """Return the spec of a calendar with the paths of its files from the root of the source."""
    paths = named_files(one)
    entries = [entry | {"ics": paths[entry["ics"]]} if "ics" in entry else entry for entry in one.spec["entries"]]
    return {**one.spec, "entries": entries}


def _unknown(kind: str, name: str, path: Path, known: Collection[str], declared: Declared) -> Fault | None:
    """Say that a name leads nowhere; of a file alone, that it could not be followed."""
    from cron_observer.schedule.calendars import near

    if name in known or (kind, name) in declared.broken:
        return None
    if not declared.whole:
        message = f'the {NOUNS[kind]} "{name}" is not declared here'
        return Fault(rules.NOT_CHECKED, path, message, "validate the folder that declares it together with this file")
    rule = rules.UNKNOWN_CALENDAR if kind == "Calendar" else rules.UNKNOWN_GROUP
    hint = near(name, known) or f"declare it in a manifest of the same project (kind: {kind})"
    return Fault(rule, path, f'the {NOUNS[kind]} "{name}" is not declared', hint)


# -- tasks ---------------------------------------------------------------------------------------------------


def _lost(task: TaskDefinition, declared: Declared) -> Iterator[Fault]:
    group = task.spec["group"]
    if group is not None and (fault := _unknown("TaskGroup", group, ("spec", "group"), declared.groups, declared)):
        yield fault
    for side, names in task.spec["schedule"]["calendars"].items():
        for number, name in enumerate(names):
            at: Path = ("spec", "schedule", "calendars", side, number)
            if fault := _unknown("Calendar", name, at, declared.calendars, declared):
                yield fault


def _renames(declared: Declared) -> Iterator[Crossing]:
    names = {task.name: task for task in declared.tasks}
    heirs: dict[str, TaskDefinition] = {}
    for task in declared.tasks:
        former = task.renamed_from
        if former is None:
            continue
        at: Path = ("metadata", "renamedFrom")
        if former in names or ("Task", former) in declared.broken:
            place = f" at {names[former].path}:{names[former].line}" if former in names else ""
            message = f'the task "{former}" is still declared{place}'
            hint = "remove that manifest, or this line if that one is another task"
            yield task, Fault(rules.RENAMED_FROM_DECLARED, at, message, hint)
        other = heirs.setdefault(former, task)
        if other is not task:
            message = f'the task "{other.name}" at {other.path}:{other.line} is renamed from "{former}" too'
            yield task, Fault(rules.RENAMED_TWICE, at, message, "remove the line from one of them")


def _schedule(task: TaskDefinition, contents: Mapping[str, Calendar], now: datetime | None) -> Iterator[Fault]:
    from cron_observer import schedule

    block = task.spec["schedule"]
    spec = ScheduleSpec.read(block, "-")
    named = (*spec.include, *spec.exclude)
    if not all(name in contents for name in named):
        return
    calendars = {name: contents[name] for name in named}
    if named:
        try:
            schedule.check(spec, calendars)
        except errors.ScheduleError as error:
            path = tuple(int(part) if part.isdecimal() else part for part in error.pointer.split("/")[1:])
            yield Fault(rules.Rule(error.rule, "schedule"), ("spec", "schedule", *path), error.message, error.hint)
            return
    ends = spec.end_at is not None or not (spec.cron or spec.every)
    if now is not None and ends and not task.spec["suspend"]:
        fires = schedule.compile(replace(spec, jitter=None), calendars).next_fires(now, 1)
        if not fires:
            field_name = "endAt" if spec.end_at is not None else "at"
            message = "has passed: the task gets no more slots"
            yield Fault(rules.IN_THE_PAST, ("spec", "schedule", field_name), message, "remove the task, or change it")


# -- calendars -------------------------------------------------------------------------------------------------


def _files(declared: Declared, files: Mapping[str, CalendarFile]) -> Iterator[Crossing]:
    for one in declared.calendars.values():
        paths = named_files(one)
        for number, entry in enumerate(one.spec["entries"]):
            if "ics" not in entry:
                continue
            at: Path = ("spec", "entries", number, "ics")
            path = paths[entry["ics"]]
            if path not in files:
                hint = "the path is relative to the folder of the manifest, or to the root if it begins with '/'"
                yield one, Fault(rules.NO_CALENDAR_FILE, at, f"there is no file {path}", hint)
            for found in files[path]["findings"] if path in files else ():
                place = f"{path}:{found.line}" if found.line else path
                rule = rules.RULES[found.code]
                if found.severity is Severity.ERROR or number == _first_naming(one, entry["ics"]):
                    yield one, Fault(rule, at, f"{place}: {found.message}", found.hint)


def _first_naming(one: Definition, written: str) -> int:
    return next(number for number, entry in enumerate(one.spec["entries"]) if entry.get("ics") == written)


def _bases(declared: Declared) -> Iterator[Crossing]:
    bases = {name: list(one.spec["base"]) for name, one in declared.calendars.items()}
    for name, one in declared.calendars.items():
        for number, base in enumerate(bases[name]):
            fault = _unknown("Calendar", base, ("spec", "base", number), declared.calendars, declared)
            if fault is not None:
                yield one, fault
        way = circle(name, bases)
        if way:
            message = f"the calendar contains itself: {' → '.join(way)}"
            at: Path = ("spec", "base", bases[name].index(way[1]))
            yield one, Fault(rules.CALENDAR_CYCLE, at, message, "remove one of these names from its base")
