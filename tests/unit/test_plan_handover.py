"""Who may take over what: tasks of the API, rows of other sources, removed names, exchanged names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cron_observer.model import ADOPT, NEW_IDENTITY
from cron_observer.plan import (
    CALENDAR,
    DEFAULTS,
    GROUP,
    PROJECT,
    TASK,
    Actual,
    DesiredFile,
    Step,
    Terms,
    layers_after,
)
from support import planned as p
from support.planned import codes, other, other_row, planned, row, steps, task, unparseable

API: dict[str, Any] = {"source_id": None, "source": None, "path": None, "line": None, "sync": None}
THEIRS: dict[str, Any] = {"source_id": p.OTHER, "source": "payments", "path": "x.yaml"}


def adopting(value: str = "true", **more: Any) -> DesiredFile:
    """Make a file whose task may take over one of the API."""
    return task(annotations={ADOPT: value}, **more)


@pytest.mark.parametrize(
    ("desired", "actual", "step", "found"),
    [
        (task(), row(**API), None, ["CO1501"]),
        (adopting("false"), row(**API), None, ["CO1501"]),
        (adopting(), row(**API), "adopt", []),
        (adopting(), row(**API, deleting=True), None, ["CO1501"]),
        (adopting(), row(**THEIRS), None, ["CO1502"]),
        (adopting(), None, "create", []),
        (adopting(), row(spec_hash=b""), "update", []),
        (task(transfer_from="payments"), row(**API), None, ["CO1501"]),
        (task(), row(**THEIRS), None, ["CO1502"]),
        (task(), row(**THEIRS | {"sync": "HELD"}), None, ["CO1502"]),
        (task(transfer_from="billing"), row(**THEIRS | {"sync": "HELD"}), None, ["CO1502"]),
        (task(transfer_from="payments"), row(**THEIRS), None, ["CO1505"]),
        (task(transfer_from="payments"), row(**THEIRS | {"sync": "KEPT_LAST_GOOD"}), None, ["CO1505"]),
        (task(transfer_from="payments"), row(**THEIRS | {"sync": "HELD"}), "transfer", []),
        (task(transfer_from="payments"), row(**THEIRS, removed=True), "restore", []),
        (task(), row(**THEIRS, removed=True), "restore", []),
        (task(transfer_from="payments"), row(), "noop", []),
        (other(GROUP, "night", "g.yaml"), other_row(GROUP, "night", **THEIRS), None, ["CO1502"]),
        (
            other(GROUP, "night", "g.yaml", transfer_from="payments"),
            other_row(GROUP, "night", **THEIRS),
            None,
            ["CO1505"],
        ),
        (
            other(GROUP, "night", "g.yaml", transfer_from="payments"),
            other_row(GROUP, "night", **THEIRS | {"sync": "HELD"}),
            "transfer",
            [],
        ),
        (
            other(CALENDAR, "off", "c.yaml", transfer_from="payments"),
            other_row(CALENDAR, "off", **THEIRS | {"sync": "HELD"}),
            "transfer",
            [],
        ),
        (other(DEFAULTS, "base", "d.yaml"), other_row(DEFAULTS, "base", **THEIRS), None, ["CO1502"]),
    ],
)
def test_who_takes_over_what(desired: DesiredFile, actual: Actual | None, step: str | None, found: list[str]) -> None:
    """A row changes hands only when its owner and whoever takes it both say so; else a finding says whose it is."""
    made = planned([desired], [] if actual is None else [actual])
    assert [one.step.value for one in made.actions] == ([step] if step else [])
    assert [code for several in codes(made).values() for code in several] == found
    for one in made.of(Step.ADOPT, Step.TRANSFER):
        assert one.actual == actual
        assert one.raises


def test_a_task_that_changes_hands_needs_what_it_refers_to() -> None:
    """One that refers to nothing stays with its owner, with a finding, and is no row of ours to keep."""
    desired = task(transfer_from="payments", spec={"group": "nowhere"})
    made = planned([desired], [row(**THEIRS | {"sync": "HELD"})])
    assert (made.actions, codes(made)) == ((), {"a.yaml": ["CO1413"]})
    based = other(CALENDAR, "off", "c.yaml", {"entries": [], "base": ["nowhere"]}, transfer_from="payments")
    made = planned([based], [other_row(CALENDAR, "off", **THEIRS | {"sync": "HELD"})])
    assert (made.actions, codes(made)) == ((), {"c.yaml": ["CO1403"]})


def test_two_documents_take_over_nothing() -> None:
    """When two documents declare a name that comes free, both are refused, as for any new name."""
    two = [task(transfer_from="payments"), task("alpha", "b.yaml", transfer_from="payments")]
    made = planned(two, [row(**THEIRS | {"sync": "HELD"})])
    assert (made.actions, codes(made)) == ((), {"a.yaml": ["CO1207"], "b.yaml": ["CO1207"]})


def test_a_name_that_is_awaited_is_kept_for_its_heir() -> None:
    """It is held instead of removed, and the others are asked to look, once."""
    terms = Terms(awaited=[(TASK, "alpha")])
    made = planned([], [row()], ("a.yaml",), terms)
    assert (steps(made), made.concerns_others) == ({"alpha": "hold handed_over"}, True)
    again = planned([], [row(sync="HELD")], (), terms)
    assert (steps(again), again.concerns_others) == ({"alpha": "hold handed_over"}, False)
    assert steps(planned([], [row(sync="HELD")])) == {"alpha": "remove"}


def test_taking_over_concerns_the_owner_before() -> None:
    """Whoever held it looks again, and says no more that it does."""
    made = planned([task(transfer_from="payments")], [row(**THEIRS | {"sync": "HELD"})])
    assert made.concerns_others
    assert not planned([task()], [row()]).concerns_others


def test_letting_go_concerns_who_holds() -> None:
    """A changed task may be the last user of what another source holds for it."""
    held = other_row(GROUP, "night", **THEIRS | {"sync": "HELD"})
    changed = task(spec={"cron": "new"})
    assert planned([changed], [row(), held]).concerns_others
    assert not planned([changed], [row(), replace(held, sync="SYNCED")]).concerns_others
    assert not planned([task()], [row(), held]).concerns_others


@pytest.mark.parametrize(
    ("desired", "actual", "step", "frees"),
    [
        (task(), row(removed=True), "restore", False),
        (task(annotations={NEW_IDENTITY: "true"}), row(removed=True), "create", True),
        (task(annotations={NEW_IDENTITY: "false"}), row(removed=True), "restore", False),
        (task(annotations={NEW_IDENTITY: "true"}), row(), "update", False),
        (task(), row(removed=True, deleting=True), "create", True),
        (task("beta", "b.yaml", renamed_from="alpha"), row(removed=True, deleting=True), "create", False),
    ],
)
def test_what_comes_back_is_what_it_was(desired: DesiredFile, actual: Actual, step: str, frees: bool) -> None:
    """A removed task is restored, unless its manifest wants a new one, or it is about to be forgotten."""
    (action,) = planned([desired], [actual]).actions
    assert (action.step.value, action.frees) == (step, actual.uid if frees else None)
    assert (action.actual is None) == (step == "create")


def test_a_kind_that_is_changed_in_place_is_another_thing() -> None:
    """A Task that becomes a TaskGroup of the same name is removed, and the group is created; guards see a removal."""
    made = planned([other(GROUP, "alpha", "a.yaml")], [row()])
    assert [(one.kind, one.step.value) for one in made.actions] == [(TASK, "remove"), (GROUP, "create")]
    made = planned([other(GROUP, "alpha", "a.yaml")], [row(prune="confirm")])
    assert [(one.kind, one.held) for one in made.actions] == [(TASK, "confirm"), (GROUP, None)]


def heir(name: str, old: str, path: str | None = None, cron: str = "new") -> DesiredFile:
    """Make a file with a task that was called something else."""
    return task(name, path or f"{name}.yaml", spec={"cron": cron}, renamed_from=old)


def of(*names: str) -> list[Actual]:
    """Make rows, each in a file called like it."""
    return [row(name, f"{name}.yaml") for name in names]


@pytest.mark.parametrize(
    ("desired", "actual", "gone", "expected", "found"),
    [
        ([heir("a", "b"), heir("b", "a")], of("a", "b"), (), {"a": "b", "b": "a"}, set()),
        ([heir("a", "b"), heir("b", "c"), heir("c", "a")], of(*"abc"), (), {"a": "b", "b": "c", "c": "a"}, set()),
        ([heir("b", "a"), heir("c", "b")], of("a", "b"), ("a.yaml",), {"b": "a", "c": "b"}, set()),
        (
            [heir("b", "a"), heir("c", "b"), heir("d", "c")],
            of(*"abc"),
            ("a.yaml",),
            {"b": "a", "c": "b", "d": "c"},
            set(),
        ),
        # the first name is still declared, so that nobody can move
        ([heir("b", "a"), heir("c", "b")], of("a", "b"), (), {}, {"CO1209"}),
        # only one of the two says so
        ([heir("a", "b"), task("b", "b.yaml")], of("a", "b"), (), {}, {"CO1209"}),
        # one of them is broken
        ([heir("a", "b"), p.broken("b.yaml", "b")], of("a", "b"), (), {}, {"CO1209"}),
        # somebody else claims one of the names
        ([heir("a", "b"), heir("b", "a"), heir("c", "a")], of("a", "b"), (), {}, {"CO1209"}),
        ([heir("a", "b"), heir("b", "a"), task("b", "z.yaml")], of("a", "b"), (), {}, {"CO1209", "CO1207"}),
    ],
)
def test_names_are_exchanged_all_or_none(
    desired: list[DesiredFile], actual: list[Actual], gone: tuple[str, ...], expected: dict[str, str], found: set[str]
) -> None:
    """Tasks that take names from each other do so at once, in a chain or in a circle; in doubt nobody moves."""
    made = planned(desired, actual, gone)
    assert {one.name: one.actual.name for one in made.of(Step.RENAME) if one.actual} == expected
    assert made.of(Step.REMOVE, Step.CREATE) == []
    assert {code for several in codes(made).values() for code in several} == found


def test_names_are_exchanged_once() -> None:
    """Afterwards the same documents mean nothing new, read again or changed: each task has the other's seed."""
    swapped = [row("a", "a.yaml", seed="default/b"), row("b", "b.yaml", seed="default/a")]
    made = planned([heir("a", "b", cron="old"), heir("b", "a", cron="newer")], swapped)
    assert steps(made) == {"a": "noop", "b": "update"}


def test_an_exchange_fails_as_a_whole() -> None:
    """When one of the tasks refers to nothing, all of them keep names and versions."""
    lost = task("b", "b.yaml", spec={"group": "nowhere"}, renamed_from="a")
    made = planned([heir("a", "b"), lost], of("a", "b"))
    assert (steps(made), codes(made)) == ({"a": "keep", "b": "keep"}, {"b.yaml": ["CO1413"]})


def test_a_new_name_of_somebody_else_keeps_the_old_task() -> None:
    """A task is not removed because the name that it was to have is the API's."""
    made = planned([heir("beta", "alpha")], [row(), row("beta", **API)], ("a.yaml",))
    assert (steps(made), codes(made)) == ({"alpha": "keep"}, {"beta.yaml": ["CO1501"]})


@pytest.mark.parametrize(
    ("limit", "count", "refused"),
    [
        (None, 2, ""),
        (5, 2, ""),
        (4, 2, "e"),  # two are there, three are to come
        (3, 2, "de"),
        (2, 2, "cde"),
        (1, 2, "cde"),  # what is there stays
        (2, 1, "de"),
    ],
)
def test_no_more_tasks_than_the_project_allows(limit: int | None, count: int, refused: str) -> None:
    """What is one too many by path is refused, with a finding; what is in force is still changed."""
    actual = of("a", "b")
    desired = [task(name, f"{name}.yaml", spec={"cron": "new"}) for name in "ecdab"]
    made = planned(desired, actual, (), Terms(limit=limit, task_count=count))
    assert set(steps(made)) == set("abcde") - set(refused)
    assert codes(made) == {f"{name}.yaml": ["CO1508"] for name in sorted(refused)}


def test_what_goes_makes_room() -> None:
    """Removals of the same commit count; held ones do not, and a task that is renamed takes no room."""
    actual, gone = of("a", "b"), ("a.yaml",)
    new = task("z", "z.yaml")
    assert steps(planned([new], actual, gone, Terms(limit=2, task_count=2))) == {"a": "remove", "z": "create"}
    held = planned([new], actual, gone, Terms(limit=2, task_count=2, prune=False))
    assert (steps(held), codes(held)) == ({"a": "hold prune_off"}, {"a.yaml": ["CO1507"], "z.yaml": ["CO1508"]})
    assert steps(planned([heir("z", "a")], actual, gone, Terms(limit=2, task_count=2))) == {"z": "rename"}
    back = planned([heir("z", "a")], [row("a", "a.yaml", removed=True)], (), Terms(limit=2, task_count=2))
    assert (steps(back), codes(back)) == ({}, {"z.yaml": ["CO1508"]})


def project(name: str, path: str = "project.yaml") -> DesiredFile:
    """Make a file that declares a Project."""
    return other(PROJECT, name, path)


@pytest.mark.parametrize(
    ("desired", "actual", "gone", "after", "found"),
    [
        ([project("shop")], [], (), ["shop"], {}),
        (
            [project("shop"), project("mall", "mall.yaml")],
            [],
            (),
            [],
            {"mall.yaml": ["CO1509"], "project.yaml": ["CO1509"]},
        ),
        (
            [project("mall", "mall.yaml")],
            [other_row(PROJECT, "shop", "project.yaml")],
            (),
            ["shop"],
            {"mall.yaml": ["CO1509"]},
        ),
        ([project("mall", "mall.yaml")], [other_row(PROJECT, "shop", "project.yaml")], ("project.yaml",), ["mall"], {}),
        ([project("mall")], [other_row(PROJECT, "shop", "project.yaml")], (), ["mall"], {}),
        ([unparseable("project.yaml")], [other_row(PROJECT, "shop", "project.yaml")], (), ["shop"], {}),
        ([other(DEFAULTS, "base", "d.yaml")], [other_row(DEFAULTS, "base", "d.yaml")], (), ["base"], {}),
        ([], [other_row(DEFAULTS, "base", "d.yaml")], ("d.yaml",), [], {}),
        (
            [unparseable("e.yaml")],
            [other_row(DEFAULTS, "base", "d.yaml")],
            ("d.yaml",),
            ["base"],
            {"d.yaml": ["CO1507"]},
        ),
        ([], [other_row(DEFAULTS, "base", "d.yaml", source_id=p.OTHER)], (), [], {}),
        ([], [other_row(DEFAULTS, "base", "d.yaml", removed=True)], (), [], {}),
        ([], [other_row(DEFAULTS, "base", "d.yaml")], (), ["base"], {}),
    ],
)
def test_which_layers_hold(
    desired: list[DesiredFile], actual: list[Actual], gone: tuple[str, ...], after: list[str], found: dict[str, Any]
) -> None:
    """What tasks are read with is what the plan puts or leaves in force of Defaults and Projects."""
    key: dict[str, Any] = {"source_id": p.SOURCE, "project_id": p.PROJECT}
    bearing = layers_after(desired, gone, actual, **key)
    assert [one.name for one in bearing] == after
    made = planned(desired, actual, gone, Terms(bearing=[(one.kind, one.name) for one in bearing]))
    assert codes(made) == found
    left = {one.name for one in actual if one.source_id == p.SOURCE and not one.removed}
    left -= {one.name for one in made.actions if one.step is Step.REMOVE}
    left |= {one.name for one in made.actions if one.declared is not None}
    assert sorted(left) == after
