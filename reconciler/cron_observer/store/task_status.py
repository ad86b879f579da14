"""How a task stands, as SQL that lists, reads and pages share."""

from __future__ import annotations

from typing import Final

#: The pause that is in force, as `pause`; of a statement over ``tasks AS t`` with the parameter ``:now``.
PAUSE_JOIN: Final = """
    LEFT JOIN LATERAL (
        SELECT x.since, x.until, x.reason, x.author, x.on_resume FROM pauses AS x
        WHERE x.tenant_id = t.tenant_id AND x.task_uid = t.task_uid AND x.ended_at IS NULL
          AND (x.until IS NULL OR x.until > :now)) AS pause ON true"""

PAUSE_COLUMNS: Final = """
    pause.since AS pause_since, pause.until AS pause_until, pause.reason AS pause_reason,
    pause.author AS pause_author, pause.on_resume AS pause_on_resume"""

#: T.status of the wire, in the order in which its words win; needs `PAUSE_JOIN`.
STATUS: Final = """
    CASE WHEN t.deleting_at IS NOT NULL THEN 'DELETING'
         WHEN t.removed_at IS NOT NULL THEN 'REMOVED'
         WHEN t.quarantine IS NOT NULL THEN 'QUARANTINED'
         WHEN pause.since IS NOT NULL THEN 'PAUSED'
         WHEN t.spec -> 'suspend' = 'true' OR EXISTS (
             SELECT FROM task_groups AS g
             WHERE g.tenant_id = t.tenant_id AND g.project_id = t.project_id AND g.name = t.spec ->> 'group'
               AND g.removed_at IS NULL AND g.spec -> 'suspend' = 'true') THEN 'DISABLED'
         ELSE 'ACTIVE' END"""
