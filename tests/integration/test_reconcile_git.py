"""What a push does: create, update, move, remove, restore."""

from __future__ import annotations

from pathlib import Path

from support.databases import Tenant
from support.repositories import Repository, following, manifest


async def test_a_pushed_manifest_becomes_a_task(tenant: Tenant, tmp_path: Path) -> None:
    """A new manifest becomes a task that knows its commit, author, file and line, and slots that are planned."""
    repository = Repository.make(tmp_path)
    commit = repository.push({"tasks/a.yaml": manifest("alpha", "*/5 * * * *")}, "Add alpha")
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        task = it.task("alpha")
        assert (task["path"], task["document"], task["line"]) == ("tasks/a.yaml", 0, 4)
        assert (task["commit"], task["author"], task["subject"]) == (commit, "Ada Lovelace", "Add alpha")
        assert task["committed_at"] is not None
        assert (task["owner"], task["generation"], task["sync"]) == ("manifest", 1, "SYNCED")
        assert task["seed"] == "default/alpha"
        assert task["spec"]["run"] == {"external": {}}
        assert it.plan("alpha")["active"]
        assert tenant.database.value("SELECT count(*) FROM executions WHERE status = 'PENDING'") >= 10
        source = it.source()
        assert (source["applied_commit"], source["observed_commit"]) == (commit, commit)
        assert source["ref"] == "refs/heads/main"
        assert source["first_pass_at"] is not None
        assert it.conditions() == {
            "Ready": "True Ready",
            "Fetched": "True Fetched",
            "Applied": "True Applied",
            "Validated": "True Valid",
        }
        (run,) = it.runs()
        assert (run["outcome"], run["to_commit"], run["author"]) == ("applied", commit, "Ada Lovelace")
        assert run["counts"] == {"created": 1, "files": 1, "errors": 0, "warnings": 0}
