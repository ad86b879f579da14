"""`init` writes a folder that validates, and never over what is there."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from cron_observer.cli.init import init
from cron_observer.manifest import loader, parse, validate_tree

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("forge", "file"),
    [
        ("github", ".github/workflows/tasks.yml"),
        ("forgejo", ".forgejo/workflows/tasks.yml"),
        ("gitlab", ".gitlab-ci.yml"),
        ("none", None),
    ],
)
def test_a_new_folder_is_valid(tmp_path: Path, forge: str, file: str | None) -> None:
    """The first task has no findings, and the forge's file is there with what is to be put into it named."""
    done = CliRunner().invoke(init, [str(tmp_path), "--ci", forge, "--pre-commit"])
    assert done.exit_code == 0
    report = validate_tree(tmp_path, NOW)
    assert (report.findings, report.documents) == ([], 1)
    assert (tmp_path / ".pre-commit-config.yaml").exists()
    if file is not None:
        address = re.search(r"put the address of your cron-observer for (\S+) into " + re.escape(file), done.stdout)
        assert address is not None
        assert address[1] in (tmp_path / file).read_text()


@pytest.mark.parametrize(
    ("forge", "file", "address"),
    [
        ("github", ".github/workflows/tasks.yml", "acme/cron-observer@v9"),
        ("forgejo", ".forgejo/workflows/tasks.yml", "https://git.acme.org/acme/cron-observer@v9"),
        ("gitlab", ".gitlab-ci.yml", "registry.acme.org/cron-observer@sha256:12"),
    ],
)
def test_the_forge_uses_what_it_is_told_to(tmp_path: Path, forge: str, file: str, address: str) -> None:
    """With --use nothing is left to be done; inputs are those that the action has, and no registry is asked."""
    done = CliRunner().invoke(init, [str(tmp_path), "--ci", forge, "--use", address])
    assert "put the address" not in done.stdout
    text = (tmp_path / file).read_text()
    written = loader.load(text).documents[0].root
    assert written is not None
    if forge == "gitlab":
        assert written.value["tasks"]["image"]["name"] == address
        return
    (step,) = [one for one in written.value["jobs"]["check"]["steps"] if one["uses"] == address]
    inputs = loader.load((ROOT / "action.yml").read_text()).documents[0].root
    assert inputs is not None
    assert step["with"].keys() <= inputs.value["inputs"].keys()


@pytest.mark.parametrize("option", ["--use", "--schema"])
@pytest.mark.parametrize("address", ["", "a b", "a\nb", 'a"b', "a'b"])
def test_addresses_are_one_word(tmp_path: Path, option: str, address: str) -> None:
    """What would be another text in the file is a wrong call."""
    done = CliRunner().invoke(init, [str(tmp_path), option, address])
    assert done.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(tmp_path: Path) -> None:
    """A second run, or a file of one's own, changes nothing and says so."""
    (tmp_path / "README.md").write_text("mine")
    first = CliRunner().invoke(init, [str(tmp_path)])
    (tmp_path / "tasks/hello.yaml").write_text("changed")
    second = CliRunner().invoke(init, [str(tmp_path)])
    assert "kept" in first.stdout
    assert "wrote" not in second.stdout
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (tmp_path / "tasks/hello.yaml").read_text() == "changed"


def test_the_schema_may_be_a_servers(tmp_path: Path) -> None:
    """--schema is the address that the editor's comment names."""
    address = "http://127.0.0.1:8475/schemas/v1/task.json"
    CliRunner().invoke(init, [str(tmp_path), "--schema", address])
    text = (tmp_path / "tasks/hello.yaml").read_text()
    assert text.startswith(f"# yaml-language-server: $schema={address}\n")
    assert not parse("hello.yaml", text.encode()).findings


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """A file in the way of a folder is named, with exit code 1."""
    (tmp_path / "tasks").write_text("")
    done = CliRunner().invoke(init, [str(tmp_path)])
    assert done.exit_code == 1
    assert "tasks" in done.stderr
