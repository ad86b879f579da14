"""Calendars, references and renames through every sequence of trees: plans converge, and lose nobody's history."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid5

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cron_observer.model import WEEKDAYS, Commit, Definition, ParsedFile, TaskDefinition
from cron_observer.plan import CALENDAR, TASK, Action, Actual, DesiredFile, Plan, Step, plan, references
from cron_observer.schedule.calendars import digest

SOURCE, PROJECT = UUID(int=1), UUID(int=2)

#: A document: kind, name, version, and what it refers to: a task its calendar, a calendar its base.
Document = tuple[str, str, int, str | None, str | None]
Tree = dict[str, list[Document] | None]
Key = tuple[str, str]

calendars = st.tuples(
    st.just(CALENDAR),
    st.sampled_from("xyz"),
    st.integers(0, 6),
    st.sampled_from([None, None, "x", "y", "z"]),
    st.none(),
)
versions = st.integers(0, 1)
users = st.sampled_from([None, None, "x", "y"])
tasks = st.tuples(st.just(TASK), st.sampled_from("abc"), versions, users, st.none())
heirs = st.tuples(st.just(TASK), st.sampled_from("abc"), versions, st.none(), st.sampled_from([None, "a", "b", "c"]))


def trees(documents: st.SearchStrategy[Document]) -> st.SearchStrategy[Tree]:
    """Return trees of up to three files of documents; now and then one cannot be parsed."""
    files = st.lists(documents, max_size=3, unique_by=lambda document: document[:2])
    return st.dictionaries(
        st.sampled_from(["p.yaml", "q.yaml", "r.yaml"]), st.one_of(files, files, files, st.none()), max_size=3
    )


@dataclass
class World:
    """A database in memory, and the passes over it, which read too what a plan finds fault with or leaves dangling."""

    rows: dict[Key, Actual] = field(default_factory=dict)
    specs: dict[UUID, Any] = field(default_factory=dict)
    contents: dict[str, Any] = field(default_factory=dict)
    known: Tree = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    passes: int = 0

    def look(self, tree: Tree, *, everything: bool = False) -> Plan:
        """Make a pass, and write its plan down."""
        also: set[str] = set()
        while True:
            changed = {path for path, content in tree.items() if path not in self.known or self.known[path] != content}
            paths = set(tree) if everything else changed | (self.bad & set(tree)) | also
            gone = set(self.known) - set(tree)
            made = self.plan(tree, paths, gone)
            after = replace(self, rows=dict(self.rows), specs=dict(self.specs), contents=dict(self.contents))
            after.apply(made)
            unread = (after.dangling() | (made.findings.keys() & tree.keys())) - paths
            if not unread:
                break
            also |= unread
        self.rows, self.specs, self.contents = after.rows, after.specs, after.contents
        for path in paths:
            one = parsed(path, tree[path])
            wrong = not one.parseable or bool(one.broken_names) or bool(made.findings.get(path))
            (self.bad.add if wrong else self.bad.discard)(path)
        self.bad &= set(tree)
        self.known = dict(tree)
        self.passes += 1
        return made

    def plan(self, tree: Tree, paths: set[str], gone: set[str]) -> Plan:
        """Plan with the rows that an inventory gives, and no others."""
        desired = [
            DesiredFile(file=parsed(path, tree[path]), commit=Commit(id=repr(tree[path]))) for path in sorted(paths)
        ]
        declared = [task for one in desired for task in one.file.tasks]
        names = {task.name for task in declared} | {task.renamed_from for task in declared}
        actual = [
            replace(row, content=self.contents.get(row.digest or ""))
            for row in self.rows.values()
            if row.kind == CALENDAR
            or row.name in names
            or (not row.removed and (row.path in paths | gone or row.sync != "SYNCED"))
        ]
        return plan(desired, sorted(gone), actual, source_id=SOURCE, project_id=PROJECT)

    def apply(self, made: Plan) -> None:
        """Write a plan down as the store does."""
        self.contents |= made.contents
        for action in made.of(Step.RENAME):
            assert action.actual is not None
            del self.rows[TASK, action.actual.name]
        for action in made.actions:
            row = self.row(action)
            assert (row.kind, row.name) not in self.rows or self.rows[row.kind, row.name].uid == row.uid
            self.rows[row.kind, row.name] = row
        for one in made.refreshed:
            key = (CALENDAR, one.actual.name)
            self.rows[key] = replace(self.rows[key], digest=one.digest, generation=one.actual.generation + 1)

    def row(self, action: Action) -> Actual:
        """Return the row that an action leaves behind."""
        old, declared, commit = action.actual, action.declared, action.commit
        if declared is None or commit is None:
            assert old is not None
            sync = {Step.KEEP: "KEPT_LAST_GOOD", Step.HOLD: "HELD", Step.REMOVE: None}[action.step]
            return replace(old, sync=sync, removed=action.step is Step.REMOVE, content=None)
        uid = old.uid if old else uuid5(SOURCE, f"{action.kind} {action.name} {self.passes}")
        self.specs[uid] = declared.spec
        return Actual(
            uid=uid,
            project_id=PROJECT,
            kind=action.kind,
            name=action.name,
            spec_hash=action.spec_hash,
            generation=(old.generation if old else 0) + action.raises,
            seed=old.seed if old else f"default/{action.name}",
            source_id=SOURCE,
            source="main",
            path=declared.path,
            document=declared.document,
            line=declared.line,
            commit=commit.id,
            sync="SYNCED",
            spec=declared.spec if action.kind == CALENDAR else None,
            digest=action.digest,
        )

    def living(self, kind: str) -> dict[str, Actual]:
        """Return what lives of a kind."""
        return {name: row for (one, name), row in self.rows.items() if one == kind and not row.removed}

    def dangling(self) -> set[str]:
        """Return the files of what is in sync and refers to what is not there."""
        there = self.living(CALENDAR)
        found = set()
        for row in [*self.living(TASK).values(), *there.values()]:
            spec = self.specs[row.uid]
            used = [one.name for one in references(spec)] if row.kind == TASK else spec.get("base", [])
            if row.sync == "SYNCED" and not set(used) <= there.keys():
                found.add(str(row.path))
        return found


def parsed(path: str, content: list[Document] | None) -> ParsedFile:
    """Parse a file of this little language."""
    if content is None:
        return ParsedFile(path=path, parseable=False)
    made: list[TaskDefinition] = []
    others: list[Definition] = []
    for index, (kind, name, version, refers, old) in enumerate(content):
        place: dict[str, Any] = {"name": name, "path": path, "line": index + 1, "document": index}
        if kind == TASK:
            schedule = {"calendars": {"exclude": [refers]}} if refers else {}
            made.append(TaskDefinition(spec={"version": version, "schedule": schedule}, renamed_from=old, **place))
        else:
            spec = {"entries": [{"weekdays": [WEEKDAYS[version]]}]}
            others.append(Definition(kind=CALENDAR, spec=spec | ({"base": [refers]} if refers else {}), **place))
    return ParsedFile(path=path, tasks=tuple(made), others=tuple(others))


def test_no_circle_comes_into_force() -> None:
    """A calendar that stays at a version based on another one must not become that one's base."""
    world = World()
    world.look({"p.yaml": [(CALENDAR, "x", 0, "y", None)], "q.yaml": [(CALENDAR, "y", 1, None, None)]})
    turned: Tree = {"p.yaml": [(CALENDAR, "x", 0, "z", None)], "q.yaml": [(CALENDAR, "y", 1, "x", None)]}
    made = world.look(turned)
    assert {one.name: one.step for one in made.actions} == {"x": Step.KEEP, "y": Step.KEEP}
    assert {one.code for several in made.findings.values() for one in several} == {"CO1403", "CO1404"}
    world.look({"p.yaml": None, "q.yaml": turned["q.yaml"], "r.yaml": [(CALENDAR, "z", 2, None, None)]})
    assert [row.name for row in world.living(CALENDAR).values() if row.sync == "SYNCED"] == ["z"]


def test_a_name_that_is_gone_is_not_proposed() -> None:
    """Who refers to a calendar that was removed is not asked whether that one was meant."""
    world = World()
    world.look({"p.yaml": [(CALENDAR, "x", 0, "y", None)], "q.yaml": [(CALENDAR, "y", 1, None, None)]})
    made = world.look({"p.yaml": [(CALENDAR, "x", 0, "y", None)]})
    assert [one.hint for one in made.findings["p.yaml"]] == [None]


#: The calendar z stays at a version whose base changes in the commit that breaks z.
BROKEN_AS_ITS_BASE_CHANGES: list[Tree] = [
    {"p.yaml": [(CALENDAR, "x", 0, None, None), (CALENDAR, "z", 0, "x", None)]},
    {"p.yaml": [], "q.yaml": None},
    {"p.yaml": None, "q.yaml": [(CALENDAR, "x", 1, None, None), (CALENDAR, "z", 1, "y", None)]},
]
#: The calendar x is held, then declared elsewhere in a circle, while its old file cannot be parsed.
MOVED_INTO_A_CIRCLE: list[Tree] = [
    {"p.yaml": [(CALENDAR, "x", 0, None, None)]},
    {"p.yaml": [], "q.yaml": None},
    {"p.yaml": None, "q.yaml": [(CALENDAR, "x", 0, "y", None), (CALENDAR, "y", 0, "x", None)]},
]


def still(made: Plan) -> bool:
    """Tell whether a plan changes nothing."""
    return not made.refreshed and all(one.step in (Step.NOOP, Step.KEEP, Step.HOLD) for one in made.actions)


@example(BROKEN_AS_ITS_BASE_CHANGES)
@example(MOVED_INTO_A_CIRCLE)
@settings(max_examples=400, deadline=None)
@given(st.lists(trees(st.one_of(calendars, tasks)), min_size=1, max_size=5))
def test_a_plan_leaves_nothing_to_do(history: list[Tree]) -> None:
    """After an apply the same tree plans nothing, whether what changed is read or everything."""
    world = World()
    for tree in history:
        world.look(tree)
        rows = dict(world.rows)
        for everything in (False, True):
            assert still(world.look(tree, everything=everything))
            assert world.rows == rows


@settings(max_examples=400, deadline=None)
@given(st.lists(trees(st.one_of(calendars, tasks)), min_size=1, max_size=5))
def test_reading_little_is_reading_everything(history: list[Tree]) -> None:
    """A pass that reads what changed, what was bad and what lost its calendar leaves the same as one that reads all."""
    little, much = World(), World()
    for tree in history:
        little.look(tree)
        much.look(tree, everything=True)
        assert little.rows == much.rows
        assert little.bad == much.bad


@settings(max_examples=400, deadline=None)
@given(st.lists(trees(st.one_of(calendars, tasks)), min_size=1, max_size=5))
def test_references_hold(history: list[Tree]) -> None:
    """What is in sync refers to what is there, and a calendar in sync holds itself and its bases as they are now."""
    world = World()
    for tree in history:
        world.look(tree)
        assert world.dangling() == set()
        there = world.living(CALENDAR)
        for row in there.values():
            content = world.contents[str(row.digest)]
            assert digest(content) == row.digest
            if row.sync == "SYNCED":
                bases = [world.contents[str(there[base].digest)] for base in world.specs[row.uid].get("base", [])]
                assert all(part in content["parts"] for base in bases for part in base["parts"])
                assert len(content["parts"]) <= 1 + sum(len(base["parts"]) for base in bases)


#: The name a is to go to b and to come from c, while another file that has not changed declares it.
STILL_DECLARED: list[Tree] = [
    {"p.yaml": None, "q.yaml": [(TASK, "a", 0, None, None), (TASK, "c", 0, None, None)]},
    {"p.yaml": [(TASK, "a", 0, None, "c"), (TASK, "b", 0, None, "a")], "q.yaml": [(TASK, "a", 0, None, None)]},
]


@example(STILL_DECLARED)
@settings(max_examples=600, deadline=None)
@given(st.lists(trees(heirs), min_size=1, max_size=6))
def test_renames_lose_nobody(history: list[Tree]) -> None:
    """No task is lost or doubled by any names, a seed never changes, and the same tree again changes nothing."""
    world = World()
    for tree in history:
        before = {row.uid: row for row in world.rows.values()}
        made = world.look(tree)
        after = {row.uid: row for row in world.rows.values()}
        assert len(after) == len(world.rows)
        assert before.keys() <= after.keys()
        for uid, row in before.items():
            assert after[uid].seed == row.seed
            assert row.generation <= after[uid].generation <= row.generation + 1
            assert after[uid].name == row.name or any(
                one.step is Step.RENAME and one.actual is not None and one.actual.uid == uid for one in made.actions
            )
        rows = dict(world.rows)
        assert still(world.look(tree))
        assert world.rows == rows


@settings(max_examples=300, deadline=None)
@given(st.permutations("abc"), st.booleans())
def test_a_clean_rename_is_followed(names: list[str], seen: bool) -> None:
    """Whether the push in between was seen or not, a task goes to its new name and back with all that it has."""
    old, new, _ = names
    world = World()
    world.look({"p.yaml": [(TASK, old, 0, None, None)]})
    (row,) = world.rows.values()
    if seen:
        world.look({})
    world.look({"q.yaml": [(TASK, new, 1, None, old)]})
    (after,) = world.rows.values()
    assert (after.uid, after.seed, after.name, after.removed) == (row.uid, row.seed, new, False)
    world.look({"p.yaml": [(TASK, old, 0, None, new)]})
    (back,) = world.rows.values()
    assert (back.uid, back.seed, back.name) == (row.uid, row.seed, old)
