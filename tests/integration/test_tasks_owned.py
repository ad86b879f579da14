"""Tasks that the API owns: created, changed and deleted through the same path as those of manifests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from cron_observer.errors import Conflict, InvalidSpec, ManifestOwned, NameTaken, NotFound
from cron_observer.manifest import effective
from cron_observer.store import plans, tasks
from cron_observer.store.engine import clock
from cron_observer.store.tasks import TaskRow
from support.api import api
from support.databases import Tenant
from support.repositories import Repository, following, manifest


def spec(cron: str = "*/5 * * * *", **fields: Any) -> dict[str, Any]:
    """Return an effective spec."""
    return effective({"schedule": {"cron": cron}, **fields})


async def write(tenant: Tenant, work: Callable[[Any, Any], Awaitable[Any]]) -> Any:
    """Run `work` with a connection of the API's role and the clock."""

    async def in_transaction(conn: Any) -> Any:
        return await work(conn, await clock(conn))

    return await plans.in_transaction_with_margin(tenant.database.api, [tenant.tenant_id], in_transaction)


async def create(tenant: Tenant, name: str = "alpha", **fields: Any) -> TaskRow:
    """Create a task as the API does."""
    made: TaskRow = await write(
        tenant,
        lambda conn, now: tasks.create_owned(
            conn, tenant.tenant_id, tenant.project_id, name, spec(**fields), {"team": "ops"}, "key-1", now
        ),
    )
    return made


async def update(tenant: Tenant, uid: UUID, cron: str, labels: dict[str, str] | None = None) -> TaskRow:
    """Change a task as the API does."""
    made: TaskRow = await write(
        tenant,
        lambda conn, now: tasks.update_owned(conn, tenant.tenant_id, uid, spec(cron), labels or {}, "key-2", now),
    )
    return made


async def delete(tenant: Tenant, uid: UUID) -> TaskRow:
    """Delete a task as the API does."""
    made: TaskRow = await write(tenant, lambda conn, now: tasks.delete_owned(conn, tenant.tenant_id, uid, "key-3", now))
    return made


async def test_a_created_task_is_planned(tenant: Tenant) -> None:
    """A task of the API has a revision, a plan and slots at once, and can be found by name and uid."""
    row = await create(tenant)
    assert (row.name, row.seed, row.owner, row.generation) == ("alpha", "default/alpha", "api", 1)
    assert row.labels == {"team": "ops"}
    (revision,) = tenant.database.rows("SELECT * FROM task_revisions")
    assert (revision["action"], revision["owner"], revision["author"]) == ("create", "api", "key-1")
    assert tenant.database.value("SELECT active FROM task_plan")
    assert tenant.database.value("SELECT count(*) FROM executions") >= 10
    async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
        assert await tasks.get_by_name(conn, tenant.tenant_id, tenant.project_id, "alpha") == row
        assert await tasks.find_uid(conn, tenant.tenant_id, row.task_uid) == row
        assert await tasks.get_by_name(conn, tenant.tenant_id, tenant.project_id, "beta") is None
        assert await tasks.owner_location(conn, tenant.tenant_id, row.task_uid) is None


async def test_a_suspended_task_has_no_slots(tenant: Tenant) -> None:
    """`suspend` makes the plan inactive."""
    await create(tenant, suspend=True)
    assert not tenant.database.value("SELECT active FROM task_plan")
    assert tenant.database.value("SELECT count(*) FROM executions") == 0


async def test_a_name_is_used_once(tenant: Tenant) -> None:
    """A second task of the name is refused, and another project or tenant is not concerned."""
    await create(tenant)
    with pytest.raises(NameTaken):
        await create(tenant)
    with pytest.raises(NotFound):
        await write(
            tenant,
            lambda conn, now: tasks.create_owned(conn, tenant.tenant_id, uuid4(), "x", spec(), {}, "key", now),
        )


async def test_a_change_is_a_new_generation_and_the_same_again_is_none(tenant: Tenant) -> None:
    """An update raises the generation once; a repeat of it changes nothing."""
    row = await create(tenant)
    changed = await update(tenant, row.task_uid, "0 1 * * *")
    assert (changed.generation, changed.spec["schedule"]["cron"], changed.labels) == (2, "0 1 * * *", {})
    assert changed.created_at == row.created_at
    assert await update(tenant, row.task_uid, "0 1 * * *") == changed
    assert tenant.database.value("SELECT generation FROM task_plan") == 2
    await update(tenant, row.task_uid, "0 1 * * *", {"team": "other"})
    assert tenant.database.value("SELECT generation FROM task_plan") == 2
    revisions = tenant.database.rows("SELECT * FROM task_revisions ORDER BY generation")
    assert [(one["action"], one["author"]) for one in revisions] == [
        ("create", "key-1"),
        ("update", "key-2"),
        ("update", "key-2"),
    ]


async def test_a_deleted_task_is_planned_no_more(tenant: Tenant) -> None:
    """Deletion is marked and stops the plan; the name stays taken until the scheduler has carried it out."""
    row = await create(tenant)
    deleted = await delete(tenant, row.task_uid)
    assert deleted.deleting
    assert await delete(tenant, row.task_uid) == deleted
    assert not tenant.database.value("SELECT active FROM task_plan")
    future = "SELECT count(*) FROM executions WHERE available_at > now() + interval '10 s'"
    assert tenant.database.value(future) == 0
    with pytest.raises(Conflict):
        await update(tenant, row.task_uid, "0 1 * * *")
    with pytest.raises(NameTaken):
        await create(tenant)
    tenant.database.do("UPDATE tasks SET deleted_at = now()")
    with pytest.raises(NotFound):
        await delete(tenant, row.task_uid)
    assert (await create(tenant)).task_uid != row.task_uid


async def test_the_task_of_a_manifest_is_out_of_reach(tenant: Tenant, tmp_path: Path) -> None:
    """The API can neither change nor delete what a manifest owns, even past our own checks; it learns where it is."""
    repository = Repository.make(tmp_path)
    commit = repository.push({"deep/a.yaml": manifest("beta") + "---\n" + manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
        with pytest.raises(ManifestOwned):
            await update(tenant, uid, "0 1 * * *")
        with pytest.raises(ManifestOwned):
            await delete(tenant, uid)
        with pytest.raises(NameTaken):
            await create(tenant, "alpha")
        async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
            from sqlalchemy import text

            ran = await conn.execute(text("UPDATE tasks SET name = 'x' WHERE task_uid = :uid"), {"uid": uid})
            assert ran.rowcount == 0
            place = await tasks.owner_location(conn, tenant.tenant_id, uid)
        assert place is not None
        assert (place.source, place.repository, place.ref) == ("main", str(repository.bare), "refs/heads/main")
        assert (place.path, place.line, place.document) == ("deep/a.yaml", 12, 1)
        assert (place.commit, place.text_commit, place.author) == (commit, commit, "Ada Lovelace")
        assert place.text == manifest("beta") + "---\n" + manifest("alpha")
        with pytest.raises(DBAPIError):
            async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
                await conn.execute(text("UPDATE sources SET url = 'x' WHERE tenant_id = :t"), {"t": tenant.tenant_id})


async def test_credentials_of_a_source_are_not_stored(tenant: Tenant, tmp_path: Path) -> None:
    """Neither the database nor any message holds the password of an address, whatever fails."""
    secret = "canary-of-the-address"
    url = f"https://robot:{secret}@127.0.0.1:1/tasks.git"
    async with following(tenant, url, tmp_path / "data") as it:
        assert await it.reconciler.tick() == {"main": "failed"}
        assert it.conditions()["Fetched"] == "False Unreachable"
        assert it.source()["url"] == "https://127.0.0.1:1/tasks.git"
        for table in ("sources", "sync_runs", "sync_findings", "manifest_files", "tasks"):
            rows = tenant.database.rows(f"SELECT t::text AS row FROM {table} AS t")
            assert all(secret not in row["row"] and "robot" not in row["row"] for row in rows)
        for path in (tmp_path / "data").rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes()
        assert secret not in repr(it.settings)


async def test_a_task_of_the_api_may_use_what_manifests_declare(tenant: Tenant, tmp_path: Path) -> None:
    """Calendars and groups of the project reach its plan; a name that is not declared is refused with its pointer."""
    repository = Repository.make(tmp_path)
    text = "apiVersion: cron-observer/v1\nkind: {}\nmetadata: {{name: {}}}\nspec: {}\n"
    windows = "{windows: [{from: '20:00', to: '06:00'}], timezone: Europe/Berlin}"
    repository.push(
        {
            "c.yaml": text.format("Calendar", "weekends", "{entries: [{weekdays: [sat, sun]}]}"),
            "g.yaml": text.format("TaskGroup", "night", windows),
        }
    )
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        schedule = {"cron": "0 4 * * *", "calendars": {"exclude": ["weekends"]}}
        wanted = effective({"schedule": schedule, "group": "night"})
        bad = effective({"schedule": {"cron": "0 4 * * *", "calendars": {"include": ["weekend"]}}, "group": "nights"})

        def creating(name: str, spec: dict[str, Any]) -> Callable[[Any, Any], Awaitable[Any]]:
            return lambda conn, now: tasks.create_owned(
                conn, tenant.tenant_id, tenant.project_id, name, spec, {}, "key", now
            )

        made = await write(tenant, creating("alpha", wanted))
        planned = it.plan("alpha")["schedule"]
        assert planned["group"]["timezone"] == "Europe/Berlin"
        assert planned["calendars"]["exclude"][0].startswith("weekends@")
        with pytest.raises(InvalidSpec) as refused:
            await write(tenant, creating("beta", bad))
        found = [(one["code"], one["pointer"]) for one in refused.value.facts["findings"]]
        assert found == [("CO1413", "/group"), ("CO1403", "/schedule/calendars/include/0")]
        assert 'did you mean "night"' in str(refused.value.hint)
        with pytest.raises(InvalidSpec):
            await write(
                tenant,
                lambda conn, now: tasks.update_owned(conn, tenant.tenant_id, made.task_uid, bad, {}, "key", now),
            )
        assert it.names() == ["alpha"]


async def test_the_api_tells_what_is_not_declared(tenant: Tenant) -> None:
    """Over HTTP it is 422 with a finding at the field, and nothing is created."""
    schedule = {"cron": "0 4 * * *", "calendars": {"exclude": ["weekends"]}}
    async with api(tenant) as it:
        body = {"name": "alpha", "schedule": schedule}
        refused = await it.call("POST", "/projects/default/tasks", "tasks:write", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_spec")
    (found,) = refused.json()["findings"]
    assert (found["code"], found["pointer"]) == ("CO1403", "/schedule/calendars/exclude/0")
    assert tenant.database.value("SELECT count(*) FROM tasks") == 0


async def detach(tenant: Tenant, uid: UUID, reason: str = "on fire") -> TaskRow:
    """Take a task out of its manifest's hands as the API does."""
    made: TaskRow = await write(tenant, lambda conn, now: tasks.detach(conn, tenant.tenant_id, uid, reason, "ada", now))
    return made


async def test_a_detached_task_runs_on_as_one_of_the_api(tenant: Tenant, tmp_path: Path) -> None:
    """The row, its plan and a revision become the API's, nothing is planned anew, and the audit log says why."""
    repository = Repository.make(tmp_path)
    commit = repository.push({"a.yaml": "---\n" + manifest("alpha", "* * * * *")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        before, plan = it.task("alpha"), it.plan("alpha")
        slots = it.database.rows("SELECT * FROM executions ORDER BY id")
        made = await detach(tenant, before["task_uid"])
        after = it.task("alpha")
        assert (made.owner, made.generation, made.task_uid) == ("api", 2, before["task_uid"])
        gone = ("source_id", "path", "document", "line", "commit", "subject", "committed_at", "sync")
        assert {name: after[name] for name in gone} == dict.fromkeys(gone)
        assert (after["author"], after["spec"], after["seed"]) == ("ada", before["spec"], before["seed"])
        assert it.plan("alpha") == plan | {"owner": "api"}
        assert it.database.rows("SELECT * FROM executions ORDER BY id") == slots
        (entry,) = it.database.rows("SELECT * FROM audit_log WHERE action = 'task.detach'")
        assert (entry["actor"], entry["target"]) == ("ada", "task:default/alpha")
        expected = {"from": "source:main", "path": "a.yaml", "line": 5, "commit": commit, "reason": "on fire"}
        assert entry["data"] == expected
        (revision,) = it.database.rows("SELECT * FROM task_revisions WHERE generation = 2")
        assert (revision["owner"], revision["action"], revision["author"]) == ("api", "detach", "ada")
        again = await detach(tenant, before["task_uid"])
        assert (again.generation, len(it.database.rows("SELECT 1 FROM audit_log WHERE action = 'task.detach'"))) == (
            2,
            1,
        )
        changed = await update(tenant, before["task_uid"], "0 5 * * *")
        assert (changed.generation, changed.spec["schedule"]["cron"]) == (3, "0 5 * * *")


async def test_the_next_pass_says_who_owns_a_detached_task(tenant: Tenant, tmp_path: Path) -> None:
    """Its file is read again though nothing was pushed, and does not take it back; the annotation does."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
        await detach(tenant, uid)
        assert await it.reconciler.tick() == {"main": "applied"}
        (finding,) = it.findings()
        assert (finding["path"], finding["code"], finding["name"]) == ("a.yaml", "CO1501", "alpha")
        assert "cron-observer/adopt" in finding["hint"]
        assert (it.task("alpha")["owner"], it.task("beta")["owner"]) == ("api", "manifest")
        kept = {row["path"]: row["good_text"] for row in tenant.database.rows("SELECT * FROM manifest_files")}
        assert kept["a.yaml"] is None  # nothing that is in force comes from it: no last good version is kept
        assert kept["b.yaml"] is not None
        adopting = manifest("alpha").replace("spec:", '  annotations: {cron-observer/adopt: "true"}\nspec:', 1)
        repository.push({"a.yaml": adopting})
        await it.sync()
        assert (it.task("alpha")["owner"], it.task("alpha")["task_uid"], it.findings()) == ("manifest", uid, [])


async def test_what_is_not_living_is_not_detached(tenant: Tenant, tmp_path: Path) -> None:
    """A removed task, and one of another tenant, is not there for the function."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
        repository.push({"a.yaml": None})
        await it.sync()
        for missing in (uid, uuid4()):
            with pytest.raises(NotFound):
                await detach(tenant, missing)
        beta = it.task("beta")["task_uid"]
        query = text("SELECT detach_task(:tenant, :task, 'why', 'eve', gen_random_uuid(), now())")
        values = {"tenant": tenant.tenant_id, "task": beta}
        with pytest.raises(DBAPIError, match="not of this request"):
            async with it.database.api.transaction([uuid4()]) as conn:
                await conn.execute(query, values)
        with pytest.raises(DBAPIError, match="permission denied"):
            async with it.database.scheduler.transaction([tenant.tenant_id]) as conn:
                await conn.execute(query, values)
        assert it.task("beta")["owner"] == "manifest"


async def test_a_task_of_the_api_lets_go_of_what_is_held_for_it(tenant: Tenant, tmp_path: Path) -> None:
    """A group that is in use by the API's task alone goes when that task leaves it, and when it is deleted."""
    group = "apiVersion: cron-observer/v1\nkind: TaskGroup\nmetadata:\n  name: {}\nspec:\n  maxParallel: 1\n"
    names = ("night", "day", "dusk")
    repository = Repository.make(tmp_path)
    repository.push({f"{name}.yaml": group.format(name) for name in names})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        leaving, deleted = await create(tenant, group="night"), await create(tenant, "beta", group="day")
        repository.push({"night.yaml": None, "day.yaml": None})
        await it.sync()
        assert [one["code"] for one in it.findings()] == ["CO1506", "CO1506"]
        assert "created through the API" in it.findings()[0]["message"]
        await update(tenant, leaving.task_uid, "0 5 * * *")
        await it.reconciler.tick()
        assert [(one["code"], one["name"]) for one in it.findings()] == [("CO1506", "day")]
        await delete(tenant, deleted.task_uid)
        await it.reconciler.tick()
        assert it.findings() == []
        removed = it.database.rows("SELECT name FROM task_groups WHERE removed_at IS NOT NULL ORDER BY name")
        assert [row["name"] for row in removed] == ["day", "night"]
