"""Hints between processes: somebody asks for a look at a source, and no reconciler should sleep until its next tick.

Nothing depends on a hint. What is to be done stands in rows, and a tick finds it there when no hint comes through: a
pooler that hands out connections by transaction swallows them all. Telling takes a lock of the whole database at the
commit, so only what people and forges ask for is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.engine import Database

log = structlog.get_logger()

#: Seconds until a connection that was lost is opened anew: at first, and at most.
_FIRST: Final = 1.0
_LONGEST: Final = 60.0

_TELL: Final = text("SELECT pg_notify('cron_observer_sync', '')")

_HEAR: Final = "LISTEN cron_observer_sync"


async def tell(conn: AsyncConnection) -> None:
    """Wake every reconciler that listens, once this transaction has committed."""
    await conn.execute(_TELL)


async def listen(database: Database, heard: Callable[[], None]) -> None:
    """Call `heard` at every hint, and whenever hints may have been lost, until cancelled.

    It takes a connection of its own beside the pool. One that is lost is opened anew after a growing wait.
    """
    wait = _FIRST
    while True:
        try:
            async with database.listening(_HEAR) as notices:
                heard()
                wait = _FIRST
                async for _ in notices:
                    heard()
        except Exception as error:  # noqa: BLE001  without hints the ticks do the work
            log.info("hints_lost", reason=str(error).splitlines()[0] if str(error) else type(error).__name__)
        await asyncio.sleep(wait)
        wait = min(_LONGEST, wait * 2)
