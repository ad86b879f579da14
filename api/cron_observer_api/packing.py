"""Packing the loose chunks of logs in the background, one log at a time, beside what has to be answered."""

from __future__ import annotations

import asyncio
from uuid import UUID

import structlog

from cron_observer.errors import DatabaseError
from cron_observer.store.engine import Database
from cron_observer.store.logs import pack_loose

_log = structlog.get_logger("cron_observer.api")


class Packer:
    """One for each API process. What it does not come to, whoever appends or reads next asks for again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted: dict[tuple[UUID, UUID, int], None] = {}
        self._arrived = asyncio.Event()
        self._busy: tuple[UUID, UUID, int] | None = None
        self.packed = 0

    def note(self, tenant_id: UUID, execution_id: UUID, fence: int) -> None:
        """Remember that a claim's log has many small chunks; what is being packed will have less in a moment."""
        key = (tenant_id, execution_id, fence)
        if key != self._busy:
            self._wanted[key] = None
            self._arrived.set()

    async def run(self) -> None:
        """Pack what is noted, until cancelled."""
        while True:
            if not self._wanted:
                self._arrived.clear()
                await self._arrived.wait()
            self._busy = key = next(iter(self._wanted))
            del self._wanted[key]
            try:
                self.packed += await pack_loose(self._database, *key)
            except DatabaseError as error:
                _log.warning("log_packing_postponed", detail=error.message)
                await asyncio.sleep(1)
            except Exception:  # noqa: BLE001  one log that cannot be packed must not keep the others loose
                _log.exception("log_packing_failed")
            finally:
                self._busy = None
