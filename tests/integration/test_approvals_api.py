"""Approving held removals: for the plan that waits now and no other, once, audited, used up by one pass."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from cron_observer.source import SourceSpec
from cron_observer.store import approvals, sources
from cron_observer.store.engine import clock
from cron_observer.store.sources import Lease
from support.api import api
from support.databases import Tenant, make_tenant
from support.repositories import Repository, following, manifest

HASH = "a" * 64
OTHER = "b" * 64
TTL = timedelta(seconds=10)


async def add_source(tenant: Tenant, plan_hash: str | None = HASH) -> None:
    """Write down the source ``main``, which waits for an approval of `plan_hash`."""
    spec = SourceSpec(name="main", url="/srv/tasks.git", project=tenant.project, poll_seconds=3600)
    async with tenant.database.reconciler.transaction([tenant.tenant_id]) as conn:
        await sources.ensure(conn, tenant.tenant_id, spec, "git", await clock(conn))
    held = '[{"kind": "Task", "name": "export", "path": "export.yaml", "line": 1, "reason": "confirm"}]'
    tenant.database.do(
        "UPDATE sources SET plan_hash = %s, held = %s::jsonb, next_poll_at = now() + interval '1 hour'"
        " WHERE tenant_id = %s",
        plan_hash,
        held,
        tenant.tenant_id,
    )


def source(tenant: Tenant) -> dict[str, Any]:
    """Return the row of the source."""
    (row,) = tenant.database.rows("SELECT * FROM sources WHERE tenant_id = %s", tenant.tenant_id)
    return row


async def lease(tenant: Tenant, now: datetime) -> Lease:
    """Take the source as a pass does."""
    async with tenant.database.reconciler.transaction([tenant.tenant_id]) as conn:
        held = await sources.lease(conn, tenant.tenant_id, source(tenant)["source_id"], owner="test", now=now, ttl=TTL)
    assert held is not None
    return held


async def test_an_approval_is_written_down_and_wakes_the_source(tenant: Tenant) -> None:
    """201 with who approved what, and an audit entry; the source is asked for a pass, which uses the approval up."""
    await add_source(tenant)
    async with api(tenant) as it:
        before = (await it.call("GET", "/sources/main")).json()
        made = await it.call(
            "POST", "/sources/main/approvals", "admin", json={"plan_hash": HASH, "reason": "old tasks"}
        )
        again = await it.call("POST", "/sources/main/approvals", "admin", json={"plan_hash": HASH})
    told = made.json()
    assert (before["plan_hash"], before["held"][0]["name"]) == (HASH, "export")
    assert made.status_code == 201
    assert (told["source"], told["plan_hash"], told["reason"]) == ("main", HASH, "old tasks")
    assert told["actor"].startswith("key:")
    assert (again.status_code, again.json()) == (200, told)
    assert source(tenant)["requested_seq"] == 1
    (entry,) = tenant.database.rows("SELECT * FROM audit_log")
    assert (entry["action"], entry["target"], entry["actor"]) == ("source.approve", "source:main", told["actor"])
    assert entry["data"] == {"plan_hash": HASH, "reason": "old tasks"}

    now = tenant.database.value("SELECT clock_timestamp()")
    held, run_id = await lease(tenant, now), uuid4()
    async with tenant.database.reconciler.transaction([tenant.tenant_id]) as conn:
        assert await approvals.approved(conn, held) == {HASH}
        await approvals.use(conn, held, HASH, run_id, now)
        assert await approvals.approved(conn, held) == set()
    (row,) = tenant.database.rows("SELECT * FROM approvals")
    assert (row["run_id"], row["used_at"]) == (run_id, now)


async def test_only_what_waits_now_can_be_approved(tenant: Tenant) -> None:
    """Another hash, a source without held removals and an unknown source are 404; a hash that is none is 400."""
    await add_source(tenant)
    async with api(tenant) as it:
        stale = await it.call("POST", "/sources/main/approvals", "admin", json={"plan_hash": OTHER})
        tenant.database.do("UPDATE sources SET plan_hash = NULL")
        nothing = await it.call("POST", "/sources/main/approvals", "admin", json={"plan_hash": HASH})
        unknown = await it.call("POST", "/sources/other/approvals", "admin", json={"plan_hash": HASH})
        bodies: list[Any] = [{}, {"plan_hash": "A" * 64}, {"plan_hash": HASH[:-1]}, {"plan_hash": HASH, "force": True}]
        wrong = [await it.call("POST", "/sources/main/approvals", "admin", json=one) for one in bodies]
    assert [one.status_code for one in (stale, nothing, unknown)] == [404] * 3
    assert "plan hash" in stale.json()["detail"]
    assert {one.status_code for one in wrong} == {400}
    assert tenant.database.value("SELECT count(*) FROM approvals") == 0
    assert source(tenant)["requested_seq"] == 0


async def test_a_plan_that_comes_again_needs_a_new_consent(tenant: Tenant) -> None:
    """An approval that was used up releases nothing later; the same plan can be approved again."""
    await add_source(tenant)
    now = tenant.database.value("SELECT clock_timestamp()")
    async with api(tenant) as it:
        assert (await it.call("POST", "/sources/main/approvals", "admin", json={"plan_hash": HASH})).status_code == 201
        held = await lease(tenant, now)
        async with tenant.database.reconciler.transaction([tenant.tenant_id]) as conn:
            await approvals.use(conn, held, HASH, uuid4(), now)
            await approvals.use(conn, held, HASH, UUID(int=0), now)
            assert await approvals.approved(conn, held) == set()
        assert (await it.call("POST", "/sources/main/approvals", "admin", json={"plan_hash": HASH})).status_code == 201
        async with tenant.database.reconciler.transaction([tenant.tenant_id]) as conn:
            assert await approvals.approved(conn, held) == {HASH}
    assert tenant.database.value("SELECT count(*) FROM approvals WHERE run_id = %s", UUID(int=0)) == 0


@pytest.mark.parametrize("scope", ["read", "report", "trigger", "tasks:write"])
async def test_only_administrators_approve(tenant: Tenant, scope: str) -> None:
    """Every other scope is refused, and so is no key on loopback."""
    await add_source(tenant)
    async with api(tenant) as it:
        refused = await it.call("POST", "/sources/main/approvals", scope, json={"plan_hash": HASH})
        unknown = await it.call("POST", "/sources/main/approvals", json={"plan_hash": HASH})
    assert (refused.status_code, unknown.status_code) == (403, 401)


async def test_another_tenant_s_source_is_not_there(tenant: Tenant) -> None:
    """An administrator of another tenant neither sees nor approves it."""
    await add_source(tenant)
    stranger = make_tenant(tenant.database, "other")
    async with api(tenant) as it:
        refused = await it.call("POST", "/sources/main/approvals", "admin", tenant=stranger, json={"plan_hash": HASH})
    assert refused.status_code == 404
    assert tenant.database.value("SELECT count(*) FROM approvals") == 0


async def test_many_approvals_at_once_make_one(tenant: Tenant) -> None:
    """Concurrent consents to the same plan are one row, whoever comes first."""
    await add_source(tenant)
    async with api(tenant) as it:
        calls = [it.call("POST", "/sources/main/approvals", "admin", json={"plan_hash": HASH}) for _ in range(6)]
        answers = await asyncio.gather(*calls)
    assert sorted(one.status_code for one in answers) == [200] * 5 + [201]
    assert tenant.database.value("SELECT count(*) FROM approvals") == 1


async def test_a_repeat_with_the_same_key_gets_the_same_answer(tenant: Tenant) -> None:
    """Idempotency-Key: the second request is told what the first was."""
    await add_source(tenant)
    async with api(tenant) as it:
        first, again = [
            await it.call(
                "POST",
                "/sources/main/approvals",
                "admin",
                json={"plan_hash": HASH},
                headers={"Idempotency-Key": "one"},
            )
            for _ in range(2)
        ]
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert again.headers["idempotent-replayed"] == "true"


async def test_the_api_cannot_use_or_change_an_approval(tenant: Tenant) -> None:
    """The API's role may add consents, and neither change nor remove one."""
    await add_source(tenant)
    async with api(tenant) as it:
        await it.call("POST", "/sources/main/approvals", "admin", json={"plan_hash": HASH})
    for statement in ("UPDATE approvals SET used_at = now()", "DELETE FROM approvals"):
        with pytest.raises(Exception, match="permission denied"):
            async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
                await conn.exec_driver_sql(statement)


async def test_an_approval_releases_what_was_held(tenant: Tenant, tmp_path: Any) -> None:
    """Pushed, held, approved by hash, removed: and the approval is used up by that run."""
    repository = Repository.make(tmp_path)
    files = {f"{name}.yaml": manifest(name) for name in ("a", "b", "c")}
    repository.push(files)
    async with following(tenant, repository.bare, tmp_path / "data") as it:
        await it.sync()
        repository.push(dict.fromkeys(files), subject="Remove everything")
        await it.sync()
        assert it.names() == ["a", "b", "c"]
        async with api(tenant) as server:
            shown = (await server.call("GET", "/sources/main")).json()
            assert {one["name"] for one in shown["held"]} == {"a", "b", "c"}
            body = {"plan_hash": shown["plan_hash"], "reason": "moved elsewhere"}
            made = await server.call("POST", "/sources/main/approvals", "admin", json=body)
            assert made.status_code == 201
            await it.reconciler.tick()
            after = (await server.call("GET", "/sources/main")).json()
        assert it.names() == []
        assert (after["held"], after["plan_hash"]) == ([], None)
        run = it.runs()[0]
        (used,) = it.database.rows("SELECT * FROM approvals")
        assert used["run_id"] == run["run_id"]
