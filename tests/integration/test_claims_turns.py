"""Fairness of claims: a backlog delays neither another task of its queue nor another tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from cron_observer import turns as turns_module
from cron_observer.store.engine import clock
from cron_observer.store.executions import candidates, claim_round, claims
from cron_observer.turns import Turns
from cron_observer_api import claimer as claimer_module
from cron_observer_api.claimer import Claimer
from integration.test_claimer import ask, serving
from support.backlogs import EVERY, make_backlog
from support.claims import SECOND, seat
from support.databases import FreshDatabase, Tenant, make_tenant
from support.rows import database_now, make_slot, make_task

#: More than one look locks, so that what stands behind it is not seen by chance.
MANY = 3_000


async def one_by_one(database: FreshDatabase, tenant: Tenant, count: int, **claim: Any) -> list[UUID]:
    """Claim one execution at a time, as one worker does, and return the tasks of what was given."""
    turns, got = Turns(), []
    for _ in range(count):
        async with database.api.transaction([tenant.tenant_id]) as conn:
            now = await clock(conn)
            given = await claim_round(conn, tenant.tenant_id, [seat(1)], now, turns=turns, **claim)
        turns.served(given)
        got += [run.task_uid for run in given]
    return got


async def test_a_backlog_lets_other_tasks_through(database: FreshDatabase, tenant: Tenant) -> None:
    """Behind thousands of older slots of one task, those of two others are given in turns with it, from the first."""
    now = database_now(database)
    long, short, third = (make_task(tenant, name, **EVERY) for name in ("long", "short", "third"))
    make_backlog(tenant, long, now - timedelta(minutes=50), MANY)
    make_backlog(tenant, short, now - 5 * SECOND, 4)
    make_backlog(tenant, third, now - SECOND, 4)
    got = await one_by_one(database, tenant, 12)

    assert [got[:6].count(task) for task in (long, short, third)] == [2, 2, 2]
    assert [got.count(task) for task in (long, short, third)] == [4, 4, 4]


async def test_a_backlog_is_given_in_full_when_it_is_alone(database: FreshDatabase, tenant: Tenant) -> None:
    """Turns cost a task nothing that has no other beside it: it goes by age."""
    now, task = database_now(database), make_task(tenant, **EVERY)
    ids = make_backlog(tenant, task, now - timedelta(minutes=50), 50)
    async with database.api.transaction([tenant.tenant_id]) as conn:
        given = await claim_round(conn, tenant.tenant_id, [seat(50)], await clock(conn))
    assert [run.id for run in given] == ids


async def test_urgency_goes_before_turns(database: FreshDatabase, tenant: Tenant) -> None:
    """A more urgent backlog is given whole before the first of a less urgent task."""
    now = database_now(database)
    urgent, other = make_task(tenant, "urgent", **EVERY), make_task(tenant, "other", **EVERY)
    make_backlog(tenant, urgent, now - 10 * SECOND, 5, priority=9)
    make_backlog(tenant, other, now - timedelta(minutes=5), 5)
    assert await one_by_one(database, tenant, 7) == [urgent] * 5 + [other] * 2


async def rounds_until_served(database: FreshDatabase, tenant: Tenant) -> int:
    """Return how many rounds a tenant waits for its one execution beside another one that never has enough."""
    greedy = make_tenant(database, "greedy")
    make_backlog(greedy, make_task(greedy, **EVERY), database_now(database) - timedelta(minutes=50), MANY)
    make_slot(tenant, make_task(tenant), database_now(database) - SECOND)
    async with serving(database) as claimer:
        hungry = [asyncio.create_task(_devour(claimer, greedy)) for _ in range(4)]
        async with asyncio.timeout(30):
            while claimer.rounds < 3:  # noqa: ASYNC110  it has no event for tests
                await asyncio.sleep(0)
            before = claimer.rounds
            assert len(await ask(claimer, tenant)[0]) == 1
            waited = claimer.rounds - before
        for one in hungry:
            one.cancel()
        await asyncio.gather(*hungry, return_exceptions=True)
    return waited


async def _devour(claimer: Claimer, tenant: Tenant) -> None:
    while await ask(claimer, tenant, wanted=10)[0]:
        pass


async def test_a_backlog_does_not_delay_another_tenant(database: FreshDatabase, tenant: Tenant) -> None:
    """Tenants are served in turns: who asks waits for one round of each other at most, and then has its own."""
    assert await rounds_until_served(database, tenant) <= 2


async def served_until_empty(self: Claimer, tenant_id: UUID, real: Any = Claimer._serve) -> None:
    """Serve one tenant twenty times before the next: the mutant of turns between tenants."""
    until = self.rounds + 20
    for _ in range(5_000):
        await real(self, tenant_id)
        await asyncio.sleep(0)
        if self.rounds >= until:
            return


def by_age(_self: Turns, runs: Any) -> Any:
    """Order by age alone: the mutant of turns between tasks."""
    return sorted(runs, key=lambda run: (-run.priority, run.available_at, run.id))


async def near_only(*given: Any, beyond: bool) -> Any:
    """Look at nothing behind the oldest: the mutant of looks."""
    assert beyond in (False, True)
    return await candidates.candidates(*given, beyond=False)


Check = Callable[[FreshDatabase, Tenant], Awaitable[None]]

#: What is broken, how, and which check sees it.
MUTANTS: dict[str, tuple[Any, str, Any, Check]] = {
    "the oldest first, whosever it is": (
        turns_module.Turns, "order", by_age, test_a_backlog_lets_other_tasks_through,
    ),
    "nobody takes note of turns": (
        turns_module.Turns, "served", lambda _self, _runs: None, test_a_backlog_lets_other_tasks_through,
    ),
    "a look that ends at the backlog": (
        claims, "candidates", near_only, test_a_backlog_lets_other_tasks_through,
    ),
    "urgency counts for nothing": (
        turns_module.Turns, "order", lambda _self, runs: sorted(runs, key=lambda run: run.available_at),
        test_urgency_goes_before_turns,
    ),
    "a tenant is served until it has all": (
        claimer_module.Claimer, "_serve", served_until_empty, test_a_backlog_does_not_delay_another_tenant,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_mutant_is_caught(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With turns broken in this place, the check fails."""
    module, broken, value, check = MUTANTS[name]
    monkeypatch.setattr(module, broken, value)
    with pytest.raises(AssertionError):
        await check(database, tenant)
