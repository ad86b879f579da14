"""The action, the hook and the example workflows: they are what forges read, and what they run does what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from cron_observer.cli.plan import plan
from cron_observer.cli.validate import validate
from support.checkouts import environment
from support.checkouts import make_checkout as make_clone
from support.documents import ROOT, blocks
from support.repositories import Repository, git, manifest

EXAMPLES = ROOT / "docs/how-to/ci"
SCRIPT = ROOT / "scripts/action"


def read(path: Path) -> Any:
    """Return what a YAML file holds; the key `on` of workflows is read as true by this reader."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


ACTION = read(ROOT / "action.yml")
NAMES = sorted(path.name for path in EXAMPLES.iterdir())


# -- the action ----------------------------------------------------------------------------------------------


def test_the_action_is_one() -> None:
    """It has what forges demand of composite actions, and every step says its shell."""
    assert {"name", "description", "runs"} <= ACTION.keys()
    assert ACTION["runs"]["using"] == "composite"
    for step in ACTION["runs"]["steps"]:
        assert step["shell"]
        assert step["name"]


def test_every_input_is_used_and_none_is_missing() -> None:
    """Each input reaches a step as a variable that the script reads, and is never text of a command."""
    text = (ROOT / "action.yml").read_text()
    assert set(re.findall(r"inputs\.([a-z]+)", text)) == set(ACTION["inputs"])
    script = SCRIPT.read_text()
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        for name in step.get("env", {}):
            assert re.search(rf"\${{?{name}\b", script), name
    assert set(re.findall(r"\bCHECK_[A-Z]+", script)) == {
        name for step in ACTION["runs"]["steps"] for name in step.get("env", {})
    }
    for value in ACTION["inputs"].values():
        assert value["description"]
        assert isinstance(value["default"], str)


def test_every_output_is_made() -> None:
    """Each output comes from a step that exists, and the script writes it."""
    ids = {step.get("id") for step in ACTION["runs"]["steps"]}
    for name, output in ACTION["outputs"].items():
        match = re.fullmatch(r"\$\{\{ steps\.(\w+)\.outputs\.(\w+) \}\}", output["value"])
        assert match is not None
        assert match[1] in ids
        assert match[2] == name
        assert f"printf '{name}=%s\\n'" in SCRIPT.read_text()


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return what a runner's step sees; the product is installed already, where the script installs it."""
    made = make_clone(tmp_path / "clone")
    (made / ".venv").rename(tmp_path / "cron-observer")
    names = ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")
    return environment() | {"RUNNER_TEMP": str(tmp_path)} | {name: str(tmp_path / name) for name in names}


def step(name: str, seen: dict[str, str], folder: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """Run a step of the action in a repository, with the inputs that are given and the defaults of the others."""
    (one,) = (step for step in ACTION["runs"]["steps"] if step["run"].endswith(f" {name}"))
    inputs = {key: value["default"] for key, value in ACTION["inputs"].items()} | given
    variables = {
        key: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda match: inputs[match[1]], value)
        for key, value in one.get("env", {}).items()
    }
    return subprocess.run(
        ["sh", "-e", "-c", one["run"]],
        cwd=folder,
        env=seen | variables | {"GITHUB_ACTION_PATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_the_steps_of_the_action_do_what_they_say(tmp_path: Path, runner: dict[str, str]) -> None:
    """Annotations, SARIF, the page of the job and both outputs, for paths with several words."""
    repository = Repository.make(tmp_path)
    repository.commit({"tasks/a.yaml": manifest("a"), "more/b.yaml": manifest("b"), "notes.yaml": "a: 1\n"})
    base = repository.head()
    repository.write({"tasks/a.yaml": manifest("a", "5 4 * * *")})
    paths = {"paths": "tasks more", "environment": "production", "strict": "true"}
    done = step("validate", runner, repository.work, sarif="found.sarif", **paths)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((repository.work / "found.sarif").read_text())["version"] == "2.1.0"
    done = step("plan", runner, repository.work, base=base, **paths)
    assert (done.returncode, done.stderr) == (0, "")
    assert "~ Task a" in done.stdout
    outputs = dict(line.split("=", 1) for line in (tmp_path / "GITHUB_OUTPUT").read_text().splitlines())
    assert outputs["changes"] == "true"
    comment = Path(outputs["plan"]).read_text()
    assert comment.startswith("<!-- cron-observer plan -->")
    assert (tmp_path / "GITHUB_STEP_SUMMARY").read_text().endswith(comment)


def test_the_action_fails_for_what_is_wrong(tmp_path: Path, runner: dict[str, str]) -> None:
    """An error is annotated and fails both steps; a plan without changes says so; inputs are no shell."""
    repository = Repository.make(tmp_path)
    repository.commit({"a.yaml": manifest("a")})
    base = repository.head()
    assert step("plan", runner, repository.work, base=base).returncode == 0
    assert "changes=false" in (tmp_path / "GITHUB_OUTPUT").read_text()
    repository.write({"a.yaml": manifest("a", retry="1")})
    done = step("validate", runner, repository.work)
    assert done.returncode == 1
    assert done.stdout.startswith("::error file=a.yaml,line=6,")
    assert step("plan", runner, repository.work, base=base).returncode == 1
    done = step("validate", runner, repository.work, paths="$(touch ran) ;touch${IFS}ran", environment="`touch ran`")
    assert done.returncode == 64
    assert not (repository.work / "ran").exists()


def test_a_job_may_use_the_action_for_several_sources(tmp_path: Path, runner: dict[str, str]) -> None:
    """Each has a plan of its own, and a plan that could not be made is not that of the source before."""
    repository = Repository.make(tmp_path)
    repository.commit({"tasks/a.yaml": manifest("a"), "more/b.yaml": manifest("b")})
    base = repository.head()
    repository.write({"tasks/a.yaml": manifest("a", "5 4 * * *"), "more/b.yaml": manifest("b", "6 4 * * *")})
    assert step("plan", runner, repository.work, base=base, paths="tasks").returncode == 0
    assert step("plan", runner, repository.work, base=base, paths="more").returncode == 0
    assert step("plan", runner, repository.work, base=base, paths="nowhere").returncode == 64
    told = [line.split("=", 1) for line in (tmp_path / "GITHUB_OUTPUT").read_text().splitlines()]
    plans = [Path(value).read_text() for name, value in told if name == "plan"]
    assert ["tasks/a.yaml" in text for text in plans] == [True, False]
    assert ["more/b.yaml" in text for text in plans] == [False, True]


def test_the_action_fetches_the_base_of_a_shallow_checkout(tmp_path: Path, runner: dict[str, str]) -> None:
    """A checkout of one commit is enough: the base alone is fetched beside it."""
    repository = Repository.make(tmp_path)
    base = repository.push({"a.yaml": manifest("a")})
    repository.push({"b.yaml": manifest("b")})
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository.bare}", "shallow")
    done = step("plan", runner, tmp_path / "shallow", base=base)
    assert (done.returncode, done.stderr) == (0, "")
    assert "+ Task b" in done.stdout


def test_the_action_prepares_from_its_own_clone(tmp_path: Path, runner: dict[str, str]) -> None:
    """What is installed is what lies beside the action; where it is installed already, nothing is."""
    clone = tmp_path / "clone"
    lines = [f". {clone}/scripts/environment.sh", f"root={clone}", "environment=$RUNNER_TEMP/cron-observer"]
    stamp = (
        'printf "%s\\n" "$environment $(cat "$root/requirements/runtime.txt" "$root/requirements/bootstrap.txt" '
        '"$root/pyproject.toml" "$root/sdk/pyproject.toml" | cksum)" >"$environment/cron-observer.stamp"'
    )
    subprocess.run(["sh", "-euc", "\n".join([lines[1], lines[2], stamp])], env=runner, check=True)
    done = subprocess.run([clone / "scripts/action", "prepare"], env=runner, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "installing" not in done.stderr
    assert subprocess.run([clone / "scripts/action", "what"], env=runner, capture_output=True).returncode == 64


# -- examples and the hook -----------------------------------------------------------------------------------


def test_the_guide_shows_the_examples() -> None:
    """Each YAML block of the guide is one of the files, or its beginning."""
    shown = [
        block.text for block in blocks((ROOT / "docs/how-to/check-in-ci.md").read_text()) if block.language == "yaml"
    ]
    files = {name: (EXAMPLES / name).read_text() for name in NAMES}
    for name, text in files.items():
        assert any(text.startswith(block) for block in shown), name
    assert len(shown) == len(files)


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the steps of the workflows, each with the name of its file."""
    for name in ("github.yml", "forgejo.yml"):
        for job in read(EXAMPLES / name)["jobs"].values():
            assert job["runs-on"]
            yield from ((name, step) for step in job["steps"])


@pytest.mark.parametrize("name", ["github.yml", "forgejo.yml"])
def test_workflows_use_the_action_as_it_is(name: str) -> None:
    """A workflow runs for pull requests, and gives the action inputs that it has."""
    workflow = read(EXAMPLES / name)
    assert "pull_request" in workflow[True]
    (use,) = (step for file, step in steps() if file == name and "/cron-observer@" in step.get("uses", ""))
    assert use["with"].keys() <= ACTION["inputs"].keys()
    uses = [step["uses"] for file, step in steps() if file == name and "uses" in step]
    assert all(re.fullmatch(r"(https://)?[\w.-]+(/[\w.-]+)+@[\w.]+", one) for one in uses)


def test_workflows_name_what_exists() -> None:
    """Outputs of the action, variables of a step, and the mark of the comment are those that there are."""
    from cron_observer.review.markdown import MARK

    text = (EXAMPLES / "github.yml").read_text()
    assert set(re.findall(r"steps\.tasks\.outputs\.(\w+)", text)) <= set(ACTION["outputs"])
    (comment,) = (step for _, step in steps() if "run" in step)
    assert "${{" not in comment["run"]
    assert set(re.findall(r"\$\{?([A-Z_]+)\b", comment["run"])) <= comment["env"].keys()
    assert MARK in comment["run"]
    assert subprocess.run(["sh", "-n"], input=comment["run"], text=True).returncode == 0


def parsed(command: click.Command, words: list[str]) -> dict[str, Any]:
    """Return what a command line means; fail the test where it means nothing."""
    return command.make_context(command.name, words).params


def test_the_pipeline_of_gitlab_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands, run as they stand there, write the reports that it names."""
    (job,) = read(EXAMPLES / "gitlab.yml").values()
    repository = Repository.make(tmp_path)
    repository.commit({"tasks/a.yaml": manifest("a")})
    made = make_clone(tmp_path / "clone")
    seen = environment() | {"CI_MERGE_REQUEST_DIFF_BASE_SHA": repository.head()}
    seen["PATH"] = f"{made}/.venv/bin:{os.environ['PATH']}"
    repository.write({"tasks/b.yaml": manifest("b")})
    for line in job["script"]:
        done = subprocess.run(["sh", "-ec", line], cwd=repository.work, env=seen, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert job["artifacts"]["when"] == "always"
    assert json.loads((repository.work / job["artifacts"]["reports"]["codequality"]).read_text()) == []
    assert "<testsuites" in (repository.work / job["artifacts"]["reports"]["junit"]).read_text()


def test_the_hook_runs_the_command() -> None:
    """Its entry is a command of ours with options that it has, and the SDK is installed from the same clone."""
    (hook,) = read(ROOT / ".pre-commit-hooks.yaml")
    program, word, *more = shlex.split(hook["entry"])
    assert (program, word) == ("cron-observer", "validate")
    assert parsed(validate, [*more, *hook["args"]])["strict"] is True
    assert hook["pass_filenames"] is False
    assert re.compile(hook["files"]).search("tasks/a.yaml")
    (sdk,) = hook["additional_dependencies"]
    name = tomllib.loads((ROOT / sdk / "pyproject.toml").read_text())["project"]["name"]
    assert name in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (used,) = read(EXAMPLES / "pre-commit.yml")["repos"][0]["hooks"]
    assert used["id"] == hook["id"]
    assert parsed(validate, used["args"])["paths"] == ("tasks",)


def test_the_guide_calls_commands_that_there_are() -> None:
    """Whatever the examples call is a command with options that it has."""
    (job,) = read(EXAMPLES / "gitlab.yml").values()
    for line in job["script"]:
        _, word, *words = shlex.split(line)
        assert parsed({"validate": validate, "plan": plan}[word], words)
