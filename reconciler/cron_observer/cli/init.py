"""`cron-observer init`: a folder of manifests to begin with, and what checks it in the forge and in editors."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from cron_observer.importing.manifests import SCHEMA

_TASK: Final = f"""\
# yaml-language-server: $schema={SCHEMA}
apiVersion: cron-observer/v1
kind: Task
metadata:
  name: hello
  labels: {{team: platform}}
spec:
  description: Say hello on weekday mornings
  schedule:
    cron: "0 9 * * 1-5"
    timezone: Europe/Berlin
  catchup: {{policy: last, window: 1h}}
  overlap: skip
  timeout: 10m
"""

_README: Final = """\
# Tasks

Every `*.yaml` below `tasks/` declares tasks for Cron Observer; a push to the branch that it follows puts them in force.

    cron-observer validate        # what is wrong, with file, line and column
    cron-observer explain "0 9 * * 1-5" --timezone Europe/Berlin
    cron-observer run hello -- echo hello
"""

_GITHUB: Final = """\
name: tasks
on:
  pull_request:
    paths: ["tasks/**"]
permissions:
  contents: read
jobs:
  validate:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v6
        with: {fetch-depth: 0, persist-credentials: false}
      - uses: actions/setup-python@v6
        with: {python-version: "3.12"}
      - run: python -m pip install cron-observer
      - run: cron-observer validate --format github
      - run: cron-observer plan --base "origin/$GITHUB_BASE_REF" --format markdown >> "$GITHUB_STEP_SUMMARY"
"""

_GITLAB: Final = """\
tasks:
  image: python:3.12-slim
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
  variables: {GIT_DEPTH: "0"}
  before_script:
    - apt-get update && apt-get install --yes git
    - python -m pip install cron-observer
  script:
    - cron-observer validate --format gitlab -o gl-code-quality.json
    - cron-observer plan --base "origin/$CI_MERGE_REQUEST_TARGET_BRANCH_NAME"
  artifacts:
    when: always
    reports: {codequality: gl-code-quality.json}
"""

_PRE_COMMIT: Final = """\
repos:
  - repo: local
    hooks:
      - id: cron-observer-validate
        name: validate task manifests
        entry: cron-observer validate --strict
        language: system
        types: [yaml]
        pass_filenames: false
"""

#: What is written beside the first task, for each forge.
_FORGES: Final = {
    "github": {".github/workflows/tasks.yml": _GITHUB},
    "forgejo": {".forgejo/workflows/tasks.yml": _GITHUB.replace("ubuntu-latest", "docker")},
    "gitlab": {".gitlab-ci.yml": _GITLAB},
    "none": {},
}


@click.command(short_help="Begin a folder of manifests.")
@click.argument("folder", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--ci", type=click.Choice(tuple(_FORGES)), default="none", show_default=True, help="The forge to check in."
)
@click.option("--pre-commit", is_flag=True, help="Write a pre-commit hook too.")
@click.option("--schema", help="Address of the schema for editors, such as a server's /schemas/v1/task.json.")
def init(folder: Path, ci: str, pre_commit: bool, schema: str | None) -> None:
    """Write a first task below FOLDER (default: here), and what checks tasks in editors and forges.

    Files that are there stay as they are, and are named.
    """
    files = {"tasks/hello.yaml": _TASK.replace(SCHEMA, schema or SCHEMA), "README.md": _README} | _FORGES[ci]
    if pre_commit:
        files[".pre-commit-config.yaml"] = _PRE_COMMIT
    try:
        for name, text in files.items():
            _write(folder / name, text)
    except OSError as error:
        raise click.ClickException(f"{error.filename} cannot be written: {error.strerror}") from error
    place = "" if folder == Path() else f" {folder}"
    click.echo(f"\nNext: cron-observer validate{place}\n      git add, commit and push")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        click.echo(f"wrote {path}")
    except FileExistsError:
        click.echo(f"kept  {path}, which is there")
