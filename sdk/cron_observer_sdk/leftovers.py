"""Replays what the spool holds, wherever there is an occasion. Nothing here raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cron_observer_sdk.client import Client
from cron_observer_sdk.notice import Notices

if TYPE_CHECKING:
    from cron_observer_sdk.replay import Tally


def replay_some(
    client: Client, notices: Notices, *, task: str | None = None, seconds: float = 60.0, largest: int | None = None
) -> Tally | None:
    """Replay what waits for this client's server: of one task, and of small files only, if these are named.

    Return None if there is no spool, or nothing in it.
    """
    try:
        from cron_observer_sdk.replay import replay
        from cron_observer_sdk.spool import Spool

        spool = Spool()
        if not spool.waiting():
            return None
        tally = replay(spool, client, task=task, seconds=seconds, largest=largest)
    except (OSError, ImportError):
        return None
    for reason in tally.reasons:
        notices.say(f"refused {reason}", f"a spooled report was not taken: {reason}")
    return tally
