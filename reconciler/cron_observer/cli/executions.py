"""``cron-observer executions``: list, read and cancel executions, print their logs, through a server's API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import rich_click as click

from cron_observer.cli import _http
from cron_observer.cli._http import Server

_COLUMNS: Final = (
    ("ID", "id"),
    ("TASK", "task.name"),
    ("STATUS", "status"),
    ("REASON", "reason"),
    ("FIRE AT", "fire_at"),
    ("SECONDS", "duration_seconds"),
    ("WORKER", "worker"),
)

#: Seconds between two looks of ``logs --follow``.
_LOOK_EVERY: Final = 1.0

_OPEN: Final = ("PENDING", "RUNNING")


@click.group()
def executions() -> None:
    """List, read and cancel executions; print their logs."""


@executions.command("list")
@click.option("--project", help="Only this project.")
@click.option("--task", help="Only this task: NAME, PROJECT/NAME or its uid.")
@click.option("--status", help="Such as FAILED,MISSED.")
@click.option("--reason", help="Such as timed_out,lease_lost.")
@click.option("--date", help="A local date, such as 2026-11-21.")
@click.option("--timezone", help="Of the date. Default: UTC.")
@click.option("--worker", help="Only what this worker ran.")
@click.option("--upcoming", is_flag=True, help="Also slots that are not yet due.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, help="How many at most. Default: 50.")
@_http.output
@_http.place
def list_(limit: int, upcoming: bool, data_dir: Path | None, style: str, **filters: str | None) -> None:
    """List executions, newest first."""
    asked = {**filters, "upcoming": "true" if upcoming else None}
    _http.show(_http.connect(data_dir).pages("executions", query=asked, most=limit), _COLUMNS, style)


@executions.command()
@click.argument("execution")
@_http.output
@_http.place
def get(execution: str, data_dir: Path | None, style: str) -> None:
    """Show the execution with this id."""
    _http.show_one(_http.connect(data_dir).call("GET", "executions", execution), style)


@executions.command()
@click.argument("execution")
@click.option("--attempt", type=int, help="Which attempt. Default: the latest.")
@click.option("--level", type=click.Choice(("DEBUG", "INFO", "WARN", "ERROR")), help="At least this level.")
@click.option("-q", help="Only lines with this text.")
@click.option("--follow", is_flag=True, help="Go on until the execution has ended.")
@_http.output
@_http.place
def logs(execution: str, follow: bool, data_dir: Path | None, style: str, **filters: Any) -> None:
    """Print the log of an execution, a line for each entry."""
    server = _http.connect(data_dir)
    for entry in _followed(server, execution, filters) if follow else _stored(server, execution, filters):
        if style == "json":
            click.echo(json.dumps(entry, ensure_ascii=False))
        else:
            text = f"{entry['ts'] or entry['received_at']}  {entry['level']:5}  {entry['message']}"
            click.echo(_http.printable(text) if _http.to_terminal() else text)


@dataclass(slots=True)
class _Place:
    """How far a log has been read; no attempt means the latest."""

    attempt: int | None
    seq: int = 0


def _stored(server: Server, execution: str, filters: dict[str, Any], place: _Place | None = None) -> Iterator[Any]:
    """Yield the entries that are there from `place` on, and move it behind them."""
    place = place or _Place(filters["attempt"])
    while True:
        asked = filters | {"attempt": place.attempt, "from_seq": place.seq}
        page = server.call("GET", "executions", execution, "logs", query=asked)
        for entry in page["items"]:
            place.attempt, place.seq = entry["attempt"], entry["seq"] + 1
            yield entry
        if page["next_seq"] is None:
            return
        place.seq = page["next_seq"]


def _followed(server: Server, execution: str, filters: dict[str, Any]) -> Iterator[Any]:
    """Yield entries as they come, of newer attempts too, until the execution has ended and nothing more is there."""
    place = _Place(filters["attempt"])
    while True:
        found = server.call("GET", "executions", execution)
        yield from _stored(server, execution, filters, place)
        newest = found["attempt"]
        if filters["attempt"] is None and place.attempt is not None and newest > place.attempt:
            place.attempt, place.seq = newest, 0
        elif found["status"] not in _OPEN:
            return
        else:
            time.sleep(_LOOK_EVERY)


@executions.command()
@click.argument("execution")
@click.option("--reason", default="", help="Why, for those who read its history.")
@click.option("--grace-seconds", type=click.FloatRange(0, 86_400), help="How long its worker may take to stop.")
@_http.output
@_http.place
def cancel(execution: str, reason: str, grace_seconds: float | None, data_dir: Path | None, style: str) -> None:
    """Cancel an execution that waits, or ask the worker of one that runs to stop."""
    body: dict[str, Any] = {"reason": reason}
    if grace_seconds is not None:
        body["grace_seconds"] = grace_seconds
    told = _http.connect(data_dir).call("POST", "executions", execution, "cancel", body=body)
    if style == "json":
        _http.show_one(told, style)
    else:
        click.echo(told["status"] if told["status"] not in _OPEN else "its worker has been asked to stop")
