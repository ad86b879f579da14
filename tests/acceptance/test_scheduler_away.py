"""Tasks fire while the scheduler is down, and a dead worker is replaced: no loop runs, only the API and workers."""

from __future__ import annotations

from pathlib import Path

from cron_observer.postgres import SUPERUSER
from cron_observer.store import bootstrap
from support.away import apart, missing, tell
from support.databases import FreshDatabase
from support.processes import Repository

TASKS, EVERY, SECONDS = 3, 1, 12.0


def test_every_slot_is_claimed_while_the_loops_are_dead(database: FreshDatabase, tmp_path: Path) -> None:
    """After kill -9 of the scheduler workers claim every slot that falls due, and the dead worker's run comes again."""
    token, _ = bootstrap.settle_in(database.url, database.url, tenant="default", projects=["default"], token=None)
    repository = Repository(tmp_path)
    assert SUPERUSER in database.url
    with apart(tmp_path, database.url, token, repository) as parts:
        story = tell(parts, repository, SECONDS, tasks=TASKS, every=EVERY)

    assert missing(story, TASKS, EVERY) == []
    again = [one for one in story.claimed if one["id"] == story.dead_worker]
    assert [one["fence"] for one in again] == [1, 2]
    assert again[1]["worker"] == "steady"
