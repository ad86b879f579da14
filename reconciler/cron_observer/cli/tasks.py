"""``cron-observer tasks``: list, read, trigger, pause, backfill and detach tasks, through a server's API."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import rich_click as click

from cron_observer.cli import _http
from cron_observer.cli.instants import Instant

_COLUMNS: Final = (
    ("NAME", "name"),
    ("STATUS", "status"),
    ("SCHEDULE", "schedule_text"),
    ("NEXT", "next_fire_at"),
    ("LAST", "last_execution.status"),
    ("DEFINED IN", "owner.path"),
)

#: The columns of what a backfill runs.
_SLOTS: Final = (
    ("SCHEDULED FOR", "scheduled_for"),
    ("LOCAL", "nominal_local"),
    ("FOLD", "nominal_fold"),
    ("REPEATS", "repeats"),
    ("EXECUTION", "execution_id"),
)

_RESUME: Final = click.Choice(("skip", "last", "all"))


_project = click.option("--project", default="default", help="The project. Default: default.")


@click.group()
def tasks() -> None:
    """List, read, trigger, pause, backfill and detach tasks."""


@tasks.command("list")
@_project
@click.option("-q", help="Part of the name or description.")
@click.option("--status", help="ACTIVE, PAUSED, DISABLED, QUARANTINED, DELETING or REMOVED; several with commas.")
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


@tasks.command()
@click.argument("task")
@_project
@click.option("--reason", default="", help="Why.")
@click.option("--until", type=Instant(ahead=True), help="When it ends by itself: a time with an offset, or 6h.")
@click.option("--on-resume", type=_RESUME, help="Which slots run at its end. Default: the task's onResume.")
@_http.output
@_http.place
def pause(
    task: str, project: str, reason: str, until: str | None, on_resume: str | None, data_dir: Path | None, style: str
) -> None:
    """Let the slots of TASK not run for a while."""
    _change(task, project, "pause", {"reason": reason, "until": until, "on_resume": on_resume}, data_dir, style)


@tasks.command()
@click.argument("task")
@_project
@click.option("--reason", default="", help="Why.")
@click.option("--on-resume", type=_RESUME, help="Which slots run now, in place of what the pause says.")
@_http.output
@_http.place
def resume(task: str, project: str, reason: str, on_resume: str | None, data_dir: Path | None, style: str) -> None:
    """End the pause of TASK."""
    _change(task, project, "resume", {"reason": reason, "on_resume": on_resume}, data_dir, style)


def _change(task: str, project: str, verb: str, body: dict[str, Any], data_dir: Path | None, style: str) -> None:
    where, name = _http.named(task, project)
    found = _http.connect(data_dir).call("POST", "projects", where, "tasks", name, verb, body=body)
    if style == "json":
        _http.show_one(found, style)
        return
    shown = {"task": f"{found['project']}/{found['name']}", "status": found["status"]}
    _http.show_one(shown | (found["pause"] or {}) | {"next_fire_at": found["next_fire_at"]}, style)


@tasks.command()
@click.argument("task")
@_project
@click.option("--reason", required=True, help="Why; it is written to the audit log.")
@_http.output
@_http.place
def detach(task: str, project: str, reason: str, data_dir: Path | None, style: str) -> None:
    """Take TASK out of its manifest's hands: the API owns it from now on."""
    where, name = _http.named(task, project)
    found = _http.connect(data_dir).call("POST", "projects", where, "tasks", name, "detach", body={"reason": reason})
    if style == "json":
        _http.show_one(found, style)
        return
    shown = {"task": f"{found['project']}/{found['name']}", "owner": found["owner"]["kind"], "status": found["status"]}
    _http.show_one(shown, style)


@tasks.command()
@click.argument("task")
@_project
@click.option("--from", "start", type=Instant(), required=True, help="The first nominal time of the range.")
@click.option("--to", "end", type=Instant(), help="The first that is not part of it any more. Default: now.")
@click.option(
    "--select",
    type=click.Choice(("missing", "failed", "all")),
    default="missing",
    help="Which slots: those without a run, those whose run failed, or all. Default: missing.",
)
@click.option("--dry-run", is_flag=True, help="Only show which slots it would be.")
@click.option(
    "--order",
    type=click.Choice(("oldest_first", "newest_first")),
    default="oldest_first",
    help="Default: oldest_first.",
)
@click.option("--max-parallel", type=click.IntRange(1, 1000), default=1, help="Runs at once. Default: 1.")
@_http.output
@_http.place
def backfill(
    task: str, project: str, start: str, end: str | None, data_dir: Path | None, style: str, **asked: Any
) -> None:
    """Run the slots of TASK in a range of nominal time again."""
    where, name = _http.named(task, project)
    body = {"from": start, "to": end or datetime.now(UTC).isoformat(), **asked}
    made = _http.connect(data_dir).call("POST", "projects", where, "tasks", name, "backfill", body=body)
    if style == "json":
        _http.show_one(made, style)
        return
    if made["slots"]:
        _http.show(made["slots"], _SLOTS, style)
    count, shown = made["count"], len(made["slots"])
    first = f" (the first {shown:,} are shown)" if shown < count else ""
    runs = f"{count:,} run" if count == 1 else f"{count:,} runs"
    click.echo(
        f"{runs} would be made{first}" if made["dry_run"] else f"{runs} of backfill {made['backfill_id']}{first}"
    )


@tasks.command("new-ping-address")
@click.argument("task")
@_project
@_http.output
@_http.place
def new_ping_address(task: str, project: str, data_dir: Path | None, style: str) -> None:
    """Give TASK another address to ping; the old one is unknown from then on."""
    where, name = _http.named(task, project)
    changed = _http.connect(data_dir).call("POST", "projects", where, "tasks", name, "ping-address")
    if style == "json":
        _http.show_one(changed, style)
    else:
        click.echo(changed["ping_url"])


@tasks.command("new-ping-key")
@click.argument("project")
@_http.output
@_http.place
def new_ping_key(project: str, data_dir: Path | None, style: str) -> None:
    """Give PROJECT another ping key; the DSNs of its tasks change with it."""
    changed = _http.connect(data_dir).call("POST", "projects", project, "ping-key")
    if style == "json":
        _http.show_one(changed, style)
    else:
        click.echo(changed["key"])
