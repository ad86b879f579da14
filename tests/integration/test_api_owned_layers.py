"""Refused changes of tasks that layers and environments have a say in: the patch makes them where they count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.api import api
from support.databases import Tenant
from support.repositories import Repository, following, git

DEFAULTS = """\
apiVersion: cron-observer/v1
kind: Defaults
metadata: {name: billing}
spec:
  spec: {timeout: 10m, payload: {format: csv, lines: 3}}
"""

TASK = """\
apiVersion: cron-observer/v1
kind: Task
metadata:
  name: export
spec:
  schedule: {cron: "30 2 * * *"}
  priority: 2
  environments:
    staging:
      queue: slow   # nobody waits for it
    production: {queue: fast}
"""

PATH = "/projects/default/tasks/export"


@pytest.mark.parametrize(
    ("change", "field", "expected", "line"),
    [
        ({"timeout": "45m"}, "timeout", "45m", "+  timeout: 45m"),
        ({"timeout": None}, "timeout", "1h", "+  timeout: 1h"),
        ({"priority": 7}, "priority", 7, "+  priority: 7"),
        ({"queue": "slower"}, "queue", "slower", "+      queue: slower   # nobody waits for it"),
        ({"payload": {"lines": None}}, "payload", {"format": "csv"}, "+    lines: null"),
    ],
)
async def test_a_refused_change_is_made_where_it_counts(
    tenant: Tenant, tmp_path: Path, change: dict[str, Any], field: str, expected: Any, line: str
) -> None:
    """Applied in Git and pushed, the patch of the refusal makes the task what the request asked for."""
    repository = Repository.make(tmp_path)
    repository.push({"billing/_defaults.yaml": DEFAULTS, "billing/export.yaml": TASK})
    async with following(tenant, repository.bare, tmp_path, environment="staging") as it, api(tenant) as web:
        await it.reconciler.tick()
        assert it.findings() == []
        before = it.task("export")["spec"]
        refused = await web.call("PATCH", PATH, "tasks:write", json=change)
        told = refused.json()
        assert (refused.status_code, told["code"]) == (409, "manifest_owned")
        assert line in told["patch"].split("\n")

        (tmp_path / "change.diff").write_text(told["patch"])
        git(repository.work, "apply", "--index", str(tmp_path / "change.diff"))
        repository.push()
        await it.sync()
        assert it.findings() == []
        after = it.task("export")["spec"]
        assert after == before | {field: expected}


async def test_what_a_task_is_already_is_no_change(tenant: Tenant, tmp_path: Path) -> None:
    """A write of the effective spec, layers and environment included, is answered with 200."""
    repository = Repository.make(tmp_path)
    repository.push({"billing/_defaults.yaml": DEFAULTS, "billing/export.yaml": TASK})
    async with following(tenant, repository.bare, tmp_path, environment="staging") as it, api(tenant) as web:
        await it.reconciler.tick()
        task = (await web.call("GET", PATH)).json()
        body = {"name": "export", "labels": {}, **task["spec"]}
        assert (await web.call("PUT", PATH, "tasks:write", json=body)).status_code == 200
        assert (await web.call("PATCH", PATH, "tasks:write", json={"timeout": "10m"})).status_code == 200


async def test_tasks_of_the_api_have_no_environments(tenant: Tenant) -> None:
    """The field belongs to manifests; a body with it is refused as with any unknown one."""
    async with api(tenant) as web:
        body = {"name": "a", "schedule": {"every": "5m"}, "environments": {"staging": {}}}
        refused = await web.call("POST", "/projects/default/tasks", "tasks:write", json=body)

    assert refused.status_code == 400
    assert refused.json()["pointer"] == "/environments"
