"""Removals that wait: what a push may take away without being asked, and how somebody lets the rest go."""

from __future__ import annotations

from pathlib import Path

from cron_observer.store import approvals
from cron_observer.store.engine import clock
from support.databases import Tenant
from support.repositories import Following, Repository, following, manifest

NAMES = "abcdefghij"


def files(names: str = NAMES, **spec: str) -> dict[str, str | bytes | None]:
    """Return the manifests of tasks, each in a file of its own."""
    return {f"{name}.yaml": manifest(name, **spec) for name in names}


def without(names: str) -> dict[str, str | bytes | None]:
    """Return the same files, removed."""
    return {f"{name}.yaml": None for name in names}


def held(it: Following) -> dict[str, str]:
    """Return what waits, and for what, as the source says it."""
    return {one["name"]: one["reason"] for one in it.source()["held"] or ()}


async def approve(it: Following, plan_hash: str | None = None) -> bool:
    """Approve what waits, as the API does."""
    chosen = plan_hash or it.source()["plan_hash"]
    tenant = it.tenant
    async with it.database.api.transaction([tenant.tenant_id]) as conn:
        return await approvals.add(
            conn, tenant.tenant_id, "main", plan_hash=chosen, reason="meant", actor="ada", now=await clock(conn)
        )


def waiting(it: Following, names: str) -> int:
    """Count the slots of tasks that wait."""
    query = (
        "SELECT count(*) FROM executions JOIN tasks USING (tenant_id, task_uid) "
        "WHERE executions.status = 'PENDING' AND name = ANY(%s)"
    )
    return int(it.database.value(query, list(names)))


async def test_too_much_at_once_waits_for_an_approval(tenant: Tenant, tmp_path: Path) -> None:
    """Removing 60 % of the tasks changes none of them until somebody approves exactly that, which works once."""
    repository = Repository.make(tmp_path)
    repository.push(files())
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        slots, before = waiting(it, "abcdefghi"), it.task("a")
        assert slots >= 9
        repository.push({**without("abcdef"), "j.yaml": manifest("j", "0 5 * * *")}, "Clean up")
        assert await it.sync() == "applied"
        assert held(it) == dict.fromkeys("abcdef", "too_many")
        assert it.task("j")["spec"]["schedule"]["cron"] == "0 5 * * *", "what else is in the push is applied"
        after = it.task("a")
        assert {name for name in after if after[name] != before[name]} == {"sync", "updated_at"}
        assert (it.names(), waiting(it, "abcdefghi")) == (list(NAMES), slots)
        assert {(one["path"], one["code"], one["severity"]) for one in it.findings()} == {
            (f"{name}.yaml", "CO1507", "warning") for name in "abcdef"
        }
        plan_hash = it.source()["plan_hash"]
        assert it.findings()[0]["hint"].endswith(f"cron-observer sources approve main {plan_hash}")
        assert not await approve(it, "0" * 64), "what does not wait is not approved"
        await it.sync()
        assert it.runs()[0]["outcome"] == "unchanged"
        assert it.source()["plan_hash"] == plan_hash, "the same plan has the same hash"
        assert await approve(it)
        assert await it.sync() == "applied"
        assert (it.names(), it.findings(), held(it)) == (list("ghij"), [], {})
        (one,) = it.database.rows("SELECT * FROM approvals")
        assert (one["plan_hash"], one["run_id"]) == (plan_hash, it.runs()[0]["run_id"])
        repository.push(files("abcdef"))
        await it.sync()
        assert it.task("a")["task_uid"] == before["task_uid"]
        repository.push(without("abcdef"))
        await it.sync()
        assert held(it) == dict.fromkeys("abcdef", "too_many"), "an approval is used up, and of another commit"


async def test_an_approval_is_of_one_commit(tenant: Tenant, tmp_path: Path) -> None:
    """What was approved for one commit is not carried out for the next one, though the removals are the same."""
    repository = Repository.make(tmp_path)
    repository.push(files())
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push(without("abcdef"))
        await it.sync()
        assert await approve(it)
        first = it.source()["plan_hash"]
        repository.push({"k.yaml": manifest("k")})
        await it.sync()
        assert it.names() == [*NAMES, "k"]
        assert it.source()["plan_hash"] not in (None, first)


async def test_a_few_removals_are_carried_out(tenant: Tenant, tmp_path: Path) -> None:
    """Up to the limit nobody is asked, and a removal that waited goes when there are no longer too many of them."""
    repository = Repository.make(tmp_path)
    repository.push(files())
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push(without("abcde"))
        await it.sync()
        assert (it.names(), held(it)) == (list("fghij"), {})
    async with following(tenant, repository.bare, tmp_path, max_deletes=1) as it:
        repository.push(without("fg"))
        await it.sync()
        assert held(it) == {"f": "too_many", "g": "too_many"}
        repository.push(files("g"))
        await it.sync()
        assert (it.names(), held(it), it.findings()) == (list("ghij"), {}, [])


async def test_all_of_a_kind_and_an_empty_tree(tenant: Tenant, tmp_path: Path) -> None:
    """The last two groups, and the last manifest of all, do not go unasked; a revert ends the waiting."""
    repository = Repository.make(tmp_path)
    group = "apiVersion: cron-observer/v1\nkind: TaskGroup\nmetadata:\n  name: {}\nspec:\n  maxParallel: 1\n"
    repository.push({"x.yaml": group.format("x"), "y.yaml": group.format("y"), **files("a")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push(without("xy"))
        await it.sync()
        assert held(it) == {"x": "all_of_kind", "y": "all_of_kind"}
        repository.git("revert", "--no-edit", "HEAD")
        repository.push(None)
        await it.sync()
        assert (held(it), it.findings(), it.conditions().get("PrunePending")) == ({}, [], None)
        repository.push(without("axy"), "Remove everything")
        await it.sync()
        assert held(it) == dict.fromkeys("axy", "empty_tree")
        assert it.names() == ["a"]
        assert await approve(it)
        await it.sync()
        assert (it.names(), held(it)) == ([], {})


async def test_the_flag_of_the_task_in_force_counts(tenant: Tenant, tmp_path: Path) -> None:
    """Removing lifecycle and the task in one commit holds as well; in two commits it is removed."""
    repository = Repository.make(tmp_path)
    confirm, disabled = "{prune: confirm}", "{prune: disabled}"
    both = manifest("a", lifecycle=confirm) + "---\n" + manifest("b", lifecycle=disabled)
    repository.push({"ab.yaml": both, **files("cdef")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"ab.yaml": None})
        await it.sync()
        assert held(it) == {"a": "confirm", "b": "disabled"}
        assert [(one["path"], one["code"], one["name"]) for one in it.findings()] == [
            ("ab.yaml", "CO1507", "a"),
            ("ab.yaml", "CO1507", "b"),
        ]
        assert await approve(it)
        await it.sync()
        assert (it.names(), held(it)) == (list("bcdef"), {"b": "disabled"})
        repository.push({"b.yaml": manifest("b")})
        await it.sync()
        assert (held(it), it.findings(), it.task("b")["sync"]) == ({}, [], "SYNCED")
        repository.push({"b.yaml": None})
        await it.sync()
        assert (it.names(), held(it)) == (list("cdef"), {})


async def test_nothing_is_pruned(tenant: Tenant, tmp_path: Path) -> None:
    """With prune = false removals are held for as long as it is said; then they are carried out."""
    repository = Repository.make(tmp_path)
    repository.push(files())
    async with following(tenant, repository.bare, tmp_path, prune=False) as it:
        await it.reconciler.tick()
        repository.push(without("a"))
        await it.sync()
        assert (held(it), it.source()["plan_hash"]) == ({"a": "prune_off"}, None)
        assert it.conditions()["Ready"].startswith("True")
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.sync()
        assert (it.names(), held(it), it.findings()) == (list("bcdefghij"), {}, [])


async def test_an_unparseable_file_holds_whatever_is_approved(tenant: Tenant, tmp_path: Path) -> None:
    """While nobody knows what a file declares nothing goes; when it is mended what was held is judged anew."""
    repository = Repository.make(tmp_path)
    repository.push(files())
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({**without("abcdef"), "j.yaml": "kind: [\n"})
        await it.sync()
        assert held(it) == dict.fromkeys("abcdef", "unparseable")
        assert it.source()["plan_hash"] is None
        repository.push({"j.yaml": manifest("j") + "---\n" + manifest("f")})
        await it.sync()
        assert (it.names(), held(it), it.findings()) == (list("fghij"), {}, [])


def kind_of(text: str, kind: str, spec: str) -> str:
    """Write the same name as another kind."""
    return text.split("kind:", maxsplit=1)[0] + f"kind: {kind}\nmetadata:\n  name: a\nspec:\n{spec}"


async def test_a_kind_that_changes_in_place_is_a_removal(tenant: Tenant, tmp_path: Path) -> None:
    """A Task that becomes a TaskGroup is created as such; the task goes, if no guard holds it."""
    repository = Repository.make(tmp_path)
    repository.push({**files("b"), "a.yaml": manifest("a", lifecycle="{prune: confirm}")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"a.yaml": kind_of(manifest("a"), "TaskGroup", "  maxParallel: 1\n")})
        await it.sync()
        assert [row["name"] for row in it.database.rows("SELECT name FROM task_groups")] == ["a"]
        assert (held(it), it.names()) == ({"a": "confirm"}, ["a", "b"])
        assert await approve(it)
        await it.sync()
        assert (it.names(), it.findings()) == (["b"], [])
