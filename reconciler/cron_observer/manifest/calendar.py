"""What is wrong with one Calendar document beyond its schema, and where its calendar files are. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from cron_observer import errors
from cron_observer.manifest import rules
from cron_observer.manifest.rules import Rule
from cron_observer.manifest.values import Fault, Path
from cron_observer.model import Definition, ParsedFile

_PATH_HINT: Final = "write a path below the repository, such as shutdown.ics or /calendars/shutdown.ics, without '..'"


def file_path(manifest: str, written: str) -> str | None:
    """Return the path from the root of the source that an ``ics`` entry of a manifest means; None if it may not.

    It is relative to the folder of the manifest, or to the root if it begins with ``/``.
    """
    parts = written.removeprefix("/").split("/")
    hidden = any(part in ("", "..") or (part.startswith(".") and part != ".") for part in parts)
    if hidden or "\\" in written or not written.isprintable() or not written.lower().endswith(".ics"):
        return None
    below = PurePosixPath() if written.startswith("/") else PurePosixPath(manifest).parent
    return str(below / "/".join(part for part in parts if part != "."))


def calendar_files(parsed: ParsedFile) -> set[str]:
    """Return the paths, from the root of the source, of the calendar files that a manifest's calendars name."""
    return {path for one in parsed.others for path in named_files(one).values()}


def named_files(one: Definition) -> dict[str, str]:
    """Return what the entries of a calendar name: the path as written, and the path from the root of the source."""
    entries = one.spec.get("entries") or () if one.kind == "Calendar" else ()
    paths = {entry["ics"]: file_path(one.path, entry["ics"]) for entry in entries if "ics" in entry}
    return {written: path for written, path in paths.items() if path is not None}


def circle(name: str, bases: Mapping[str, Collection[str]]) -> list[str]:
    """Return the shortest way from a calendar through its bases back to itself; empty if there is none."""
    ways, seen = [[name]], {name}
    for way in ways:
        for base in bases.get(way[-1], ()):
            if base == name:
                return [*way, name]
            if base not in seen:
                seen.add(base)
                ways.append([*way, base])
    return []


def check(spec: Mapping[str, Any], faulty: set[Path]) -> Iterator[Fault]:
    """Yield what is wrong with the spec of a Calendar. What is under a path of `faulty` is left alone."""
    from cron_observer.schedule import calendars

    yield from check_zone(spec, faulty)
    entries = spec.get("entries")
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        at: Path = ("spec", "entries", number)
        if any(other[: len(at)] == at for other in faulty):
            continue
        if "ics" in entry:
            if file_path("x.yaml", entry["ics"]) is None:
                message = "is no path of a calendar file"
                yield Fault(rules.BAD_CALENDAR_PATH, (*at, "ics"), message, _PATH_HINT)
            continue
        try:
            calendars.part_of({"entries": [entry]}, {})
        except errors.ScheduleError as error:
            path = tuple(error.pointer.split("/")[3:])
            yield Fault(rules.RULES[error.rule], (*at, *path), error.message, error.hint)


def check_zone(spec: Mapping[str, Any], faulty: set[Path]) -> Iterator[Fault]:
    """Yield what is wrong with the time zone of a Calendar or a TaskGroup."""
    from cron_observer.schedule import zones

    name = spec.get("timezone")
    if isinstance(name, str) and ("spec", "timezone") not in faulty:
        try:
            zones.zone(name)
        except errors.ScheduleError as error:
            yield Fault(Rule(error.rule, "schedule"), ("spec", "timezone"), error.message, error.hint)
