"""`cron-observer init`: a folder of manifests to begin with, and what checks it in the forge and in editors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

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

_WORKFLOW: Final = """\
name: tasks
on:
  pull_request:
    paths: ["tasks/**"]
permissions:
  contents: read
jobs:
  check:
    runs-on: RUNNER
    steps:
      - uses: actions/checkout@v4
        with: {fetch-depth: 0, persist-credentials: false}
      - uses: ADDRESS
        with: {paths: tasks}
"""

_GITLAB: Final = """\
tasks:
  image: {name: "ADDRESS", entrypoint: [""]}
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
      changes: ["tasks/**/*"]
  variables: {GIT_DEPTH: "0"}
  script:
    - cron-observer validate --format gitlab --output findings.json tasks
    - cron-observer plan --base "$CI_MERGE_REQUEST_DIFF_BASE_SHA" --path tasks
  artifacts:
    when: always
    reports: {codequality: findings.json}
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


class _Forge(NamedTuple):
    """What is written for a forge: a file, its text, and the address in it where none is given."""

    path: str
    text: str
    address: str


#: The copies of the product in these addresses are examples: nobody but its users knows where theirs is.
_FORGES: Final = {
    "github": _Forge(
        ".github/workflows/tasks.yml",
        _WORKFLOW.replace("RUNNER", "ubuntu-24.04"),
        "your-organisation/cron-observer@vVERSION",
    ),
    "forgejo": _Forge(
        ".forgejo/workflows/tasks.yml",
        _WORKFLOW.replace("RUNNER", "docker"),
        "https://git.example.com/your-organisation/cron-observer@vVERSION",
    ),
    "gitlab": _Forge(".gitlab-ci.yml", _GITLAB, "registry.example.com/cron-observer:VERSION"),
}
_NO_FORGE: Final = "none"


def _an_address(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and _ADDRESS.fullmatch(value) is None:
        raise click.BadParameter("an address has no blanks, quotes and control characters.")
    return value


_ADDRESS: Final = re.compile(r"[!#$%&(-~]+")


@click.command(short_help="Begin a folder of manifests.")
@click.argument("folder", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--ci",
    type=click.Choice((*_FORGES, _NO_FORGE)),
    default=_NO_FORGE,
    show_default=True,
    help="The forge that checks.",
)
@click.option(
    "--use", "address", callback=_an_address, help="The action or image of cron-observer that the forge is to use."
)
@click.option("--pre-commit", is_flag=True, help="Write a pre-commit hook too.")
@click.option(
    "--schema",
    callback=_an_address,
    help="Where editors find the schema, such as a server's /schemas/v1/task.json.",
)
def init(folder: Path, ci: str, address: str | None, pre_commit: bool, schema: str | None) -> None:
    """Write a first task below FOLDER (default: here), and what checks tasks in editors and forges.

    Files that are there stay as they are, and are named.
    """
    from importlib.metadata import version

    files = {"tasks/hello.yaml": _TASK.replace(SCHEMA, schema or SCHEMA), "README.md": _README}
    forge = _FORGES.get(ci)
    example = forge.address.replace("VERSION", version("cron-observer")) if forge is not None else ""
    if forge is not None:
        files[forge.path] = forge.text.replace("ADDRESS", address or example)
    if pre_commit:
        files[".pre-commit-config.yaml"] = _PRE_COMMIT
    try:
        for name, text in files.items():
            _write(folder / name, text)
    except OSError as error:
        raise click.ClickException(f"{error.filename} cannot be written: {error.strerror}") from error
    place = "" if folder == Path() else f" {folder}"
    click.echo(f"\nNext: cron-observer validate{place}")
    if forge is not None and address is None:
        click.echo(f"      put the address of your cron-observer for {example} into {forge.path}")
    click.echo("      git add, commit and push")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        click.echo(f"wrote {path}")
    except FileExistsError:
        click.echo(f"kept  {path}, which is there")
