"""The review of a change: the plan that an apply would make, and what it does to fire times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cron_observer.errors import ScheduleError
from cron_observer.manifest.calendar import named_files
from cron_observer.manifest.layers import bearing, limit
from cron_observer.model import Finding, Severity, TaskDefinition
from cron_observer.plan import CALENDAR, TASK, Action, Plan, Step, plan, references
from cron_observer.plan.actions import Key
from cron_observer.plan.terms import Holder, Terms
from cron_observer.review.fires import Clockwork, FireDiff, compare
from cron_observer.review.gathering import Gathered
from cron_observer.review.places import Places
from cron_observer.review.results import Asked, Change, Field, Review, fields_of
from cron_observer.review.rows import PROJECT_ID, SOURCE, Declared, State, first_state, next_state
from cron_observer.review.sides import Side, Snapshot
from cron_observer.review.warnings import CLOCK_CHANGE, CROWD, MORE_OFTEN, clock_changes, crowds, more_often


def review(base: Snapshot, head: Snapshot, asked: Asked) -> Review:
    """Compare two states of the manifests of one source. Raises `SourceError` when one cannot be read."""
    return _Look(Gathered(Side(base), Side(head), asked.environment), asked).result()


class _Look:
    """One review: the two plans, and what follows from them."""

    def __init__(self, gathered: Gathered, asked: Asked) -> None:
        self.gathered, self.asked = gathered, asked
        base, head = gathered.base, gathered.head
        files = base.calendar_files()
        self.first = plan(base.desired(), (), (), source_id=SOURCE, project_id=PROJECT_ID, files=files)
        self.before = first_state(self.first, asked.project)
        self.plan = plan(
            head.desired(),
            gathered.gone,
            list(self.before.rows.values()),
            source_id=SOURCE,
            project_id=PROJECT_ID,
            files=head.calendar_files(),
            terms=self._terms(),
        )
        self.after = next_state(self.plan, self.before, asked.project)
        self.places = Places(head)
        self.uncompared = 0

    def _terms(self) -> Terms:
        """Return what the guards need to know. What was not read matters to none of them."""
        layers = self.gathered.head.context.layers
        owned = Counter(kind for kind, _ in self.before.rows)
        return Terms(
            failure_policy=self.asked.failure_policy,
            max_deletes=self.asked.max_deletes,
            max_percent=self.asked.max_percent,
            owned=owned if self.gathered.whole else {},
            empty=not any(not path.endswith(".ics") for path in self.gathered.head.snapshot.entries),
            holders=self._holders(),
            limit=limit(layers),
            task_count=owned[TASK],
            bearing={(one.kind, one.name) for one in layers},
        )

    def _holders(self) -> dict[Key, list[Holder]]:
        """Return who refers to each calendar and group."""
        found: dict[Key, list[Holder]] = {}
        for (kind, name), one in self.before.declared.items():
            holder = Holder(kind, name, f"{one.path}:{one.line}")
            named: list[Key] = []
            if isinstance(one, TaskDefinition):
                named = [(reference.kind, reference.name) for reference in references(one.spec)]
            elif kind == CALENDAR:
                named = [(CALENDAR, base) for base in one.spec.get("base") or ()]
            for key in named:
                found.setdefault(key, []).append(holder)
        return found

    def result(self) -> Review:
        """Put everything together."""
        findings = self._findings()
        changes = [] if self.plan.refused else list(self._changes(findings))
        diffs, warnings = self._fires({one.name: one for one in changes if one.kind == TASK})
        known = {one.name for one in changes if one.kind == TASK}
        changes = [replace(one, fires=diffs.get(one.name)) if one.kind == TASK else one for one in changes]
        changes += [self._followed(name, diff) for name, diff in sorted(diffs.items()) if name not in known]
        findings = sorted([*findings, *warnings], key=lambda one: (one.path, one.line or 0, one.column or 0, one.code))
        base, head = self.gathered.base.snapshot.commit, self.gathered.head.snapshot.commit
        return Review(
            asked=self.asked,
            base=base or "",
            head=head,
            files=len(self.gathered.changed),
            changes=sorted(changes, key=lambda one: (one.kind != TASK, one.kind, one.name)),
            findings=findings,
            texts=self.places.texts(findings),
            refused=self.plan.refused,
            uncompared=self.uncompared,
        )

    # -- findings --------------------------------------------------------------------------------------------

    def _findings(self) -> list[Finding]:
        """Return what is wrong with the files that changed, and what became wrong with the others."""
        changed = set(self.gathered.changed)
        old = {_who(one) for one in _all(self.gathered.base, self.first)}
        new = _all(self.gathered.head, self.plan)
        return [self._mended(one) for one in new if one.path in changed or _who(one) not in old]

    def _mended(self, finding: Finding) -> Finding:
        """Give a finding its place, and take out the hash of a plan that no server has made."""
        placed = self.places.placed(finding)
        if self.plan.plan_hash and placed.hint and self.plan.plan_hash in placed.hint:
            hint = "declare it again, or approve the removal once it is merged: cron-observer sources approve"
            return replace(placed, hint=hint)
        return placed

    # -- changes ---------------------------------------------------------------------------------------------

    def _changes(self, findings: Sequence[Finding]) -> Iterable[Change]:
        errors = Counter((one.kind, one.name) for one in findings if one.severity is Severity.ERROR)
        for action in self.plan.actions:
            change = self._change(action, errors[action.kind, action.name])
            if change is not None:
                yield change

    def _change(self, action: Action, errors: int) -> Change | None:
        """Tell one action; None for what people need not know."""
        row, new = action.actual, action.declared
        old = self.before.declared.get((row.kind, row.name)) if row is not None else None
        shown = new or old
        if shown is None or action.step is Step.NOOP or (action.step is Step.KEEP and not errors):
            return None
        moved = old.path if old is not None and new is not None and old.path != new.path else None
        if action.step is Step.MOVE and moved is None:
            return None
        fields = _fields(old, new) if old is not None and new is not None else []
        return Change(
            step=action.step,
            kind=action.kind,
            name=action.name,
            path=shown.path,
            line=shown.line,
            was=row.name if row is not None and action.step is Step.RENAME else None,
            moved_from=moved,
            fields=fields,
            because=() if action.step not in (Step.UPDATE, Step.RENAME) else self._because(shown),
            held=action.held or ("unparseable" if action.step is Step.HOLD else None),
            errors=errors if action.step is Step.KEEP else 0,
        )

    def _because(self, one: Declared) -> list[str]:
        """Return what else changes a document: layers above it; of a calendar, its files and its bases."""
        changed = set(self.gathered.changed)
        if isinstance(one, TaskDefinition):
            base, head = (
                {f"{layer.kind} {layer.name}": layer.spec for layer in bearing(side.context.layers, one.path)}
                for side in (self.gathered.base, self.gathered.head)
            )
            return [name for name in sorted(base.keys() | head.keys()) if base.get(name) != head.get(name)]
        files = sorted(changed & set(named_files(one).values()))
        bases = one.spec.get("base") or () if one.kind == CALENDAR else ()
        return files + [f"{CALENDAR} {name}" for name in bases if self._differs((CALENDAR, name))]

    def _followed(self, name: str, diff: FireDiff) -> Change:
        """Tell of a task whose document is what it was, while what it refers to is not."""
        task = self.after.declared[TASK, name]
        because = [f"{one.kind} {one.name}" for one in references(task.spec) if self._differs((one.kind, one.name))]
        return Change(
            step=Step.NOOP, kind=TASK, name=name, path=task.path, line=task.line, because=tuple(because), fires=diff
        )

    def _differs(self, key: Key) -> bool:
        if key[0] == CALENDAR:
            return self.before.contents.get(key[1]) != self.after.contents.get(key[1])
        old, new = self.before.declared.get(key), self.after.declared.get(key)
        return (old and old.spec) != (new and new.spec)

    # -- fires -----------------------------------------------------------------------------------------------

    def _fires(self, changes: Mapping[str, Change]) -> tuple[dict[str, FireDiff], list[Finding]]:
        """Compare the fires of every task of which what decides about them is another, and look at the new ones."""
        before, after = _Clocks(self.before), _Clocks(self.after)
        tasks = {name for kind, name in self.after.declared if kind == TASK} | changes.keys()
        diffs: dict[str, FireDiff] = {}
        found: list[Finding] = []
        left = self.asked.most_fires
        for name in sorted(tasks):
            change = changes.get(name)
            if change is None and self._same(name):
                continue
            old = before.of(change.was if change and change.was else name)
            new = after.of(name)
            if old == new:
                continue
            if left <= 0:
                self.uncompared += 1
                continue
            diff = compare(old, new, self.asked.now, self.asked.span)
            left -= diff.before + diff.after
            if not diff.same or old is None or new is None or diff.next_before != diff.next_after:
                diffs[name] = diff
            if new is not None:
                said = [(MORE_OFTEN, more_often(diff)), (CLOCK_CHANGE, clock_changes(old, new, self.asked.now))]
                found += [self._warn(name, rule, text) for rule, text in said if text]
        found += [self._warn(name, CROWD, text) for name, text in crowds(diffs)]
        return diffs, found

    def _same(self, name: str) -> bool:
        """Tell whether a task and all that it refers to are what they were."""
        old, new = self.before.declared.get((TASK, name)), self.after.declared[TASK, name]
        return old is new and not any(self._differs((one.kind, one.name)) for one in references(new.spec))

    def _warn(self, name: str, rule: Any, text: str) -> Finding:
        task = self.after.declared[TASK, name]
        return self.places.placed(
            Finding(
                severity=rule.severity,
                code=rule.code,
                path=task.path,
                line=task.line,
                pointer="/spec/schedule",
                kind=TASK,
                name=name,
                message=text,
            )
        )


class _Clocks:
    """What decides when each task of a state fires."""

    def __init__(self, state: State) -> None:
        from cron_observer.schedule.calendars import read_calendar

        self._state = state
        self._groups = state.groups()
        self._calendars = {}
        for name, content in state.contents.items():
            try:
                self._calendars[name] = read_calendar(content)
            except ScheduleError:
                continue

    def of(self, name: str) -> Clockwork | None:
        """Return the clockwork of a task; None where there is none, or none that runs."""
        task = self._state.declared.get((TASK, name))
        if task is None:
            return None
        try:
            made = Clockwork.of(task.spec, self._state.seeds[name], self._calendars, self._groups)
            made.schedule()
        except (KeyError, ScheduleError):
            return None  # a calendar is gone or broken; a finding says so
        return made


def _fields(old: Declared, new: Declared) -> list[Field]:
    """Return what differs between two documents, by pointers into them."""
    found = fields_of(old.spec, new.spec, "/spec")
    if isinstance(old, TaskDefinition) and isinstance(new, TaskDefinition):
        found += fields_of(old.labels, new.labels, "/metadata/labels")
        found += fields_of(old.annotations, new.annotations, "/metadata/annotations")
    return found


def _all(side: Side, made: Plan) -> list[Finding]:
    """Return the findings of files and of a plan."""
    own = [finding for file in side.files.values() for finding in file.findings]
    return own + [finding for several in made.findings.values() for finding in several]


def _who(one: Finding) -> tuple[object, ...]:
    return one.code, one.path, one.kind, one.name, one.pointer, one.message
