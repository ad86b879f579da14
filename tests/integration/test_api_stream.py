"""The stream tells what changes, can be resumed, and never keeps the server from stopping."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from cron_observer.schedule import new_id
from cron_observer_api import feed, stream
from support.api import Api, served
from support.databases import Tenant, make_tenant
from support.rows import database_now, make_slot, make_task

Event = dict[str, Any]


@asynccontextmanager
async def listening(it: Api, topics: str, last: str | None = None, **more: Any) -> AsyncIterator[AsyncIterator[Event]]:
    """Open a stream; give its events, each with id, event and data."""
    headers = {"Last-Event-ID": last} if last else {}
    if "tenant" in more:
        headers |= await it.key("read", tenant=more["tenant"])
    async with it.client.stream("GET", "/api/v1/stream", params={"topics": topics}, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer)


async def events(answer: httpx.Response) -> AsyncIterator[Event]:
    """Read events off a stream; comments are left out."""
    event: Event = {}
    async for line in answer.aiter_lines():
        if not line:
            if "data" in event:
                yield event
            event = {}
            continue
        name, _, value = line.partition(":")
        if name:
            event[name] = json.loads(value) if name == "data" else value.strip()


async def next_of(stream_: AsyncIterator[Event], kind: str, seconds: float = 10.0) -> Event:
    """Return the next event of a kind."""
    async with asyncio.timeout(seconds):
        async for event in stream_:
            if event["event"] == kind:
                return event
    raise AssertionError("the stream has ended")


async def trigger(it: Api) -> str:
    """Make an execution; return its id."""
    made = await it.call("POST", "/projects/default/tasks/export/trigger", "trigger")
    identity: str = made.json()["id"]
    return identity


async def claim(it: Api) -> dict[str, Any]:
    """Claim one execution."""
    given = await it.call("POST", "/sdk/claims", "report", json={"worker": "w", "wait_seconds": 5})
    (found,) = given.json()["executions"]
    return dict(found)


async def test_changes_of_executions_are_told_as_items_of_the_list(tenant: Tenant) -> None:
    """Each change brings the list's item; a stream of one execution hears of that one alone."""
    make_task(tenant, overlap="allow_all")
    async with served(tenant) as it, listening(it, "executions") as all_:
        first = await trigger(it)
        told = await next_of(all_, "execution")
        assert (told["data"]["id"], told["data"]["status"]) == (first, "PENDING")
        (item,) = (await it.call("GET", "/executions")).json()["items"]
        assert told["data"] == item
        async with listening(it, f"execution:{first}") as one:
            second = await trigger(it)
            assert (await next_of(all_, "execution"))["data"]["id"] == second
            given = await claim(it)
            told = await next_of(one, "execution")
            while told["data"]["status"] != "RUNNING":
                told = await next_of(one, "execution")
            assert told["data"]["id"] == first == given["id"]


async def test_a_slot_that_calendars_have_brought_forward_is_told(tenant: Tenant) -> None:
    """A slot that fires two weeks before its nominal instant is heard of like any other."""
    task, now = make_task(tenant), database_now(tenant.database)
    nominal = now + timedelta(days=13)
    slot = new_id(nominal, task)
    make_slot(tenant, task, now, id=slot, nominal_at=nominal)
    async with served(tenant) as it, listening(it, "executions") as told:
        assert (await claim(it))["id"] == str(slot)
        assert (await next_of(told, "execution"))["data"]["id"] == str(slot)


async def test_a_stream_is_resumed_behind_its_last_id(tenant: Tenant) -> None:
    """What happened while a client was away is told when it comes back; too old an id is told to begin anew."""
    make_task(tenant)
    async with served(tenant) as it:
        async with listening(it, "executions") as before:
            await trigger(it)
            last = (await next_of(before, "execution"))["id"]
        await it.call("POST", f"/executions/{await trigger(it)}/cancel", "trigger")
        async with listening(it, "executions", last) as after:
            seen = [await next_of(after, "execution") for _ in range(2)]
            assert {event["data"]["status"] for event in seen} == {"PENDING", "CANCELLED"}
        old = str(feed.stamp(database_now(tenant.database) - feed.RESUMABLE - timedelta(minutes=1)))
        for strange in (old, "1", "nonsense", "9" * 17, "-5", "1.2"):
            async with listening(it, "executions", strange) as anew:
                assert (await next_of(anew, "reset"))["data"] == {}


async def test_a_log_is_followed_line_by_line(tenant: Tenant) -> None:
    """A stream of a log begins near its end, goes on with new lines, and is resumed at the next line."""
    make_task(tenant)
    async with served(tenant) as it:
        await trigger(it)
        given = await claim(it)

        async def write(first: int, count: int) -> None:
            entries = [{"level": "INFO", "message": f"line {number}"} for number in range(first, first + count)]
            body = {"fence": given["fence"], "first_seq": first, "entries": entries}
            assert (
                await it.call("POST", f"/sdk/executions/{given['id']}/logs", "report", json=body)
            ).status_code == 202

        await write(0, feed.LOG_TAIL + 50)
        async with listening(it, f"logs:{given['id']}") as lines:
            first = await next_of(lines, "log")
            assert first["data"]["seq"] == 50
            assert first["data"]["execution"] == given["id"]
            for number in range(51, feed.LOG_TAIL + 50):
                assert (await next_of(lines, "log"))["data"]["seq"] == number
            await write(feed.LOG_TAIL + 50, 3)
            told = await next_of(lines, "log")
            assert told["data"]["message"] == f"line {feed.LOG_TAIL + 50}"
        async with listening(it, f"logs:{given['id']}", told["id"]) as again:
            assert (await next_of(again, "log"))["data"]["seq"] == told["data"]["seq"] + 1


async def test_tasks_and_sources_are_told_too(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of a task brings T, a change of a source its list item."""
    monkeypatch.setattr(feed, "SLOW_POLL", timedelta(0))
    now = database_now(tenant.database)
    row = {"tenant_id": tenant.tenant_id, "source_id": tenant.project_id, "project_id": tenant.project_id}
    row |= {"name": "main", "kind": "git", "url": "https://x.example/r", "poll_seconds": 1}
    tenant.database.insert("sources", [row | {"next_poll_at": now, "created_at": now}])
    async with served(tenant) as it, listening(it, "tasks,sources") as told:
        body = {"schedule": {"every": "1h", "startAt": "2200-01-01T00:00:00"}}
        task = (await it.call("PUT", "/projects/default/tasks/export", "tasks:write", json=body)).json()
        assert (await next_of(told, "task"))["data"] == task
        await it.call("POST", "/sources/main/sync", "trigger")
        assert (await next_of(told, "source"))["data"]["requested_seq"] == 1


async def test_a_pause_and_its_end_are_told_as_changes_of_the_task(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who watches tasks hears that one is paused, and that it is resumed, though its own row stays as it is."""
    monkeypatch.setattr(feed, "SLOW_POLL", timedelta(0))
    make_task(tenant)
    async with served(tenant) as it, listening(it, "tasks") as told:
        assert (await next_of(told, "task"))["data"]["status"] == "ACTIVE"
        for call, status in (("pause", "PAUSED"), ("resume", "ACTIVE")):
            answer = await it.call("POST", f"/projects/default/tasks/export/{call}", "trigger", json={})
            assert answer.status_code == 200
            assert (await next_of(told, "task"))["data"]["status"] == status


async def test_a_stream_hears_nothing_of_another_tenant(tenant: Tenant) -> None:
    """Naming an execution of another tenant brings silence, like naming one that does not exist."""
    other = make_tenant(tenant.database, "other")
    theirs = make_slot(other, make_task(other), database_now(tenant.database))
    make_task(tenant)
    async with served(tenant) as it, listening(it, f"executions,execution:{theirs},logs:{theirs}") as mine:
        cancelled = await it.call("POST", f"/executions/{theirs}/cancel", "admin", tenant=other)
        assert cancelled.status_code == 200
        first = await trigger(it)
        assert (await next_of(mine, "execution"))["data"]["id"] == first


async def test_unknown_topics_are_refused(tenant: Tenant) -> None:
    """A topic that is not known is 400."""
    async with served(tenant) as it:
        for topics in (
            "",
            "nothing",
            "executions,",
            "execution:1",
            "logs:*",
            "executions;tasks",
            "EXECUTIONS",
            "," * 30,
        ):
            told = await it.call("GET", "/stream", params={"topics": topics})
            assert told.status_code == 400, (topics, told.text)


async def test_a_server_stops_at_once_though_streams_and_long_polls_are_open(tenant: Tenant) -> None:
    """Streams end, waiting claims are answered with nothing, and the server is gone within its grace."""
    make_task(tenant)
    body = {"worker": "w", "wait_seconds": 30}
    async with httpx.AsyncClient(timeout=30, trust_env=False) as staying:
        async with served(tenant) as it:
            staying.base_url = it.client.base_url
            stays = Api(tenant, staying, it.app)
            opened = [asyncio.ensure_future(read_all(stays)) for _ in range(5)]
            polls = [asyncio.ensure_future(stays.call("POST", "/sdk/claims", "report", json=body)) for _ in range(5)]
            await until(lambda: listening_now(it) == 5 and waiting_now(it) == 5)
            began = time.monotonic()
        took = time.monotonic() - began
        texts = await asyncio.gather(*opened)
        answers = await asyncio.gather(*polls)
    assert took < 15, took  # streams have no end, and the claims would wait for half a minute
    assert all(text.startswith("retry: ") for text in texts)
    assert [answer.json() for answer in answers] == [{"executions": []}] * 5


async def read_all(it: Api) -> str:
    """Read a stream to its end."""
    async with it.client.stream("GET", "/api/v1/stream?topics=executions") as answer:
        return (await answer.aread()).decode()


def listening_now(it: Api) -> int:
    """Return how many streams are open."""
    assert it.app is not None
    return int(it.app.state.hub.listening)


def waiting_now(it: Api) -> int:
    """Return how many claims wait."""
    assert it.app is not None
    return int(it.app.state.claimer.waiting)


async def until(true: Callable[[], bool]) -> None:
    """Return once something is true."""
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.02)


async def test_a_slow_listener_is_dropped_and_the_others_are_not(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener whose queue is full ends; it comes back with its last id."""
    listener = stream.listen_to("executions", None)
    other = stream.listen_to("executions", None)
    message = feed.Message("execution", b"{}", database_now(tenant.database))
    for number in range(feed.QUEUE + 1):
        listener.put(message)
        if number < 10:
            other.put(message)
    assert listener.dropped
    assert not other.dropped


async def test_a_stream_ends_when_its_key_is_revoked(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its next comment a stream looks whether its key is still good."""
    monkeypatch.setattr(stream, "COMMENT_EVERY", 0.05)
    async with served(tenant) as it:
        made = (await it.call("POST", "/keys", "admin", json={"name": "x", "scopes": ["read"]})).json()
        headers = {"X-API-Key": made["key"]}
        async with it.client.stream("GET", "/api/v1/stream?topics=tasks", headers=headers) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "retry: 2000"
            await it.call("DELETE", f"/keys/{made['id']}", "admin")
            async with asyncio.timeout(60):
                rest = [line async for line in lines]
    assert all(line in ("", ": still here") for line in rest)


async def test_a_feed_sleeps_when_nobody_listens(tenant: Tenant) -> None:
    """The last listener's end is the feed's end; the next one starts another."""
    make_task(tenant)
    async with served(tenant) as it:
        for _ in range(2):
            async with listening(it, "executions") as told:
                await trigger(it)
                await next_of(told, "execution")
                assert listening_now(it) == 1
            await until(lambda: listening_now(it) == 0)


async def test_a_flood_is_told_as_a_reset(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """More changes than a look passes on make listeners ask again."""
    monkeypatch.setattr(feed, "MOST", 3)
    make_task(tenant)
    async with served(tenant) as it, listening(it, "executions") as told:
        for _ in range(6):
            await trigger(it)
        assert (await next_of(told, "reset"))["data"] == {}
