"""Edges of claims: places, retries whose task or plan is gone, damaged definitions, small memories."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from cron_observer.lifecycle import Trigger
from cron_observer.schedule import new_id
from cron_observer.store.engine import clock
from cron_observer.store.executions import create_running, expire, rows
from support.claims import SECOND, claimed, complete, said, seat
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, events, make_slot, make_task, state


async def begun(tenant: Tenant, task: Any, lease: float = 5) -> Any:
    """Begin a run as its own worker and return its id."""
    async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
        now = await clock(conn)
        identity = new_id(now)
        await create_running(
            conn, tenant.tenant_id, task, identity=identity, worker="w", lease=lease * SECOND,
            scheduled_for=None, started_at=None, now=now,
        )  # fmt: skip
    return identity


async def test_who_lost_a_run_beside_another_waits_for_the_place(database: FreshDatabase, tenant: Tenant) -> None:
    """A run that began beside an active one is offered again only when the exclusive task is free."""
    now, task = database_now(database), make_task(tenant)
    make_slot(tenant, task, now - SECOND)
    (active,) = await claimed(database.api, tenant, seat(lease=3600))
    beside = await begun(tenant, task)
    later = database_now(database) + 10 * SECOND

    assert await claimed(database.api, tenant, seat(5), now=later) == []
    assert state(database, beside) == ("PENDING", "lease_lost")
    await said(database, complete(tenant, active.id))
    assert [run.id for run in await claimed(database.api, tenant, seat(5), now=later)] == [beside]
    assert database.value("SELECT execution_id FROM active_runs") == beside


async def test_a_retry_keeps_its_own_place(database: FreshDatabase, tenant: Tenant) -> None:
    """A retry runs in the place that it kept, and a slot that fell due meanwhile is skipped."""
    now, task = database_now(database), make_task(tenant, retries={"max": 1, "initial": "1s"})
    slot = make_slot(tenant, task, now - 30 * SECOND)
    await claimed(database.api, tenant)
    await said(database, complete(tenant, slot, "failed"))
    newer = make_slot(tenant, task, now - SECOND)

    assert [(run.id, run.attempt) for run in await claimed(database.api, tenant, now=now + 5 * SECOND)] == [(slot, 2)]
    assert state(database, newer) == ("SKIPPED", "overlap")


@pytest.mark.parametrize(
    ("outcome", "ended"), [("failed", ("FAILED", "task_deleted")), ("released", ("SKIPPED", "task_deleted"))]
)
async def test_a_task_that_is_gone_is_not_tried_again(
    database: FreshDatabase, tenant: Tenant, outcome: str, ended: tuple[str, str]
) -> None:
    """What waits for another try when its task is removed never runs again; what never ran is skipped."""
    now, task = database_now(database), make_task(tenant, retries={"max": 3, "initial": "1s"})
    tried = {"attempt": 1, "reason": "error"} if outcome == "failed" else {"attempt": 0}
    slot = make_slot(tenant, task, now - SECOND, fence=1, generation=1, **tried)
    database.do("UPDATE tasks SET removed_at = %s WHERE task_uid = %s", now, task)

    assert await claimed(database.api, tenant, seat(5)) == []
    assert state(database, slot) == ended


async def test_an_edit_does_not_strand_a_retry(database: FreshDatabase, tenant: Tenant) -> None:
    """What was claimed once belongs to no plan any more: a newer plan does not make its retry obsolete."""
    now, task = database_now(database), make_task(tenant)
    slot = make_slot(tenant, task, now - SECOND, fence=1, attempt=1, generation=1, nominal_at=now + timedelta(hours=1))
    database.do("UPDATE task_plan SET generation = 2, effective_from = %s WHERE task_uid = %s", now, task)

    assert [run.id for run in await claimed(database.api, tenant)] == [slot]


async def test_a_damaged_definition_stops_nobody(database: FreshDatabase, tenant: Tenant) -> None:
    """A definition that cannot be read is obeyed with the defaults; the claims of all others go on."""
    now = database_now(database)
    broken, sound = make_task(tenant, "broken"), make_task(tenant, "sound", timeout="2h")
    database.do("UPDATE task_revisions SET spec = '{\"timeout\": 7}' WHERE task_uid = %s", broken)
    slots = [make_slot(tenant, task, now - SECOND) for task in (broken, sound)]
    runs = await claimed(database.api, tenant, seat(5), now=now)

    assert {run.id for run in runs} == set(slots)
    assert {run.task_uid: run.run_deadline for run in runs} == {
        broken: now + timedelta(hours=1),
        sound: now + timedelta(hours=2),
    }


async def test_a_small_memory_forgets_no_policy_in_use(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More definitions than a process remembers are all obeyed, also in one round."""
    monkeypatch.setattr(rows, "_REMEMBERED", 2)
    now = database_now(database)
    hours = {make_task(tenant, f"t{hour}", timeout=f"{hour}h"): hour for hour in range(2, 8)}
    for first in (list(hours)[:2], list(hours)):
        for task in first:
            make_slot(tenant, task, now - len(first) * SECOND)
        runs = await claimed(database.api, tenant, seat(10), now=now)
        assert len(runs) == len(first)
        assert {run.task_uid: run.run_deadline for run in runs} == {
            task: now + timedelta(hours=hours[task]) for task in first
        }
        for run in runs:
            await said(database, complete(tenant, run.id))


async def test_two_tenants_with_one_task_uid(database: FreshDatabase) -> None:
    """What a process remembers of a definition is its tenant's alone, even where the uids are the same."""
    from support.databases import make_tenant

    tenants = [make_tenant(database, name) for name in ("one", "two")]
    uid, now = uuid4(), database_now(database)
    for tenant, timeout in zip(tenants, ("1h", "5h"), strict=True):
        made = make_task(tenant, timeout=timeout)
        for table in ("tasks", "task_revisions", "task_plan"):
            database.do(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
            database.do(f"UPDATE {table} SET task_uid = %s WHERE task_uid = %s", uid, made)
        make_slot(tenant, uid, now - SECOND)
    deadlines = [(await claimed(database.api, tenant, now=now))[0].run_deadline for tenant in tenants]

    assert deadlines == [now + timedelta(hours=1), now + timedelta(hours=5)]


async def test_the_error_of_an_earlier_try_does_not_stick(database: FreshDatabase, tenant: Tenant) -> None:
    """A new try begins without error and result of the one before, which stay with their attempt."""
    task = make_task(tenant, retries={"max": 2, "initial": "1s"})
    now = database_now(database)
    slot = make_slot(tenant, task, now - SECOND)
    shown = "SELECT error->>'message' AS error, result, exit_code FROM executions WHERE id = %s"
    await claimed(database.api, tenant)
    error = {"type": "E", "message": "m", "traceback": None}
    await said(database, complete(tenant, slot, "failed", error=error, result={"rows": 1}, exit_code=3))
    assert database.rows(shown, slot) == [{"error": "m", "result": {"rows": 1}, "exit_code": 3}]
    await claimed(database.api, tenant, now=now + 5 * SECOND)
    assert database.rows(shown, slot) == [{"error": None, "result": None, "exit_code": None}]
    await said(database, complete(tenant, slot, fence=2), now=now + 6 * SECOND)
    assert database.rows(shown, slot) == [{"error": None, "result": None, "exit_code": None}]
    kept = "SELECT error->>'message' AS error, exit_code FROM attempts WHERE execution_id = %s ORDER BY fence"
    assert database.rows(kept, slot) == [{"error": "m", "exit_code": 3}, {"error": None, "exit_code": None}]


async def test_a_lost_run_that_nobody_takes_has_failed(database: FreshDatabase, tenant: Tenant) -> None:
    """MISSED never ran: what lost its worker and found no other in time is FAILED, and gives its place back."""
    now, task = database_now(database), make_task(tenant, startDeadline="1m")
    slot = make_slot(tenant, task, now - SECOND)
    await claimed(database.api, tenant, seat(lease=5), now=now)
    for minute in (1, 3):
        async with database.scheduler.transaction([tenant.tenant_id]) as conn:
            await expire(conn, tenant.tenant_id, now + timedelta(minutes=minute))

    assert state(database, slot) == ("FAILED", "no_worker")
    assert events(database, slot) == ["claimed", "lease_expired", "gave_up"]
    assert database.value("SELECT count(*) FROM active_runs") == 0


async def test_time_that_runs_backwards(database: FreshDatabase, tenant: Tenant) -> None:
    """When the database's clock steps back during a run, its history stays in order."""
    now, task = database_now(database), make_task(tenant)
    slot = make_slot(tenant, task, now - timedelta(hours=2))
    database.do("UPDATE executions SET trigger = %s", Trigger.MANUAL.value)
    await claimed(database.api, tenant, now=now)
    await said(database, complete(tenant, slot), now=now - timedelta(hours=1))
    (row,) = database.rows("SELECT claimed_at, started_at, finished_at FROM executions WHERE id = %s", slot)
    at = [row["at"] for row in database.rows("SELECT at FROM execution_events ORDER BY seq")]

    assert row["claimed_at"] <= row["started_at"] <= row["finished_at"]
    assert at == sorted(at)
    assert database.value("SELECT claimed_at <= ended_at FROM attempts")
