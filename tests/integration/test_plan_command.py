"""`cron-observer plan --base` in real repositories: what it tells, what it costs, and that it changes nothing."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from cron_observer.cli.plan import plan
from cron_observer.markdown import MOST_BYTES
from cron_observer.review.as_json import FORMAT_VERSION
from support.repositories import Repository, git, manifest

HEAD = "apiVersion: cron-observer/v1\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Return an empty repository whose work tree is the current folder."""
    made = Repository.make(tmp_path)
    monkeypatch.chdir(made.work)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return made


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(plan, list(arguments), catch_exceptions=False)


def look(*arguments: str, base: str = "HEAD") -> dict[str, Any]:
    """Return what the command prints as JSON."""
    result = run("--base", base, "--format", "json", *arguments)
    assert result.exit_code in (0, 1), result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def told(found: dict[str, Any]) -> dict[str, str]:
    """Return what is done about each name."""
    return {f"{one['kind']} {one['name']}": one["action"] for one in found["actions"]}


def document(kind: str, name: str, spec: str) -> str:
    """Write a manifest of another kind; `spec` is flow style."""
    return f"{HEAD}kind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def task(name: str, **spec: str) -> str:
    """Write a task on one calendar and group, or whatever `spec` says of its schedule and itself."""
    schedule = spec.pop("schedule", '{cron: "0 4 * * *"}')
    extra = "".join(f"  {key}: {value}\n" for key, value in spec.items())
    return f"{HEAD}kind: Task\nmetadata: {{name: {name}}}\nspec:\n{extra}  schedule: {schedule}\n"


# -- what it tells -------------------------------------------------------------------------------------------


def test_what_becomes_of_each_name(repository: Repository) -> None:
    """Created, updated, renamed, moved, removed and kept: each with its place, and nothing of what stays."""
    names = ("updated", "old-name", "mover", "goes", "breaks", "stays")
    repository.commit({f"tasks/{name}.yaml": manifest(name) for name in names})
    repository.write(
        {
            "tasks/updated.yaml": manifest("updated", "15 4 * * *", timeout="2h", labels="team: ops"),
            "tasks/old-name.yaml": manifest("new-name").replace("new-name\n", "new-name\n  renamedFrom: old-name\n"),
            "tasks/mover.yaml": None,
            "tasks/deep/mover.yaml": manifest("mover"),
            "tasks/goes.yaml": None,
            "tasks/breaks.yaml": manifest("breaks", retry="1"),
            "tasks/comes.yaml": "# new\n" + manifest("comes"),
            "tasks/stays.yaml": "# a comment\n" + manifest("stays"),
        }
    )
    found = look()
    assert told(found) == {
        "Task breaks": "keep",
        "Task comes": "create",
        "Task goes": "remove",
        "Task mover": "move",
        "Task new-name": "rename",
        "Task updated": "update",
    }
    by_name = {one["name"]: one for one in found["actions"]}
    assert by_name["updated"]["changed"] == [
        {"pointer": "/spec/schedule/cron", "before": "0 4 * * *", "after": "15 4 * * *"},
        {"pointer": "/spec/timeout", "before": "1h", "after": "2h"},
        {"pointer": "/metadata/labels/team", "after": "ops"},
    ]
    assert by_name["new-name"]["renamed_from"] == "old-name"
    assert by_name["new-name"]["fires"] is None
    assert (by_name["mover"]["moved_from"], by_name["mover"]["path"]) == ("tasks/mover.yaml", "tasks/deep/mover.yaml")
    assert (by_name["comes"]["path"], by_name["comes"]["line"]) == ("tasks/comes.yaml", 5)
    assert by_name["breaks"]["errors"] == 1
    assert found["counts"] == {"create": 1, "rename": 1, "update": 1, "move": 1, "keep": 1, "remove": 1}
    assert found["fires"] == {"removed": 7, "added": 7, "moved": 7}
    assert [(one["code"], one["path"], one["line"]) for one in found["findings"]] == [
        ("CO1301", "tasks/breaks.yaml", 6)
    ]


def test_the_json_is_what_the_reference_says(repository: Repository) -> None:
    """The members of the object, of an action and of its fires are those that are documented."""
    repository.commit({"tasks/a.yaml": manifest("a")})
    repository.write({"tasks/a.yaml": manifest("a", "5 4 * * *")})
    found = look("--days", "3", "--environment", "production")
    page = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text()
    rows = re.findall(r"^\| ((?:`[a-z_]+` ?)+)\| ", page.split("format_version` stays 1", 1)[1], re.MULTILINE)
    assert [name for row in rows for name in re.findall("`([a-z_]+)`", row)][: len(found)] == list(found)
    (action,) = found["actions"]
    assert json.dumps([list(action)])[2:-2] in page
    assert json.dumps([list(action["fires"])])[2:-2] in page
    assert found["format_version"] == FORMAT_VERSION
    assert found["plan_hash"] is None
    assert (found["days"], found["environment"], found["files"]) == (3, "production", 1)
    assert found["from"]["commit"] == repository.head()
    assert found["to"]["commit"] is None
    assert action["fires"]["moved"] == 3


def test_calendars_and_groups_move_their_tasks(repository: Repository) -> None:
    """A task whose own file stays is told with what it follows: a calendar, one it is based on, a file, windows."""
    days = '{entries: [{weekdays: ["mon-sun"]}]}'
    on = '{cron: "0 4 * * *", calendars: {include: [%s]}}'
    event = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nUID:1\nDTSTART;VALUE=DATE:20200101\nEND:VEVENT\nEND:VCALENDAR\n"
    repository.commit(
        {
            "shared/days.yaml": document("Calendar", "days", days),
            "shared/more.yaml": document("Calendar", "more", "{base: [days]}"),
            "shared/file.yaml": document("Calendar", "file", "{entries: [{ics: off.ics}]}"),
            "shared/off.ics": event,
            "shared/group.yaml": document("TaskGroup", "nightly", "{}"),
            "tasks/direct.yaml": task("direct", schedule=on % "days"),
            "tasks/based.yaml": task("based", schedule=on % "more"),
            "tasks/filed.yaml": task("filed", schedule='{cron: "0 4 * * *", calendars: {exclude: [file]}}'),
            "tasks/grouped.yaml": task("grouped", group="nightly"),
            "tasks/plain.yaml": task("plain"),
        }
    )
    tomorrow = time.strftime("%Y%m%d", time.gmtime(time.time() + 2 * 86_400))
    repository.write(
        {
            "shared/days.yaml": document("Calendar", "days", '{entries: [{weekdays: ["mon-wed"]}]}'),
            "shared/off.ics": event.replace("20200101", tomorrow),
            "shared/group.yaml": document("TaskGroup", "nightly", '{windows: [{from: "20:00", to: "22:00"}]}'),
        }
    )
    found = look()
    assert told(found) == {
        "Calendar days": "update",
        "Calendar file": "update",
        "Calendar more": "update",
        "TaskGroup nightly": "update",
        "Task direct": "noop",
        "Task based": "noop",
        "Task filed": "noop",
        "Task grouped": "noop",
    }
    calendars = {one["name"]: one["because"] for one in found["actions"] if one["kind"] == "Calendar"}
    assert calendars == {"days": [], "file": ["shared/off.ics"], "more": ["Calendar days"]}
    tasks = {one["name"]: (one["because"], one["fires"]["removed"]) for one in found["actions"] if one["fires"]}
    assert tasks == {
        "direct": (["Calendar days"], 4),
        "based": (["Calendar more"], 4),
        "filed": (["Calendar file"], 1),
        "grouped": (["TaskGroup nightly"], 7),
    }


def test_defaults_reach_the_tasks_below_them(repository: Repository) -> None:
    """A changed Defaults document is told once, and every task that it changes with the values and their reason."""
    repository.commit(
        {
            "tasks/_defaults.yaml": document("Defaults", "shop", "{spec: {timeout: 10m}}"),
            "tasks/a.yaml": task("a"),
            "tasks/deep/b.yaml": task("b"),
            "tasks/own.yaml": task("own", timeout="5m"),
            "elsewhere/c.yaml": task("c"),
        }
    )
    text = document("Defaults", "shop", "{spec: {timeout: 20m, schedule: {timezone: Asia/Tokyo}}}")
    repository.write({"tasks/_defaults.yaml": text})
    found = look()
    assert told(found) == {
        "Defaults shop": "update",
        "Task a": "update",
        "Task b": "update",
        "Task own": "update",
    }
    by_name = {one["name"]: one for one in found["actions"]}
    assert by_name["b"]["because"] == ["Defaults shop"]
    assert by_name["b"]["changed"] == [
        {"pointer": "/spec/schedule/timezone", "before": "UTC", "after": "Asia/Tokyo"},
        {"pointer": "/spec/timeout", "before": "10m", "after": "20m"},
    ]
    assert [one["pointer"] for one in by_name["own"]["changed"]] == ["/spec/schedule/timezone"]
    assert by_name["a"]["fires"]["timezone"] == "Asia/Tokyo"


def test_environments_are_judged_as_their_sources_are(repository: Repository) -> None:
    """A patch of an environment changes a task for sources of that environment only."""
    text = manifest("a") + "  environments: {production: {timeout: 2h}}\n"
    repository.commit({"a.yaml": text})
    repository.write({"a.yaml": text.replace("2h", "3h")})
    assert told(look()) == {}
    assert told(look("--environment", "staging")) == {}
    (one,) = look("--environment", "production")["actions"]
    assert one["changed"] == [{"pointer": "/spec/timeout", "before": "2h", "after": "3h"}]


def test_guards_hold_removals(repository: Repository) -> None:
    """What asks first, what is used, and too much at once stay in force; the finding names no hash of nobody's."""
    names = [f"t{number:02}" for number in range(10)]
    files = {f"tasks/{name}.yaml": task(name) for name in names}
    repository.commit(
        files
        | {
            "asks.yaml": task("asks", lifecycle="{prune: confirm}"),
            "group.yaml": document("TaskGroup", "used", "{}"),
            "member.yaml": task("member", group="used"),
        }
    )
    repository.write({"asks.yaml": None, "group.yaml": None})
    found = look()
    assert {one["name"]: one["held"] for one in found["actions"]} == {"asks": "confirm", "used": "in_use"}
    assert {one["code"]: one["severity"] for one in found["findings"]} == {"CO1506": "error", "CO1507": "warning"}
    assert not re.search("[0-9a-f]{64}", json.dumps(found["findings"]))
    repository.commit()
    repository.write(dict.fromkeys(list(files)[:6]))
    assert {one["held"] for one in look()["actions"]} == {"too_many"}
    assert {one["held"] for one in look("--max-deletes", "6")["actions"]} == {None}
    repository.write({"odd.yaml": "kind: [\n"})
    assert {one["held"] for one in look()["actions"]} == {"unparseable"}


def test_what_becomes_wrong_elsewhere_is_told(repository: Repository) -> None:
    """A name that a new file takes is an error there; old errors of files that stay are not told again."""
    repository.commit({"a.yaml": manifest("a"), "broken.yaml": manifest("broken", retry="1")})
    repository.write({"b.yaml": manifest("a"), "c.yaml": task("c", group="nobody")})
    found = look()
    assert [(one["path"], one["code"], one["line"], one["column"]) for one in found["findings"]] == [
        ("b.yaml", "CO1207", 4, 9),
        ("c.yaml", "CO1413", 5, 10),
    ]
    assert found["actions"] == []


def test_atomic_sources_refuse_as_a_whole(repository: Repository) -> None:
    """With the policy atomic one error leaves nothing to be done."""
    repository.commit({"a.yaml": manifest("a")})
    repository.write({"b.yaml": manifest("b"), "c.yaml": manifest("c", retry="1")})
    assert told(look()) == {"Task b": "create"}
    found = look("--failure-policy", "atomic")
    assert (found["refused"], found["actions"]) == (True, [])
    assert "nothing would be applied" in run("--base", "HEAD", "--failure-policy", "atomic").output


def test_fires_deserve_warnings(repository: Repository) -> None:
    """Often, crowded, and at clock changes: at the task's schedule, in every format of findings."""
    repository.commit({"often.yaml": manifest("often", "0 * * * *")})
    crowd = {f"crowd/{number:02}.yaml": manifest(f"crowd-{number:02}") for number in range(20)}
    night = task("night", schedule='{cron: "30 2 * * *", timezone: Europe/Berlin}')
    repository.write({"often.yaml": manifest("often", "* * * * *"), "night.yaml": night, **crowd})
    found = look()
    assert [(one["code"], one["path"], one["line"]) for one in found["findings"]] == [
        ("CO1602", "crowd/00.yaml", 6),
        ("CO1603", "night.yaml", 5),
        ("CO1601", "often.yaml", 6),
    ]
    assert run("--base", "HEAD").exit_code == 0
    assert run("--base", "HEAD", "--strict").exit_code == 1
    assert "::warning file=night.yaml,line=5," in run("--base", "HEAD", "--format", "github").output


# -- what it compares ----------------------------------------------------------------------------------------


def test_a_branch_is_compared_with_where_it_parted(repository: Repository) -> None:
    """What happened on the base since is not undone by the plan; directly compared it is."""
    repository.commit({"a.yaml": manifest("a")})
    repository.git("switch", "--quiet", "--create", "topic")
    repository.commit({"b.yaml": manifest("b")})
    repository.git("switch", "--quiet", "main")
    repository.commit({"c.yaml": manifest("c")})
    repository.git("switch", "--quiet", "topic")
    assert told(look(base="main")) == {"Task b": "create"}
    assert told(look("--direct", base="main")) == {"Task b": "create", "Task c": "remove"}
    assert told(look("--head", "main", base="topic")) == {"Task c": "create"}
    assert look("--head", "main", base="topic")["to"]["commit"] == git(repository.work, "rev-parse", "main")


def test_the_work_tree_counts_as_it_is(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Untracked files count, ignored ones do not, and staged ones count with the content on the disk."""
    repository.commit({".gitignore": "cache/\n", "tasks/a.yaml": manifest("a")})
    repository.write({"cache/x.yaml": manifest("x"), "tasks/new.yaml": manifest("new"), "notes.yaml": "a: 1\n"})
    repository.git("add", "tasks/new.yaml")
    repository.write({"tasks/new.yaml": manifest("newer")})
    assert told(look("--path", "tasks")) == {"Task newer": "create"}
    monkeypatch.chdir(repository.work / "tasks")
    assert told(look("--path", ".")) == {"Task newer": "create"}
    assert told(look("--path", ".", "--ignore", "new.yaml")) == {}


def test_links_are_not_followed(repository: Repository, tmp_path: Path) -> None:
    """A symbolic link is a finding, whatever it leads to."""
    (tmp_path / "outside.yaml").write_text(manifest("outside"))
    repository.commit({"a.yaml": manifest("a")})
    (repository.work / "b.yaml").symlink_to(tmp_path / "outside.yaml")
    found = look()
    assert [(one["path"], one["code"]) for one in found["findings"]] == [("b.yaml", "CO1004")]
    assert found["actions"] == []


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Return content and time of every file of a repository."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_nothing_is_changed_and_nothing_is_run(repository: Repository) -> None:
    """Neither work tree nor index nor objects change; filters and monitors of the repository are not run."""
    marker = repository.work.parent / "ran"
    repository.commit({"a.yaml": manifest("a"), ".gitattributes": "*.yaml filter=evil\n"})
    for key in ("core.fsmonitor", "filter.evil.clean", "filter.evil.smudge"):
        repository.git("config", key, f"touch {marker}; cat")
    (repository.work / "a.yaml").write_text(manifest("a", "5 4 * * *"))
    before = fingerprint(repository.work)
    assert told(look()) == {"Task a": "update"}
    assert run("--base", "HEAD", "--format", "markdown").exit_code == 0
    assert fingerprint(repository.work) == before
    assert not marker.exists()


def test_other_object_formats_and_linked_work_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repositories of SHA-256 and work trees beside them are read like any other."""
    made = Repository.make(tmp_path, "--object-format=sha256")
    made.commit({"a.yaml": manifest("a"), "b.yaml": manifest("b")})
    made.git("worktree", "add", "--quiet", str(tmp_path / "linked"))
    (tmp_path / "linked" / "a.yaml").write_text(manifest("a", "5 4 * * *"))
    monkeypatch.chdir(tmp_path / "linked")
    found = look()
    assert told(found) == {"Task a": "update"}
    assert found["files"] == 1
    assert len(found["from"]["commit"]) == 64


def test_shallow_clones_are_compared_with_the_base_itself(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the history between two commits is not there, their trees are."""
    repository.push({"a.yaml": manifest("a")})
    base = repository.head()
    repository.push({"a.yaml": manifest("a", "5 4 * * *")})
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository.bare}", "shallow")
    monkeypatch.chdir(tmp_path / "shallow")
    assert run("--base", base).exit_code == 64
    git(tmp_path / "shallow", "fetch", "--quiet", "--depth=1", "origin", base)
    assert told(look(base=base)) == {"Task a": "update"}


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
    many = {f"t/{number:04}.yaml": manifest(f"task-{number:04}") for number in range(900)}
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


# -- cost ----------------------------------------------------------------------------------------------------


def test_what_does_not_change_costs_little(repository: Repository) -> None:
    """Of 3,000 manifests one changes: only that one is parsed, so that it takes a small part of parsing them all."""
    from cron_observer.manifest import parse

    files = {f"t{number % 50}/task-{number:05}.yaml": manifest(f"task-{number:05}") for number in range(3000)}
    repository.commit(files)
    repository.write({"t1/task-00001.yaml": manifest("task-00001", "5 4 * * *")})
    began = time.perf_counter()
    for path, text in files.items():
        parse(path, text.encode())
    parsing = time.perf_counter() - began
    began = time.perf_counter()
    assert told(look()) == {"Task task-00001": "update"}
    assert time.perf_counter() - began < max(parsing, 2.0)
