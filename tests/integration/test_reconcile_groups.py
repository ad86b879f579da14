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


async def test_a_group_that_goes_away_leaves_its_tasks_as_they_were(tenant: Tenant, tmp_path: Path) -> None:
    """Its tasks keep the windows that they had, and their files say what is missing; a revert mends it."""
    repository = Repository.make(tmp_path)
    repository.push({"groups.yaml": group("night"), "a.yaml": manifest("alpha", group="night")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        plan, made = it.plan("alpha"), row(it, "night")
        repository.push({"groups.yaml": None}, "Remove the group")
        await it.sync()
        assert codes(it) == [("a.yaml", "CO1413")]
        assert (it.task("alpha")["sync"], it.plan("alpha")) == ("KEPT_LAST_GOOD", plan)
        (found,) = it.findings()
        assert (found["line"], found["pointer"]) == (6, "/spec/group")
        repository.git("revert", "--no-edit", "HEAD")
        repository.push(None)
        await it.sync()
        assert (row(it, "night")["group_uid"], row(it, "night")["removed_at"]) == (made["group_uid"], None)
        assert (it.task("alpha")["sync"], it.plan("alpha"), it.findings()) == ("SYNCED", plan, [])


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
    """A task may use another source's group; its source looks again when the group comes and goes."""
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
        await reconciler.tick()
        await reconciler.tick()

    try:
        await reconciler.tick()
        assert db.value("SELECT count(*) FROM tasks") == 0
        (folders["two"] / "g.yaml").write_text(group("night"))
        await settle()
        assert db.rows("SELECT code FROM sync_findings") == []
        assert db.value("SELECT sync FROM tasks") == "SYNCED"
        (folders["two"] / "g.yaml").unlink()
        await settle()
        assert db.value("SELECT sync FROM tasks") == "KEPT_LAST_GOOD"
        assert [row["code"] for row in db.rows("SELECT code FROM sync_findings")] == ["CO1413"]
        (folders["two"] / "g.yaml").write_text(group("night"))
        await settle()
        assert (db.value("SELECT sync FROM tasks"), db.rows("SELECT 1 FROM sync_findings")) == ("SYNCED", [])
        (folders["one"] / "g.yaml").write_text(group("night", "  maxParallel: 1\n"))
        db.do("UPDATE sources SET next_poll_at = now() - interval '1 second'")
        await reconciler.tick()
        assert [row["code"] for row in db.rows("SELECT code FROM sync_findings")] == ["CO1502"]
        assert db.value("SELECT spec -> 'maxParallel' FROM task_groups") is None
        db.do("UPDATE sources SET next_poll_at = now() - interval '1 second'")
        assert await reconciler.tick() == {"one": "unchanged", "two": "unchanged"}
        (folders["two"] / "g.yaml").unlink()
        for _ in range(3):
            db.do("UPDATE sources SET next_poll_at = now() - interval '1 second'")
            await reconciler.tick()
        assert db.rows("SELECT code FROM sync_findings") == []
        assert db.value("SELECT spec -> 'maxParallel' FROM task_groups") == 1
    finally:
        await reconciler.close()
