"""One state of the manifests, read as far as a review needs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from cron_observer.errors import ScheduleError
from cron_observer.manifest import MAX_FILE_BYTES, ics, parse
from cron_observer.manifest.calendar import named_files
from cron_observer.model import Commit, Context, ParsedFile, Severity
from cron_observer.plan import CALENDAR, DesiredFile
from cron_observer.plan.contents import Files
from cron_observer.source import Entry, is_calendar_file
from cron_observer.source.refusals import refused

_NOBODY = Commit(id=None)


class Snapshot(Protocol):
    """Where a state is read: `source.checkout.Snapshot`."""

    @property
    def commit(self) -> str | None:
        """The commit; None for the work tree."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Its manifests and calendar files, by path."""

    def read(self, paths: Sequence[str], limit: int) -> Iterator[tuple[Entry, bytes]]:
        """Give entries with size and content, of those over `limit` bytes without content."""


class Side:
    """One state: the manifests that were read of it, each once, with what bears upon them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.context = Context()
        self.files: dict[str, ParsedFile] = {}
        self._contents: dict[str, tuple[Entry, bytes]] = {}

    def load(self, paths: Iterable[str]) -> None:
        """Read the content of manifests."""
        wanted = [path for path in paths if path in self.snapshot.entries and path not in self._contents]
        for entry, data in self.snapshot.read(wanted, MAX_FILE_BYTES):
            self._contents[entry.path] = entry, data

    def borrow(self, path: str, other: Side) -> None:
        """Take over the content of a manifest that is the same on another side."""
        self._contents[path] = other._contents[path]

    def content(self, path: str) -> bytes:
        """Return the content of a manifest that was loaded; of what is not read at all, none."""
        return self._contents[path][1]

    def parse(self, path: str, context: Context | None = None) -> ParsedFile:
        """Return what a manifest that was loaded holds, with what bears upon it here or with another context."""
        entry, data = self._contents[path]
        unread = refused(entry, data)
        if unread is not None:
            return unread
        return parse(path, data, mode=entry.mode, context=self.context if context is None else context)

    def take(self, path: str, shared: ParsedFile | None = None) -> ParsedFile:
        """Count a manifest as read; `shared` is what it holds if that is known already."""
        if path not in self.files:
            self.files[path] = shared or self.parse(path)
        return self.files[path]

    def desired(self) -> list[DesiredFile]:
        """Return everything that was read, for a plan."""
        return desired_of(file for _, file in sorted(self.files.items()))

    def calendar_files(self) -> Files:
        """Read the calendar files that the calendars of the manifests read here name."""
        declared = [one for file in self.files.values() for one in file.others if one.kind == CALENDAR]
        named = [(one, written, path) for one in declared for written, path in named_files(one).items()]
        paths = sorted({path for _, _, path in named if path in self.snapshot.entries and is_calendar_file(path)})
        found = {entry.path: _held(entry, data) for entry, data in self.snapshot.read(paths, ics.MAX_BYTES)}
        files: dict[str, dict[str, Mapping[str, Any] | ScheduleError]] = {}
        for one, written, path in named:
            if path in found:
                files.setdefault(one.path, {})[written] = found[path]
        return files


def _held(entry: Entry, data: bytes) -> Mapping[str, Any] | ScheduleError:
    """Return what a calendar file holds, or why that is not known."""
    if not entry.mode.startswith("100") or (entry.size or 0) > ics.MAX_BYTES:
        message = f"the calendar file cannot be read: {entry.path}: it is no regular file, or larger than 5 MiB"
        return ScheduleError(message, pointer="/entries", rule="CO1411")
    content = ics.read(entry.path, data)
    error = next((found for found in content["findings"] if found.severity is Severity.ERROR), None)
    if error is None:
        return {"dates": content["dates"], "spans": content["spans"]}
    where = f"{entry.path}:{error.line}" if error.line else entry.path
    message = f"the calendar file cannot be read: {where}: {error.message}"
    return ScheduleError(message, pointer="/entries", rule=error.code, hint=error.hint)


def desired_of(files: Iterable[ParsedFile]) -> list[DesiredFile]:
    """Return files for a plan that knows of no commits."""
    return [DesiredFile(file=file, commit=_NOBODY) for file in files]
