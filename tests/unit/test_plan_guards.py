"""What is not removed: every guard of removals, by itself and with others, and the approval that releases some."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from cron_observer.model import Severity
from cron_observer.plan import (
    CALENDAR,
    DEFAULTS,
    GROUP,
    PROJECT,
    TASK,
    Actual,
    DesiredFile,
    Holder,
    Plan,
    Step,
    Terms,
    approval_hash,
    at_risk,
)
from support import planned as p
from support.planned import codes, other, other_row, planned, row, steps, task, unparseable

NAMES = "abcdefghijklmnopqrst"


def rows(number: int, **fields: Any) -> list[Actual]:
    """Make as many tasks as asked for, each in a file of its own."""
    return [row(name, f"{name}.yaml", **fields) for name in NAMES[:number]]


def dropped(number: int, owned: int, **terms: Any) -> Plan:
    """Plan the removal of some of the tasks that a source owns."""
    more = {"owned": {TASK: owned} if owned else {}, "target": "c1", "source": "main"} | terms
    return planned([], rows(number), tuple(f"{name}.yaml" for name in NAMES[:number]), Terms(**more))


@pytest.mark.parametrize(
    ("number", "owned", "terms", "reason"),
    [
        (1, 100, {}, None),
        (5, 6, {}, None),  # however many percent they are
        (6, 30, {}, None),  # 20 % is not more than 20 %
        (6, 29, {}, "too_many"),
        (6, 10, {"max_percent": 60.0}, None),
        (7, 10, {"max_percent": 60.0}, "too_many"),
        (7, 10, {"max_deletes": 7}, None),
        (1, 3, {"max_deletes": 0}, "too_many"),
        (1, 3, {"max_deletes": 0, "max_percent": 100.0}, None),
        (1, 1, {}, None),  # all of a kind, but only one
        (2, 2, {}, "all_of_kind"),
        (2, 2, {"max_deletes": 100, "max_percent": 100.0}, "all_of_kind"),
        (1, 1, {"empty": True}, "empty_tree"),
        (2, 2, {"empty": True}, "empty_tree"),
        (9, 0, {}, None),  # nothing is known of what there is
        (2, 2, {"prune": False}, "prune_off"),
        (1, 100, {"prune": False}, "prune_off"),
        (1, 100, {"awaited": [(TASK, "a")]}, "handed_over"),
        (1, 100, {"awaited": [(CALENDAR, "a")]}, None),
    ],
)
def test_how_much_may_be_removed(number: int, owned: int, terms: dict[str, Any], reason: str | None) -> None:
    """Each limit holds the whole set of removals just beyond its edge, and nothing before it."""
    made = dropped(number, owned, **terms)
    wanted = f"hold {reason}" if reason else "remove"
    assert steps(made) == dict.fromkeys(NAMES[:number], wanted)
    approvable = reason in ("too_many", "all_of_kind", "empty_tree")
    assert (made.plan_hash is not None) is approvable
    assert len(made.held) == (number if reason else 0)


def test_all_that_is_owned_counts_together() -> None:
    """Six tasks are a fifth of thirty tasks, calendars and groups, and more than that of twenty-nine."""
    gone = [f"{name}.yaml" for name in NAMES[:6]]
    for groups, wanted in ((10, "remove"), (9, "hold too_many")):
        terms = Terms(owned={TASK: 10, CALENDAR: 10, GROUP: groups}, target="c1", source="main")
        assert steps(planned([], rows(6), gone, terms)) == dict.fromkeys(NAMES[:6], wanted)


@pytest.mark.parametrize(
    ("prune", "terms", "step"),
    [
        (None, {}, "remove"),
        ("allow", {}, "remove"),
        ("confirm", {}, "hold confirm"),
        ("disabled", {}, "hold disabled"),
        ("confirm", {"prune": False}, "hold prune_off"),
        ("disabled", {"empty": True}, "hold disabled"),
        ("confirm", {"empty": True}, "hold confirm"),
        ("allow", {"empty": True}, "hold empty_tree"),
    ],
)
def test_a_task_says_itself_how_it_is_removed(prune: str | None, terms: dict[str, Any], step: str) -> None:
    """What counts is the task in force: that the last commit does not say it any more changes nothing."""
    made = planned([], [row(prune=prune)], ("a.yaml",), Terms(**terms))
    assert steps(made) == {"alpha": step}


def test_what_cannot_be_parsed_holds_everything() -> None:
    """A file of which nobody knows what it declares beats every other reason, and no approval releases it."""
    actual = [row(prune="confirm"), other_row(GROUP, "night", "g.yaml"), other_row(DEFAULTS, "base", "d.yaml")]
    made = planned([unparseable("x.yaml")], actual, ("a.yaml", "g.yaml", "d.yaml"), Terms(empty=True))
    assert steps(made) == dict.fromkeys(("alpha", "night", "base"), "hold unparseable")
    assert made.plan_hash is None
    assert codes(made) == {"a.yaml": ["CO1507"], "d.yaml": ["CO1507"], "g.yaml": ["CO1507"]}


def test_what_is_broken_holds_nothing() -> None:
    """A document that is wrong but says what it is called keeps no other from being removed."""
    assert steps(planned([p.broken("b.yaml", "beta")], [row(), row("beta", "b.yaml")], ("a.yaml",))) == {
        "alpha": "remove",
        "beta": "keep",
    }


def test_an_approval_releases_what_it_names() -> None:
    """With the hash of the held plan all of it is carried out, and the plan says which approval it used."""
    held = dropped(6, 10)
    assert held.plan_hash is not None
    made = dropped(6, 10, approved=[held.plan_hash, "another"])
    assert steps(made) == dict.fromkeys(NAMES[:6], "remove")
    assert (made.approved, made.plan_hash, made.held) == (held.plan_hash, None, [])
    assert (held.approved, codes(made)) == (None, {})


@pytest.mark.parametrize("changed", [{"number": 7}, {"number": 5, "max_deletes": 4}, {"target": "c2"}])
def test_an_approval_is_of_one_plan(changed: dict[str, Any]) -> None:
    """It is of no use for another commit, for one removal more, nor for one less."""
    held = dropped(6, 10)
    made = dropped(**({"number": 6, "owned": 10, "approved": [held.plan_hash]} | changed))
    assert made.plan_hash not in (None, held.plan_hash)
    assert {one.step for one in made.actions} == {Step.HOLD}


def test_the_hash_is_stable() -> None:
    """It depends on the target and on kinds and uids, in no order; others compute it as we do."""
    listed = [(TASK, row().uid), (GROUP, row("b").uid)]
    assert approval_hash("c1", listed) == approval_hash("c1", reversed(listed))
    several = {
        approval_hash("c1", listed),
        approval_hash("c2", listed),
        approval_hash(None, listed),
        approval_hash("c1", listed[:1]),
        approval_hash("c1", [(GROUP, row().uid), (TASK, row("b").uid)]),
    }
    assert len(several) == 5
    text = b'["c1",[["Task","u1"]]]'
    assert approval_hash("c1", [(TASK, "u1")]) == hashlib.sha256(text).hexdigest()


def test_an_approval_covers_what_it_releases_alone() -> None:
    """Removals that no approval can release are not part of it, and are still held when it is given."""
    actual = [row(prune="confirm"), row("beta", "b.yaml", prune="disabled"), row("gamma", "c.yaml")]
    gone = ("a.yaml", "b.yaml", "c.yaml")
    held = planned([], actual, gone, Terms(target="c1"))
    assert steps(held) == {"alpha": "hold confirm", "beta": "hold disabled", "gamma": "remove"}
    assert held.plan_hash == approval_hash("c1", [(TASK, actual[0].uid)])
    made = planned([], actual, gone, Terms(target="c1", approved={str(held.plan_hash)}))
    assert steps(made) == {"alpha": "remove", "beta": "hold disabled", "gamma": "remove"}


def test_kinds_are_counted_together() -> None:
    """The limit is one of all that is removed; a kind of which two or more go as a whole holds the others, too."""
    actual = [*rows(3), *(other_row(GROUP, name, f"g{name}.yaml") for name in "xyz")]
    gone = tuple(str(one.path) for one in actual)
    assert set(steps(planned([], actual, gone, Terms(owned={TASK: 20, GROUP: 9}))).values()) == {"hold too_many"}
    assert set(steps(planned([], actual, gone, Terms(owned={TASK: 90, GROUP: 9}))).values()) == {"remove"}
    assert set(steps(planned([], actual, gone, Terms(owned={TASK: 90, GROUP: 3}))).values()) == {"hold all_of_kind"}


def test_renames_moves_and_updates_are_no_removals() -> None:
    """What stays under another name or elsewhere is not counted, however much of it there is."""
    desired = [task(f"new-{name}", f"{name}.yaml", renamed_from=name) for name in NAMES[:10]]
    made = planned(desired, rows(10), (), Terms(owned={TASK: 10}))
    assert {one.step for one in made.actions} == {Step.RENAME}


IN_A = Holder(TASK, "alpha", 'a.yaml:4 of the source "main"')
NIGHTLY = {"cron": "old", "group": "night"}
GROUPED = row(spec_hash=p.spec_hash(NIGHTLY, {}, {}))
THE_GROUP = other_row(GROUP, "night", "g.yaml")


@pytest.mark.parametrize(
    ("desired", "actual", "gone", "terms", "expected"),
    [
        # its file was not read: it is in the group as before
        ([], [], (), {}, {"night": "hold in_use"}),
        # it was read, and is the same
        ([task(spec=NIGHTLY)], [GROUPED], (), {}, {"alpha": "noop", "night": "hold in_use"}),
        # it lets go of the group in the same commit
        ([task()], [GROUPED], (), {}, {"alpha": "update", "night": "remove"}),
        # it goes in the same commit
        ([], [GROUPED], ("a.yaml",), {}, {"alpha": "remove", "night": "remove"}),
        # it would go, but does not
        ([], [GROUPED], ("a.yaml",), {"prune": False}, {"alpha": "hold prune_off", "night": "hold prune_off"}),
        # it is broken, and stays as it was
        ([p.broken("a.yaml", "alpha")], [GROUPED], (), {}, {"alpha": "keep", "night": "hold in_use"}),
        # what it is to be refers to nothing: it stays as it was
        ([task(spec={"group": "day"})], [GROUPED], (), {}, {"alpha": "keep", "night": "hold in_use"}),
        # it is renamed and lets go
        (
            [task("beta", "b.yaml", renamed_from="alpha")],
            [GROUPED],
            ("a.yaml",),
            {},
            {"beta": "rename", "night": "remove"},
        ),
        (
            [task("beta", "b.yaml", renamed_from="alpha", spec=NIGHTLY)],
            [GROUPED],
            ("a.yaml",),
            {},
            {"beta": "rename", "night": "hold in_use"},
        ),
    ],
)
def test_what_is_used_stays(
    desired: list[DesiredFile],
    actual: list[Actual],
    gone: tuple[str, ...],
    terms: dict[str, Any],
    expected: dict[str, str],
) -> None:
    """A group is removed only if nothing refers to it after the plan."""
    more = Terms(holders={(GROUP, "night"): [IN_A]}, **terms)
    assert steps(planned(desired, [*actual, THE_GROUP], (*gone, "g.yaml"), more)) == expected


def test_users_that_only_wait_hold_for_the_same_approval() -> None:
    """A group whose last task waits for an approval goes with it; the approval covers both."""
    actual = [row(prune="confirm"), THE_GROUP]
    terms: dict[str, Any] = {"holders": {(GROUP, "night"): [IN_A]}, "target": "c1"}
    held = planned([], actual, ("a.yaml", "g.yaml"), Terms(**terms))
    assert steps(held) == {"alpha": "hold confirm", "night": "hold confirm"}
    assert held.plan_hash == approval_hash("c1", [(one.kind, one.uid) for one in actual])
    made = planned([], actual, ("a.yaml", "g.yaml"), Terms(**terms, approved={str(held.plan_hash)}))
    assert steps(made) == {"alpha": "remove", "night": "remove"}


def test_holders_of_others_are_named() -> None:
    """The finding says who uses it and where, three at most, and how many more there are."""
    holders = [Holder(TASK, name, f'{name}.yaml:4 of the source "other"') for name in "vwxyz"]
    made = planned([], [THE_GROUP], ("g.yaml",), Terms(holders={(GROUP, "night"): holders}))
    (finding,) = made.findings["g.yaml"]
    assert (finding.code, finding.severity, finding.path, finding.line) == ("CO1506", Severity.ERROR, "g.yaml", 4)
    assert 'the task "v" (v.yaml:4 of the source "other")' in finding.message
    assert 'the task "y"' not in finding.message
    assert finding.message.endswith("and 2 more")


def test_calendars_hold_their_bases() -> None:
    """A calendar that others are based on stays with them; when all of them go, all are removed."""
    base = other_row(CALENDAR, "base", "b.yaml", content={"parts": [{"dates": [], "spans": []}]}, digest="x")
    own = other_row(CALENDAR, "own", "o.yaml", content={"parts": [{"dates": [], "spans": []}]}, digest="y")
    holders = {
        (CALENDAR, "base"): [Holder(CALENDAR, "own", "o.yaml:4")],
        (CALENDAR, "own"): [Holder(TASK, "alpha", "a.yaml:4")],
    }
    gone = ("b.yaml", "o.yaml")
    assert steps(planned([], [base, own], gone, Terms(holders=holders))) == dict.fromkeys(
        ("base", "own"), "hold in_use"
    )
    assert steps(planned([], [base, own, row()], (*gone, "a.yaml"), Terms(holders=holders))) == dict.fromkeys(
        ("alpha", "base", "own"), "remove"
    )


def test_what_is_held_is_told_at_its_last_place() -> None:
    """Every held removal is a warning where it stood, with the reason and, if there is one, the command."""
    made = dropped(6, 10)
    assert codes(made) == {f"{name}.yaml": ["CO1507"] for name in NAMES[:6]}
    (finding,) = made.findings["a.yaml"]
    assert (finding.severity, finding.line, finding.kind, finding.name) == (Severity.WARNING, 4, TASK, "a")
    assert f"cron-observer sources approve main {made.plan_hash}" in str(finding.hint)
    (finding,) = planned([], [row()], ("a.yaml",), Terms(prune=False)).findings["a.yaml"]
    assert "approve" not in str(finding.hint)


def test_what_is_held_no_more_is_told_no_more() -> None:
    """The place of a row that was held has an entry, so that what was said there is taken back."""
    for desired, step in (([task("alpha", "b.yaml")], "move"), ([], "remove")):
        made = planned(desired, [row(sync="HELD")])
        assert (steps(made), made.findings) == ({"alpha": step}, {"a.yaml": []})


def test_layers_are_held_by_what_cannot_be_parsed_alone() -> None:
    """Nothing is lost with Defaults: neither limits nor prune = false keep them, and they count for no limit."""
    actual = [other_row(DEFAULTS, name, f"{name}.yaml") for name in NAMES[:9]]
    gone = tuple(str(one.path) for one in actual)
    made = planned([], actual, gone, Terms(owned={TASK: 1, DEFAULTS: 9}, prune=False, max_deletes=0))
    assert set(steps(made).values()) == {"remove"}
    one = other_row(PROJECT, "shop", "project.yaml")
    said = Terms(bearing=[(PROJECT, "shop")])
    assert steps(planned([], [one], ("project.yaml",), said)) == {"shop": "hold unparseable"}
    assert steps(planned([unparseable("x.yaml")], [one], ("project.yaml",), Terms(bearing=[]))) == {"shop": "remove"}


@pytest.mark.parametrize(
    ("desired", "gone", "refused"),
    [
        ([task(spec={"cron": "new"})], (), False),
        ([p.broken("b.yaml", "beta"), task(spec={"cron": "new"})], (), True),
        ([task(), task("alpha", "b.yaml")], (), True),
        ([task(spec={"group": "nowhere"})], (), True),
        ([], ("a.yaml",), False),  # held with a warning
    ],
)
def test_atomic_is_all_or_nothing(desired: list[DesiredFile], gone: tuple[str, ...], refused: bool) -> None:
    """Under the policy ``atomic`` one error of a file or of the plan leaves no action; warnings do not matter."""
    made = planned(desired, [row()], gone, Terms(failure_policy="atomic", empty=True))
    assert made.refused is refused
    assert (made.actions == ()) is refused
    isolated = planned(desired, [row()], gone, Terms(empty=True))
    assert (isolated.refused, made.findings) == (False, isolated.findings)


@pytest.mark.parametrize(
    ("desired", "actual", "gone", "expected"),
    [
        ([], [row(), THE_GROUP], ("a.yaml", "g.yaml"), [(TASK, "alpha"), (GROUP, "night")]),
        ([other(GROUP, "night", "h.yaml")], [THE_GROUP], ("g.yaml",), []),
        ([], [THE_GROUP], (), []),
        ([], [other_row(GROUP, "night", "g.yaml", sync="HELD")], (), [(GROUP, "night")]),
        ([], [other_row(GROUP, "night", "g.yaml", source_id=p.OTHER)], ("g.yaml",), []),
        ([], [other_row(GROUP, "night", "g.yaml", removed=True)], ("g.yaml",), []),
    ],
)
def test_what_is_at_risk(
    desired: list[DesiredFile], actual: list[Actual], gone: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    """Only what a plan may remove is asked about, so that most passes ask nothing."""
    assert at_risk(desired, gone, actual, source_id=p.SOURCE, project_id=p.PROJECT) == expected
