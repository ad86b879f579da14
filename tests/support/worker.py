"""A worker that speaks plain HTTP with a served app, for tests of the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx

from support.api import Api, served
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, make_slot, make_task

#: The members of an execution on the wire.
MEMBERS = {
    "id", "task", "status", "reason", "late", "trigger", "scheduled_for", "nominal_local", "nominal_fold", "timezone",
    "fire_at", "available_at", "queue", "priority", "attempt", "fence", "worker", "lease_until", "started_at",
    "finished_at", "duration_seconds", "run_deadline", "heartbeat_every_seconds", "cancel_requested", "progress",
    "checkpoint", "payload", "result", "exit_code", "error", "run_token", "definition", "repeats", "backfill_id",
}  # fmt: skip


@dataclass
class Worker:
    """A worker with a key that may report, and what its tests need beside it."""

    api: Api
    tenant: Tenant

    @property
    def database(self) -> FreshDatabase:
        """The database of the app."""
        return self.tenant.database

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Call an address under ``/api/v1/sdk`` with a key that may report."""
        if body is not None:
            more["json"] = body
        return await self.api.call(method, f"/sdk{path}", "report", **more)

    async def claim(self, **body: Any) -> list[dict[str, Any]]:
        """Claim and return what was given."""
        reply = await self.call("POST", "/claims", {"worker": "w", **body})
        assert reply.status_code == 200, reply.text
        given: list[dict[str, Any]] = reply.json()["executions"]
        return given

    async def report(self, execution: Any, what: str, **body: Any) -> httpx.Response:
        """Report on an execution, under its fence unless another is given."""
        if isinstance(execution, dict):
            body = {"fence": execution["fence"], **body}
            execution = execution["id"]
        return await self.call("POST", f"/executions/{execution}/{what}", body)

    async def running(self, name: str = "export", *, lease: float = 30, **changes: Any) -> dict[str, Any]:
        """Make a task with one claimed execution and return that."""
        task = make_task(self.tenant, name, **changes)
        self.slot(task)
        (execution,) = await self.claim(tasks=[str(task)], lease_seconds=lease)
        return execution

    def slot(self, task: UUID, late: float = 1.0, **columns: Any) -> UUID:
        """Make a slot that has been due for `late` seconds."""
        now = database_now(self.database)
        return make_slot(self.tenant, task, now - timedelta(seconds=late), **columns)

    def pass_time(self, seconds: float) -> None:
        """Let time pass for everything that is stored."""
        columns = ("fire_at", "available_at", "claimed_at", "started_at", "finished_at", "lease_until", "run_deadline",
                   "check_at", "cancel_requested_at", "cancel_deadline", "start_deadline")  # fmt: skip
        back = ", ".join(f"{column} = {column} - make_interval(secs => {seconds})" for column in columns)
        self.database.do(f"UPDATE executions SET {back}")
        self.database.do(f"UPDATE claims SET expires_at = expires_at - make_interval(secs => {seconds})")

    async def events(self, execution: dict[str, Any]) -> list[str]:
        """Return the types of an execution's events."""
        reply = await self.api.call("GET", f"/executions/{execution['id']}/events", "read")
        return [event["type"] for event in reply.json()["items"]]


@asynccontextmanager
async def working(tenant: Tenant) -> AsyncIterator[Worker]:
    """Serve the app on a real socket and give a worker for it."""
    async with served(tenant) as api:
        yield Worker(api, tenant)


def refused(reply: httpx.Response, status: int, code: str, pointer: str | None = None) -> dict[str, Any]:
    """Check that a reply is a problem of this kind, and return it."""
    body: dict[str, Any] = reply.json()
    assert (reply.status_code, body["code"]) == (status, code), body
    assert reply.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "code", "hint"} <= body.keys()
    assert body["hint"]
    if pointer is not None:
        assert body["pointer"] == pointer
    return body
