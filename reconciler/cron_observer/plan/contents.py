"""What calendars hold: their own entries and those of the calendars that they are based on. Pure.

A calendar that does not resolve keeps what it held: contents are immutable, and whoever uses one keeps its digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cron_observer.errors import ScheduleError
from cron_observer.manifest import rules
from cron_observer.manifest.calendar import circle
from cron_observer.manifest.rules import Rule
from cron_observer.model import Definition
from cron_observer.plan.actions import APPLIED, CALENDAR, Action, Actual, Key, Refreshed, Step
from cron_observer.plan.claims import Scene, keep_good

Content = Mapping[str, Any]

#: For each manifest file, what the calendar files that its calendars name hold, by the name they are called there:
#: dates and spans, or why they cannot be read.
Files = Mapping[str, Mapping[str, Mapping[str, Any] | ScheduleError]]


@dataclass(slots=True)
class Resolved:
    """The calendars' actions with digests, without those that do not resolve, and what else has changed."""

    actions: list[Action] = field(default_factory=list)
    refreshed: list[Refreshed] = field(default_factory=list)
    contents: dict[str, Content] = field(default_factory=dict)


def resolve(actions: list[Action], rows: Mapping[Key, Actual], files: Files, scene: Scene) -> Resolved:
    """Resolve the calendars that are put in force, and those of the project that are based on them."""
    from cron_observer.schedule.calendars import digest

    ours = {action.name: action for action in actions if action.kind == CALENDAR}
    made = Resolved([action for action in actions if action.kind != CALENDAR])
    if not ours:
        return made
    work = _Work(ours, {row.name: row for row in rows.values() if row.kind == CALENDAR}, files, scene)
    for name, content in work.contents().items():
        action, row = work.actions.get(name), work.rows.get(name)
        if action is None or action.step not in APPLIED:
            if action is not None:
                made.actions.append(action)
            if content is not None and row is not None and row.content is not None and content != row.content:
                made.refreshed.append(Refreshed(actual=row, digest=digest(content)))
                made.contents[digest(content)] = content
        elif content is not None:
            address = digest(content)
            step = action.step
            if row is not None and step in (Step.MOVE, Step.NOOP) and address != row.digest:
                step = Step.UPDATE
            made.actions.append(replace(action, step=step, digest=address))
            made.contents[address] = content
    return made


class _Work:
    """Resolves calendars. An action whose calendar does not resolve is replaced by what is done instead."""

    def __init__(self, actions: Mapping[str, Action], rows: Mapping[str, Actual], files: Files, scene: Scene) -> None:
        self.actions: dict[str, Action] = dict(actions)
        self.rows = rows
        self.files = files
        self.scene = scene
        self.known: dict[str, Content | None] = {}
        self.refused: set[str] = set()
        self._refuse_circles()

    def contents(self) -> dict[str, Content | None]:
        """Return what each calendar holds from now on; None for one that there is not."""
        while True:
            refused = len(self.refused)
            self.known.clear()
            made = {name: self.content(name) for name in sorted(self.actions.keys() | self.rows.keys())}
            if len(self.refused) == refused:
                return made
            # What was resolved before something was refused may hold what is not put in force.

    def content(self, name: str) -> Content | None:
        """Return what a calendar holds from now on; None when there is no such calendar."""
        if name not in self.known:
            row = self.rows.get(name)
            # What comes round to itself is what it was; it must not go on for ever.
            self.known[name] = None if row is None or row.removed else row.content
            self.known[name] = self._resolved(name, row)
        return self.known[name]

    def _resolved(self, name: str, row: Actual | None) -> Content | None:
        action = self.actions.get(name)
        if action is not None and isinstance(action.declared, Definition):
            return self._declared(action, action.declared)
        if row is None or row.removed or (action is not None and action.step is Step.REMOVE):
            return None
        return self._stored(row)

    def _declared(self, action: Action, declared: Definition) -> Content | None:
        from cron_observer.schedule.calendars import part_of

        try:
            own = part_of(declared.spec, self._files(declared))
            return self._joined(own, declared.spec)
        except ScheduleError as error:
            if action.name not in self.refused:
                self._refuse(action, declared, error)
                self._refuse_circles()  # the version that it stays at may be based on what is based on it now
            return None

    def _files(self, declared: Definition) -> dict[str, Mapping[str, Any]]:
        """Return the calendar files of a calendar. Raises `ScheduleError` for one that cannot be read."""
        named = self.files.get(declared.path, {})
        found = {}
        for number, entry in enumerate(declared.spec.get("entries") or ()):
            file = named.get(entry.get("ics") or "")
            if isinstance(file, ScheduleError):
                raise ScheduleError(
                    file.message, pointer=f"/entries/{number}/ics", rule=file.rule, hint=file.hint
                ) from file
            if file is not None:
                found[entry["ics"]] = file
        return found

    def _stored(self, row: Actual) -> Content | None:
        """Return what a calendar holds whose manifest was not read, or does not count."""
        if row.content is None or not (row.spec or {}).get("base"):
            return row.content
        try:
            return self._joined(row.content["parts"][0], row.spec or {})
        except ScheduleError:
            return row.content  # what it is based on is gone: its file is read again, which says so

    def _joined(self, own: Content, spec: Mapping[str, Any]) -> Content:
        """Put the parts of its bases behind a calendar's own, each part once. Raises `ScheduleError`."""
        from cron_observer.schedule.calendars import MOST_CALENDARS, MOST_RANGES, near

        parts = [own]
        for number, base in enumerate(spec.get("base") or ()):
            content = self.content(base)
            if content is None:
                message = f'the calendar "{base}" is not declared'
                known = {other for other in (*self.rows, *self.actions) if other not in (base, *self._gone())}
                rule = rules.UNKNOWN_CALENDAR.code
                raise ScheduleError(message, pointer=f"/base/{number}", rule=rule, hint=near(base, known))
            parts += [part for part in content["parts"] if part not in parts]
        ranges = sum(len(part["dates"]) + len(part["spans"]) for part in parts)
        if len(parts) > MOST_CALENDARS or ranges > MOST_RANGES:
            message = f"it is made of {len(parts):,} calendars, and holds {ranges:,} dates and spans"
            hint = f"at most {MOST_CALENDARS:,} and {MOST_RANGES:,} are allowed"
            rule = rules.CALENDAR_TOO_LARGE.code
            raise ScheduleError(message, pointer="/base", rule=rule, hint=hint)
        return {"parts": parts}

    def _gone(self) -> set[str]:
        """Return the names that nobody has any more."""
        gone = {name for name, row in self.rows.items() if row.removed and name not in self.actions}
        return gone | {name for name, action in self.actions.items() if action.step is Step.REMOVE}

    def _refuse(self, action: Action, declared: Definition, error: ScheduleError) -> None:
        message = error.message[:1].lower() + error.message[1:]
        self.scene.findings.add(declared, Rule(error.rule, "calendar"), message, error.hint, f"/spec{error.pointer}")
        self.refused.add(action.name)
        row = action.actual
        if row is not None and not row.removed and self.scene.ours(row):
            self.actions[action.name] = keep_good(row, self.scene)
        else:
            del self.actions[action.name]  # another owner's stays what it is to that one

    def _refuse_circles(self) -> None:
        """Refuse what is new about calendars that contain themselves, so that what is in force contains no circle."""
        bases = {name: (row.spec or {}).get("base") or () for name, row in self.rows.items() if not row.removed}
        declared = {name: one.declared for name, one in self.actions.items() if isinstance(one.declared, Definition)}
        bases |= {name: one.spec.get("base") or () for name, one in declared.items()}
        for name, one in declared.items():
            action = self.actions[name]
            changed = action.actual is None or action.actual.removed or action.actual.spec_hash != action.spec_hash
            way = circle(name, bases) if changed else []
            if way:
                message = f"the calendar contains itself: {' → '.join(way)}"
                hint = "remove one of these from its base"
                error = ScheduleError(message, pointer="/base", rule=rules.CALENDAR_CYCLE.code, hint=hint)
                self._refuse(action, one, error)
