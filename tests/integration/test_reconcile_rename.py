"""Renames: a task with another name is the same task, when its manifest says what it was called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.databases import Tenant
from support.repositories import Following, Repository, following, manifest


def renamed(name: str, old: str, cron: str = "0 4 * * *", **spec: str) -> str:
    """Write the manifest of a task that was called `old`."""
    return manifest(name, cron, **spec).replace(f"  name: {name}\n", f"  name: {name}\n  renamedFrom: {old}\n")


def codes(it: Following) -> list[tuple[str, str, int | None]]:
    """Return path, code and line of the findings."""
    return [(one["path"], one["code"], one["line"]) for one in it.findings()]


def slots(it: Following) -> list[dict[str, Any]]:
    """Return the slots of all tasks."""
    return it.database.rows("SELECT * FROM executions ORDER BY id")


async def test_a_renamed_task_is_the_same_task(tenant: Tenant, tmp_path: Path) -> None:
    """Uid, seed, generation, plan and every slot stay as they were, jitter and H with them; the name changes."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha", "H/5 * * * *") + "    jitter: 1m\n"})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        before, plan, planned = it.task("alpha"), it.plan("alpha"), slots(it)
        assert len(planned) > 5
        text = renamed("beta", "alpha", "H/5 * * * *") + "    jitter: 1m\n"
        commit = repository.push({"a.yaml": None, "b.yaml": text}, "Rename")
        assert await it.sync() == "applied"
        assert it.names("true") == ["beta"]
        after = it.task("beta")
        changed = {name for name in after if after[name] != before[name]}
        # Two commits of the same second have the same date.
        assert changed - {"committed_at"} == {"name", "live_name", "path", "commit", "subject", "updated_at"}
        assert (after["seed"], after["generation"], after["commit"]) == ("default/alpha", 1, commit)
        assert (it.plan("beta"), slots(it)) == (plan, planned)
        assert it.runs()[0]["counts"] == {"renamed": 1, "files": 2, "errors": 0, "warnings": 0}
        (entry,) = tenant.database.rows("SELECT * FROM audit_log")
        assert (entry["action"], entry["target"], entry["data"]["from"]) == (
            "task.rename",
            "task:default/beta",
            "alpha",
        )
        assert it.findings() == []


async def test_a_rename_may_change_the_task_too(tenant: Tenant, tmp_path: Path) -> None:
    """Another spec under another name is one new generation, and its revision says rename."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
        repository.push({"a.yaml": renamed("beta", "alpha", "0 5 * * *")})
        await it.sync()
        assert (it.task("beta")["task_uid"], it.task("beta")["generation"]) == (uid, 2)
        revisions = tenant.database.rows("SELECT action FROM task_revisions ORDER BY generation")
        assert [one["action"] for one in revisions] == ["create", "rename"]
        assert it.plan("beta")["schedule"]["cron"] == ["0 5 * * *"]


async def test_renamed_from_stays_in_the_manifest(tenant: Tenant, tmp_path: Path) -> None:
    """Once the task is there the line is history: it changes nothing, whatever is done to the task or the old name."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
        repository.push({"a.yaml": renamed("beta", "alpha")})
        await it.sync()
        repository.push({"a.yaml": renamed("beta", "alpha", "0 6 * * *"), "new.yaml": manifest("alpha")})
        await it.sync()
        assert (it.findings(), it.names()) == ([], ["alpha", "beta"])
        repository.push({"a.yaml": renamed("beta", "alpha", "0 7 * * *"), "new.yaml": None})
        await it.sync()
        assert (it.findings(), it.names(), it.names("removed_at IS NOT NULL")) == ([], ["beta"], ["alpha"])
        assert (it.task("beta")["task_uid"], it.task("beta")["generation"]) == (uid, 3)


async def test_a_rename_may_be_taken_back(tenant: Tenant, tmp_path: Path) -> None:
    """With renamedFrom in the other direction the task gets its old name back, and all that it had."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha", "* * * * *")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        before, plan, planned = it.task("alpha"), it.plan("alpha"), slots(it)
        repository.push({"a.yaml": renamed("beta", "alpha", "* * * * *")})
        await it.sync()
        repository.push({"a.yaml": renamed("alpha", "beta", "* * * * *")})
        await it.sync()
        after = it.task("alpha")
        assert (after["task_uid"], after["seed"], after["generation"]) == (before["task_uid"], before["seed"], 1)
        assert (it.names("true"), it.plan("alpha"), slots(it)) == (["alpha"], plan, planned)


async def test_a_plain_revert_is_another_task(tenant: Tenant, tmp_path: Path) -> None:
    """Without renamedFrom the old name is a name like any other: a new task, and the renamed one is removed."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
        repository.push({"a.yaml": renamed("beta", "alpha")}, "Rename")
        await it.sync()
        repository.git("revert", "--no-edit", "HEAD")
        repository.push(None)
        await it.sync()
        assert it.task("beta")["removed_at"] is not None
        assert (it.task("beta")["task_uid"], it.task("alpha")["task_uid"] != uid) == (uid, True)
        repository.git("revert", "--no-edit", "HEAD~1")
        repository.push(None)
        await it.sync()
        assert (it.names(), it.task("beta")["task_uid"], it.findings()) == (["beta"], uid, [])


async def test_an_old_name_that_is_still_declared_is_not_taken(tenant: Tenant, tmp_path: Path) -> None:
    """The new document waits, with a finding at renamedFrom, until the old one is gone."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
        repository.push({"b.yaml": renamed("beta", "alpha")})
        await it.sync()
        assert codes(it) == [("b.yaml", "CO1209", 5)]
        assert it.names() == ["alpha"]
        repository.push({"a.yaml": None})
        await it.sync()
        assert (codes(it), it.names("true"), it.task("beta")["task_uid"]) == ([], ["beta"], uid)


async def test_a_name_that_is_taken_is_not_overwritten(tenant: Tenant, tmp_path: Path) -> None:
    """When both tasks are there neither is changed or removed: which history is meant is for people to say."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uids = {name: it.task(name)["task_uid"] for name in ("alpha", "beta")}
        repository.push({"a.yaml": None, "b.yaml": renamed("beta", "alpha", "0 5 * * *")})
        await it.sync()
        assert codes(it) == [("b.yaml", "CO1504", 5)]
        assert {name: it.task(name)["task_uid"] for name in it.names()} == uids
        assert [it.task(name)["sync"] for name in uids] == ["KEPT_LAST_GOOD", "KEPT_LAST_GOOD"]
        assert it.task("beta")["spec"]["schedule"]["cron"] == "0 4 * * *"
        repository.push({"b.yaml": manifest("beta", "0 5 * * *")})
        await it.sync()
        assert (codes(it), it.names()) == ([], ["beta"])


async def test_two_heirs_get_nothing(tenant: Tenant, tmp_path: Path) -> None:
    """Two documents that claim one task are both refused, and it goes on under its old name."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"a.yaml": None, "b.yaml": renamed("beta", "alpha"), "c.yaml": renamed("gamma", "alpha")})
        await it.sync()
        assert codes(it) == [("b.yaml", "CO1210", 5), ("c.yaml", "CO1210", 5)]
        assert it.names("true") == ["alpha"]
        repository.push({"c.yaml": manifest("gamma")})
        await it.sync()
        assert (codes(it), it.names("true")) == ([], ["beta", "gamma"])


async def test_pushes_that_were_not_seen_do_not_matter(tenant: Tenant, tmp_path: Path) -> None:
    """Removing the old name in one push and adding the new one in another is a rename as well."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha", "* * * * *"), "z.yaml": manifest("zeta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
        repository.push({"a.yaml": None})
        await it.sync()
        repository.push({"b.yaml": renamed("beta", "alpha", "* * * * *")})
        await it.sync()
        after = it.task("beta")
        assert (after["task_uid"], after["generation"], after["removed_at"]) == (uid, 2, None)
        assert (it.plan("beta")["active"], it.names("true")) == (True, ["beta", "zeta"])


async def test_a_new_name_that_is_broken_keeps_the_old_task(tenant: Tenant, tmp_path: Path) -> None:
    """A successor that refers to what is not there is not applied; the task runs on as it was."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
        repository.push({"a.yaml": None, "b.yaml": renamed("beta", "alpha", group="nowhere")})
        await it.sync()
        assert (codes(it), it.names("true")) == ([("b.yaml", "CO1413", 7)], ["alpha"])
        assert (it.task("alpha")["sync"], it.plan("alpha")["active"]) == ("KEPT_LAST_GOOD", True)
        repository.push({"b.yaml": renamed("beta", "alpha")})
        await it.sync()
        assert (codes(it), it.names("true"), it.task("beta")["task_uid"]) == ([], ["beta"], uid)
