"""How a source is applied: only observed, suspended, all or nothing, with approved histories and verified commits."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cron_observer.store import approvals, statuses, suspending
from cron_observer.store.engine import clock
from support.databases import Tenant
from support.repositories import Following, Repository, following, git, manifest

BROKEN = manifest("alpha", "not a schedule")


async def approve(it: Following, plan_hash: str) -> bool:
    """Approve what waits in the source ``main``, as the API does."""
    async with it.database.api.transaction([it.tenant.tenant_id]) as conn:
        now = await clock(conn)
        return await approvals.add(
            conn, it.tenant.tenant_id, "main", plan_hash=plan_hash, reason="meant so", actor="key:ada", now=now
        )


async def suspend(it: Following, until: timedelta | None = None) -> None:
    """Suspend the source ``main``, as the API does."""
    async with it.database.api.transaction([it.tenant.tenant_id]) as conn:
        now = await clock(conn)
        end = None if until is None else now + until
        await suspending.suspend(
            conn, it.tenant.tenant_id, "main", reason="freeze", until=end, actor="key:ada", now=now
        )


# Observe


async def test_what_is_observed_is_planned_and_not_applied(tenant: Tenant, tmp_path: Path) -> None:
    """The run counts what a commit would change; no task, no slot, no file is written; another look plans no more."""
    repository = Repository.make(tmp_path)
    commit = repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta"), "c.yaml": manifest("c", "x")})
    async with following(tenant, repository.bare, tmp_path, mode="observe") as it:
        assert await it.reconciler.tick() == {"main": "observed"}
        (run,) = it.runs()
        assert (run["outcome"], run["to_commit"], run["counts"]["created"]) == ("observed", commit, 2)
        assert it.names("true") == []
        assert it.database.rows("SELECT * FROM manifest_files") == []
        assert it.database.value("SELECT count(*) FROM executions") == 0
        assert [one["path"] for one in it.findings()] == ["c.yaml"]
        source = it.source()
        assert (source["observed_commit"], source["applied_commit"]) == (commit, None)
        assert it.conditions()["Applied"] == "False Observing"
        assert await it.poll() == {"main": "unchanged"}
        assert len(it.runs()) == 1


async def test_findings_of_an_observed_commit_end_with_it(tenant: Tenant, tmp_path: Path) -> None:
    """What was wrong in a commit that was only observed is not told of the next one, also where it is as before."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
    async with following(tenant, repository.bare, tmp_path, mode="observe") as it:
        repository.push({"a.yaml": BROKEN, "b.yaml": manifest("b", "x")})
        assert await it.sync() == "observed"
        assert [one["path"] for one in it.findings()] == ["a.yaml", "b.yaml"]
        repository.push({"a.yaml": manifest("alpha"), "b.yaml": None})
        assert await it.sync() == "observed"
        assert it.findings() == []
        assert it.source()["counts"]["errors"] == 0


async def test_enforcing_applies_what_was_observed(tenant: Tenant, tmp_path: Path) -> None:
    """When the mode is changed, the commit that was observed is judged by the new rules, without a new commit."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path, mode="observe") as it:
        assert await it.sync() == "observed"
        assert it.source()["mode"] == "observe"
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.poll() == {"main": "applied"}
        assert it.names() == ["alpha"]
        assert it.conditions()["Ready"] == "True Ready"


# Suspend


async def test_nobody_looks_at_a_suspended_source(tenant: Tenant, tmp_path: Path) -> None:
    """Neither its poll nor `sync` begins a pass; what was asked for meanwhile is done when it is resumed."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        await suspend(it)
        repository.push({"b.yaml": manifest("beta")})
        it.database.do("UPDATE sources SET requested_seq = requested_seq + 1, next_poll_at = now()")
        assert await it.reconciler.tick() == {}
        assert it.names() == ["alpha"]
        async with it.database.api.transaction([tenant.tenant_id]) as conn:
            assert await suspending.resume(conn, tenant.tenant_id, "main")
        assert await it.reconciler.tick() == {"main": "applied"}
        assert it.names() == ["alpha", "beta"]


async def test_a_suspension_with_an_end_ends_by_itself(tenant: Tenant, tmp_path: Path) -> None:
    """From its end on the source is looked at as before, and nothing of the suspension is left."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        await suspend(it, timedelta(hours=1))
        now = it.database.value("SELECT now()")
        it.database.do("UPDATE sources SET next_poll_at = now()")
        assert await it.reconciler.tick(now + timedelta(minutes=59)) == {}
        assert await it.reconciler.tick(now + timedelta(minutes=61)) == {"main": "unchanged"}
        source = it.source()
        assert (source["suspended_at"], source["suspended_by"], source["suspended_until"]) == (None, None, None)


async def test_a_pass_under_way_does_not_apply_to_a_suspended_source(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspension that comes while a commit is being read keeps it out: the apply is fenced by it."""
    from cron_observer.reconcile import passes

    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        gather = passes.gather

        async def slow(*arguments: Any, **named: Any) -> Any:
            found = await gather(*arguments, **named)
            await suspend(it)
            return found

        monkeypatch.setattr(passes, "gather", slow)
        assert await it.reconciler.tick() == {"main": "overtaken"}
        assert it.names("true") == []
        assert it.runs()[0]["outcome"] == "abandoned"


# Atomic


async def test_one_error_keeps_the_whole_commit_out(tenant: Tenant, tmp_path: Path) -> None:
    """Under the atomic policy nothing of a commit with an error is applied; it is not judged again until it differs."""
    repository = Repository.make(tmp_path)
    first = repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path, failure_policy="atomic") as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        repository.push({"a.yaml": BROKEN, "b.yaml": manifest("beta", "1 1 * * *"), "c.yaml": manifest("gamma")})
        assert await it.poll() == {"main": "refused"}
        assert it.names() == ["alpha", "beta"]
        assert it.task("beta")["generation"] == 1
        assert it.task("alpha")["sync"] == "SYNCED"
        assert it.source()["applied_commit"] == first
        assert [one["path"] for one in it.findings()] == ["a.yaml"]
        assert it.conditions()["Ready"] == "False ValidationFailed"
        run = it.runs()[0]
        assert run["outcome"] == "refused"
        assert run["error"].startswith("1 error: nothing of the commit is applied")
        assert await it.poll() == {"main": "unchanged"}
        assert it.conditions()["Ready"] == "False ValidationFailed"
        assert await it.sync() == "refused", "who asks gets a new judgement"
        repository.push({"a.yaml": manifest("alpha", "2 2 * * *")})
        assert await it.poll() == {"main": "applied"}
        assert it.names() == ["alpha", "beta", "gamma"]
        assert it.findings() == []
        assert it.conditions()["Ready"] == "True Ready"


async def test_other_folders_are_read_also_where_removals_wait(tenant: Tenant, tmp_path: Path) -> None:
    """A change of what is read of a repository holds at once, though its commit was judged and a removal waits."""
    repository = Repository.make(tmp_path)
    lasting = manifest("alpha", lifecycle="{prune: confirm}")
    repository.push({"one/a.yaml": lasting, "one/b.yaml": manifest("beta"), "two/c.yaml": manifest("gamma")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"one/a.yaml": None})
        await it.sync()
        assert [one["name"] for one in it.source()["held"]] == ["alpha"]
    async with following(tenant, repository.bare, tmp_path, paths=("one",)) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        assert it.names() == ["alpha", "beta"]


async def test_another_policy_is_another_judgement(tenant: Tenant, tmp_path: Path) -> None:
    """A commit that was refused is judged again when a setting changes that it was refused by."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": BROKEN, "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path, failure_policy="atomic") as it:
        assert await it.sync() == "refused"
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.poll() == {"main": "applied"}
        assert it.names() == ["beta"]


# Histories


async def rewritten(repository: Repository) -> str:
    """Put another history in the place of ``main``; return its commit."""
    repository.git("checkout", "--quiet", "--orphan", "other")
    commit = repository.push({"a.yaml": manifest("alpha", "3 3 * * *")}, "other", force=True)
    repository.git("reflog", "expire", "--expire=now", "--all")
    git(repository.bare, "gc", "--quiet", "--prune=now")
    return commit


async def test_a_push_by_force_is_followed_and_told(tenant: Tenant, tmp_path: Path) -> None:
    """By default what the branch holds now counts, also when the old commit is nowhere but in our mirror."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        commit = await rewritten(repository)
        assert await it.poll() == {"main": "applied"}
        assert it.source()["applied_commit"] == commit
        assert it.runs()[0]["strategy"] == "tree"
        assert it.conditions()["HistoryRewritten"] == "True PushedByForce"
        repository.push({"a.yaml": manifest("alpha", "4 4 * * *")})
        await it.poll()
        assert "HistoryRewritten" not in it.conditions()


async def test_another_history_waits_for_its_approval(tenant: Tenant, tmp_path: Path) -> None:
    """With on_rewrite = hold the old commit stays in force until somebody approves exactly this history."""
    repository = Repository.make(tmp_path)
    first = repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path, on_rewrite="hold") as it:
        await it.reconciler.tick()
        await rewritten(repository)
        assert await it.poll() == {"main": "refused"}
        source = it.source()
        assert source["applied_commit"] == first
        assert [one["reason"] for one in source["held"]] == ["rewritten"]
        assert it.conditions()["Ready"] == "False HistoryRewritten"
        assert it.task("alpha")["spec"]["schedule"]["cron"] == "0 4 * * *"
        assert await it.poll() == {"main": "unchanged"}
        assert not await approve(it, "0" * 64)
        stale = source["plan_hash"]
        second = repository.push({"a.yaml": manifest("alpha", "5 5 * * *")})
        assert await it.poll() == {"main": "refused"}
        assert not await approve(it, stale), "an approval is bound to the commit"
        assert await approve(it, it.source()["plan_hash"])
        assert await it.sync() == "applied"
        assert it.source()["applied_commit"] == second
        assert (it.source()["plan_hash"], it.source()["held"]) == (None, None)
        (used,) = it.database.rows("SELECT * FROM approvals")
        assert used["run_id"] == it.runs()[0]["run_id"]
        assert it.conditions()["Ready"] == "True Ready"


async def test_a_lost_mirror_does_not_let_another_history_in(tenant: Tenant, tmp_path: Path) -> None:
    """Where our copy is gone too, a history without the commit in force is another one all the same."""
    import shutil

    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path, on_rewrite="hold") as it:
        await it.reconciler.tick()
        await rewritten(repository)
        shutil.rmtree(tmp_path / "mirrors")
        assert await it.poll() == {"main": "refused"}
        assert it.names() == ["alpha", "beta"]


# Signatures


async def test_an_unsigned_commit_is_not_applied(tenant: Tenant, tmp_path: Path) -> None:
    """What is not signed by who may is refused with the commit named, and judged again when the keys change."""
    repository = Repository.make(tmp_path)
    first = repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
    keys = tmp_path / "signers"
    keys.write_text("")
    asked = {"verify": "head", "allowed_signers": keys}
    async with following(tenant, repository.bare, tmp_path, **asked) as it:
        second = repository.push({"b.yaml": manifest("beta")})
        assert await it.poll() == {"main": "refused"}
        assert (it.source()["applied_commit"], it.names()) == (first, ["alpha"])
        assert it.conditions()["SourceVerified"] == "False SignatureRefused"
        assert second[:7] in it.source()["conditions"]["SourceVerified"]["message"]
        assert it.source()["failures"] == 0
        assert await it.poll() == {"main": "unchanged"}
        keys.write_text(
            "ada@example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJXJ0dzXzqEo0yLZ4nAvyOOV0uGxVYbFyL8tYbRrjJ0v\n"
        )
        assert await it.poll() == {"main": "refused"}, "other keys, another judgement"
        assert len(it.runs()) == 3


# The forge


@pytest.mark.parametrize(
    ("policy", "state", "says"),
    [
        ("isolate", "failure", "1 applied, 1 invalid: a.yaml:7"),
        ("atomic", "failure", "nothing applied, 1 invalid: a.yaml:7"),
    ],
)
async def test_the_forge_is_told_what_became_of_a_commit(
    tenant: Tenant, tmp_path: Path, policy: str, state: str, says: str
) -> None:
    """The state and the first error are put down in the transaction that ends the run."""
    repository = Repository.make(tmp_path)
    commit = repository.push({"a.yaml": BROKEN, "b.yaml": manifest("beta")})
    forge: dict[str, Any] = {"provider": "github", "status_ref": "env:NO_TOKEN", "failure_policy": policy}
    async with following(tenant, repository.bare, tmp_path, environment="prod", **forge) as it:
        await it.reconciler.tick()
        (row,) = it.database.rows("SELECT * FROM commit_statuses")
        assert (row["commit"], row["context"]) == (commit, "cron-observer/prod/main")
        assert (row["state"], row["description"]) == (state, says)
        assert len(row["description"]) <= statuses.LONGEST


async def test_a_forge_that_nobody_named_is_told_nothing(tenant: Tenant, tmp_path: Path) -> None:
    """Without provider and token no state is put down."""
    repository = Repository.make(tmp_path)
    repository.push({"b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert it.database.rows("SELECT * FROM commit_statuses") == []


# The self-check and what it forgets


async def test_the_self_check_mends_what_the_table_of_files_missed(tenant: Tenant, tmp_path: Path) -> None:
    """Without a new commit nothing is compared until it is time; then everything is, and a difference is mended."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path, self_check_hours=1.0) as it:
        await it.reconciler.tick()
        checked = it.source()["checked_at"]
        assert checked is not None
        it.database.do("UPDATE manifest_files SET blob = 'lost' WHERE path = 'a.yaml'")
        it.database.do("UPDATE tasks SET removed_at = now(), sync = NULL WHERE name = 'alpha'")
        assert await it.poll() == {"main": "unchanged"}
        it.database.do("UPDATE sources SET checked_at = now() - interval '61 minutes'")
        assert await it.poll() == {"main": "applied"}
        assert it.names() == ["alpha", "beta"]
        assert it.runs()[0]["strategy"] == "full"
        assert it.source()["checked_at"] > checked
        it.database.do("UPDATE sources SET checked_at = now() - interval '61 minutes'")
        await it.poll()
        assert it.runs()[0]["outcome"] == "unchanged", "normally it finds nothing"
        assert await it.poll() == {"main": "unchanged"}


async def test_the_self_check_mends_what_is_not_in_force(tenant: Tenant, tmp_path: Path) -> None:
    """A task and a group that somebody removed behind our back are there again, though no file has changed."""
    repository = Repository.make(tmp_path)
    group = "apiVersion: cron-observer/v1\nkind: TaskGroup\nmetadata:\n  name: night\nspec: {}\n"
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta"), "c.yaml": group})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        it.database.do("UPDATE tasks SET removed_at = now() WHERE name = 'alpha'")
        it.database.do("DELETE FROM task_groups")
        assert await it.poll() == {"main": "unchanged"}
        it.database.do("UPDATE sources SET checked_at = now() - interval '7 hours'")
        assert await it.poll() == {"main": "applied"}
        assert it.runs()[0]["counts"] == {"restored": 1, "groups_created": 1, "files": 2, "errors": 0, "warnings": 0}
        assert it.names() == ["alpha", "beta"]
        it.database.do("UPDATE sources SET checked_at = now() - interval '7 hours'")
        await it.poll()
        assert it.runs()[0]["counts"]["files"] == 0


async def test_the_self_check_forgets_what_is_old(tenant: Tenant, tmp_path: Path) -> None:
    """Runs go after 90 days but for the newest 200, deliveries after a day, removed tasks and approvals after 30."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta"), "c.yaml": manifest("gamma")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"b.yaml": None})
        await it.poll()
        it.database.do(
            "INSERT INTO sync_runs (tenant_id, run_id, source_id, trigger, epoch, outcome, started_at) "
            "SELECT tenant_id, ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, source_id, 'poll', 1, "
            "'applied', now() - interval '91 days' FROM sources, generate_series(1, 230) AS n"
        )
        for age in ("25 hours", "1 hour"):
            it.database.do(
                "INSERT INTO hook_deliveries (tenant_id, source_id, delivery, received_at) "
                "SELECT tenant_id, source_id, %s, now() - %s::interval FROM sources",
                age,
                age,
            )
        for age in ("31 days", "29 days"):
            it.database.do(
                "INSERT INTO approvals (tenant_id, approval_id, source_id, plan_hash, actor, created_at) "
                "SELECT tenant_id, gen_random_uuid(), source_id, %s, 'key:ada', now() - %s::interval FROM sources",
                age,
                age,
            )
        it.database.do("UPDATE tasks SET removed_at = now() - interval '31 days' WHERE name = 'beta'")
        it.database.do("UPDATE sources SET checked_at = now() - interval '1 day'")
        await it.poll()
        assert len(it.runs()) == 200
        assert [row["plan_hash"] for row in it.database.rows("SELECT * FROM approvals")] == ["29 days"]
        assert [one["delivery"] for one in it.database.rows("SELECT * FROM hook_deliveries")] == ["1 hour"]
        assert it.task("beta")["deleting_at"] is not None
        assert it.task("alpha")["deleting_at"] is None


async def test_a_run_says_how_it_compared_and_how_long_it_took(tenant: Tenant, tmp_path: Path) -> None:
    """The first comparison is of everything, the next of two trees; each step has its seconds."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"a.yaml": manifest("alpha", "1 1 * * *")})
        await it.poll()
        later, first = it.runs()
        assert (first["strategy"], later["strategy"]) == ("full", "tree")
        assert later["timings"].keys() >= {"resolve", "fetch", "gather", "plan", "apply"}
        assert all(0 <= seconds < 60 for seconds in later["timings"].values())
        assert it.source()["observed_seq"] == 2
