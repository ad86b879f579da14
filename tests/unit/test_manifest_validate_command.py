"""`cron-observer validate`: what it prints, how it ends, and that it starts fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from cron_observer.cli.validate import validate
from support.manifests import SMALLEST, task

SCHEDULE = "  schedule: {every: 1m}\n"


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(validate, [str(one) for one in arguments], input=stdin)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_finding_is_shown_with_its_line(tree: Path) -> None:
    """Code, message, place, the line itself with the place underlined, and the hint."""
    (tree / "a.yaml").write_text(task("  schedule: {every: 1m, timezone: Europe/Berln}\n"))
    result = run("a.yaml")

    assert result.exit_code == 1
    assert result.output.split("\n") == [
        "error[CO3011]: spec.schedule.timezone: 'Europe/Berln' is not a known time zone.",
        "  --> a.yaml:6:35",
        "  |",
        "6 |   schedule: {every: 1m, timezone: Europe/Berln}",
        "  |                                   ^^^^^^^^^^^^",
        "  = hint: did you mean Europe/Berlin?",
        "",
        "checked 1 document in 1 file: 1 error",
        "",
    ]


def test_the_current_folder_is_the_default(tree: Path) -> None:
    """Without paths everything below the current folder is checked."""
    (tree / "x").mkdir()
    (tree / "x" / "a.yaml").write_text(SMALLEST)
    result = run()

    assert (result.exit_code, result.output) == (0, "checked 1 document in 1 file: no findings\n")


def test_json_has_the_fields_of_the_wire(tree: Path) -> None:
    """`--format json` prints findings, documents and files."""
    (tree / "a.yaml").write_text(task(SCHEDULE + "  retry: 1\n"))
    result = run("--format", "json")

    assert result.exit_code == 1
    assert json.loads(result.output) == {
        "findings": [
            {
                "severity": "error",
                "code": "CO1301",
                "path": "a.yaml",
                "line": 7,
                "column": 3,
                "end_line": 7,
                "end_column": 8,
                "pointer": "/spec/retry",
                "kind": "Task",
                "name": "nightly-export",
                "message": 'spec: unknown field "retry"',
                "hint": 'did you mean "retries"?',
                "url": "https://cron-observer.dev/docs/reference/findings/co1301",
            }
        ],
        "documents": 1,
        "files": 1,
    }


def test_warnings_fail_only_a_strict_check(tree: Path) -> None:
    """A warning is printed and ends with 0, unless `--strict` is given."""
    (tree / "a.yaml").write_text("# nothing\n")

    assert run().exit_code == 0
    assert "warning[CO1009]" in run().output
    assert run("--strict").exit_code == 1


def test_tasks_are_judged_in_their_environments(tree: Path) -> None:
    """A patch that breaks a task is an error there, and without a choice; in another environment it is none."""
    (tree / "a.yaml").write_text(task(SCHEDULE + "  environments: {production: {timeout: soon}}\n"))
    patch = "  schedule: {cron: null}\n"
    (tree / "b.yaml").write_text(
        task('  schedule: {cron: "0 4 * * *"}\n  environments:\n    staging:\n    ' + patch, "b")
    )

    assert run("b.yaml", "--environment", "production").exit_code == 0
    assert run("b.yaml", "--environment", "staging").exit_code == 1
    assert run("b.yaml").exit_code == 1
    assert "CO1308" in run("a.yaml").output


@pytest.mark.parametrize("arguments", [["nope"], ["--nope"], ["--format", "xml"]])
def test_a_wrong_call_ends_with_64(tree: Path, arguments: list[str]) -> None:
    """Paths that are not there and unknown options are errors of usage, in a group as well."""
    group = click.Group(commands=[validate])

    assert run(*arguments).exit_code == 64
    assert CliRunner().invoke(group, ["validate", *arguments]).exit_code == 64


def test_standard_input_is_a_file_too() -> None:
    """A dash reads one manifest from standard input."""
    result = run("-", stdin=task("  timeout: 1\n").encode())

    assert result.exit_code == 1
    assert "<stdin>:6:12" in result.output


def test_paths_are_shown_as_they_were_given(tree: Path) -> None:
    """A folder that is named stands before the files below it."""
    (tree / "tasks" / "b").mkdir(parents=True)
    (tree / "tasks" / "b" / "a.yaml").write_text("a: 1\n")

    assert "--> tasks/b/a.yaml:1:1" in run("tasks").output
    assert f"--> {tree}/tasks/b/a.yaml:1:1" in run(tree).output


def test_files_cannot_write_to_the_terminal(tree: Path) -> None:
    """Control and direction characters of texts, names and paths are shown escaped."""
    (tree / "a.yaml").write_bytes(b'metadata: {name: "\\e[31m"}\n\x1b[2J: 1\n')
    (tree / "b.yaml").write_text('"\u202eevil": 1\nkind: "\\e]0;x"\napiVersion: cron-observer/v1\n')
    (tree / "c\x1b[31m.yaml").write_text(SMALLEST)
    output = run().output

    assert "\x1b" not in output
    assert "\u202e" not in output
    assert "c\\x1b[31m.yaml" in output


def test_secrets_are_not_printed(tree: Path) -> None:
    """A line that holds a secret is shown for no finding at all."""
    (tree / "a.yaml").write_text(task(SCHEDULE + "  payload: {password: hunter2, x: [1e999]}\n"))
    result = run()

    assert "CO1313" in result.output
    assert "CO1116" in result.output
    assert "hunter2" not in result.output
    assert "hunter2" not in run("--format", "json").output


def test_a_file_that_is_named_in_several_ways_is_one(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often and from wherever a file is named, it is checked once and is no duplicate of itself."""
    (tree / "x").mkdir()
    (tree / "x" / "a.yaml").write_text(task(SCHEDULE))
    monkeypatch.chdir(tree / "x")
    result = run("a.yaml", "./a.yaml", "../x", "../x/a.yaml", str(tree / "x" / "a.yaml"), ".")

    assert result.output == "checked 1 document in 1 file: no findings\n"


def test_errors_are_told_before_warnings(tree: Path) -> None:
    """Of very many findings warnings are left out first, wherever they are."""
    for number in range(1002):
        (tree / f"a{number}.yaml").write_text("# nothing\n")
    (tree / "z.yaml").write_text(task(SCHEDULE + "  retry: 1\n"))
    told = json.loads(run("--format", "json").output)["findings"]

    assert [one["severity"] for one in told].count("error") == 1
    assert (told[-2]["code"], told[-2]["path"]) == ("CO1301", "z.yaml")
    assert (told[-1]["code"], told[-1]["severity"]) == ("CO1012", "warning")
    assert len(told) == 1001


def test_carets_stand_under_wide_characters(tree: Path) -> None:
    """Characters of two columns move the carets by two."""
    (tree / "a.yaml").write_text(task(SCHEDULE + "  payload: {日本: 1e999}\n"))
    lines = run().output.split("\n")

    assert lines[3] == "7 |   payload: {日本: 1e999}"
    assert lines[4] == "  |" + " " * 19 + "^^^^^"


def test_long_lines_are_cut_around_the_place(tree: Path) -> None:
    """Of a line of thousands of characters the part around the finding is shown."""
    (tree / "a.yaml").write_text(task(SCHEDULE + f"  payload: [{'x, ' * 2000}1e999, {'y, ' * 2000}z]\n"))
    lines = run().output.split("\n")

    assert len(lines[3]) < 200
    start = lines[4].index("^")
    assert lines[3][start : start + 5] == "1e999"


def test_an_unreadable_folder_is_said(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read is a finding, not a silent gap."""

    def closed(path: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    (tree / "x").mkdir()
    (tree / "x" / "a.yaml").write_text(SMALLEST)
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: closed(path) if str(path).endswith("x") else real(path))
    result = run()

    assert result.exit_code == 1
    assert "error[CO1010]: this cannot be read: Permission denied\n  --> x\n" in result.output


def test_help_imports_nothing_heavy() -> None:
    """The command can be listed and its help shown without the libraries that it runs with."""
    script = (
        "import sys\nfrom cron_observer.cli.validate import validate\n"
        "validate(['--help'], standalone_mode=False)\n"
        "heavy = {'yaml', 'jsonschema', 'croniter', 'sqlalchemy', 'litestar'} & sys.modules.keys()\n"
        "sys.exit(repr(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
