"""Sources that cannot be read: nothing that is applied is touched, and the conditions say why."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from cron_observer.errors import SettingsError, SourceError
from cron_observer.reconcile.passes import BACKOFF_LOCAL, BACKOFF_REMOTE, backoff
from support.databases import Tenant
from support.repositories import Following, Repository, following, git, manifest


def unharmed(it: Following, *names: str) -> None:
    """Assert that these tasks, and no others, are in force and planned."""
    assert it.names() == list(names)
    assert [it.task(name)["sync"] for name in names] == ["SYNCED"] * len(names)
    assert all(it.plan(name)["active"] for name in names)


async def test_a_repository_that_is_gone_deletes_nothing(tenant: Tenant, tmp_path: Path) -> None:
    """A repository that vanishes is a condition; its tasks stay, and it is followed again when it is back."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        away = repository.bare.rename(tmp_path / "away.git")
        assert await it.sync() == "failed"
        assert it.conditions() == {
            "Ready": "False RepositoryNotFound",
            "Fetched": "False RepositoryNotFound",
            "Applied": "True Applied",
            "Validated": "True Valid",
        }
        unharmed(it, "alpha")
        source = it.source()
        assert (source["failures"], source["handled_seq"]) == (1, source["requested_seq"])
        assert it.runs()[0]["outcome"] == "failed"
        assert "does not exist" in it.runs()[0]["error"]
        assert await it.poll() == {"main": "failed"}
        assert len(it.runs()) == 2, "the same failure again is no news"
        assert it.source()["failures"] == 2
        away.rename(repository.bare)
        commit = repository.push({"b.yaml": manifest("beta")})
        assert await it.sync() == "applied"
        unharmed(it, "alpha", "beta")
        assert (it.source()["failures"], it.source()["applied_commit"]) == (0, commit)
        assert it.conditions()["Ready"] == "True Ready"


async def test_a_repository_that_never_was_is_told_and_awaited(tenant: Tenant, tmp_path: Path) -> None:
    """The first pass ends badly and counts; whatever is put there later is followed, repository or folder."""
    async with following(tenant, tmp_path / "nowhere", tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "failed"}
        assert it.source()["first_pass_at"] is not None
        assert it.conditions() == {"Ready": "False RepositoryNotFound", "Fetched": "False RepositoryNotFound"}
        (tmp_path / "nowhere").mkdir()
        (tmp_path / "nowhere" / "a.yaml").write_text(manifest("alpha"))
        assert await it.sync() == "applied"
        assert it.source()["kind"] == "folder"
        unharmed(it, "alpha")


async def test_a_wrong_branch_is_told_with_the_right_one(tenant: Tenant, tmp_path: Path) -> None:
    """A branch that does not exist is RefNotFound, with a hint at one that does."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path, ref="mian") as it:
        assert await it.reconciler.tick() == {"main": "failed"}
        fetched = it.source()["conditions"]["Fetched"]
        assert (fetched["status"], fetched["reason"]) == ("False", "RefNotFound")
        assert "mian" in fetched["message"]
        assert fetched["message"].endswith("it has main")
        git(repository.bare, "branch", "mian", "main")
        assert await it.sync() == "applied"


async def test_a_branch_that_is_deleted_removes_nothing(tenant: Tenant, tmp_path: Path) -> None:
    """A repository whose only branch is gone looks empty, but what was applied stays."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    for ref in (None, "main"):
        async with following(tenant, repository.bare, tmp_path, ref=ref) as it:
            await it.reconciler.tick()
            git(repository.bare, "update-ref", "-d", "refs/heads/main")
            assert await it.sync() == "failed"
            assert it.conditions()["Fetched"] == "False RefNotFound"
            unharmed(it, "alpha")
            repository.git("push", "--quiet", "origin", "HEAD:refs/heads/main")
            assert await it.sync() == "unchanged"


async def test_a_repository_without_commits_is_ready(tenant: Tenant, tmp_path: Path) -> None:
    """A repository without commits has no tasks and is ready, with a named branch as without."""
    repository = Repository.make(tmp_path)
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        assert it.conditions()["Ready"] == "True Ready"
        assert it.source()["applied_commit"] is None
        assert await it.poll() == {"main": "unchanged"}
    async with following(tenant, repository.bare, tmp_path, ref="main") as it:
        await it.reconciler.tick()
        assert it.conditions()["Ready"] == "True Ready"
        repository.push({"a.yaml": manifest("alpha")})
        assert await it.sync() == "applied"
        unharmed(it, "alpha")


async def test_a_corrupt_mirror_is_made_anew(tenant: Tenant, tmp_path: Path) -> None:
    """Whatever happens to our copy, the next change is applied all the same."""
    repository = Repository.make(tmp_path)
    repository.push({f"{number}.yaml": manifest(f"task-{number}") for number in range(5)})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        (mirror,) = (tmp_path / "mirrors").glob("*.git")
        for number, damage in enumerate(("objects", "heads", "gone", "empty", "truncated")):
            if damage == "objects":
                shutil.rmtree(mirror / "objects")
                (mirror / "objects").mkdir()
            elif damage == "heads":
                (mirror / "HEAD").unlink()
            elif damage == "gone":
                shutil.rmtree(mirror)
            elif damage == "empty":
                shutil.rmtree(mirror)
                mirror.mkdir()
            else:
                files = [path for path in (mirror / "objects").rglob("*") if path.is_file()]
                for path in files:
                    path.chmod(0o644)
                    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            repository.push({"0.yaml": manifest("task-0", f"{number} 1 * * *")})
            assert await it.sync() == "applied", damage
            assert it.task("task-0")["spec"]["schedule"]["cron"] == f"{number} 1 * * *"
            assert it.task("task-0")["generation"] == number + 2
            assert it.task("task-1")["generation"] == 1
        unharmed(it, *(f"task-{number}" for number in range(5)))


async def test_a_lock_that_a_killed_fetch_left_behind_is_no_obstacle(tenant: Tenant, tmp_path: Path) -> None:
    """A fetch killed between taking a lock and giving it back does not stop the source for ever."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        (mirror,) = (tmp_path / "mirrors").glob("*.git")
        (observed,) = mirror.rglob("observed")
        observed.with_name("observed.lock").touch()
        repository.push({"b.yaml": manifest("beta")})
        assert await it.sync() == "applied"
        unharmed(it, "alpha", "beta")


async def test_a_damaged_repository_is_the_repositorys_fault(tenant: Tenant, tmp_path: Path) -> None:
    """Objects that are broken at their origin are refused, with what is applied left alone."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"a.yaml": manifest("alpha", "1 1 * * *")})
        for path in [path for path in (repository.bare / "objects").rglob("*") if path.is_file()]:
            path.chmod(0o644)
            path.write_bytes(b"damaged")
        assert await it.sync() == "failed"
        assert it.conditions()["Fetched"].startswith("False ")
        unharmed(it, "alpha")


@pytest.mark.parametrize(
    ("url", "ref"),
    [
        ("ext::sh -c id", None),
        ("fd::17", None),
        ("git://example.org/tasks.git", None),
        ("http://example.org/tasks.git", None),
        ("ssh://-oProxyCommand=x/tasks.git", None),
        ("-oProxyCommand=x:tasks.git", None),
        ("--upload-pack=x", None),
        ("file://elsewhere/srv/tasks.git", None),
        ("https:///tasks.git", None),
        ("https://example.org/a\nb", None),
        ("https://example.org/tasks.git", "--upload-pack=x"),
        ("https://example.org/tasks.git", "-h"),
        ("https://example.org/tasks.git", "refs/heads/a..b"),
        ("https://example.org/tasks.git", "a b"),
        ("https://example.org/tasks.git", "main:refs/heads/x"),
        ("https://example.org/tasks.git", "x.lock"),
    ],
)
async def test_addresses_and_refs_that_could_be_more_are_refused(
    tenant: Tenant, tmp_path: Path, url: str, ref: str | None
) -> None:
    """An address or a ref that Git could take for something else stops the start, before anything is run."""
    with pytest.raises(SettingsError, match="source main"):
        async with following(tenant, url, tmp_path, ref=ref):
            pass


async def test_a_start_without_git_says_so_at_once(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository cannot be followed without Git, a folder can."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="git is not installed"):
        async with following(tenant, "https://example.org/tasks.git", tmp_path):
            pass
    (tmp_path / "a.yaml").write_text(manifest("alpha"))
    async with following(tenant, tmp_path, tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "applied"}


def test_waits_after_failures_grow_and_end() -> None:
    """The wait doubles with each failure, up to a bound that is shorter for what is on this machine."""
    for local, most in ((True, BACKOFF_LOCAL), (False, BACKOFF_REMOTE)):
        waits = [backoff(1.0, failures, local=local) for failures in range(1, 40)]
        assert all(wait <= timedelta(seconds=most) for wait in waits)
        assert timedelta(seconds=0.5) <= waits[0] <= timedelta(seconds=1)
        assert waits[-1] >= timedelta(seconds=most / 2)
    assert backoff(3600.0, 1, local=False) >= timedelta(seconds=1800)


async def test_a_refused_commit_is_not_judged_at_every_look_because_it_is_time_to_check(
    tenant: Tenant, tmp_path: Path
) -> None:
    """While a commit stays refused, a self-check that is due makes one run, not one at every look."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
    keys = tmp_path / "signers"
    keys.write_text("")
    repository.push({"b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path, verify="head", allowed_signers=keys) as it:
        assert await it.poll() == {"main": "refused"}
        it.database.do("UPDATE sources SET checked_at = now() - interval '1 day'")
        assert await it.poll() == {"main": "refused"}
        assert await it.poll() == {"main": "unchanged"}
        assert it.names() == ["alpha"]


async def test_a_failure_that_is_overtaken_by_a_detachment_gives_its_lease_back(tenant: Tenant, tmp_path: Path) -> None:
    """Detaching asks for another look, which does not wait until the lease of the failed one is over."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"b.yaml": manifest("beta")})
        source = it.reconciler._subjects["main"].source
        changes = source.changes

        def broken(*_: object) -> None:
            it.database.do("UPDATE sources SET observed_seq = observed_seq + 1")  # as detaching does
            raise SourceError("it is away", reason="Unreachable", permanent=False)

        source.changes = broken  # type: ignore[method-assign, assignment]
        assert await it.poll() == {"main": "failed"}
        assert it.source()["lease_until"] is None
        assert it.runs()[0]["outcome"] == "abandoned"
        source.changes = changes  # type: ignore[method-assign]
        assert await it.poll() == {"main": "applied"}
