"""The arguments of ``cron-observer run``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from cron_observer_sdk.envfile import read_env_file
from cron_observer_sdk.ids import TASK
from cron_observer_sdk.redact import Redactor

USAGE = 64  #: exit code of a wrong command line, as sysexits.h has it

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}

EPILOG = """\
The command runs whether or not Cron Observer can be reached. Its exit code is returned unchanged:
128+n if signal n ended it, 127 if it was not found, 126 if it cannot be run, 64 for a wrong command line,
75 if --lock kept it from starting.
Its output passes through untouched and becomes the log: stdout as INFO, stderr as WARN.
It finds CRON_OBSERVER_EXECUTION_ID, _TASK, _ATTEMPT, _FENCE, _SCHEDULED_FOR and _PAYLOAD in its environment, and a
CRON_OBSERVER_RUN_TOKEN for this run alone; CRON_OBSERVER_TOKEN is taken away from it.

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
    quiet: bool = False
    tail_bytes: int | None = None
    success_codes: tuple[int, ...] = (0,)
    lock: bool = False
    jitter: float = 0.0
    redact: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()  #: from --env-from-file
    result_file: str | None = None
    keep_token: bool = False
    ping: str | None = None  #: a ping URL in place of a task


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


def queue_name(text: str) -> str:
    """Read the name of a queue that workers claim from."""
    if text.startswith("@"):
        raise argparse.ArgumentTypeError(f"{text!r}: queues that begin with @ are the platform's own")
    return text


def size(text: str) -> int:
    """Read ``500``, ``64k``, ``1M``: bytes, in units of 1024."""
    match = re.fullmatch(r"([0-9]{1,12})([kKmMgG]?)", text)
    if match is None or int(match.group(1)) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write 64k or 1M")
    return int(match.group(1)) * _SIZES[match.group(2).lower()]


def codes(text: str) -> tuple[int, ...]:
    """Read exit codes between commas."""
    if not re.fullmatch(r"[0-9]{1,3}(,[0-9]{1,3})*", text) or any(int(code) > 255 for code in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} are not exit codes: write 0,3")
    return tuple(sorted({int(code) for code in text.split(",")}))


def pattern(text: str) -> str:
    """Read a regular expression."""
    try:
        Redactor([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def env_file(name: str) -> tuple[tuple[str, str], ...]:
    """Read a file of variables."""
    try:
        return tuple(read_env_file(name).items())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {name}: {error.strerror}") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parser() -> Parser:
    """Return the parser for what comes before ``--``."""
    made = Parser(
        prog="cron-observer run",
        usage="cron-observer run [options] TASK -- COMMAND [ARGUMENT…]\n"
        "       cron-observer run [options] --ping URL -- COMMAND [ARGUMENT…]",
        description="Run a command and report it as an execution of a task.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("task", metavar="TASK", nargs="?", type=task_name, help="project/name, or the task's uid")
    made.add_argument(
        "--ping", metavar="URL", help="report by the Healthchecks protocol in place of a task: a URL, UUID or KEY/SLUG"
    )
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
        type=queue_name,
        action="append",
        metavar="NAME",
        help="take a due slot of the task from this queue only; may be repeated",
    )
    made.add_argument(
        "--jitter", type=duration, default=0.0, metavar="TIME", help="begin a random time later, up to this"
    )
    made.add_argument(
        "--lock",
        action="store_true",
        help="do not start the command while another run with --lock of the task "
        "is going on on this host; exit with 75",
    )
    made.add_argument(
        "--success-codes", type=codes, default=(0,), metavar="N,N", help="exit codes that count as finished (default 0)"
    )
    _add_output(made)
    _add_files(made)
    return made


def _add_output(made: Parser) -> None:
    """Add what becomes of the output."""
    shown = made.add_mutually_exclusive_group()
    shown.add_argument("--tee", action="store_true", help="pass the output on as well (so it is without an option)")
    shown.add_argument("--quiet", action="store_true", help="do not pass the output on, only report it")
    sent = made.add_mutually_exclusive_group()
    sent.add_argument("--no-output", action="store_true", help="do not send the output, only the outcome")
    sent.add_argument(
        "--tail-bytes", type=size, metavar="SIZE", help="send only the end of the output, when it is there: 64k, 1M"
    )
    made.add_argument(
        "--redact", type=pattern, action="append", metavar="REGEX",
        help="send *** in place of what matches, in any line of output; may be repeated",
    )  # fmt: skip


def _add_files(made: Parser) -> None:
    """Add what is read and handed on."""
    made.add_argument(
        "--env-from-file", type=env_file, metavar="FILE", help="take variables from a file, for the command and for us"
    )
    made.add_argument("--result-file", metavar="FILE", help="JSON that the command writes there becomes the result")
    made.add_argument("--keep-token", action="store_true", help="leave CRON_OBSERVER_TOKEN to the command")


def read(arguments: Sequence[str]) -> tuple[RunOptions, list[str]]:
    """Return the options and the command. Exit with 64 where the line is wrong."""
    reader = parser()
    ours = list(arguments)
    command: list[str] = []
    if "--" in ours:
        place = ours.index("--")
        ours, command = ours[:place], ours[place + 1 :]
    found = reader.parse_args(ours)
    if found.task is None and found.ping is None:
        reader.error("the following arguments are required: TASK")
    if found.task is not None and found.ping is not None:
        reader.error("a task or --ping, not both")
    if not command:
        reader.error("the command is missing: write it after --")
    return _options(found), command


def _options(found: argparse.Namespace) -> RunOptions:
    """Return what the parser found."""
    return RunOptions(
        task=found.task or "",
        lease=found.lease,
        timeout=found.timeout,
        grace=found.grace,
        queues=tuple(found.queue) if found.queue else None,
        no_output=found.no_output,
        quiet=found.quiet,
        tail_bytes=found.tail_bytes,
        success_codes=found.success_codes,
        lock=found.lock,
        jitter=found.jitter,
        redact=tuple(found.redact or ()),
        environment=found.env_from_file or (),
        result_file=found.result_file,
        keep_token=found.keep_token,
        ping=found.ping,
    )
