"""What a plan does about one name, case by case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid5

import pytest

from cron_observer.model import Commit, Definition, Finding, ParsedFile, Severity, TaskDefinition
from cron_observer.plan import CALENDAR, GROUP, Action, Actual, DesiredFile, Plan, Step, plan, spec_hash

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


NIGHT = {"windows": [{"from": "20:00", "to": "06:00"}], "timezone": "UTC"}


def group(spec: dict[str, Any], path: str = "g.yaml") -> DesiredFile:
    """Make a file that declares a group."""
    one = Definition(kind=GROUP, name="night", spec=spec, path=path, line=4)
    return DesiredFile(file=ParsedFile(path=path, others=(one,)), commit=NEW)


def group_row(**fields: Any) -> Actual:
    """Make a row as the last apply of a group left it."""
    values = {"kind": GROUP, "spec": NIGHT, "spec_hash": spec_hash(NIGHT, {}, {})}
    return row("night", "g.yaml", **(values | fields))


@pytest.mark.parametrize(
    ("desired", "actual", "gone", "step", "replanned"),
    [
        ([group(NIGHT)], [], (), "create", False),
        ([group(NIGHT)], [group_row()], (), "noop", False),
        ([group(NIGHT, "h.yaml")], [group_row()], ("g.yaml",), "move", False),
        ([group(NIGHT | {"maxParallel": 2})], [group_row()], (), "update", False),
        ([group(NIGHT | {"onWindowClose": "cancel"})], [group_row()], (), "update", False),
        ([group(NIGHT | {"timezone": "Europe/Berlin"})], [group_row()], (), "update", True),
        ([group(NIGHT | {"windows": []})], [group_row()], (), "update", True),
        ([group(NIGHT | {"suspend": True})], [group_row()], (), "update", True),
        ([group(NIGHT)], [group_row(removed=True)], (), "restore", False),
        ([group(NIGHT | {"suspend": True})], [group_row(removed=True)], (), "restore", True),
        ([], [group_row()], ("g.yaml",), "remove", False),
        ([file("a.yaml", parseable=False)], [group_row()], ("g.yaml",), "hold", False),
    ],
)
def test_groups_have_the_same_steps(
    desired: list[DesiredFile], actual: list[Actual], gone: tuple[str, ...], step: str, replanned: bool
) -> None:
    """A group is planned as a task is; tasks are planned anew only for what matters to their slots."""
    made = planned(desired, actual, gone)
    assert [(action.kind, action.step.value) for action in made.actions] == [(GROUP, step)]
    assert made.replanned(GROUP) == ({"night"} if replanned else set())
    assert made.vanished is (step == "remove")
    assert made.appeared is (step in ("create", "restore"))


def test_a_name_has_one_owner_of_each_kind() -> None:
    """A task, a calendar and a group may share a name; a calendar of another source is not taken over."""
    calendar = Definition(kind=CALENDAR, name="night", spec={"entries": [{"weekdays": ["sun"]}]}, path="c.yaml", line=4)
    several = DesiredFile(file=ParsedFile(path="c.yaml", others=(calendar,)), commit=NEW)
    desired = [several, group(NIGHT), file("a.yaml", task("night"))]
    made = planned(desired, [])
    assert [action.kind for action in made.actions] == [CALENDAR, "Task", GROUP]
    assert {action.step for action in made.actions} == {Step.CREATE}
    assert made.counts() == {"created": 1, "calendars_created": 1, "groups_created": 1}
    made = planned(desired, [group_row(source_id=OTHER, source="payments")])
    assert [one.code for one in made.findings["g.yaml"]] == ["CO1502"]
    assert "task group" in made.findings["g.yaml"][0].message


def heir(name: str = "beta", old: str = "alpha", path: str = "b.yaml", *, cron: str = "old") -> DesiredFile:
    """Make a file with a task that was called `old`."""
    one = TaskDefinition(name=name, spec={"cron": cron}, path=path, line=4, renamed_from=old)
    return file(path, one)


SEEDS = {"alpha": "default/alpha", "beta": "default/beta"}


@pytest.mark.parametrize(
    ("desired", "actual", "gone", "steps_", "code"),
    [
        ([heir()], [row()], ("a.yaml",), {"beta": "rename"}, None),
        ([heir(), file("a.yaml")], [row()], (), {"beta": "rename"}, None),
        ([heir()], [row(removed=True, sync=None)], (), {"beta": "rename"}, None),
        ([heir()], [row(removed=True, sync=None, source_id=OTHER)], (), {"beta": "rename"}, None),
        ([heir()], [], (), {"beta": "create"}, None),
        ([heir()], [row()], (), {}, "CO1209"),
        ([heir(), file("a.yaml", task())], [row()], (), {"alpha": "noop"}, "CO1209"),
        ([heir(), file("a.yaml", broken=("alpha",))], [row()], (), {"alpha": "keep"}, "CO1209"),
        ([heir(), file("a.yaml", parseable=False)], [row()], (), {"alpha": "keep"}, "CO1209"),
        ([heir(), heir("gamma", path="c.yaml")], [row()], ("a.yaml",), {"alpha": "keep"}, "CO1210"),
        ([heir()], [row(source_id=None, path=None, sync=None)], (), {}, "CO1504"),
        ([heir()], [row(source_id=OTHER)], (), {}, "CO1504"),
        ([heir(cron="new")], [row(), row("beta", "b.yaml")], ("a.yaml",), {"alpha": "keep", "beta": "keep"}, "CO1504"),
        ([heir()], [row(), row("beta", removed=True)], ("a.yaml",), {"alpha": "keep"}, "CO1504"),
        ([heir()], [row("beta", "b.yaml", seed="default/alpha")], (), {"beta": "noop"}, None),
        (
            [heir(cron="new")],
            [row(), row("beta", "b.yaml", seed="default/alpha")],
            ("a.yaml",),
            {"alpha": "remove", "beta": "update"},
            None,
        ),
        ([heir()], [row(removed=True), row("beta", removed=True)], (), {"beta": "restore"}, None),
    ],
)
def test_every_rename_has_one_outcome(
    desired: list[DesiredFile], actual: list[Actual], gone: tuple[str, ...], steps_: dict[str, str], code: str | None
) -> None:
    """A rename is carried out, is past, or is refused with both tasks left as they are."""
    seeded = [one if one.seed else replace(one, seed=SEEDS[one.name]) for one in actual]
    made = planned(desired, seeded, gone)
    assert steps(made) == steps_
    found = {one.code for several in made.findings.values() for one in several}
    assert found == ({code} if code else set())
    for one in made.of(Step.RENAME):
        assert one.actual is not None
        assert (one.actual.name, one.raises) == ("alpha", one.actual.removed)
