"""Thousands of tasks are changed at once while their slots fall due every second: none is lost, none runs twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from cron_observer.store import plans
from cron_observer.store.engine import clock, fetch
from support.claims import claimed, complete, said, seat
from support.databases import Tenant
from support.repositories import Following, Repository, following

#: More than are planned in the transaction that changes them.
TASKS = 2 * plans.INLINE_MAX
#: Seconds between two slots of a task. Several tasks have a slot in each second.
EVERY = 300

IDLE = "apiVersion: cron-observer/v1\nkind: Calendar\nmetadata: {{name: idle}}\nspec: {{entries: [{{date: '{}'}}]}}\n"


def files(timezone: str) -> dict[str, str]:
    """Write all tasks, 100 to a file. Whatever the zone is, their slots are the same instants."""
    documents = [
        f"apiVersion: cron-observer/v1\nkind: Task\nmetadata: {{name: t{number:04}}}\nspec:\n  schedule:\n"
        f"    every: {EVERY}s\n    anchor: '2026-01-01T00:{number % EVERY // 60:02}:{number % 60:02}'\n"
        f"    timezone: {timezone}\n    calendars: {{exclude: [idle]}}\n"
        for number in range(TASKS)
    ]
    return {f"t{first:04}.yaml": "---\n".join(documents[first : first + 100]) for first in range(0, TASKS, 100)}


class Workers:
    """Claims what is due and finishes it, again and again, and remembers what it was given."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.seen: Counter[UUID] = Counter()
        self.stop = asyncio.Event()

    async def run(self) -> None:
        """Work until `stop` is set."""
        database = self.tenant.database
        while not self.stop.is_set():
            runs = await claimed(database.api, self.tenant, seat(wanted=50))
            self.seen.update(run.id for run in runs)
            if runs:
                await said(database, *(complete(self.tenant, run.id) for run in runs))
            await asyncio.sleep(0.05)


async def keep_planning(tenant: Tenant, stop: asyncio.Event) -> None:
    """Plan as the scheduler does until `stop` is set."""
    while not stop.is_set():
        async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
            await plans.plan_batch(conn, tenant.tenant_id, 500, await clock(conn))
        await asyncio.sleep(0.05)


async def in_effect(it: Following, generation: int) -> datetime:
    """Wait until every plan has reached a generation, is planned, and the last has been in effect for some seconds."""
    query = (
        "SELECT max(effective_from) FROM task_plan HAVING count(*) FILTER (WHERE generation >= %s "
        "AND planned_until > effective_from) = %s AND max(effective_from) < now() - interval '4 seconds'"
    )
    while not (rows := it.database.rows(query, generation, TASKS)):  # noqa: ASYNC110  the database sets no event
        await asyncio.sleep(0.2)
    found: datetime = rows[0]["max"]
    return found


#: Each nominal instant since a moment, and what there is of it. The anchors are at midnight of a zone whose offset
#: is a whole number of intervals.
LEDGER = """
    SELECT t.name, due.at, count(e.id) AS rows, count(*) FILTER (WHERE e.status = 'FINISHED') AS finished
    FROM tasks t
    CROSS JOIN LATERAL (SELECT substr(t.name, 2)::int %% %s AS offset) AS o
    CROSS JOIN LATERAL generate_series(
        to_timestamp(ceil((extract(epoch FROM %s::timestamptz) - o.offset) / %s) * %s + o.offset),
        %s::timestamptz, make_interval(secs => %s)) AS due (at)
    LEFT JOIN executions e ON e.task_uid = t.task_uid AND e.nominal_at = due.at
    GROUP BY t.name, due.at"""


async def test_an_apply_of_thousands_loses_no_slot(tenant: Tenant, tmp_path: Path) -> None:
    """A changed calendar, then all manifests: every slot of the time has one row and was given out once."""
    repository = Repository.make(tmp_path)
    repository.push({"calendar.yaml": IDLE.format("2001-01-01"), **files("UTC")})
    workers = Workers(tenant)
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        assert it.findings() == []
        running = [asyncio.create_task(one) for one in (workers.run(), keep_planning(tenant, workers.stop))]
        try:
            begin = await in_effect(it, 1)
            repository.push({"calendar.yaml": IDLE.format("2001-01-02")})
            await it.sync()
            await in_effect(it, 2)
            repository.push(files("Europe/Berlin"))
            await it.sync()
            end = await in_effect(it, 3)
        finally:
            workers.stop.set()
            await asyncio.gather(*running)
    assert it.database.value("SELECT min(generation) = 3 AND max(generation) = 3 FROM task_plan")
    rows = it.database.rows(LEDGER, EVERY, begin, EVERY, EVERY, end, EVERY)
    seconds = {row["at"].replace(microsecond=0) for row in rows}
    assert len(seconds) > (end - begin) / timedelta(seconds=1) - 2, "slots fell due in every second"
    assert [row for row in rows if (row["rows"], row["finished"]) != (1, 1)] == []
    assert max(workers.seen.values()) == 1
    assert len(workers.seen) >= len(rows)


async def test_plans_are_locked_without_a_loop_in_a_loop(tenant: Tenant, tmp_path: Path) -> None:
    """Also when thousands of tasks have just been added, and the server knows nothing of the tables yet."""
    repository = Repository.make(tmp_path)
    repository.push({"calendar.yaml": IDLE.format("2001-01-01"), **files("UTC")})
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        uids = [row["task_uid"] for row in it.database.rows("SELECT task_uid FROM task_plan")]
        async with tenant.database.reconciler.transaction([tenant.tenant_id]) as conn:
            values = {"tenant": tenant.tenant_id, "uids": uids}
            lines = [str(line) for (line,) in await fetch(conn, f"EXPLAIN {plans._LOCK}", values)]
        assert any("task_plan" in line for line in lines)
        assert not any("Nested Loop" in line for line in lines), lines
