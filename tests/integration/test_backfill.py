"""Backfills: which slots they select, what they make of them, and what is refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from cron_observer.model import ScheduleSpec
from cron_observer.schedule import compile as compile_schedule
from cron_observer.schedule import slot_id
from support.api import Api, api
from support.databases import FreshDatabase, Tenant
from support.plans import begin
from support.rows import database_now, events, make_slot, make_task

BACKFILL = "/projects/default/tasks/export/backfill"
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def hours(tenant: Tenant, count: int = 6, **spec: Any) -> tuple[UUID, list[datetime]]:
    """Make an hourly task, and return its last full hours, oldest first; the last has been for a minute at least."""
    task, now = make_task(tenant, **spec), database_now(tenant.database)
    begin(tenant, task, {"cron": "0 * * * *"}, now - timedelta(days=30))
    last = (now - MINUTE).replace(minute=0, second=0, microsecond=0)
    return task, [last - n * HOUR for n in reversed(range(count))]


def slot_of(tenant: Tenant, task: UUID, at: datetime, **columns: Any) -> UUID:
    """Insert the slot of an hourly task at an hour, under its own id."""
    schedule = compile_schedule(ScheduleSpec(cron=("0 * * * *",)))
    (slot,) = schedule.slots(at - MINUTE, at)
    identity = slot_id(task, slot)
    make_slot(tenant, task, at, id=identity, **columns)
    return identity


def ended(status: str, reason: str | None, at: datetime) -> dict[str, Any]:
    """Return the columns of a slot that has ended."""
    return {"status": status, "reason": reason, "finished_at": at}


async def asked(it: Api, start: datetime, end: datetime, status: int = 202, **body: Any) -> dict[str, Any]:
    """Ask for a backfill and return the answer."""
    given = {"from": start.isoformat(), "to": end.isoformat(), **body}
    answer = await it.call("POST", BACKFILL, "trigger", json=given)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def times(found: dict[str, Any]) -> list[datetime]:
    """Return the nominal instants of an answer."""
    return [datetime.fromisoformat(slot["scheduled_for"]) for slot in found["slots"]]


def repeats(database: FreshDatabase) -> list[dict[str, Any]]:
    """Return the runs of backfills, in the order in which they fall due."""
    return database.rows("SELECT * FROM executions WHERE trigger = 'backfill' ORDER BY available_at")


async def test_missing_slots_are_those_that_never_had_a_chance(tenant: Tenant) -> None:
    """No row, MISSED, and what a rule of the moment skipped; not what ran, waits, or was skipped by the worker."""
    reasons = ("too_late", "paused", "overlap", "window", "no_worker", "observer_down")
    task, found = hours(tenant, 14)
    for at, reason in zip(found, reasons, strict=False):
        slot_of(tenant, task, at, **ended("SKIPPED", reason, at))
    slot_of(tenant, task, found[6], **ended("MISSED", "no_worker", found[6]))
    others = [
        ended("FINISHED", None, found[7]),
        ended("FAILED", "error", found[8]),
        ended("SKIPPED", "worker_skipped", found[9]),
        ended("CANCELLED", "cancelled", found[10]),
        {},
    ]
    for at, columns in zip(found[7:], others, strict=False):
        slot_of(tenant, task, at, **columns)
    async with api(tenant) as it:
        missing = await asked(it, found[0], found[-1] + MINUTE, dry_run=True)
        failed = await asked(it, found[0], found[-1] + MINUTE, dry_run=True, select="failed")
        everything = await asked(it, found[0], found[-1] + MINUTE, dry_run=True, select="all")
    assert times(missing) == [*found[:7], *found[12:]]
    assert times(failed) == [found[8]]
    assert times(everything) == found
    assert (missing["dry_run"], missing["backfill_id"], missing["count"]) == (True, None, 9)
    assert {slot["execution_id"] for slot in missing["slots"]} == {None}
    assert tenant.database.value("SELECT count(*) FROM backfills") == 0
    assert repeats(tenant.database) == []


async def test_a_slot_that_was_caught_up_with_is_not_missing(tenant: Tenant) -> None:
    """A slot that a worker claimed late has run, though its trigger says catchup; the run of a pause is no slot."""
    task, found = hours(tenant, 3)
    slot_of(tenant, task, found[0], trigger="catchup", **ended("FINISHED", None, found[0]))
    slot_of(tenant, task, found[1], trigger="catchup", **ended("FAILED", "error", found[1]))
    async with api(tenant) as it:
        missing = await asked(it, found[0], found[-1] + MINUTE, dry_run=True)
        failed = await asked(it, found[0], found[-1] + MINUTE, dry_run=True, select="failed")
    assert times(missing) == found[2:]
    assert times(failed) == [found[1]]


async def test_the_range_holds_its_start_and_not_its_end(tenant: Tenant) -> None:
    """A slot at `from` is selected, one at `to` is not."""
    _, found = hours(tenant)
    async with api(tenant) as it:
        assert times(await asked(it, found[0], found[2])) == found[:2]
        assert times(await asked(it, found[2] + timedelta(microseconds=1), found[4])) == [found[3]]


async def test_a_run_carries_the_slot_that_it_repeats(tenant: Tenant) -> None:
    """Each run has the nominal time of its slot, its task's queue and priority, and no deadline of a slot."""
    _, found = hours(tenant, queue="reports", priority=4, startDeadline="1m")
    async with api(tenant) as it:
        made = await asked(it, found[0], found[3], max_parallel=2)
        shown = (await it.call("GET", f"/executions/{made['slots'][0]['execution_id']}")).json()
    rows = repeats(tenant.database)
    assert [row["nominal_at"] for row in rows] == found[:3]
    assert [str(row["id"]) for row in rows] == [slot["execution_id"] for slot in made["slots"]]
    assert {(row["status"], row["queue"], row["priority"]) for row in rows} == {("PENDING", "reports", 4)}
    assert all(row["start_deadline"] - row["fire_at"] > timedelta(days=6) for row in rows)
    assert shown["trigger"] == "backfill"
    assert shown["backfill_id"] == made["backfill_id"]
    assert shown["repeats"] == made["slots"][0]["repeats"]
    assert shown["nominal_local"] == found[0].astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    (row,) = tenant.database.rows("SELECT * FROM backfills")
    assert (str(row["backfill_id"]), row["runs"], row["max_parallel"]) == (made["backfill_id"], 3, 2)
    assert events(tenant.database, rows[0]["id"]) == ["created"]
    assert tenant.database.value("SELECT target FROM audit_log WHERE action = 'task.backfill'") == "task:default/export"


async def test_newest_first_runs_the_newest_first(tenant: Tenant) -> None:
    """The order of the answer is the order in which the runs fall due."""
    _, found = hours(tenant)
    async with api(tenant) as it:
        made = await asked(it, found[0], found[3], order="newest_first")
    assert times(made) == found[2::-1]
    assert [row["nominal_at"] for row in repeats(tenant.database)] == found[2::-1]


@pytest.mark.parametrize(("status", "again"), [("PENDING", 0), ("FINISHED", 0), ("FAILED", 3), ("SKIPPED", 3)])
async def test_a_slot_that_is_being_repeated_is_not_selected_again(tenant: Tenant, status: str, again: int) -> None:
    """A repeat that waits, runs or has finished stands for its slot; one that did not succeed may be repeated."""
    _, found = hours(tenant)
    async with api(tenant) as it:
        await asked(it, found[0], found[3])
        if status != "PENDING":
            query = "UPDATE executions SET status = %s, finished_at = fire_at WHERE trigger = 'backfill'"
            tenant.database.do(query, status)
        assert (await asked(it, found[0], found[3], dry_run=True))["count"] == again
        assert (await asked(it, found[0], found[3], dry_run=True, select="all"))["count"] == 3


async def test_a_repeated_request_makes_one_backfill(tenant: Tenant) -> None:
    """With an Idempotency-Key the second request gets the answer of the first and makes nothing."""
    _, found = hours(tenant)
    body = {"from": found[0].isoformat(), "to": found[3].isoformat(), "select": "all"}
    async with api(tenant) as it:
        first, second = [
            await it.call("POST", BACKFILL, "trigger", json=body, headers={"Idempotency-Key": "once"}) for _ in range(2)
        ]
    assert (first.status_code, second.json()) == (202, first.json())
    assert len(repeats(tenant.database)) == 3


async def test_what_the_schedule_leaves_out_is_not_selected(tenant: Tenant) -> None:
    """A local time that a clock change swallows, with ``gap: skip``, is no slot to repeat, not even with `all`."""
    task, now = make_task(tenant), database_now(tenant.database)
    year = now.year if now > datetime(now.year, 4, 3, tzinfo=UTC) else now.year - 1
    block = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "dst": {"gap": "skip"}}
    begin(tenant, task, block, now - timedelta(days=390))
    change = max(day for day in (datetime(year, 3, n, tzinfo=UTC) for n in range(25, 32)) if day.isoweekday() == 7)
    async with api(tenant) as it:
        made = await asked(it, change - timedelta(days=1), change + timedelta(days=2), select="all", dry_run=True)
    assert change.date().isoformat() not in {slot["nominal_local"][:10] for slot in made["slots"]}
    assert made["count"] == 2


async def test_equal_backfills_at_the_same_moment_make_each_run_once(tenant: Tenant) -> None:
    """Who asks twice at once, without an Idempotency-Key, has one of them find nothing left to do."""
    _, slots = hours(tenant)
    async with api(tenant) as it:
        both = await asyncio.gather(*(asked(it, slots[0], slots[-1]) for _ in range(3)))
    assert sorted(found["count"] for found in both) == [0, 0, 5]
    assert len(repeats(tenant.database)) == 5


@pytest.mark.parametrize(
    ("start", "end", "status", "pointer"),
    [
        (-2, -3, 422, "/from"),
        (-2, -2, 422, "/from"),
        (-2, 1, 422, "/to"),
        (-24 * 401, -1, 422, "/from"),
    ],
)
async def test_ranges_that_cannot_be_are_refused(
    tenant: Tenant, start: int, end: int, status: int, pointer: str
) -> None:
    """Empty, in the future, too long: each is refused with its pointer and a way out."""
    hours(tenant)
    now = database_now(tenant.database)
    async with api(tenant) as it:
        refused = await asked(it, now + start * HOUR, now + end * HOUR, status)
    assert (refused["code"], refused["pointer"]) == ("out_of_range", pointer)


async def test_a_range_at_the_edge_of_the_calendar_is_refused(tenant: Tenant) -> None:
    """A beginning that no zone can tell is refused like any other range that cannot be."""
    hours(tenant)
    given = {"from": "0001-01-01T00:00:00+14:00", "to": "0001-01-02T00:00:00Z", "dry_run": True}
    async with api(tenant) as it:
        answer = await it.call("POST", BACKFILL, "trigger", json=given)
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/from")


async def test_too_many_runs_are_refused_whole(tenant: Tenant) -> None:
    """A range with more than 10,000 slots makes none of them."""
    task, now = make_task(tenant), database_now(tenant.database)
    begin(tenant, task, {"every": "1s"}, now - timedelta(days=1))
    async with api(tenant) as it:
        refused = await asked(it, now - 3 * HOUR, now, 422)
        enough = await asked(it, now - timedelta(seconds=10_000), now)
    assert refused["hint"] == "ask for a shorter range"
    assert (enough["count"], len(enough["slots"])) == (10_000, 1_000)
    assert len(repeats(tenant.database)) == 10_000
