"""Idempotency-Key: a repeat is told what the first request was told, and nothing happens twice.

``CRON_OBSERVER_KEYS=1000`` is the full size: so many keys, 50 requests at once with each (some minutes).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from cron_observer.store import idempotency
from support.api import Api, api, served
from support.databases import Tenant
from support.mutants import Mutant
from support.proxy import proxied
from support.rows import make_task

TRIGGER = "/projects/default/tasks/export/trigger"

#: Keys of one run.
KEYS = int(os.environ.get("CRON_OBSERVER_KEYS", "1"))


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


@pytest.mark.timeout(120 + 2 * KEYS)
async def test_fifty_at_once_do_the_work_once(tenant: Tenant) -> None:
    """Of 50 concurrent requests with one key, also through two processes, one works and none fails."""
    make_task(tenant)
    async with api(tenant) as one, api(tenant) as two:
        two.tokens[str(tenant.tenant_id), "admin"] = (await one.key("admin"))["Authorization"].split()[1]
        heard = [
            await asyncio.gather(*(post((one, two)[n % 2], TRIGGER, f"k{key}") for n in range(50)))
            for key in range(KEYS)
        ]
    for answers in heard:
        codes = {answer.json().get("code") for answer in answers if answer.status_code != 201}
        assert codes <= {"in_progress"}
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert len({json.dumps(one.json(), sort_keys=True) for one in answers if one.status_code == 201}) == 1
    assert tenant.database.value("SELECT count(*) FROM executions") == KEYS


@pytest.mark.timeout(120 + KEYS)
async def test_an_answer_that_was_swallowed_is_told_again(tenant: Tenant) -> None:
    """Behind a network that loses answers, whoever asks until he hears has asked for one execution."""
    make_task(tenant)
    keys = max(10, KEYS)
    async with served(tenant) as it:
        headers = await it.key("admin")
        base = str(it.client.base_url).rstrip("/")
        async with (
            proxied(base, 1, ("none", "swallow", "swallow", "cut_answer")) as proxy,
            httpx.AsyncClient(base_url=proxy.url, trust_env=False, timeout=20) as client,
        ):
            heard = [await _stubborn(client, headers | {"Idempotency-Key": f"k{key}"}) for key in range(keys)]
        assert proxy.done["swallow"] > 0
    ids = {str(row["id"]) for row in tenant.database.rows("SELECT id FROM executions")}
    assert len(heard) == len(ids) == keys
    assert set(heard) == ids


async def _stubborn(client: httpx.AsyncClient, headers: dict[str, str]) -> str:
    """Trigger until there is an answer; return the id of the execution."""
    for _ in range(60):
        try:
            answer = await client.post(f"/api/v1{TRIGGER}", json={}, headers=headers | {"Connection": "close"})
        except httpx.TransportError:
            continue
        if answer.status_code == 201:
            return str(answer.json()["id"])
        assert answer.json()["code"] == "in_progress", answer.text
    raise AssertionError("nothing comes through")


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


def statement(name: str, old: str, new: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Break a statement."""

    def broken(patch: pytest.MonkeyPatch) -> None:
        said = str(getattr(idempotency, name))
        assert old in said
        patch.setattr(idempotency, name, text(said.replace(old, new)))

    return broken


#: What is broken, how, and the check that sees it.
MUTANTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Tenant], Awaitable[None]]]] = {
    "a key that anybody can take": (
        statement("_TAKE", ":key,", ":key || gen_random_uuid(),"), test_fifty_at_once_do_the_work_once,
    ),
    "a key that a lost answer sets free": (
        statement("_TAKE", ":key,", ":key || gen_random_uuid(),"), test_an_answer_that_was_swallowed_is_told_again,
    ),
    "a request that is not compared": (
        Mutant("store.idempotency", "take", 'bytes(row["request_hash"]) != request_hash', "False").apply,
        test_a_key_belongs_to_its_request,
    ),
    "an answer that is not kept": (
        statement("_ANSWER", "status = :status", "status = NULLIF(:status, :status)"),
        test_a_repeat_is_answered_like_the_first,
    ),
    "a key that is kept for ever": (
        statement("_FORGET", "expires_at <= :now", "false AND :now IS NULL"), test_a_key_is_forgotten_after_a_day,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_mutant_is_caught(tenant: Tenant, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With keys broken in this place, the check fails."""
    broken, sees = MUTANTS[name]
    broken(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        await sees(tenant)
