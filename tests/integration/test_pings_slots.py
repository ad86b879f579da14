"""Which slot a ping takes, and what silence is taken for; numbers are those of docs/reference/pings.md."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from cron_observer.store import checkin_rows
from support.api import api
from support.checkins import watching
from support.databases import Tenant
from support.rows import database_now, events

MINUTE = timedelta(minutes=1)


async def test_case_09_an_ok_is_on_disk(tenant: Tenant) -> None:
    """What was answered OK is there for everybody, with its event and its attempt."""
    async with watching(tenant) as task:
        task.slot(2 * MINUTE)
        assert (await task.ping()).text == "OK"
        [run] = task.runs()
        assert events(tenant.database, run["id"]) == ["claimed", "finished"]
        attempt = tenant.database.rows("SELECT outcome, fence FROM attempts WHERE execution_id = %s", run["id"])
        assert attempt == [{"outcome": "finished", "fence": 1}]


async def test_case_26_the_nearest_slot_is_taken(tenant: Tenant) -> None:
    """Within the margin before and the grace after its time, the nearest slot; one ping takes one slot."""
    async with watching(tenant, earlyMargin="1m", grace="10m") as task:
        old, new = task.slot(6 * MINUTE), task.slot(MINUTE)
        early, far = task.slot(timedelta(seconds=-30)), task.slot(-2 * MINUTE)
        taken = []
        for _ in range(3):
            before = {run["id"] for run in task.runs() if run["status"] != "PENDING"}
            await task.ping()
            taken += [run["id"] for run in task.runs() if run["status"] != "PENDING" and run["id"] not in before]
        assert taken == [early, new, old]
        assert {run["id"]: run["status"] for run in task.runs()}[far] == "PENDING"


async def test_case_27_without_a_slot_it_is_beside_them(tenant: Tenant) -> None:
    """A ping at no slot's time is an execution of its own, and the slots stay."""
    async with watching(tenant) as task:
        task.slot(-5 * MINUTE)
        await task.ping()
        assert task.states() == [("FINISHED", None, "checkin", False), ("PENDING", None, "schedule", False)]


async def test_case_28_silence_is_missed(tenant: Tenant) -> None:
    """A slot waits until its grace is over, then it is MISSED; another one that has been pinged is not."""
    async with watching(tenant) as task:
        task.slot(9 * MINUTE)
        await task.sweep()
        assert task.states() == [("PENDING", None, "schedule", False)]
        await task.ping()
        task.slot(11 * MINUTE)
        await task.sweep()
        assert task.states() == [("MISSED", "no_worker", "schedule", False), ("FINISHED", None, "schedule", False)]


@pytest.mark.parametrize("tail", ["", "/fail", "/3"])
async def test_case_29_a_late_word_takes_it_back(tenant: Tenant, tail: str) -> None:
    """What comes after the slot was missed ends it, marked late; whether anybody had noticed does not decide."""
    for swept in (True, False):
        async with watching(tenant) as task:
            tenant.database.do("DELETE FROM checkins")
            tenant.database.do("UPDATE tasks SET name = name || task_uid, live_name = DEFAULT")
            task.slot(11 * MINUTE)
            if swept:
                await task.sweep()
            assert (await task.ping(tail)).text == "OK"
            ended = {"": ("FINISHED", None), "/fail": ("FAILED", "error"), "/3": ("FAILED", "exit_code")}[tail]
            assert task.states() == [(*ended, "schedule", True)]


async def test_case_29_a_late_start_waits_for_its_end(tenant: Tenant) -> None:
    """A slot that begins late stays missed until its end is told; the log is its own."""
    async with watching(tenant) as task:
        slot = task.slot(11 * MINUTE)
        await task.sweep()
        await task.ping("/start", "POST", content=b"at last")
        assert task.states() == [("MISSED", "no_worker", "schedule", False)]
        await task.ping()
        assert task.states() == [("FINISHED", None, "schedule", True)]
        assert events(tenant.database, slot) == ["missed", "late_started", "late_finished"]
        assert task.runs()[0]["started_at"] is not None
        await task.ping()
        assert len(task.runs()) == 2


async def test_case_33_our_own_outage_accuses_nobody(tenant: Tenant) -> None:
    """What was expected while pings could not be received waits another grace, and ends as unknown."""
    async with watching(tenant) as task:
        now = database_now(tenant.database)
        outage = (tenant.tenant_id, now - 15 * MINUTE, now - 5 * MINUTE)
        tenant.database.do("INSERT INTO outages VALUES (%s, %s, %s)", *outage)
        task.slot(20 * MINUTE)
        await task.sweep()
        assert task.states() == [("PENDING", None, "schedule", False)]
        tenant.database.do("UPDATE outages SET since = since - %s, until = until - %s", 5 * MINUTE, 5 * MINUTE)
        tenant.database.do("UPDATE executions SET start_deadline = %s", now)
        await task.sweep()
        assert task.states() == [("SKIPPED", "observer_down", "schedule", False)]
        task.slot(40 * MINUTE)
        await task.sweep()
        assert task.states()[0] == ("MISSED", "no_worker", "schedule", False)
        await task.ping()
        assert task.states()[1] == ("FINISHED", None, "schedule", True)


async def test_case_33_nothing_is_judged_while_nobody_listens(tenant: Tenant) -> None:
    """As long as no process receives pings, slots and runs wait; one notice tells of the outage when it is over."""
    async with watching(tenant) as task:
        await task.ping("/start")
        run = dict.fromkeys(("started_at", "claimed_at", "run_deadline", "lease_until", "check_at"), 61 * MINUTE)
        task.shift(**run)
        task.slot(11 * MINUTE)
    tenant.database.do("DELETE FROM outages")
    tenant.database.do("DELETE FROM audit_log")
    tenant.database.do("UPDATE receiving SET until = until - %s", 15 * MINUTE)
    await task.sweep()
    assert {one[0] for one in task.states()} == {"RUNNING", "PENDING"}

    async with api(tenant) as again, api(tenant):
        await again.client.get("/livez")
        now = database_now(tenant.database)
        for _ in range(3):
            async with tenant.database.api.transaction([]) as conn:
                await checkin_rows.receive(conn, now, timedelta(seconds=3), uuid4())
        await task.sweep()
    assert {one[0] for one in task.states()} == {"RUNNING", "PENDING"}
    notices = tenant.database.rows("SELECT action, data FROM audit_log WHERE actor = 'system'")
    assert [one["action"] for one in notices] == ["checkins.unobserved"]
    assert 895 <= notices[0]["data"]["seconds"] <= 1000


@pytest.mark.parametrize("how", ["queues", "tasks"])
async def test_no_worker_claims_a_check_in(tenant: Tenant, how: str) -> None:
    """Slots that somebody else fires are not handed out, by queue or by task."""
    async with watching(tenant) as task:
        task.slot(MINUTE)
        body: dict[str, Any] = {"worker": "w", "max": 10}
        body |= {"tasks": [str(task.uid)]} if how == "tasks" else {"queues": ["default"]}
        answered = await task.app.call("POST", "/sdk/claims", "report", json=body)
        assert (answered.status_code, answered.json()) == (200, {"executions": []})


async def test_a_declared_check_in_is_planned_pinged_and_shown(tenant: Tenant) -> None:
    """A task of the API has its slots in the platform's queue, an address, and a DSN; a ping takes its slot."""
    async with api(tenant) as app:
        spec = {"name": "backup", "schedule": {"every": "1m"}, "run": {"checkin": {"earlyMargin": "90s"}}}
        made = await app.call("POST", "/projects/default/tasks", "tasks:write", json=spec)
        assert made.status_code == 201, made.text
        shown = made.json()
        assert shown["ping_url"].startswith("http://127.0.0.1/ping/")
        key = tenant.database.value("SELECT key FROM ping_keys")
        assert shown["sentry_dsn"].startswith(f"http://{key}@127.0.0.1/")
        slots = tenant.database.rows("SELECT DISTINCT queue, start_deadline - available_at AS grace FROM executions")
        assert slots == [{"queue": "@checkin", "grace": 10 * MINUTE}]
        assert (await app.client.get(shown["ping_url"])).text == "OK"
        assert tenant.database.rows("SELECT status, trigger FROM executions WHERE status <> 'PENDING'") == [
            {"status": "FINISHED", "trigger": "schedule"}
        ]


async def test_an_address_can_be_changed(tenant: Tenant) -> None:
    """An administrator draws another address or key; the old one is unknown at once, and the audit log says who."""
    async with watching(tenant) as task:
        key, named = task.doors.key, f"/ping/{task.doors.key}/{task.name}"
        assert (await task.ping()).text == "OK"
        path = f"/projects/{tenant.project}/tasks/{task.name}/ping-address"
        assert (await task.app.call("POST", path, "tasks:write")).status_code == 403
        changed = await task.app.call("POST", path, "admin")
        assert changed.status_code == 200
        assert (await task.ping()).status_code == 404
        assert (await task.app.client.get(changed.json()["ping_url"])).text == "OK"
        fresh = (await task.app.call("POST", f"/projects/{tenant.project}/ping-key", "admin")).json()
        assert fresh["key"] != key
        assert (await task.app.client.get(named)).status_code == 404
        assert (await task.app.client.get(f"/ping/{fresh['key']}/{task.name}")).text == "OK"
        actions = tenant.database.rows("SELECT action FROM audit_log WHERE actor LIKE 'key:%%' ORDER BY at")
        assert [one["action"] for one in actions] == ["task.ping_address", "project.ping_key"]


@pytest.mark.parametrize(("call", "body"), [("trigger", {}), ("backfill", {"from": "2026-01-01T00:00:00Z"})])
async def test_nobody_runs_a_check_in_on_demand(tenant: Tenant, call: str, body: dict[str, str]) -> None:
    """A run or a backfill that is asked for is refused: nobody here could carry it out."""
    async with watching(tenant) as task:
        given = body | ({"to": "2026-01-02T00:00:00Z"} if body else {})
        answered = await task.app.call("POST", f"/projects/{tenant.project}/tasks/backup/{call}", "trigger", json=given)
        assert (answered.status_code, answered.json()["code"]) == (409, "conflict")
        assert task.runs() == []


async def test_a_worker_that_runs_it_itself_keeps_its_lease(tenant: Tenant) -> None:
    """An execution that a worker has begun by itself is offered again when its lease is lost, as any other."""
    async with watching(tenant) as task:
        body = {"task": str(task.uid), "worker": "w", "lease_seconds": 5}
        assert (await task.app.call("POST", "/sdk/executions", "report", json=body)).status_code == 201
        task.shift(lease_until=MINUTE, check_at=MINUTE)
        await task.sweep()
        assert task.states() == [("PENDING", "lease_lost", "api", False)]
