"""The database refuses every change of status that the table of moves does not have, whoever of ours asks for it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from cron_observer.lifecycle import FINAL, MOVES, Status
from cron_observer.store.engine import Database
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, make_slot, make_task

LEGAL = {(source, move.target) for move in MOVES.values() for source in move.sources if source is not move.target}


def assignments(status: Status, fence: int) -> str:
    """Return the SET clause that brings a row to a status, with what the checks of the table ask for beside it."""
    watched = "now()" if status is Status.RUNNING else "NULL"
    finished = "now()" if status in FINAL else "NULL"
    times = f"lease_until = {watched}, check_at = {watched}, finished_at = {finished}"
    return f"status = '{status.value}', fence = {fence}, {times}"


async def moved(pool: Database, tenant: Tenant, identity: Any, status: Status, fence: int = 1) -> str | None:
    """Try to bring an execution to a status by plain SQL; return which rule refused it."""
    statement = f"UPDATE executions SET {assignments(status, fence)} WHERE tenant_id = :tenant AND id = :id"
    try:
        async with pool.transaction([tenant.tenant_id]) as conn:
            await conn.execute(text(statement), {"tenant": tenant.tenant_id, "id": identity})
    except DBAPIError as error:
        return str(error.orig.diag.constraint_name)  # type: ignore[union-attr]
    return None


@pytest.mark.parametrize("role", ["api", "scheduler"])
async def test_only_the_moves_of_the_table(database: FreshDatabase, tenant: Tenant, role: str) -> None:
    """Of all pairs of statuses the server takes exactly those that some event has, by either role that may write."""
    pool: Database = getattr(database, role)
    slot = make_slot(tenant, make_task(tenant), database_now(database))
    taken = set()
    for source in Status:
        for target in Status:
            if source is target:
                continue
            database.do(f"UPDATE executions SET {assignments(source, 1)} WHERE id = %s", slot)
            refused = await moved(pool, tenant, slot, target)
            assert refused in (None, "a_move_is_legal"), refused
            if refused is None:
                taken.add((source, target))
    assert taken == LEGAL


async def test_a_forecast_may_be_taken_back(database: FreshDatabase, tenant: Tenant) -> None:
    """What was planned as skipped may be planned to run, until something has befallen it."""
    slot = make_slot(tenant, make_task(tenant), database_now(database))
    for events, refused in ((0, None), (1, "a_move_is_legal")):
        database.do(f"UPDATE executions SET {assignments(Status.SKIPPED, 0)}, event_seq = {events} WHERE id = %s", slot)
        assert await moved(database.scheduler, tenant, slot, Status.PENDING, 0) == refused


async def test_a_fence_never_falls(database: FreshDatabase, tenant: Tenant) -> None:
    """No statement of ours can bring an older claim back."""
    slot = make_slot(tenant, make_task(tenant), database_now(database))
    database.do(f"UPDATE executions SET {assignments(Status.RUNNING, 5)} WHERE id = %s", slot)
    assert await moved(database.api, tenant, slot, Status.RUNNING, 4) == "a_fence_never_falls"
    assert await moved(database.api, tenant, slot, Status.RUNNING, 6) is None
