"""What manifests declare beside tasks, as rows: the statements that calendars and task groups have in common.

They are templates: ``{table}`` and ``{uid}`` are put in once, when the module of the kind is loaded, and ``{more}``,
``{values}`` and ``{sets}`` are for columns that only one of them has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.model import Commit, Definition
from cron_observer.plan import Action, Actual, Plan, Step
from cron_observer.store.jsonb import to_json
from cron_observer.store.sources import Lease, Stale

_ROWS: Final = """jsonb_to_recordset(CAST(:rows AS jsonb)) AS v (uid uuid, name text, path text, document int, line int,
        "commit" text, author text, subject text, committed_at timestamptz, spec jsonb, spec_hash text, version bigint,
        digest text)"""

ADD: Final = f"""
    INSERT INTO {{table}} (tenant_id, {{uid}}, project_id, name, source_id, path, document, line, commit, author,
        subject, committed_at, spec, spec_hash, version, sync, created_at, updated_at{{more}})
    SELECT :tenant_id, v.uid, :project_id, v.name, :source_id, v.path, v.document, v.line, v.commit, v.author,
        v.subject, v.committed_at, v.spec, decode(v.spec_hash, 'hex'), v.version, 'SYNCED', :now, :now{{values}}
    FROM {_ROWS}
    ORDER BY v.uid
    ON CONFLICT DO NOTHING"""

CHANGE: Final = f"""
    UPDATE {{table}} AS t SET source_id = :source_id, path = v.path, document = v.document, line = v.line,
        commit = v.commit, author = v.author, subject = v.subject, committed_at = v.committed_at, spec = v.spec,
        spec_hash = decode(v.spec_hash, 'hex'), version = v.version, sync = 'SYNCED', removed_at = NULL,
        updated_at = :now{{sets}}
    FROM {_ROWS}
    WHERE t.tenant_id = :tenant_id AND t.{{uid}} = v.uid AND t.version IN (v.version - 1, v.version)
      AND (t.source_id = :source_id OR t.removed_at IS NOT NULL
           OR (t.sync = 'HELD' AND v.uid = ANY (CAST(:transferred AS uuid[]))))"""

MARK: Final = """
    UPDATE {table} SET sync = :sync, updated_at = :now
    WHERE tenant_id = :tenant_id AND {uid} = ANY (CAST(:uids AS uuid[])) AND source_id = :source_id
      AND sync <> :sync"""

REMOVE: Final = """
    UPDATE {table} SET removed_at = :now, sync = 'SYNCED', updated_at = :now
    WHERE tenant_id = :tenant_id AND {uid} = ANY (CAST(:uids AS uuid[])) AND source_id = :source_id
      AND removed_at IS NULL"""

INVENTORY: Final = """
    SELECT t.{uid} AS uid, t.project_id, t.name, t.spec_hash, t.version AS generation, t.source_id,
        s.name AS source, t.path, t.document, t.line, t.commit, t.sync, t.removed_at IS NOT NULL AS removed,
        t.spec{more}
    FROM {table} AS t
    JOIN sources AS s ON s.tenant_id = t.tenant_id AND s.source_id = t.source_id
    WHERE t.tenant_id = :tenant_id AND (t.project_id = :project_id OR t.source_id = :source_id)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """The statements of one kind."""

    kind: str
    add: TextClause
    change: TextClause
    mark: TextClause
    remove: TextClause
    inventory: TextClause


def statements(kind: str, table: str, uid: str, *columns: str) -> Statements:
    """Write the statements of a table; `columns` are those that only it has."""
    words = {
        "table": table,
        "uid": uid,
        "more": "".join(f", {name}" for name in columns),
        "values": "".join(f", v.{name}" for name in columns),
        "sets": "".join(f", {name} = v.{name}" for name in columns),
    }
    shown = words | {"more": "".join(f", t.{name}" for name in columns)}
    return Statements(
        kind=kind,
        add=text(ADD.format(**words)),
        change=text(CHANGE.format(**words)),
        mark=text(MARK.format(**words)),
        remove=text(REMOVE.format(**words)),
        inventory=text(INVENTORY.format(**shown)),
    )


async def inventory(conn: AsyncConnection, held: Lease, how: Statements) -> list[Actual]:
    """Return every row of a kind in the source's project, whoever owns it, and the source's own in others."""
    values = {"tenant_id": held.tenant_id, "source_id": held.source_id, "project_id": held.project_id}
    return [Actual(kind=how.kind, **row) for row in (await conn.execute(how.inventory, values)).mappings()]


async def apply(conn: AsyncConnection, held: Lease, plan: Plan, how: Statements, now: datetime) -> None:
    """Write what a plan says about a kind. Raises `Stale` when it is no longer what the plan was made from."""
    key = {"tenant_id": held.tenant_id, "source_id": held.source_id, "now": now}
    new = plan.of(Step.CREATE, kind=how.kind)
    if new:
        values = key | {"project_id": held.project_id, "rows": _rows(new)}
        if (await conn.execute(how.add, values)).rowcount != len(new):
            raise Stale("a calendar or group of that name was created in the meantime")
    changed = plan.of(Step.RESTORE, Step.TRANSFER, Step.UPDATE, Step.MOVE, kind=how.kind)
    values = key | {"rows": _rows(changed), "transferred": _uids(plan, Step.TRANSFER, how)}
    if changed and (await conn.execute(how.change, values)).rowcount != len(changed):
        raise Stale("a calendar or group was changed by somebody else in the meantime")
    removed = _uids(plan, Step.REMOVE, how)
    if removed and (await conn.execute(how.remove, key | {"uids": removed})).rowcount != len(removed):
        raise Stale("a calendar or group was removed by somebody else in the meantime")
    for step, sync in ((Step.KEEP, "KEPT_LAST_GOOD"), (Step.HOLD, "HELD")):
        if uids := _uids(plan, step, how):
            await conn.execute(how.mark, key | {"uids": uids, "sync": sync})


def _uids(plan: Plan, step: Step, how: Statements) -> list[UUID]:
    return sorted(action.actual.uid for action in plan.of(step, kind=how.kind) if action.actual)


def _rows(actions: Sequence[Action]) -> str | None:
    rows = [_row(action) for action in actions]
    return to_json(sorted(rows, key=lambda row: str(row["uid"])))


def _row(action: Action) -> Mapping[str, Any]:
    declared, commit, actual = action.declared, action.commit or Commit(id=None), action.actual
    assert isinstance(declared, Definition)  # noqa: S101  only what is declared is written
    return {
        "uid": uuid4() if actual is None else actual.uid,
        "name": declared.name,
        "path": declared.path,
        "document": declared.document,
        "line": declared.line,
        "commit": commit.id,
        "author": commit.author,
        "subject": commit.subject,
        "committed_at": commit.at,
        "spec": dict(declared.spec),
        "spec_hash": action.spec_hash.hex(),
        "version": 1 if actual is None else actual.generation + action.raises,
        "digest": action.digest,
    }
