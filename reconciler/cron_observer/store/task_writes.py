"""The statements that write tasks: what manifests and the API have in common, and the reconciler's apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.model import Commit, TaskDefinition
from cron_observer.plan import CALENDAR, GROUP, Action, Actual, Plan, Step
from cron_observer.store import arrays, bindings, handovers, plans, task_plans, upkeep
from cron_observer.store.batches import prepared
from cron_observer.store.jsonb import to_json
from cron_observer.store.sources import Lease, Stale

#: Rows that one statement writes; more would hold its memory twice.
BATCH: Final = 2_000

#: New tasks after which statistics are taken before anything refers to them.
MANY: Final = 5_000

_ARRAYS: Final = """unnest(CAST(:task_uid AS uuid[]), CAST(:name AS text[]), CAST(:seed AS text[]),
        CAST(:path AS text[]), CAST(:document AS int[]), CAST(:line AS int[]), CAST(:commit AS text[]),
        CAST(:author AS text[]), CAST(:subject AS text[]), CAST(:committed_at AS timestamptz[]), CAST(:spec AS text[]),
        CAST(:spec_hash AS bytea[]), CAST(:labels AS text[]), CAST(:annotations AS text[]),
        CAST(:generation AS int[]), CAST(:action AS text[]))
        AS v (task_uid, name, seed, path, document, line, commit, author, subject, committed_at, spec, spec_hash,
              labels, annotations, generation, action)"""

_INSERT: Final = text(f"""
    INSERT INTO tasks (tenant_id, task_uid, project_id, name, seed, owner, source_id, path, document, line, commit,
        author, subject, committed_at, spec, spec_hash, generation, labels, annotations, sync, created_at, updated_at)
    SELECT :tenant_id, v.task_uid, :project_id, v.name, v.seed, :owner, CAST(:source_id AS uuid), v.path, v.document,
        v.line, v.commit, v.author, v.subject, v.committed_at, v.spec::jsonb, v.spec_hash, v.generation,
        v.labels::jsonb, v.annotations::jsonb, :sync, :now, :now
    FROM {_ARRAYS}
    ON CONFLICT (tenant_id, project_id, live_name) DO NOTHING""")

_CHANGE: Final = text(f"""
    UPDATE tasks AS t SET owner = :owner, source_id = CAST(:source_id AS uuid), path = v.path, document = v.document,
        line = v.line, commit = v.commit, author = v.author, subject = v.subject, committed_at = v.committed_at,
        spec = v.spec::jsonb, spec_hash = v.spec_hash, generation = v.generation, labels = v.labels::jsonb,
        annotations = v.annotations::jsonb, sync = :sync, removed_at = NULL, updated_at = :now
    FROM {_ARRAYS}
    WHERE t.tenant_id = :tenant_id AND t.task_uid = v.task_uid AND t.generation = v.generation - 1
      AND t.task_uid = ANY (CAST(:task_uid AS uuid[]))  -- lets a small change use the key
      AND t.owner = :was AND t.deleted_at IS NULL AND t.deleting_at IS NULL""")

#: The plan of a task that a manifest adopts is the manifest's as well.
_OWN_PLANS: Final = text("""
    UPDATE task_plan SET owner = 'manifest'
    WHERE tenant_id = :tenant_id AND task_uid = ANY (CAST(:task_uid AS uuid[])) AND owner <> 'manifest'""")

#: Frees the names of removed tasks at once. What still runs of them runs on.
_FORGET: Final = text("""
    UPDATE tasks SET deleted_at = :now, deleting_at = coalesce(deleting_at, :now), updated_at = :now
    WHERE tenant_id = :tenant_id AND task_uid = ANY (CAST(:task_uid AS uuid[]))
      AND removed_at IS NOT NULL AND deleted_at IS NULL""")

_MOVE: Final = text("""
    UPDATE tasks AS t SET path = v.path, document = v.document, line = v.line, commit = v.commit, author = v.author,
        subject = v.subject, committed_at = v.committed_at, sync = 'SYNCED', updated_at = :now
    FROM unnest(CAST(:task_uid AS uuid[]), CAST(:path AS text[]), CAST(:document AS int[]), CAST(:line AS int[]),
        CAST(:commit AS text[]), CAST(:author AS text[]), CAST(:subject AS text[]),
        CAST(:committed_at AS timestamptz[]), CAST(:generation AS int[]))
        AS v (task_uid, path, document, line, commit, author, subject, committed_at, generation)
    WHERE t.tenant_id = :tenant_id AND t.task_uid = v.task_uid AND t.task_uid = ANY (CAST(:task_uid AS uuid[]))
      AND t.source_id = :source_id
      AND t.generation = v.generation AND t.removed_at IS NULL""")

_RENAME: Final = text("""
    UPDATE tasks AS t SET name = v.name, updated_at = :now
    FROM unnest(CAST(:task_uid AS uuid[]), CAST(:name AS text[]), CAST(:generation AS int[]))
        AS v (task_uid, name, generation)
    WHERE t.tenant_id = :tenant_id AND t.task_uid = v.task_uid AND t.task_uid = ANY (CAST(:task_uid AS uuid[]))
      AND t.generation = v.generation AND t.owner = 'manifest' AND t.deleted_at IS NULL
      AND (t.source_id = :source_id OR t.removed_at IS NOT NULL)""")

_MARK: Final = text("""
    UPDATE tasks SET sync = :sync, updated_at = :now
    WHERE tenant_id = :tenant_id AND task_uid = ANY (CAST(:task_uid AS uuid[])) AND source_id = :source_id
      AND sync IS DISTINCT FROM :sync""")

_REMOVE: Final = text("""
    UPDATE tasks SET removed_at = :now, sync = NULL, updated_at = :now
    WHERE tenant_id = :tenant_id AND task_uid = ANY (CAST(:task_uid AS uuid[])) AND source_id = :source_id
      AND removed_at IS NULL""")

#: Of what was just written: nothing is sent twice.
_REVISE: Final = text("""
    INSERT INTO task_revisions (tenant_id, task_uid, generation, owner, action, spec, source, commit, author, subject,
        committed_at, path, line, created_at)
    SELECT :tenant_id, t.task_uid, t.generation, :owner, v.action, t.spec, :source, t.commit, t.author, t.subject,
        t.committed_at, t.path, t.line, :now
    FROM unnest(CAST(:task_uid AS uuid[]), CAST(:action AS text[])) AS v (task_uid, action)
    JOIN tasks AS t ON t.tenant_id = :tenant_id AND t.task_uid = v.task_uid
    WHERE t.tenant_id = :tenant_id AND t.task_uid = ANY (CAST(:task_uid AS uuid[]))""")

_INVENTORY: Final = text("""
    WITH touched AS (
        SELECT task_uid FROM tasks
        WHERE tenant_id = :tenant_id AND source_id = :source_id AND removed_at IS NULL
          AND path = ANY (CAST(:paths AS text[]))
        UNION
        SELECT task_uid FROM tasks
        WHERE tenant_id = :tenant_id AND project_id = :project_id AND live_name = ANY (CAST(:names AS text[]))
        UNION
        SELECT task_uid FROM tasks
        WHERE :loose AND tenant_id = :tenant_id AND source_id = :source_id AND removed_at IS NULL
          AND sync IN ('KEPT_LAST_GOOD', 'HELD')
        UNION
        SELECT task_uid FROM tasks
        WHERE :elsewhere AND tenant_id = :tenant_id AND source_id = :source_id AND removed_at IS NULL
          AND project_id <> :project_id
    )
    SELECT t.task_uid AS uid, t.project_id, t.name, t.spec_hash, t.generation, t.seed, t.source_id, s.name AS source,
        t.path, t.document, t.line, t.commit, t.sync, t.removed_at IS NOT NULL AS removed,
        t.deleting_at IS NOT NULL AS deleting, t.spec #>> '{lifecycle,prune}' AS prune
    FROM tasks AS t
    LEFT JOIN sources AS s ON s.tenant_id = t.tenant_id AND s.source_id = t.source_id
    WHERE t.tenant_id = :tenant_id AND t.task_uid = ANY (ARRAY (SELECT task_uid FROM touched))
      AND t.deleted_at IS NULL""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One task as it is to be, at the generation that it reaches thereby."""

    owner: str
    action: str  #: create, update, restore, rename, adopt, transfer or detach
    name: str
    seed: str
    spec: Mapping[str, Any]
    spec_hash: bytes
    generation: int
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    task_uid: UUID = field(default_factory=uuid4)
    project_id: UUID | None = None  #: where `seed` is that of the row as well: saves reading it again
    path: str | None = None
    document: int | None = None
    line: int | None = None
    commit: str | None = None
    author: str | None = None
    subject: str | None = None
    committed_at: datetime | None = None


_PLAIN: Final = ("name", "seed", "path", "commit", "author", "subject", "action")


def _columns(writes: Sequence[Write]) -> dict[str, str]:
    columns = {name: arrays.texts([getattr(write, name) for write in writes]) for name in _PLAIN}
    for name in ("document", "line", "generation"):
        columns[name] = arrays.numbers([getattr(write, name) for write in writes])
    for name in ("spec", "labels", "annotations"):
        columns[name] = arrays.texts([to_json(dict(getattr(write, name))) for write in writes])
    columns["task_uid"] = arrays.uuids(write.task_uid for write in writes)
    columns["committed_at"] = arrays.times(write.committed_at for write in writes)
    columns["spec_hash"] = arrays.hashes(write.spec_hash for write in writes)
    return columns


def _ordered(writes: Sequence[Write]) -> list[Write]:
    """Return what is written in the order of uids: two that write the same tasks wait for each other, not for ever."""
    return sorted(writes, key=lambda write: write.task_uid.int)


async def insert(
    conn: AsyncConnection,
    tenant_id: UUID,
    project_id: UUID,
    writes: Sequence[Write],
    now: datetime,
    held: Lease | None = None,
    columns: Mapping[str, str] | None = None,
) -> bool:
    """Add tasks, of which the `columns` may be made already.

    False when a name was taken, and then the transaction is of no use any more.
    """
    values = {**(columns or _columns(writes)), **_common(tenant_id, writes[0].owner, now, held)}
    return (await conn.execute(_INSERT, values | {"project_id": project_id})).rowcount == len(writes)


async def change(
    conn: AsyncConnection,
    tenant_id: UUID,
    writes: Sequence[Write],
    now: datetime,
    held: Lease | None = None,
    *,
    was: str | None = None,
) -> None:
    """Change tasks from the generation before; `was` is who owned them, where that changes.

    Raises `Stale` when one is at another generation by now, or is being deleted.
    """
    async for batch, columns in prepared(_ordered(writes), BATCH, _columns):
        values = columns | _common(tenant_id, batch[0].owner, now, held) | {"was": was or batch[0].owner}
        if (await conn.execute(_CHANGE, values)).rowcount != len(batch):
            raise Stale("a task was changed by somebody else in the meantime")


def _common(tenant_id: UUID, owner: str, now: datetime, held: Lease | None) -> dict[str, Any]:
    return {
        "tenant_id": tenant_id,
        "owner": owner,
        "now": now,
        "source_id": held.source_id if held else None,
        "source": held.name if held else None,
        "sync": "SYNCED" if held else None,
    }


async def follow_up(
    conn: AsyncConnection, tenant_id: UUID, writes: Sequence[Write], now: datetime, held: Lease | None = None
) -> None:
    """Append the revisions of tasks just written, and let the planner know."""
    known = [
        task_plans.Planned(write.task_uid, write.project_id, write.owner, write.seed, write.spec, wanted=True)
        for write in writes
        if write.project_id is not None
    ]
    planning = await task_plans.planning(conn, tenant_id, known)  # while revisions are written
    async for batch, columns in prepared(_ordered(writes), BATCH, _revised):
        await conn.execute(_REVISE, columns | _common(tenant_id, batch[0].owner, now, held))
    await task_plans.register(conn, tenant_id, [write.task_uid for write in writes if write.project_id is None], now)
    await plans.register(conn, tenant_id, await planning, now)


def _revised(writes: Sequence[Write]) -> dict[str, str]:
    return {
        "task_uid": arrays.uuids(write.task_uid for write in writes),
        "action": arrays.texts(write.action for write in writes),
    }


async def stop_planning(conn: AsyncConnection, tenant_id: UUID, uids: Sequence[UUID], now: datetime) -> None:
    """Let the planner know that tasks have been removed or marked for deletion."""
    await task_plans.register(conn, tenant_id, uids, now)


# The reconciler's side


async def inventory(
    conn: AsyncConnection,
    held: Lease,
    paths: Sequence[str],
    names: Sequence[str],
    *,
    loose: bool,
    elsewhere: bool,
) -> list[Actual]:
    """Return the tasks that a plan has to know: those of `paths`, those called `names`, whoever owns them.

    With `loose` also those of the source that are not in sync; with `elsewhere` those in a project that it has left.
    """
    values = {
        "tenant_id": held.tenant_id,
        "source_id": held.source_id,
        "project_id": held.project_id,
        "paths": arrays.texts(paths),
        "names": arrays.texts(names),
        "loose": loose,
        "elsewhere": elsewhere,
    }
    return [Actual(**row) for row in (await conn.execute(_INVENTORY, values)).mappings()]


async def apply(conn: AsyncConnection, held: Lease, plan: Plan, now: datetime) -> None:
    """Write what a plan says about tasks. Raises `Stale` when they are no longer what it was made from.

    Calendars and groups are written already: tasks are planned with what those hold now, also tasks of others that
    refer to one that has changed.
    """
    created = plan.of(Step.CREATE)
    renamed = plan.of(Step.RENAME)
    raised = plan.of(Step.UPDATE, Step.RESTORE, Step.TRANSFER)
    changed = [_write(action, held) for action in (*raised, *renamed) if action.raises]
    adopted = [_write(action, held) for action in plan.of(Step.ADOPT)]
    removed = [action.actual.uid for action in plan.of(Step.REMOVE) if action.actual]
    await _forget(conn, held, [action.frees for action in created if action.frees], now)
    await _rename(conn, held, renamed, now)
    new = await _create(conn, held, created, now)
    if len(new) >= MANY:
        # what refers to the new rows is checked row by row: without statistics, each by looking through many of them
        await upkeep.analyze(conn)
    await change(conn, held.tenant_id, changed, now, held)
    await change(conn, held.tenant_id, adopted, now, held, was="api")
    if adopted:
        values = {"tenant_id": held.tenant_id, "task_uid": [write.task_uid for write in adopted]}
        await conn.execute(_OWN_PLANS, values)
    await _move(conn, held, [*plan.of(Step.MOVE), *(action for action in renamed if not action.raises)], now)
    key = {"tenant_id": held.tenant_id, "source_id": held.source_id, "now": now}
    if removed and (await conn.execute(_REMOVE, key | {"task_uid": removed})).rowcount != len(removed):
        raise Stale("a task was removed by somebody else in the meantime")
    for step, sync in ((Step.KEEP, "KEPT_LAST_GOOD"), (Step.HOLD, "HELD")):
        uids = [action.actual.uid for action in plan.of(step) if action.actual and action.actual.sync != sync]
        if uids:
            await conn.execute(_MARK, key | {"task_uid": uids, "sync": sync})
    await handovers.record(conn, held, plan, now)
    await follow_up(conn, held.tenant_id, [*new, *changed, *adopted], now, held)
    await stop_planning(conn, held.tenant_id, removed, now)
    await replan(conn, held, plan, now)


async def replan(conn: AsyncConnection, held: Lease, plan: Plan, now: datetime) -> None:
    """Plan every task of the project anew that refers to a calendar or group of which the plan changes what counts.

    Whoever owns it, and whether its file was read or not; one that is planned like that already stays as it is.
    """
    calendars, groups = plan.replanned(CALENDAR), plan.replanned(GROUP)
    uids = await bindings.referrers(conn, held.tenant_id, held.project_id, calendars, groups)
    await task_plans.register(conn, held.tenant_id, uids, now)


async def _create(conn: AsyncConnection, held: Lease, actions: Sequence[Action], now: datetime) -> list[Write]:
    """Add the tasks that are new. What is written of the next ones is made while the server works."""
    # in the order of names, as paths mostly are: indexes grow at their ends, which is cheaper than in between
    uids = sorted((uuid4() for _ in actions), key=attrgetter("int"))
    new: list[Write] = []

    def made(batch: Sequence[tuple[Action, UUID]]) -> tuple[list[Write], dict[str, str]]:
        writes = [_write(action, held, uid) for action, uid in batch]
        return writes, _columns(writes)

    async for _, (writes, columns) in prepared(list(zip(actions, uids, strict=True)), BATCH, made):
        if not await insert(conn, held.tenant_id, held.project_id, writes, now, held, columns):
            raise Stale("a task of that name was created in the meantime")
        new += writes
    return new


async def _forget(conn: AsyncConnection, held: Lease, uids: Sequence[UUID], now: datetime) -> None:
    values = {"tenant_id": held.tenant_id, "task_uid": sorted(uids), "now": now}
    if uids and (await conn.execute(_FORGET, values)).rowcount != len(uids):
        raise Stale("a removed task was restored or deleted by somebody else in the meantime")


async def _rename(conn: AsyncConnection, held: Lease, actions: Sequence[Action], now: datetime) -> None:
    ordered = sorted((action.actual.uid, action) for action in actions if action.actual)
    if not ordered:
        return
    olds, news = ({one.name for one in several} for several in ([a.actual for a in actions if a.actual], actions))
    if olds & news:
        # A name is unique at every moment: those that change names with each other go by their uids in between.
        await _call(conn, held, ordered, [str(uid) for uid, _ in ordered], now)
    await _call(conn, held, ordered, [action.name for _, action in ordered], now)


async def _call(
    conn: AsyncConnection, held: Lease, ordered: Sequence[tuple[UUID, Action]], names: Sequence[str], now: datetime
) -> None:
    values = {
        "tenant_id": held.tenant_id,
        "source_id": held.source_id,
        "now": now,
        "task_uid": [uid for uid, _ in ordered],
        "name": list(names),
        "generation": [action.actual.generation for _, action in ordered if action.actual],
    }
    try:
        if (await conn.execute(_RENAME, values)).rowcount != len(ordered):
            raise Stale("a task was changed by somebody else in the meantime")
    except IntegrityError as error:
        raise Stale("a task of that name was created in the meantime") from error


async def _move(conn: AsyncConnection, held: Lease, actions: Sequence[Action], now: datetime) -> None:
    moved = sorted((_write(action, held) for action in actions), key=lambda write: write.task_uid)
    for start in range(0, len(moved), BATCH):
        batch = moved[start : start + BATCH]
        columns = _columns(batch)
        names = ("task_uid", "path", "document", "line", "commit", "author", "subject", "committed_at")
        values: dict[str, Any] = {name: columns[name] for name in names}
        values |= {"generation": arrays.numbers(write.generation - 1 for write in batch)}
        values |= {"tenant_id": held.tenant_id, "source_id": held.source_id, "now": now}
        if (await conn.execute(_MOVE, values)).rowcount != len(batch):
            raise Stale("a task was changed by somebody else in the meantime")


def _write(action: Action, held: Lease, fresh: UUID | None = None) -> Write:
    declared, commit, actual = action.declared, action.commit or Commit(id=None), action.actual
    assert isinstance(declared, TaskDefinition)  # noqa: S101  only what is declared is written
    return Write(
        task_uid=actual.uid if actual is not None else fresh or uuid4(),
        owner="manifest",
        action=action.step.value,
        name=declared.name,
        seed=actual.seed if actual is not None and actual.seed else f"{held.project}/{declared.name}",
        project_id=held.project_id if actual is None else actual.project_id if actual.seed else None,
        spec=declared.spec,
        labels=declared.labels,
        annotations=declared.annotations,
        spec_hash=action.spec_hash,
        generation=1 if actual is None else actual.generation + 1,
        path=declared.path,
        document=declared.document,
        line=declared.line,
        commit=commit.id,
        author=commit.author,
        subject=commit.subject,
        committed_at=commit.at,
    )
