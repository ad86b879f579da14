"""The arguments of ``cron-observer run``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from cron_observer_sdk.ids import TASK

USAGE = 64  #: exit code of a wrong command line, as sysexits.h has it

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

EPILOG = """\
The command runs whether or not Cron Observer can be reached. Its exit code is returned unchanged:
128+n if signal n ended it, 127 if it was not found, 126 if it cannot be run, 64 for a wrong command line.
Its output passes through untouched and becomes the log: stdout as INFO, stderr as WARN.
It finds CRON_OBSERVER_EXECUTION_ID, _TASK, _ATTEMPT, _SCHEDULED_FOR and _PAYLOAD in its environment.

CRON_OBSERVER_URL and CRON_OBSERVER_TOKEN say where to report.
"""


class RunOptions(NamedTuple):
    """What the command line asks for. Times are in seconds."""

    task: str
    lease: float
    timeout: float | None
    grace: float
    queues: tuple[str, ...] | None
    no_output: bool


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors exit with 64."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how the line should look."""
        self.exit(USAGE, f"{self.format_usage()}{self.prog}: {message}\n")


def duration(text: str) -> float:
    """Read ``30s``, ``15m``: digits and one of ms, s, m, h, d."""
    match = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: write 30s, 15m or 2h")
    return int(match.group(1)) * _UNITS[match.group(2)]


def lease(text: str) -> float:
    """Read a duration of 5 s to 1 h."""
    seconds = duration(text)
    if not 5 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("a lease is 5s to 1h")
    return seconds


def task_name(text: str) -> str:
    """Read ``project/name`` or a uid."""
    if TASK.fullmatch(text) is None:
        hint = f", such as default/{text}" if re.fullmatch(r"[a-z0-9][-a-z0-9.]*", text) else ""
        raise argparse.ArgumentTypeError(f"{text!r} is not a task: write project/name{hint}")
    return text


def parser() -> Parser:
    """Return the parser for what comes before ``--``."""
    made = Parser(
        prog="cron-observer run",
        usage="cron-observer run [options] TASK -- COMMAND [ARGUMENT…]",
        description="Run a command and report it as an execution of a task.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("task", metavar="TASK", type=task_name, help="project/name, or the task's uid")
    made.add_argument(
        "--lease",
        type=lease,
        default=30.0,
        metavar="TIME",
        help="how long the run counts as alive without a sign of life (default 30s)",
    )
    made.add_argument(
        "--timeout", type=duration, metavar="TIME", help="end the command after this time; the run has failed"
    )
    made.add_argument(
        "--grace",
        type=duration,
        default=10.0,
        metavar="TIME",
        help="time between SIGTERM and SIGKILL when it is ended (default 10s)",
    )
    made.add_argument(
        "--queue",
        action="append",
        metavar="NAME",
        help="take a due slot of the task from this queue only; may be repeated",
    )
    made.add_argument("--no-output", action="store_true", help="do not send the output, only the outcome")
    return made


def read(arguments: Sequence[str]) -> tuple[RunOptions, list[str]]:
    """Return the options and the command. Exit with 64 where the line is wrong."""
    reader = parser()
    ours = list(arguments)
    command: list[str] = []
    if "--" in ours:
        place = ours.index("--")
        ours, command = ours[:place], ours[place + 1 :]
    found = reader.parse_args(ours)
    if not command:
        reader.error("the command is missing: write it after --")
    queues = tuple(found.queue) if found.queue else None
    options = RunOptions(found.task, found.lease, found.timeout, found.grace, queues, found.no_output)
    return options, command
