"""``cron-observer sources``: list sources and make them look for commits, through a server's API."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import rich_click as click

from cron_observer.cli import _http
from cron_observer.errors import DatabaseError

_COLUMNS: Final = (
    ("NAME", "name"),
    ("PROJECT", "project"),
    ("REF", "ref"),
    ("OBSERVED", "observed_commit"),
    ("APPLIED", "applied_commit"),
    ("AT", "applied_at"),
    ("URL", "url"),
)

#: Seconds between two looks of ``sync --wait``, and seconds that it waits at most.
_LOOK_EVERY: Final = 0.2
_WAIT_MAX: Final = 120.0


@click.group()
def sources() -> None:
    """List sources, and make them look for commits now."""


@sources.command("list")
@_http.output
@_http.place
def list_(data_dir: Path | None, style: str) -> None:
    """List sources by name."""
    _http.show(_http.connect(data_dir).pages("sources"), _COLUMNS, style)


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
