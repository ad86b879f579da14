"""What a run may do with its token: report on itself under its own claim, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from cron_observer.run_token import mint
from cron_observer.store import tokens
from cron_observer.store.tokens import SigningKeys, signing_key
from cron_observer_api import reports, work
from integration.test_api_auth import calls, target
from support.api import api
from support.databases import FreshDatabase, Tenant, make_tenant
from support.rows import make_task
from support.worker import Worker, refused, working

#: What a token opens.
OPEN = {
    ("GET", "/api/v1/sdk/executions/{execution_id}"),
    *(
        ("POST", f"/api/v1/sdk/executions/{{execution_id}}/{what}")
        for what in ("start", "heartbeat", "logs", "logs/raw", "complete", "release")
    ),
    ("PUT", "/api/v1/sdk/executions/{execution_id}/logs/raw"),
}

SAID: dict[str, dict[str, Any]] = {
    "start": {},
    "heartbeat": {"progress": 0.5},
    "logs": {"first_seq": 0, "entries": [{"level": "INFO", "message": "x"}]},
    "complete": {"outcome": "finished"},
    "release": {"reason": "x"},
}


async def say(worker: Worker, token: str, identity: str, what: str, **body: Any) -> httpx.Response:
    """Report with a run token in place of a key."""
    path = f"/api/v1/sdk/executions/{identity}/{what}"
    return await worker.api.client.post(path, json=SAID[what] | body, headers={"Authorization": f"Bearer {token}"})


async def see(worker: Worker, token: str, identity: str) -> httpx.Response:
    """Read an execution with a run token."""
    path = f"/api/v1/sdk/executions/{identity}"
    return await worker.api.client.get(path, headers={"Authorization": f"Bearer {token}"})


async def test_a_run_reports_with_its_token_alone(tenant: Tenant) -> None:
    """From start to completion a run needs nothing but the token of its claim."""
    async with working(tenant) as worker:
        run = await worker.running()
        token, identity, fence = run["run_token"], run["id"], run["fence"]
        for what, status in (("start", 200), ("heartbeat", 200), ("logs", 202), ("complete", 200)):
            reply = await say(worker, token, identity, what, fence=fence)
            assert reply.status_code == status, reply.text
        reply = await see(worker, token, identity)
    assert reply.status_code == 200
    assert reply.json()["status"] == "FINISHED"
    assert reply.json()["run_token"] is None


async def test_a_run_that_began_by_itself_has_a_token(tenant: Tenant) -> None:
    """`POST executions` gives the token, the same when it is repeated, under a client's own id as well."""
    async with working(tenant) as worker:
        make_task(tenant, "export")
        body = {"id": str(uuid4()), "task": "default/export", "worker": "w"}
        first, again = [(await worker.call("POST", "/executions", body)).json() for _ in range(2)]
        assert first["run_token"] == again["run_token"]
        reply = await say(worker, first["run_token"], body["id"], "release", fence=1)
        assert reply.status_code == 200, reply.text
        reply = await say(worker, first["run_token"], first["id"], "start", fence=1)
        refused(reply, 409, "lease_lost")


async def test_a_repeated_claim_gives_the_same_token(tenant: Tenant) -> None:
    """A lost reply takes no token with it."""
    async with working(tenant) as worker:
        worker.slot(make_task(tenant))
        claim = str(uuid4())
        (one,), (two,) = [await worker.claim(claim_id=claim) for _ in range(2)]
    assert one["run_token"] == two["run_token"]
    assert one["run_token"].startswith("crt_")


async def test_a_repeated_claim_by_another_process(tenant: Tenant) -> None:
    """A token is good at every process of the server, whichever gave it."""
    async with working(tenant) as one, working(tenant) as two:
        run = await one.running()
        assert (await see(two, run["run_token"], run["id"])).status_code == 200


@pytest.mark.parametrize("what", sorted(SAID))
async def test_what_is_not_its_own(tenant: Tenant, what: str) -> None:
    """Another execution is not there, be it there or not; another fence is forbidden, an altered token nobody's."""
    async with working(tenant) as worker:
        mine, other = await worker.running("mine"), await worker.running("other")
        token = mine["run_token"]
        refused(await say(worker, token, other["id"], what, fence=other["fence"]), 404, "not_found")
        refused(await say(worker, token, str(uuid4()), what, fence=mine["fence"]), 404, "not_found")
        refused(await say(worker, token, mine["id"], what, fence=mine["fence"] + 1), 403, "forbidden")
        key = await SigningKeys(tenant.database.api).own(tenant.tenant_id)
        forged = mint(bytes(32), tenant.tenant_id, UUID(mine["id"]), mine["fence"])
        refused(await say(worker, forged, mine["id"], what, fence=mine["fence"]), 401, "unauthenticated")
        refused(await say(worker, token[:-1], mine["id"], what, fence=mine["fence"]), 401, "unauthenticated")
        for state in (mine, other):
            assert (await worker.call("GET", f"/executions/{state['id']}")).json()["status"] == "RUNNING"
        assert token == mint(key, tenant.tenant_id, UUID(mine["id"]), mine["fence"])


async def test_a_token_dies_with_its_fence(tenant: Tenant) -> None:
    """Once another worker has the execution, the older token reads nothing and changes nothing."""
    async with working(tenant) as worker:
        first = await worker.running()
        await worker.report(first, "release", reason="x")
        (second,) = await worker.claim()
        assert second["id"] == first["id"]
        token = first["run_token"]
        refused(await see(worker, token, first["id"]), 403, "forbidden")
        for what in SAID:
            refused(await say(worker, token, first["id"], what, fence=first["fence"]), 409, "lease_lost")
        refused(await say(worker, token, first["id"], "complete", fence=second["fence"]), 403, "forbidden")
        assert (await see(worker, second["run_token"], second["id"])).json()["status"] == "RUNNING"


async def test_nothing_else_is_open_to_a_token(tenant: Tenant) -> None:
    """Every other call of the API answers a run token with 403, whatever keys may do there."""
    async with api(tenant) as it:
        assert it.app is not None
        key = await SigningKeys(tenant.database.api).own(tenant.tenant_id)
        headers = {"Authorization": f"Bearer {mint(key, tenant.tenant_id, uuid4(), 1)}"}
        found = {(method, path) for method, path, declared in calls(it.app) if declared.run_token}
        assert found == OPEN
        for method, path, declared in calls(it.app):
            if (method, path) not in OPEN and declared.scopes:
                reply = await it.client.request(method, target(path), headers=headers)
                assert reply.status_code == 403, (method, path, reply.text)


async def test_a_token_of_another_tenant(database: FreshDatabase, tenant: Tenant) -> None:
    """Nobody's token opens what belongs to another tenant, and a tenant that is not there gets no key."""
    stranger = make_tenant(database, "stranger")
    async with working(tenant) as worker:
        run = await worker.running()
        async with working(stranger) as other:
            theirs = await other.running()
        refused(await see(worker, theirs["run_token"], run["id"]), 404, "not_found")
        nobody = mint(bytes(32), uuid4(), UUID(run["id"]), 1)
        refused(await see(worker, nobody, run["id"]), 401, "unauthenticated")
    assert database.value("SELECT count(*) FROM signing_keys") == 2


async def test_a_key_is_made_once(database: FreshDatabase, tenant: Tenant) -> None:
    """Processes that all need the key of a tenant for the first time at once agree on one."""
    rings = [SigningKeys(pool) for pool in (database.api, database.scheduler) for _ in range(8)]
    found = await asyncio.gather(*(ring.own(tenant.tenant_id) for ring in rings))
    assert len(set(found)) == 1
    assert database.value("SELECT count(*) FROM signing_keys") == 1


async def test_a_key_that_was_never_committed_is_not_remembered(database: FreshDatabase, tenant: Tenant) -> None:
    """A transaction that made a key and failed leaves none behind."""
    async with database.api.transaction([tenant.tenant_id]) as conn:
        lost = await signing_key(conn, tenant.tenant_id)
        await conn.rollback()
    assert await SigningKeys(database.api).own(tenant.tenant_id) != lost


async def a_forged_token_is_refused(tenant: Tenant) -> None:
    """What was signed with another key opens nothing."""
    async with working(tenant) as worker:
        run = await worker.running()
        forged = mint(bytes(32), tenant.tenant_id, UUID(run["id"]), run["fence"])
        refused(await see(worker, forged, run["id"]), 401, "unauthenticated")


#: One line each: which name of which module is broken, how, and the check that sees it.
MUTANTS: dict[str, tuple[Any, str, Any, Callable[[Tenant], Awaitable[None]]]] = {
    "nobody looks at the MAC": (tokens, "is_genuine", lambda *_given: True, a_forged_token_is_refused),
    "reports do not ask whose run it is": (
        reports, "check_run", lambda *_given: None, partial(test_what_is_not_its_own, what="complete"),
    ),
    "a reader is not asked for the fence": (
        work, "check_run", lambda *_given: None, test_a_token_dies_with_its_fence,
    ),
    "every process makes its own key": (
        tokens, "_READ", "SELECT sha256(random()::text::bytea) FROM tenants k WHERE k.tenant_id = %(tenant)s",
        test_a_repeated_claim_by_another_process,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_mutant_is_caught(tenant: Tenant, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The checks above fail when the thing that they check is broken."""
    module, broken, value, check = MUTANTS[name]
    monkeypatch.setattr(module, broken, value)
    with pytest.raises((AssertionError, KeyError)):
        await check(tenant)
