"""``cron-observer tasks``: list, read and trigger tasks, through a server's API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import rich_click as click

from cron_observer.cli import _http

_COLUMNS: Final = (
    ("NAME", "name"),
    ("STATUS", "status"),
    ("SCHEDULE", "schedule_text"),
    ("NEXT", "next_fire_at"),
    ("LAST", "last_execution.status"),
    ("DEFINED IN", "owner.path"),
)

_project = click.option("--project", default="default", help="The project. Default: default.")


@click.group()
def tasks() -> None:
    """List, read and trigger tasks."""


@tasks.command("list")
@_project
@click.option("-q", help="Part of the name or description.")
@click.option("--status", help="ACTIVE, DISABLED, QUARANTINED, DELETING or REMOVED; several with commas.")
@click.option("--owner", type=click.Choice(("manifest", "api")), help="Who owns it.")
@click.option("--label", help="key or key=value.")
@click.option("--source", help="The source of its manifest.")
@_http.output
@_http.place
def list_(project: str, data_dir: Path | None, style: str, **filters: str | None) -> None:
    """List the tasks of a project by name."""
    server = _http.connect(data_dir)
    _http.show(server.pages("projects", project, "tasks", query=filters), _COLUMNS, style)


@tasks.command()
@click.argument("task")
@_project
@_http.output
@_http.place
def get(task: str, project: str, data_dir: Path | None, style: str) -> None:
    """Show TASK, given as NAME or PROJECT/NAME."""
    where, name = _http.named(task, project)
    _http.show_one(_http.connect(data_dir).call("GET", "projects", where, "tasks", name), style)


@tasks.command()
@click.argument("task")
@_project
@click.option("--payload", help="JSON to give the run in place of the task's payload.")
@click.option("--force", is_flag=True, help="Run even while another run of the task is active.")
@_http.output
@_http.place
def trigger(task: str, project: str, payload: str | None, force: bool, data_dir: Path | None, style: str) -> None:
    """Run TASK now."""
    body: dict[str, Any] = {"force": force}
    if payload is not None:
        try:
            body["payload"] = json.loads(payload)
        except ValueError as error:
            raise click.BadParameter(f"is not JSON: {error}", param_hint="--payload") from error
    where, name = _http.named(task, project)
    made = _http.connect(data_dir).call("POST", "projects", where, "tasks", name, "trigger", body=body)
    if style == "json":
        _http.show_one(made, style)
    else:
        click.echo(made["id"])
