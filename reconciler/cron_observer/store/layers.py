"""Layers as manifests declare them: Defaults and Projects. Removed ones keep uid and content, as calendars do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.model import DEFAULTS, PROJECT, Definition
from cron_observer.plan import Actual, Plan
from cron_observer.store import declared
from cron_observer.store.declared import ADD, INVENTORY, Statements
from cron_observer.store.sources import Lease
from cron_observer.store.sync import FileRow


def _statements(kind: str) -> Statements:
    """Write the statements of one kind; the table holds both, and only a new row says which it is."""
    add = ADD.format(table="layers", uid="layer_uid", more=", kind", values=f", '{kind}'")
    return replace(declared.statements(kind, "layers", "layer_uid"), add=text(add))


_DEFAULTS: Final = _statements(DEFAULTS)
_PROJECT: Final = _statements(PROJECT)

_INVENTORY: Final = text(INVENTORY.format(table="layers", uid="layer_uid", more=", t.kind"))

_IN_FORCE: Final = text("""
    SELECT t.kind, t.name, t.spec, t.path, t.line, t.document FROM layers AS t
    WHERE t.tenant_id = :tenant_id AND t.source_id = :source_id AND t.project_id = :project_id
      AND t.removed_at IS NULL
    ORDER BY t.kind, t.name""")


_BELOW: Final = text("""
    SELECT f.path, f.blob, f.state, f.documents, f.commit FROM manifest_files AS f
    WHERE f.tenant_id = :tenant_id AND f.source_id = :source_id
      AND EXISTS (
          SELECT FROM unnest(CAST(:folders AS text[])) AS v (folder)
          WHERE v.folder = '' OR starts_with(f.path, v.folder || '/'))""")


async def dependants(conn: AsyncConnection, held: Lease, folders: Collection[str]) -> dict[str, FileRow]:
    """Return what is known of the files in these directories and below them, by path; the root is the empty text."""
    values = {"tenant_id": held.tenant_id, "source_id": held.source_id, "folders": sorted(folders)}
    return {row["path"]: FileRow(**row) for row in (await conn.execute(_BELOW, values)).mappings()}


async def in_force(conn: AsyncConnection, tenant_id: UUID, source_id: UUID, project_id: UUID) -> tuple[Definition, ...]:
    """Return the layers of a source itself that hold now: what its documents are read with."""
    values = {"tenant_id": tenant_id, "source_id": source_id, "project_id": project_id}
    return tuple(Definition(**row) for row in (await conn.execute(_IN_FORCE, values)).mappings())


async def inventory(conn: AsyncConnection, held: Lease) -> list[Actual]:
    """Return every layer of the source's project, whoever owns it."""
    values = {"tenant_id": held.tenant_id, "source_id": held.source_id, "project_id": held.project_id}
    return [Actual(**row) for row in (await conn.execute(_INVENTORY, values)).mappings()]


async def apply(conn: AsyncConnection, held: Lease, plan: Plan, now: datetime) -> None:
    """Write what a plan says about layers. Raises `Stale` when they are no longer what it was made from."""
    await declared.apply(conn, held, plan, _DEFAULTS, now)
    await declared.apply(conn, held, plan, _PROJECT, now)
