"""Bad manifests beside good ones: findings, last good versions, held removals, duplicates, links."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from support.databases import Tenant
from support.repositories import Repository, following, manifest

BROKEN_FIELD = manifest("alpha", "0 5 * * *", timout="1h")
UNPARSEABLE = "apiVersion: cron-observer/v1\nkind: Task\nmetadata: {name: alpha\nspec: [\n"


def places(findings: list[dict[str, Any]]) -> list[tuple[str, str, int | None]]:
    """Return path, code and line of findings."""
    return [(one["path"], one["code"], one["line"]) for one in findings]


async def test_a_broken_manifest_keeps_its_last_good_version(tenant: Tenant, tmp_path: Path) -> None:
    """A field that is not known is a finding with its line; the task runs on as it was, and other files apply."""
    repository = Repository.make(tmp_path)
    first = repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        plan = it.plan("alpha")
        second = repository.push({"a.yaml": BROKEN_FIELD, "b.yaml": manifest("beta", "0 6 * * *")})
        assert await it.sync() == "applied"
        alpha = it.task("alpha")
        assert (alpha["sync"], alpha["generation"], alpha["commit"]) == ("KEPT_LAST_GOOD", 1, first)
        assert alpha["spec"]["schedule"]["cron"] == "0 4 * * *"
        assert it.plan("alpha") == plan
        assert it.task("beta")["commit"] == second
        (finding,) = it.findings()
        assert (finding["path"], finding["severity"], finding["line"]) == ("a.yaml", "error", 6)
        assert (finding["name"], finding["pointer"]) == ("alpha", "/spec/timout")
        assert finding["excerpt"] == "5 | spec:\n6 |   timout: 1h\n7 |   schedule:"
        assert finding["run_id"] == it.runs()[0]["run_id"]
        assert it.conditions()["Ready"] == "False InvalidManifests"
        assert it.conditions()["Fetched"] == "True Fetched"
        (file,) = tenant.database.rows("SELECT * FROM manifest_files WHERE path = 'a.yaml'")
        assert (file["state"], file["commit"]) == ("invalid", second)
        assert (file["good_text"], file["good_commit"]) == (manifest("alpha"), first)
        third = repository.push({"a.yaml": manifest("alpha", "0 7 * * *")})
        await it.sync()
        mended = it.task("alpha")
        assert (mended["sync"], mended["generation"], mended["commit"]) == ("SYNCED", 2, third)
        assert it.findings() == []
        assert it.conditions()["Ready"] == "True Ready"


async def test_going_back_to_the_last_good_text_is_no_new_generation(tenant: Tenant, tmp_path: Path) -> None:
    """A broken edit and its revert leave the generation and the plan where they were."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        plan = it.plan("alpha")
        repository.push({"a.yaml": UNPARSEABLE})
        await it.sync()
        assert it.task("alpha")["sync"] == "KEPT_LAST_GOOD"
        repository.git("revert", "--no-edit", "HEAD")
        commit = repository.push()
        await it.sync()
        task = it.task("alpha")
        assert (task["sync"], task["generation"]) == ("SYNCED", 1)
        assert task["commit"] == repository.git("rev-parse", "HEAD~1") != commit
        assert it.plan("alpha") == plan


async def test_documents_of_a_file_stand_alone(tenant: Tenant, tmp_path: Path) -> None:
    """In one file a broken document is kept at its last good version while its neighbours are applied."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha") + "---\n" + manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        commit = repository.push({"a.yaml": BROKEN_FIELD + "---\n" + manifest("beta", "9 9 * * *")})
        await it.sync()
        assert it.task("alpha")["sync"] == "KEPT_LAST_GOOD"
        beta = it.task("beta")
        assert (beta["sync"], beta["generation"], beta["commit"]) == ("SYNCED", 2, commit)
        (file,) = tenant.database.rows("SELECT * FROM manifest_files")
        assert (file["state"], file["good_commit"], file["documents"]) == ("invalid", commit, 2)


async def test_a_new_broken_manifest_makes_no_task(tenant: Tenant, tmp_path: Path) -> None:
    """A manifest that never was valid is a finding and nothing else; mending it creates the task."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": BROKEN_FIELD, "c.yaml": manifest("gamma")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert it.names() == ["gamma"]
        repository.push({"a.yaml": manifest("alpha")})
        await it.sync()
        assert it.names() == ["alpha", "gamma"]


async def test_removing_a_broken_document_removes_its_task(tenant: Tenant, tmp_path: Path) -> None:
    """A task that was kept for its broken manifest goes when the manifest goes."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"a.yaml": None, "b.yaml": manifest("beta") + "---\n" + BROKEN_FIELD})
        await it.sync()
        kept = it.task("alpha")
        assert (kept["sync"], kept["removed_at"], kept["path"]) == ("KEPT_LAST_GOOD", None, "a.yaml")
        repository.push({"b.yaml": manifest("beta")})
        await it.sync()
        assert it.names() == ["beta"]


async def test_an_unparseable_file_holds_every_removal(tenant: Tenant, tmp_path: Path) -> None:
    """While nobody can say what a file declares, nothing is removed; when it is mended, what waited happens."""
    repository = Repository.make(tmp_path)
    repository.push({name: manifest(name[0] * 3) for name in ("a.yaml", "b.yaml", "c.yaml", "d.yaml")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"a.yaml": UNPARSEABLE, "b.yaml": None, "c.yaml": None, "d.yaml": manifest("ddd", "1 1 * * *")})
        await it.sync()
        assert [it.task(name)["sync"] for name in ("aaa", "bbb", "ccc", "ddd")] == [
            "KEPT_LAST_GOOD",
            "HELD",
            "HELD",
            "SYNCED",
        ]
        assert it.names() == ["aaa", "bbb", "ccc", "ddd"]
        assert it.plan("bbb")["active"]
        assert it.conditions()["PrunePending"] == "True UnparseableFiles"
        assert it.source()["counts"]["held"] == 2
        repository.push({"e.yaml": manifest("eee")})
        await it.sync()
        assert it.task("bbb")["sync"] == "HELD"
        # what was to be removed turns up in the file that is mended
        repository.push({"a.yaml": manifest("aaa") + "---\n" + manifest("bbb")})
        await it.sync()
        assert it.names() == ["aaa", "bbb", "ddd", "eee"]
        assert [it.task(name)["sync"] for name in ("aaa", "bbb")] == ["SYNCED", "SYNCED"]
        assert it.task("ccc")["removed_at"] is not None
        assert "PrunePending" not in it.conditions()


async def test_of_two_files_with_one_name_the_first_to_have_it_wins(tenant: Tenant, tmp_path: Path) -> None:
    """A newcomer with a name in use is an error naming both places, until the name comes free."""
    repository = Repository.make(tmp_path)
    repository.push({"z.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
        repository.push({"a.yaml": manifest("alpha", "0 5 * * *")})
        await it.sync()
        assert (it.task("alpha")["path"], it.task("alpha")["generation"]) == ("z.yaml", 1)
        (finding,) = it.findings()
        assert (finding["path"], finding["line"], finding["code"]) == ("a.yaml", 4, "CO1207")
        assert "z.yaml:4" in finding["message"]
        repository.push({"z.yaml": None})
        await it.sync()
        task = it.task("alpha")
        assert (task["path"], task["generation"], task["task_uid"]) == ("a.yaml", 2, uid)
        assert it.findings() == []


async def test_two_new_files_with_one_name_are_both_refused(tenant: Tenant, tmp_path: Path) -> None:
    """When neither has the name yet, both are errors and no task is made."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("alpha", "0 5 * * *")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert it.names() == []
        assert places(it.findings()) == [("a.yaml", "CO1207", 4), ("b.yaml", "CO1207", 4)]
        repository.push({"b.yaml": None})
        await it.sync()
        assert it.names() == ["alpha"]


async def test_links_and_strange_entries_are_findings(tenant: Tenant, tmp_path: Path) -> None:
    """Symbolic links, submodules, LFS pointers, huge and unnamable files are never followed or read, but told."""
    repository = Repository.make(tmp_path)
    repository.push({"fine.yaml": manifest("fine")})
    inner = repository.head()
    secret = tmp_path / "secret.yaml"
    secret.write_text(manifest("stolen"))
    (repository.work / "link.yaml").symlink_to(secret)
    (repository.work / "sub.yaml").mkdir()
    repository.write(
        {
            "lfs.yaml": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "huge.yaml": "# " + "x" * 300_000,
            "bell\x07.yaml": manifest("bell"),
        }
    )
    (repository.work / os.fsdecode(b"caf\xe9.yaml")).write_text(manifest("latin"))
    repository.git("add", "--all")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{inner},sub.yaml")
    repository.git("commit", "--quiet", "--message", "strange things")
    repository.git("push", "--quiet", "origin", "HEAD:main")
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert it.names() == ["fine"]
        assert {one["path"]: one["code"] for one in it.findings()} == {
            "link.yaml": "CO1004",
            "sub.yaml": "CO1005",
            "lfs.yaml": "CO1006",
            "huge.yaml": "CO1001",
            "bell\\u0007.yaml": "CO1008",
            "caf\\xe9.yaml": "CO1008",
        }
        assert await it.poll() == {"main": "unchanged"}
        repository.push({"fine.yaml": manifest("fine", "1 1 * * *")})
        assert await it.sync() == "applied"
        assert len(it.findings()) == 6
        repository.git("rm", "--quiet", "--", "link.yaml", "lfs.yaml", "huge.yaml", "bell\x07.yaml", "sub.yaml")
        repository.git("rm", "--quiet", "--", os.fsdecode(b"caf\xe9.yaml"))
        repository.git("commit", "--quiet", "--message", "tidy")
        repository.git("push", "--quiet", "origin", "HEAD:main")
        await it.sync()
        assert it.findings() == []


async def test_a_folder_that_became_a_link_is_told(tenant: Tenant, tmp_path: Path) -> None:
    """A link in the place of a folder that is to be read is an error, and holds what was read before."""
    repository = Repository.make(tmp_path)
    repository.push({"real/a.yaml": manifest("alpha"), "tasks/b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path, paths=("tasks",)) as it:
        await it.reconciler.tick()
        repository.write({"tasks/b.yaml": None})
        (repository.work / "tasks").rmdir()
        (repository.work / "tasks").symlink_to("real")
        repository.push(None, "link")
        await it.sync()
        codes = [(one["path"], one["code"]) for one in it.findings()]
        assert codes == [("tasks", "CO1004"), ("tasks/b.yaml", "CO1507")]
        assert it.task("beta")["sync"] == "HELD"


async def test_a_task_of_the_api_is_not_taken_over(tenant: Tenant, tmp_path: Path) -> None:
    """A manifest with the name of an API-owned task is a finding until that task is gone."""
    from cron_observer.manifest import effective
    from cron_observer.store import plans, tasks

    db = tenant.database

    async def create(conn: Any) -> Any:
        from cron_observer.store.engine import clock

        spec = effective({"schedule": {"cron": "0 1 * * *"}})
        return await tasks.create_owned(
            conn, tenant.tenant_id, tenant.project_id, "alpha", spec, {}, "key", await clock(conn)
        )

    made = await plans.in_transaction_with_margin(db.api, [tenant.tenant_id], create)
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert it.task("alpha")["owner"] == "api"
        assert [(one["code"], one["line"]) for one in it.findings()] == [("CO1501", 4)]
        assert await it.poll() == {"main": "unchanged"}
        assert len(it.runs()) == 1
        db.do("UPDATE tasks SET deleting_at = now(), deleted_at = now() WHERE task_uid = %s", made.task_uid)
        assert await it.poll() == {"main": "applied"}
        (task,) = db.rows("SELECT * FROM tasks WHERE deleted_at IS NULL")
        assert (task["owner"], task["sync"]) == ("manifest", "SYNCED")
        assert it.findings() == []


async def test_two_sources_do_not_share_a_name(tenant: Tenant, tmp_path: Path) -> None:
    """A name that one source has is a finding in another, until the first gives it up: then it is the same task."""
    from cron_observer.reconcile import Reconciler
    from cron_observer.settings import Settings, SourceSettings

    folders = {name: tmp_path / name for name in ("one", "two")}
    for folder in folders.values():
        folder.mkdir()
    (folders["one"] / "a.yaml").write_text(manifest("alpha"))
    (folders["one"] / "d.yaml").write_text(manifest("delta"))
    db = tenant.database
    sources = tuple(SourceSettings(name=name, url=str(folder)) for name, folder in folders.items())
    reconciler = Reconciler(db.reconciler, Settings(data_dir=tmp_path, sources=sources), patience=60, listen=False)
    query = "SELECT s.name AS source, t.* FROM tasks t JOIN sources s USING (tenant_id, source_id)"

    async def look() -> dict[str, str]:
        db.do("UPDATE sources SET next_poll_at = now() - interval '1 second'")
        return await reconciler.tick()

    try:
        assert await reconciler.tick() == {"one": "applied", "two": "applied"}
        (folders["two"] / "b.yaml").write_text(manifest("alpha", "1 1 * * *") + "---\n" + manifest("beta"))
        await look()
        owners = {row["name"]: row["source"] for row in db.rows(query)}
        assert owners == {"alpha": "one", "beta": "two", "delta": "one"}
        (finding,) = db.rows("SELECT * FROM sync_findings")
        assert (finding["code"], finding["line"]) == ("CO1502", 4)
        assert "one" in finding["message"]
        (uid,) = [row["task_uid"] for row in db.rows(query) if row["name"] == "alpha"]
        (folders["one"] / "a.yaml").unlink()
        await look()
        await look()
        (alpha,) = [row for row in db.rows(query) if row["name"] == "alpha"]
        assert (alpha["source"], alpha["task_uid"], alpha["removed_at"]) == ("two", uid, None)
        assert alpha["spec"]["schedule"]["cron"] == "1 1 * * *"
        assert db.rows("SELECT * FROM sync_findings") == []
        (folders["one"] / "c.yaml").write_text(manifest("gamma"))
        await look()
        assert {row["name"]: row["source"] for row in db.rows(query)} == {
            "alpha": "two",
            "beta": "two",
            "delta": "one",
            "gamma": "one",
        }
    finally:
        await reconciler.close()


async def test_a_source_may_move_to_another_project(tenant: Tenant, tmp_path: Path) -> None:
    """What a source declared in its old project is removed there, and made anew in the new one."""
    (tmp_path / "a.yaml").write_text(manifest("alpha"))
    async with following(tenant, tmp_path, tmp_path / ".data") as it:
        await it.reconciler.tick()
    async with following(tenant, tmp_path, tmp_path / ".data", project="other") as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        rows = tenant.database.rows(
            "SELECT p.name, t.removed_at IS NULL AS lives FROM tasks t JOIN projects p USING (tenant_id, project_id)"
        )
        assert {row["name"]: row["lives"] for row in rows} == {"default": False, "other": True}
