"""`cron-observer init` in a repository: what it writes runs there."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from cron_observer.cli import commands
from cron_observer.cli.init import init
from cron_observer.manifest import loader
from support.repositories import git


def test_what_the_merge_request_runs_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of the written file, run in the folder that was written, find it right and without changes."""
    CliRunner().invoke(init, [str(tmp_path), "--ci", "gitlab"])
    monkeypatch.chdir(tmp_path)
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "begin"]):
        git(tmp_path, *arguments)
    written = loader.load((tmp_path / ".gitlab-ci.yml").read_text()).documents[0].root
    assert written is not None
    for line in written.value["tasks"]["script"]:
        program, command, *arguments = shlex.split(line.replace("$CI_MERGE_REQUEST_DIFF_BASE_SHA", "HEAD"))
        assert program == "cron-observer"
        assert commands()[command](arguments) == 0
    assert (tmp_path / "findings.json").read_text() == "[]\n"
    assert "no changes" in capsys.readouterr().out
