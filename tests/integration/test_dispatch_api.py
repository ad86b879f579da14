"""From a task of the API to its receiver and back: what was sent and answered is told by the API and on the page."""

from __future__ import annotations

from typing import Any

from support.api import Api, api
from support.databases import FreshDatabase, Tenant
from support.pages import text_of
from support.receivers import dispatching, receiver, reply, until


async def make(it: Api, url: str, **http: Any) -> None:
    """Make a webhook task through the API."""
    body = {"name": "export", "schedule": {"every": "1h"}, "run": {"http": {"url": url, **http}}}
    made = await it.call("POST", "/projects/default/tasks", "tasks:write", json=body)
    assert made.status_code == 201, made.text


async def triggered(it: Api) -> str:
    """Trigger the task; return the execution's id."""
    made = await it.call("POST", "/projects/default/tasks/export/trigger", "trigger", json={})
    assert (made.status_code, made.json()["queue"]) == (201, "@http")
    return str(made.json()["id"])


async def status(it: Api, identity: str) -> str:
    """Return the status of an execution."""
    return str((await it.call("GET", f"/executions/{identity}", "read")).json()["status"])


async def test_what_was_sent_and_answered_is_told(database: FreshDatabase, tenant: Tenant) -> None:
    """Events hold status, duration, headers and the beginning of the body; the page shows them."""
    async with receiver(reply(404, b"no <such> report", Server="there/1")) as there, api(tenant) as it:
        await make(it, there.url)
        identity = await triggered(it)
        async with dispatching(database) as running:
            await until(lambda: there.received and not running.under_way)
        events = (await it.call("GET", f"/executions/{identity}/events", "read")).json()["items"]
        page = await it.client.get(f"/executions/{identity}")
        task = text_of((await it.client.get("/tasks/default/export?tab=report")).text)
    assert [one["type"] for one in events] == ["created", "claimed", "started", "failed"]
    told = events[-1]["data"]["http"]
    assert (told["method"], told["status"], told["body"]) == ("POST", 404, "no <such> report")
    assert told["headers"] == {"content-length": "16", "server": "there/1"}
    assert told["address"] == f"127.0.0.1:{there.port}"
    assert "sent as a webhook" in task
    assert f"POST {there.url}" in task
    assert "X-Cron-Observer-Run-Token" in task
    said = text_of(page.text)
    assert f"POST HTTP 404 from 127.0.0.1:{there.port} after" in said
    assert "no <such> report" in said


async def test_a_receiver_goes_on_with_the_token_that_it_was_given(database: FreshDatabase, tenant: Tenant) -> None:
    """After a 202 the receiver reports by the run token of its request, and ends the execution."""
    async with receiver(reply(202)) as there, api(tenant) as it:
        await make(it, there.url)
        identity = await triggered(it)
        async with dispatching(database) as running:
            await until(lambda: there.received and not running.under_way)
        (came,) = there.received
        fence = int(came.header("X-Cron-Observer-Fence"))
        bearer = {"Authorization": f"Bearer {came.header('X-Cron-Observer-Run-Token')}"}
        at = f"/sdk/executions/{identity}"
        assert await status(it, identity) == "RUNNING"
        beat = await it.call("POST", f"{at}/heartbeat", json={"fence": fence, "progress": 0.5}, headers=bearer)
        done = await it.call(
            "POST",
            f"{at}/complete",
            json={"fence": fence, "outcome": "finished", "result": {"rows": 3}},
            headers=bearer,
        )
        assert (beat.status_code, done.status_code) == (200, 200), (beat.text, done.text)
        assert (done.json()["status"], done.json()["result"]) == ("FINISHED", {"rows": 3})


async def test_no_worker_gets_what_is_sent(database: FreshDatabase, tenant: Tenant) -> None:
    """A claim by task gives nothing of a webhook; a task that is changed to workers is theirs at once."""
    async with api(tenant) as it:
        await make(it, "http://127.0.0.1:9/")
        await triggered(it)
        wanted = {"worker": "w", "tasks": ["default/export"]}
        before = await it.call("POST", "/sdk/claims", "report", json=wanted)
        changed = await it.call(
            "PATCH",
            "/projects/default/tasks/export",
            "tasks:write",
            json={"run": {"http": None, "external": {}}},
        )
        after = await it.call("POST", "/sdk/claims", "report", json=wanted)
    assert (before.json()["executions"], changed.status_code) == ([], 200)
    assert len(after.json()["executions"]) == 1
