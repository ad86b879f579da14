"""The worker protocol over real HTTP: every row of its table, as a worker with nothing but an HTTP client sees it."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from cron_observer.schedule import new_id
from cron_observer_api import claimer
from support.databases import Tenant
from support.rows import database_now, make_task
from support.worker import MEMBERS, Worker, refused, working


def at(text: str) -> datetime:
    """Read a time of the wire: UTC, milliseconds, Z."""
    assert text.endswith("Z")
    assert len(text) == len("2026-03-29T00:30:00.000Z")
    return datetime.fromisoformat(text)


async def test_what_a_claim_gives(tenant: Tenant) -> None:
    """A claimed execution carries every member of the contract: leased, not yet started, with its definition."""
    async with working(tenant) as worker:
        task = make_task(tenant, payload={"format": "csv"}, timeout="2h", queue="reports", priority=3)
        slot = worker.slot(task, queue="reports", priority=3)
        before = database_now(worker.database) - timedelta(milliseconds=1)  # the wire has milliseconds
        (given,) = await worker.claim(queues=["reports"], lease_seconds=60)
        now = database_now(worker.database)

    assert given.keys() == MEMBERS
    expected: dict[str, Any] = {
        "id": str(slot), "task": {"uid": str(task), "project": "default", "name": "export"}, "status": "RUNNING",
        "reason": None, "late": False, "trigger": "schedule", "nominal_fold": 0, "timezone": "UTC", "queue": "reports",
        "priority": 3, "attempt": 1, "fence": 1, "worker": "w", "started_at": None, "finished_at": None,
        "duration_seconds": None, "heartbeat_every_seconds": 20.0, "cancel_requested": False, "progress": None,
        "checkpoint": None, "payload": {"format": "csv"}, "result": None, "exit_code": None, "error": None,
        "definition": {"source": None, "commit": None, "path": None, "line": None, "generation": 1},
    }  # fmt: skip
    assert {name: given[name] for name in expected} == expected
    assert before <= at(given["lease_until"]) - timedelta(seconds=60) <= now
    assert before <= at(given["run_deadline"]) - timedelta(hours=2) <= now
    assert at(given["scheduled_for"]) == at(given["fire_at"]) == at(given["available_at"])
    assert given["nominal_local"] == given["scheduled_for"].removesuffix("Z")


async def test_whom_a_claim_serves(tenant: Tenant) -> None:
    """Queues and tasks narrow a claim, `max` bounds it, and it is empty after its wait."""
    async with working(tenant) as worker:
        first, second = make_task(tenant, "first"), make_task(tenant, "second")
        slots = [str(worker.slot(first)), str(worker.slot(second, queue="x"))]
        assert await worker.claim(queues=["nothing"]) == []
        assert await worker.claim(tasks=[str(second)], queues=["default"]) == []
        assert [one["id"] for one in await worker.claim(tasks=["default/second"], max=5)] == [slots[1]]
        assert [one["id"] for one in await worker.claim(queues=["x", "default"], max=5)] == [slots[0]]
        for number in range(3):
            worker.slot(make_task(tenant, f"t{number}"))
        assert len(await worker.claim(max=2)) == 2
        assert len(await worker.claim(max=2)) == 1
        began = time.monotonic()
        assert await worker.claim(wait_seconds=0.4) == []
        assert 0.4 <= time.monotonic() - began < 30


async def test_a_wait_ends_with_the_slot(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long poll is answered when a slot falls due, and at once when somebody triggers a run."""
    monkeypatch.setattr(claimer, "PROBE", 3600.0)  # no other look at the database finds them
    async with working(tenant) as worker:
        slot = worker.slot(make_task(tenant), late=-0.7)
        (given,) = await worker.claim(wait_seconds=20)
        assert given["id"] == str(slot)
        late = database_now(worker.database) - at(given["fire_at"])
        assert late >= timedelta(0)
        make_task(tenant, "manual")
        waiting = asyncio.create_task(worker.claim(wait_seconds=20))
        await asyncio.sleep(0)
        path = "/projects/default/tasks/manual/trigger"
        made = (await worker.api.call("POST", path, "trigger", json={"payload": [1]})).json()
        (given,) = await waiting
        assert (given["id"], given["trigger"], given["payload"]) == (made["id"], "manual", [1])


async def test_a_claim_that_is_repeated(tenant: Tenant) -> None:
    """The same claim_id returns the same executions within the lease: a lost reply is harmless."""
    async with working(tenant) as worker:
        for number in range(3):
            worker.slot(make_task(tenant, f"t{number}"))
        ask = {"claim_id": str(uuid4()), "max": 2}
        first, again = await worker.claim(**ask), await worker.claim(**ask)
        assert [(one["id"], one["fence"]) for one in again] == [(one["id"], one["fence"]) for one in first]
        assert len(first) == 2
        assert len(await worker.claim(max=5)) == 1
        worker.pass_time(31)
        later = await worker.claim(**ask)
        assert {one["fence"] for one in later} == {2}, "after the lease it is a claim like any other"


async def test_a_client_that_hangs_up(tenant: Tenant) -> None:
    """A waiting client whose connection breaks loses nothing: the next one is served, and nothing is leased twice."""
    async with working(tenant) as worker:
        headers = await worker.api.key("report")
        port = worker.api.client.base_url.port
        body = json.dumps({"worker": "gone", "wait_seconds": 20}).encode()
        fields = {
            "Host": f"127.0.0.1:{port}",
            "Content-Type": "application/json",
            "Content-Length": len(body),
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        request = f"POST /api/v1/sdk/claims HTTP/1.1\r\n{head}\r\n".encode()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request + body)
        await writer.drain()
        assert worker.api.app is not None
        async with asyncio.timeout(60):
            while worker.api.app.state.claimer.waiting == 0:  # noqa: ASYNC110  it has no event for tests
                await asyncio.sleep(0.01)
            writer.close()
            await writer.wait_closed()
            while worker.api.app.state.claimer.waiting:  # noqa: ASYNC110  it has no event for tests
                await asyncio.sleep(0.01)
        worker.slot(make_task(tenant))
        (given,) = await worker.claim(wait_seconds=5)
        assert given["fence"] == 1


async def test_start(tenant: Tenant) -> None:
    """`start` sets the instant once and answers the execution."""
    async with working(tenant) as worker:
        given = await worker.running()
        first, again = [(await worker.report(given, "start")) for _ in range(2)]
        assert first.status_code == again.status_code == 200
        assert first.json().keys() == MEMBERS
        assert first.json()["started_at"] == again.json()["started_at"] is not None
        assert await worker.events(given) == ["claimed", "started"]


async def test_heartbeats(tenant: Tenant) -> None:
    """A heartbeat renews the lease, keeps progress and checkpoint, implies the start, and tells of a cancellation."""
    async with working(tenant) as worker:
        given = await worker.running(retries={"max": 1, "initial": "1s"})
        before = database_now(worker.database) - timedelta(milliseconds=1)
        reply = await worker.report(
            given, "heartbeat", progress=0.25, message="half", checkpoint={"row": 7}, lease_seconds=90
        )
        beat = reply.json()
        now = database_now(worker.database)
        assert beat.keys() == {"lease_until", "cancel_requested", "run_deadline", "heartbeat_every_seconds"}
        assert before <= at(beat["lease_until"]) - timedelta(seconds=90) <= now
        assert (beat["cancel_requested"], beat["heartbeat_every_seconds"]) == (False, 30.0)
        assert beat["run_deadline"] == given["run_deadline"]
        shown = (await worker.call("GET", f"/executions/{given['id']}")).json()
        assert (shown["progress"], shown["checkpoint"]) == (0.25, {"row": 7})
        assert shown["started_at"] is not None
        await worker.api.call("POST", f"/executions/{given['id']}/cancel", "trigger", json={"reason": "stop"})
        assert (await worker.report(given, "heartbeat")).json()["cancel_requested"] is True
        ended = await worker.report(given, "complete", outcome="cancelled")
        assert (ended.json()["status"], ended.json()["cancel_requested"]) == ("CANCELLED", True)


async def test_a_checkpoint_reaches_the_next_try(tenant: Tenant) -> None:
    """What a failed try has saved is given to the next one."""
    async with working(tenant) as worker:
        given = await worker.running(retries={"max": 1, "initial": "1s"})
        await worker.report(given, "heartbeat", checkpoint=[1, 2])
        waiting = (await worker.report(given, "complete", outcome="failed", exit_code=3)).json()
        assert (waiting["status"], waiting["reason"], waiting["exit_code"]) == ("PENDING", "exit_code", 3)
        worker.pass_time(2)
        (again,) = await worker.claim()
        assert (again["attempt"], again["fence"], again["checkpoint"]) == (2, 2, [1, 2])


async def test_logs(tenant: Tenant) -> None:
    """Lines are stored once, plain or compressed; a repeat is dropped, a gap is refused with what is expected."""
    async with working(tenant) as worker:
        given = await worker.running()
        entries = [{"level": "INFO", "message": f"line {n}", "ts": "2026-03-29T00:30:00+02:00"} for n in range(10)]
        first = await worker.report(given, "logs", first_seq=0, entries=entries)
        assert (first.status_code, first.json()) == (202, {"next_seq": 10, "cancel_requested": False})
        again = {"fence": given["fence"], "first_seq": 5, "entries": [*entries[5:], {"level": "ERROR", "message": "é"}]}
        path = f"/executions/{given['id']}/logs"
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        reply = await worker.call("POST", path, content=gzip.compress(json.dumps(again).encode()), headers=headers)
        assert (reply.status_code, reply.json()["next_seq"]) == (202, 11)
        gap = await worker.report(given, "logs", first_seq=20, entries=entries[:1])
        assert refused(gap, 409, "log_gap")["expected_seq"] == 11
        shown = (await worker.api.call("GET", f"{path}?level=ERROR", "read")).json()["items"]
        assert [(one["seq"], one["message"]) for one in shown] == [(10, "é")]
        (line,) = (await worker.api.call("GET", f"{path}?limit=1", "read")).json()["items"]
        assert line.keys() == {"seq", "attempt", "ts", "received_at", "level", "message", "fields", "flags"}
        assert line["ts"] == "2026-03-28T22:30:00.000Z"
        begun = (await worker.call("GET", f"/executions/{given['id']}")).json()
        assert begun["started_at"] is not None
        await worker.api.call("POST", f"/executions/{given['id']}/cancel", "trigger", json={})
        told = await worker.report(given, "logs", first_seq=11, entries=entries[:1])
        assert told.json() == {"next_seq": 12, "cancel_requested": True}


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        ({"outcome": "finished", "exit_code": 0, "result": {"rows": 3}}, "FINISHED", None),
        ({"outcome": "failed", "exit_code": 3}, "FAILED", "exit_code"),
        ({"outcome": "failed", "error": {"type": "E", "message": "m", "traceback": "t"}}, "FAILED", "error"),
        ({"outcome": "cancelled"}, "CANCELLED", "cancelled"),
        ({"outcome": "skipped", "result": [1]}, "SKIPPED", "worker_skipped"),
        ({"outcome": "failed", "retryable": False, "exit_code": -9}, "FAILED", "exit_code"),
    ],
)
async def test_complete(tenant: Tenant, said: dict[str, Any], status: str, reason: str | None) -> None:
    """A completion ends the execution and answers it; its repeat answers the same, another word is too late."""
    async with working(tenant) as worker:
        retries = 3 if said.get("retryable") is False else 0
        given = await worker.running(retries={"max": retries})
        first, again = [await worker.report(given, "complete", **said) for _ in range(2)]
        assert first.status_code == again.status_code == 200
        ended = first.json()
        assert again.json() == ended
        assert (ended["status"], ended["reason"]) == (status, reason)
        assert [ended[name] for name in ("result", "exit_code", "error")] == [
            said.get("result"), said.get("exit_code"), said.get("error"),
        ]  # fmt: skip
        assert ended["lease_until"] is None
        assert ended["started_at"] is not None
        assert ended["duration_seconds"] >= 0
        other = refused(await worker.report(given, "complete", outcome="finished", result=9), 409, "already_final")
        assert (other["execution"]["status"], other["execution"]["reason"]) == (status, reason)
        refused(await worker.report(given, "heartbeat"), 409, "already_final")


async def test_release(tenant: Tenant) -> None:
    """A released execution is due again, its attempt not consumed, and the old fence worth nothing."""
    async with working(tenant) as worker:
        given = await worker.running()
        back = (await worker.report(given, "release", reason="deploy")).json()
        assert (back["status"], back["attempt"], back["reason"]) == ("PENDING", 0, None)
        for what, body in (("release", {"reason": "x"}), ("start", {}), ("complete", {"outcome": "finished"})):
            refused(await worker.report(given, what, **body), 409, "lease_lost")
        (again,) = await worker.claim()
        assert (again["id"], again["fence"], again["attempt"]) == (given["id"], 2, 1)


def uuid7() -> UUID:
    """Return a UUIDv7 of now, as clients mint them."""
    number = new_id(datetime.now(UTC)).int
    return UUID(int=number & ~(0xF << 76) | 0x7 << 76)


@pytest.mark.parametrize("mint", [uuid7, uuid4, lambda: None])
async def test_a_run_that_began_by_itself(tenant: Tenant, mint: Any) -> None:
    """A run is taken note of under its client's id, of whatever kind; the same id again answers the same run."""
    async with working(tenant) as worker:
        task, identity = make_task(tenant), mint()
        began = datetime.now(UTC) - timedelta(minutes=3)
        body = {
            "task": "default/export", "worker": "host-1", "lease_seconds": 60, "started_at": began.isoformat(),
            "scheduled_for": "2026-03-29T00:30:00Z", **({"id": str(identity)} if identity else {}),
        }  # fmt: skip
        first = await worker.call("POST", "/executions", body)
        given = first.json()
        assert (first.status_code, given["status"], given["trigger"]) == (201, "RUNNING", "api")
        assert (given["fence"], given["attempt"], given["task"]["uid"]) == (1, 1, str(task))
        assert given["scheduled_for"] == "2026-03-29T00:30:00.000Z"
        assert abs(at(given["started_at"]) - began) < timedelta(milliseconds=2)
        if identity is None:
            return
        again = await worker.call("POST", "/executions", body)
        assert (again.status_code, again.json()["id"]) == (200, given["id"])
        for what, more in (("start", {}), ("heartbeat", {}), ("complete", {"outcome": "finished"})):
            reply = await worker.call("POST", f"/executions/{identity}/{what}", {"fence": 1, **more})
            assert reply.status_code == 200, reply.text
        shown = (await worker.call("GET", f"/executions/{identity}")).json()
        assert (shown["id"], shown["status"]) == (given["id"], "FINISHED")
        assert (await worker.call("POST", "/executions", body)).json()["status"] == "FINISHED"


async def test_what_waits(tenant: Tenant) -> None:
    """The list of what waits shows what is due, in the order of claims, of all tasks or of one."""
    async with working(tenant) as worker:
        first, second = make_task(tenant, "first"), make_task(tenant, "second")
        late, soon = worker.slot(first, late=20), worker.slot(second, late=10)
        worker.slot(first, late=-600)

        async def ids(query: str = "") -> list[str]:
            reply = await worker.call("GET", f"/executions/pending{query}")
            assert reply.status_code == 200
            assert all(one.keys() == MEMBERS for one in reply.json()["executions"])
            return [one["id"] for one in reply.json()["executions"]]

        assert await ids() == [str(late), str(soon)]
        assert await ids("?limit=1") == [str(late)]
        assert await ids("?task=default/second") == await ids(f"?task={second}") == [str(soon)]


async def test_the_simple_form(tenant: Tenant) -> None:
    """PATCH takes a waiting execution until its run deadline and says how it ended, without a fence."""
    async with working(tenant) as worker:
        slot = worker.slot(make_task(tenant, timeout="2h"))
        path = f"/executions/{slot}"
        taken = (await worker.call("PATCH", path, {"status": "RUNNING", "worker": "cron@host"})).json()
        assert (taken["status"], taken["worker"], taken["lease_until"]) == (
            "RUNNING", "cron@host", taken["run_deadline"],
        )  # fmt: skip
        refused(await worker.call("PATCH", path, {"status": "RUNNING"}), 409, "already_claimed")
        said = {"status": "FAILED", "error_message": "disk full"}
        ended, again = [(await worker.call("PATCH", path, said)).json() for _ in range(2)]
        assert (ended["status"], ended["reason"], ended["error"]["message"]) == ("FAILED", "error", "disk full")
        assert again == ended
        refused(await worker.call("PATCH", path, {"status": "FINISHED"}), 409, "not_running")
        leased = await worker.running("leased")
        refused(await worker.call("PATCH", f"/executions/{leased['id']}", {"status": "FINISHED"}), 409, "not_running")
        other = worker.slot(make_task(tenant, "other"))
        await worker.call("PATCH", f"/executions/{other}", {"status": "RUNNING"})
        done = await worker.call("PATCH", f"/executions/{other}", {"status": "FINISHED", "result": {"rows": 1}})
        assert (done.json()["status"], done.json()["result"]) == ("FINISHED", {"rows": 1})


async def _overtaken(worker: Worker, late: str) -> dict[str, Any]:
    """Return an execution whose lease has run out, as it was claimed; nobody else has claimed it."""
    given = await worker.running(f"late-{late}", lease=5, late=late)
    worker.pass_time(6)
    assert await worker.claim(queues=["nothing"]) == []  # a round of claims notices
    return given


@pytest.mark.parametrize("late", ["accept", "record", "reject"])
async def test_a_late_completion(tenant: Tenant, late: str) -> None:
    """A completion after the lease ran out counts as late, is recorded, or is refused, as its task says."""
    async with working(tenant) as worker:
        given = await _overtaken(worker, late)
        reply = await worker.report(given, "complete", outcome="finished", result=1)
        if late == "accept":
            ended = reply.json()
            assert (ended["status"], ended["late"], ended["result"]) == ("FINISHED", True, 1)
            assert (await worker.report(given, "complete", outcome="finished", result=1)).json() == ended
            assert await worker.events(given) == ["claimed", "lease_expired", "late_finished"]
            assert await worker.claim() == [], "the waiting offer is withdrawn"
            return
        refused(reply, 409, "lease_lost")
        recorded = ["late_recorded"] if late == "record" else []
        assert await worker.events(given) == ["claimed", "lease_expired", *recorded]
        (again,) = await worker.claim()
        assert (again["id"], again["fence"]) == (given["id"], 2)


async def test_a_lost_worker_is_replaced(tenant: Tenant) -> None:
    """An execution whose worker falls silent is offered again; from then on the first one is refused everything."""
    async with working(tenant) as worker:
        given = await worker.running(lease=5)
        worker.pass_time(6)
        (again,) = await worker.claim(wait_seconds=5)
        assert (again["id"], again["fence"], again["attempt"]) == (given["id"], 2, 1)
        lines = {"first_seq": 0, "entries": [{"level": "INFO", "message": "x"}]}
        for what, body in (
            ("start", {}), ("heartbeat", {}), ("release", {"reason": "x"}), ("logs", lines),
            ("complete", {"outcome": "failed"}),
        ):  # fmt: skip
            refused(await worker.report(given, what, **body), 409, "lease_lost")
        assert (await worker.report(again, "complete", outcome="finished")).json()["status"] == "FINISHED"
        assert await worker.events(given) == ["claimed", "lease_expired", "claimed", "finished"]
