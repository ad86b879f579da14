"""Two tenants on one server: nothing of one is there for the other, in any call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litestar.routes import HTTPRoute

from cron_observer.schedule import new_id
from cron_observer_api.app import App
from cron_observer_api.operation import operation_of
from support.api import api, make_key
from support.databases import Tenant, make_tenant
from support.owned import make_owned
from support.rows import database_now, make_slot

TEXT = "apiVersion: cron-observer/v1\nkind: Task\nmetadata: {name: secret-task}\nspec: {schedule: {every: 15m}}\n"

#: A body that each write below an id would take, so that nothing but the id can be refused.
BODIES: dict[str, Any] = {
    "approveRemovals": {"plan_hash": "a" * 64},
    "suspendSource": {"reason": "mine"},
    "detachTask": {"reason": "mine"},
    "backfillTask": {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"},
    "startExecution": {"fence": 1},
    "heartbeat": {"fence": 1},
    "appendLogs": {"fence": 1, "first_seq": 0, "entries": [{"level": "INFO", "message": "x"}]},
    "completeExecution": {"fence": 1, "outcome": "finished"},
    "releaseExecution": {"fence": 1, "reason": "x"},
    "patchExecution": {"status": "RUNNING"},
    "putTask": {"schedule": {"every": "1h"}},
    "patchTask": {"timeout": "2h"},
    "createTask": {"name": "x", "schedule": {"every": "1h"}},
}


#: What calls ask for in their query.
QUERIES: dict[str, dict[str, str]] = {"searchExecutionLogs": {"q": "x"}}


def paths_with_ids(app: App) -> list[tuple[str, str, str]]:
    """Return method, path and operation of every call with an id or a name in its path."""
    found = []
    for route in app.routes:
        if isinstance(route, HTTPRoute) and "{" in route.path_format:
            for handler in route.route_handlers:
                declared = operation_of(handler)
                if declared is not None and declared.scopes and not route.path_format.startswith("/problems"):
                    (method,) = set(handler.http_methods) - {"HEAD"}
                    found.append((str(method), route.path_format, str(handler.operation_id)))
    return found


def without(told: Any, *words: str) -> str:
    """Return an answer's text without the ids that were asked for."""
    text: str = told.text
    for word in words:
        text = text.replace(word, "…")
    return text


async def ids_of(tenant: Tenant, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Make another tenant with one of everything; return its ids by the names of paths, and ids of nobody."""
    other = make_tenant(tenant.database, "other", "their-project")
    owned = make_owned(other, folder, TEXT)
    now = database_now(tenant.database)
    slot = make_slot(other, owned.uid, now)
    run = new_id(now)
    tenant.database.do("UPDATE sources SET name = 'theirs'")
    source = tenant.database.value("SELECT source_id FROM sources")
    tenant.database.insert(
        "sync_runs",
        [
            {
                "tenant_id": other.tenant_id,
                "run_id": run,
                "source_id": source,
                "trigger": "poll",
                "epoch": 1,
                "outcome": "applied",
                "started_at": now,
            }
        ],
    )
    key_id = (await make_key(other, "read")).split("_")[1]
    theirs: dict[str, object] = {"execution_id": slot, "run_id": run, "source": "theirs", "project": "their-project"}
    theirs |= {"name": "secret-task", "key_id": key_id, "uid": owned.uid, "provider": "github"}
    nobodys: dict[str, object] = {
        "execution_id": new_id(now),
        "run_id": new_id(now),
        "source": "thairs",
        "project": "thair-project",
    }
    nobodys |= {"name": "sacret-task", "key_id": "zzzzzzzz", "provider": "github"}
    return {k: str(v) for k, v in theirs.items()}, {k: str(v) for k, v in nobodys.items()}


async def test_ids_of_another_tenant_are_answered_like_ids_of_nobody(tenant: Tenant, tmp_path: Path) -> None:
    """Every call with an id of the other tenant answers exactly what it answers for an id that exists nowhere."""
    theirs, nobodys = await ids_of(tenant, tmp_path)
    async with api(tenant) as it:
        assert it.app is not None
        found = paths_with_ids(it.app)
        assert len(found) > 20
        headers = await it.key("admin")
        own = {"project": "default"}
        for method, path, operation in found:
            # a task of theirs under a project of ours; PUT would make one
            nested = "{name}" in path and operation != "putTask"
            for places in ({}, own) if nested else ({},):
                answers = []
                for ids in (theirs | places, nobodys | places):
                    body = BODIES.get(operation) if method != "GET" else None
                    asked = QUERIES.get(operation)
                    address = path.format_map(ids)
                    told = await it.client.request(method, address, headers=headers, json=body, params=asked)
                    assert told.status_code == 404, (method, path, told.text)
                    answers.append(without(told, *ids.values()))
                assert answers[0] == answers[1], (method, path)
        lists = [
            await it.call("GET", path, "admin")
            for path in ("/projects", "/sources", "/executions?upcoming=true", "/days", "/keys")
        ]
        pending = await it.call("GET", "/sdk/executions/pending", "admin")
        metrics = await it.client.get("/metrics", headers=await it.key("admin"))
        filtered = [
            await it.call("GET", f"/executions?upcoming=true&{query}", "admin")
            for query in (
                "project=their-project",
                f"task={theirs['uid']}",
                "task=their-project/secret-task",
                "worker=w",
            )
        ]
    assert [project["name"] for project in lists[0].json()["items"]] == ["default"]
    assert all(one.json()["items"] == [] for one in lists[1:4] + filtered)
    assert all(theirs["key_id"] not in one.text for one in lists)
    assert pending.json() == {"executions": []}
    assert "theirs" not in metrics.text


async def test_each_key_sees_its_own_tenant(tenant: Tenant, tmp_path: Path) -> None:
    """The same server shows each tenant its own rows, and readers without a key those of the first one."""
    other = make_tenant(tenant.database, "other", "their-project")
    make_owned(other, tmp_path, TEXT)
    async with api(tenant) as it:
        mine = await it.call("GET", "/projects", "read")
        theirs = await it.call("GET", "/projects", "read", tenant=other)
        nobodys = await it.call("GET", "/projects")
    assert [project["name"] for project in mine.json()["items"]] == ["default"]
    assert [project["name"] for project in theirs.json()["items"]] == ["their-project"]
    assert nobodys.json() == mine.json()
