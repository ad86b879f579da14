"""What changes hands or names: between sources, between the API and Git, and from a removed task to a new one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from cron_observer.manifest import effective
from cron_observer.reconcile import Reconciler
from cron_observer.settings import Settings, SourceSettings
from cron_observer.store import plans, tasks
from cron_observer.store.engine import clock
from support.databases import Tenant
from support.repositories import Repository, following, manifest


class Pair:
    """Two folders that are sources of one project, and the reconciler that follows them."""

    def __init__(self, tenant: Tenant, folder: Path) -> None:
        """Each source has a task of its own that stays, so that no tree is ever empty."""
        self.database = tenant.database
        self.folders = {name: folder / name for name in ("one", "two")}
        for name, place in self.folders.items():
            place.mkdir()
            (place / "stays.yaml").write_text(manifest(f"of-{name}"))
        several = tuple(
            SourceSettings(name=name, url=str(place), poll_seconds=3600) for name, place in self.folders.items()
        )
        settings = Settings(data_dir=folder, sources=several)
        self.reconciler = Reconciler(tenant.database.reconciler, settings, patience=60, listen=False)

    async def look(self, *names: str) -> None:
        """Let these sources be looked at, one after the other, and then whoever was asked by that."""
        for name in names or ("one", "two"):
            self.database.do("UPDATE sources SET requested_seq = requested_seq + 1 WHERE name = %s", name)
            self.database.do("UPDATE sources SET next_poll_at = now() + interval '1 hour'")
            await self.reconciler.tick()
        for _ in range(3):
            await self.reconciler.tick()

    def write(self, source: str, path: str, text: str | None) -> None:
        """Write a file of a source, or remove it."""
        file = self.folders[source] / path
        file.unlink() if text is None else file.write_text(text)

    def task(self, name: str = "alpha") -> dict[str, Any]:
        """Return the row of a task with the name of its source."""
        query = "SELECT t.*, s.name AS source FROM tasks t LEFT JOIN sources s USING (source_id) WHERE t.name = %s"
        (row,) = self.database.rows(query, name)
        return row

    def findings(self) -> list[tuple[str, str, str]]:
        """Return source, path and code of every finding."""
        query = "SELECT s.name, f.path, f.code FROM sync_findings f JOIN sources s USING (source_id) ORDER BY 1, 2, 3"
        return [(row["name"], row["path"], row["code"]) for row in self.database.rows(query)]

    def slots(self) -> list[dict[str, Any]]:
        """Return the slots of `alpha` that lie far enough ahead."""
        query = (
            "SELECT e.id, e.fire_at, e.plan_generation FROM executions e JOIN tasks t USING (task_uid) "
            "WHERE t.name = 'alpha' AND e.status = 'PENDING' AND e.fire_at > now() + interval '3 minutes' ORDER BY e.id"
        )
        return self.database.rows(query)

    def held(self, source: str) -> dict[str, str]:
        """Return what a source holds, and why."""
        held = self.database.value("SELECT held FROM sources WHERE name = %s", source)
        return {one["name"]: one["reason"] for one in held or ()}


@asynccontextmanager
async def pair(tenant: Tenant, folder: Path) -> AsyncIterator[Pair]:
    """Follow two sources."""
    made = Pair(tenant, folder)
    try:
        yield made
    finally:
        await made.reconciler.close()


def transferred(name: str, source: str, cron: str = "* * * * *", **spec: str) -> str:
    """Write the manifest of a task that another source gives away."""
    return manifest(name, cron, **spec).replace(f"  name: {name}\n", f"  name: {name}\n  transferFrom: {source}\n")


def annotated(name: str, annotation: str, cron: str = "* * * * *") -> str:
    """Write the manifest of a task with an annotation that is ``"true"``."""
    extra = f'  annotations: {{cron-observer/{annotation}: "true"}}\n'
    return manifest(name, cron).replace(f"  name: {name}\n", f"  name: {name}\n{extra}")


def audited(it: Any, action: str) -> list[tuple[str, str, Any]]:
    """Return actor, target and former owner or name of the audit entries of an action."""
    rows = it.database.rows("SELECT * FROM audit_log WHERE action = %s ORDER BY at", action)
    return [(row["actor"], row["target"], row["data"]["from"]) for row in rows]


async def test_a_task_is_handed_over_without_a_gap(tenant: Tenant, tmp_path: Path) -> None:
    """First the new source waits for the name; when the old one lets go, the task is taken over with every slot."""
    async with pair(tenant, tmp_path) as it:
        it.write("one", "a.yaml", manifest("alpha", "* * * * *"))
        await it.look()
        before, slots = it.task(), it.slots()
        assert len(slots) > 50
        it.write("two", "b.yaml", transferred("alpha", "one"))
        await it.look()
        assert it.findings() == [("two", "b.yaml", "CO1505")]
        assert it.task() == before
        it.write("one", "a.yaml", None)
        await it.look("one")
        after = it.task()
        assert (after["source"], after["path"], after["sync"], after["removed_at"]) == ("two", "b.yaml", "SYNCED", None)
        assert (after["task_uid"], after["seed"], after["generation"]) == (before["task_uid"], before["seed"], 2)
        assert {one["id"] for one in it.slots()} >= {one["id"] for one in slots[2:]}
        assert {one["plan_generation"] for one in it.slots()} == {1}, "nothing was planned anew"
        assert it.findings() == []
        assert it.held("one") == {}
        assert audited(it, "task.transfer") == [("source:two", "task:default/alpha", "source:one")]
        actions = it.database.rows("SELECT action FROM task_revisions WHERE task_uid = %s", before["task_uid"])
        assert {row["action"] for row in actions} == {"create", "transfer"}
        await it.look()
        assert it.task() == after, "neither source touches it again"


async def test_what_nobody_waits_for_any_more_goes(tenant: Tenant, tmp_path: Path) -> None:
    """A removal that is held for a source whose document cannot take it goes on when that source gives up."""
    async with pair(tenant, tmp_path) as it:
        it.write("one", "a.yaml", manifest("alpha"))
        await it.look()
        it.write("two", "b.yaml", transferred("alpha", "one"))
        await it.look("two")
        it.database.do("UPDATE sources SET suspended_at = now(), suspended_by = 'key:ada' WHERE name = 'two'")
        it.write("one", "a.yaml", None)
        await it.look("one")
        assert it.held("one") == {"alpha": "handed_over"}
        it.write("two", "b.yaml", None)
        it.database.do("UPDATE sources SET suspended_at = NULL, suspended_by = NULL WHERE name = 'two'")
        await it.look("two")
        assert it.held("one") == {}
        assert it.task()["removed_at"] is not None
        assert it.findings() == []


async def test_a_task_that_went_first_is_restored(tenant: Tenant, tmp_path: Path) -> None:
    """In the other order the task is the same as well, and every slot that is still to come is there again."""
    async with pair(tenant, tmp_path) as it:
        it.write("one", "a.yaml", manifest("alpha", "* * * * *"))
        await it.look()
        before, slots = it.task(), it.slots()
        it.write("one", "a.yaml", None)
        await it.look("one")
        assert (it.task()["removed_at"] is None, it.slots()) == (False, [])
        it.write("two", "b.yaml", transferred("alpha", "one"))
        await it.look("two")
        after = it.task()
        assert (after["source"], after["task_uid"], after["removed_at"]) == ("two", before["task_uid"], None)
        assert {one["fire_at"] for one in it.slots()} >= {one["fire_at"] for one in slots[2:]}
        assert it.findings() == []


async def test_who_is_not_meant_gets_nothing(tenant: Tenant, tmp_path: Path) -> None:
    """A source that names another one, or none, waits as for any name, and nothing is held for it."""
    async with pair(tenant, tmp_path) as it:
        it.write("one", "a.yaml", manifest("alpha"))
        await it.look("one")
        it.write("two", "b.yaml", transferred("alpha", "three"))
        await it.look("two")
        assert it.findings() == [("two", "b.yaml", "CO1502")]
        it.write("one", "a.yaml", None)
        await it.look("one")
        assert it.held("one") == {}
        assert it.task()["removed_at"] is not None


async def test_groups_and_calendars_are_handed_over(tenant: Tenant, tmp_path: Path) -> None:
    """With the tasks that use them: uid and version go on, and the tasks keep their plans."""
    head = "apiVersion: cron-observer/v1\nkind: {}\nmetadata:\n  name: {}\n{}spec:\n{}"
    group = ("TaskGroup", "night", '  windows: [{from: "20:00", to: "06:00"}]\n')
    off = ("Calendar", "off", "  entries: [{weekdays: [sat]}]\n")

    def shared(given: str) -> str:
        return "---\n".join(head.format(kind, name, given, spec) for kind, name, spec in (group, off))

    async with pair(tenant, tmp_path) as it:
        it.write("one", "shared.yaml", shared(""))
        user = manifest("alpha", group="night").replace("    cron:", "    calendars: {exclude: [off]}\n    cron:")
        it.write("one", "a.yaml", user)
        await it.look()
        plan = it.database.rows("SELECT * FROM task_plan ORDER BY task_uid")
        uids = it.database.rows("SELECT group_uid AS uid FROM task_groups UNION SELECT calendar_uid FROM calendars")
        it.write("two", "shared.yaml", shared("  transferFrom: one\n"))
        await it.look()
        assert [code for _, _, code in it.findings()] == ["CO1505", "CO1505"]
        it.write("one", "shared.yaml", None)
        await it.look("one")
        assert it.findings() == []
        query = (
            "SELECT g.group_uid AS uid, s.name FROM task_groups g JOIN sources s USING (source_id) "
            "UNION SELECT c.calendar_uid, s.name FROM calendars c JOIN sources s USING (source_id)"
        )
        rows = it.database.rows(query)
        assert {row["name"] for row in rows} == {"two"}
        assert {row["uid"] for row in rows} == {row["uid"] for row in uids}
        assert it.database.rows("SELECT * FROM task_plan ORDER BY task_uid") == plan
        assert audited(it, "group.transfer") == [("source:two", "group:default/night", "source:one")]


async def test_a_task_of_the_api_is_adopted(tenant: Tenant, tmp_path: Path) -> None:
    """With the annotation a manifest takes it over: the same task with its slots, which the API may change no more."""
    repository = Repository.make(tmp_path)
    repository.push({"z.yaml": manifest("zeta")})

    async def create(conn: Any) -> Any:
        spec = effective({"schedule": {"cron": "* * * * *"}})
        return await tasks.create_owned(
            conn, tenant.tenant_id, tenant.project_id, "alpha", spec, {}, "key", await clock(conn)
        )

    made = await plans.in_transaction_with_margin(tenant.database.api, [tenant.tenant_id], create)
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        plan = it.plan("alpha")
        repository.push({"a.yaml": manifest("alpha", "* * * * *")})
        await it.sync()
        assert ([one["code"] for one in it.findings()], it.task("alpha")["owner"]) == (["CO1501"], "api")
        commit = repository.push({"a.yaml": annotated("alpha", "adopt")})
        await it.sync()
        after = it.task("alpha")
        assert (after["task_uid"], after["owner"], after["path"], after["commit"], after["generation"]) == (
            made.task_uid,
            "manifest",
            "a.yaml",
            commit,
            2,
        )
        assert (it.findings(), it.plan("alpha")) == ([], plan | {"owner": "manifest"})
        assert audited(it, "task.adopt") == [("source:main", "task:default/alpha", "api")]
        assert it.runs()[0]["counts"]["adopted"] == 1
        repository.push({"a.yaml": manifest("alpha", "* * * * *")})
        await it.sync()
        assert (it.task("alpha")["owner"], it.findings()) == ("manifest", [])


async def test_names_are_exchanged(tenant: Tenant, tmp_path: Path) -> None:
    """Two tasks that take each other's names keep uid, seed and slots, in one push."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha", "H 1 * * *"), "b.yaml": manifest("beta", "H 2 * * *")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        before = {name: (it.task(name)["task_uid"], it.task(name)["seed"], it.plan(name)) for name in ("alpha", "beta")}

        def called(name: str, old: str, cron: str) -> str:
            return manifest(name, cron).replace(f"  name: {name}\n", f"  name: {name}\n  renamedFrom: {old}\n")

        repository.push(
            {"a.yaml": called("beta", "alpha", "H 1 * * *"), "b.yaml": called("alpha", "beta", "H 2 * * *")}
        )
        await it.sync()
        after = {name: (it.task(name)["task_uid"], it.task(name)["seed"], it.plan(name)) for name in ("alpha", "beta")}
        assert (after["alpha"], after["beta"]) == (before["beta"], before["alpha"])
        assert (it.findings(), it.runs()[0]["counts"]["renamed"]) == ([], 2)
        assert len(audited(it, "task.rename")) == 2


async def test_a_task_that_comes_back_is_the_same_or_another(tenant: Tenant, tmp_path: Path) -> None:
    """A revert restores uid and history; the annotation asks for a new task, whose name the old one gives up."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "z.yaml": manifest("zeta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
        for text, same in ((manifest("alpha"), True), (annotated("alpha", "new-identity"), False)):
            repository.push({"a.yaml": None})
            await it.sync()
            assert it.names() == ["zeta"]
            repository.push({"a.yaml": text})
            await it.sync()
            assert (it.names(), it.findings()) == (["alpha", "zeta"], [])
            living = it.database.rows("SELECT * FROM tasks WHERE name = 'alpha' AND deleted_at IS NULL")
            assert [(row["task_uid"] == uid, row["removed_at"]) for row in living] == [(same, None)]
        (old,) = it.database.rows("SELECT * FROM tasks WHERE deleted_at IS NOT NULL")
        assert (old["task_uid"], old["live_name"]) == (uid, None)
        await it.sync()
        assert it.runs()[0]["outcome"] == "unchanged"


async def test_what_was_removed_long_ago_is_forgotten(tenant: Tenant, tmp_path: Path) -> None:
    """Purged tombstones are deleted by the scheduler; declared again before that is done, a task is a new one."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta"), "z.yaml": manifest("zeta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid, source = it.task("alpha")["task_uid"], it.source()["source_id"]
        repository.push({"a.yaml": None})
        await it.sync()
        async with it.database.reconciler.transaction([tenant.tenant_id]) as conn:
            now = await clock(conn)
            assert await tasks.purge(conn, tenant.tenant_id, source, now - timedelta(days=30), now) == 0
            assert await tasks.purge(conn, tenant.tenant_id, source, now + timedelta(days=1), now) == 1
            assert await tasks.purge(conn, tenant.tenant_id, source, now + timedelta(days=1), now) == 0
        assert it.names("deleting_at IS NOT NULL") == ["alpha"]
        repository.push({"a.yaml": manifest("alpha")})
        await it.sync()
        (living,) = it.database.rows("SELECT * FROM tasks WHERE name = 'alpha' AND deleted_at IS NULL")
        assert (living["task_uid"] != uid, living["deleting_at"], it.findings()) == (True, None, [])
