"""Places: what runs of a task, of a task group or of a backfill compete for.

A place is a row of `active_runs`; its primary key is the proof that never more run at once than may. An execution
gets all its places or none, keeps them while it waits for a retry, and gives them back in the statement that ends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.lifecycle import Run
from cron_observer.model import GroupSpec, OnWindowClose, Overlap, Policy
from cron_observer.store.engine import fetch

log = structlog.get_logger()

#: Also one whose manifest is gone: tasks that still name it are kept as they were, and so are their places.
_GROUPS: Final = """
SELECT g.project_id, g.name, g.group_uid, g.spec
FROM task_groups g
JOIN unnest(%(projects)s::uuid[], %(names)s::text[]) AS wanted (project_id, name)
  ON g.project_id = wanted.project_id AND g.name = wanted.name
WHERE g.tenant_id = %(tenant)s
"""

_BACKFILLS: Final = """
SELECT b.backfill_id, b.max_parallel FROM backfills b
WHERE b.tenant_id = %(tenant)s AND b.backfill_id = ANY (%(ids)s::uuid[])
"""

_TAKEN: Final = """
SELECT r.scope, r.n, r.execution_id, r.since FROM active_runs r
WHERE r.tenant_id = %(tenant)s AND r.scope = ANY (%(scopes)s::text[])
"""

#: In one order for everybody, and one such statement in a transaction, so that no two wait for each other.
_TAKE_PLACES: Final = """
WITH wanted AS (
    SELECT v.scope, v.n, v.execution_id
    FROM unnest(%(scopes)s::text[], %(numbers)s::int[], %(ids)s::uuid[]) AS v (scope, n, execution_id)
)
INSERT INTO active_runs (tenant_id, scope, n, execution_id, since)
SELECT %(tenant)s, w.scope, w.n, w.execution_id, %(now)s FROM wanted w
ORDER BY w.scope, w.n
ON CONFLICT DO NOTHING
RETURNING scope, execution_id
"""

_GIVE_BACK: Final = """
DELETE FROM active_runs r
USING unnest(%(scopes)s::text[], %(ids)s::uuid[]) AS v (scope, execution_id)
WHERE r.tenant_id = %(tenant)s AND r.scope = v.scope AND r.execution_id = v.execution_id
"""


class Place(NamedTuple):
    """What is competed for, and by how many at once it may be held."""

    scope: str
    limit: int


class Need(NamedTuple):
    """What decides which places an execution needs."""

    task_uid: UUID
    project_id: UUID
    policy: Policy
    forced: bool = False
    backfill_id: UUID | None = None

    @classmethod
    def of(cls, run: Run, policy: Policy) -> Need:
        """Return what `run` needs under its policy."""
        return cls(run.task_uid, run.project_id, policy, run.forced, run.backfill_id)

    @property
    def limit(self) -> int | None:
        """How many runs of the task may be active; None is any number."""
        return self.policy.max_parallel if self.policy.overlap is Overlap.ALLOW_ALL else 1


class Group(NamedTuple):
    """A task group as it is now."""

    uid: UUID
    spec: GroupSpec


class Holder(NamedTuple):
    """Who holds a place, and since when."""

    execution_id: UUID
    since: datetime


def task_scope(task_uid: UUID) -> str:
    """Name the places that runs of a task compete for."""
    return f"task:{task_uid}"


class Places:
    """The places of one tenant as a transaction has seen them, and those that it means to take."""

    def __init__(self, tenant_id: UUID) -> None:
        self._tenant_id = tenant_id
        self._groups: dict[tuple[UUID, str], Group | None] = {}
        self._backfills: dict[UUID, int] = {}
        self._taken: dict[str, dict[int, Holder]] = {}
        self._wanted: dict[UUID, list[tuple[str, int]]] = {}

    async def learn(self, conn: AsyncConnection, needs: Iterable[Need]) -> None:
        """Read what is not known yet of the groups, the backfills and the places that these need."""
        needs = list(needs)
        named = {(one.project_id, one.policy.group) for one in needs if one.policy.group is not None}
        groups = sorted((key for key in named if key not in self._groups), key=str)
        if groups:
            self._groups |= dict.fromkeys(groups)
            parameters = {"projects": [project for project, _ in groups], "names": [name for _, name in groups]}
            for project, name, uid, spec in await fetch(conn, _GROUPS, {"tenant": self._tenant_id, **parameters}):
                self._groups[project, name] = Group(uid, _group(uid, spec))
        ids = {one.backfill_id for one in needs if one.backfill_id is not None} - self._backfills.keys()
        if ids:
            # One whose row cannot be found runs one by one.
            self._backfills |= dict.fromkeys(ids, 1)
            rows = await fetch(conn, _BACKFILLS, {"tenant": self._tenant_id, "ids": sorted(ids)})
            self._backfills |= dict(map(tuple, rows))
        scopes = {place.scope for one in needs for place in self.needed(one)} - self._taken.keys()
        if scopes:
            self._taken |= {scope: {} for scope in scopes}
            rows = await fetch(conn, _TAKEN, {"tenant": self._tenant_id, "scopes": sorted(scopes)})
            for scope, number, execution, since in rows:
                self._taken[scope][number] = Holder(execution, since)

    def group(self, need: Need) -> Group | None:
        """Return the task group, if there is one."""
        return None if need.policy.group is None else self._groups.get((need.project_id, need.policy.group))

    def needed(self, need: Need) -> list[Place]:
        """Return the places without which it cannot run. Who is forced takes no heed of its task's other runs."""
        places = []
        if need.backfill_id is not None:
            places.append(Place(f"backfill:{need.backfill_id}", self._backfills[need.backfill_id]))
        group = self.group(need)
        if group is not None and group.spec.max_parallel is not None:
            places.append(Place(f"group:{group.uid}", group.spec.max_parallel))
        if need.limit is not None and not need.forced:
            places.append(Place(task_scope(need.task_uid), need.limit))
        return places

    def cut(self, need: Need) -> bool:
        """Say whether what runs is stopped when the window of its group closes."""
        group = self.group(need)
        return group is not None and group.spec.on_window_close is OnWindowClose.CANCEL

    def active(self, task_uid: UUID) -> list[Holder]:
        """Return who holds the places of a task."""
        return list(self._taken.get(task_scope(task_uid), {}).values())

    def full_since(self, need: Need, *, besides: Collection[UUID] = ()) -> datetime | None:
        """Return since when the group has had no place for it, None if it has one.

        `besides` are executions whose places will be free by then.
        """
        group = self.group(need)
        if group is None or group.spec.max_parallel is None:
            return None
        holders = self._taken[f"group:{group.uid}"].values()
        others = [holder.since for holder in holders if holder.execution_id not in besides]
        return max(others) if others and len(others) >= group.spec.max_parallel else None

    def take(self, execution_id: UUID, needed: Sequence[Place], instead_of: Collection[UUID] = ()) -> bool:
        """Set places aside for an execution, or none if one of them cannot be had.

        `instead_of` are executions that will have given theirs back by then.
        """
        found: list[tuple[str, int]] = []
        for scope, limit in needed:
            holders = {
                number: holder for number, holder in self._taken[scope].items() if holder.execution_id not in instead_of
            }
            if any(holder.execution_id == execution_id for holder in holders.values()):
                continue
            number = next((number for number in range(limit) if number not in holders), None)
            if number is None or len(holders) >= limit:
                return False
            found.append((scope, number))
        for taken in self._taken.values() if instead_of else ():
            for number in [number for number, holder in taken.items() if holder.execution_id in instead_of]:
                del taken[number]
        for scope, number in found:
            self._taken[scope][number] = Holder(execution_id, _UNSET)
        self._wanted.setdefault(execution_id, []).extend(found)
        return True

    async def occupy(self, conn: AsyncConnection, executions: Collection[UUID], now: datetime) -> set[UUID]:
        """Take what was set aside for these; return those that did not get all of it, and hold none of it now."""
        wanted = [(scope, number, one) for one in executions for scope, number in self._wanted.get(one, ())]
        if not wanted:
            return set()
        rows = await fetch(
            conn,
            _TAKE_PLACES,
            {
                "tenant": self._tenant_id,
                "scopes": [scope for scope, _, _ in wanted],
                "numbers": [number for _, number, _ in wanted],
                "ids": [one for _, _, one in wanted],
                "now": now,
            },
        )
        got = {(scope, execution) for scope, execution in rows}
        lost = {one for scope, _, one in wanted if (scope, one) not in got}
        back = [(scope, one) for scope, one in got if one in lost]
        if back:
            parameters = {"scopes": [scope for scope, _ in back], "ids": [one for _, one in back]}
            await fetch(conn, _GIVE_BACK, {"tenant": self._tenant_id, **parameters})
        return lost


#: Stands for the instant of a place that is not written yet; nobody reads it.
_UNSET: Final = datetime.max.replace(tzinfo=UTC)


def _group(uid: UUID, spec: Any) -> GroupSpec:
    """Read a stored group. A damaged one holds nobody up."""
    try:
        return GroupSpec.read(spec)
    except Exception:  # any JSON may stand there
        log.exception("definition_unreadable", group_uid=str(uid))
        return GroupSpec()
