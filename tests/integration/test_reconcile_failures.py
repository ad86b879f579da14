"""The failures that a reconciler has to outlive, each with what proves that it does.

`PROOFS` names every one of them. Those that no other module proves are proven here, by a test whose id is the row's.
"""

from __future__ import annotations

import ast
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cron_observer.errors import DatabaseError, SettingsError
from cron_observer.reconcile import Reconciler
from cron_observer.settings import Settings, SourceSettings
from cron_observer.store import plans, sync
from support.databases import Tenant
from support.reconciling import reconciling, state
from support.repositories import Following, Repository, following, git, manifest

HERE = "test_reconcile_failures::test_failure"

#: Each failure, and the tests that prove what is done about it (modules of tests/integration, or with their folder).
PROOFS: dict[str, Sequence[str]] = {
    "history-rewritten": [
        "test_reconcile_modes::test_a_push_by_force_is_followed_and_told",
        "test_reconcile_modes::test_another_history_waits_for_its_approval",
        "test_reconcile_modes::test_a_lost_mirror_does_not_let_another_history_in",
    ],
    "shallow-clone": [HERE],
    "repository-gone": [
        "test_reconcile_trouble::test_a_repository_that_is_gone_deletes_nothing",
        "test_reconcile_trouble::test_a_branch_that_is_deleted_removes_nothing",
    ],
    "default-branch-renamed": [HERE],
    "credentials-expired": [
        "test_source_https::test_credentials_are_read_at_every_command",
        "test_source_git::test_wrong_credentials_are_told_without_them",
        "test_reconcile_trouble::test_waits_after_failures_grow_and_end",
    ],
    "forge-hangs": [
        "test_source_https::test_whoever_is_slow_is_given_up",
        "test_source_https::test_a_stall_ends_before_the_wall",
        "test_source_git::test_a_server_that_hangs_is_given_up",
    ],
    "huge-repository": [
        "test_source_https::test_a_repository_that_is_too_large_is_left",
        "test_source_https::test_a_first_fetch_that_is_too_large_leaves_nothing",
    ],
    "corrupt-mirror": [HERE, "test_reconcile_trouble::test_a_corrupt_mirror_is_made_anew"],
    "killed-in-fetch": [HERE],
    "two-reconcilers": [
        "test_reconcile_kills::test_two_processes_race_over_many_commits",
        "test_reconcile_races::test_two_reconcilers_make_one_pass",
    ],
    "paused-process": [
        "test_reconcile_kills::test_a_process_that_was_halted_wakes_up_too_late",
        "test_reconcile_races::test_without_its_fence_the_overtaken_would_win",
    ],
    "crash-midway": [
        "test_reconcile_kills::test_a_process_killed_after_any_step_leaves_one_commit_in_force",
        "test_reconcile_kills::test_every_step_of_a_pass_has_its_point",
    ],
    "database-lost-before-commit": [HERE],
    "database-lost-after-commit": [HERE],
    "clock-skew": [HERE],
    "broken-manifest": [
        "test_reconcile_broken::test_a_broken_manifest_keeps_its_last_good_version",
        "test_reconcile_modes::test_the_forge_is_told_what_became_of_a_commit",
    ],
    "duplicate-names": [
        "test_reconcile_broken::test_of_two_files_with_one_name_the_first_to_have_it_wins",
        "test_reconcile_broken::test_two_new_files_with_one_name_are_both_refused",
    ],
    "name-used-again": [
        "test_reconcile_git::test_a_removed_manifest_comes_back_as_the_same_task",
        "test_reconcile_handover::test_what_was_removed_long_ago_is_forgotten",
    ],
    "file-moved": ["test_reconcile_git::test_a_task_moves_with_its_document"],
    "kind-renamed": [HERE, "test_reconcile_guards::test_a_kind_that_changes_in_place_is_a_removal"],
    "group-in-use": [
        "test_reconcile_groups::test_a_group_in_use_stays",
        "test_reconcile_groups::test_a_group_goes_with_its_tasks",
    ],
    "group-broken": [HERE],
    "defaults-changed": ["test_reconcile_layers::test_a_changed_layer_renders_its_dependants_and_only_them"],
    "odd-paths": [HERE, "test_reconcile_broken::test_links_and_strange_entries_are_findings"],
    "hostile-refs": [
        "test_reconcile_trouble::test_addresses_and_refs_that_could_be_more_are_refused",
        "test_reconcile_hostile::test_refs_that_git_does_not_allow_are_refused",
    ],
    "webhook-flood": [
        "test_hooks::test_w10_a_thousand_a_minute_and_no_more",
        "test_hooks_signed::test_w1_what_is_not_signed_is_refused_unread",
    ],
    "validator-upgraded": [
        "test_reconcile_ratchet::test_an_unchanged_document_outlives_a_stricter_rule",
        "test_reconcile_ratchet::test_the_stricter_rule_holds_when_the_document_changes",
    ],
    "sources-overlap": [HERE],
}

Story = Callable[[Following, Repository, Path, pytest.MonkeyPatch], Awaitable[None]]
STORIES: dict[str, Story] = {}


def story(name: str) -> Callable[[Story], Story]:
    """Enter a function as the proof of a row."""

    def enter(function: Story) -> Story:
        STORIES[name] = function
        return function

    return enter


@pytest.mark.parametrize("row", [row for row, proofs in PROOFS.items() if HERE in proofs])
async def test_failure(row: str, tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in force outlives the failure, and what was pushed is applied when it is over."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")}, "first")
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        await STORIES[row](it, repository, tmp_path, monkeypatch)


def test_every_failure_has_its_proof() -> None:
    """The tests that the table names exist, and each story stands in the table."""
    assert set(STORIES) == {row for row, proofs in PROOFS.items() if HERE in proofs}
    folder = Path(__file__).parent
    tests: dict[str, set[str]] = {}
    for proofs in PROOFS.values():
        assert proofs
        for proof in proofs:
            module, _, name = proof.partition("::")
            if module not in tests:
                tree = ast.parse((folder / f"{module}.py").read_text(encoding="utf-8"))
                kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
                tests[module] = {node.name for node in tree.body if isinstance(node, kinds)}
            assert name in tests[module], proof


# The stories: what happens after the first commit was applied


@story("shallow-clone")
async def shallow(it: Following, repository: Repository, folder: Path, _: pytest.MonkeyPatch) -> None:
    """Our copy has the whole history of the branch, so that it can be told what follows from what."""
    repository.push({"a.yaml": manifest("alpha", "1 1 * * *")})
    await it.poll()
    (mirror,) = (folder / "mirrors").glob("*.git")
    assert git(mirror, "rev-parse", "--is-shallow-repository") == "false"
    assert git(mirror, "rev-list", "--count", "refs/cron-observer/applied") == "2"


@story("default-branch-renamed")
async def default_branch_renamed(it: Following, repository: Repository, _: Path, __: pytest.MonkeyPatch) -> None:
    """Where no ref is named, HEAD is followed to the branch of the new name, and nothing is removed on the way."""
    git(repository.bare, "branch", "--move", "main", "trunk")
    assert it.source()["ref"] == "refs/heads/main"
    assert await it.poll() == {"main": "unchanged"}
    assert it.source()["ref"] == "refs/heads/trunk"
    repository.commit({"c.yaml": manifest("gamma")})
    repository.git("push", "--quiet", "origin", "HEAD:refs/heads/trunk")
    assert await it.poll() == {"main": "applied"}
    assert it.names() == ["alpha", "beta", "gamma"]
    git(repository.bare, "branch", "--move", "trunk", "away")
    git(repository.bare, "symbolic-ref", "HEAD", "refs/heads/nowhere")
    assert await it.poll() == {"main": "failed"}
    assert it.conditions()["Ready"] == "False RefNotFound"
    assert it.names() == ["alpha", "beta", "gamma"]


@story("corrupt-mirror")
async def corrupt_mirror(it: Following, repository: Repository, folder: Path, _: pytest.MonkeyPatch) -> None:
    """Without our copy the commit in force is fetched anew, and the change costs no more than itself."""
    commit = repository.push({"a.yaml": manifest("alpha", "1 1 * * *")})
    shutil.rmtree(folder / "mirrors")
    assert await it.poll() == {"main": "applied"}
    assert it.source()["applied_commit"] == commit
    assert (it.task("alpha")["generation"], it.task("beta")["generation"]) == (2, 1)
    assert "HistoryRewritten" not in it.conditions()


@story("killed-in-fetch")
async def killed_in_fetch(it: Following, repository: Repository, folder: Path, _: pytest.MonkeyPatch) -> None:
    """Processes that are killed while they fetch, again and again, leave a copy that the next one goes on with."""
    chance = random.Random(11)  # noqa: S311  the same moments in every run
    for number in range(12):
        repository.push({"a.yaml": manifest("alpha", f"{number} 1 * * *"), "big.txt": chance.randbytes(300_000)})
        it.database.do("UPDATE sources SET lease_until = now() - interval '1 second', next_poll_at = now()")
        with reconciling(it.database, repository.bare, folder) as process:
            process.join(chance.uniform(0.05, 0.4))
            process.kill()
            process.join()
    last = repository.push({"a.yaml": manifest("alpha", "59 1 * * *")})
    it.database.do("UPDATE sources SET lease_until = now() - interval '1 second', next_poll_at = now()")
    await it.reconciler.tick()
    assert it.source()["applied_commit"] == last
    assert it.task("alpha")["spec"]["schedule"]["cron"] == "59 1 * * *"
    (mirror,) = (folder / "mirrors").glob("*.git")
    git(mirror, "fsck", "--connectivity-only", "--no-dangling")
    assert {run["outcome"] for run in it.runs()} <= {"applied", "unchanged", "abandoned"}


@story("database-lost-before-commit")
async def lost_before_commit(it: Following, repository: Repository, _: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that breaks in the apply takes all of it back; the next pass applies the commit, once."""
    repository.push({"a.yaml": manifest("alpha", "1 1 * * *"), "c.yaml": manifest("gamma")})
    before, replace = state(it.database), sync.replace_findings

    async def broken(conn: Any, *arguments: Any, **named: Any) -> None:
        pid = (await conn.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
        it.database.do("SELECT pg_terminate_backend(%s)", pid)
        await replace(conn, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(sync, "replace_findings", broken)
        await it.poll()
    assert state(it.database) == before
    assert it.source()["failures"] == 0, "it is not the source's fault"
    assert await it.poll() == {"main": "applied"}
    assert (it.names(), it.task("alpha")["generation"]) == (["alpha", "beta", "gamma"], 2)


@story("database-lost-after-commit")
async def lost_after_commit(it: Following, repository: Repository, _: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the answer to a commit is lost, the next pass finds by the row that it is applied, and does nothing."""
    commit = repository.push({"a.yaml": manifest("alpha", "1 1 * * *")})
    transaction = plans.in_transaction_with_margin

    async def lost(*arguments: Any) -> Any:
        await transaction(*arguments)
        raise DatabaseError("the database went away")

    with monkeypatch.context() as patch:
        patch.setattr(plans, "in_transaction_with_margin", lost)
        await it.poll()
    assert it.source()["applied_commit"] == commit
    assert await it.poll() == {"main": "unchanged"}
    assert it.task("alpha")["generation"] == 2
    assert [run["outcome"] for run in it.runs()] == ["applied", "applied"]


@story("clock-skew")
async def clock_skew(it: Following, repository: Repository, _: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a commit says of its time orders nothing, nor does the machine's clock: the branch and the database do."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    for date, cron in (("2099-01-01T00:00:00Z", "1 1 * * *"), ("1990-01-01T00:00:00Z", "2 2 * * *")):
        repository.write({"a.yaml": manifest("alpha", cron)})
        repository.git("add", "--all")
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        git(repository.work, "commit", "--quiet", "--message", "skewed", **dates)
        repository.git("push", "--quiet", "origin", "HEAD:refs/heads/main")
        assert await it.poll() == {"main": "applied"}
        task = it.task("alpha")
        assert (task["spec"]["schedule"]["cron"], task["committed_at"].year) == (cron, int(date[:4]))
    lease = it.database.value("SELECT next_poll_at - now() < interval '2 hours' FROM sources")
    assert lease, "the next look is reckoned from the database's clock"


@story("kind-renamed")
async def kind_renamed(it: Following, repository: Repository, _: Path, __: pytest.MonkeyPatch) -> None:
    """A document that becomes another kind under its name is a removal and a creation, in one commit."""
    group = "apiVersion: cron-observer/v1\nkind: TaskGroup\nmetadata:\n  name: beta\nspec:\n  maxParallel: 1\n"
    repository.push({"b.yaml": group})
    assert await it.poll() == {"main": "applied"}
    assert it.names() == ["alpha"]
    assert it.database.value("SELECT name FROM task_groups WHERE removed_at IS NULL") == "beta"
    assert it.runs()[0]["counts"]["groups_created"] == it.runs()[0]["counts"]["removed"] == 1


@story("group-broken")
async def group_broken(it: Following, repository: Repository, _: Path, __: pytest.MonkeyPatch) -> None:
    """Tasks go on with the last good version of a broken group; one that names what never was waits, alone."""
    head = "apiVersion: cron-observer/v1\nkind: TaskGroup\nmetadata:\n  name: night\n"
    repository.push({"group.yaml": f"{head}spec:\n  maxParallel: 1\n", "a.yaml": manifest("alpha", group="night")})
    await it.poll()
    changed = {"group.yaml": f"{head}spec:\n  maxParallel: many\n", "c.yaml": manifest("gamma", group="never")}
    repository.push({**changed, "b.yaml": manifest("beta", "5 5 * * *")})
    assert await it.poll() == {"main": "applied"}
    assert it.names() == ["alpha", "beta"]
    assert it.task("alpha")["sync"] == "SYNCED"
    assert it.task("beta")["generation"] == 2
    assert it.database.value("SELECT sync FROM task_groups WHERE name = 'night'") == "KEPT_LAST_GOOD"
    assert {one["path"] for one in it.findings()} == {"c.yaml", "group.yaml"}


@story("odd-paths")
async def odd_paths(it: Following, repository: Repository, _: Path, __: pytest.MonkeyPatch) -> None:
    """Paths that differ in case alone, or hold blanks, quotes and letters of any script, are files like others."""
    names = ["x/Task.yaml", "x/task.yaml", "sp ace.yaml", 'quo"te.yaml', "ünï/日本.yaml", "-dash.yaml"]
    repository.push({name: manifest(f"odd-{n}") for n, name in enumerate(names)})
    assert await it.poll() == {"main": "applied"}
    assert it.findings() == []
    paths = it.database.rows("SELECT path FROM tasks WHERE name LIKE 'odd-%%' ORDER BY name")
    assert [row["path"] for row in paths] == names
    repository.push(dict.fromkeys(names[:3]))
    await it.poll()
    assert it.names() == ["alpha", "beta", "odd-3", "odd-4", "odd-5"]


@story("sources-overlap")
async def sources_overlap(it: Following, repository: Repository, folder: Path, _: pytest.MonkeyPatch) -> None:
    """Two sources that read the same files are refused before either is looked at; neighbours are not."""

    def follow(*paths: tuple[str, ...], project: str = "default") -> Reconciler:
        several = [
            SourceSettings(name=f"s{n}", url=str(repository.bare), paths=one, project=project if n else "default")
            for n, one in enumerate(paths)
        ]
        return Reconciler(it.database.reconciler, Settings(data_dir=folder, sources=tuple(several)), listen=False)

    for paths in ([(), ()], [("tasks",), ("tasks/",)], [("tasks",), ("other", "tasks/a")], [("a",), ()]):
        with pytest.raises(SettingsError, match="s0 and s1 read the same files"):
            follow(*paths)
    for others in (follow(("tasks",), ("tasks-b",)), follow((), (), project="other")):
        await others.close()
