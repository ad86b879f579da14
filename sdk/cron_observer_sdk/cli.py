"""The console script ``cron-observer``: ``run``, ``ping``, ``spool``, and whatever other distributions add to it.

A distribution adds commands through the entry-point group ``cron_observer.commands``. Each entry point is a
function without parameters that returns a mapping: name of the command → `Command`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cron_observer_sdk import __version__

GROUP = "cron_observer.commands"
USAGE = 64  #: exit code of a wrong command line

OWN = {
    "ping": "Send a sign of life by the Healthchecks protocol",
    "run": "Run a command and report it as an execution of a task",
    "spool": "Look at what waits for a server that was away, send it, drop it",
}


class Command(Protocol):
    """What an entry point provides for each name."""

    summary: str  #: one line for ``cron-observer --help``

    def __call__(self, arguments: list[str], /) -> int:
        """Do the work for the arguments after the name; return the exit code."""


def load_commands() -> dict[str, Command]:
    """Return the commands of other distributions; say on stderr what cannot be loaded."""
    found: dict[str, Command] = {}
    for name, load in _entry_points():
        try:
            commands: Mapping[str, Command] = load()()
        except Exception as error:  # noqa: BLE001  a broken add-on must not take the others away
            _say(f"the commands of {name!r} cannot be loaded: {type(error).__name__}: {error}")
            continue
        for word in commands:
            if word not in OWN:
                found.setdefault(word, commands[word])
    return found


def _entry_points() -> list[tuple[str, Callable[[], Callable[[], Mapping[str, Command]]]]]:
    """Return (name, loader) of each entry point of our group, by name."""
    from importlib.metadata import entry_points

    # Before 3.10 there is no selection, and a distribution may be listed twice.
    points = entry_points(group=GROUP) if sys.version_info >= (3, 10) else entry_points().get(GROUP, ())
    unique = {(point.name, point.value): point for point in points}
    return [(point.name, point.load) for _, point in sorted(unique.items())]


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        sys.stderr.write(_help())
        return USAGE
    word, rest = arguments[0], arguments[1:]
    if word in {"-h", "--help", "help"}:
        sys.stdout.write(_help())
        return 0
    if word in {"-V", "--version"}:
        sys.stdout.write(f"cron-observer {__version__}\n")
        return 0
    try:
        return _own(word, rest) if word in OWN else _other(word, rest)
    except KeyboardInterrupt:
        return 130


def _own(word: str, rest: list[str]) -> int:
    """Run a command of the SDK itself."""
    if word == "ping":
        from cron_observer_sdk.ping import main
    elif word == "spool":
        from cron_observer_sdk.spool_command import main
    else:
        from cron_observer_sdk.run import main
    return main(rest)


def _other(word: str, rest: list[str]) -> int:
    """Run a command of another distribution; help with a name that nobody knows."""
    if word.startswith("-"):
        _say(f"there is no option {word}; try cron-observer --help")
        return USAGE
    commands = load_commands()
    if word in commands:
        return commands[word](rest)
    from difflib import get_close_matches

    near = get_close_matches(word, [*OWN, *commands], n=1)
    if near:
        _say(f"there is no command {word!r}; did you mean {near[0]!r}?")
    elif not commands:
        _say(f"there is no command {word!r} here; the server's commands come with the distribution cron-observer")
    else:
        _say(f"there is no command {word!r}; try cron-observer --help")
    return USAGE


def _help() -> str:
    """Return the list of commands."""
    summaries = dict(OWN)
    summaries.update((name, command.summary) for name, command in load_commands().items())
    width = max(map(len, summaries))
    lines = [f"  {name:{width}}  {summary}" for name, summary in sorted(summaries.items())]
    return "\n".join(
        [
            "usage: cron-observer COMMAND [ARGUMENT…]",
            "",
            "commands:",
            *lines,
            "",
            "cron-observer COMMAND --help explains one; --version shows the version.",
            "",
        ]
    )


def _say(message: str) -> None:
    """Write a message for the person at the terminal."""
    sys.stderr.write(f"cron-observer: {message}\n")
