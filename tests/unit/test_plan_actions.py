"""What a plan does about one name, case by case."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

import pytest

from cron_observer.model import Commit, Finding, ParsedFile, Severity, TaskDefinition
from cron_observer.plan import Action, Actual, DesiredFile, Plan, Step, plan, spec_hash

SOURCE, OTHER, PROJECT, ELSEWHERE = (UUID(int=number) for number in range(1, 5))
NEW = Commit(id="new", author="Ada")


def task(
    name: str = "alpha", path: str = "a.yaml", *, cron: str = "old", line: int = 4, document: int = 0
) -> TaskDefinition:
    """Make a definition."""
    return TaskDefinition(name=name, spec={"cron": cron}, path=path, line=line, document=document)


def file(path: str, *tasks: TaskDefinition, broken: tuple[str, ...] = (), parseable: bool = True) -> DesiredFile:
    """Make a file that was read."""
    parsed = ParsedFile(path=path, tasks=tasks, broken_names=broken, parseable=parseable)
    return DesiredFile(file=parsed, commit=NEW)


def row(name: str = "alpha", path: str | None = "a.yaml", **fields: Any) -> Actual:
    """Make a row as the last apply of `task` left it."""
    values: dict[str, Any] = {
        "uid": uuid5(SOURCE, name),
        "project_id": PROJECT,
        "name": name,
        "spec_hash": spec_hash({"cron": "old"}, {}, {}),
        "generation": 1,
        "source_id": SOURCE,
        "source": "main",
        "path": path,
        "document": 0,
        "line": 4,
        "commit": "new",
        "sync": "SYNCED",
    }
    return Actual(**(values | fields))


def planned(desired: list[DesiredFile], actual: list[Actual], gone: tuple[str, ...] = ()) -> Plan:
    """Plan for the source of these tests."""
    return plan(desired, gone, actual, source_id=SOURCE, project_id=PROJECT)


def steps(made: Plan) -> dict[str, str]:
    """Return the step of each name."""
    return {action.name: action.step.value for action in made.actions}


@pytest.mark.parametrize(
    ("desired", "actual", "gone", "step"),
    [
        ([file("a.yaml", task())], [], (), "create"),
        ([file("a.yaml", task())], [row()], (), "noop"),
        ([file("a.yaml", task(cron="new"))], [row()], (), "update"),
        ([file("a.yaml", task(line=9))], [row()], (), "move"),
        ([file("a.yaml", task(document=1))], [row()], (), "move"),
        ([file("a.yaml", task())], [row(commit="old")], (), "move"),
        ([file("a.yaml", task())], [row(sync="KEPT_LAST_GOOD")], (), "move"),
        ([file("b.yaml", task(path="b.yaml"))], [row()], ("a.yaml",), "move"),
        ([file("a.yaml"), file("b.yaml", task(path="b.yaml"))], [row()], (), "move"),
        ([file("b.yaml", task(path="b.yaml", cron="new"))], [row()], ("a.yaml",), "update"),
        ([file("a.yaml", task())], [row(removed=True, sync=None)], (), "restore"),
        ([file("b.yaml", task(path="b.yaml"))], [row(removed=True, sync=None)], (), "restore"),
        ([file("a.yaml", task())], [row(removed=True, sync=None, source_id=OTHER)], (), "restore"),
        ([], [row()], ("a.yaml",), "remove"),
        ([file("a.yaml")], [row()], (), "remove"),
        ([file("a.yaml", broken=("alpha",))], [row()], (), "keep"),
        ([file("a.yaml", parseable=False)], [row()], (), "keep"),
        ([file("b.yaml", broken=("alpha",))], [row()], ("a.yaml",), "keep"),
        ([file("b.yaml", parseable=False)], [row()], ("a.yaml",), "hold"),
        ([file("a.yaml"), file("b.yaml", parseable=False)], [row()], (), "hold"),
        ([file("b.yaml", parseable=False)], [row(sync="HELD")], (), "hold"),
        ([file("a.yaml", parseable=False)], [row(sync="HELD")], (), "hold"),
        ([file("b.yaml")], [row(sync="HELD")], (), "remove"),
        ([file("b.yaml")], [row(sync="KEPT_LAST_GOOD")], (), "remove"),
        ([file("a.yaml", broken=("alpha",))], [], (), None),
        ([file("a.yaml", broken=("alpha",))], [row(removed=True, sync=None)], (), None),
        ([file("a.yaml", task())], [row(source_id=None, path=None, sync=None)], (), None),
        ([file("a.yaml", task())], [row(source_id=OTHER)], (), None),
        ([], [row(removed=True, sync=None)], ("a.yaml",), None),
        ([file("a.yaml", task())], [row(project_id=ELSEWHERE)], (), "create+remove"),
    ],
)
def test_every_case_has_one_step(
    desired: list[DesiredFile], actual: list[Actual], gone: tuple[str, ...], step: str | None
) -> None:
    """Each combination of what is declared and what is in force leads to exactly the step that is documented."""
    made = planned(desired, actual, gone)
    assert "+".join(action.step.value for action in made.actions) == (step or "")


def test_a_duplicate_leaves_the_name_to_whoever_has_it() -> None:
    """The file that the row comes from keeps it, whether it was read now or not; the other is told where."""
    newcomer = file("b.yaml", task(path="b.yaml", cron="new", line=7))
    for desired in ([newcomer], [newcomer, file("a.yaml", task())]):
        made = planned(desired, [row()])
        assert steps(made) in ({}, {"alpha": "noop"})
        ((path, (finding,)),) = made.findings.items()
        assert (path, finding.line, finding.severity) == ("b.yaml", 7, Severity.ERROR)
        assert "a.yaml:4" in finding.message


def test_an_incumbent_that_was_not_read_stays_in_sync() -> None:
    """A newcomer does not make the task of an unchanged file look broken."""
    made = planned([file("b.yaml", task(path="b.yaml"))], [row()])
    assert made.of(Step.KEEP) == []
    assert made.actions == ()


def test_two_newcomers_are_both_refused() -> None:
    """Neither wins by its path, nor by being valid where the other is broken."""
    for second in (file("b.yaml", task(path="b.yaml")), file("b.yaml", broken=("alpha",))):
        for actual in ([], [row(removed=True, sync=None)]):
            made = planned([file("a.yaml", task()), second], actual)
            assert made.actions == ()
            assert "a.yaml" in made.findings


def test_two_newcomers_for_a_task_in_force_keep_it() -> None:
    """A task whose file is gone and that two others declare runs on as it was."""
    made = planned([file("b.yaml", task(path="b.yaml")), file("c.yaml", task(path="c.yaml"))], [row()], ("a.yaml",))
    assert steps(made) == {"alpha": "keep"}
    assert made.findings.keys() == {"b.yaml", "c.yaml"}


def test_conflicts_name_the_owner() -> None:
    """A finding about a name that is not ours says whose it is."""
    made = planned([file("a.yaml", task())], [row(source_id=OTHER, source="payments", path="x.yaml")])
    (finding,) = made.findings["a.yaml"]
    assert finding.code == "CO1502"
    assert "payments" in finding.message
    made = planned([file("a.yaml", task())], [row(source_id=None, source=None, path=None, sync=None)])
    assert [one.code for one in made.findings["a.yaml"]] == ["CO1501"]


def test_an_action_carries_what_is_applied() -> None:
    """The definition, its commit and its hash come with the action; counts say how many of each there are."""
    made = planned([file("a.yaml", task(), task("beta"))], [row()])
    noop, create = made.actions
    assert isinstance(create, Action)
    assert (noop.actual, create.actual) == (row(), None)
    assert (create.commit, create.spec_hash) == (NEW, spec_hash({"cron": "old"}, {}, {}))
    assert made.counts() == {"created": 1, "unchanged": 1}


def test_the_hash_sees_meaning_alone() -> None:
    """The order of keys does not count; values, labels and annotations do, and they are not mixed up."""
    one = spec_hash({"a": 1, "b": [1, 2]}, {"x": "y"}, {})
    assert one == spec_hash({"b": [1, 2], "a": 1}, {"x": "y"}, {})
    others = [
        spec_hash({"a": 1, "b": [2, 1]}, {"x": "y"}, {}),
        spec_hash({"a": 1, "b": [1, 2]}, {}, {"x": "y"}),
        spec_hash({"a": "1", "b": [1, 2]}, {"x": "y"}, {}),
        spec_hash({"a": True, "b": [1, 2]}, {"x": "y"}, {}),
    ]
    assert len({one, *others}) == 5


def test_findings_are_findings() -> None:
    """What a plan finds can be shown beside what the parser finds."""
    made = planned([file("a.yaml", task()), file("b.yaml", task(path="b.yaml"))], [])
    assert all(isinstance(finding, Finding) for several in made.findings.values() for finding in several)
