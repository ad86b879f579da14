"""How many bytes of logs there are: summed up beside the pages, which wait for that no longer than a moment."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Final
from uuid import UUID

from cron_observer.errors import DatabaseError
from cron_observer.store import views
from cron_observer.store.engine import Database, clock
from cron_observer_api.pages.shell import HISTORY

#: Seconds for which the sum is remembered, and how many times as long as it takes: it goes through every attempt, so
#: that in a long history it takes seconds.
REMEMBERED_FOR: Final = 60.0
TIMES_AS_LONG: Final = 100

#: Seconds that a page waits for it.
PATIENCE: Final = 0.1

#: Tenants whose logs are remembered at once.
_MOST_REMEMBERED: Final = 64


class LogBook:
    """A cache of what the store says, for each tenant. Made with the app, closed with it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[UUID, tuple[float, int]] = {}
        self._asking: dict[UUID, asyncio.Task[None]] = {}

    async def read(self, tenant_id: UUID) -> int | None:
        """Return the raw bytes of the logs of the last `HISTORY` days, as of the last look; None before the first."""
        known = self._known.get(tenant_id)
        if known is None or known[0] < time.monotonic():
            asking = self._asking.get(tenant_id)
            if asking is None:
                asking = self._asking[tenant_id] = asyncio.create_task(self._ask(tenant_id), name="log book")
            await asyncio.wait([asking], timeout=PATIENCE)
            known = self._known.get(tenant_id)
        return None if known is None else known[1]

    async def _ask(self, tenant_id: UUID) -> None:
        """Sum up once. What the database refuses is asked for again by the next page."""
        try:
            began = time.monotonic()
            async with self._database.transaction([tenant_id]) as conn:
                now = await clock(conn)
                size = await views.log_bytes(conn, tenant_id, now - timedelta(days=HISTORY), now)
            ended = time.monotonic()
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[tenant_id] = (ended + max(REMEMBERED_FOR, TIMES_AS_LONG * (ended - began)), size)
        except DatabaseError:
            return
        finally:
            del self._asking[tenant_id]

    async def close(self) -> None:
        """End what is under way."""
        asking = list(self._asking.values())
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
