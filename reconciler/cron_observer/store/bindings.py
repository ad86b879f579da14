"""What tasks refer to: the calendars and groups of their project, and who refers to which."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.plan import CALENDAR, GROUP, Reference, references

#: Held until the transaction ends: whoever changes one of them afterwards sees the tasks that refer to it.
_CALENDARS: Final = text("""
    SELECT c.project_id, c.name, c.digest, c.removed_at IS NOT NULL AS removed FROM calendars AS c
    WHERE c.tenant_id = :tenant_id AND c.project_id = ANY (CAST(:projects AS uuid[]))
      AND c.name = ANY (CAST(:names AS text[]))
    ORDER BY c.calendar_uid FOR SHARE""")

_GROUPS: Final = text("""
    SELECT g.project_id, g.name, g.group_uid, g.spec, g.removed_at IS NOT NULL AS removed FROM task_groups AS g
    WHERE g.tenant_id = :tenant_id AND g.project_id = ANY (CAST(:projects AS uuid[]))
      AND g.name = ANY (CAST(:names AS text[]))
    ORDER BY g.group_uid FOR SHARE""")

_NAMES: Final = text("""
    SELECT 'Calendar' AS kind, c.name FROM calendars AS c
    WHERE c.tenant_id = :tenant_id AND c.project_id = :project_id AND c.removed_at IS NULL
    UNION ALL
    SELECT 'TaskGroup', g.name FROM task_groups AS g
    WHERE g.tenant_id = :tenant_id AND g.project_id = :project_id AND g.removed_at IS NULL""")

#: Reads the specs of one project, which is bounded by it: an index on an expression of JSON would not be used,
#: because row policies come first.
_REFERRERS: Final = text("""
    SELECT t.task_uid FROM tasks AS t
    WHERE t.tenant_id = :tenant_id AND t.project_id = :project_id AND t.deleted_at IS NULL AND t.removed_at IS NULL
      AND (t.spec ->> 'group' = ANY (CAST(:groups AS text[]))
           OR t.spec #> '{schedule,calendars,include}' ?| CAST(:calendars AS text[])
           OR t.spec #> '{schedule,calendars,exclude}' ?| CAST(:calendars AS text[]))
    ORDER BY t.task_uid""")

#: As above, of one source.
_DANGLING: Final = text("""
    WITH living AS (
        SELECT 'Calendar' AS kind, c.name FROM calendars AS c
        WHERE c.tenant_id = :tenant_id AND c.project_id = :project_id AND c.removed_at IS NULL
        UNION ALL
        SELECT 'TaskGroup', g.name FROM task_groups AS g
        WHERE g.tenant_id = :tenant_id AND g.project_id = :project_id AND g.removed_at IS NULL
    ), used AS (
        SELECT t.path, 'TaskGroup' AS kind, t.spec ->> 'group' AS name FROM tasks AS t
        WHERE t.tenant_id = :tenant_id AND t.source_id = :source_id AND t.project_id = :project_id
          AND t.removed_at IS NULL AND t.sync = 'SYNCED' AND t.spec ->> 'group' IS NOT NULL
        UNION ALL
        SELECT t.path, 'Calendar', named.name FROM tasks AS t
        CROSS JOIN LATERAL jsonb_array_elements_text(
            coalesce(t.spec #> '{schedule,calendars,include}', '[]')
            || coalesce(t.spec #> '{schedule,calendars,exclude}', '[]')) AS named (name)
        WHERE t.tenant_id = :tenant_id AND t.source_id = :source_id AND t.project_id = :project_id
          AND t.removed_at IS NULL AND t.sync = 'SYNCED'
        UNION ALL
        SELECT c.path, 'Calendar', named.name FROM calendars AS c
        CROSS JOIN LATERAL jsonb_array_elements_text(coalesce(c.spec -> 'base', '[]')) AS named (name)
        WHERE c.tenant_id = :tenant_id AND c.source_id = :source_id AND c.project_id = :project_id
          AND c.removed_at IS NULL AND c.sync = 'SYNCED'
    )
    SELECT DISTINCT used.path FROM used
    WHERE NOT EXISTS (SELECT FROM living WHERE living.kind = used.kind AND living.name = used.name)
    ORDER BY used.path""")


@dataclass(frozen=True, slots=True)
class Bindings:
    """What names mean in each project. What has been removed still means what it meant last."""

    digests: Mapping[tuple[UUID, str], str] = field(default_factory=dict)
    groups: Mapping[tuple[UUID, str], Mapping[str, Any]] = field(default_factory=dict)
    removed: frozenset[tuple[UUID, str, str]] = frozenset()  #: project, kind and name

    def calendars(self, project_id: UUID, spec: Mapping[str, Any]) -> dict[str, str]:
        """Return the digests of the calendars that a task's spec refers to, by name."""
        names = [one.name for one in references(spec) if one.kind == CALENDAR]
        return {name: self.digests[project_id, name] for name in names if (project_id, name) in self.digests}

    def group(self, project_id: UUID, spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return name, uid, timezone, windows and suspend of a task's group; None without one."""
        return self.groups.get((project_id, spec.get("group") or ""))

    def unknown(self, project_id: UUID, spec: Mapping[str, Any]) -> list[Reference]:
        """Return the references of a spec that lead nowhere any more."""
        return [
            one
            for one in references(spec)
            if (project_id, one.kind, one.name) in self.removed
            or (project_id, one.name) not in (self.digests if one.kind == CALENDAR else self.groups)
        ]


async def of(conn: AsyncConnection, tenant_id: UUID, specs: Sequence[tuple[UUID, Mapping[str, Any]]]) -> Bindings:
    """Look up what specs, each with its project, refer to, and hold it until the transaction ends."""
    wanted = {(project, one.kind, one.name) for project, spec in specs for one in references(spec)}
    digests: dict[tuple[UUID, str], str] = {}
    groups: dict[tuple[UUID, str], Mapping[str, Any]] = {}
    removed = set()
    if values := _values(tenant_id, wanted, CALENDAR):
        for row in await conn.execute(_CALENDARS, values):
            digests[row.project_id, row.name] = row.digest
            removed |= {(row.project_id, CALENDAR, row.name)} if row.removed else set()
    if values := _values(tenant_id, wanted, GROUP):
        for row in await conn.execute(_GROUPS, values):
            groups[row.project_id, row.name] = {
                "name": row.name,
                "uid": str(row.group_uid),
                "timezone": row.spec.get("timezone") or "UTC",
                "windows": row.spec.get("windows") or [],
                "suspend": bool(row.spec.get("suspend")),
            }
            removed |= {(row.project_id, GROUP, row.name)} if row.removed else set()
    return Bindings(digests, groups, frozenset(removed))


def _values(tenant_id: UUID, wanted: Iterable[tuple[UUID, str, str]], kind: str) -> dict[str, Any] | None:
    chosen = [(project, name) for project, one, name in wanted if one == kind]
    if not chosen:
        return None
    return {
        "tenant_id": tenant_id,
        "projects": sorted({project for project, _ in chosen}),
        "names": sorted({name for _, name in chosen}),
    }


async def names(conn: AsyncConnection, tenant_id: UUID, project_id: UUID) -> list[tuple[str, str]]:
    """Return kind and name of everything in a project that a task may refer to."""
    rows = await conn.execute(_NAMES, {"tenant_id": tenant_id, "project_id": project_id})
    return [(row.kind, row.name) for row in rows]


async def referrers(
    conn: AsyncConnection, tenant_id: UUID, project_id: UUID, calendars: Collection[str], groups: Collection[str]
) -> list[UUID]:
    """Return the tasks of a project that refer to one of these, whoever owns them."""
    if not calendars and not groups:
        return []
    values = {
        "tenant_id": tenant_id,
        "project_id": project_id,
        "calendars": sorted(calendars),
        "groups": sorted(groups),
    }
    return list((await conn.execute(_REFERRERS, values)).scalars())


async def dangling(conn: AsyncConnection, tenant_id: UUID, source_id: UUID, project_id: UUID) -> list[str]:
    """Return the files of a source with tasks or calendars, in sync, that refer to what is not there any more."""
    values = {"tenant_id": tenant_id, "source_id": source_id, "project_id": project_id}
    return list((await conn.execute(_DANGLING, values)).scalars())
