"""Pausing and resuming tasks through the API."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from support.api import Api, api
from support.databases import Tenant
from support.plans import begin
from support.rows import database_now, make_slot, make_task, state

TASKS = "/projects/default/tasks"
BODY = {"name": "export", "schedule": {"every": "1m"}, "onResume": "last"}


async def made(it: Api, **body: Any) -> dict[str, Any]:
    """Create the task and return it."""
    answer = await it.call("POST", TASKS, "tasks:write", json={**BODY, **body})
    assert answer.status_code == 201, answer.text
    task: dict[str, Any] = answer.json()
    return task


def hourly(tenant: Tenant) -> dict[str, str]:
    """Return a schedule that fires every hour, but not while a test that begins now goes on."""
    return {"cron": f"{(database_now(tenant.database).minute + 30) % 60} * * * *"}


def later(tenant: Tenant, **span: float) -> str:
    """Return a time some way ahead of the database's clock."""
    return (database_now(tenant.database) + timedelta(**span)).isoformat()


async def test_a_pause_shows_and_ends(tenant: Tenant) -> None:
    """A paused task says who paused it, why, until when and how it goes on; a resumed one says nothing of it."""
    async with api(tenant) as it:
        before = await made(it, schedule=hourly(tenant))
        until = later(tenant, hours=3)
        paused = await it.call(
            "POST", f"{TASKS}/export/pause", "trigger", json={"reason": "migration", "until": until, "on_resume": "all"}
        )
        listed = (await it.call("GET", f"{TASKS}?status=PAUSED")).json()["items"]
        active = (await it.call("GET", f"{TASKS}?status=ACTIVE")).json()["items"]
        resumed = await it.call("POST", f"{TASKS}/export/resume", "trigger", json={"reason": "done"})
        again = await it.call("POST", f"{TASKS}/export/resume", "trigger")

    assert before["pause"] is None
    assert paused.status_code == 200, paused.text
    task = paused.json()
    assert task["status"] == "PAUSED"
    pause = task["pause"]
    assert (pause["reason"], pause["on_resume"]) == ("migration", "all")
    assert pause["author"].startswith("key:")
    assert datetime.fromisoformat(pause["until"]) - datetime.fromisoformat(until) < timedelta(milliseconds=1)
    assert datetime.fromisoformat(task["next_fire_at"]) >= datetime.fromisoformat(until)
    assert listed == [task]
    assert active == []
    assert resumed.status_code == 200
    assert (resumed.json()["status"], resumed.json()["pause"]) == ("ACTIVE", None)
    assert resumed.json()["next_fire_at"] is not None
    assert (again.status_code, again.json()) == (200, resumed.json())
    written = tenant.database.rows("SELECT action, target, data FROM audit_log ORDER BY audit_id")
    assert [row["action"] for row in written] == ["task.create", "task.pause", "task.resume"]
    assert written[1]["target"] == "task:default/export"
    assert written[1]["data"]["reason"] == "migration"
    assert written[2]["data"]["reason"] == "done"


async def test_a_pause_without_an_end_foretells_no_fire(tenant: Tenant) -> None:
    """It takes the task's own policy; the task fires nobody knows when."""
    async with api(tenant) as it:
        await made(it)
        paused = (await it.call("POST", f"{TASKS}/export/pause", "trigger")).json()
    assert paused["pause"]["until"] is None
    assert paused["pause"]["reason"] is None
    assert paused["pause"]["on_resume"] == "last"
    assert paused["next_fire_at"] is None


async def test_a_far_end_is_looked_up_in_the_schedule(tenant: Tenant) -> None:
    """The next fire of a task that is paused for weeks is the first one after them, planned or not."""
    async with api(tenant) as it:
        await made(it, schedule={"cron": "0 12 * * *", "timezone": "Europe/Berlin"})
        until = database_now(tenant.database) + timedelta(days=40)
        body = {"until": until.isoformat()}
        task = (await it.call("POST", f"{TASKS}/export/pause", "trigger", json=body)).json()
    fire = datetime.fromisoformat(task["next_fire_at"])
    assert until <= fire < until + timedelta(hours=26)


async def test_pausing_again_replaces_the_pause_once(tenant: Tenant) -> None:
    """Another reason replaces the pause and is written down; the same request again changes nothing."""
    async with api(tenant) as it:
        await made(it)
        first = (await it.call("POST", f"{TASKS}/export/pause", "trigger", json={"reason": "a"})).json()
        second = (await it.call("POST", f"{TASKS}/export/pause", "trigger", json={"reason": "b"})).json()
        third = (await it.call("POST", f"{TASKS}/export/pause", "trigger", json={"reason": "b"})).json()
    assert second["pause"]["reason"] == "b"
    assert second["pause"]["since"] == first["pause"]["since"]
    assert third == second
    query = "SELECT data->>'replaces' AS replaces FROM audit_log WHERE action = 'task.pause' ORDER BY audit_id"
    assert [row["replaces"] for row in tenant.database.rows(query)] == ["false", "true"]


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"until": "2020-01-01T00:00:00Z"}, 422, "/until"),
        ({"until": "2090-01-01T00:00:00Z"}, 422, "/until"),
        ({"until": "2040-01-01T00:00:00"}, 400, "/until"),
        ({"until": "tomorrow"}, 400, "/until"),
        ({"on_resume": "some"}, 400, "/on_resume"),
        ({"why": "x"}, 400, "/why"),
        ({"reason": "x" * 2001}, 400, "/reason"),
    ],
)
async def test_what_cannot_be_is_refused(tenant: Tenant, body: dict[str, Any], status: int, pointer: str) -> None:
    """A wrong field is named by its pointer, and nothing is paused."""
    async with api(tenant) as it:
        await made(it)
        refused = await it.call("POST", f"{TASKS}/export/pause", "trigger", json=body)
    assert refused.status_code == status, refused.text
    assert refused.json()["pointer"] == pointer
    assert tenant.database.value("SELECT count(*) FROM pauses") == 0


async def test_who_may_not_pause_is_refused(tenant: Tenant) -> None:
    """Pausing needs the scope `trigger`, and a task that is there."""
    async with api(tenant) as it:
        await made(it)
        answers = [
            await it.call("POST", f"{TASKS}/export/pause"),
            await it.call("POST", f"{TASKS}/export/pause", "read"),
            await it.call("POST", f"{TASKS}/nothing/pause", "trigger"),
            await it.call("POST", "/projects/none/tasks/export/resume", "trigger"),
        ]
        await it.call("DELETE", f"{TASKS}/export", "tasks:write")
        answers.append(await it.call("POST", f"{TASKS}/export/pause", "trigger"))
    assert [answer.status_code for answer in answers] == [401, 403, 404, 404, 404]


async def test_a_repeated_request_is_told_the_same(tenant: Tenant) -> None:
    """With an Idempotency-Key a repeat gets the first answer, even when the task has been resumed since."""
    headers = {"Idempotency-Key": "pause-1"}
    async with api(tenant) as it:
        await made(it)
        first = await it.call("POST", f"{TASKS}/export/pause", "trigger", json={"reason": "a"}, headers=headers)
        await it.call("POST", f"{TASKS}/export/resume", "trigger")
        second = await it.call("POST", f"{TASKS}/export/pause", "trigger", json={"reason": "a"}, headers=headers)
        now = await it.call("GET", f"{TASKS}/export")
    assert second.json() == first.json()
    assert now.json()["status"] == "ACTIVE"


async def claim(it: Api, wait: float = 0) -> list[dict[str, Any]]:
    """Claim what is due, as a worker does."""
    body = {"worker": "w", "max": 10, "wait_seconds": wait}
    answer = await it.call("POST", "/sdk/claims", "report", json=body)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["executions"]
    return found


async def test_workers_get_nothing_of_a_paused_task_but_what_people_ask_for(tenant: Tenant) -> None:
    """A due slot is skipped when a worker asks; a run by hand and a backfill are handed out, one after the other."""
    task, now = make_task(tenant, overlap="allow_all"), database_now(tenant.database)
    begin(tenant, task, {"cron": "0 * * * *"}, now - timedelta(hours=9))
    async with api(tenant) as it:
        await it.call("POST", f"{TASKS}/export/pause", "trigger")
        slot = make_slot(tenant, task, now)
        assert await claim(it) == []
        manual = (await it.call("POST", f"{TASKS}/export/trigger", "trigger")).json()
        assert [one["id"] for one in await claim(it)] == [manual["id"]]
        span = {"from": (now - timedelta(hours=3)).isoformat(), "to": now.isoformat()}
        made = (await it.call("POST", f"{TASKS}/export/backfill", "trigger", json=span)).json()
        first = await claim(it)
        assert await claim(it) == []  # the backfill runs one at a time
    assert state(tenant.database, slot) == ("SKIPPED", "paused")
    assert made["count"] == 3
    assert [one["id"] for one in first] == [made["slots"][0]["execution_id"]]
    assert first[0]["scheduled_for"] == made["slots"][0]["scheduled_for"]


async def test_the_slot_that_a_pause_left_out_is_handed_out_at_its_end(tenant: Tenant) -> None:
    """With `last`, a worker that waits while somebody resumes the task gets one run, five seconds later."""
    task, now = make_task(tenant), database_now(tenant.database)
    begin(tenant, task, {"cron": "0 * * * *"}, now - timedelta(hours=9), planned_until=now + timedelta(hours=1))
    async with api(tenant) as it:
        await it.call("POST", f"{TASKS}/export/pause", "trigger")
        slot = make_slot(tenant, task, now)
        assert await claim(it) == []
        waiting = asyncio.ensure_future(claim(it, 20))
        await it.call("POST", f"{TASKS}/export/resume", "trigger", json={"on_resume": "last"})
        (got,) = await waiting
    assert (got["trigger"], got["repeats"]) == ("catchup", str(slot))
    assert database_now(tenant.database) - now >= timedelta(seconds=5)
