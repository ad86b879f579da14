"""Nobody's backlog hides what another worker could have: claims with much in the way."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cron_observer.store.executions import settle_waiting, settling
from support.claims import SECOND, claimed, seat
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, make_slot, make_task, state


async def test_the_newest_of_a_long_backlog(database: FreshDatabase, tenant: Tenant) -> None:
    """A claim of one gets the newest slot of a long backlog at once, though the oldest are found first."""
    now, task = database_now(database), make_task(tenant)
    slots = [make_slot(tenant, task, now - timedelta(minutes=59 - n)) for n in range(50)]
    runs = await claimed(database.api, tenant, seat(1))

    assert [run.id for run in runs] == [slots[-1]]
    assert {state(database, slot) for slot in slots[:-1]} == {("SKIPPED", "too_late")}


async def test_what_is_skipped_hides_nothing(database: FreshDatabase, tenant: Tenant) -> None:
    """One worker finds the one claimable slot behind forty that are skipped as soon as they are looked at."""
    now = database_now(database)
    for number in range(40):
        task = make_task(tenant, f"busy{number}")
        make_slot(tenant, task, now - 300 * SECOND)
    assert len(await claimed(database.api, tenant, seat(40))) == 40
    for task in [row["task_uid"] for row in database.rows("SELECT task_uid FROM tasks")]:
        make_slot(tenant, task, now - 30 * SECOND)
    last = make_slot(tenant, make_task(tenant, "free"), now - SECOND)

    assert [run.id for run in await claimed(database.api, tenant, seat(1))] == [last]


async def test_a_queue_does_not_hide_another(database: FreshDatabase, tenant: Tenant) -> None:
    """Workers of one queue are served while another queue has a backlog of many priorities."""
    now, task = database_now(database), make_task(tenant, overlap="allow_all", catchup={"policy": "none"})
    for priority in range(10):
        for number in range(20):
            fire_at = now - 50 * SECOND + (10 * number + priority) * timedelta(milliseconds=1)
            make_slot(tenant, task, fire_at, priority=priority, queue="a")
    other = make_slot(tenant, make_task(tenant, "b"), now - SECOND, queue="b")
    first, second = seat(queues=("a",)), seat(queues=("b",))
    await claimed(database.api, tenant, first, second)

    assert [run.priority for run in first.got] == [9]
    assert [run.id for run in second.got] == [other]


async def test_a_task_does_not_hide_another(database: FreshDatabase, tenant: Tenant) -> None:
    """A worker that is bound to one task is served while another's has a backlog."""
    now, long = database_now(database), make_task(tenant, "long", overlap="allow_all", catchup={"policy": "none"})
    short = make_task(tenant, "short")
    for number in range(50):
        make_slot(tenant, long, now - 50 * SECOND + number * timedelta(milliseconds=1))
    only = make_slot(tenant, short, now - SECOND)
    first, second = seat(tasks=frozenset([long])), seat(tasks=frozenset([short]))
    await claimed(database.api, tenant, first, second)

    assert len(first.got) == 1
    assert [run.id for run in second.got] == [only]


async def test_a_task_in_another_queue_hides_nothing(database: FreshDatabase, tenant: Tenant) -> None:
    """A worker that names tasks and a queue gets of those tasks what waits in that queue, however much else waits."""
    now, task = database_now(database), make_task(tenant, overlap="allow_all", catchup={"policy": "none"})
    for number in range(50):
        make_slot(tenant, task, now - 50 * SECOND + number * timedelta(milliseconds=1))
    mine = make_slot(tenant, task, now - SECOND, queue="x")
    worker = seat(5, queues=("x",), tasks=frozenset([task]), any_queue=False)

    assert [run.id for run in await claimed(database.api, tenant, worker)] == [mine]


async def test_who_waits_longest_chooses_first(database: FreshDatabase, tenant: Tenant) -> None:
    """Workers are served in the order of their arrival, each up to what it wants; the last one gets what is left."""
    now = database_now(database)
    slots = [make_slot(tenant, make_task(tenant, f"t{number}"), now - (30 - number) * SECOND) for number in range(5)]
    seats = [seat(2), seat(2), seat(2)]
    await claimed(database.api, tenant, *seats)

    assert [[run.id for run in one.got] for one in seats] == [slots[:2], slots[2:4], slots[4:]]


async def test_a_vast_backlog_is_put_away_in_parts(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim does not wait until a vast backlog has got its outcomes; later rounds and ticks go on with it."""
    monkeypatch.setattr(settling, "_ENDS", 10)
    now, task = database_now(database), make_task(tenant)
    slots = [make_slot(tenant, task, now - timedelta(minutes=59 - n)) for n in range(50)]
    (run,) = await claimed(database.api, tenant, seat(1))

    assert run.id == slots[-1]
    assert [state(database, slot)[0] for slot in slots[:49]] == ["SKIPPED"] * 10 + ["PENDING"] * 39
    for _ in range(4):
        async with database.scheduler.transaction([tenant.tenant_id]) as conn:
            await settle_waiting(conn, tenant.tenant_id, now, None)
    assert {state(database, slot)[0] for slot in slots[:49]} == {"SKIPPED"}
