"""What claims, reports and probes cost: partitions and index ranges of the last days, whatever else is stored."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from cron_observer.store.engine import Database, clock
from cron_observer.store.executions import (
    claim_round,
    expire,
    next_due,
    process,
    remember,
    repeated,
    settle_waiting,
)
from support.claims import SECOND, complete, seat
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, make_slot, make_task

#: Slots that are not yet due; a statement that reads them all is found by that.
FORECASTS = 3_000

#: Weeks that history reaches back; what is hot touches the last of them only.
WEEKS = 12


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's node and all below it."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


class Explained(dict[str, dict[str, int]]):
    """The costs of each statement that ran, by its text: weeks it touched, rows it read and threw away."""

    async def note(self, cursor: Any, run: Any, statement: str, parameters: Any) -> None:
        """Explain a statement by running it and taking that back."""
        await run(cursor, "SAVEPOINT explained")
        await run(cursor, f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
        ((found,),) = await cursor.fetchall()
        await run(cursor, "ROLLBACK TO SAVEPOINT explained")
        plan = (found if isinstance(found, list) else json.loads(found))[0]["Plan"]
        touched = [node for node in nodes(plan) if re.search(r"_\d{8}$", node.get("Relation Name", ""))]
        weeks = {node["Relation Name"][-8:] for node in touched}
        wasted = sum(node.get("Rows Removed by Filter", 0) * node["Actual Loops"] for node in touched)
        self[" ".join(statement.split())] = {"weeks": len(weeks), "wasted": int(wasted)}


@asynccontextmanager
async def explaining(database: Database, tenant: Tenant, patch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Any, Any]]:
    """Open a transaction of which every statement is explained; give the connection and the costs."""
    costs, run = Explained(), psycopg.AsyncCursor.execute

    async def explained(cursor: Any, statement: str, parameters: Any = None, **more: Any) -> Any:
        if isinstance(parameters, dict) and "execution" in statement:
            await costs.note(cursor.connection.cursor(), run, statement, parameters)
        return await run(cursor, statement, parameters, **more)

    async with database.transaction([tenant.tenant_id]) as conn:
        with patch.context() as patched:
            patched.setattr(psycopg.AsyncCursor, "execute", explained)
            yield conn, costs


@pytest.fixture
def history(database: FreshDatabase, tenant: Tenant) -> tuple[FreshDatabase, Tenant]:
    """Three months of runs, thousands of forecasts, and a few tasks whose slots are due."""
    now = database_now(database)
    database.partitions(now - timedelta(weeks=WEEKS), now)
    busy = make_task(tenant, "busy", overlap="allow_all")
    database.do(
        "INSERT INTO executions (tenant_id, id, project_id, task_uid, status, trigger, nominal_at, fire_at,"
        " available_at, queue, priority, plan_generation, generation, fence, attempt, event_seq, finished_at,"
        " created_at)"
        " SELECT p.tenant_id, overlay(id_floor(at)::text placing lpad(to_hex(n), 12, '0') from 25)::uuid, p.project_id,"
        " p.task_uid, CASE WHEN at < %s THEN 'FINISHED' ELSE 'PENDING' END, 'schedule', at, at, at, 'default', 0, 1,"
        " CASE WHEN at < %s THEN 1 END, (at < %s)::int, (at < %s)::int, (at < %s)::int,"
        " CASE WHEN at < %s THEN at END, at"
        " FROM task_plan p, LATERAL (SELECT n, CASE WHEN n <= 1000 THEN %s - n * interval '2 hours'"
        " ELSE %s + n * interval '1 second' END AS at FROM generate_series(1, %s) n) AS slot WHERE p.task_uid = %s",
        *[now] * 8, 1000 + FORECASTS, busy,
    )  # fmt: skip
    for number in range(20):
        make_slot(tenant, make_task(tenant, f"t{number}"), now - SECOND)
    database.do("ANALYZE")
    return database, tenant


def judge(costs: Explained, weeks: int) -> None:
    """Fail for a statement that touches more weeks, or reads rows by hundreds to throw them away."""
    assert costs, "statements were explained"
    heavy = {name: cost for name, cost in costs.items() if cost["weeks"] > weeks or cost["wasted"] > 300}
    assert heavy == {}


async def test_a_claim_looks_at_the_last_days(
    history: tuple[FreshDatabase, Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round of claims touches the weeks in which anything that is open can lie, and no forecast."""
    database, tenant = history
    async with explaining(database.api, tenant, monkeypatch) as (conn, costs):
        now = await clock(conn)
        claim_id, worker = uuid4(), seat(10)
        await repeated(conn, tenant.tenant_id, [claim_id], now)
        assert len(await claim_round(conn, tenant.tenant_id, [worker], now)) == 10
        await remember(conn, tenant.tenant_id, {claim_id: worker.got}, now)
        await next_due(conn, tenant.tenant_id, [worker], now)

    judge(costs, weeks=8)
    assert len(costs) > 8


async def test_a_probe_costs_nothing(history: tuple[FreshDatabase, Tenant], monkeypatch: pytest.MonkeyPatch) -> None:
    """A look for workers for whom nothing is due reads next to nothing, in queues and by task."""
    database, tenant = history
    bound = seat(tasks=frozenset([make_task(tenant, "idle")]))
    async with explaining(database.api, tenant, monkeypatch) as (conn, costs):
        now = await clock(conn)
        seats = [seat(queues=("other",)), bound]
        assert await claim_round(conn, tenant.tenant_id, seats, now) == []
        await next_due(conn, tenant.tenant_id, seats, now)

    judge(costs, weeks=8)


async def test_a_report_touches_its_week(
    history: tuple[FreshDatabase, Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of completions touches the weeks of its executions, and settles in those of the last days."""
    database, tenant = history
    async with database.api.transaction([tenant.tenant_id]) as conn:
        runs = await claim_round(conn, tenant.tenant_id, [seat(20)], await clock(conn))
    async with explaining(database.api, tenant, monkeypatch) as (conn, costs):
        answers = await process(conn, [complete(tenant, run.id) for run in runs])

    assert all(answer.refusal is None for answer in answers)
    judge(costs, weeks=7)
    writes = [cost for name, cost in costs.items() if "UPDATE executions" in name]
    assert [cost["weeks"] for cost in writes] == [1] * len(writes)


async def test_the_scheduler_reads_no_forecasts(
    history: tuple[FreshDatabase, Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expiry and settling look everywhere, but at what is due only."""
    database, tenant = history
    async with explaining(database.scheduler, tenant, monkeypatch) as (conn, costs):
        now = await clock(conn)
        await expire(conn, tenant.tenant_id, now)
        await settle_waiting(conn, tenant.tenant_id, now, None)

    judge(costs, weeks=WEEKS + 6)


async def test_a_scan_is_caught(history: tuple[FreshDatabase, Tenant], monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin, whose deadlines of retries have no index, is seen to read every forecast."""
    database, tenant = history
    database.do("DROP INDEX executions_to_give_up")
    async with explaining(database.api, tenant, monkeypatch) as (conn, costs):
        await expire(conn, tenant.tenant_id, await clock(conn), recent=True)

    with pytest.raises(AssertionError, match="start_deadline"):
        judge(costs, weeks=8)
