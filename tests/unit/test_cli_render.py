"""`cron-observer render`: tasks with the origin of every value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cron_observer import manifest
from cron_observer.cli import commands

DEFAULTS = """\
apiVersion: cron-observer/v1
kind: Defaults
metadata: {name: billing}
spec:
  spec:
    timeout: 10m
    payload: {lines: "a\\nb\\n", list: [1, 2]}
    schedule: {timezone: Europe/Berlin}
"""

TASKS = """\
apiVersion: cron-observer/v1
kind: Task
metadata:
  name: invoice-export
  labels: {team: billing}
spec:
  schedule: {cron: "30 2 * * *"}
  retries: {max: 5}
  environments:
    staging: {suspend: true, payload: {list: null}}
---
apiVersion: cron-observer/v1
kind: Task
metadata: {name: other}
spec: {schedule: {every: 5m}, timeout: 1m}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with Defaults and two tasks; the commands run in it."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "billing").mkdir()
    (tmp_path / "billing" / "_defaults.yaml").write_text(DEFAULTS)
    (tmp_path / "billing" / "tasks.yaml").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_task_is_shown_with_the_origin_of_its_values(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each value says where it comes from: a line of the file, a layer, the environment, or nowhere."""
    assert commands()["render"](["invoice-export", "--environment", "staging"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.split("\n")]

    assert lines[0] == "# billing/tasks.yaml:4, environment staging"
    for expected in (
        "suspend: true # line 10, environment staging",
        'cron: "30 2 * * *" # line 7',
        "timezone: Europe/Berlin # Defaults billing at billing/_defaults.yaml:3",
        "timeout: 10m # Defaults billing at billing/_defaults.yaml:3",
        "max: 5 # line 8",
        "backoff: exponential # built-in",
    ):
        assert expected in lines
    assert not [line for line in lines if line.startswith("list:")]


def test_what_is_shown_is_a_manifest_of_the_same_task(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Read again, without any layer, it means what the reconciler would apply."""
    assert commands()["render"](["billing"]) == 0
    shown = manifest.parse("shown.yaml", capsys.readouterr().out.encode())
    commands()["render"](["billing", "--format", "json"])
    members = json.loads(capsys.readouterr().out)

    assert shown.findings == ()
    assert [one.spec for one in shown.tasks] == [one["spec"] for one in members]
    assert [one.labels for one in shown.tasks] == [{"team": "billing"}, {}]
    assert members[0]["origins"]["/payload/lines"] == {
        "kind": "Defaults",
        "name": "billing",
        "path": "billing/_defaults.yaml",
        "line": 3,
    }
    assert members[1]["origins"]["/timeout"] == {
        "kind": "manifest",
        "name": "other",
        "path": "billing/tasks.yaml",
        "line": 15,
    }
    assert members[1]["origins"]["/queue"] == {"kind": "built-in"}


def test_what_cannot_be_shown_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that nobody declares, a file without tasks and a broken task are failures; a wrong call is another."""
    assert commands()["render"](["invoice-exprt"]) == 1
    assert 'did you mean "invoice-export"?' in capsys.readouterr().err
    assert commands()["render"](["billing/_defaults.yaml"]) == 1
    assert "declares no task" in capsys.readouterr().err
    assert commands()["render"](["\x1b[31m"]) == 1
    assert "\\x1b[31m" in capsys.readouterr().err
    assert commands()["render"](["billing", "-e", "No Such"]) == 64
    assert "is no name of an environment" in capsys.readouterr().err
    (folder / "billing" / "tasks.yaml").write_text(TASKS.replace("timeout: 1m", "timeout: soon"))
    assert commands()["render"](["billing"]) == 1
    said = capsys.readouterr()
    assert "billing/tasks.yaml:15: error[CO1308]" in said.err
    assert "name: invoice-export" in said.out
    assert commands()["render"]([]) == 64
