"""What holds for every sequence of trees: plans converge, never lose a task by accident, and reading less is enough."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid5

from hypothesis import given, settings
from hypothesis import strategies as st

from cron_observer.model import Commit, ParsedFile, TaskDefinition
from cron_observer.plan import Action, Actual, DesiredFile, Plan, Step, plan

SOURCE, PROJECT = UUID(int=1), UUID(int=2)

#: A document: name, version of its spec, whether it is valid. A file: its documents, or None if unparseable.
Document = tuple[str, int, bool]
Tree = dict[str, list[Document] | None]

documents = st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.sampled_from([True, True, True, False]))
files = st.one_of(
    st.lists(documents, max_size=3, unique_by=lambda document: document[0]),
    st.lists(documents, max_size=3, unique_by=lambda document: document[0]),
    st.none(),
)
trees = st.dictionaries(st.sampled_from(["p.yaml", "q.yaml", "r.yaml"]), files, max_size=3)


@dataclass
class World:
    """A database in memory, which applies plans as the store does."""

    rows: dict[str, Actual] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    known: Tree = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    passes: int = 0

    def read(self, tree: Tree, *, everything: bool) -> tuple[list[str], list[str]]:
        """Return the paths that a pass reads, and those that are gone."""
        changed = {path for path, content in tree.items() if path not in self.known or self.known[path] != content}
        again = set(tree) if everything else self.bad & set(tree)
        return sorted(changed | again), sorted(set(self.known) - set(tree))

    def desired(self, tree: Tree, paths: list[str]) -> list[DesiredFile]:
        """Return the files of these paths, each with the commit that changed it last."""
        return [DesiredFile(file=parsed(path, tree[path]), commit=Commit(id=repr(tree[path]))) for path in paths]

    def plan(self, tree: Tree, *, everything: bool = False) -> Plan:
        """Plan as a pass does: with the rows that an inventory gives, and no others."""
        paths, gone = self.read(tree, everything=everything)
        desired = self.desired(tree, paths)
        names = {task.name for one in desired for task in one.file.tasks}
        names = names.union(*(one.file.broken_names for one in desired))
        actual = [
            row
            for row in self.rows.values()
            if row.name in names or (not row.removed and (row.path in {*paths, *gone} or row.sync != "SYNCED"))
        ]
        return plan(desired, gone, actual, source_id=SOURCE, project_id=PROJECT)

    def apply(self, tree: Tree, made: Plan) -> None:
        """Write a plan down."""
        paths, _ = self.read(tree, everything=False)
        for action in made.actions:
            self.rows[action.name] = self.row(action)
        findings = {path for path, found in made.findings.items() if found}
        for path in set(self.bad):
            if path not in tree:
                self.bad.discard(path)
        for path in paths:
            one = parsed(path, tree[path])
            bad = not one.parseable or bool(one.broken_names) or path in findings
            (self.bad.add if bad else self.bad.discard)(path)
        self.known = dict(tree)
        self.passes += 1

    def row(self, action: Action) -> Actual:
        """Return the row that an action leaves behind."""
        old, task, commit = action.actual, action.declared, action.commit
        if task is None or commit is None:
            assert old is not None
            sync = {Step.KEEP: "KEPT_LAST_GOOD", Step.HOLD: "HELD", Step.REMOVE: None}[action.step]
            return replace(old, sync=sync, removed=action.step is Step.REMOVE)
        self.versions[action.name] = task.spec["version"]
        return Actual(
            uid=old.uid if old else uuid5(SOURCE, f"{action.name} {self.passes}"),
            project_id=PROJECT,
            name=action.name,
            spec_hash=action.spec_hash,
            generation=(old.generation if old else 0) + (action.step in (Step.CREATE, Step.UPDATE, Step.RESTORE)),
            source_id=SOURCE,
            source="main",
            path=task.path,
            document=task.document,
            line=task.line,
            commit=commit.id,
            sync="SYNCED",
        )


def parsed(path: str, content: list[Document] | None) -> ParsedFile:
    """Parse a file of this little language."""
    if content is None:
        return ParsedFile(path=path, parseable=False)
    return ParsedFile(
        path=path,
        tasks=tuple(
            TaskDefinition(name=name, spec={"version": version}, path=path, line=index + 1, document=index)
            for index, (name, version, valid) in enumerate(content)
            if valid
        ),
        broken_names=tuple(name for name, _, valid in content if not valid),
    )


def declarations(tree: Tree) -> dict[str, list[tuple[str, int, bool]]]:
    """Return where each name is declared, in which version, and whether validly."""
    found: dict[str, list[tuple[str, int, bool]]] = {}
    for path, content in tree.items():
        for name, version, valid in content or ():
            found.setdefault(name, []).append((path, version, valid))
    return found


@settings(max_examples=400, deadline=None)
@given(st.lists(trees, min_size=1, max_size=6))
def test_sequences_of_trees(history: list[Tree]) -> None:
    """After each tree what is in force is what can be justified by it, and the uid of a name never changes."""
    world = World()
    for tree in history:
        before = dict(world.rows)
        made = world.plan(tree)
        assert max(Counter(action.name for action in made.actions).values(), default=1) == 1
        world.apply(tree, made)
        declared = declarations(tree)
        unknown = None in tree.values()
        for name, row in world.rows.items():
            assert name not in before or before[name].uid == row.uid, "a name keeps its uid"
            if name in before:
                assert before[name].generation <= row.generation <= before[name].generation + 1
            if unknown and name in before and not before[name].removed:
                assert not row.removed, "nothing is removed while a file is unparseable"
            if not unknown:
                assert row.removed or name in declared, "what is declared nowhere is in force no more"
                assert row.sync != "HELD", "nothing is held without a reason"
            if row.sync == "SYNCED":
                assert (row.path, world.versions[name], True) in declared[name], "in sync is what is declared"
        for name, places in declared.items():
            if len(places) == 1 and places[0][2]:
                row_, (path, version, _) = world.rows.get(name), places[0]
                alone = row_ is None or row_.path == path or tree.get(row_.path or "", []) is not None
                if alone:
                    assert row_ is not None
                    assert (row_.sync, row_.path, world.versions[name]) == ("SYNCED", path, version)


@settings(max_examples=400, deadline=None)
@given(st.lists(trees, min_size=1, max_size=6))
def test_reading_what_changed_is_enough(history: list[Tree]) -> None:
    """A pass that reads only what changed and what was bad leaves the same as one that reads everything."""
    little, much = World(), World()
    for tree in history:
        little.apply(tree, little.plan(tree))
        much.apply(tree, much.plan(tree, everything=True))
        assert little.rows == much.rows
        assert little.bad == much.bad


@settings(max_examples=200, deadline=None)
@given(st.lists(trees, min_size=1, max_size=5))
def test_the_same_tree_again_changes_nothing(history: list[Tree]) -> None:
    """Plans converge: after an apply, the same tree leaves every row as it is."""
    world = World()
    for tree in history:
        world.apply(tree, world.plan(tree))
    rows = dict(world.rows)
    for everything in (False, True):
        made = world.plan(history[-1], everything=everything)
        world.apply(history[-1], made)
        assert world.rows == rows
