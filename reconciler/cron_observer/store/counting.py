"""The counts of a source. They run along: a pass counts what it touches, before and after, and not the whole source.

What is wrong is few, and counted by itself. Everything is counted anew by a pass that compares everything, so that a
count which has gone astray does not stay so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store import arrays
from cron_observer.store.sources import Lease

_WHOLE: Final = text("""
    SELECT f.files, f.documents, t.tasks
    FROM (SELECT count(*) AS files, coalesce(sum(documents), 0) AS documents FROM manifest_files
          WHERE tenant_id = :tenant_id AND source_id = :source_id) AS f,
        (SELECT count(*) AS tasks FROM tasks
         WHERE tenant_id = :tenant_id AND source_id = :source_id AND removed_at IS NULL) AS t""")

_PART: Final = text("""
    SELECT f.files, f.documents, t.tasks
    FROM (SELECT count(*) AS files, coalesce(sum(documents), 0) AS documents FROM manifest_files
          WHERE tenant_id = :tenant_id AND source_id = :source_id AND path = ANY (CAST(:paths AS text[]))) AS f,
        (SELECT count(*) AS tasks FROM tasks
         WHERE tenant_id = :tenant_id AND source_id = :source_id AND removed_at IS NULL
           AND path = ANY (CAST(:paths AS text[]))) AS t""")

_SO_FAR: Final = text("SELECT counts FROM sources WHERE tenant_id = :tenant_id AND source_id = :source_id")

#: What is out of order, and what is few by its nature.
_FEW: Final = text("""
    SELECT t.kept + c.kept + g.kept AS kept, t.held + c.held + g.held AS held, c.calendars, g.groups,
        x.errors, x.warnings, x.conflicts
    FROM (SELECT count(*) FILTER (WHERE sync = 'KEPT_LAST_GOOD') AS kept,
            count(*) FILTER (WHERE sync = 'HELD') AS held FROM tasks
          WHERE tenant_id = :tenant_id AND source_id = :source_id AND removed_at IS NULL
            AND sync IN ('KEPT_LAST_GOOD', 'HELD')) AS t,
        (SELECT count(*) AS calendars, count(*) FILTER (WHERE sync = 'KEPT_LAST_GOOD') AS kept,
            count(*) FILTER (WHERE sync = 'HELD') AS held FROM calendars
         WHERE tenant_id = :tenant_id AND source_id = :source_id AND removed_at IS NULL) AS c,
        (SELECT count(*) AS groups, count(*) FILTER (WHERE sync = 'KEPT_LAST_GOOD') AS kept,
            count(*) FILTER (WHERE sync = 'HELD') AS held FROM task_groups
         WHERE tenant_id = :tenant_id AND source_id = :source_id AND removed_at IS NULL) AS g,
        (SELECT count(*) FILTER (WHERE severity = 'error') AS errors,
            count(*) FILTER (WHERE severity = 'warning') AS warnings,
            count(*) FILTER (WHERE code = ANY (CAST(:outside AS text[]))) AS conflicts FROM sync_findings
         WHERE tenant_id = :tenant_id AND source_id = :source_id) AS x""")


class Rows(NamedTuple):
    """Rows of a source, or of some of its files."""

    files: int
    documents: int
    tasks: int


class Before(NamedTuple):
    """What was counted before a pass wrote anything: of the whole source so far, and of the files that it touches."""

    so_far: Rows
    touched: Rows


def _key(held: Lease) -> dict[str, Any]:
    return {"tenant_id": held.tenant_id, "source_id": held.source_id}


async def before(conn: AsyncConnection, held: Lease, paths: Collection[str]) -> Before | None:
    """Count the files that a pass is about to touch; None when everything is to be counted afterwards.

    That is so until everything was counted once, and while others may take over what this source holds.
    """
    counts: Mapping[str, int] = (await conn.execute(_SO_FAR, _key(held))).scalar_one()
    if counts.get("held", 0) or not counts.keys() >= set(Rows._fields):
        return None
    return Before(Rows(*(counts[name] for name in Rows._fields)), await _part(conn, held, paths))


async def after(
    conn: AsyncConnection, held: Lease, outside: Sequence[str], was: Before | None, paths: Collection[str]
) -> dict[str, int]:
    """Return the counts of a source, which wrote what belongs to `paths` since `was`; None counts everything.

    `outside` are the codes of conflicts.
    """
    if was is None:
        now = Rows(*(await conn.execute(_WHOLE, _key(held))).one())
    else:
        part = await _part(conn, held, paths)
        now = Rows(*(so_far - old + new for so_far, old, new in zip(was.so_far, was.touched, part, strict=True)))
    few = (await conn.execute(_FEW, _key(held) | {"outside": list(outside)})).mappings().one()
    return {name: int(value) for name, value in (now._asdict() | dict(few)).items()}


async def _part(conn: AsyncConnection, held: Lease, paths: Collection[str]) -> Rows:
    return Rows(*(await conn.execute(_PART, _key(held) | {"paths": arrays.texts(sorted(paths))})).one())
