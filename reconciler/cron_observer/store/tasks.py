"""Tasks on their way into the database, whoever owns them: one path writes task, revision and plan.

A change of what is wanted raises the task's generation, appends a row to `task_revisions` and lets
`store.plans` know, all in the caller's transaction, which must be one of `plans.in_transaction_with_margin`.
What the wire shows of tasks is read in `task_reads`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import Conflict, InvalidSpec, ManifestOwned, NameTaken, NotFound
from cron_observer.manifest.files import DOCS_URL
from cron_observer.model import Context
from cron_observer.plan import spec_hash, unknown
from cron_observer.schedule import new_id
from cron_observer.store import bindings, task_writes, wakeups
from cron_observer.store.layers import in_force
from cron_observer.store.links import line_link, public_url

_COLUMNS: Final = """t.task_uid, t.project_id, t.name, t.seed, t.owner, t.spec, t.labels, t.annotations, t.generation,
    t.removed_at IS NOT NULL AS removed, t.deleting_at IS NOT NULL AS deleting, t.created_at, t.updated_at"""

_BY_NAME: Final = text(f"""
    SELECT {_COLUMNS} FROM tasks AS t
    WHERE t.tenant_id = :tenant_id AND t.project_id = :project_id AND t.live_name = :name""")

_BY_UID: Final = text(f"""
    SELECT {_COLUMNS} FROM tasks AS t
    WHERE t.tenant_id = :tenant_id AND t.task_uid = :task_uid AND t.deleted_at IS NULL""")

_LOCK_OWNED: Final = text(f"""
    SELECT {_COLUMNS} FROM tasks AS t
    WHERE t.tenant_id = :tenant_id AND t.task_uid = :task_uid AND t.owner = 'api' AND t.deleted_at IS NULL
    FOR UPDATE""")

_PROJECT_NAME: Final = text("""
    SELECT name FROM projects WHERE tenant_id = :tenant_id AND project_id = :project_id""")

_MARK_DELETING: Final = text("""
    UPDATE tasks SET deleting_at = :now, updated_at = :now, author = :actor
    WHERE tenant_id = :tenant_id AND task_uid = :task_uid AND owner = 'api' AND deleting_at IS NULL""")

_DETACH: Final = text("""
    SELECT detach_task(:tenant_id, :task_uid, CAST(:reason AS text), CAST(:actor AS text), :audit_id, :now)""")

_PURGE: Final = text("""
    UPDATE tasks SET deleting_at = :now, updated_at = :now
    WHERE tenant_id = :tenant_id AND removed_at < :before AND source_id = :source_id
      AND deleting_at IS NULL AND deleted_at IS NULL""")

_OWNER_LOCATION: Final = text("""
    SELECT s.source_id, s.environment, t.project_id, s.name AS source, s.url, s.ref, t.path, t.line, t.document,
        t.commit, t.author, f.good_text AS text, f.good_commit AS text_commit
    FROM tasks AS t
    JOIN sources AS s ON s.tenant_id = t.tenant_id AND s.source_id = t.source_id
    LEFT JOIN manifest_files AS f ON f.tenant_id = t.tenant_id AND f.source_id = t.source_id AND f.path = t.path
    WHERE t.tenant_id = :tenant_id AND t.task_uid = :task_uid AND t.owner = 'manifest' AND t.deleted_at IS NULL""")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """A living task as it is stored. `removed`: its manifest is gone; `deleting`: the API was asked to delete it."""

    task_uid: UUID
    project_id: UUID
    name: str
    seed: str
    owner: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    generation: int
    removed: bool
    deleting: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerLocation:
    """Where the manifest of a task stands, and the text of its file as it was last applied.

    `text` is that of the file at `text_commit`, which differs from `commit` only for a task that is kept at an
    older version than others of its file. None for the commits of a plain folder; `text` is None when the file
    is gone.
    """

    source: str
    repository: str
    ref: str | None
    path: str
    line: int | None
    document: int
    commit: str | None
    author: str | None
    text: str | None
    text_commit: str | None
    url: str | None
    context: Context  #: what the file is read with


async def get_by_name(conn: AsyncConnection, tenant_id: UUID, project_id: UUID, name: str) -> TaskRow | None:
    """Return the task that has this name now, whoever owns it; also one whose manifest is gone."""
    values = {"tenant_id": tenant_id, "project_id": project_id, "name": name}
    row = (await conn.execute(_BY_NAME, values)).mappings().one_or_none()
    return None if row is None else TaskRow(**row)


async def find_uid(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID) -> TaskRow | None:
    """Return the task with this uid unless it has been deleted."""
    values = {"tenant_id": tenant_id, "task_uid": task_uid}
    row = (await conn.execute(_BY_UID, values)).mappings().one_or_none()
    return None if row is None else TaskRow(**row)


async def create_owned(
    conn: AsyncConnection,
    tenant_id: UUID,
    project_id: UUID,
    name: str,
    spec: Mapping[str, Any],
    labels: Mapping[str, str],
    actor: str,
    now: datetime,
) -> TaskRow:
    """Create a task that the API owns. `spec` is effective.

    Raises `NameTaken`, `NotFound` for the project, `InvalidSpec` for a calendar or group that is not declared in it.
    """
    values = {"tenant_id": tenant_id, "project_id": project_id}
    project = (await conn.execute(_PROJECT_NAME, values)).scalar_one_or_none()
    if project is None:
        raise NotFound("there is no such project")
    await _refer(conn, tenant_id, project_id, name, spec)
    write = task_writes.Write(
        owner="api",
        action="create",
        name=name,
        seed=f"{project}/{name}",
        spec=spec,
        labels=labels,
        spec_hash=spec_hash(spec, labels, {}),
        generation=1,
        author=actor,
    )
    if not await task_writes.insert(conn, tenant_id, project_id, [write], now):
        raise NameTaken(f'the project {project} has a task "{name}" already')
    await task_writes.follow_up(conn, tenant_id, [write], now)
    return await _owned(conn, tenant_id, write.task_uid)


async def update_owned(
    conn: AsyncConnection,
    tenant_id: UUID,
    task_uid: UUID,
    spec: Mapping[str, Any],
    labels: Mapping[str, str],
    actor: str,
    now: datetime,
) -> TaskRow:
    """Give a task of the API another spec and labels; the same ones change nothing. `spec` is effective.

    Raises `NotFound`, `ManifestOwned`, `Conflict` when it is being deleted, and `InvalidSpec` as `create_owned` does.
    """
    row = await _lock(conn, tenant_id, task_uid)
    if row.deleting:
        raise Conflict(f'the task "{row.name}" is being deleted')
    wanted = spec_hash(spec, labels, row.annotations)
    if wanted == spec_hash(row.spec, row.labels, row.annotations):
        return row
    await _refer(conn, tenant_id, row.project_id, row.name, spec)
    await bindings.let_go(conn, tenant_id, row.project_id, row.spec, spec)
    write = task_writes.Write(
        owner="api",
        action="update",
        task_uid=row.task_uid,
        name=row.name,
        seed=row.seed,
        spec=spec,
        labels=labels,
        annotations=row.annotations,
        spec_hash=wanted,
        generation=row.generation + 1,
        author=actor,
    )
    await task_writes.change(conn, tenant_id, [write], now)
    await task_writes.follow_up(conn, tenant_id, [write], now)
    return await _owned(conn, tenant_id, task_uid)


async def delete_owned(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID, actor: str, now: datetime) -> TaskRow:
    """Stop planning a task of the API and mark it for deletion, which the scheduler carries out.

    Again for one that is marked already changes nothing. Raises `NotFound` and `ManifestOwned`.
    """
    row = await _lock(conn, tenant_id, task_uid)
    if row.deleting:
        return row
    values = {"tenant_id": tenant_id, "task_uid": task_uid, "now": now, "actor": actor}
    await conn.execute(_MARK_DELETING, values)
    await bindings.let_go(conn, tenant_id, row.project_id, row.spec, {})
    await task_writes.stop_planning(conn, tenant_id, [task_uid], now)
    return await _owned(conn, tenant_id, task_uid)


async def detach(
    conn: AsyncConnection, tenant_id: UUID, task_uid: UUID, reason: str | None, actor: str, now: datetime
) -> TaskRow:
    """Take a living task out of its manifest's hands: the API owns it, and it runs on as it is, with its history.

    Its file is read again in the next pass, which is asked for. One that the API owns already stays as it is. Raises
    `NotFound` for one that is removed, or is not there.
    """
    values = {"tenant_id": tenant_id, "task_uid": task_uid, "reason": reason, "actor": actor, "now": now}
    done = (await conn.execute(_DETACH, values | {"audit_id": new_id(now)})).scalar_one()
    row = await find_uid(conn, tenant_id, task_uid)
    if row is None or row.owner != "api":
        raise NotFound("there is no such task")
    if done:
        await wakeups.tell(conn)
    return row


async def purge(conn: AsyncConnection, tenant_id: UUID, source_id: UUID, before: datetime, now: datetime) -> int:
    """Mark what was removed from a source before an instant for deletion, which the scheduler carries out.

    Returns how many tasks that are. Declared again later, they are new ones.
    """
    values = {"tenant_id": tenant_id, "source_id": source_id, "before": before, "now": now}
    return (await conn.execute(_PURGE, values)).rowcount


async def _refer(conn: AsyncConnection, tenant_id: UUID, project_id: UUID, name: str, spec: Mapping[str, Any]) -> None:
    """Hold what a spec refers to until the transaction ends. Raises `InvalidSpec` with findings for what lacks."""
    bound = await bindings.of(conn, tenant_id, [(project_id, spec)])
    lacking = bound.unknown(project_id, spec)
    if not lacking:
        return
    known = await bindings.names(conn, tenant_id, project_id)
    findings = [unknown(one, known, name) for one in lacking]
    findings = [replace(one, url=DOCS_URL + one.code.lower()) for one in findings]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    raise InvalidSpec(
        f"{findings[0].message}{more}", hint=findings[0].hint, findings=[msgspec.to_builtins(one) for one in findings]
    )


async def _lock(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID) -> TaskRow:
    values = {"tenant_id": tenant_id, "task_uid": task_uid}
    row = (await conn.execute(_LOCK_OWNED, values)).mappings().one_or_none()
    if row is not None:
        return TaskRow(**row)
    if (found := await find_uid(conn, tenant_id, task_uid)) is not None:
        raise ManifestOwned(f'the task "{found.name}" is owned by a manifest', hint="change it in its source")
    raise NotFound("there is no such task")


async def _owned(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID) -> TaskRow:
    row = await find_uid(conn, tenant_id, task_uid)
    assert row is not None  # noqa: S101  this transaction wrote it
    return row


async def owner_location(conn: AsyncConnection, tenant_id: UUID, task_uid: UUID) -> OwnerLocation | None:
    """Return where the manifest of a task stands; None for a task that no manifest owns."""
    values = {"tenant_id": tenant_id, "task_uid": task_uid}
    row = (await conn.execute(_OWNER_LOCATION, values)).mappings().one_or_none()
    if row is None:
        return None
    found = dict(row)
    layers = await in_force(conn, tenant_id, found.pop("source_id"), found.pop("project_id"))
    context = Context(environment=found.pop("environment"), layers=layers)
    url = found.pop("url")
    link = line_link(url, row["commit"], row["path"], row["line"])
    return OwnerLocation(**found, repository=public_url(url), url=link, context=context)
