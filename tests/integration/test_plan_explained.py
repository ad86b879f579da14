"""What is planned is what is explained: one evaluation, seen from the database."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from cron_observer.errors import ScheduleError
from cron_observer.horizon import AHEAD
from cron_observer.model import ScheduleSpec
from cron_observer.schedule import Schedule
from cron_observer.schedule import compile as compile_schedule
from support.databases import FreshDatabase, Tenant
from support.plans import begin, make_unplanned, plan_all

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo"]

#: A quiet day, and the hours before the clock changes of Berlin, New York and Lord Howe.
MOMENTS = [
    datetime(2026, 2, 3, 14, 7, 31, tzinfo=UTC),
    datetime(2026, 3, 29, 0, 12, 5, tzinfo=UTC),
    datetime(2026, 11, 1, 4, 40, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 3, tzinfo=UTC),
]


def a_field(chance: random.Random, low: int, high: int) -> str:
    """Write a field of a cron expression."""
    kind = chance.choice(["*", "*", "step", "one", "range", "list", "H"])
    first, last = sorted(chance.sample(range(low, high + 1), 2))
    return {
        "*": "*",
        "step": f"*/{chance.choice([2, 3, 5])}",
        "one": str(first),
        "range": f"{first}-{last}",
        "list": f"{first},{last}",
        "H": "H",
    }[kind]


def a_schedule(chance: random.Random, now: datetime) -> dict[str, Any]:
    """Write the schedule block of a manifest, any form of it."""
    block: dict[str, Any] = {"timezone": chance.choice(ZONES)}
    kinds = chance.sample(["cron", "every", "at"], chance.choice([1, 1, 1, 2, 3]))
    if "cron" in kinds:
        fields = [a_field(chance, 0, 59), a_field(chance, 0, 23)]
        fields += chance.choice(
            [["*", "*", "*"], ["*", "*", a_field(chance, 1, 6)], [a_field(chance, 1, 28), "*", "*"]]
        )
        crons = [" ".join(fields), f"{chance.randrange(60)} {chance.randrange(24)} * * *"]
        block["cron"] = chance.choice([crons[0], crons[1], crons])
    if "every" in kinds:
        block["every"] = chance.choice(["7s", "90s", "1m", "17m", "1h", "5h", "1d"])
        if chance.random() < 0.3:
            block["anchor"] = "2026-01-01T00:00:30"
    if "at" in kinds:
        block["at"] = [
            (now + timedelta(seconds=chance.randrange(-7200, 3 * 86_400))).strftime("%Y-%m-%dT%H:%M:%S")
            for _ in range(chance.randrange(1, 4))
        ]
    return block


def compiled(block: dict[str, Any], name: str) -> Schedule | None:
    """Return the schedule as `explain` makes it, None if it is refused."""
    try:
        return compile_schedule(ScheduleSpec.read(block, name))
    except ScheduleError:
        return None


@pytest.mark.parametrize("now", MOMENTS, ids=str)
async def test_plans_are_what_is_explained(database: FreshDatabase, tenant: Tenant, now: datetime) -> None:
    """For 250 schedules at each of four moments, 1,000 in all, rows fire exactly when the explanation says."""
    chance = random.Random(now.isoformat())  # noqa: S311  the same schedules in every run
    database.partitions(now - timedelta(days=9), now + timedelta(days=9))
    made: dict[UUID, tuple[dict[str, Any], Schedule]] = {}
    while len(made) < 250:
        block = a_schedule(chance, now)
        schedule = compiled(block, "default/export")
        if schedule is not None:
            uid = make_unplanned(tenant, f"task-{len(made)}")
            begin(tenant, uid, block, now)
            made[uid] = block, schedule
    await plan_all(tenant, now)
    rows = database.rows("SELECT task_uid, fire_at FROM executions WHERE status = 'PENDING' ORDER BY fire_at")
    planned: dict[UUID, list[datetime]] = {uid: [] for uid in made}
    for row in rows:
        planned[row["task_uid"]].append(row["fire_at"])
    for uid, (block, schedule) in made.items():
        explained = schedule.next_fires(now, len(planned[uid]) + 1)
        assert planned[uid] == explained[: len(planned[uid])], block
        rest = explained[len(planned[uid]) :]
        far = len(planned[uid]) >= 900 or not rest or rest[0] > now + AHEAD
        assert far, (block, rest)
    assert len(rows) > 2_000


async def test_every_row_says_which_label_it_is(database: FreshDatabase, tenant: Tenant) -> None:
    """A slot carries zone, local label and fold, and they name its nominal instant."""
    now = MOMENTS[0]
    database.partitions(now - timedelta(days=9), now + timedelta(days=9))
    begin(tenant, make_unplanned(tenant), {"cron": "*/5 * * * *", "timezone": "Asia/Kolkata"}, now)
    await plan_all(tenant, now)
    wrong = database.value(
        "SELECT count(*) FROM executions WHERE nominal_local <> nominal_at AT TIME ZONE timezone "
        "OR nominal_fold <> 0 OR timezone <> 'Asia/Kolkata' OR trigger <> 'schedule'"
    )
    assert wrong == 0
    assert database.value("SELECT count(*) FROM executions") >= 15
