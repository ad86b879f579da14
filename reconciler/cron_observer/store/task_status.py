"""How a task stands, as SQL that lists, reads and pages share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cron_observer.store import shapes

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


#: Why a task is not ready, by its status.
_NOT_READY: Final = {
    "PAUSED": ("Paused", "it is paused: its slots are skipped"),
    "DISABLED": ("Suspended", "its manifest, or its task group, suspends it: it has no slots"),
    "QUARANTINED": ("Quarantined", "its schedule cannot be evaluated: it has no slots"),
    "DELETING": ("Deleting", "it is being deleted"),
    "REMOVED": ("Removed", "its manifest is gone: it has no slots, and its history is kept"),
}

#: What `sync` says of a task that a manifest owns.
_IN_SYNC: Final = {
    "SYNCED": ("True", "Applied", "what the manifest declares is in force"),
    "KEPT_LAST_GOOD": ("False", "KeptLastGood", "the manifest is broken: its last good version is in force"),
    "HELD": ("False", "Held", "the manifest is gone, and the removal waits: the source says what for"),
}


def conditions(row: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """Return what is true of a task and why, derived from its row: Ready, InSync, Scheduled, Paused.

    InSync is of tasks alone that a manifest owns, Paused of those that are. `since` is known of pauses.
    """
    status, sync = row["status"], row["sync"]
    reason, message = _NOT_READY.get(status, ("Ready", "it fires as its schedule says"))
    made = {"Ready": _condition("False" if status in _NOT_READY else "True", reason, message)}
    if row["owner"] == "manifest" and sync is not None:
        made["InSync"] = _condition(*_IN_SYNC[sync])
        if sync == "KEPT_LAST_GOOD" and status == "ACTIVE":
            made["Ready"] = _condition("True", *_IN_SYNC[sync][1:])
    if status in ("ACTIVE", "PAUSED"):
        made["Scheduled"] = _condition("True", "Planned", "its slots are planned ahead")
    else:
        made["Scheduled"] = _condition("False", reason, row["quarantine"] or message)
    if status == "PAUSED":
        told = row["pause_reason"] or "no reason was given"
        made["Paused"] = _condition("True", "Paused", f"{told} ({row['pause_author']})") | {
            "since": shapes.instant(row["pause_since"])
        }
    return made


def _condition(status: str, reason: str, message: str) -> dict[str, Any]:
    return {"status": status, "reason": reason, "message": message, "since": None}
