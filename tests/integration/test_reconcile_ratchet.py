"""A newer validator bears on documents that change; what it would refuse of unchanged ones stays in force."""

from __future__ import annotations

from pathlib import Path

from support.databases import Tenant
from support.repositories import Following, Repository, following, manifest

#: What an older validator let pass, and this one does not.
NEWLY_WRONG = manifest("alpha", timeout="someday")


async def accepted_by_older(it: Following, repository: Repository, **texts: str) -> None:
    """Leave the database as a validator of an earlier version did that found nothing wrong with these texts."""
    files: dict[str, str | bytes | None] = {f"{name}.yaml": text for name, text in texts.items()}
    commit = repository.push(files)
    for path in files:
        blob = repository.git("rev-parse", f"HEAD:{path}")
        it.database.do("UPDATE manifest_files SET blob = %s, good_blob = %s WHERE path = %s", blob, blob, path)
    it.database.do("UPDATE sources SET applied_commit = %s, validator_version = 'an older one'", commit)


async def test_an_unchanged_document_outlives_a_stricter_rule(tenant: Tenant, tmp_path: Path) -> None:
    """It is applied as it is, in sync; what is wrong now is a warning that says since when, and the source is ready."""
    repository = Repository.make(tmp_path)
    repository.push({"alpha.yaml": manifest("alpha"), "beta.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        await accepted_by_older(it, repository, alpha=NEWLY_WRONG)
        assert await it.poll() == {"main": "applied"}
        task = it.task("alpha")
        assert (task["sync"], task["generation"], task["removed_at"]) == ("SYNCED", 1, None)
        (finding,) = it.findings()
        assert (finding["severity"], finding["path"]) == ("warning", "alpha.yaml")
        assert "since this version" in finding["message"]
        assert it.conditions()["Ready"] == "True Ready"
        assert await it.poll() == {"main": "unchanged"}
        assert await it.sync() == "unchanged"
        assert len(it.findings()) == 1


async def test_the_stricter_rule_holds_when_the_document_changes(tenant: Tenant, tmp_path: Path) -> None:
    """With the next change of its file the rule bears: an error, and the last good version stays in force."""
    repository = Repository.make(tmp_path)
    repository.push({"alpha.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        await accepted_by_older(it, repository, alpha=NEWLY_WRONG)
        await it.poll()
        repository.push({"alpha.yaml": manifest("alpha", "7 7 * * *", timeout="someday")})
        await it.poll()
        assert [one["severity"] for one in it.findings()] == ["error"]
        assert it.task("alpha")["sync"] == "KEPT_LAST_GOOD"
        repository.push({"alpha.yaml": manifest("alpha", "7 7 * * *")})
        await it.poll()
        assert it.findings() == []
        assert it.task("alpha")["sync"] == "SYNCED"


async def test_a_file_that_cannot_be_read_any_more_holds_no_removal(tenant: Tenant, tmp_path: Path) -> None:
    """What an unchanged file declares is known from before, so that it holds nothing up, under either policy."""
    for policy in ("isolate", "atomic"):
        folder = tmp_path / policy
        repository = Repository.make(folder)
        repository.push({"alpha.yaml": manifest("alpha"), "beta.yaml": manifest("beta"), "c.yaml": manifest("gamma")})
        async with following(tenant, repository.bare, folder, failure_policy=policy) as it:
            await it.sync()
            await accepted_by_older(it, repository, alpha=manifest("alpha") + "\tnow: a tab\n")
            repository.push({"beta.yaml": None})
            assert await it.sync() == "applied"
            assert it.names() == ["alpha", "gamma"]
            assert it.task("alpha")["sync"] == "SYNCED"
            it.database.do("UPDATE tasks SET removed_at = now(), sync = NULL")


async def test_a_new_setting_is_no_new_rule(tenant: Tenant, tmp_path: Path) -> None:
    """Where it is the settings that make a document wrong, such as another environment, the error is an error."""
    repository = Repository.make(tmp_path)
    patched = manifest("alpha") + "  environments:\n    prod:\n      schedule: {cron: null}\n"
    repository.push({"alpha.yaml": patched})
    async with following(tenant, repository.bare, tmp_path, environment="test") as it:
        await it.reconciler.tick()
        assert it.task("alpha")["sync"] == "SYNCED"
    async with following(tenant, repository.bare, tmp_path, environment="prod") as it:
        await it.poll()
        assert [one["severity"] for one in it.findings()] == ["error"]
        assert it.task("alpha")["sync"] == "KEPT_LAST_GOOD"


async def test_a_file_that_had_an_error_is_judged_anew_as_a_whole(tenant: Tenant, tmp_path: Path) -> None:
    """Beside a document that was wrong before, one that is wrong only now is an error, and keeps what is in force."""
    repository = Repository.make(tmp_path)
    repository.push({"both.yaml": manifest("alpha") + "---\n" + manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        before = {name: it.task(name)["spec"] for name in ("alpha", "beta")}
        await accepted_by_older(it, repository, both=NEWLY_WRONG + "---\n" + manifest("beta", timeout="never"))
        it.database.do("UPDATE manifest_files SET state = 'invalid'")
        it.database.do("UPDATE tasks SET sync = 'KEPT_LAST_GOOD' WHERE name = 'beta'")
        assert await it.poll() == {"main": "applied"}
        assert [one["severity"] for one in it.findings()] == ["error", "error"]
        for name, spec in before.items():
            assert (it.task(name)["sync"], it.task(name)["spec"]) == ("KEPT_LAST_GOOD", spec)
