"""Calendars for `cron-observer explain`: read from manifests, without a server."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cron_observer.model import Definition, ScheduleSpec

if TYPE_CHECKING:
    from cron_observer.schedule.calendars import Calendar


class CalendarFiles:
    """The Calendar documents of one manifest, or of all manifests below a folder."""

    def __init__(self, place: Path) -> None:
        self._root = place if place.is_dir() else place.parent
        self._specs: dict[str, dict[str, Any]] = {}
        for one in self._definitions(place):
            self._specs[one.name] = self._placed(one)

    def named(self, spec: ScheduleSpec) -> dict[str, Calendar]:
        """Return the calendars that a schedule names and that are there; raise `ScheduleError` for a broken one."""
        from cron_observer.schedule.calendars import read_calendar, resolve

        wanted = [name for name in (*spec.include, *spec.exclude) if name in self._specs]
        files = self._files() if wanted else {}
        return {name: read_calendar(resolve(name, self._specs, files)) for name in wanted}

    def _definitions(self, place: Path) -> Iterable[Definition]:
        from cron_observer.manifest import is_manifest, parse

        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            name = path.relative_to(self._root).as_posix()
            if path.is_file() and (path == place or is_manifest(name)):
                yield from (one for one in parse(name, path.read_bytes()).others if one.kind == "Calendar")

    def _placed(self, one: Definition) -> dict[str, Any]:
        """Return the spec of a calendar with the paths of its files counted from the root."""
        from cron_observer.manifest import file_path

        entries = [
            {"ics": file_path(one.path, entry["ics"]) or entry["ics"]} if "ics" in entry else entry
            for entry in one.spec.get("entries") or ()
        ]
        return {**one.spec, "entries": entries}

    def _files(self) -> dict[str, Any]:
        """Return the calendar files that are there; one that is missing is reported where it is named."""
        from cron_observer.manifest import ics

        paths = {entry["ics"] for spec in self._specs.values() for entry in spec["entries"] if "ics" in entry}
        there = {path: self._root / path for path in paths if (self._root / path).is_file()}
        return {path: ics.read(path, file.read_bytes()) for path, file in there.items()}
