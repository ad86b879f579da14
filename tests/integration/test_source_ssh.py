"""Fetching from a real sshd: keys and host keys of the settings, and what happens when they are wrong."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from cron_observer.errors import SourceError
from cron_observer.source import remote
from support.git_servers import Sshd, sshd
from support.processes import free_port
from support.repositories import Repository, manifest, source_of
from support.signing import SshKey
from support.tools import need

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run an sshd that knows its account"),
]


@pytest.fixture
def key(tmp_path: Path) -> SshKey:
    """A key of the source."""
    need("ssh-keygen")
    return SshKey.make(tmp_path / "a key")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with a commit."""
    made = Repository.make(tmp_path / "served")
    made.push({"a.yaml": manifest("alpha")})
    return made


def opened(server: Sshd, repository: Repository, folder: Path, **settings: Any) -> Any:
    """Open the repository as a source."""
    return source_of(server.url(repository.bare), folder / "cache", known_hosts=server.known_hosts, **settings)


def refusal(source: Any) -> SourceError:
    """Look; return why that fails."""
    with pytest.raises(SourceError) as refused:
        source.resolve()
    assert refused.value.hint
    return refused.value


def test_a_fetch_with_a_key(repository: Repository, key: SshKey, tmp_path: Path) -> None:
    """With its key and the server's host key the source is fetched, and nothing is written into either file."""
    with sshd(tmp_path / "sshd", key) as server:
        before = server.known_hosts.read_bytes()
        source = opened(server, repository, tmp_path, ssh_key=key.path)
        assert source.fetch(source.resolve()).id == repository.head()
        newer = repository.push({"b.yaml": manifest("beta")})
        assert source.fetch(source.resolve()).id == newer
        assert server.known_hosts.read_bytes() == before


def test_a_key_that_is_not_let_in(repository: Repository, key: SshKey, tmp_path: Path) -> None:
    """A key that the server does not know is AuthenticationFailed; put in its place, the right one counts at once."""
    used = tmp_path / "used"
    other = SshKey.make(tmp_path / "other")
    used.write_bytes(other.path.read_bytes())
    used.chmod(0o600)
    with sshd(tmp_path / "sshd", key) as server:
        source = opened(server, repository, tmp_path, ssh_key=used)
        refused = refusal(source)
        assert (refused.reason, refused.permanent) == ("AuthenticationFailed", True)
        used.write_bytes(key.path.read_bytes())
        assert source.resolve().id == repository.head()


def test_a_host_key_that_is_not_known(repository: Repository, key: SshKey, tmp_path: Path) -> None:
    """Another host key, and none, are HostKeyRefused; the key of the account is not asked for instead."""
    with sshd(tmp_path / "sshd", key) as server:
        source = opened(server, repository, tmp_path, ssh_key=key.path)
        good = server.known_hosts.read_text()
        other = SshKey.make(tmp_path / "other")
        server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {other.public}\n")
        refused = refusal(source)
        assert (refused.reason, refused.permanent) == ("HostKeyRefused", True)
        server.known_hosts.write_text("")
        assert refusal(source).reason == "HostKeyRefused"
        server.known_hosts.write_text(good)
        assert source.resolve().id == repository.head()
        server.known_hosts.unlink()
        refused = refusal(source)
        assert refused.reason == "HostKeyRefused"
        assert "known_hosts, which cannot be read" in refused.message


def test_a_key_that_ssh_would_pass_over(repository: Repository, key: SshKey, tmp_path: Path) -> None:
    """A key that others may read, or that is not there, is told with what mends it."""
    with sshd(tmp_path / "sshd", key) as server:
        source = opened(server, repository, tmp_path, ssh_key=key.path)
        key.path.chmod(0o644)
        refused = refusal(source)
        assert (refused.reason, refused.hint) == ("AuthenticationFailed", f"chmod 600 {key.path}")
        key.path.unlink()
        refused = refusal(source)
        assert refused.reason == "AuthenticationFailed"
        assert "a key, which cannot be read" in refused.message


@pytest.mark.parametrize("name", ['a"b', "a$b", "a\\b"])
def test_names_that_ssh_reads_otherwise_are_refused(
    repository: Repository, key: SshKey, tmp_path: Path, name: str
) -> None:
    """A path cannot smuggle an option or a variable into the settings of ssh."""
    odd = key.path.rename(tmp_path / name)
    source = source_of("ssh://git@127.0.0.1/x.git", tmp_path / "cache", ssh_key=odd)
    assert "reads in ways of its own" in refusal(source).message


def test_a_percent_sign_is_a_percent_sign(repository: Repository, key: SshKey, tmp_path: Path) -> None:
    """ssh replaces %h and the like in paths; ours are what they are."""
    odd = key.path.rename(tmp_path / "100%h")
    Path(f"{key.path}.pub").rename(f"{odd}.pub")
    with sshd(tmp_path / "sshd", SshKey(odd)) as server:
        moved = server.known_hosts.rename(tmp_path / "hosts of %u")
        source = source_of(server.url(repository.bare), tmp_path / "cache", ssh_key=odd, known_hosts=moved)
        assert source.resolve().id == repository.head()


def test_a_repository_that_is_not_there(repository: Repository, key: SshKey, tmp_path: Path) -> None:
    """What the server does not have is RepositoryNotFound."""
    with sshd(tmp_path / "sshd", key) as server:
        source = source_of(
            server.url(tmp_path / "none.git"), tmp_path / "cache", ssh_key=key.path, known_hosts=server.known_hosts
        )
        assert refusal(source).reason == "RepositoryNotFound"


def test_a_server_that_is_not_there_or_says_nothing(
    key: SshKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection is Unreachable, a server that never speaks a Timeout."""
    (tmp_path / "hosts").write_text("")
    settings = {"ssh_key": key.path, "known_hosts": tmp_path / "hosts"}
    source = source_of(f"ssh://git@127.0.0.1:{free_port()}/x.git", tmp_path / "cache", **settings)
    refused = refusal(source)
    assert (refused.reason, refused.permanent) == ("Unreachable", False)
    monkeypatch.setattr(remote, "LOOK_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        source = source_of(f"ssh://git@127.0.0.1:{port}/x.git", tmp_path / "cache", **settings)
        assert refusal(source).reason == "Timeout"
