"""Idempotency-Key: a repeat is told what the first request was told, and nothing happens twice."""

from __future__ import annotations

import asyncio
from typing import Any

from cron_observer.store import idempotency
from support.api import Api, api
from support.databases import Tenant
from support.rows import make_task

TRIGGER = "/projects/default/tasks/export/trigger"


async def post(it: Api, path: str, key: str, body: Any = None, scope: str = "admin") -> Any:
    """POST with an Idempotency-Key."""
    return await it.call("POST", path, scope, json=body or {}, headers={"Idempotency-Key": key})


async def test_a_repeat_is_answered_like_the_first(tenant: Tenant) -> None:
    """Status and body are those of the first answer, marked as repeated; there is one execution."""
    make_task(tenant)
    async with api(tenant) as it:
        first, second = await post(it, TRIGGER, "a"), await post(it, TRIGGER, "a")
        other = await post(it, TRIGGER, "b")
    assert (first.status_code, second.status_code, other.status_code) == (201, 201, 201)
    assert second.json() == first.json()
    assert (first.headers.get("idempotent-replayed"), second.headers["idempotent-replayed"]) == (None, "true")
    assert other.json()["id"] != first.json()["id"]
    assert tenant.database.value("SELECT count(*) FROM executions") == 2


async def test_a_key_belongs_to_its_request(tenant: Tenant) -> None:
    """The same key with another body or path is 422; another API key may use the same text."""
    make_task(tenant)
    make_task(tenant, "import")
    async with api(tenant) as it:
        await post(it, TRIGGER, "a")
        body = await post(it, TRIGGER, "a", {"force": True})
        path = await post(it, "/projects/default/tasks/import/trigger", "a")
        caller = await post(it, TRIGGER, "a", scope="trigger")
    for refused in (body, path):
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_mismatch")
    assert caller.status_code == 201
    assert tenant.database.value("SELECT count(*) FROM executions") == 2


async def test_fifty_at_once_do_the_work_once(tenant: Tenant) -> None:
    """Of 50 concurrent requests with one key, also through two processes, one works and none fails."""
    make_task(tenant)
    async with api(tenant) as one, api(tenant) as two:
        two.tokens[str(tenant.tenant_id), "admin"] = (await one.key("admin"))["Authorization"].split()[1]
        answers = await asyncio.gather(*(post((one, two)[n % 2], TRIGGER, "a") for n in range(50)))
    codes = {answer.json().get("code") for answer in answers if answer.status_code != 201}
    assert codes <= {"in_progress"}
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert tenant.database.value("SELECT count(*) FROM executions") == 1


async def test_a_refused_request_leaves_its_key_free(tenant: Tenant) -> None:
    """What failed may be tried again with the same key."""
    async with api(tenant) as it:
        missing = await post(it, TRIGGER, "a")
        make_task(tenant)
        made = await post(it, TRIGGER, "a")
    assert (missing.status_code, made.status_code) == (404, 201)


async def test_a_key_is_forgotten_after_a_day(tenant: Tenant) -> None:
    """An expired key begins anew."""
    make_task(tenant)
    async with api(tenant) as it:
        first = await post(it, TRIGGER, "a")
        tenant.database.do("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")
        again = await post(it, TRIGGER, "a")
    assert first.json()["id"] != again.json()["id"]
    assert idempotency.KEPT_FOR.days == 1


async def test_a_repeated_creation_of_a_key_shows_the_same_key(tenant: Tenant) -> None:
    """A lost reply of POST keys can be asked for again, and yet no secret is stored."""
    body = {"name": "ci", "scopes": ["read"]}
    async with api(tenant) as it:
        first, second = await post(it, "/keys", "a", body), await post(it, "/keys", "a", body)
        other = await post(it, "/keys", "b", body)
        headers = {"X-API-Key": second.json()["key"]}
        works = await it.client.get("/api/v1/projects", headers=headers)
    assert second.json() == first.json()
    assert other.json()["key"] != first.json()["key"]
    assert works.status_code == 200
    stored = str(tenant.database.rows("SELECT response FROM idempotency_keys"))
    assert first.json()["key"].split("_", 2)[2] not in stored


async def test_a_repeated_creation_of_a_task_is_no_conflict(tenant: Tenant) -> None:
    """POST tasks with the same key answers 201 again, where a bare repeat would say name_taken."""
    body = {"name": "export", "schedule": {"every": "1h"}}
    async with api(tenant) as it:
        first = await post(it, "/projects/default/tasks", "a", body)
        second = await post(it, "/projects/default/tasks", "a", body)
        bare = await it.call("POST", "/projects/default/tasks", "admin", json=body)
    assert (first.status_code, second.status_code, bare.status_code) == (201, 201, 409)
    assert second.json() == first.json()
