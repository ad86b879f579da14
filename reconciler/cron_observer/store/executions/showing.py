"""What the wire shows of an execution that was just written, without reading it again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from msgspec import structs
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.lifecycle import Run
from cron_observer.store import shapes
from cron_observer.store.engine import fetch
from cron_observer.store.executions.apply import Rest

#: How long a process remembers a definition. A pinned one never changes; the names of its task and project may.
_REMEMBERED_FOR: Final = timedelta(seconds=2)

#: Definitions remembered; beyond it the memory is emptied, not grown.
_REMEMBERED: Final = 20_000

_DEFINITIONS: Final = """
SELECT t.task_uid, r.generation, t.name, p.name, r.source, r.commit, r.path, r.line, r.spec -> 'payload'
FROM task_revisions r
JOIN unnest(%(uids)s::uuid[], %(generations)s::int[]) AS wanted (task_uid, generation)
  ON r.task_uid = wanted.task_uid AND r.generation = wanted.generation
JOIN tasks t ON t.tenant_id = r.tenant_id AND t.task_uid = r.task_uid
JOIN projects p ON p.tenant_id = t.tenant_id AND p.project_id = t.project_id
WHERE r.tenant_id = %(tenant)s AND r.task_uid = ANY (%(uids)s::uuid[])
"""


class Definition(NamedTuple):
    """What an execution shows of the definition that it pinned."""

    task_name: str
    project_name: str
    def_source: str | None
    def_commit: str | None
    def_path: str | None
    def_line: int | None
    payload: Any


_definitions: dict[tuple[UUID, UUID, int], tuple[datetime, Definition]] = {}


async def definitions(
    conn: AsyncConnection, tenant_id: UUID, runs: Sequence[Run], now: datetime
) -> dict[UUID, Definition]:
    """Return by id what each execution of one tenant has pinned, at most a moment old; mostly from memory."""
    keys = {run.id: (run.task_uid, run.generation) for run in runs if run.generation is not None}
    found, missing = {}, []
    for key in set(keys.values()):
        known = _definitions.get((tenant_id, *key))
        if known is not None and known[0] <= now < known[0] + _REMEMBERED_FOR:
            found[key] = known[1]
        else:
            missing.append(key)
    if missing:
        if len(_definitions) > _REMEMBERED:
            _definitions.clear()
        parameters = {"tenant": tenant_id, "uids": [uid for uid, _ in missing], "generations": [g for _, g in missing]}
        for uid, generation, *rest in await fetch(conn, _DEFINITIONS, parameters):
            found[uid, generation] = definition = Definition(*rest)
            _definitions[tenant_id, uid, generation] = now, definition
    return {identity: found[key] for identity, key in keys.items() if key in found}


async def show(
    conn: AsyncConnection, tenant_id: UUID, written: Sequence[tuple[Run, Rest]], now: datetime
) -> dict[UUID, dict[str, Any]]:
    """Return executions of one tenant as they were written, in full, by id; those without a definition are left out."""
    known = await definitions(conn, tenant_id, [run for run, _ in written], now)
    return {run.id: shown(run, rest, known[run.id]) for run, rest in written if run.id in known}


def shown(run: Run, rest: Rest, definition: Definition) -> dict[str, Any]:
    """Return an execution in full, as `reads.executions` does."""
    row = {**definition._asdict(), "def_generation": run.generation, **structs.asdict(run), **rest._asdict()}
    row["payload"] = definition.payload if rest.payload is None else rest.payload
    return shapes.execution_full(row)
