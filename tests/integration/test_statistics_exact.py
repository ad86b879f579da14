"""Statistics are exact: at every moment, in every zone, whoever counts and whatever changes meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import date
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from cron_observer.statistics import ERROR, days_of
from cron_observer.store import statistics, statistics_reads
from cron_observer.store.engine import Database
from cron_observer.store.statistics_reads import Scope
from support.databases import Tenant
from support.mutants import Mutant
from support.statistics_world import NOW, ZONES, Counted, World, brute, rank

FIRST, LAST = date(2026, 3, 26), date(2026, 4, 8)
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"


async def compare(tenant: Tenant, database: Database, zone: ZoneInfo, tasks: Sequence[UUID] | None) -> list[str]:
    """Compare the statistics of one snapshot with a count of all rows of the same snapshot; say what differs."""
    every, starts = days_of(FIRST, LAST, zone)
    async with database.transaction([tenant.tenant_id]) as conn:
        await conn.exec_driver_sql(_SNAPSHOT)
        told = await statistics_reads.count(conn, tenant.tenant_id, Scope(tasks=tasks), starts, NOW, timed=True)
        counted = await brute(conn, tenant, zone, tasks)
    found = {every[place]: one for place, one in told.items()}
    wrong = []
    for day in sorted({*found, *counted}):
        want = counted.get(day, Counted())
        if day not in found:
            wrong.append(f"{day}: nothing is told of {dict(want.counts)}")
            continue
        have = found[day]
        if have.counts != dict(want.counts) or have.late != want.late:
            wrong.append(f"{day}: {have.counts} late {have.late}, not {dict(want.counts)} late {want.late}")
        for histogram, values in ((have.durations, want.durations), (have.delays, want.delays)):
            exact = (histogram.count, histogram.sum, histogram.least, histogram.greatest)
            if exact != (len(values), sum(values), min(values, default=None), max(values, default=None)):
                wrong.append(f"{day}: {exact} of {sorted(values)}")
            for share in (0.5, 0.95, 0.99):
                told_value = histogram.quantile(share)
                if values and abs((told_value or 0) - rank(values, share)) > max(
                    ERROR * 1.0001 * rank(values, share), 0.001
                ):
                    wrong.append(f"{day}: p{share} {told_value}, not {rank(values, share)}")
    return wrong


async def roll(tenant: Tenant, times: int) -> None:
    """Count what is marked, a few quarters at a time."""
    for _ in range(times):
        async with tenant.database.scheduler.transaction([tenant.tenant_id]) as conn:
            await statistics.roll_up(conn, tenant.tenant_id, NOW, limit=7)
        await asyncio.sleep(0)


async def live(tenant: Tenant, seed: int, *, steps: int = 60, rounds: int = 6) -> list[str]:
    """Let three writers, two that count and a reader do their work at once; return what the reader found wrong."""
    world, draw = World.make(tenant, seed), random.Random(seed)  # noqa: S311
    wrong: list[str] = []

    async def watch() -> None:
        for _ in range(rounds):
            tasks = None if draw.random() < 0.5 else draw.sample(world.tasks, draw.randrange(1, 3))
            wrong.extend(await compare(tenant, tenant.database.api, ZoneInfo(draw.choice(ZONES)), tasks))

    await asyncio.gather(*(world.write(steps) for _ in range(3)), roll(tenant, 20), roll(tenant, 20), watch())
    await watch()
    await roll(tenant, 400)
    assert tenant.database.value("SELECT count(*) FROM stats_marks WHERE at < %s", statistics.quarter_of(NOW)) == 0
    await watch()
    return wrong


@pytest.mark.parametrize("number", range(3))
async def test_statistics_are_what_a_count_of_all_rows_says(tenant: Tenant, number: int) -> None:
    """While histories are written, corrected and counted at once, no reading of any zone differs from brute force."""
    seed = random.SystemRandom().randrange(10**9) + number
    assert await live(tenant, seed) == [], f"of seed {seed}"


MUTANTS = {
    "takes the marks away last": Mutant(
        "store.statistics",
        "roll_up",
        """    await conn.execute(_UNMARK, {"tenant_id": tenant_id, "quarters": quarters})
    counted = [at for at in sorted(quarters) if at >= frozen_before]
    if counted:
        await _run(conn, _FORGET, {"tenant_id": tenant_id, "quarters": counted})
        await _run(conn, _COUNT, window(tenant_id, [(at, at + QUARTER) for at in counted], now))
""",
        """    counted = [at for at in sorted(quarters) if at >= frozen_before]
    if counted:
        await _run(conn, _FORGET, {"tenant_id": tenant_id, "quarters": counted})
        await _run(conn, _COUNT, window(tenant_id, [(at, at + QUARTER) for at in counted], now))
    import asyncio
    await asyncio.sleep(0.02)
    await conn.execute(_UNMARK, {"tenant_id": tenant_id, "quarters": quarters})
""",
    ),
    "doubles what has changed": Mutant(
        "statistics", "split", "edges = [begin, *(at for one in live for at in one), end]", "edges = [begin, end]"
    ),
    "days of UTC": Mutant("statistics", "day_start", "tzinfo=zone", "tzinfo=UTC"),
    "forgets late moves": Mutant("statistics", "split", "{*marked, *cut}", "cut"),
}


@pytest.mark.parametrize("name", MUTANTS)
async def test_mutants_are_caught(tenant: Tenant, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these mistakes makes a reading differ within a few histories."""
    MUTANTS[name].apply(monkeypatch)
    for seed in range(5):
        tenant.database.do("TRUNCATE executions, slot_ranges, stats_15m, stats_marks")
        if await live(tenant, seed, steps=40):
            return
    raise AssertionError(f"nobody has noticed: {name}")


async def test_a_database_that_forgets_marks_is_noticed(tenant: Tenant) -> None:
    """Without the trigger, what changes after its quarter was counted is told wrong: the marks are needed."""
    tenant.database.do("DROP TRIGGER an_outcome_changes ON executions")
    assert any([await live(tenant, seed) for seed in range(2)])
