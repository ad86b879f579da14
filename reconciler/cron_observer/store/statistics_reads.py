"""Statistics, read: closed quarters as they were counted, and beside them whatever has changed since, live.

A completion that was answered is in the next reading: its mark was committed with it, and a marked quarter is read
from the executions. What is open (running, or due and waiting) is always counted live.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.schedule import id_ceil, id_floor
from cron_observer.statistics import Histogram, Totals, quarter_of, split
from cron_observer.store import statistics
from cron_observer.store.reads import DUE, STANDING
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


def _place(column: str) -> str:
    """Return SQL for which of the stretches an instant lies in, from 1."""
    return f"greatest(1, width_bucket({column}, CAST(:starts AS timestamptz[])))"


#: Read from the index alone.
_TOLD_COUNTS: Final = text(f"""
    SELECT {_place("s.at")} AS n, sum(s.finished) AS finished, sum(s.failed) AS failed, sum(s.missed) AS missed,
        sum(s.skipped) AS skipped, sum(s.cancelled) AS cancelled, sum(s.late) AS late
    FROM {_TOLD} GROUP BY 1""")

#: Everything that is known of each stretch, looked up once: a row of counts, rows of durations and of start delays (how
#: many are in which bucket; sum, least and greatest), and a row for each reason.
_TOLD_ALL: Final = text(f"""
    WITH one AS MATERIALIZED (SELECT {_place("s.at")} AS n, s.* FROM {_TOLD}),
    apart AS (
        SELECT n, 'duration' AS kind, unnest(duration_buckets) AS bucket, unnest(duration_counts) AS times FROM one
        UNION ALL
        SELECT n, 'delay', unnest(delay_buckets), unnest(delay_counts) FROM one),
    counted AS (SELECT n, kind, bucket, sum(times) AS times FROM apart GROUP BY n, kind, bucket),
    exact AS (
        SELECT n, 'duration' AS kind, sum(duration_sum)::bigint AS total, min(duration_min) AS least,
            max(duration_max) AS greatest FROM one GROUP BY n
        UNION ALL
        SELECT n, 'delay', sum(delay_sum)::bigint, min(delay_min), max(delay_max) FROM one GROUP BY n)
    SELECT n, 'counts' AS kind, NULL AS reason, NULL::int[] AS buckets,
        ARRAY[sum(finished), sum(failed), sum(missed), sum(skipped), sum(cancelled), sum(late)]::bigint[] AS counts,
        NULL::bigint AS total, NULL::bigint AS least, NULL::bigint AS greatest
    FROM one GROUP BY n
    UNION ALL
    SELECT n, kind, NULL, b.buckets, b.counts, e.total, e.least, e.greatest
    FROM exact AS e JOIN (
        SELECT n, kind, array_agg(bucket::int) AS buckets, array_agg(times::bigint) AS counts
        FROM counted GROUP BY n, kind) AS b USING (n, kind)
    UNION ALL
    SELECT n, 'reason', r.key, NULL, NULL, sum(r.value::bigint)::bigint, NULL, NULL
    FROM one CROSS JOIN LATERAL jsonb_each_text(reasons) AS r (key, value) WHERE reasons IS NOT NULL
    GROUP BY n, r.key""")

#: What is read live, gathered: outcomes of live stretches, and what is open anywhere in the window.
_LIVE: Final = text(f"""
    SELECT {_place("f.at")} AS n, f.status, f.reason, f.late, {bucket("f.duration")} AS duration,
        {bucket("f.delay")} AS delay, sum(f.n)::bigint AS times,
        sum(f.duration)::bigint AS duration_sum, min(f.duration) AS duration_min, max(f.duration) AS duration_max,
        sum(f.delay)::bigint AS delay_sum, min(f.delay) AS delay_min, max(f.delay) AS delay_max, 0.0 AS busy
    FROM ({OUTCOMES.format(_chosen("e"))} UNION ALL {RANGES.format(_chosen("r"))}) AS f
    GROUP BY 1, 2, 3, 4, 5, 6
    UNION ALL
    SELECT {_place("e.fire_at")}, e.status, NULL, false, NULL, NULL, count(*), NULL, NULL, NULL, NULL, NULL, NULL,
        coalesce(sum(extract(epoch FROM CAST(:now AS timestamptz) - coalesce(e.started_at, e.claimed_at)))
            FILTER (WHERE e.status = 'RUNNING'), 0)::float
    FROM (
        SELECT e.tenant_id, e.task_uid, e.status, e.fence, e.plan_generation, e.nominal_at, e.fire_at, e.started_at,
            e.claimed_at
        FROM executions AS e
        WHERE e.tenant_id = :tenant_id AND e.finished_at IS NULL AND e.id BETWEEN :open_low AND :open_high
          AND e.fire_at >= :since AND e.fire_at < :until AND e.fire_at <= :now AND {DUE} AND {_chosen("e")}
        OFFSET 0) AS e
    WHERE {STANDING}
    GROUP BY 1, 2""")

_OUTCOMES: Final = ("finished", "failed", "missed", "skipped", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose executions are counted: those of a project, of tasks (an empty tuple: of none), or of the whole tenant."""

    project_id: UUID | None = None
    tasks: Sequence[UUID] | None = None


EVERYTHING: Final = Scope()


def _tell(one: Totals, row: RowMapping) -> None:
    """Add the counts that were told of a stretch."""
    one.count({name: row[name] for name in _OUTCOMES}, row["late"])


def _tell_all(one: Totals, row: RowMapping) -> None:
    """Add a row of what was told of a stretch."""
    kind = row["kind"]
    if kind == "counts":
        *counts, late = row["counts"]
        one.count(dict(zip(_OUTCOMES, counts, strict=True)), late)
    elif kind == "reason":
        status, _, reason = row["reason"].partition("/")
        one.reasons[status, reason] += row["total"]
    else:
        buckets = dict(zip(row["buckets"], row["counts"], strict=True))
        histogram = one.durations if kind == "duration" else one.delays
        histogram.merge(Histogram(buckets, row["total"], row["least"], row["greatest"]))


def _add(one: Totals, row: RowMapping, *, timed: bool) -> None:
    """Count what was read live."""
    times = row["times"]
    one.count({row["status"].lower(): times}, times if row["late"] else 0)
    one.running += float(row["busy"])
    if not timed:
        return
    if row["reason"] is not None:
        one.reasons[row["status"], row["reason"]] += times
    for name, histogram in (("duration", one.durations), ("delay", one.delays)):
        if row[name] is not None:
            exact = (row[f"{name}_sum"], row[f"{name}_min"], row[f"{name}_max"])
            histogram.merge(Histogram({row[name]: times}, *exact))


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

    async def count(self, scope: Scope, starts: Sequence[datetime], *, timed: bool = False) -> dict[int, Totals]:
        """Count what was due in each of the stretches that begin at `starts`, but for the last, where they end.

        By the place of the stretch, from 0; those with nothing in them are left out. Slots that are told as ranges
        count by quarters. `timed` adds durations, start delays and reasons.
        """
        values = self._values(scope, starts)
        found: dict[int, Totals] = defaultdict(Totals)
        statement, add = (_TOLD_ALL, _tell_all) if timed else (_TOLD_COUNTS, _tell)
        for row in (await self.conn.execute(statement, values)).mappings():
            add(found[row["n"] - 1], row)
        for row in (await self.conn.execute(_LIVE, values)).mappings():
            _add(found[row["n"] - 1], row, timed=timed)
        return {place: one for place, one in found.items() if one.total}

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
) -> dict[int, Totals]:
    """Look and count at once: `Reading.count`."""
    reading = await Reading.begin(conn, tenant_id, now, starts[0], starts[-1])
    return await reading.count(scope, starts, timed=timed)
