"""What a push does: create, update, move, remove, restore."""

from __future__ import annotations

from pathlib import Path

from support.databases import Tenant
from support.repositories import Repository, following, git, manifest


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


async def test_a_changed_manifest_is_a_new_generation(tenant: Tenant, tmp_path: Path) -> None:
    """A change of the spec raises the generation, keeps the uid, and leaves a revision for each generation."""
    repository = Repository.make(tmp_path)
    first = repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        before, plan = it.task("alpha"), it.plan("alpha")
        second = repository.push({"a.yaml": manifest("alpha", "0 5 * * *")})
        assert await it.sync() == "applied"
        after = it.task("alpha")
        assert (after["task_uid"], after["generation"]) == (before["task_uid"], 2)
        assert after["commit"] == second
        assert it.plan("alpha")["generation"] == plan["generation"] + 1
        revisions = tenant.database.rows("SELECT * FROM task_revisions ORDER BY generation")
        assert [(row["action"], row["commit"]) for row in revisions] == [("create", first), ("update", second)]
        assert [row["spec"]["schedule"]["cron"] for row in revisions] == ["0 4 * * *", "0 5 * * *"]


async def test_labels_alone_do_not_touch_the_plan(tenant: Tenant, tmp_path: Path) -> None:
    """A change of labels is a new generation of the task, but no slot is planned anew."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        plan = it.plan("alpha")
        repository.push({"a.yaml": manifest("alpha", labels="team: ops")})
        await it.sync()
        assert it.task("alpha")["labels"] == {"team": "ops"}
        assert it.task("alpha")["generation"] == 2
        assert it.plan("alpha") == plan


async def test_what_means_the_same_is_no_change(tenant: Tenant, tmp_path: Path) -> None:
    """Comments, order of keys and defaults written out move the commit along, but raise no generation."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        text = "# said better\n" + manifest("alpha", priority="0", overlap="skip")
        commit = repository.push({"a.yaml": text}, "Say it better")
        await it.sync()
        task = it.task("alpha")
        assert (task["generation"], task["commit"], task["line"]) == (1, commit, 5)
        assert task["subject"] == "Say it better"
        assert it.runs()[0]["counts"]["moved"] == 1


async def test_a_task_moves_with_its_document(tenant: Tenant, tmp_path: Path) -> None:
    """A task that goes to another file, or further down in one, keeps uid, generation and slots."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        before, plan = it.task("alpha"), it.plan("alpha")
        both = manifest("beta") + "---\n" + manifest("alpha")
        repository.push({"a.yaml": None, "deep/er/b.yml": both})
        await it.sync()
        after = it.task("alpha")
        assert (after["path"], after["document"], after["line"]) == ("deep/er/b.yml", 1, 12)
        assert (after["task_uid"], after["generation"]) == (before["task_uid"], 1)
        assert it.plan("alpha") == plan
        assert it.runs()[0]["counts"] == {"created": 1, "moved": 1, "files": 2, "errors": 0, "warnings": 0}


async def test_names_may_change_places(tenant: Tenant, tmp_path: Path) -> None:
    """Two tasks whose files are exchanged stay the tasks that they are."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uids = it.task("alpha")["task_uid"], it.task("beta")["task_uid"]
        repository.push({"a.yaml": manifest("beta"), "b.yaml": manifest("alpha")})
        await it.sync()
        assert (it.task("alpha")["task_uid"], it.task("beta")["task_uid"]) == uids
        assert (it.task("alpha")["path"], it.task("beta")["path"]) == ("b.yaml", "a.yaml")
        assert it.findings() == []


async def test_a_removed_manifest_comes_back_as_the_same_task(tenant: Tenant, tmp_path: Path) -> None:
    """Removal disables and keeps the row; a revert restores the uid and brings the slots back."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha", "* * * * *"), "b.yaml": manifest("beta")})
    slots = "SELECT count(*) FROM executions WHERE task_uid = %s AND available_at > now() + interval '10 s'"
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
        planned = tenant.database.value(slots, uid)
        assert planned > 10
        repository.push({"a.yaml": None}, "Remove alpha")
        await it.sync()
        removed = it.task("alpha")
        assert removed["removed_at"] is not None
        assert removed["live_name"] == "alpha"
        assert not it.plan("alpha")["active"]
        assert tenant.database.value(slots, uid) == 0
        repository.git("revert", "--no-edit", "HEAD")
        repository.push(None, "Back again")
        await it.sync()
        restored = it.task("alpha")
        assert (restored["task_uid"], restored["removed_at"], restored["sync"]) == (uid, None, "SYNCED")
        assert restored["generation"] == 2
        assert it.plan("alpha")["active"]
        assert tenant.database.value(slots, uid) >= planned - 1
        actions = tenant.database.rows("SELECT action FROM task_revisions WHERE task_uid = %s ORDER BY generation", uid)
        assert [row["action"] for row in actions] == ["create", "restore"]


async def test_reverting_an_edit_brings_the_old_slots_back(tenant: Tenant, tmp_path: Path) -> None:
    """An edit replaces the slots, its revert puts those of the first schedule there again."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha", "*/2 * * * *")})
    minutes = (
        "SELECT DISTINCT extract(minute FROM e.nominal_at)::int %% 2 AS odd FROM executions e JOIN task_plan p USING"
        " (tenant_id, task_uid) WHERE e.plan_generation = p.generation"
    )
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"a.yaml": manifest("alpha", "1-59/2 * * * *")})
        await it.sync()
        assert {row["odd"] for row in tenant.database.rows(minutes)} == {1}
        repository.git("revert", "--no-edit", "HEAD")
        repository.push()
        await it.sync()
        assert {row["odd"] for row in tenant.database.rows(minutes)} == {0}


async def test_a_push_by_force_is_followed(tenant: Tenant, tmp_path: Path) -> None:
    """Rewritten history is a difference like any other, and unchanged files learn their new commits."""
    repository = Repository.make(tmp_path)
    old = repository.push({"keep.yaml": manifest("keep"), "gone.yaml": manifest("gone")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.git("checkout", "--quiet", "--orphan", "other")
        new = repository.push({"gone.yaml": None, "new.yaml": manifest("new")}, "Begin anew", force=True)
        git(repository.bare, "reflog", "expire", "--expire=now", "--all")
        git(repository.bare, "gc", "--quiet", "--prune=now")
        assert await it.sync() == "applied"
        assert it.names() == ["keep", "new"]
        assert it.task("keep")["commit"] == new != old
        assert it.task("keep")["subject"] == "Begin anew"
        assert it.task("keep")["generation"] == 1


async def test_each_file_is_credited_to_its_own_commit(tenant: Tenant, tmp_path: Path) -> None:
    """On a first sync over a long history, and on one over several commits, tasks name who last touched their file."""
    repository = Repository.make(tmp_path)
    one = repository.commit({"a.yaml": manifest("alpha")}, "One")
    two = repository.commit({"b.yaml": manifest("beta")}, "Two")
    repository.push({"README.md": "words"}, "Three")
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert (it.task("alpha")["commit"], it.task("beta")["commit"]) == (one, two)
        four = repository.commit({"a.yaml": manifest("alpha", "1 1 * * *")}, "Four")
        repository.push({"c.yaml": manifest("gamma")}, "Five")
        await it.sync()
        assert (it.task("alpha")["commit"], it.task("alpha")["subject"]) == (four, "Four")
        assert it.task("beta")["commit"] == two


async def test_a_merge_credits_the_branch_whose_text_won(tenant: Tenant, tmp_path: Path) -> None:
    """The commit of a task is one at which its file has the text that was applied, also after a merge."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    repository.git("checkout", "--quiet", "-b", "side")
    side = repository.commit({"a.yaml": manifest("alpha", "1 1 * * *")}, "Side")
    repository.git("checkout", "--quiet", "main")
    repository.commit({"a.yaml": manifest("alpha", "2 2 * * *")}, "Main, and later")
    repository.git("merge", "--quiet", "--strategy=recursive", "--strategy-option=theirs", "--no-edit", "side")
    repository.push()
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert it.task("alpha")["spec"]["schedule"]["cron"] == "1 1 * * *"
        assert it.task("alpha")["commit"] == side


async def test_only_the_paths_asked_for_are_read(tenant: Tenant, tmp_path: Path) -> None:
    """`paths` and `ignore` choose; dot-folders and other files are invisible; a change of `paths` is followed."""
    repository = Repository.make(tmp_path)
    repository.push(
        {
            "tasks/a.yaml": manifest("alpha"),
            "tasks/drafts/b.yaml": manifest("beta"),
            "other/c.yml": manifest("gamma"),
            ".github/workflows/d.yaml": "on: push",
            "tasks/notes.txt": "no manifest",
        }
    )
    async with following(tenant, repository.bare, tmp_path, paths=("tasks",), ignore=("tasks/drafts",)) as it:
        await it.reconciler.tick()
        assert it.names() == ["alpha"]
        assert it.findings() == []
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        assert it.names() == ["alpha", "beta", "gamma"]
    async with following(tenant, repository.bare, tmp_path, paths=("other",)) as it:
        await it.reconciler.tick()
        assert it.names() == ["gamma"]


async def test_an_unchanged_source_leaves_no_run(tenant: Tenant, tmp_path: Path) -> None:
    """A poll that finds nothing new writes no run; one that was asked for says so."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert await it.poll() == {"main": "unchanged"}
        assert len(it.runs()) == 1
        assert await it.sync() == "unchanged"
        assert [run["outcome"] for run in it.runs()] == ["unchanged", "applied"]
        source = it.source()
        assert source["handled_seq"] == source["requested_seq"] == 1


async def test_a_commit_that_touches_no_manifest_is_applied_too(tenant: Tenant, tmp_path: Path) -> None:
    """The applied commit follows the branch even when no manifest changed."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        commit = repository.push({"README.md": "words"}, "Words")
        assert await it.sync() == "applied"
        assert it.source()["applied_commit"] == commit
        assert it.runs()[0]["outcome"] == "unchanged"
        assert await it.poll() == {"main": "unchanged"}
