"""Patches of manifests: the smallest edit that makes a change, and always one."""

from __future__ import annotations

from typing import Any

import pytest

from cron_observer import errors, manifest
from cron_observer.manifest import DELETE
from cron_observer.manifest.diff import unified
from support.manifests import SMALLEST, applied, task

SCHEDULE = "  schedule:\n    cron: '* * * * *'\n"


def changed(spec: str, *changes: tuple[str, Any]) -> list[str]:
    """Return the lines of the spec after a patch of these changes, having read them back without findings."""
    text = task(spec)
    result = applied(text, manifest.patch(text, "tasks/a.yaml", 0, changes=changes))
    assert result is not None
    assert manifest.parse("a.yaml", result.encode()).findings == ()
    return result.split("spec:\n", 1)[1].split("\n")[:-1]


@pytest.mark.parametrize(
    ("spec", "pointer", "value", "line"),
    [
        ("  timeout: 1h\n", "/timeout", "2h", "  timeout: 2h"),
        ("  timeout: 1h\n", "/spec/timeout", "2h", "  timeout: 2h"),
        ("  timeout: '1h'  # long\n", "/timeout", "2h", "  timeout: '2h'  # long"),
        ('  timeout: "1h"\n', "/timeout", "2h", '  timeout: "2h"'),
        ("  description: a\n", "/description", "it's: x", '  description: "it\'s: x"'),
        ("  description: 'a'\n", "/description", "it's", "  description: 'it''s'"),
        ("  description: a\n", "/description", "yes", '  description: "yes"'),
        ("  description: a\n", "/description", "12:30", '  description: "12:30"'),
        ("  suspend: false\n", "/suspend", True, "  suspend: true"),
        ("  startDeadline:   # none\n", "/startDeadline", "5m", "  startDeadline: 5m   # none"),
        ("  retries: {max: 1, cap: 1h}\n", "/retries/max", 2, "  retries: {max: 2, cap: 1h}"),
        ("  retries: {max: 1, cap: 1h}\n", "/retries/max", DELETE, "  retries: {cap: 1h}"),
        ("  retries: {max: 1, cap: 1h}\n", "/retries/cap", DELETE, "  retries: {max: 1}"),
        ("  retries: { max: 1 }\n", "/retries/cap", "1h", "  retries: { max: 1, cap: 1h }"),
        ('  retries: {"max": 1}\n', "/retries/cap", "1h", '  retries: {"max": 1, "cap": "1h"}'),
        ("  payload: [a, b, c]\n", "/payload", ["a", "c"], "  payload: [a, c]"),
        ("  payload: [a, c]\n", "/payload", ["a", "b", "c"], "  payload: [a, b, c]"),
        ("  payload: {a: [1, {b: c}]}\n", "/payload/a/1/b", "d", "  payload: {a: [1, {b: d}]}"),
        ("  payload: {a: 1}\n", "/payload", [], "  payload: []"),
        ("  payload: |\n    a\n    b\n", "/payload", "c", "  payload: c"),
    ],
)
def test_one_line_changes(spec: str, pointer: str, value: Any, line: str) -> None:
    """A scalar changes in its place; quotes, comments, style and the rest of the line stay."""
    assert changed(SCHEDULE + spec, (pointer, value)) == [*SCHEDULE.split("\n")[:-1], line]


@pytest.mark.parametrize(
    ("spec", "changes", "lines"),
    [
        ("  timeout: 1h\n", [("/timeout", DELETE)], []),
        ("  timeout: 1h\n", [("/retries/max", 3)], ["  timeout: 1h", "  retries:", "    max: 3"]),
        ("  run:\n    external: {}\n", [("/run", DELETE)], []),
        ("  retries:\n    max: 1\n", [("/retries/max", DELETE)], []),
        (
            "  retries:\n    # twice\n    max: 2\n  late: accept\n",
            [("/retries/cap", "1h"), ("/late", "record")],
            ["  retries:", "    # twice", "    max: 2", "    cap: 1h", "  late: record"],
        ),
        (
            "  payload:\n    a:  # first\n      - 1\n      # two\n      - 2\n    b: x\n",
            [("/payload/a", [1, 3, 4])],
            ["  payload:", "    a:  # first", "      - 1", "      # two", "      - 3", "      - 4", "    b: x"],
        ),
        (
            "  payload:\n  - a: 1\n    b: 2\n  - c\n",
            [("/payload", [{"a": 1}, "x", "c"])],
            ["  payload:", "  - a: 1", "  - x", "  - c"],
        ),
        ("  payload:\n    - a: 1\n      b: 2\n", [("/payload", [{"b": 2}])], ["  payload:", "    - {b: 2}"]),
        ("  payload:\n    a: 1\n    b: 2\n", [("/payload", "x")], ["  payload: x"]),
        ("  payload: x\n", [("/payload", {"a": "b" * 60})], ["  payload:", f"    a: {'b' * 60}"]),
        (
            "  payload: |\n    one\n    two\n  late: accept\n",
            [("/payload", "one\n  three\n")],
            ["  payload: |", "    one", "      three", "  late: accept"],
        ),
        ("  payload: 'a\n\n    b'\n", [("/payload", "c")], ["  payload: 'c'"]),
        ("  ? timeout\n  : 1h\n", [("/timeout", "2h")], ["  timeout: 2h"]),
        (
            "  payload: |+\n    x\n\n",
            [("/late", "reject")],
            ["  payload: |+", "    x", "", "  late: reject"],
        ),
    ],
)
def test_changes_of_several_lines(spec: str, changes: list[tuple[str, Any]], lines: list[str]) -> None:
    """Keys and items come and go with their lines; where no small edit does, the smallest block is rewritten."""
    assert [line.replace('"* * * * *"', "'* * * * *'") for line in changed(SCHEDULE + spec, *changes)][2:] == lines


def test_what_is_the_default_is_not_written() -> None:
    """A body that spells out every default asks only for what differs."""
    current = manifest.parse("a.yaml", SMALLEST.encode()).tasks[0].spec
    requested = manifest.effective({"schedule": {"every": "15m"}, "timeout": "2h"})
    wanted = [(pointer, value) for pointer, _, value in manifest.changes(current, requested)]
    result = applied(SMALLEST, manifest.patch(SMALLEST, "a.yaml", 0, changes=wanted))

    assert result == SMALLEST.replace('{cron: "30 2 * * 1-5"}', "{every: 15m}") + "  timeout: 2h\n"


def test_nothing_to_change_is_an_empty_diff() -> None:
    """A change to what is there already, or to its default, has no patch."""
    assert manifest.patch(SMALLEST, "a.yaml", 0, changes=[("/timeout", "1h"), ("/payload", DELETE)]) == ""


def test_labels_are_changed_beside_the_spec() -> None:
    """Labels stand in the metadata; a body names them beside the fields of the spec."""
    text = task(SCHEDULE)
    result = applied(text, manifest.patch(text, "a.yaml", 0, changes=[("/labels/team", "yes"), ("/late", "reject")]))

    assert result == text.replace("export\n", 'export\n  labels:\n    team: "yes"\n') + "  late: reject\n"


def test_a_document_between_others_is_removed() -> None:
    """Only its lines and one marker go."""
    one, two, three = (SMALLEST.replace("nightly", name) for name in ("one", "two", "three"))
    text = f"# all\n{one}---  # second\n{two}---\n{three}"

    assert applied(text, manifest.patch(text, "a.yaml", 1, delete=True)) == f"# all\n{one}---\n{three}"
    assert applied(text, manifest.patch(text, "a.yaml", 2, delete=True)) == f"# all\n{one}---  # second\n{two}"


def test_the_line_for_editors_survives_its_first_document() -> None:
    """The modeline speaks for the whole file."""
    line = "# yaml-language-server: $schema=task.v1.json\n"
    second = SMALLEST.replace("nightly", "second")
    text = f"{line}{SMALLEST}---\n{second}"

    assert applied(text, manifest.patch(text, "a.yaml", 0, delete=True)) == f"{line}---\n{second}"


def test_the_last_document_takes_the_file_along() -> None:
    """Removing the only document, empty ones aside, deletes the file with its mode."""
    patch = manifest.patch(f"---\n{SMALLEST}---\n# empty\n", "tasks/a.yaml", 0, delete=True, mode="100755")

    assert patch.startswith("diff --git a/tasks/a.yaml b/tasks/a.yaml\ndeleted file mode 100755\n--- a/tasks/a.yaml\n")
    assert "+++ /dev/null\n" in patch


REQUESTED = {"name": "nightly-export", "labels": {"team": "x"}, **manifest.effective({"schedule": {"every": "5m"}})}


@pytest.mark.parametrize("text", ["a: [", "", SMALLEST.replace("nightly", "other"), "---\n- a\n", "%YAML 1.1\n---\n"])
def test_a_text_that_no_longer_holds_the_task_gets_it_written(text: str) -> None:
    """With what was requested at hand there is a patch whatever the file looks like by now."""
    patch = manifest.patch(text, "a.yaml", 0, requested=REQUESTED)
    result = applied(text, patch)

    assert result is not None
    (one,) = [task for task in manifest.parse("a.yaml", result.encode()).tasks if task.name == "nightly-export"]
    assert (one.spec["schedule"]["every"], one.labels) == ("5m", {"team": "x"})
    assert "retries" not in result


def test_a_document_that_moved_is_found_by_its_name() -> None:
    """A file may have changed since the commit that was applied."""
    text = f"{SMALLEST.replace('nightly', 'new')}---\n{SMALLEST}"
    result = applied(text, manifest.patch(text, "a.yaml", 0, changes=[("/timeout", "2h")], requested=REQUESTED))

    assert result == text + "  timeout: 2h\n"
    assert (
        applied(text, manifest.patch(text, "a.yaml", 0, delete=True, requested=REQUESTED))
        == text.split("---\n", maxsplit=1)[0]
    )
    assert manifest.patch("", "a.yaml", 0, delete=True, requested=REQUESTED) == ""


def test_a_document_that_is_not_there() -> None:
    """Removing it is done already; changing it needs to be told what it should hold."""
    assert manifest.patch(SMALLEST, "a.yaml", 3, delete=True) == ""
    with pytest.raises(ValueError, match="document 3"):
        manifest.patch(SMALLEST, "a.yaml", 3, changes=[("/timeout", "2h")])


def test_what_no_manifest_can_hold_is_refused() -> None:
    """A value that the loader would refuse cannot be written."""
    with pytest.raises(errors.InvalidSpec):
        manifest.patch(SMALLEST, "a.yaml", 0, changes=[("/payload", "x\0y")])


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("a b.yaml", "diff --git a/a b.yaml b/a b.yaml\n--- a/a b.yaml\t\n+++ b/a b.yaml\t\n"),
        ("ä.yaml", "diff --git a/ä.yaml b/ä.yaml\n--- a/ä.yaml\n+++ b/ä.yaml\n"),
        ('q".yaml', 'diff --git "a/q\\".yaml" "b/q\\".yaml"\n--- "a/q\\".yaml"\n+++ "b/q\\".yaml"\n'),
    ],
)
def test_paths_are_written_as_git_reads_them(path: str, head: str) -> None:
    """Blanks close with a tab, quotes are escaped."""
    assert unified(path, "a\n", "b\n").startswith(head)


def test_distant_changes_are_separate_hunks() -> None:
    """Three lines of context stand around each change, and lines in between are left out."""
    old = "".join(f"{number}\n" for number in range(40))
    new = old.replace("5\n", "five\n", 1).replace("30\n", "thirty\n")

    assert [line for line in unified("a", old, new).split("\n") if line.startswith("@@")] == [
        "@@ -3,7 +3,7 @@",
        "@@ -28,7 +28,7 @@",
    ]


def test_the_end_of_a_file_without_a_line_feed() -> None:
    """A missing line feed is said, as Git says it."""
    assert unified("a", "x\ny", "x\ny\n").endswith("@@ -1,2 +1,2 @@\n x\n-y\n\\ No newline at end of file\n+y\n")


@pytest.mark.parametrize("broken", ["  catchup: 3\n", "  catchup: [a]\n", "  catchup: {policy: [all]}\n"])
def test_a_broken_text_is_patched_too(broken: str) -> None:
    """Whatever stands in the text, what was asked for is written into it."""
    text = task(broken)
    spec = {"name": "nightly-export", "schedule": {"cron": "0 1 * * *"}}
    wanted = [("/schedule", spec["schedule"]), ("/catchup", {"policy": "all"})]
    result = applied(text, manifest.patch(text, "a.yaml", 0, changes=wanted, requested=spec))

    assert result is not None
    assert manifest.parse("a.yaml", result.encode()).findings == ()


def test_a_policy_without_bound_keeps_the_window_that_was_meant() -> None:
    """Changes are changes of what a task means: `catchup: all` alone would lose the default window of an hour."""
    text = task('  schedule: {cron: "0 1 * * *"}\n')
    result = applied(text, manifest.patch(text, "a.yaml", 0, changes=[("/catchup/policy", "all")]))
    unbounded = applied(
        text, manifest.patch(text, "a.yaml", 0, changes=[("/catchup/policy", "all"), ("/catchup/window", None)])
    )

    for changed, window in ((result, "1h"), (unbounded, None)):
        assert changed is not None
        (one,) = manifest.parse("a.yaml", changed.encode()).tasks
        assert (one.spec["catchup"]["policy"], one.spec["catchup"]["window"]) == ("all", window)
