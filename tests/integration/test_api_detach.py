"""Detaching: a task leaves its manifest's hands, by an administrator, audited, and runs on as it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cron_observer.store import sync
from support.api import api
from support.databases import Tenant, make_tenant
from support.repositories import Repository, following, manifest

PATH = "/projects/default/tasks/export"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with one task."""
    made = Repository.make(tmp_path)
    made.push({"export.yaml": manifest("export", labels="team: billing")})
    return made


async def test_a_detached_task_is_the_api_s(tenant: Tenant, repository: Repository, tmp_path: Path) -> None:
    """Owner, writes and the audit log change; uid, spec, generation's history and planned slots stay."""
    async with following(tenant, repository.bare, tmp_path / "data") as it, api(tenant) as server:
        await it.sync()
        before, planned = (await server.call("GET", PATH)).json(), it.plan("export")
        refused = await server.call("PATCH", PATH, "tasks:write", json={"timeout": "5m"})
        told = await server.call("POST", f"{PATH}/detach", "admin", json={"reason": "we lost the repository"})
        after = told.json()
        assert told.status_code == 200, told.text
        assert it.plan("export")["planned_until"] == planned["planned_until"]
        changed = await server.call("PATCH", PATH, "tasks:write", json={"timeout": "5m"})
    assert refused.status_code == 409
    assert (before["owner"]["kind"], after["owner"]["kind"]) == ("manifest", "api")
    assert {name: after[name] for name in ("uid", "spec", "labels", "status", "next_fire_at")} == {
        name: before[name] for name in ("uid", "spec", "labels", "status", "next_fire_at")
    }
    assert after["owner"].get("source") is None
    assert (changed.status_code, changed.json()["spec"]["timeout"]) == (200, "5m")
    (entry,) = tenant.database.rows("SELECT * FROM audit_log WHERE action = 'task.detach'")
    assert entry["actor"].startswith("key:")
    assert entry["data"]["reason"] == "we lost the repository"


async def test_the_next_pass_says_so_and_takes_nothing_back(
    tenant: Tenant, repository: Repository, tmp_path: Path
) -> None:
    """The manifest that still declares it is a finding; removing it from Git removes nothing."""
    async with following(tenant, repository.bare, tmp_path / "data") as it, api(tenant) as server:
        await it.sync()
        await server.call("POST", f"{PATH}/detach", "admin", json={"reason": "x"})
        await it.reconciler.tick()
        assert [one["code"] for one in it.findings()] == ["CO1501"]
        assert it.task("export")["owner"] == "api"
        repository.push({"export.yaml": None})
        await it.sync()
        assert it.findings() == []
        assert it.names() == ["export"]


async def test_a_pass_that_is_just_applying_does_not_hide_it(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detached between a plan and its writing, the task is told of by the pass after it, and counted no more."""
    save, folder = sync.save_files, tmp_path / "folder"
    folder.mkdir()
    (folder / "export.yaml").write_text(manifest("export"))
    async with following(tenant, folder, tmp_path / "data") as it, api(tenant) as server:
        await it.sync()

        async def late(*arguments: Any) -> None:
            monkeypatch.setattr(sync, "save_files", save)
            answer = await server.call("POST", f"{PATH}/detach", "admin", json={"reason": "x"})
            assert answer.status_code == 200
            await save(*arguments)

        monkeypatch.setattr(sync, "save_files", late)
        (folder / "export.yaml").write_text(manifest("export") + "# the task stays as it is\n")
        assert await it.poll() == {"main": "overtaken"}
        assert "detached" in it.runs()[0]["error"]
        await it.reconciler.tick()
        assert [one["code"] for one in it.findings()] == ["CO1501"]
        assert it.source()["counts"]["tasks"] == 0


async def test_detaching_again_changes_nothing(tenant: Tenant, repository: Repository, tmp_path: Path) -> None:
    """A task that the API owns answers 200 and is not audited; many at once are one."""
    async with following(tenant, repository.bare, tmp_path / "data") as it, api(tenant) as server:
        await it.sync()
        calls = [server.call("POST", f"{PATH}/detach", "admin", json={"reason": str(n)}) for n in range(4)]
        answers = await asyncio.gather(*calls)
        again = await server.call("POST", f"{PATH}/detach", "admin", json={"reason": "late"})
    assert {one.status_code for one in (*answers, again)} == {200}
    assert tenant.database.value("SELECT count(*) FROM audit_log WHERE action = 'task.detach'") == 1


async def test_what_cannot_be_is_refused(tenant: Tenant, repository: Repository, tmp_path: Path) -> None:
    """No reason, unknown and removed tasks, strangers, and whoever is no administrator: nothing is changed."""
    stranger = make_tenant(tenant.database, "other")
    async with following(tenant, repository.bare, tmp_path / "data") as it, api(tenant) as server:
        await it.sync()
        bodies: list[Any] = [{}, {"reason": ""}, {"reason": "x", "force": True}]
        wrong = [await server.call("POST", f"{PATH}/detach", "admin", json=body) for body in bodies]
        scopes = ("read", "report", "trigger", "tasks:write")
        refused = await server.call("POST", f"{PATH}/detach", *scopes, json={"reason": "x"})
        foreign = await server.call("POST", f"{PATH}/detach", "admin", tenant=stranger, json={"reason": "x"})
        unknown = await server.call("POST", "/projects/default/tasks/no/detach", "admin", json={"reason": "x"})
        assert it.task("export")["owner"] == "manifest"
        tenant.database.do("UPDATE tasks SET removed_at = now()")
        removed = await server.call("POST", f"{PATH}/detach", "admin", json={"reason": "x"})
    assert {one.status_code for one in wrong} == {400}
    assert [one.status_code for one in (refused, foreign, unknown, removed)] == [403, 404, 404, 404]
    assert tenant.database.value("SELECT count(*) FROM audit_log") == 0
