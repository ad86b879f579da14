"""`cron-observer plan --base` in real repositories: what it tells, what it compares, and that it changes nothing."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from cron_observer.errors import SourceError
from cron_observer.review.as_json import FORMAT_VERSION
from support.repositories import Repository, git, manifest
from support.reviews import NOON, document, look, run, task, told


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Return an empty repository whose work tree is the current folder."""
    made = Repository.make(tmp_path)
    monkeypatch.chdir(made.work)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return made


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


def test_names_may_be_exchanged(repository: Repository) -> None:
    """Two tasks that take each other's names keep what fires; nothing of either goes."""
    repository.commit({"a.yaml": manifest("a", "1 4 * * *"), "b.yaml": manifest("b", "2 4 * * *")})
    repository.write(
        {
            "a.yaml": manifest("b", "1 4 * * *").replace("name: b\n", "name: b\n  renamedFrom: a\n"),
            "b.yaml": manifest("a", "3 4 * * *").replace("name: a\n", "name: a\n  renamedFrom: b\n"),
        }
    )
    found = look()
    assert told(found) == {"Task a": "rename", "Task b": "rename"}
    assert found["fires"] == {"removed": 0, "added": 0, "moved": 7}


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
    soon = f"{NOON + timedelta(days=2):%Y%m%d}"
    repository.write(
        {
            "shared/days.yaml": document("Calendar", "days", '{entries: [{weekdays: ["mon-wed"]}]}'),
            "shared/off.ics": event.replace("20200101", soon),
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


def test_a_rename_moves_no_fire(repository: Repository) -> None:
    """`H` and jitter stay what the first name has drawn; a new name without a rename draws anew."""
    drawn = "{cron: 'H H * * *', jitter: 30m}"
    repository.commit({"a.yaml": task("first", schedule=drawn)})
    renamed = task("second", schedule=drawn).replace("{name: second}", "{name: second, renamedFrom: first}")
    repository.write({"a.yaml": renamed})
    (one,) = look()["actions"]
    assert (one["action"], one["renamed_from"], one["fires"]) == ("rename", "first", None)
    repository.commit()
    repository.write({"a.yaml": renamed.replace("30m", "20m")})
    (one,) = look()["actions"]
    assert one["action"] == "update"
    repository.write({"a.yaml": task("third", schedule=drawn)})
    assert told(look()) == {"Task second": "remove", "Task third": "create"}


def test_projects_rule_over_new_tasks(repository: Repository) -> None:
    """Labels that a Project demands and the number of tasks that it allows are judged with the whole source."""
    rules = "{labels: {required: [team]}, limits: {tasks: 2}}"
    named = [manifest(name, labels="team: ops") for name in ("a", "b", "c")]
    repository.commit({"project.yaml": document("Project", "shop", rules), "a.yaml": named[0], "b.yaml": named[1]})
    repository.write({"c.yaml": named[2], "d.yaml": manifest("d")})
    found = look()
    assert {one["path"]: one["code"] for one in found["findings"]} == {"c.yaml": "CO1508", "d.yaml": "CO1321"}
    assert found["actions"] == []


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


def test_partial_clones_say_what_they_lack(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fetched behind the caller's back: what is missing is said, and how to have it."""
    repository.push({"a.yaml": manifest("a")})
    repository.push({"a.yaml": manifest("a", "5 4 * * *")})
    git(repository.bare, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", f"file://{repository.bare}", "partial")
    monkeypatch.chdir(tmp_path / "partial")
    with pytest.raises(SourceError, match="the repository cannot be read") as caught:
        run("--base", "HEAD~1")
    assert "--filter" in (caught.value.hint or "")
