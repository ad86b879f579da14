"""`init` writes a folder that validates, and never over what is there."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from cron_observer.cli import commands
from cron_observer.cli.init import init
from cron_observer.manifest import parse, validate_tree

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
    """The first task has no findings; the forge's file is there and only calls commands that exist."""
    done = CliRunner().invoke(init, [str(tmp_path), "--ci", forge, "--pre-commit"])
    assert done.exit_code == 0
    report = validate_tree(tmp_path, NOW)
    assert (report.findings, report.documents) == ([], 1)
    assert (tmp_path / ".pre-commit-config.yaml").exists()
    if file is not None:
        called = set(re.findall(r"cron-observer (\w+) ", (tmp_path / file).read_text()))
        assert called == {"validate", "plan"}
        assert called <= commands().keys()


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
