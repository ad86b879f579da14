"""What forges are to show beside commits: put down by passes, sent by the reporter.

There is one row for each commit and context. A newer state takes the place of an older one, sent or not; the same
state again is no news. Whoever sends a row claims it first, so that no two senders tell of it at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.sources import Lease

#: Characters of a description: what the forge with the narrowest field shows.
LONGEST: Final = 140

#: A newer state keeps the time of a row that is being sent or tried again: the two must not overtake each other.
_PUT: Final = text("""
    INSERT INTO commit_statuses AS c
        (tenant_id, source_id, commit, context, state, description, run_id, due_at, created_at)
    SELECT s.tenant_id, s.source_id, CAST(:commit AS text),
        'cron-observer/' || coalesce(s.environment, 'default') || '/' || s.name,
        CAST(:state AS text), CAST(:description AS text), CAST(:run_id AS uuid), :now, :now
    FROM sources AS s WHERE s.tenant_id = :tenant_id AND s.source_id = :source_id
    ON CONFLICT (tenant_id, source_id, commit, context) DO UPDATE SET state = excluded.state,
        description = excluded.description, run_id = excluded.run_id, created_at = excluded.created_at,
        due_at = CASE WHEN c.sent_at IS NULL AND c.gave_up_at IS NULL THEN c.due_at ELSE excluded.due_at END,
        sent_at = NULL, gave_up_at = NULL, attempts = 0, error = NULL
    WHERE c.gave_up_at IS NOT NULL OR c.state <> excluded.state OR c.description <> excluded.description""")

_CLAIM: Final = text("""
    WITH due AS (
        SELECT source_id, commit, context FROM commit_statuses
        WHERE tenant_id = :tenant_id AND source_id = ANY (CAST(:sources AS uuid[]))
          AND sent_at IS NULL AND gave_up_at IS NULL AND due_at <= :now
        ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE commit_statuses AS c SET due_at = :until, attempts = c.attempts + 1
    FROM due WHERE c.tenant_id = :tenant_id AND c.source_id = due.source_id AND c.commit = due.commit
      AND c.context = due.context
    RETURNING c.tenant_id, c.source_id, c.commit, c.context, c.state, c.description, c.created_at, c.attempts""")

#: A state that came while an older one was on its way is due at once.
_SENT: Final = text("""
    UPDATE commit_statuses SET error = NULL,
        sent_at = CASE WHEN state = :state AND description = :description THEN CAST(:now AS timestamptz) END,
        due_at = :now
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND commit = :commit AND context = :context
      AND sent_at IS NULL AND gave_up_at IS NULL""")

_FAILED: Final = text("""
    UPDATE commit_statuses SET error = :error, due_at = coalesce(CAST(:again_at AS timestamptz), :now),
        gave_up_at = CASE WHEN CAST(:again_at AS timestamptz) IS NULL
            AND state = :state AND description = :description THEN CAST(:now AS timestamptz) END
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND commit = :commit AND context = :context
      AND sent_at IS NULL AND gave_up_at IS NULL""")

_FORGET: Final = text("""
    DELETE FROM commit_statuses WHERE tenant_id = :tenant_id AND created_at < :before""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A state that a forge is to be told, claimed by one sender."""

    tenant_id: UUID
    source_id: UUID
    commit: str
    context: str  #: cron-observer/<environment or default>/<source>
    state: str  #: pending, success, failure, error
    description: str
    created_at: datetime
    attempts: int  #: this one included


async def put(
    conn: AsyncConnection,
    held: Lease,
    *,
    commit: str,
    state: str,
    description: str,
    run_id: UUID | None,
    now: datetime,
) -> None:
    """Have the forge told how the source stands at `commit`: pending, success, failure or error.

    In the transaction that ends the run; what is longer than 140 characters is cut. The same again changes nothing.
    """
    if len(description) > LONGEST:
        description = description[: LONGEST - 1] + "…"
    values = {
        "tenant_id": held.tenant_id,
        "source_id": held.source_id,
        "commit": commit,
        "state": state,
        "description": description,
        "run_id": run_id,
        "now": now,
    }
    await conn.execute(_PUT, values)


async def claim(
    conn: AsyncConnection, tenant_id: UUID, sources: Sequence[UUID], *, now: datetime, until: datetime, limit: int
) -> list[Status]:
    """Take states of these sources that are due; nobody else gets them before `until`."""
    values = {"tenant_id": tenant_id, "sources": list(sources), "now": now, "until": until, "limit": limit}
    return [Status(**row) for row in (await conn.execute(_CLAIM, values)).mappings()]


async def sent(conn: AsyncConnection, status: Status, now: datetime) -> None:
    """Note that the forge knows `status`."""
    await conn.execute(_SENT, _values(status) | {"now": now})


async def failed(
    conn: AsyncConnection, status: Status, now: datetime, *, error: str, again_at: datetime | None
) -> None:
    """Note why the forge does not know `status`; it is told at `again_at`, or never when that is None."""
    await conn.execute(_FAILED, _values(status) | {"now": now, "error": error, "again_at": again_at})


async def forget(conn: AsyncConnection, tenant_id: UUID, before: datetime) -> int:
    """Remove the states that were put down before `before`; return how many."""
    return (await conn.execute(_FORGET, {"tenant_id": tenant_id, "before": before})).rowcount


def _values(status: Status) -> dict[str, Any]:
    return {
        "tenant_id": status.tenant_id,
        "source_id": status.source_id,
        "commit": status.commit,
        "context": status.context,
        "state": status.state,
        "description": status.description,
    }
