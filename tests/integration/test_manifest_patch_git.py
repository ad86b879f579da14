"""Patches of manifests are applied by the real `git apply`, without complaint and without fuzz."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cron_observer import manifest
from cron_observer.model import Severity
from support.manifests import SMALLEST, changes, files

ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/local/bin", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}


def git_apply(path: str, text: str, patch: str, *, mode: int = 0o644) -> bytes | None:
    """Apply a patch to a file in an empty folder; return its new bytes, None if it is deleted."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
        file.chmod(mode)
        command = ["git", "apply", "--whitespace=nowarn", "-"]
        environment = {**ENVIRONMENT, "GIT_CEILING_DIRECTORIES": str(Path(folder).parent)}
        done = subprocess.run(command, cwd=folder, input=patch.encode(), env=environment, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        return file.read_bytes() if file.exists() else None


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(files(), changes, st.booleans())
def test_git_applies_every_patch(
    drawn: tuple[list[dict[str, Any]], str], wanted: list[tuple[str, Any]], delete: bool
) -> None:
    """Whatever the layout, Git makes of the patch what the patch was checked to mean."""
    values, text = drawn
    last = len(values) - 1
    patch = manifest.patch(text, "tasks/a.yaml", last, changes=() if delete else wanted, delete=delete)
    if not patch:
        return
    result = git_apply("tasks/a.yaml", text, patch)

    if delete and last == 0:
        assert result is None
        return
    assert result is not None
    parsed = manifest.parse("tasks/a.yaml", result)
    assert [one for one in parsed.findings if one.severity is Severity.ERROR] == []
    assert len(parsed.tasks) == len(values) - delete
    assert delete or manifest.patch(result.decode(), "tasks/a.yaml", last, changes=wanted) == ""


@pytest.mark.parametrize("path", ["a.yaml", "with blank.yaml", "tasks/über.yaml", 'q"uote.yaml', "back\\slash.yaml"])
def test_git_reads_the_paths(path: str) -> None:
    """Blanks, umlauts, quotes and backslashes in a path survive."""
    result = git_apply(path, SMALLEST, manifest.patch(SMALLEST, path, 0, changes=[("/timeout", "2h")]))

    assert result == (SMALLEST + "  timeout: 2h\n").encode()


@pytest.mark.parametrize(
    "text", [SMALLEST, SMALLEST.removesuffix("\n"), SMALLEST.replace("\n", "\r\n"), "\ufeff" + SMALLEST]
)
def test_git_deletes_the_file_with_its_last_document(text: str) -> None:
    """Line ends, a missing last one and a byte order mark do not matter."""
    assert git_apply("a.yaml", text, manifest.patch(text, "a.yaml", 0, delete=True)) is None


def test_git_makes_a_file_that_is_gone() -> None:
    """Where the manifest has been removed meanwhile, the patch makes it again."""
    requested = {"name": "x", **manifest.effective({"schedule": {"every": "5m"}})}
    with tempfile.TemporaryDirectory() as folder:
        patch = manifest.patch("", "tasks/x.yaml", 0, requested=requested)
        environment = {**ENVIRONMENT, "GIT_CEILING_DIRECTORIES": str(Path(folder).parent)}
        subprocess.run(["git", "apply", "-"], cwd=folder, input=patch.encode(), env=environment, check=True)

        (one,) = manifest.parse("tasks/x.yaml", Path(folder, "tasks/x.yaml").read_bytes()).tasks
        assert (one.name, one.spec["schedule"]["every"]) == ("x", "5m")
