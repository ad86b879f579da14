"""Statistics, read: closed quarters as they were counted, and beside them whatever has changed since, live.

A completion that was answered is in the next reading: its mark was committed with it, and a marked quarter is read
from the executions. What is open (running, or due and waiting) is always counted live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import id_ceil, id_floor
from cron_observer.statistics import Totals, quarter_of, split
from cron_observer.store import statistics
from cron_observer.store.reads import DUE, OBSOLETE
from cron_observer.store.statistics import NEVER, OUTCOMES, RANGES, SLACK, bucket

#: Nothing has fired before; and an instant behind all of them, so that slack can be added.
_EARLIEST: Final = datetime(1970, 2, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 1, tzinfo=UTC)

_INSTANT: Final = timedelta(microseconds=1)

#: That an execution is looked for, though there is none with this id, keeps every partition from being dropped until
#: the transaction ends: what is read live afterwards is all still there.
_LOOK: Final = text("""
    SELECT
        (SELECT frozen_before FROM stats_state WHERE tenant_id = :tenant_id) AS frozen_before,
        ARRAY(SELECT at FROM stats_marks
              WHERE tenant_id = :tenant_id AND at >= :since AND at < :until GROUP BY at) AS marked,
        ARRAY(SELECT project_id FROM projects WHERE tenant_id = :tenant_id) AS projects,
        EXISTS (SELECT FROM executions WHERE tenant_id = :tenant_id AND id = :nobody) AS kept""")

#: What was counted, of the stretches that are told.
_TOLD: Final = """
    unnest(CAST(:told_since AS timestamptz[]), CAST(:told_until AS timestamptz[])) AS told (since, until)
    JOIN stats_15m AS s ON s.tenant_id = :tenant_id AND s.scope = ANY (CAST(:scopes AS uuid[]))
        AND s.at >= told.since AND s.at < told.until"""


def _chosen(table: str) -> str:
    """Return SQL that narrows to a project, a task or several; equality lets the task's own index serve."""
    return f"""
    (CAST(:project_id AS uuid) IS NULL OR {table}.project_id = :project_id)
    AND (CAST(:one_task AS uuid) IS NULL OR {table}.task_uid = :one_task)
    AND (CAST(:tasks AS uuid[]) IS NULL OR {table}.task_uid = ANY (CAST(:tasks AS uuid[])))"""


_LIVE: Final = f"({OUTCOMES} AND {_chosen('e')} UNION ALL {RANGES} AND {_chosen('r')}) AS f"


def _place(column: str) -> str:
    """Return SQL for which of the stretches an instant lies in, from 1."""
    return f"greatest(1, width_bucket({column}, CAST(:starts AS timestamptz[])))"


#: Of the whole or of each stretch. `busy`: the seconds for which what is open has been running.
_COUNTS: Final = text(f"""
    SELECT n, sum(finished)::bigint AS finished, sum(failed)::bigint AS failed, sum(missed)::bigint AS missed,
        sum(skipped)::bigint AS skipped, sum(cancelled)::bigint AS cancelled, sum(late)::bigint AS late,
        sum(running)::bigint AS running, sum(pending)::bigint AS pending, sum(busy)::float AS busy
    FROM (
        SELECT {_place("s.at")} AS n, sum(s.finished) AS finished, sum(s.failed) AS failed, sum(s.missed) AS missed,
            sum(s.skipped) AS skipped, sum(s.cancelled) AS cancelled, sum(s.late) AS late, 0 AS running, 0 AS pending,
            0 AS busy
        FROM {_TOLD} GROUP BY 1
        UNION ALL
        SELECT {_place("f.at")},
            coalesce(sum(f.n) FILTER (WHERE f.status = 'FINISHED'), 0),
            coalesce(sum(f.n) FILTER (WHERE f.status = 'FAILED'), 0),
            coalesce(sum(f.n) FILTER (WHERE f.status = 'MISSED'), 0),
            coalesce(sum(f.n) FILTER (WHERE f.status = 'SKIPPED'), 0),
            coalesce(sum(f.n) FILTER (WHERE f.status = 'CANCELLED'), 0),
            coalesce(sum(f.n) FILTER (WHERE f.late), 0), 0, 0, 0
        FROM {_LIVE} GROUP BY 1
        UNION ALL
        SELECT {_place("e.fire_at")}, 0, 0, 0, 0, 0, 0, count(*) FILTER (WHERE e.status = 'RUNNING'),
            count(*) FILTER (WHERE e.status = 'PENDING'),
            coalesce(sum(extract(epoch FROM CAST(:now AS timestamptz) - coalesce(e.started_at, e.claimed_at)))
                FILTER (WHERE e.status = 'RUNNING'), 0)
        FROM executions AS e
        WHERE e.tenant_id = :tenant_id AND e.finished_at IS NULL AND e.id BETWEEN :open_low AND :open_high
          AND e.fire_at >= :since AND e.fire_at < :until AND e.fire_at <= :now AND {DUE} AND NOT {OBSOLETE}
          AND {_chosen("e")}
        GROUP BY 1) AS parts
    GROUP BY n""")


_KINDS: Final = ("duration", "delay")

#: Buckets with how many are in them, and rows without a bucket for the exact figures of all of them.
_TOLD_TIMES: Final = f"""
    SELECT {_place("s.at")} AS n, '{{kind}}' AS kind, b.bucket::int AS bucket, sum(b.n)::bigint AS times,
        NULL::bigint AS total, NULL::bigint AS least, NULL::bigint AS greatest
    FROM {_TOLD} CROSS JOIN LATERAL unnest(s.{{kind}}_buckets, s.{{kind}}_counts) AS b (bucket, n) GROUP BY 1, 3
    UNION ALL
    SELECT {_place("s.at")}, '{{kind}}', NULL, NULL, sum(s.{{kind}}_sum)::bigint, min(s.{{kind}}_min),
        max(s.{{kind}}_max)
    FROM {_TOLD} GROUP BY 1"""

_LIVE_TIMES: Final = f"""
    SELECT {_place("f.at")}, '{{kind}}', {bucket("f.{kind}")}, count(*), sum(f.{{kind}})::bigint, min(f.{{kind}}),
        max(f.{{kind}})
    FROM live AS f WHERE f.{{kind}} IS NOT NULL GROUP BY 1, 3"""

_TIMES: Final = text(f"""
    WITH live AS MATERIALIZED (SELECT f.at, f.duration, f.delay FROM {_LIVE} WHERE coalesce(f.duration, f.delay) >= 0)
    {" UNION ALL ".join(part.format(kind=kind) for part in (_TOLD_TIMES, _LIVE_TIMES) for kind in _KINDS)}""")

_REASONS: Final = text(f"""
    SELECT status, reason, sum(n)::bigint AS n FROM (
        SELECT split_part(one.key, '/', 1) AS status, split_part(one.key, '/', 2) AS reason, one.value::bigint AS n
        FROM {_TOLD} CROSS JOIN LATERAL jsonb_each_text(s.reasons) AS one (key, value)
        UNION ALL
        SELECT f.status, f.reason, f.n FROM {_LIVE} WHERE f.reason IS NOT NULL) AS counted
    GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2""")

_STATUSES: Final = ("finished", "failed", "missed", "skipped", "cancelled", "running", "pending")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose executions are counted: those of a project, of tasks (an empty tuple: of none), or of the whole tenant."""

    project_id: UUID | None = None
    tasks: Sequence[UUID] | None = None


EVERYTHING: Final = Scope()


class Reason(NamedTuple):
    """How many executions have one status for one reason."""

    status: str
    reason: str
    n: int


class Ended(NamedTuple):
    """What became of a stretch of time. `busy`: seconds for which what still runs has been running."""

    totals: Totals
    busy: float


@dataclass(frozen=True, slots=True)
class Reading:
    """Where statistics are to be read from, as one look at the marks has found it.

    Good for any number of counts of the same transaction: what was marked then is read live, and every quarter is
    told as it stood at some instant since.
    """

    conn: AsyncConnection
    tenant_id: UUID
    now: datetime
    frozen_before: datetime
    marked: Sequence[datetime]
    projects: Sequence[UUID]

    @classmethod
    async def begin(
        cls,
        conn: AsyncConnection,
        tenant_id: UUID,
        now: datetime,
        since: datetime = _EARLIEST,
        until: datetime = _LATEST,
    ) -> Reading:
        """Look at the marks of a window; of all quarters, unless it is told otherwise."""
        values = {
            "tenant_id": tenant_id,
            "since": quarter_of(_bounded(since)),
            "until": min(_bounded(until), quarter_of(now)),
            "nobody": id_floor(now),
        }
        row = (await conn.execute(_LOOK, values)).mappings().one()
        return cls(conn, tenant_id, now, row["frozen_before"] or NEVER, row["marked"], row["projects"])

    async def count(self, scope: Scope, starts: Sequence[datetime], *, timed: bool = False) -> dict[int, Ended]:
        """Count what was due in each of the stretches that begin at `starts`, but for the last, where they end.

        By the place of the stretch, from 0; those with nothing in them are left out. Slots that are told as ranges
        count by quarters. `timed` adds durations and start delays.
        """
        values = self._values(scope, starts)
        found: dict[int, Ended] = {}
        for row in (await self.conn.execute(_COUNTS, values)).mappings():
            totals = Totals({name: row[name] for name in _STATUSES if row[name]}, row["late"])
            if totals.counts:
                found[row["n"] - 1] = Ended(totals, row["busy"])
        if timed and found:
            for row in (await self.conn.execute(_TIMES, values)).mappings():
                totals = found.setdefault(row["n"] - 1, Ended(Totals(), 0.0)).totals
                histogram = totals.durations if row["kind"] == "duration" else totals.delays
                if row["bucket"] is not None:
                    histogram.buckets[row["bucket"]] = histogram.buckets.get(row["bucket"], 0) + row["times"]
                histogram.note(row["total"], row["least"], row["greatest"])
        return {place: one for place, one in found.items() if one.totals.counts}

    async def reasons(self, scope: Scope, since: datetime, until: datetime) -> list[Reason]:
        """Count the final outcomes of [since, until) that have a reason, by status and reason, most first."""
        rows = (await self.conn.execute(_REASONS, self._values(scope, (since, until)))).mappings()
        return [Reason(row["status"], row["reason"], row["n"]) for row in rows]

    def _values(self, scope: Scope, starts: Sequence[datetime]) -> dict[str, Any]:
        """Return the parameters of a statement."""
        bounded = [_bounded(at) for at in starts]
        since, until = bounded[0], max(bounded[0], min(bounded[-1], self.now + _INSTANT))
        parts = split(
            since,
            until,
            now=self.now,
            frozen_before=self.frozen_before,
            marked=self.marked,
            parted=bounded,
        )
        tasks = None if scope.tasks is None else list(scope.tasks)
        projects = self.projects if scope.project_id is None else [scope.project_id]
        return statistics.window(self.tenant_id, parts.live, self.now) | {
            "starts": bounded[:-1],
            "since": since,
            "until": until,
            "told_since": [one.since for one in parts.told],
            "told_until": [one.until for one in parts.told],
            "scopes": list(projects) if tasks is None else tasks,
            "project_id": scope.project_id,
            "one_task": tasks[0] if tasks is not None and len(tasks) == 1 else None,
            "tasks": tasks if tasks is not None and len(tasks) != 1 else None,
            "open_low": id_floor(since - SLACK),
            "open_high": id_ceil(until + SLACK),
        }


def _bounded(at: datetime) -> datetime:
    return min(max(at, _EARLIEST), _LATEST)


async def count(
    conn: AsyncConnection,
    tenant_id: UUID,
    scope: Scope,
    starts: Sequence[datetime],
    now: datetime,
    *,
    timed: bool = False,
) -> dict[int, Ended]:
    """Look and count at once: `Reading.count`."""
    reading = await Reading.begin(conn, tenant_id, now, starts[0], starts[-1])
    return await reading.count(scope, starts, timed=timed)
