"""Task groups as manifests declare them. Removed ones keep uid and content, so that a revert restores them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.plan import GROUP, Actual, Plan
from cron_observer.store import declared
from cron_observer.store.sources import Lease

_STATEMENTS: Final = declared.statements(GROUP, "task_groups", "group_uid")


async def inventory(conn: AsyncConnection, held: Lease) -> list[Actual]:
    """Return every group of the source's project, whoever owns it."""
    return await declared.inventory(conn, held, _STATEMENTS)


async def apply(conn: AsyncConnection, held: Lease, plan: Plan, now: datetime) -> None:
    """Write what a plan says about groups. Raises `Stale` when they are no longer what it was made from."""
    await declared.apply(conn, held, plan, _STATEMENTS, now)
