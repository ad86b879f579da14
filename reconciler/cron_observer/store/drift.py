"""Files of which another number of things is in force than they declare: somebody has touched our tables."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.sources import Lease

_DRIFTED: Final = text("""
    WITH living AS (
        SELECT path FROM tasks
        WHERE tenant_id = :tenant_id AND source_id = :source_id AND project_id = :project_id
          AND sync = 'SYNCED' AND removed_at IS NULL
        UNION ALL
        SELECT path FROM calendars
        WHERE tenant_id = :tenant_id AND source_id = :source_id AND project_id = :project_id
          AND sync = 'SYNCED' AND removed_at IS NULL
        UNION ALL
        SELECT path FROM task_groups
        WHERE tenant_id = :tenant_id AND source_id = :source_id AND project_id = :project_id
          AND sync = 'SYNCED' AND removed_at IS NULL
        UNION ALL
        SELECT path FROM layers
        WHERE tenant_id = :tenant_id AND source_id = :source_id AND project_id = :project_id
          AND sync = 'SYNCED' AND removed_at IS NULL
    ), numbers AS (
        SELECT path, count(*) AS number FROM living GROUP BY path
    )
    SELECT f.path FROM manifest_files AS f
    LEFT JOIN numbers AS n ON n.path = f.path
    WHERE f.tenant_id = :tenant_id AND f.source_id = :source_id AND f.state = 'ok'
      AND f.documents <> coalesce(n.number, 0)""")


async def drifted(conn: AsyncConnection, held: Lease) -> set[str]:
    """Return the valid files of a source of which more or less is in force than they declare. Reads every row."""
    key = {"tenant_id": held.tenant_id, "source_id": held.source_id, "project_id": held.project_id}
    return set((await conn.execute(_DRIFTED, key)).scalars())
