"""The history of plans: from which inputs each generation of a task's slots was made, and from when on.

Nothing reads it to plan. It says later what should have been: the ledger's check goes by it, and ranges are cut by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store import arrays
from cron_observer.store.engine import fetch

#: The end of a statement that has plans, as they are written, in the rows ``p``.
NOTE: Final = """
INSERT INTO plan_history (
    tenant_id, task_uid, generation, active, schedule, effective_from, tzdata_version, holidays_version, created_at
)
SELECT %(tenant)s, p.task_uid, p.generation, p.active, p.schedule, p.effective_from, p.tzdata_version,
    p.holidays_version, %(now)s
FROM p
ON CONFLICT DO NOTHING
"""

_NOTE: Final = f"""
WITH p AS (SELECT * FROM task_plan WHERE tenant_id = %(tenant)s AND task_uid = ANY (%(uids)s::uuid[]))
{NOTE}
"""


async def note(conn: AsyncConnection, tenant_id: UUID, uids: Sequence[UUID], now: datetime) -> None:
    """Note the generations that the plans of these tasks have, in the transaction that begins them."""
    await fetch(conn, _NOTE, {"tenant": tenant_id, "uids": arrays.uuids(uids), "now": now})
