"""`cron-observer plan --path`: however a folder is called, it is looked at, and one that is nowhere is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.repositories import Repository, git, manifest
from support.reviews import look, run, told


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Return a repository in whose work tree one task of two folders each was changed; it is the current folder."""
    made = Repository.make(tmp_path)
    made.commit({"tasks/a.yaml": manifest("a"), "more/b.yaml": manifest("b"), "docs/readme.md": "x"})
    made.write({"tasks/a.yaml": manifest("a", "5 4 * * *"), "more/b.yaml": manifest("b", "6 4 * * *")})
    monkeypatch.chdir(made.work)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return made


@pytest.mark.parametrize(
    ("here", "path"),
    [
        *((".", path) for path in ("tasks", "tasks/", "./tasks", "tasks/.", "more/../tasks", "tasks//a.yaml", "ta*")),
        *(("docs", path) for path in ("../tasks", "./../tasks/a.yaml", "../t*")),
        *(("tasks", path) for path in (".", "", "../tasks", "a.yaml", "./a.yaml")),
    ],
)
def test_a_folder_is_found_however_it_is_called(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, here: str, path: str
) -> None:
    """A path is meant from the current folder, with dots wherever they stand."""
    monkeypatch.chdir(repository.work / here)
    assert told(look("--path", path)) == {"Task a": "update"}


def test_absolute_paths_are_found(repository: Repository, tmp_path: Path) -> None:
    """A whole path is one inside the repository, also through a link to it."""
    assert told(look("--path", str(repository.work / "tasks"))) == {"Task a": "update"}
    link = tmp_path / "link"
    link.symlink_to(repository.work)
    assert told(look("--path", str(link / "tasks"))) == {"Task a": "update"}


def test_what_is_left_out_is_called_the_same_way(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--ignore`` is read as ``--path`` is."""
    monkeypatch.chdir(repository.work / "docs")
    assert told(look("--path", "..", "--ignore", "../more")) == {"Task a": "update"}


@pytest.mark.parametrize("path", ["taks", "tasks/b.yaml", "*.yamml"])
def test_a_path_that_leads_nowhere_is_said(repository: Repository, path: str) -> None:
    """A misspelt folder is a wrong call, and no plan without changes."""
    result = run("--base", "HEAD", "--path", "tasks", "--path", path)
    assert result.exit_code == 64
    assert f"There is no manifest below '{path}', neither before nor after." in result.output


@pytest.mark.parametrize("path", ["..", "../..", "/etc"])
def test_a_path_outside_of_the_repository_is_said(repository: Repository, path: str) -> None:
    """What is not in the repository cannot be compared."""
    result = run("--base", "HEAD", "--path", path)
    assert result.exit_code == 64
    assert f"{path!r} is outside of the repository" in result.output


def test_folders_without_manifests_and_those_that_go_are_fine(repository: Repository) -> None:
    """A folder that is there may be empty of manifests, and one that goes was there before."""
    assert told(look("--path", "docs")) == {}
    repository.write({"more/b.yaml": None})
    assert told(look("--path", "more")) == {"Task b": "hold"}


def test_a_sparse_checkout_is_no_removal(repository: Repository) -> None:
    """What a sparse checkout leaves out is what the index says of it."""
    git(repository.work, "checkout", "--quiet", ".")
    git(repository.work, "switch", "--quiet", "--create", "later")
    repository.commit({"tasks/a.yaml": manifest("a", "7 4 * * *")})
    git(repository.work, "sparse-checkout", "set", "--cone", "more")
    assert not (repository.work / "tasks").exists()
    assert told(look(base="main")) == {"Task a": "update"}
    assert told(look()) == {}


def test_a_name_that_is_no_commit_is_shown_safely(repository: Repository) -> None:
    """What was asked for is quoted without what it could do to a terminal."""
    result = run("--base", "\x1b[31mno")
    assert result.exit_code == 64
    assert 'no commit "\\x1b[31mno"' in result.output


def test_a_name_that_is_not_utf8_is_told_as_validate_tells_it(repository: Repository) -> None:
    """What cannot be written as text is an unusable path, before and after a commit."""
    (repository.work / "tasks").joinpath(os.fsdecode(b"\xff.yaml")).write_text(manifest("x"))
    (found,) = look("--path", "tasks")["findings"]
    assert (found["code"], found["path"]) == ("CO1008", "tasks/\\xff.yaml")
    git(repository.work, "add", ".")
    git(repository.work, "commit", "--quiet", "--message", "odd")
    (found,) = look("--path", "tasks", "--head", "HEAD", base="HEAD~1")["findings"]
    assert found["code"] == "CO1008"
