"""Calendars as manifests declare them, and what they hold: immutable contents, each addressed by its digest.

A calendar that is removed keeps its digest, so that tasks that still refer to it go on with what it held last.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.plan import CALENDAR, Actual, Plan
from cron_observer.store import declared
from cron_observer.store.jsonb import to_json
from cron_observer.store.sources import Lease, Stale

_STATEMENTS: Final = declared.statements(CALENDAR, "calendars", "calendar_uid", "digest")

_CONTENTS: Final = text("""
    SELECT c.digest, c.content FROM calendar_contents AS c
    WHERE c.tenant_id = :tenant_id AND c.digest = ANY (CAST(:digests AS text[]))""")

_KEEP_CONTENTS: Final = text("""
    INSERT INTO calendar_contents (tenant_id, digest, content, created_at)
    SELECT :tenant_id, v.digest, v.content, :now
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS v (digest text, content jsonb)
    ORDER BY v.digest
    ON CONFLICT DO NOTHING""")

_REFRESH: Final = text("""
    UPDATE calendars AS t SET digest = v.digest, version = t.version + 1, updated_at = :now
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS v (uid uuid, seen bigint, digest text)
    WHERE t.tenant_id = :tenant_id AND t.calendar_uid = v.uid AND t.version = v.seen""")


_WITH_FILES: Final = text("""
    SELECT c.path, c.spec -> 'entries' AS entries FROM calendars AS c
    WHERE c.tenant_id = :tenant_id AND c.source_id = :source_id AND c.removed_at IS NULL
      AND c.spec @? '$.entries[*].ics'""")


async def with_files(conn: AsyncConnection, held: Lease) -> list[tuple[str, list[str]]]:
    """Return the source's calendars that name calendar files: where each stands, and the names it says."""
    values = {"tenant_id": held.tenant_id, "source_id": held.source_id}
    rows = await conn.execute(_WITH_FILES, values)
    return [(row.path, [entry["ics"] for entry in row.entries if "ics" in entry]) for row in rows]


async def inventory(conn: AsyncConnection, held: Lease) -> list[Actual]:
    """Return every calendar of the source's project, whoever owns it, without contents."""
    return await declared.inventory(conn, held, _STATEMENTS)


async def with_contents(conn: AsyncConnection, tenant_id: UUID, rows: Collection[Actual]) -> list[Actual]:
    """Return calendars with what they hold."""
    found = await contents(conn, tenant_id, {row.digest for row in rows if row.digest is not None})
    return [replace(row, content=found.get(row.digest or "")) for row in rows]


async def contents(conn: AsyncConnection, tenant_id: UUID, digests: Collection[str]) -> dict[str, Any]:
    """Return the contents of these digests, those that are there."""
    if not digests:
        return {}
    values = {"tenant_id": tenant_id, "digests": sorted(digests)}
    return {row.digest: row.content for row in await conn.execute(_CONTENTS, values)}


async def apply(conn: AsyncConnection, held: Lease, plan: Plan, now: datetime) -> None:
    """Write what a plan says about calendars. Raises `Stale` when they are no longer what it was made from."""
    key = {"tenant_id": held.tenant_id, "now": now}
    if plan.contents:
        rows = [{"digest": digest, "content": content} for digest, content in plan.contents.items()]
        await conn.execute(_KEEP_CONTENTS, key | {"rows": to_json(rows)})
    await declared.apply(conn, held, plan, _STATEMENTS, now)
    if plan.refreshed:
        changed = [
            {"uid": one.actual.uid, "seen": one.actual.generation, "digest": one.digest} for one in plan.refreshed
        ]
        ordered = sorted(changed, key=lambda row: str(row["uid"]))
        if (await conn.execute(_REFRESH, key | {"rows": to_json(ordered)})).rowcount != len(changed):
            raise Stale("a calendar was changed by somebody else in the meantime")
