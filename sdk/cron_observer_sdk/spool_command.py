"""``cron-observer spool``: look at what waits for the server, send it, drop it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from cron_observer_sdk.client import Client
from cron_observer_sdk.errors import NotConfigured
from cron_observer_sdk.options import Parser
from cron_observer_sdk.replay import replay
from cron_observer_sdk.segment import LogEntry, Segment
from cron_observer_sdk.spool import Spool, Waiting

#: What is known of a ping may be used by anybody who reads it.
_SECRET = {"url", "body"}


def parser() -> Parser:
    """Return the parser."""
    made = Parser(
        prog="cron-observer spool",
        description="What could not be reported waits in the spool, on this machine.",
        epilog="Exit codes: 0 all is well; 1 something is left that should not be; 64 the command line is wrong.",
        allow_abbrev=False,
    )
    words = made.add_subparsers(dest="word", metavar="WORD", required=True, parser_class=Parser)
    listing = words.add_parser("list", help="list what waits, and what the server refused", allow_abbrev=False)
    listing.add_argument("--format", choices=("table", "json"), default="table")
    flush = words.add_parser("flush", help="send what waits to the server", allow_abbrev=False)
    flush.add_argument("--refused", action="store_true", help="try what the server refused once more as well")
    flush.add_argument(
        "--any-server", action="store_true", help="also what was written for another address of the server"
    )
    show = words.add_parser("show", help="print a file as JSON lines", allow_abbrev=False)
    show.add_argument("name", metavar="NAME")
    drop = words.add_parser("drop", help="delete files", allow_abbrev=False)
    drop.add_argument("name", metavar="NAME", nargs="*")
    drop.add_argument("--refused", action="store_true", help="everything that the server refused")
    return made


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit code."""
    reader = parser()
    asked = reader.parse_args(list(arguments))
    try:
        spool = Spool()
        if asked.word == "list":
            return _list(spool, asked)
        if asked.word == "flush":
            return _flush(spool, asked)
        if asked.word == "show":
            return _show(spool, asked.name)
        if not asked.name and not asked.refused:
            reader.error("name what to drop, or say --refused")
        return _drop(spool, asked)
    except OSError as error:
        _say(f"the spool cannot be used: {error}")
        return 1


def _list(spool: Spool, asked: argparse.Namespace) -> int:
    """Print what there is."""
    looked = (spool.look(path) for path in (*spool.waiting(), *spool.refused()))
    found = [one for one in looked if one is not None]
    dropped = spool.dropped()
    if asked.format == "json":
        sys.stdout.write(json.dumps({"items": [one._asdict() for one in found], "dropped": dropped}) + "\n")
        return 0
    rows = [("NAME", "STATE", "TASK", "BEGAN", "LINES", "OUTCOME", "REASON"), *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if found:
        for row in rows:
            sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() + "\n")
    else:
        sys.stdout.write("the spool is empty\n")
    if dropped:
        sys.stdout.write(f"dropped so far: {dropped['files']} files with {dropped['lines']} lines\n")
    return 0


def _row(one: Waiting) -> tuple[str, ...]:
    """Return a line of the table."""
    return (one.name, one.state, one.what or "-", one.at or "-", str(one.lines), one.outcome or "-", one.reason)


def _flush(spool: Spool, asked: argparse.Namespace) -> int:
    """Send what waits."""
    try:
        client = Client()
    except NotConfigured as error:
        _say(str(error))
        return 1
    with client:
        tally = replay(spool, client, seconds=float("inf"), refused=asked.refused, any_server=asked.any_server)
    for reason in tally.reasons:
        _say(f"not taken: {reason}")
    stopped = tally.away or tally.stopped
    if stopped:
        _say(stopped)
    left = len(spool.waiting())
    sys.stdout.write(f"delivered {tally.delivered}, refused {tally.refused}, left {left}\n")
    if left and not client.configured:
        _say(f"{client.missing}: runs were left where they are")
    elif left and not (stopped or asked.any_server or tally.left):
        _say("what is left is for another address, or in the hands of a process (--any-server sends it here)")
    return 1 if stopped or tally.refused or left else 0


def _show(spool: Spool, name: str) -> int:
    """Print the contents of a file."""
    path = spool.find(name)
    segment = None if path is None else Segment.take(path)
    if segment is None:
        _say(f"there is no {name!r} in the spool, or a process holds it")
        return 1
    try:
        for entry in segment.entries():
            if isinstance(entry, LogEntry):
                sys.stdout.write(f'{{"kind": "line", "seq": {entry.seq}, "entry": {entry.encoded.decode()}}}\n')
                continue
            hide = _SECRET if entry.said.get("what") == "ping" else set()
            shown = {key: "***" if key in hide else value for key, value in entry.said.items()}
            sys.stdout.write(json.dumps(shown, ensure_ascii=False) + "\n")
    finally:
        segment.close()
    return 0


def _drop(spool: Spool, asked: argparse.Namespace) -> int:
    """Delete files."""
    code = 0
    paths = list(spool.refused()) if asked.refused else []
    for name in asked.name:
        path = spool.find(name)
        if path is None:
            _say(f"there is no {name!r} in the spool")
            code = 1
        elif path not in paths:
            paths.append(path)
    for path in paths:
        if not spool.drop(path):
            _say(f"{path.name} is in the hands of a process")
            code = 1
    return code


def _say(message: str) -> None:
    """Write a message for the person at the terminal."""
    sys.stderr.write(f"cron-observer: {message}\n")
