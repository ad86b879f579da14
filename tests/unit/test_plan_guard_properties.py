"""What holds for every situation and all terms: one action a name, no order, no removal that anything holds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cron_observer.model import ADOPT, NEW_IDENTITY, Commit, Definition, ParsedFile, Severity, TaskDefinition
from cron_observer.plan import GROUP, TASK, Action, Actual, DesiredFile, Holder, Plan, Step, Terms, approval_hash, plan
from cron_observer.plan.actions import hash_of
from support.planned import OTHER, PROJECT, SOURCE, other_row, row

Key = tuple[str, str]

NAMES, GROUPS, PATHS = "abcde", "xyz", ("p.yaml", "q.yaml", "r.yaml", "s.yaml")

groups = st.sampled_from([None, None, *GROUPS])


@dataclass(frozen=True)
class Situation:
    """What was read, what is gone, what is in force, and which group each task in force is in."""

    desired: Sequence[DesiredFile]
    gone: Sequence[str]
    actual: Sequence[Actual]
    used: Mapping[str, str | None]

    def plan(self, terms: Terms, seed: int = 0) -> Plan:
        """Plan, with everything given in another order for every other seed."""
        desired, gone, actual = list(self.desired), list(self.gone), list(self.actual)
        if seed:
            for several in (desired, gone, actual):
                random.Random(seed).shuffle(several)  # noqa: S311  it orders, and guards nothing
        return plan(desired, gone, actual, source_id=SOURCE, project_id=PROJECT, terms=terms)

    def after(self, made: Plan) -> Situation:
        """Return the situation that the store leaves behind when nothing else changes: the same files, read again."""
        rows = {one.uid: one for one in self.actual}
        used = dict(self.used)
        for action in made.actions:
            old, declared = action.actual, action.declared
            if old is not None and declared is None:
                sync = {Step.KEEP: "KEPT_LAST_GOOD", Step.HOLD: "HELD", Step.REMOVE: None}[action.step]
                rows[old.uid] = replace(old, sync=sync, removed=action.step is Step.REMOVE)
            elif declared is not None and action.commit is not None:
                if action.frees is not None:
                    del rows[action.frees]
                base = old or row(action.name, kind=action.kind, seed=f"default/{action.name}")
                place: dict[str, Any] = {"path": declared.path, "document": declared.document, "line": declared.line}
                place |= {"source_id": SOURCE, "source": "main", "commit": action.commit.id, "name": action.name}
                spec = declared.spec
                prune = (spec.get("lifecycle") or {}).get("prune") if action.kind == TASK else None
                rows[base.uid] = replace(
                    base, spec_hash=action.spec_hash, sync="SYNCED", removed=False, spec=spec, prune=prune, **place
                )
        for action in made.actions:
            if action.kind == TASK and isinstance(action.declared, TaskDefinition):
                used[action.name] = action.declared.spec.get("group")
        return replace(self, actual=list(rows.values()), used=used, gone=())

    def holders(self) -> dict[Key, list[Holder]]:
        """Return who refers to each group."""
        found: dict[Key, list[Holder]] = {}
        for one in self.actual:
            group = self.used.get(one.name)
            if one.kind == TASK and not one.removed and group is not None:
                found.setdefault((GROUP, group), []).append(Holder(TASK, one.name, str(one.path)))
        return found


@st.composite
def documents(draw: st.DrawFn) -> Mapping[str, Any]:
    """Draw a document: a task or a group, well or badly written."""
    if draw(st.integers(0, 3)) == 0:
        return {"kind": GROUP, "name": draw(st.sampled_from(GROUPS)), "given": draw(st.sampled_from([None, "other"]))}
    return {
        "kind": TASK,
        "name": draw(st.sampled_from(NAMES)),
        "group": draw(groups),
        "old": draw(st.sampled_from([None, None, None, *NAMES])),
        "given": draw(st.sampled_from([None, None, "other"])),
        "says": draw(st.sampled_from([None, None, ADOPT, NEW_IDENTITY])),
        "prune": draw(st.sampled_from([None, None, "confirm", "disabled"])),
        "valid": draw(st.sampled_from([True, True, True, False])),
    }


def parsed(path: str, several: Sequence[Mapping[str, Any]] | None) -> DesiredFile:
    """Parse a file of this little language; None is one that cannot be parsed."""
    if several is None:
        return DesiredFile(file=ParsedFile(path=path, parseable=False), commit=Commit(id="new"))
    tasks, others, wrong = [], [], []
    for number, one in enumerate(several):
        place: dict[str, Any] = {"name": one["name"], "path": path, "line": number + 1, "document": number}
        if one["kind"] == GROUP:
            others.append(Definition(kind=GROUP, spec={"maxParallel": 1}, transfer_from=one["given"], **place))
        elif not one["valid"]:
            wrong.append(one["name"])
        else:
            spec = {"group": one["group"]} if one["group"] else {}
            spec |= {"lifecycle": {"prune": one["prune"]}} if one["prune"] else {}
            notes = {one["says"]: "true"} if one["says"] else {}
            place |= {"renamed_from": one["old"], "transfer_from": one["given"], "annotations": notes}
            tasks.append(TaskDefinition(spec=spec, **place))
    file = ParsedFile(path=path, tasks=tuple(tasks), others=tuple(others), broken_names=tuple(wrong))
    return DesiredFile(file=file, commit=Commit(id="new"))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Draw files and rows that need not fit each other; of what is not in force anything may be said."""
    several = st.lists(documents(), max_size=3, unique_by=lambda one: (one["kind"], one["name"]))
    maybe = st.one_of(several, several, several, several, st.none())
    files = draw(st.dictionaries(st.sampled_from(PATHS[:3]), maybe, max_size=3))
    rest = [path for path in PATHS if path not in files]
    gone = draw(st.lists(st.sampled_from(rest), unique=True))
    used = {name: draw(groups) for name in NAMES}
    states = st.fixed_dictionaries(
        {
            "path": st.sampled_from(PATHS),
            "sync": st.sampled_from(["SYNCED", "SYNCED", "KEPT_LAST_GOOD", "HELD"]),
            "removed": st.sampled_from([False, False, False, True]),
        }
    )
    actual: list[Actual] = []
    for name in draw(st.sets(st.sampled_from(NAMES))):
        spec = {"group": used[name]} if used[name] else {}
        whole = hash_of(TaskDefinition(name=name, spec=spec, path="", line=1))
        state: dict[str, Any] = {**draw(states), "spec_hash": whole}
        state["prune"] = draw(st.sampled_from([None, "allow", "confirm", "disabled"]))
        owner = draw(st.sampled_from(["main", "main", "main", "other", "api"]))
        if owner == "other":
            state |= {"source_id": OTHER, "source": "other"}
        elif owner == "api":
            state |= {"source_id": None, "source": None, "path": None, "line": None, "sync": None, "removed": False}
        actual.append(row(name, **state))
    for name in draw(st.sets(st.sampled_from(GROUPS))):
        state = dict(draw(states))
        if draw(st.booleans()):
            state |= {"source_id": OTHER, "source": "other"}
        actual.append(other_row(GROUP, name, **state))
    return Situation([parsed(path, files[path]) for path in sorted(files)], gone, actual, used)


@st.composite
def terms_of(draw: st.DrawFn, situation: Situation) -> Terms:
    """Draw terms, with what is true of the situation."""
    ours = [one for one in situation.actual if one.source_id == SOURCE and not one.removed]
    key = st.tuples(st.just(TASK), st.sampled_from(NAMES))
    return Terms(
        source="main",
        target=draw(st.sampled_from([None, "c1", "c2"])),
        prune=draw(st.sampled_from([True, True, True, False])),
        max_deletes=draw(st.integers(0, 3)),
        max_percent=float(draw(st.integers(0, 100))),
        owned=dict(Counter(one.kind for one in ours)),
        empty=draw(st.sampled_from([False, False, True])),
        holders=situation.holders(),
        awaited=draw(st.sets(key, max_size=1)),
        limit=draw(st.sampled_from([None, None, 0, 2, 4])),
        task_count=sum(one.kind == TASK for one in ours),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Situation, Terms]:
    """Draw a situation with terms."""
    situation = draw(situations())
    return situation, draw(terms_of(situation))


def removals(made: Plan) -> list[tuple[Action, Actual]]:
    """Return what a plan removes."""
    return [(one, one.actual) for one in made.actions if one.step is Step.REMOVE and one.actual is not None]


@settings(max_examples=200, deadline=None)
@given(cases(), st.integers(1, 10_000))
def test_no_order_matters(case: tuple[Situation, Terms], seed: int) -> None:
    """However files, rows and paths are listed, actions, findings and hash are the same."""
    situation, terms = case
    one, two = situation.plan(terms), situation.plan(terms, seed)
    assert (one.actions, one.plan_hash, one.refused) == (two.actions, two.plan_hash, two.refused)
    assert {path: set(map(repr, several)) for path, several in one.findings.items()} == {
        path: set(map(repr, several)) for path, several in two.findings.items()
    }


@settings(max_examples=200, deadline=None)
@given(cases())
def test_every_name_has_one_action(case: tuple[Situation, Terms]) -> None:
    """No row and no name is dealt with twice, and nobody's row is touched who does not give it away."""
    made = case[0].plan(case[1])
    assert max(Counter((one.kind, one.name) for one in made.actions).values(), default=1) == 1
    assert max(Counter(one.actual.uid for one in made.actions if one.actual).values(), default=1) == 1
    for one in made.actions:
        if one.actual is None or one.actual.source_id == SOURCE or one.actual.removed:
            continue
        assert one.step is (Step.ADOPT if one.actual.source_id is None else Step.TRANSFER)
        assert one.actual.source_id is None or one.actual.sync == "HELD"


@settings(max_examples=200, deadline=None)
@given(cases())
def test_no_guard_is_passed(case: tuple[Situation, Terms]) -> None:
    """What is removed is held by nothing, judged here by the rows alone and all over again."""
    situation, terms = case
    made = situation.plan(terms)
    gone = removals(made)
    assert not gone or (terms.prune and not terms.empty)
    assert not gone or all(one.file.parseable for one in situation.desired)
    for action, actual in gone:
        assert actual.prune not in ("confirm", "disabled")
        assert (action.kind, action.name) not in terms.awaited
    counts = Counter(action.kind for action, _ in gone)
    assert all(number < 2 or number < terms.owned[kind] for kind, number in counts.items())
    share = 100 * len(gone) / max(1, sum(terms.owned.values()))
    assert len(gone) <= terms.max_deletes or share <= terms.max_percent
    left = situation.after(made).holders()
    assert not [name for action, _ in gone for name in left.get((action.kind, action.name), ())]


@settings(max_examples=200, deadline=None)
@given(cases())
def test_an_approval_releases_exactly_what_waits(case: tuple[Situation, Terms]) -> None:
    """With the hash the same plan holds nothing approvable and removes what it covers; with another it is the same."""
    situation, terms = case
    held = situation.plan(terms)
    approvable = ("confirm", "too_many", "all_of_kind", "empty_tree")
    waiting = [(one.kind, one.actual.uid) for one in held.held if one.actual and one.held in approvable]
    assert held.plan_hash == (approval_hash(terms.target, waiting) if waiting else None)
    assert situation.plan(replace(terms, approved=["0" * 64])) == held
    if held.plan_hash is None:
        return
    made = situation.plan(replace(terms, approved=[held.plan_hash]))
    assert (made.approved, made.plan_hash) == (held.plan_hash, None)
    assert {(one.kind, actual.uid) for one, actual in removals(made)} >= set(waiting)
    assert not [one for one in made.held if one.held in approvable]
    assert situation.plan(replace(terms, target="c3")).plan_hash != held.plan_hash


@settings(max_examples=200, deadline=None)
@given(cases())
def test_held_is_told_and_in_force(case: tuple[Situation, Terms]) -> None:
    """Every held removal has one finding at its place, and every path where something was held has an entry."""
    situation, terms = case
    made = situation.plan(terms)
    told = Counter(
        (one.kind, one.name)
        for several in made.findings.values()
        for one in several
        if one.code in ("CO1506", "CO1507")
    )
    assert told == Counter((one.kind, one.name) for one in made.held)
    for one in situation.actual:
        if one.sync == "HELD" and one.source_id == SOURCE:
            assert str(one.path) in made.findings


@settings(max_examples=200, deadline=None)
@given(cases())
def test_an_outcome_is_a_plan_of_nothing(case: tuple[Situation, Terms]) -> None:
    """After an apply the same files plan nothing more: everything is in sync, kept or held as before."""
    situation, terms = case
    once = situation.plan(terms)
    after = situation.after(once)
    number = sum(one.kind == TASK and one.source_id == SOURCE and not one.removed for one in after.actual)
    owned = Counter(one.kind for one in after.actual if one.source_id == SOURCE and not one.removed)
    again = replace(terms, holders=after.holders(), task_count=number, owned=dict(owned))
    made = after.plan(again)
    quiet = (Step.NOOP, Step.KEEP, Step.HOLD)
    assert [one for one in made.actions if one.step not in quiet] == []


@settings(max_examples=200, deadline=None)
@given(cases())
def test_atomic_applies_all_or_nothing(case: tuple[Situation, Terms]) -> None:
    """The policy ``atomic`` gives the plan of ``isolate``, or none where that one has an error."""
    situation, terms = case
    isolated = situation.plan(terms)
    atomic = situation.plan(replace(terms, failure_policy="atomic"))
    wrong = any(one.severity is Severity.ERROR for several in isolated.findings.values() for one in several)
    assert atomic.refused is wrong
    assert atomic.actions == (() if wrong else isolated.actions)
