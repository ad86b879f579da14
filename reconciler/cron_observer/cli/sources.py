"""``cron-observer sources``: list, sync, suspend and resume sources, approve removals; through a server's API."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import rich_click as click

from cron_observer.cli import _http
from cron_observer.cli.instants import Instant
from cron_observer.errors import DatabaseError

_COLUMNS: Final = (
    ("NAME", "name"),
    ("PROJECT", "project"),
    ("REF", "ref"),
    ("OBSERVED", "observed_commit"),
    ("APPLIED", "applied_commit"),
    ("AT", "applied_at"),
    ("HELD", "held_count"),
    ("SUSPENDED", "suspended.reason"),
    ("URL", "url"),
)

#: Seconds between two looks of ``sync --wait``, and seconds that it waits at most.
_LOOK_EVERY: Final = 0.2
_WAIT_MAX: Final = 120.0


@click.group()
def sources() -> None:
    """List sources, make them look for commits now, approve removals, suspend and resume."""


@sources.command("list")
@_http.output
@_http.place
def list_(data_dir: Path | None, style: str) -> None:
    """List sources by name."""
    found = _http.connect(data_dir).pages("sources")
    if style == "table":
        found = (one | {"held_count": len(one["held"]) or None} for one in found)
    _http.show(found, _COLUMNS, style)


@sources.command()
@click.argument("source")
@click.option("--wait", is_flag=True, help="Return when the pass has ended.")
@_http.output
@_http.place
def sync(source: str, wait: bool, data_dir: Path | None, style: str) -> None:
    """Make SOURCE look for commits now."""
    server = _http.connect(data_dir)
    asked = server.call("POST", "sources", source, "sync")
    if not wait:
        _http.show_one(asked, style)
        return
    end = time.monotonic() + _WAIT_MAX
    while time.monotonic() < end:
        found = server.call("GET", "sources", source)
        if found["handled_seq"] >= asked["requested_seq"]:
            _http.show_one(found, style)
            return
        time.sleep(_LOOK_EVERY)
    raise DatabaseError(f"the pass over {source} has not ended after {_WAIT_MAX:g} s", hint="is a reconciler running?")


@sources.command()
@click.argument("source")
@click.argument("plan_hash", metavar="HASH")
@click.option("--reason", help="Why; it is written to the audit log.")
@_http.output
@_http.place
def approve(source: str, plan_hash: str, reason: str | None, data_dir: Path | None, style: str) -> None:
    """Approve the removals that wait in SOURCE under the plan HASH, as findings and the page show it."""
    body = {"plan_hash": plan_hash, "reason": reason}
    _http.show_one(_http.connect(data_dir).call("POST", "sources", source, "approvals", body=body), style)


@sources.command()
@click.argument("source")
@click.option("--reason", required=True, help="Why; everybody sees it.")
@click.option("--until", type=Instant(ahead=True), help="When it ends by itself: a time with an offset, or 6h.")
@_http.output
@_http.place
def suspend(source: str, reason: str, until: str | None, data_dir: Path | None, style: str) -> None:
    """Let nobody look at SOURCE for a while; what is applied runs on."""
    body = {"reason": reason, "until": until}
    _show(_http.connect(data_dir).call("POST", "sources", source, "suspend", body=body), style)


@sources.command()
@click.argument("source")
@click.option("--reason", default="", help="Why.")
@_http.output
@_http.place
def resume(source: str, reason: str, data_dir: Path | None, style: str) -> None:
    """End the suspension of SOURCE; it is looked at at once."""
    _show(_http.connect(data_dir).call("POST", "sources", source, "resume", body={"reason": reason}), style)


def _show(found: dict[str, Any], style: str) -> None:
    if style == "json":
        _http.show_one(found, style)
        return
    _http.show_one(
        {"source": found["name"], "suspended": found["suspended"] is not None} | (found["suspended"] or {}), style
    )
