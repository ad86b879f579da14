"""Say that pings can be received, so that silence proves something; and find out when they could not."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import structlog

from cron_observer.errors import DatabaseError
from cron_observer.schedule import new_id
from cron_observer.store import checkin_rows
from cron_observer.store.engine import Database, clock

_log = structlog.get_logger("cron_observer.api")

#: Seconds between two words of ours.
BEAT: Final = 2.0

#: How far back the last word may lie when this process has just come, or could not write its own: what lies further
#: back was an outage. One that has been here all the time is late for other reasons now and then.
NEW: Final = timedelta(seconds=3)


class Receiving:
    """One for each API process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sure = False  #: the last word was written, by this process

    async def beat(self) -> int:
        """Note that pings are received now; return how many outages ended with that. Raises `DatabaseError`."""
        sure, self._sure = self._sure, False
        async with self._database.transaction([]) as conn:
            now = await clock(conn)
            ended = await checkin_rows.receive(conn, now, checkin_rows.PATIENCE if sure else NEW, new_id(now))
        self._sure = True
        if ended:
            _log.warning("pings_unobserved", tenants=ended)
        return ended

    async def run(self) -> None:
        """Note it every two seconds for as long as the task lives."""
        while True:
            try:
                await self.beat()
            except DatabaseError as error:
                # whoever pings is told 503 meanwhile, and the next word finds the gap
                _log.debug("pings_unreceived", detail=error.message)
            except Exception:  # noqa: BLE001  whatever it is, later words are to be said
                _log.exception("loop_failed", loop="receiving")
            await asyncio.sleep(BEAT)
