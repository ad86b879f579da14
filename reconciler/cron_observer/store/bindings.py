"""What tasks refer to: the calendars and groups of their project, and who refers to which."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.plan import CALENDAR, GROUP, NOT_HANDED_OVER, Holder, Key, Reference, references

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

#: As above, and the calendars that are based on others.
_HOLDERS: Final = text("""
    WITH living AS (
        SELECT 'Task' AS kind, t.name, t.path, t.line, t.source_id, t.spec ->> 'group' AS in_group,
            coalesce(t.spec #> '{schedule,calendars,include}', '[]')
            || coalesce(t.spec #> '{schedule,calendars,exclude}', '[]') AS calendars
        FROM tasks AS t
        WHERE t.tenant_id = :tenant_id AND t.project_id = :project_id AND t.deleted_at IS NULL
          AND t.removed_at IS NULL AND t.deleting_at IS NULL
        UNION ALL
        SELECT 'Calendar', c.name, c.path, c.line, c.source_id, NULL, coalesce(c.spec -> 'base', '[]')
        FROM calendars AS c
        WHERE c.tenant_id = :tenant_id AND c.project_id = :project_id AND c.removed_at IS NULL
    ), used AS (
        SELECT l.kind, l.name, l.path, l.line, l.source_id, 'TaskGroup' AS used_kind, l.in_group AS used_name
        FROM living AS l WHERE l.in_group = ANY (CAST(:groups AS text[]))
        UNION
        SELECT l.kind, l.name, l.path, l.line, l.source_id, 'Calendar', named.name
        FROM living AS l
        CROSS JOIN LATERAL jsonb_array_elements_text(l.calendars) AS named (name)
        WHERE l.calendars ?| CAST(:calendars AS text[]) AND named.name = ANY (CAST(:calendars AS text[]))
    )
    SELECT u.used_kind, u.used_name, u.kind, u.name, u.path, u.line, u.source_id, s.name AS source
    FROM used AS u
    LEFT JOIN sources AS s ON s.tenant_id = :tenant_id AND s.source_id = u.source_id
    ORDER BY u.used_kind, u.used_name, u.kind, u.name""")

#: Findings are few. Those of a name that is still this source's.
_AWAITED: Final = text("""
    SELECT DISTINCT f.kind, f.name FROM sync_findings AS f
    JOIN sources AS s ON s.tenant_id = :tenant_id AND s.source_id = f.source_id AND s.project_id = :project_id
    WHERE f.tenant_id = :tenant_id AND f.code = :code AND f.source_id <> :source_id
      AND (EXISTS (
              SELECT FROM tasks AS t
              WHERE f.kind = 'Task' AND t.tenant_id = :tenant_id AND t.project_id = :project_id
                AND t.live_name = f.name AND t.source_id = :source_id)
          OR EXISTS (
              SELECT FROM calendars AS c
              WHERE f.kind = 'Calendar' AND c.tenant_id = :tenant_id AND c.project_id = :project_id
                AND c.name = f.name AND c.source_id = :source_id)
          OR EXISTS (
              SELECT FROM task_groups AS g
              WHERE f.kind = 'TaskGroup' AND g.tenant_id = :tenant_id AND g.project_id = :project_id
                AND g.name = f.name AND g.source_id = :source_id))
    ORDER BY f.kind, f.name""")

#: Asks the sources to look that hold one of these only because somebody uses it.
_RELEASE: Final = text("""
    UPDATE sources AS s SET requested_seq = requested_seq + 1, asked_by = stronger_asker(asked_by, 'neighbour')
    WHERE s.tenant_id = :tenant_id AND s.source_id = ANY (ARRAY (
        SELECT c.source_id FROM calendars AS c
        WHERE c.tenant_id = :tenant_id AND c.project_id = :project_id AND c.sync = 'HELD' AND c.removed_at IS NULL
          AND c.name = ANY (CAST(:calendars AS text[]))
        UNION
        SELECT g.source_id FROM task_groups AS g
        WHERE g.tenant_id = :tenant_id AND g.project_id = :project_id AND g.sync = 'HELD' AND g.removed_at IS NULL
          AND g.name = ANY (CAST(:groups AS text[]))))""")

#: As above, of one source; and the files that are to be read again although nothing is wrong with them.
_DANGLING: Final = text("""
    WITH lost AS MATERIALIZED (
        -- what went away since the source was applied last; it saw to all the others then. An hour is for removals
        -- that had begun and were not committed yet
        SELECT 'Calendar' AS kind, c.name FROM calendars AS c
        JOIN sources AS s ON s.tenant_id = :tenant_id AND s.source_id = :source_id
        WHERE c.tenant_id = :tenant_id AND c.project_id = :project_id
          AND c.removed_at >= coalesce(s.applied_at, '-infinity') - interval '1 hour'
        UNION ALL
        SELECT 'TaskGroup', g.name FROM task_groups AS g
        JOIN sources AS s ON s.tenant_id = :tenant_id AND s.source_id = :source_id
        WHERE g.tenant_id = :tenant_id AND g.project_id = :project_id
          AND g.removed_at >= coalesce(s.applied_at, '-infinity') - interval '1 hour'
    ), used AS (
        SELECT t.path, 'TaskGroup' AS kind, t.spec ->> 'group' AS name FROM tasks AS t
        WHERE EXISTS (SELECT FROM lost) AND t.tenant_id = :tenant_id AND t.source_id = :source_id
          AND t.project_id = :project_id AND t.removed_at IS NULL AND t.sync = 'SYNCED'
          AND t.spec ->> 'group' IS NOT NULL
        UNION ALL
        SELECT t.path, 'Calendar', named.name FROM tasks AS t
        CROSS JOIN LATERAL jsonb_array_elements_text(
            coalesce(t.spec #> '{schedule,calendars,include}', '[]')
            || coalesce(t.spec #> '{schedule,calendars,exclude}', '[]')) AS named (name)
        WHERE EXISTS (SELECT FROM lost) AND t.tenant_id = :tenant_id AND t.source_id = :source_id
          AND t.project_id = :project_id AND t.removed_at IS NULL AND t.sync = 'SYNCED'
        UNION ALL
        SELECT c.path, 'Calendar', named.name FROM calendars AS c
        CROSS JOIN LATERAL jsonb_array_elements_text(coalesce(c.spec -> 'base', '[]')) AS named (name)
        WHERE c.tenant_id = :tenant_id AND c.source_id = :source_id AND c.project_id = :project_id
          AND c.removed_at IS NULL AND c.sync = 'SYNCED'
    )
    SELECT used.path FROM used
    WHERE EXISTS (SELECT FROM lost WHERE lost.kind = used.kind AND lost.name = used.name)
    UNION
    (
        -- a set operation, which does not become a join of all with all where the statistics are old
        SELECT m.path FROM manifest_files AS m
        WHERE m.tenant_id = :tenant_id AND m.source_id = :source_id AND m.state <> 'ok'
        EXCEPT
        SELECT f.path FROM sync_findings AS f
        WHERE f.tenant_id = :tenant_id AND f.source_id = :source_id
    )
    ORDER BY path""")


@dataclass(frozen=True, slots=True)
class Bindings:
    """What names mean in each project. What has been removed still means what it meant last."""

    digests: Mapping[tuple[UUID, str], str] = field(default_factory=dict)
    groups: Mapping[tuple[UUID, str], Mapping[str, Any]] = field(default_factory=dict)
    removed: frozenset[tuple[UUID, str, str]] = frozenset()  #: project, kind and name

    def calendars(self, project_id: UUID, spec: Mapping[str, Any]) -> dict[str, str]:
        """Return the digests of the calendars that a task's spec refers to, by name."""
        if not self.digests:
            return {}
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


async def holders(
    conn: AsyncConnection, tenant_id: UUID, project_id: UUID, keys: Collection[Key]
) -> dict[Key, list[Holder]]:
    """Return who refers to the calendars and groups among `keys` in a project, whoever owns them (`Terms.holders`).

    Reads the specs of the whole project: ask for what may be removed alone (`plan.at_risk`).
    """
    named = _names_of(keys)
    if not any(named.values()):
        return {}
    values = {"tenant_id": tenant_id, "project_id": project_id} | named
    found: dict[Key, list[Holder]] = {}
    for row in await conn.execute(_HOLDERS, values):
        place = "created through the API"
        if row.source_id is not None:
            place = f'{row.path}:{row.line} of the source "{row.source}"'
        found.setdefault((row.used_kind, row.used_name), []).append(Holder(row.kind, row.name, place))
    return found


async def awaited(conn: AsyncConnection, tenant_id: UUID, source_id: UUID, project_id: UUID) -> set[Key]:
    """Return the names of a source that another one waits to take over (`plan.Terms.awaited`)."""
    values = {"tenant_id": tenant_id, "source_id": source_id, "project_id": project_id, "code": NOT_HANDED_OVER.code}
    return {(row.kind, row.name) for row in await conn.execute(_AWAITED, values)}


async def let_go(
    conn: AsyncConnection, tenant_id: UUID, project_id: UUID, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    """Ask the sources to look that hold what the spec `before` of a task of the API refers to, and `after` does not."""
    dropped = {(one.kind, one.name) for one in references(before)} - {(one.kind, one.name) for one in references(after)}
    if dropped:
        await conn.execute(_RELEASE, {"tenant_id": tenant_id, "project_id": project_id} | _names_of(dropped))


def _names_of(keys: Collection[Key]) -> dict[str, list[str]]:
    return {
        "calendars": sorted(name for kind, name in keys if kind == CALENDAR),
        "groups": sorted(name for kind, name in keys if kind == GROUP),
    }


async def dangling(conn: AsyncConnection, tenant_id: UUID, source_id: UUID, project_id: UUID) -> list[str]:
    """Return the files of a source that are to be read again for what is not in them.

    They declare tasks or calendars, in sync, that refer to what is not there any more, or a task that was taken out
    of their hands (`tasks.detach`).
    """
    values = {"tenant_id": tenant_id, "source_id": source_id, "project_id": project_id}
    return list((await conn.execute(_DANGLING, values)).scalars())
