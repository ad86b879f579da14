"""Task groups: from a push to the plans of their tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.databases import Tenant
from support.repositories import Following, Repository, following, manifest

WINDOWS = '  windows: [{days: [mon-fri], from: "20:00", to: "06:00"}]\n  timezone: Europe/Berlin\n'


def group(name: str, spec: str = WINDOWS) -> str:
    """Write the manifest of a task group; `spec` is its block, as YAML."""
    return f"apiVersion: cron-observer/v1\nkind: TaskGroup\nmetadata:\n  name: {name}\nspec:\n{spec}"


def row(it: Following, name: str) -> dict[str, Any]:
    """Return the row of a group."""
    (found,) = it.database.rows("SELECT * FROM task_groups WHERE name = %s", name)
    return found


def codes(it: Following) -> list[tuple[str, str]]:
    """Return path and code of the findings."""
    return [(one["path"], one["code"]) for one in it.findings()]


async def test_a_group_reaches_the_plan_of_its_tasks(tenant: Tenant, tmp_path: Path) -> None:
    """The windows of a group, with zone and uid, stand in the plans of its tasks and of no others."""
    repository = Repository.make(tmp_path)
    commit = repository.push(
        {"groups.yaml": group("night"), "a.yaml": manifest("alpha", group="night"), "b.yaml": manifest("beta")}, "Add"
    )
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        assert it.findings() == []
        made = row(it, "night")
        assert (made["path"], made["line"], made["commit"], made["version"]) == ("groups.yaml", 4, commit, 1)
        planned = it.plan("alpha")["schedule"]["group"]
        assert (planned["name"], planned["uid"], planned["timezone"]) == (
            "night",
            str(made["group_uid"]),
            "Europe/Berlin",
        )
        assert "group" not in it.plan("beta")["schedule"]
        assert it.source()["counts"]["groups"] == 1
        assert it.runs()[0]["counts"]["groups_created"] == 1


async def test_what_does_not_matter_to_slots_touches_no_plan(tenant: Tenant, tmp_path: Path) -> None:
    """A change of maxParallel or onWindowClose is a new version and no plan; one of windows, zone or suspend is."""
    repository = Repository.make(tmp_path)
    repository.push({"groups.yaml": group("night"), "a.yaml": manifest("alpha", group="night")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid, plan = row(it, "night")["group_uid"], it.plan("alpha")
        repository.push({"groups.yaml": group("night", WINDOWS + "  maxParallel: 2\n  onWindowClose: cancel\n")})
        await it.sync()
        assert (row(it, "night")["version"], row(it, "night")["spec"]["maxParallel"]) == (2, 2)
        assert it.plan("alpha") == plan
        repository.push({"groups.yaml": group("night", WINDOWS.replace("Berlin", "Madrid"))})
        await it.sync()
        assert it.plan("alpha")["schedule"]["group"]["timezone"] == "Europe/Madrid"
        assert it.plan("alpha")["generation"] == plan["generation"] + 1
        assert (row(it, "night")["group_uid"], it.task("alpha")["generation"]) == (uid, 1)


async def test_a_suspended_group_suspends_its_tasks(tenant: Tenant, tmp_path: Path) -> None:
    """Its tasks keep their history and get no slots; when it goes on, they have those of before again."""
    repository = Repository.make(tmp_path)
    repository.push(
        {"groups.yaml": group("all-day", "  maxParallel: 3\n"), "a.yaml": manifest("a", "* * * * *", group="all-day")}
    )
    waiting = "SELECT count(*) FROM executions WHERE status = 'PENDING' AND fire_at > now() + interval '30 s'"
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert tenant.database.value(waiting) > 50
        assert "group" not in it.plan("a")["schedule"], "a group without windows is no matter of slots"
        repository.push({"groups.yaml": group("all-day", "  suspend: true\n")})
        await it.sync()
        assert (it.plan("a")["active"], tenant.database.value(waiting)) == (False, 0)
        assert it.task("a")["sync"] == "SYNCED"
        repository.push({"groups.yaml": group("all-day", "  suspend: false\n")})
        await it.sync()
        assert (it.plan("a")["active"], tenant.database.value(waiting) > 50) == (True, True)


async def test_a_group_in_use_stays(tenant: Tenant, tmp_path: Path) -> None:
    """While a task is in it a group stays in force as it was, and a finding at its last place says who is."""
    repository = Repository.make(tmp_path)
    repository.push({"groups.yaml": group("night"), "a.yaml": manifest("alpha", group="night")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        plan, made = it.plan("alpha"), row(it, "night")
        repository.push({"groups.yaml": None}, "Remove the group")
        await it.sync()
        assert codes(it) == [("groups.yaml", "CO1506")]
        assert (it.task("alpha")["sync"], it.plan("alpha")) == ("SYNCED", plan)
        assert (row(it, "night")["sync"], row(it, "night")["removed_at"]) == ("HELD", None)
        (found,) = it.findings()
        assert (found["line"], found["kind"], found["severity"]) == (4, "TaskGroup", "error")
        assert 'the task "alpha" (a.yaml:4 of the source "main")' in found["message"]
        repository.git("revert", "--no-edit", "HEAD")
        repository.push(None)
        await it.sync()
        assert (row(it, "night")["group_uid"], row(it, "night")["sync"]) == (made["group_uid"], "SYNCED")
        assert (it.plan("alpha"), it.findings()) == (plan, [])


async def test_a_group_goes_with_its_tasks(tenant: Tenant, tmp_path: Path) -> None:
    """Removing a group and everything in it in one push is no trouble, and a revert brings all of it back."""
    repository = Repository.make(tmp_path)
    files = {"groups.yaml": group("night"), "a.yaml": manifest("alpha", group="night")}
    repository.push({**files, "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uids = row(it, "night")["group_uid"], it.task("alpha")["task_uid"]
        repository.push({"groups.yaml": None, "a.yaml": None})
        await it.sync()
        assert (it.names(), row(it, "night")["removed_at"] is None, it.findings()) == (["beta"], False, [])
        repository.push(files)
        await it.sync()
        assert (row(it, "night")["group_uid"], it.task("alpha")["task_uid"]) == uids
        assert (it.names(), row(it, "night")["removed_at"], it.findings()) == (["alpha", "beta"], None, [])


async def test_a_broken_file_holds_groups_and_calendars(tenant: Tenant, tmp_path: Path) -> None:
    """While a file cannot be parsed no group is removed, as no task is: it may declare them."""
    repository = Repository.make(tmp_path)
    repository.push({"groups.yaml": group("night"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"groups.yaml": None, "b.yaml": "kind: [\n"})
        await it.sync()
        assert (row(it, "night")["sync"], row(it, "night")["removed_at"]) == ("HELD", None)
        assert it.source()["counts"]["held"] == 1
        repository.push({"b.yaml": manifest("beta")})
        await it.sync()
        assert row(it, "night")["removed_at"] is not None


async def test_sources_share_groups_but_not_their_names(tenant: Tenant, tmp_path: Path) -> None:
    """A task may use another source's group, which stays until it is used no more, and can be taken up then."""
    from cron_observer.reconcile import Reconciler
    from cron_observer.settings import Settings, SourceSettings

    folders = {name: tmp_path / name for name in ("one", "two")}
    for folder in folders.values():
        folder.mkdir()
    (folders["one"] / "a.yaml").write_text(manifest("alpha", group="night"))
    db = tenant.database
    sources = tuple(SourceSettings(name=name, url=str(folder), poll_seconds=3600) for name, folder in folders.items())
    reconciler = Reconciler(db.reconciler, Settings(data_dir=tmp_path, sources=sources), patience=60, listen=False)

    async def settle() -> None:
        db.do("UPDATE sources SET next_poll_at = now() - interval '1 second' WHERE name = 'two'")
        for _ in range(3):
            await reconciler.tick()

    def found() -> list[Any]:
        return [row["code"] for row in db.rows("SELECT code FROM sync_findings ORDER BY code")]

    try:
        (folders["two"] / "z.yaml").write_text(manifest("zeta"))
        await reconciler.tick()
        assert db.value("SELECT count(*) FROM tasks WHERE name = 'alpha'") == 0
        (folders["two"] / "g.yaml").write_text(group("night"))
        await settle()
        assert found() == []
        assert db.value("SELECT sync FROM tasks WHERE name = 'alpha'") == "SYNCED"
        (folders["two"] / "g.yaml").unlink()
        await settle()
        assert (found(), db.value("SELECT sync FROM task_groups")) == (["CO1506"], "HELD")
        (folders["one"] / "g.yaml").write_text(group("night", "  maxParallel: 1\n"))
        db.do("UPDATE sources SET next_poll_at = now() - interval '1 second'")
        await reconciler.tick()
        assert found() == ["CO1502", "CO1506"]
        assert db.value("SELECT spec -> 'maxParallel' FROM task_groups") is None
        (folders["one"] / "a.yaml").write_text(manifest("alpha"))
        for _ in range(4):
            db.do("UPDATE sources SET next_poll_at = now() - interval '1 second'")
            await reconciler.tick()
        assert found() == []
        assert db.value("SELECT spec -> 'maxParallel' FROM task_groups") == 1
    finally:
        await reconciler.close()
