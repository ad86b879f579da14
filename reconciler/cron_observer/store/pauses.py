"""Pauses as everybody who plans or hands out slots sees them. What begins and ends one is `pausing`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.model import Pause
from cron_observer.store.engine import fetch

#: What ended longer ago holds no slot that is still to be planned or handed out.
RECENT: Final = timedelta(days=24)

_IN_FORCE: Final = """
SELECT p.task_uid, p.since, p.ended_at, p.until
FROM pauses p
WHERE p.tenant_id = %(tenant)s AND p.task_uid = ANY (%(uids)s::uuid[]) AND p.ended_at IS NULL
UNION ALL
SELECT p.task_uid, p.since, p.ended_at, p.until
FROM pauses p
WHERE p.tenant_id = %(tenant)s AND p.task_uid = ANY (%(uids)s::uuid[])
  AND p.followed_at IS NULL AND p.ended_at > %(recently)s
"""


async def in_force(conn: AsyncConnection, tenant_id: UUID, uids: Sequence[UUID], now: datetime) -> dict[UUID, Pause]:
    """Return, for each of these tasks, the pause that its slots obey at `now`; none is left out.

    Also one that has just ended, until the scheduler has followed it, so that slots which are planned late are
    still recognised. Two that touch or overlap are told as one; of two with time between them, the newer one.
    """
    if not uids:
        return {}
    found: dict[UUID, Pause] = {}
    rows = await fetch(conn, _IN_FORCE, {"tenant": tenant_id, "uids": list(uids), "recently": now - RECENT})
    for uid, since, ended_at, until in sorted(rows, key=lambda row: (row[0], row[1])):
        one, known = Pause(since, ended_at or until), found.get(uid)
        found[uid] = _joined(known, one) if known and (known.until is None or known.until >= since) else one
    return found


def _joined(first: Pause, second: Pause) -> Pause:
    ends = (first.until, second.until)
    return Pause(first.since, None if None in ends else max(end for end in ends if end is not None))


async def follow(conn: AsyncConnection, tenant_id: UUID, now: datetime, limit: int = 100) -> int:
    """Do what is left to do for up to `limit` pauses, in this transaction; return how many are done with."""
    # planning and claims read pauses, and what follows them needs both
    from cron_observer.store import pausing

    return await pausing.follow(conn, tenant_id, now, limit)
