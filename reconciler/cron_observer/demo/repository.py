"""The demo repository: the examples, committed, and one file with a deliberate error."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Final

from cron_observer.errors import SourceError

#: Where the deliberate error lies: the page and `validate` name this file, its line and the mend.
BROKEN_PATH: Final = "mail/birthday-greetings.yaml"

BROKEN: Final = """\
# This file is wrong on purpose: look at the Sync page, then mend the time zone and commit.
apiVersion: cron-observer/v1
kind: Task
metadata:
  name: birthday-greetings
  labels: {team: growth}
spec:
  description: Greets customers on their birthday.
  schedule:
    cron: "0 8 * * *"
    timezone: Europe/Berln
"""

_AUTHORS: Final = (
    ("Ada Example", "ada@example.com", "Add the tasks of every team"),
    ("Grace Example", "grace@example.com", "Greet customers on their birthday"),
)


def _examples() -> Path:
    """Return the folder of example manifests: in the wheel if installed, else the checkout's."""
    package = Path(str(resources.files("cron_observer")))
    packaged = package / "_manifests_example"
    return packaged if packaged.is_dir() else package.parents[1] / "manifests-example"


def _git(folder: Path, *arguments: str, author: tuple[str, str] = ("", "")) -> None:
    name, mail = author
    identity = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in
                (("NAME", name), ("EMAIL", mail))}  # fmt: skip
    environment = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, **identity}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SourceError(
            f"the demo repository cannot be made: {done.stderr.strip()}",
            reason="DemoFailed",
            permanent=True,
            hint="start with --no-demo, or with --repo and a repository of yours",
        )


def make_repository(folder: Path) -> bool:
    """Make the demo repository at `folder` unless there is one; return whether it was made.

    It is an ordinary repository with a work tree: edit a file in it and commit, and the page follows.
    """
    if (folder / ".git").is_dir():
        return False
    making = folder.with_name(f"{folder.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    shutil.copytree(_examples(), making)
    _git(making, "init", "--quiet", "--initial-branch=main")
    for (name, mail, subject), path in zip(_AUTHORS, (".", BROKEN_PATH), strict=True):
        if path == BROKEN_PATH:
            (making / path).parent.mkdir(parents=True, exist_ok=True)
            (making / path).write_text(BROKEN, encoding="utf-8")
        _git(making, "add", "--", path)
        _git(making, "commit", "--quiet", "--message", subject, author=(name, mail))
    # Renamed last, so that a start that is killed meanwhile leaves nothing half-made.
    making.rename(folder)
    return True
