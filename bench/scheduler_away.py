"""The scheduler is killed with -9 and stays away for minutes, while slots fall due and one worker dies.

Goal: no slot is missed. The dead worker's execution is offered again. The figure is the number of slots that no
worker got; the limit is the number that fell due.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from common import Repository, arguments

from cron_observer.store import bootstrap
from support import databases
from support.away import apart, missing, tell


def main() -> None:
    """Kill, wait, count."""
    asked = arguments(__doc__ or "", minutes=10, tasks=5, every=2)
    with tempfile.TemporaryDirectory(prefix="co-away-") as name, databases.server() as server:
        folder = Path(name)
        folder.chmod(0o755)
        with databases.template(server) as template, databases.fresh(server, template) as database:
            url = database.url
            token, _ = bootstrap.settle_in(url, url, tenant="default", projects=["default"], token=None)
            repository = Repository(folder)
            with apart(folder, url, token, repository) as parts:
                story = tell(parts, repository, asked.minutes * 60, tasks=asked.tasks, every=asked.every)
    lost = missing(story, asked.tasks, asked.every)
    due = asked.tasks * asked.minutes * 60 // asked.every
    again = [one["fence"] for one in story.claimed if one["id"] == story.dead_worker]
    print(f"scheduler away {story.away_from:%H:%M:%S} to {story.away_until:%H:%M:%S} UTC, killed with -9")
    print(f"slots due {due}, claimed by a worker {due - len(lost)}, missed {len(lost)} (goal 0)")
    print(f"the dead worker's execution was claimed with fences {again}")
    if lost or again[:2] != [1, 2]:
        print("MISSED")
        sys.exit(1)
    print("met")


if __name__ == "__main__":
    main()
