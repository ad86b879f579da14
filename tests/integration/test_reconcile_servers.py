"""The reconciler and a forge that misbehaves: what is in force stays, conditions say why, and it recovers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cron_observer.source import remote
from support.databases import Tenant
from support.git_servers import Authority, Forge, forge, sshd
from support.repositories import Following, Repository, following, git, manifest
from support.signing import SshKey, signed
from support.tools import need

#: What the server does, where, and the reason that the conditions give.
TROUBLE = [
    ("401", "", "AuthenticationFailed"),
    ("403", "/git-upload-pack", "AuthenticationFailed"),
    ("404", "", "RepositoryNotFound"),
    ("429", "", "Unreachable"),
    ("500", "/git-upload-pack", "Unreachable"),
    ("reset:100", "/git-upload-pack", "Unreachable"),
    ("garbage", "", "Unreachable"),
    ("page", "", "RepositoryNotFound"),
    ("hang", "", "Timeout"),
    ("drip", "/git-upload-pack", "Timeout"),
    ("stall:50", "/git-upload-pack", "Timeout"),
]


def in_force(it: Following, *names: str) -> None:
    """Assert that these tasks, and no others, are in force and planned."""
    assert it.names() == list(names)
    assert all(it.task(name)["sync"] == "SYNCED" and it.plan(name)["active"] for name in names)


def reason(it: Following) -> str:
    """Return why the source is not ready; nothing else may have become of what it applied."""
    conditions = it.conditions()
    assert conditions["Applied"] == "True Applied"
    assert conditions["Ready"] == conditions["Fetched"]
    return conditions["Fetched"].removeprefix("False ")


async def test_every_trouble_of_a_forge_is_survived(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one look the conditions have the reason and nothing else changes; the next look after it is well."""
    monkeypatch.setattr(remote, "LOOK_SECONDS", 1.0)
    monkeypatch.setattr(remote, "FETCH_SECONDS", 1.0)
    repository = Repository.make(tmp_path / "served")
    repository.push({"a.yaml": manifest("alpha")})
    (tmp_path / "token").write_text("robot:one")
    authority = Authority.make(tmp_path / "ca")
    with forge(tmp_path / "served", login="robot:one", authority=authority) as server:
        settings = {"credentials_ref": f"file:{tmp_path / 'token'}", "ca_file": authority.file}
        async with following(tenant, server.url(), tmp_path, **settings) as it:
            assert await it.reconciler.tick() == {"main": "applied"}
            for number, (fault, where, why) in enumerate(TROUBLE):
                commit = repository.push({"a.yaml": manifest("alpha", f"{number} 5 * * *")})
                server.fails(fault, where, (1, 0.1))
                assert await it.poll() == {"main": "failed"}, fault
                assert reason(it) == why, fault
                assert it.task("alpha")["generation"] == number + 1
                in_force(it, "alpha")
                server.fails(None)
                assert await it.poll() == {"main": "applied"}, fault
                assert it.conditions()["Ready"] == "True Ready"
                source = it.source()
                assert (source["failures"], source["applied_commit"]) == (0, commit)
            await keys_change(it, server, tmp_path, Authority.make(tmp_path / "other"))


async def keys_change(it: Following, server: Forge, folder: Path, other: Authority) -> None:
    """Rotate what the server asks for, and what it shows; the source follows as soon as its files are right."""
    server.login = "robot:two"
    assert await it.poll() == {"main": "failed"}
    assert reason(it) == "AuthenticationFailed"
    (folder / "token").write_text("robot:two")
    assert await it.poll() == {"main": "unchanged"}
    named = folder / "ca" / "ca.pem"
    good = named.read_bytes()
    named.write_bytes(other.file.read_bytes())
    assert await it.poll() == {"main": "failed"}
    assert reason(it) == "CertificateRefused"
    named.write_bytes(good)
    assert await it.poll() == {"main": "unchanged"}
    in_force(it, "alpha")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run an sshd that knows its account")
async def test_a_server_of_ssh_that_changes_its_keys(tenant: Tenant, tmp_path: Path) -> None:
    """Keys that are refused, on either side, leave what is in force, and count again once they are mended."""
    need("ssh-keygen")
    key = SshKey.make(tmp_path / "key")
    repository = Repository.make(tmp_path / "served")
    repository.push({"a.yaml": manifest("alpha")})
    with sshd(tmp_path / "sshd", key) as server:
        settings = {"ssh_key": key.path, "known_hosts": server.known_hosts}
        async with following(tenant, server.url(repository.bare), tmp_path, **settings) as it:
            assert await it.reconciler.tick() == {"main": "applied"}
            for file, wrong, why in (
                (server.known_hosts, "", "HostKeyRefused"),
                (tmp_path / "sshd/authorized", "", "AuthenticationFailed"),
            ):
                good = file.read_text()
                file.write_text(wrong)
                assert await it.poll() == {"main": "failed"}
                assert reason(it) == why
                in_force(it, "alpha")
                file.write_text(good)
                assert await it.poll() == {"main": "unchanged"}
                assert it.conditions()["Ready"] == "True Ready"


async def test_an_orphan_that_is_pushed_by_force_changes_what_it_changes(tenant: Tenant, tmp_path: Path) -> None:
    """A history without any common commit, also after everything else was pruned, is a difference like any other."""
    repository = Repository.make(tmp_path / "served")
    repository.push({f"{name}.yaml": manifest(name) for name in ("alpha", "beta")})
    with forge(tmp_path / "served") as server:
        async with following(tenant, server.url(), tmp_path) as it:
            await it.reconciler.tick()
            before = {name: it.task(name) for name in ("alpha", "beta")}
            repository.git("checkout", "--quiet", "--orphan", "anew")
            repository.push({"beta.yaml": manifest("beta", "9 9 * * *"), "c.yaml": manifest("gamma")}, force=True)
            git(repository.bare, "reflog", "expire", "--expire=now", "--all")
            git(repository.bare, "gc", "--quiet", "--prune=now")
            (mirror,) = (tmp_path / "mirrors").glob("*.git")
            git(mirror, "gc", "--quiet", "--prune=now")
            assert await it.poll() == {"main": "applied"}
            assert it.runs()[0]["strategy"] == "tree"
            in_force(it, "alpha", "beta", "gamma")
            for name, generation in (("alpha", 1), ("beta", 2), ("gamma", 1)):
                assert it.task(name)["generation"] == generation
            assert it.task("alpha")["task_uid"] == before["alpha"]["task_uid"]
            assert it.task("beta")["task_uid"] == before["beta"]["task_uid"]
            assert it.conditions()["HistoryRewritten"].startswith("True")


@pytest.mark.parametrize("form", ["sha1", "sha256"])
async def test_a_repository_that_was_replaced_is_followed(tenant: Tenant, tmp_path: Path, form: str) -> None:
    """Another repository at the same address, even with other object ids, is compared with what is in force."""
    repository = Repository.make(tmp_path / "served")
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    other = Repository.make(tmp_path / "other", f"--object-format={form}")
    other.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta", "7 7 * * *")})
    with forge(tmp_path / "served") as server:
        async with following(tenant, server.url(), tmp_path) as it:
            await it.reconciler.tick()
            uid = it.task("beta")["task_uid"]
            shutil.rmtree(repository.bare)
            assert await it.poll() == {"main": "failed"}
            assert reason(it) == "RepositoryNotFound"
            in_force(it, "alpha", "beta")
            other.bare.rename(repository.bare)
            assert await it.poll() == {"main": "applied"}
            in_force(it, "alpha", "beta")
            assert (it.task("beta")["task_uid"], it.task("beta")["generation"]) == (uid, 2)
            assert it.task("alpha")["generation"] == 1


async def test_a_branch_that_is_gone_deletes_nothing(tenant: Tenant, tmp_path: Path) -> None:
    """Without its branch, and without any, the source waits; with the branch back it goes on."""
    repository = Repository.make(tmp_path / "served")
    commit = repository.push({"a.yaml": manifest("alpha")})
    git(repository.bare, "branch", "other", "main")
    with forge(tmp_path / "served") as server:
        async with following(tenant, server.url(), tmp_path, ref="main") as it:
            await it.reconciler.tick()
            for gone in ("refs/heads/main", "refs/heads/other"):
                git(repository.bare, "update-ref", "-d", gone)
                assert await it.poll() == {"main": "failed"}
                assert reason(it) == "RefNotFound"
                in_force(it, "alpha")
            git(repository.bare, "update-ref", "refs/heads/main", commit)
            assert await it.poll() == {"main": "unchanged"}
            assert it.conditions()["Ready"] == "True Ready"


async def test_what_is_not_signed_is_not_applied(tenant: Tenant, tmp_path: Path) -> None:
    """A commit that is not signed is refused by name, also below one that is signed; signed anew it counts."""
    need("ssh-keygen")
    key = SshKey.make(tmp_path / "key")
    (tmp_path / "allowed").write_text(key.allowed())
    repository = Repository.make(tmp_path / "served")
    repository.write({"a.yaml": manifest("alpha")})
    first = signed(repository, key.signs())
    settings: dict[str, Any] = {"verify": "range", "allowed_signers": tmp_path / "allowed"}
    with forge(tmp_path / "served") as server:
        async with following(tenant, server.url(), tmp_path, **settings) as it:
            assert await it.reconciler.tick() == {"main": "applied"}
            assert it.conditions()["SourceVerified"].startswith("True")
            repository.write({"b.yaml": manifest("beta")})
            bad = signed(repository, [])
            for _ in range(2):
                assert await it.poll() == {"main": "refused"}
                assert it.conditions()["SourceVerified"] == "False SignatureRefused"
                assert bad[:12] in it.source()["conditions"]["SourceVerified"]["message"]
                in_force(it, "alpha")
                assert it.source()["applied_commit"] == first
                signed(repository, key.signs())
            repository.git("reset", "--quiet", "--soft", first)
            good = signed(repository, key.signs(), "again")
            assert await it.poll() == {"main": "applied"}
            in_force(it, "alpha", "beta")
            assert it.source()["applied_commit"] == good
