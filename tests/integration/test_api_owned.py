"""Tasks that a manifest owns: every write of the API is refused with what to do in Git instead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from litestar.routes import HTTPRoute

from cron_observer_api.app import App
from cron_observer_api.operation import operation_of
from support.api import api
from support.databases import Tenant
from support.owned import Owned, git, make_owned

TEXT = """\
# Who to call: the billing team
apiVersion: cron-observer/v1
kind: Task
metadata:
  name: nightly-export
  labels: {team: billing, tier: "1"}
spec:
  description: Export the invoices  # of the day
  schedule:
    cron: "30 2 * * 1-5"
    timezone: Europe/Berlin
  timeout: 30m
  retries: {max: 2}
---
apiVersion: cron-observer/v1
kind: Task
metadata: {name: other}
spec:
  schedule: {every: 15m}
"""

PATH = "/projects/default/tasks/nightly-export"

#: Writes that change no definition: allowed, whoever owns the task.
ALLOWED = {"triggerTask", "pauseTask", "resumeTask", "backfillTask"}


@pytest.fixture
def owned(tenant: Tenant, tmp_path: Path) -> Owned:
    """The task of TEXT, committed and applied."""
    return make_owned(tenant, tmp_path, TEXT)


def body_of(task: dict[str, Any]) -> dict[str, Any]:
    """Return a task of the API as a body of a write."""
    return {"name": task["name"], "labels": task["labels"], **task["spec"]}


async def test_a_put_says_where_the_task_is_owned_and_how_to_change_it(tenant: Tenant, owned: Owned) -> None:
    """The refusal names source, path, line, commit and fields, and its patch makes the change with git apply."""
    async with api(tenant) as it:
        task = (await it.call("GET", PATH)).json()
        wanted = body_of(task) | {"timeout": "45m", "labels": {"team": "ops"}}
        wanted["schedule"] = {"cron": ["0 3 * * *", "0 5 * * *"], "timezone": "Europe/Berlin"}
        refused = await it.call("PUT", PATH, "tasks:write", json=wanted)
        after = (await it.call("GET", PATH)).json()

    told = refused.json()
    assert (refused.status_code, told["code"]) == (409, "manifest_owned")
    assert refused.headers["content-type"] == "application/problem+json"
    link = f"https://github.com/acme/tasks/blob/{owned.commit}/tasks/export.yaml#L5"
    assert told["owner"] == {
        "kind": "manifest",
        "source": "main",
        "repository": "https://github.com/acme/tasks.git",
        "ref": "refs/heads/main",
        "path": "tasks/export.yaml",
        "line": 5,
        "commit": owned.commit,
        "url": link,
    }
    assert {one["pointer"]: one for one in told["conflicts"]} == {
        "/schedule/cron": {
            "pointer": "/schedule/cron",
            "current": "30 2 * * 1-5",
            "requested": ["0 3 * * *", "0 5 * * *"],
        },
        "/timeout": {"pointer": "/timeout", "current": "30m", "requested": "45m"},
        "/labels/team": {"pointer": "/labels/team", "current": "billing", "requested": "ops"},
        "/labels/tier": {"pointer": "/labels/tier", "current": "1"},
    }
    assert "secret" not in refused.text
    defaults = task["spec"]["schedule"]
    assert owned.apply(told["patch"]) == wanted | {"schedule": defaults | wanted["schedule"]}
    assert "# of the day" in (owned.checkout / owned.path).read_text()
    assert after == task


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"timeout": "45m"}, {"timeout": "45m"}),
        ({"timeout": None}, {"timeout": "1h"}),
        ({"payload": {"a": [1, None]}}, {"payload": {"a": [1, None]}}),
        ({"labels": {"team": None}}, {"labels": {"tier": "1"}}),
        ({"labels": None}, {"labels": {}}),
        ({"startDeadline": "10m", "overlap": "allow_all"}, {"startDeadline": "10m", "overlap": "allow_all"}),
    ],
)
async def test_a_merge_patch_is_refused_with_a_patch_that_means_the_same(
    tenant: Tenant, owned: Owned, patch: dict[str, Any], expected: dict[str, Any]
) -> None:
    """PATCH merges first, so its refusal carries exactly that change."""
    async with api(tenant) as it:
        task = (await it.call("GET", PATH)).json()
        refused = await it.call("PATCH", PATH, "tasks:write", json=patch)
    assert refused.status_code == 409, refused.text
    assert owned.apply(refused.json()["patch"]) == body_of(task) | expected


async def test_a_deletion_is_refused_with_a_patch_that_removes_the_document(tenant: Tenant, owned: Owned) -> None:
    """The patch of DELETE removes this task from its file and leaves the other."""
    async with api(tenant) as it:
        refused = await it.call("DELETE", PATH, "tasks:write")
    assert (refused.status_code, refused.json()["code"]) == (409, "manifest_owned")
    assert [one["pointer"] for one in refused.json()["conflicts"]] == [""]
    assert owned.apply(refused.json()["patch"]) is None
    assert "name: other" in (owned.checkout / owned.path).read_text()


async def test_a_write_that_changes_nothing_is_answered_with_the_task(tenant: Tenant, owned: Owned) -> None:
    """PUT, PATCH and POST of what the task is already answer 200 and write nothing."""
    async with api(tenant) as it:
        task = (await it.call("GET", PATH)).json()
        short = {
            "labels": task["labels"],
            "description": "Export the invoices",
            "schedule": {"cron": "30 2 * * 1-5", "timezone": "Europe/Berlin"},
            "timeout": "30m",
            "retries": {"max": 2},
        }
        answers = [
            await it.call("PUT", PATH, "tasks:write", json=body_of(task)),
            await it.call("PUT", PATH, "tasks:write", json=short),
            await it.call("PATCH", PATH, "tasks:write", json={"timeout": "30m", "payload": None}),
            await it.call("PATCH", PATH, "tasks:write", json={}),
            await it.call("POST", "/projects/default/tasks", "tasks:write", json=body_of(task)),
        ]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert all(answer.json() == task for answer in answers)
    assert tenant.database.value("SELECT count(*) FROM audit_log") == 0


async def test_a_task_whose_manifest_is_gone_can_only_come_back_in_git(tenant: Tenant, owned: Owned) -> None:
    """PUT on a REMOVED task is refused with a patch that makes the file anew; DELETE has nothing left to do."""
    tenant.database.do("UPDATE tasks SET removed_at = now() WHERE name = 'nightly-export'")
    tenant.database.do("DELETE FROM manifest_files")
    (owned.checkout / owned.path).unlink()
    async with api(tenant) as it:
        task = (await it.call("GET", PATH)).json()
        refused = await it.call("PUT", PATH, "tasks:write", json=body_of(task))
        deleted = await it.call("DELETE", PATH, "tasks:write")
        listed = (await it.call("GET", "/projects/default/tasks")).json()["items"]
        removed = (await it.call("GET", "/projects/default/tasks?status=REMOVED")).json()["items"]
        triggered = await it.call("POST", f"{PATH}/trigger", "trigger")
    assert task["status"] == "REMOVED"
    assert refused.status_code == 409
    git(owned.checkout, "add", "-A")
    assert owned.apply(refused.json()["patch"]) == body_of(task)
    assert (deleted.status_code, deleted.json()) == (200, task)
    assert [one["name"] for one in listed] == ["other"]
    assert [one["name"] for one in removed] == ["nightly-export"]
    assert triggered.status_code == 404


#: Every other write of the app that leaves the definition of a manifest's task alone, and why it does.
ELSEWHERE = {
    "createKey": "credentials",
    "revokeKey": "credentials",
    "syncSource": "asks for a pass, which reads Git",
    "approveRemovals": "lets a pass do what Git says",
    "suspendSource": "keeps passes from happening",
    "resumeSource": "lets passes happen",
    "receiveWebhook": "asks for a pass, once it is signed",
    "cancelExecution": "a run, not its definition",
    "claim": "a run, not its definition",
    "beginExecution": "a run, not its definition",
    "startExecution": "a run, not its definition",
    "heartbeat": "a run, not its definition",
    "appendLogs": "a run, not its definition",
    "completeExecution": "a run, not its definition",
    "completeExecutions": "runs, not their definition",
    "releaseExecution": "a run, not its definition",
    "patchExecution": "a run, not its definition",
    "uploadLog": "a run, not its definition",
    "putLog": "a run, not its definition",
    "postPing": "a run, not its definition",
    "postPingAction": "a run, not its definition",
    "postPingTask": "a run, not its definition",
    "postSentryCheckIn": "a run, not its definition",
    "sentryEnvelope": "a run, not its definition",
    "rotatePingAddress": "credentials",
    "rotatePingKey": "credentials",
}

#: The one way out of a manifest's hands, for administrators, audited.
DETACH = "detachTask"

#: What a write has to say to mean this task, where it can.
BODIES: dict[str, Any] = {
    "triggerTask": {"payload": {"a": 1}},
    "pauseTask": {"reason": "x"},
    "resumeTask": {},
    "backfillTask": {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"},
    "createKey": {"name": "x", "scopes": ["read"]},
    "approveRemovals": {"plan_hash": "a" * 64},
    "suspendSource": {"reason": "x"},
    "claim": {"worker": "w", "max": 1, "wait_seconds": 0},
    "beginExecution": {"task": "default/nightly-export", "worker": "w", "lease_seconds": 30},
    "startExecution": {"fence": 1},
    "heartbeat": {"fence": 1},
    "appendLogs": {"fence": 1, "first_seq": 0, "entries": []},
    "completeExecution": {"fence": 1, "outcome": "finished"},
    "completeExecutions": {
        "completions": [{"id": "00000000-0000-0000-0000-000000000001", "fence": 1, "outcome": "finished"}]
    },
    "releaseExecution": {"fence": 1, "reason": "x"},
    "patchExecution": {"status": "RUNNING"},
}


def writes(app: App) -> list[tuple[str, str, str]]:
    """Return method, path and operation of every route of the app that takes anything but reading methods."""
    found = []
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            declared = operation_of(handler)
            for method in sorted(set(handler.http_methods) - {"GET", "HEAD", "OPTIONS"}):
                name = str(handler.operation_id) if declared is not None else f"{method} {route.path_format}"
                found.append((str(method), route.path_format, name))
    return found


def addressed(path: str, execution: str) -> str:
    """Return a route's path with this task, its source and an execution of it in the places of its parameters."""
    values = {"project": "default", "name": "nightly-export", "source": "main", "provider": "github"}
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: values.get(match[1], execution), path)


def definition(tenant: Tenant) -> list[dict[str, Any]]:
    """Return what the manifest says about tasks, as the database has it."""
    rows = tenant.database.rows("SELECT * FROM tasks ORDER BY task_uid")
    revisions = tenant.database.rows("SELECT * FROM task_revisions ORDER BY task_uid, generation")
    return [*rows, *revisions]


async def test_no_write_route_forgets_the_owner(tenant: Tenant, owned: Owned) -> None:
    """Every route of the app that writes, also a new one, is refused for a manifest's task, or known to be harmless."""
    async with api(tenant) as it:
        assert it.app is not None
        routes = writes(it.app)
        names = {operation for _, _, operation in routes}
        assert names - ALLOWED - set(ELSEWHERE) - {DETACH} == {"createTask", "putTask", "patchTask", "deleteTask"}
        assert names >= ALLOWED | set(ELSEWHERE) | {DETACH}, (
            "an exception from the rule is of a route that is not there"
        )
        made = await it.call("POST", f"{PATH}/trigger", "admin")
        before = definition(tenant)
        for method, path, operation in routes:
            if operation == DETACH:
                continue
            body = BODIES.get(operation, {"name": "nightly-export", "schedule": {"every": "5m"}})
            target = addressed(path, made.json()["id"])
            told = await it.client.request(method, target, headers=await it.key("admin"), json=body)
            assert told.status_code < 500, (operation, told.text)
            if operation not in ALLOWED | set(ELSEWHERE):
                assert (told.status_code, told.json()["code"]) == (409, "manifest_owned"), operation
                assert told.json()["patch"].startswith("diff --git"), operation
            elif told.status_code == 409:
                assert told.json()["code"] != "manifest_owned", operation
            assert definition(tenant) == before, operation


async def test_refusals_are_counted_by_route(tenant: Tenant, owned: Owned) -> None:
    """Each route that refused a write has a series of its own, named by its template and never by what was asked."""
    async with api(tenant) as it:
        assert it.app is not None
        told = []
        for _ in range(2):
            for method, path, operation in writes(it.app):
                if operation not in {"createTask", "putTask", "patchTask", "deleteTask"}:
                    continue
                body = {"name": "nightly-export", "schedule": {"every": "5m"}}
                target, headers = addressed(path, ""), await it.key("tasks:write")
                assert (await it.client.request(method, target, headers=headers, json=body)).status_code == 409
            lines = (await it.client.get("/metrics")).text.splitlines()
            told.append(
                dict(line.rsplit(" ", 1) for line in lines if line.startswith("cron_observer_ownership_refusals_total"))
            )
    task, tasks = (f"/api/v1/projects/{{project}}/tasks{ending}" for ending in ("/{name}", ""))
    before, after = told
    for method, route in (("POST", tasks), ("PUT", task), ("PATCH", task), ("DELETE", task)):
        series = f'cron_observer_ownership_refusals_total{{method="{method}",route="{route}"}}'
        assert float(after[series]) == float(before[series]) + 1


async def test_every_write_of_nothing_new_is_answered_with_the_task(tenant: Tenant, owned: Owned) -> None:
    """Each route that refuses changes takes what is so already with 200, whichever method it has; DELETE cannot be."""
    async with api(tenant) as it:
        assert it.app is not None
        task = (await it.call("GET", PATH)).json()
        for method, path, operation in writes(it.app):
            if operation in ALLOWED | set(ELSEWHERE) | {DETACH} or method == "DELETE":
                continue
            body = {} if method == "PATCH" else body_of(task)
            told = await it.client.request(method, addressed(path, ""), headers=await it.key("tasks:write"), json=body)
            assert (told.status_code, told.json()) == (200, task), operation
    assert tenant.database.value("SELECT count(*) FROM audit_log") == 0


async def test_the_database_refuses_what_the_api_would_forget(tenant: Tenant, owned: Owned) -> None:
    """The API's role can neither change nor remove a manifest's task, nor make one, whatever the program says."""
    before = definition(tenant)
    for statement in (
        "UPDATE tasks SET spec = '{}'::jsonb WHERE name = 'nightly-export'",
        "UPDATE tasks SET owner = 'api', source_id = NULL, path = NULL WHERE name = 'nightly-export'",
        "UPDATE task_plan SET active = false WHERE owner = 'manifest'",
        "DELETE FROM task_plan WHERE owner = 'manifest'",
        "DELETE FROM tasks WHERE name = 'nightly-export'",
    ):
        async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
            done = await conn.exec_driver_sql(statement)
        assert done.rowcount == 0, statement
    with pytest.raises(Exception, match="row-level security"):
        async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
            await conn.exec_driver_sql(
                "INSERT INTO task_revisions (tenant_id, task_uid, generation, action, owner, spec, created_at) "
                "SELECT tenant_id, task_uid, 99, 'update', 'manifest', spec, created_at FROM tasks LIMIT 1"
            )
    for statement in (
        "UPDATE sources SET applied_commit = NULL",
        "UPDATE sources SET plan_hash = 'x'",
        "DELETE FROM manifest_files",
        "UPDATE layers SET spec = '{}'::jsonb",
        "DELETE FROM commit_statuses",
    ):
        with pytest.raises(Exception, match="permission denied"):
            async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
                await conn.exec_driver_sql(statement)
    assert definition(tenant) == before


async def test_the_refusal_needs_the_scope_first(tenant: Tenant, owned: Owned) -> None:
    """Who may not write tasks learns nothing about the repository."""
    async with api(tenant) as it:
        refused = await it.call("PUT", PATH, "read", json={"schedule": {"every": "5m"}})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "acme" not in refused.text
