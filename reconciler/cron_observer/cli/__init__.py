"""The server's commands, as `cron-observer` finds them: names and summaries here, everything heavy when one is run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final

#: What the shell is told: 0 ok, 1 findings or failure, 64 used wrongly.
FAILURE: Final = 1
USAGE: Final = 64


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `summary` is a line of the help, calling it runs it and returns the exit code."""

    name: str
    module: str
    summary: str

    @property
    def attribute(self) -> str:
        """What the click command is called in its module."""
        return self.module.rpartition(".")[2]

    def __call__(self, argv: list[str]) -> int:
        """Run the click command of this name in its module."""
        import click

        from cron_observer.errors import CronObserverError

        command: click.Command = getattr(import_module(self.module), self.attribute)
        try:
            result = command.main(args=argv, prog_name=f"cron-observer {self.name}", standalone_mode=False)
        except click.exceptions.Exit as stop:
            return stop.exit_code
        except click.UsageError as error:
            error.show()
            return USAGE
        except click.ClickException as error:
            error.show()
            return FAILURE
        except (click.Abort, KeyboardInterrupt):
            return 130
        except CronObserverError as error:
            print(f"error: {error.message}", file=sys.stderr)  # noqa: T201  a command speaks on the terminal
            if error.hint:
                print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
            return FAILURE
        return result if isinstance(result, int) else 0


_COMMANDS: Final = (
    ("up", "Run everything on this machine: database, API, loops, demo"),
    ("serve", "Run one or more roles against a database of yours"),
    ("validate", "Check manifests offline: every finding with file, line and column"),
    ("plan", "Say what a change of manifests will do, and which fires it moves"),
    ("render", "Show tasks with their defaults, and where each value comes from"),
    ("explain", "Say when a schedule fires, and why"),
    ("init", "Begin a folder of manifests: a first task, and checks for the forge"),
    ("import", "Write manifests from crontabs and Kubernetes CronJobs"),
    ("tasks", "List, read, trigger, pause and detach tasks"),
    ("executions", "List, read and cancel executions; print their logs"),
    ("sources", "List sources, make them look for commits now, approve, suspend"),
    ("token", "Create, list and revoke API keys"),
    ("db", "Migrate the database, or copy it to a file"),
    ("config", "Show every setting and where its value came from"),
    ("doctor", "Check this machine and the database, with a mend for each trouble"),
)

#: Modules that are not called like their command, because Python has other plans for the word.
_MODULES: Final = {"import": "importing"}


def commands() -> Mapping[str, Command]:
    """Return the server's commands by name."""
    return {
        name: Command(name, f"cron_observer.cli.{_MODULES.get(name, name)}", summary) for name, summary in _COMMANDS
    }
