"""What the worker protocol refuses, and how: every limit of its table, with code and pointer."""

from __future__ import annotations

import gzip
from typing import Any
from uuid import uuid4

import pytest

from support.databases import Tenant, make_tenant
from support.rows import make_task
from support.worker import Worker, refused, working

LINE = {"level": "INFO", "message": "x"}


def lines(**line: Any) -> dict[str, Any]:
    """Return a request with one line of a log."""
    return {"fence": 1, "first_seq": 0, "entries": [LINE | line]}


def begun(**more: Any) -> dict[str, Any]:
    """Return a run that began by itself."""
    return {"worker": "w", "task": "default/export", **more}


#: Bodies beyond the limits of each call, and where the fault is.
BODIES: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("POST", "/claims", {}, "bad_request", ""),
    ("POST", "/claims", {"worker": ""}, "bad_request", "/worker"),
    ("POST", "/claims", {"worker": "w", "max": 0}, "bad_request", "/max"),
    ("POST", "/claims", {"worker": "w", "max": 101}, "bad_request", "/max"),
    ("POST", "/claims", {"worker": "w", "max": 1e9}, "bad_request", "/max"),
    ("POST", "/claims", {"worker": "w", "wait_seconds": 31}, "bad_request", "/wait_seconds"),
    ("POST", "/claims", {"worker": "w", "wait_seconds": -1}, "bad_request", "/wait_seconds"),
    ("POST", "/claims", {"worker": "w", "lease_seconds": 4}, "bad_request", "/lease_seconds"),
    ("POST", "/claims", {"worker": "w", "lease_seconds": 3601}, "bad_request", "/lease_seconds"),
    ("POST", "/claims", {"worker": "w", "queues": []}, "bad_request", "/queues"),
    ("POST", "/claims", {"worker": "w", "queues": ["q"] * 33}, "bad_request", "/queues"),
    ("POST", "/claims", {"worker": "w", "tasks": []}, "bad_request", "/tasks"),
    ("POST", "/claims", {"worker": "w", "claim_id": "x"}, "bad_request", "/claim_id"),
    ("POST", "/claims", {"worker": "w", "labels": []}, "unknown_field", "/labels"),
    ("POST", "/claims", {"worker": "a\0b"}, "bad_request", ""),
    ("POST", "/executions/ID/start", {}, "bad_request", ""),
    ("POST", "/executions/ID/start", {"fence": -1}, "bad_request", "/fence"),
    ("POST", "/executions/ID/start", {"fence": 1, "worker": "w"}, "unknown_field", "/worker"),
    ("POST", "/executions/ID/heartbeat", {"fence": 1, "progress": 1.1}, "bad_request", "/progress"),
    ("POST", "/executions/ID/heartbeat", {"fence": 1, "lease_seconds": 0}, "bad_request", "/lease_seconds"),
    ("POST", "/executions/ID/heartbeat", {"fence": 1, "lease_seconds": 3e8}, "bad_request", "/lease_seconds"),
    ("POST", "/executions/ID/logs", {"fence": 1, "first_seq": -1, "entries": [LINE]}, "bad_request", "/first_seq"),
    ("POST", "/executions/ID/logs", {"fence": 1, "first_seq": 1 << 62, "entries": [LINE]}, "bad_request", "/first_seq"),
    ("POST", "/executions/ID/logs", {"fence": 1, "first_seq": 0, "entries": []}, "bad_request", "/entries"),
    ("POST", "/executions/ID/logs", lines(level="TRACE"), "bad_request", "/entries/.../level"),
    ("POST", "/executions/ID/logs", lines(ts="0001-01-01T00:00:00+14:00"), "bad_request", "/entries/0/ts"),
    ("POST", "/executions/ID/logs", lines(ts="9999-12-31T23:59:59-12:00"), "bad_request", "/entries/0/ts"),
    ("POST", "/executions/ID/complete", {"fence": 1}, "bad_request", ""),
    ("POST", "/executions/ID/complete", {"fence": 1, "outcome": "FINISHED"}, "bad_request", "/outcome"),
    ("POST", "/executions/ID/complete", {"fence": 1, "outcome": "failed", "exit_code": 1 << 40}, "bad_request",
     "/exit_code"),
    ("POST", "/executions/ID/complete", {"fence": 1, "outcome": "failed", "error": {"stack": "x"}}, "unknown_field",
     "/error/stack"),
    ("POST", "/executions/ID/release", {"fence": 1}, "bad_request", ""),
    ("POST", "/executions", {"worker": "w"}, "bad_request", ""),
    ("POST", "/executions", begun(id="7"), "bad_request", "/id"),
    ("POST", "/executions", begun(started_at="2199-01-01T00:00:00Z"), "bad_request", ""),
    ("POST", "/executions", begun(started_at="1969-12-31T23:59:59Z"), "bad_request", "/started_at"),
    ("POST", "/executions", begun(scheduled_for="0001-01-01T00:00:00+14:00"), "bad_request", "/scheduled_for"),
    ("POST", "/executions", begun(scheduled_for="2026-03-29T00:30:00"), "bad_request", "/scheduled_for"),
    ("PATCH", "/executions/ID", {"status": "PENDING"}, "bad_request", "/status"),
    ("PATCH", "/executions/ID", {"status": "RUNNING", "result": 1}, "bad_request", ""),
    ("PATCH", "/executions/ID", {"status": "FINISHED", "error_message": "x"}, "bad_request", ""),
    ("PATCH", "/executions/ID", {"status": "FINISHED", "fence": 1}, "unknown_field", "/fence"),
]  # fmt: skip


async def test_bodies_beyond_the_limits(tenant: Tenant) -> None:
    """Each limit of the table is checked, and the answer points at the fault; nothing changes."""
    async with working(tenant) as worker:
        given = await worker.running()
        for method, path, body, code, pointer in BODIES:
            reply = await worker.call(method, path.replace("ID", given["id"]), body)
            problem = refused(reply, 400, code)
            assert problem.get("pointer", "").replace("...", "0") == pointer.replace("...", "0"), (path, body, problem)
        assert await worker.events(given) == ["claimed"]
        for query in ("limit=0", "limit=201", "limit=x", "colour=red", "limit=1&limit=2"):
            assert (await worker.call("GET", f"/executions/pending?{query}")).status_code == 400


CALLS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/executions/ID/start", {"fence": 1}),
    ("POST", "/executions/ID/heartbeat", {"fence": 1}),
    ("POST", "/executions/ID/logs", {"fence": 1, "first_seq": 0, "entries": [LINE]}),
    ("POST", "/executions/ID/complete", {"fence": 1, "outcome": "finished"}),
    ("POST", "/executions/ID/release", {"fence": 1, "reason": "x"}),
    ("GET", "/executions/ID", None),
    ("PATCH", "/executions/ID", {"status": "RUNNING"}),
    ("PATCH", "/executions/ID", {"status": "FINISHED"}),
]


async def test_what_is_not_there(tenant: Tenant) -> None:
    """Ids that never were, of another tenant, from the end of time, or no ids at all are answered alike: 404."""
    async with working(tenant) as worker:
        stranger = make_tenant(worker.database, "stranger")
        slot = Worker(worker.api, stranger).slot(make_task(stranger))
        strange = (
            str(slot),
            str(uuid4()),
            "ffffffff-ffff-7fff-bfff-ffffffffffff",
            "00000000-0000-0000-0000-000000000000",
        )
        for method, path, body in CALLS:
            for identity in (*strange, "7", "%2e%2e"):
                reply = await worker.call(method, path.replace("ID", identity), body)
                assert reply.status_code == 404, (method, path, identity, reply.text)
        for task in (str(uuid4()), "default/none", "none/export", "none", "a/b/c"):
            refused(await worker.call("POST", "/claims", {"worker": "w", "tasks": [task]}), 404, "not_found")
            refused(await worker.call("POST", "/executions", {"worker": "w", "task": task}), 404, "not_found")
            refused(await worker.call("GET", f"/executions/pending?task={task}"), 404, "not_found")
        assert worker.database.value("SELECT status FROM executions WHERE id = %s", slot) == "PENDING"


async def test_what_was_never_claimed(tenant: Tenant) -> None:
    """Reports on a waiting execution are refused under any fence, and change nothing."""
    async with working(tenant) as worker:
        slot = worker.slot(make_task(tenant))
        for fence in (0, 1, (1 << 63) - 1):
            for what, body in (
                ("start", {}), ("heartbeat", {}), ("release", {"reason": "x"}),
                ("logs", {"first_seq": 0, "entries": [LINE]}),
            ):  # fmt: skip
                refused(await worker.report(slot, what, fence=fence, **body), 409, "lease_lost")
            reply = await worker.report(slot, "complete", fence=fence, outcome="finished")
            refused(reply, 409, "not_running")
        refused(await worker.call("PATCH", f"/executions/{slot}", {"status": "FINISHED"}), 409, "not_running")
        assert worker.database.value("SELECT count(*) FROM execution_events") == 0


async def test_an_id_of_something_else(tenant: Tenant) -> None:
    """A run cannot be reported under the id of a slot, or of a run of another task."""
    async with working(tenant) as worker:
        slot = worker.slot(make_task(tenant))
        make_task(tenant, "other")
        for task in ("default/export", "default/other"):
            body = {"id": str(slot), "worker": "w", "task": task}
            refused(await worker.call("POST", "/executions", body), 409, "already_claimed")
        body = {"id": str(uuid4()), "worker": "w", "task": "default/export"}
        assert (await worker.call("POST", "/executions", body)).status_code == 201
        refused(await worker.call("POST", "/executions", body | {"task": "default/other"}), 409, "already_claimed")


async def test_who_may_report(tenant: Tenant) -> None:
    """Without a key nothing of the protocol answers, also on loopback; reading keys read, reporting keys report."""
    async with working(tenant) as worker:
        given = await worker.running()
        for method, path, body in [*CALLS, ("POST", "/claims", {"worker": "w"}), ("GET", "/executions/pending", None)]:
            address = f"/sdk{path.replace('ID', given['id'])}"
            more = {} if body is None else {"json": body}
            refused(await worker.api.call(method, address, **more), 401, "unauthenticated")
            status = (await worker.api.call(method, address, "read", **more)).status_code
            assert status == (200 if method == "GET" else 403)


async def test_results_are_bounded(tenant: Tenant) -> None:
    """A result or checkpoint has 64 KiB of JSON; a log request 1 MiB, compressed or not."""
    async with working(tenant) as worker:
        given = await worker.running()
        fits, over = "x" * (64 * 1024 - 2), "x" * (64 * 1024 - 1)
        for what, body in (("heartbeat", {"checkpoint": over}), ("complete", {"outcome": "finished", "result": over})):
            refused(await worker.report(given, what, **body), 413, "too_large")
        path = f"/executions/{given['id']}/logs"
        bomb = gzip.compress(
            b'{"fence": 1, "first_seq": 0, "entries": [{"level": "INFO", "message": "' + b"x" * (2 << 20)
        )
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        refused(await worker.call("POST", path, content=bomb, headers=headers), 413, "too_large")
        refused(await worker.call("POST", path, content=b"no gzip", headers=headers), 400, "bad_request")
        path = f"/executions/{given['id']}/complete"
        refused(await worker.call("POST", path, content=b"{}", headers=headers), 415, "unsupported_media_type")
        assert (await worker.report(given, "complete", outcome="finished", result=fits)).json()["result"] == fits


@pytest.mark.parametrize("queue", ["@http", "@checkin", "@"])
async def test_queues_of_the_platform(tenant: Tenant, queue: str) -> None:
    """Nobody takes from a queue of the platform: by its name, as any queue of a task, or one execution by its id."""
    async with working(tenant) as worker:
        reply = await worker.call("POST", "/claims", {"worker": "w", "queues": ["default", queue]})
        refused(reply, 400, "bad_request", "/queues/1")
        task = make_task(tenant)
        theirs = worker.slot(task, queue=queue)
        assert await worker.claim(tasks=[str(task)]) == []
        refused(await worker.call("PATCH", f"/executions/{theirs}", {"status": "RUNNING"}), 409, "already_claimed")
        assert (await worker.call("GET", "/executions/pending")).json()["executions"] == []
        mine = worker.slot(task, queue="mine")
        assert [one["id"] for one in await worker.claim(tasks=[str(task)], max=10)] == [str(mine)]
