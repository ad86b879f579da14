"""Read of two states what their difference may touch: what changed, and what that may refer to or be referred to by.

Files with the same content are looked at as bytes only, unless they hold a kind that others depend upon, or one of
the names that the change is about. When names go away, everything is read: whether they may depends on all of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from cron_observer.manifest.calendar import calendar_files
from cron_observer.manifest.layers import bearing, folder_of, limit
from cron_observer.model import Context, Definition, ParsedFile
from cron_observer.plan import CALENDAR, plan
from cron_observer.plan.actions import LAYERS, TASK, Key
from cron_observer.plan.layers import layers_after
from cron_observer.review.rows import PROJECT_ID, SOURCE, first_state
from cron_observer.review.sides import Side, desired_of
from cron_observer.source import Entry, is_calendar_file

#: What a file may depend upon other files for, or they upon it, as bytes. Any of it may also be written with escapes.
_SHARED: Final = re.compile(rb"Calendar|TaskGroup|Defaults|Project|\\")
_LAYERED: Final = re.compile(rb"Defaults|Project|\\")
_NAME: Final = re.compile(rb"[a-z0-9][-a-z0-9.]*")


class Gathered:
    """Two states, `base` and `head`, read as far as a review of their difference needs.

    `changed` are the paths whose content differs, `whole` tells whether everything was read.
    """

    def __init__(self, base: Side, head: Side, environment: str | None) -> None:
        """Read. Raises `SourceError`."""
        self.base, self.head = base, head
        old, new = base.snapshot.entries, head.snapshot.entries
        self.changed = sorted(path for path in old.keys() | new.keys() if _differs(old.get(path), new.get(path)))
        differ = set(self.changed)
        manifests = [path for path in self.changed if not is_calendar_file(path)]
        self._same = [path for path in new if path not in differ and not is_calendar_file(path)]
        base.load(manifests)
        head.load([*manifests, *self._same])
        shared = [path for path in self._same if _SHARED.search(head.content(path))]
        self._compose(manifests, shared, Context(environment=environment))
        for side in (base, head):
            for path in manifests:
                if path in side.snapshot.entries:
                    side.take(path)
        self._relayered = self._under_other_layers()
        self._take_same({*shared, *self._relayered})
        self._take_same(self._naming(self._names()))
        self.whole = bool(self._vanishing()) or limit(head.context.layers) is not None
        if self.whole:
            self._take_same(self._same)

    @property
    def gone(self) -> list[str]:
        """Return the paths that the head does not have any more."""
        return [path for path in self.changed if path not in self.head.snapshot.entries]

    def _compose(self, manifests: Sequence[str], shared: Sequence[str], bare: Context) -> None:
        """Find out which Defaults and Projects hold on either side."""
        same = {path: self.head.parse(path, bare) for path in shared if _LAYERED.search(self.head.content(path))}
        before = self._layered(self.base, manifests, bare) | same
        after = self._layered(self.head, manifests, bare) | same
        first = first_state(plan(desired_of(before.values()), (), (), source_id=SOURCE, project_id=PROJECT_ID), "")
        rows = [row for key, row in first.rows.items() if key[0] in LAYERS]
        stored = [one for key, one in first.declared.items() if key[0] in LAYERS and isinstance(one, Definition)]
        self.base.context = Context(environment=bare.environment, layers=tuple(stored))
        held = layers_after(desired_of(after.values()), self.gone, rows, source_id=SOURCE, project_id=PROJECT_ID)
        self.head.context = Context(environment=bare.environment, layers=tuple(held))

    def _layered(self, side: Side, paths: Iterable[str], bare: Context) -> dict[str, ParsedFile]:
        there = [path for path in paths if path in side.snapshot.entries]
        return {path: side.parse(path, bare) for path in there if _LAYERED.search(side.content(path))}

    def _under_other_layers(self) -> set[str]:
        """Return the files that other layers bear upon than before."""
        if _said(self.base.context.layers) == _said(self.head.context.layers):
            return set()
        old = {path: _said(bearing(self.base.context.layers, path)) for path in self._same}
        return {path for path in self._same if old[path] != _said(bearing(self.head.context.layers, path))}

    def _take_same(self, paths: Iterable[str]) -> None:
        """Read files with the same content on both sides, once where the same layers bear upon them."""
        for path in paths:
            file = self.head.take(path)
            if path in self._relayered:
                self.base.borrow(path, self.head)
                self.base.take(path)
            else:
                self.base.take(path, file)

    def _names(self) -> set[str]:
        """Return the names that the change is about."""
        changed = set(self.changed)
        files = [side.files[path] for side in (self.base, self.head) for path in side.files.keys() & changed]
        names = {key[1] for file in files for key in declared_by(file)}
        names |= {task.renamed_from for file in files for task in file.tasks if task.renamed_from}
        names |= self._fed(changed)
        calendars = [one for side in (self.base, self.head) for file in side.files.values() for one in file.others]
        more = True
        while more:  # calendars that are based on one that changes
            based = {one.name for one in calendars if one.kind == CALENDAR and names & set(one.spec.get("base") or ())}
            more = not based <= names
            names |= based
        return names

    def _fed(self, changed: Collection[str]) -> set[str]:
        """Return the calendars that name a calendar file which changed."""
        files = [file for side in (self.base, self.head) for file in side.files.values()]
        return {one.name for file in files if calendar_files(file) & set(changed) for one in file.others}

    def _naming(self, names: Collection[str]) -> list[str]:
        """Return the unchanged files in whose text one of these names stands."""
        wanted = {name.encode() for name in names}
        left = [path for path in self._same if path not in self.head.files]
        return (
            [path for path in left if not wanted.isdisjoint(_NAME.findall(self.head.content(path)))] if wanted else []
        )

    def _vanishing(self) -> set[Key]:
        """Return the names that the changed files declared and that they do not declare any more."""
        changed = set(self.changed)
        before, after = (
            {key for path in side.files.keys() & changed for key in declared_by(side.files[path])}
            for side in (self.base, self.head)
        )
        renamed = {(TASK, task.renamed_from) for file in self.head.files.values() for task in file.tasks}
        return before - after - renamed


def declared_by(file: ParsedFile) -> set[Key]:
    """Return what a file declares, well or badly."""
    good = {(TASK, task.name) for task in file.tasks} | {(one.kind, one.name) for one in file.others}
    return good | {(TASK, name) for name in file.broken_names} | set(file.broken_others)


def _differs(old: Entry | None, new: Entry | None) -> bool:
    """Tell whether two entries differ in content or kind. A mere change of the executable bit is none."""
    if old is None or new is None:
        return old is not new
    return not old.blob or old.blob != new.blob or old.mode[:3] != new.mode[:3]


def _said(layers: Sequence[Definition]) -> list[tuple[str, str, str, object]]:
    """Return what layers say and where they hold, whatever their lines."""
    return [(one.kind, one.name, folder_of(one.path), one.spec) for one in layers]
