"""A process that launches a server as told by its first argument, says what it got, and obeys its standard input.

It runs under a bare interpreter with nothing of the tests on its path, as whatever account a test wants.
Orders are lines: ``stop`` leaves the block and ends, ``relaunch`` leaves it and launches again.
"""

import json
import sys
from pathlib import Path

from cron_observer.errors import DatabaseError
from cron_observer.postgres import launch, launcher, providers


def _nothing(*_: object) -> None:
    pass


#: Launchers with one rule taken out, which the tests must catch.
TWINS = {
    "server outlives its holder": ("die_with_parent", lambda _: _nothing),
    "pid files are believed": ("clear_stale", _nothing),
    "nobody waits for leftovers": ("try_lock", lambda _: True),
}


def main() -> int:
    """Serve one test."""
    told = json.loads(sys.argv[1])
    if told["twin"]:
        setattr(launcher, *TWINS[told["twin"]])
    provider = providers.at(Path(told["bin_dir"])) if told["bin_dir"] else None
    while True:
        try:
            with launch(
                Path(told["data_dir"]),
                provider=provider,
                fast_and_unsafe=told["fast_and_unsafe"],
                shared=Path(told["shared"]),
            ) as server:
                say(
                    attached=server.attached,
                    data_dir=str(server.data_dir),
                    libpq=server.libpq("cron_observer_admin", "postgres"),
                    notes=server.notes,
                    pid=server.pid,
                    socket_dir=str(server.socket_dir),
                    url=server.url("cron_observer_admin", "postgres"),
                    version=server.version,
                )
                order = sys.stdin.readline().strip()
        except DatabaseError as error:
            say(error=error.message, hint=error.hint)
            return 1
        if order != "relaunch":
            return 0


def say(**facts: object) -> None:
    """Print one line of JSON."""
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
