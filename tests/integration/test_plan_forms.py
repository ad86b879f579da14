"""`cron-observer plan --base`: how it ends, the forms that it is written in, and what it costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cron_observer.cli.plan import plan
from cron_observer.markdown import MOST_BYTES
from cron_observer.review import text
from cron_observer.review.gathering import Gathered
from cron_observer.review.looking import review
from cron_observer.review.results import Asked
from cron_observer.review.sides import Side
from cron_observer.source.checkout import Checkout
from cron_observer.source.trees import Chooser
from support.repositories import Repository, manifest
from support.reviews import NOON, document, run, task


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Return an empty repository whose work tree is the current folder."""
    made = Repository.make(tmp_path)
    monkeypatch.chdir(made.work)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return made


# -- how it ends ---------------------------------------------------------------------------------------------


def test_exit_codes(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 and, if asked, 2 for changes; 1 for errors only; 64 for wrong calls, in a group as well."""
    repository.commit({"a.yaml": manifest("a")})
    assert run("--base", "HEAD", "--detailed-exitcode").exit_code == 0
    repository.write({"b.yaml": manifest("b")})
    assert run("--base", "HEAD").exit_code == 0
    assert run("--base", "HEAD", "--detailed-exitcode").exit_code == 2
    repository.write({"c.yaml": manifest("c", retry="1")})
    assert run("--base", "HEAD", "--detailed-exitcode").exit_code == 1
    for wrong in ([], ["--base", "nope"], ["--base", "--all"], ["--base", "HEAD", "--days", "0"]):
        assert run(*wrong).exit_code == 64
        assert CliRunner().invoke(click.Group(commands=[plan]), ["plan", *wrong]).exit_code == 64
    monkeypatch.chdir(tmp_path)
    assert run("--base", "HEAD").exit_code == 64
    assert "is not inside a Git repository" in run("--base", "HEAD").output


def test_a_held_removal_is_no_change(repository: Repository) -> None:
    """An apply would leave everything as it is."""
    repository.commit({"a.yaml": manifest("a"), "b.yaml": task("b", lifecycle="{prune: confirm}")})
    repository.write({"b.yaml": None})
    assert run("--base", "HEAD", "--detailed-exitcode").exit_code == 0


# -- forms ---------------------------------------------------------------------------------------------------


def test_text_is_for_people(repository: Repository) -> None:
    """A line a name, its values old to new, what its fires do, and totals."""
    repository.commit({"a.yaml": manifest("a")})
    repository.write({"a.yaml": manifest("a", "0 5 * * *"), "b.yaml": manifest("b", "0 0 * * *")})
    lines = run("--base", "HEAD").output.splitlines()
    assert re.fullmatch(r"[0-9a-f]{12} -> the work tree: 2 files changed", lines[0])
    assert lines[1] == "  ~ Task a  a.yaml:4"
    assert lines[2] == '      /spec/schedule/cron: "0 4 * * *" -> "0 5 * * *"'
    assert re.fullmatch(r"      moves \d.* in the next 7 days; first change: .*; next fire: .* -> .*", lines[3])
    assert lines[4] == "  + Task b  b.yaml:4"
    assert lines[6].startswith("Plan: 1 to create, 1 to update; fires: moves ")


def test_markdown_is_one_comment(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins with its mark, stays below 60 KB, and nothing in manifests is read as Markdown or a mention."""
    repository.commit({"a.yaml": manifest("a")})
    several = [[f"task-{number}-{file}" for number in range(50)] for file in range(18)]
    many = {f"t/{number}.yaml": "---\n".join(map(manifest, names)) for number, names in enumerate(several)}
    evil = task("evil", payload='{note: "`@everyone` **x** <img src=x> #1 | a\\nb"}')
    repository.write({"a.yaml": task("a", payload='{note: "`@team` <b>"}'), "evil.yaml": evil, **many})
    page = repository.work.parent / "page.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    text = run("--base", "HEAD", "--format", "markdown").output
    assert text.startswith("<!-- cron-observer plan -->\n")
    assert len(text.encode()) <= MOST_BYTES
    assert re.search(r"… and \d+ more entries", text)
    plain = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text)
    assert "@" not in plain
    assert "<" not in plain.removeprefix("<!-- cron-observer plan -->")
    run("--base", "HEAD", "--format", "github")
    assert page.read_text() == text


def test_every_form_goes_into_files_too(repository: Repository) -> None:
    """The review and its findings, several at once; the terminal gets text."""
    repository.commit({"a.yaml": manifest("a")})
    repository.write({"a.yaml": manifest("a", retry="1")})
    result = run("--base", "HEAD", "--format", "json", "-o", "../plan.json", "--sarif", "../s", "--junit", "../j")
    assert "error[CO1301]" in result.output
    assert "Plan: 1 kept" in result.output
    above = repository.work.parent
    assert json.loads((above / "plan.json").read_text())["counts"] == {"keep": 1}
    assert json.loads((above / "s").read_text())["runs"][0]["results"][0]["ruleId"] == "CO1301"
    assert "<testsuites" in (above / "j").read_text()
    for form in ("text", "markdown", "sarif", "junit", "gitlab"):
        run("--base", "HEAD", "--format", form, "-o", f"../{form}")
        assert "CO1301" in (above / form).read_text()


def test_nothing_writes_to_the_terminal(repository: Repository) -> None:
    """Control characters of names and values are escaped; a value that looks like a secret is not shown."""
    repository.commit({"a.yaml": task("a", payload='{note: "x"}')})
    repository.write({"a.yaml": task("a", payload='{note: "\\t\\u202e"}'), "b\x1b[31m.yaml": manifest("b")})
    for form in ("text", "json", "markdown", "github"):
        output = run("--base", "HEAD", "--format", form).output
        assert "\x1b" not in output
        assert "\u202e" not in output


def test_nothing_is_a_command_of_the_runner(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a runner's log no value of a manifest is taken for a command, wherever it stands in a line."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    repository.commit({"a.yaml": manifest("a")})
    repository.write({"a.yaml": task("a", payload='{note: "##[add-mask]a\\n::stop-commands::x"}')})
    for form in ("text", "github"):
        output = run("--base", "HEAD", "--format", form).output
        assert "##\u200b[add-mask]" in output
        assert "##[" not in output
        assert not re.search(r"^\s*::(?!warning )", output, re.MULTILINE)
    assert "##[add-mask]" in run("--base", "HEAD", "--format", "json").output


def test_the_help_imports_nothing_heavy() -> None:
    """The command can be listed and its help shown without the libraries that it runs with."""
    script = (
        "import sys\nfrom cron_observer.cli.plan import plan\n"
        "plan(['--help'], standalone_mode=False)\n"
        "heavy = {'yaml', 'jsonschema', 'croniter', 'sqlalchemy', 'git'} & sys.modules.keys()\n"
        "sys.exit(repr(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# -- cost ----------------------------------------------------------------------------------------------------


def parsed(path: Path) -> tuple[int, bool]:
    """Return how many manifests of the work tree a plan parses, and whether it takes them for all."""
    choose = Chooser((), ())
    with Checkout(path) as checkout:
        base = checkout.at(checkout.commit("HEAD"), choose)
        found = Gathered(Side(base), Side(checkout.here(choose)), None)
    return len(found.head.files), found.whole


def test_what_does_not_change_costs_little(repository: Repository) -> None:
    """Of many manifests only what changed is parsed, and what names it; a removal is a question to all of them."""
    files = {f"t{number % 9}/task-{number:03}.yaml": manifest(f"task-{number:03}") for number in range(200)}
    group, member = document("TaskGroup", "nightly", "{}"), task("member", group="nightly")
    repository.commit({**files, "group.yaml": group, "member.yaml": member})
    repository.write({"t1/task-001.yaml": manifest("task-001", "5 4 * * *")})
    assert parsed(repository.work) == (2, False)  # the group is always read
    repository.write({"group.yaml": document("TaskGroup", "nightly", "{suspend: true}")})
    assert parsed(repository.work) == (3, False)
    repository.write({"t2/task-002.yaml": None})
    assert parsed(repository.work) == (201, True)


def test_more_fires_than_are_compared_are_said(repository: Repository) -> None:
    """Where tasks fire too often to compare all of them, the plan says of how many it knows nothing."""
    names = ("a", "b", "c")
    repository.commit({f"{name}.yaml": manifest(name, "0 4 * * *") for name in names})
    repository.write({f"{name}.yaml": manifest(name, "0 5 * * *") for name in names})
    with Checkout(repository.work) as checkout:
        choose = Chooser((), ())
        base = checkout.at(checkout.commit("HEAD"), choose)
        found = review(base, checkout.here(choose), Asked(now=NOON, most_fires=20))
    assert [one.fires is not None for one in found.changes] == [True, True, False]
    assert found.uncompared == 1
    assert "fires of 1 more tasks are not compared" in text.write(found)
