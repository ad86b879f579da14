"""Executions as values: which columns a decision needs, how they are locked, and the policies of their tasks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.lifecycle import Reason, Run, Status, Trigger
from cron_observer.model import Policy
from cron_observer.store.engine import fetch

log = structlog.get_logger()

#: The columns of `lifecycle.Run`, in the order of its fields.
RUN_COLUMNS: Final = tuple(Run.__struct_fields__)

SELECTED: Final = ", ".join(f"e.{column}" for column in RUN_COLUMNS)

#: What somebody else holds is left out: one row that is locked for long must not keep a batch of others waiting.
_LOCK: Final = f"""
SELECT {SELECTED}
FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.id = ANY (%(ids)s::uuid[])
ORDER BY e.id
FOR UPDATE SKIP LOCKED
"""

_KNOWN: Final = """
SELECT e.id FROM executions e
WHERE e.tenant_id = %(tenant)s AND e.id = ANY (%(ids)s::uuid[])
"""

_SPECS: Final = """
SELECT r.task_uid, r.generation, r.spec
FROM task_revisions r
JOIN unnest(%(uids)s::uuid[], %(generations)s::int[]) AS wanted (task_uid, generation)
  ON r.task_uid = wanted.task_uid AND r.generation = wanted.generation
WHERE r.tenant_id = %(tenant)s AND r.task_uid = ANY (%(uids)s::uuid[])
"""

_TASKS: Final = """
SELECT t.task_uid, t.project_id, t.generation, t.removed_at IS NOT NULL OR t.deleting_at IS NOT NULL AS removed
FROM tasks t
WHERE t.tenant_id = %(tenant)s AND t.task_uid = ANY (%(uids)s::uuid[])
"""

#: How many definitions a process remembers; a definition never changes, so nothing has to be forgotten early.
_REMEMBERED: Final = 20_000

_policies: OrderedDict[tuple[UUID, UUID, int], Policy] = OrderedDict()


def to_run(row: Any) -> Run:
    """Make a `Run` of a row that starts with `RUN_COLUMNS`."""
    values = dict(zip(RUN_COLUMNS, row, strict=False))
    values["status"] = Status(values["status"])
    values["reason"] = None if values["reason"] is None else Reason(values["reason"])
    values["trigger"] = Trigger(values["trigger"])
    return Run(**values)


class Locked(NamedTuple):
    """Executions that this transaction holds, by id, and the ids of those that somebody else holds."""

    runs: dict[UUID, Run]
    busy: frozenset[UUID]


async def lock(conn: AsyncConnection, tenant_id: UUID, ids: Iterable[UUID]) -> Locked:
    """Lock the executions of one tenant in the order of their ids, without waiting for any."""
    wanted = sorted(set(ids))
    if not wanted:
        return Locked({}, frozenset())
    rows = await fetch(conn, _LOCK, {"tenant": tenant_id, "ids": wanted})
    runs = {run.id: run for run in map(to_run, rows)}
    missing = [identity for identity in wanted if identity not in runs]
    if not missing:
        return Locked(runs, frozenset())
    known = await fetch(conn, _KNOWN, {"tenant": tenant_id, "ids": missing})
    return Locked(runs, frozenset(identity for (identity,) in known))


async def policies(
    conn: AsyncConnection, tenant_id: UUID, wanted: Iterable[tuple[UUID, int]]
) -> dict[tuple[UUID, int], Policy]:
    """Return the policy of each (task, generation); one query for those this process has not met yet."""
    keys = set(wanted)
    found = {key: known for key in keys if (known := _policies.get((tenant_id, *key))) is not None}
    missing = sorted(keys - found.keys())
    if missing:
        parameters = {"tenant": tenant_id, "uids": [uid for uid, _ in missing], "generations": [g for _, g in missing]}
        for uid, generation, spec in await fetch(conn, _SPECS, parameters):
            found[uid, generation] = _policies[tenant_id, uid, generation] = _policy(uid, generation, spec)
        while len(_policies) > _REMEMBERED:
            _policies.popitem(last=False)
    return {key: found.get(key, _ORPHAN) for key in keys}


def _policy(uid: UUID, generation: int, spec: Any) -> Policy:
    """Read a stored spec. A damaged one must stop nobody but its own task, which then obeys the defaults."""
    try:
        return Policy.read(spec)
    except Exception:  # any JSON may stand there
        log.exception("definition_unreadable", task_uid=str(uid), generation=generation)
        return _ORPHAN


#: For an execution whose definition cannot be found any more: the defaults of the contract.
_ORPHAN: Final = Policy()


class TaskRow(NamedTuple):
    """A task as it is now."""

    project_id: UUID
    generation: int
    removed: bool


async def task_rows(conn: AsyncConnection, tenant_id: UUID, uids: Sequence[UUID]) -> dict[UUID, TaskRow]:
    """Return what these tasks are now; what is not there is left out."""
    if not uids:
        return {}
    rows = await fetch(conn, _TASKS, {"tenant": tenant_id, "uids": list(uids)})
    return {uid: TaskRow(*row) for uid, *row in rows}


async def policies_of(conn: AsyncConnection, tenant_id: UUID, runs: Sequence[Run]) -> dict[UUID, Policy]:
    """Return the policy that each execution obeys: of the definition it pinned, else of its task as it is now."""
    unpinned = {run.task_uid for run in runs if run.generation is None}
    current = await task_rows(conn, tenant_id, list(unpinned))
    keys = {
        run.id: (
            run.task_uid,
            run.generation if run.generation is not None else _generation(current.get(run.task_uid)),
        )
        for run in runs
    }
    found = await policies(conn, tenant_id, keys.values())
    return {run.id: found[keys[run.id]] for run in runs}


def _generation(row: TaskRow | None) -> int:
    return 0 if row is None else row.generation
