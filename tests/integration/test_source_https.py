"""Fetching from a real Git server over HTTP(S): credentials, authorities, and servers that misbehave."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cron_observer.errors import SourceError
from cron_observer.secret import LONGEST
from cron_observer.source import command, remote
from support.git_servers import Authority, Forge, forge
from support.repositories import Repository, manifest, source_of

TOKEN = "s3cret/t0ken+@x"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository that forges serve as ``tasks.git``."""
    made = Repository.make(tmp_path / "served")
    made.push({"a.yaml": manifest("alpha")})
    return made


@pytest.fixture
def plain(repository: Repository) -> Iterator[Forge]:
    """A server that lets everybody in."""
    with forge(repository.bare.parent) as made:
        yield made


def fetched(source: Any) -> str:
    """Look and fetch; return the commit."""
    target = source.fetch(source.resolve())
    assert source.has(target.id)
    return str(target.id)


def refusal(source: Any) -> SourceError:
    """Look and fetch; return why that fails. No process of Git is left, and no half of a fetch."""
    with pytest.raises(SourceError) as refused:
        fetched(source)
    assert refused.value.hint
    assert list(source.mirror.parent.glob("*.new-*")) == []
    assert list(source.mirror.glob("objects/pack/tmp_*")) == []
    deadline = time.monotonic() + 30
    while found := talking(source.address.url):
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return refused.value


def talking(url: str) -> list[bytes]:
    """Return the command lines of processes that hold an address."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if url.encode() in line:
            found.append(line)
    return found


def test_a_fetch_by_http_backend(repository: Repository, plain: Forge, tmp_path: Path) -> None:
    """What a forge serves is fetched, and what is new the next time."""
    source = source_of(plain.url(), tmp_path / "cache")
    assert fetched(source) == repository.head()
    newer = repository.push({"b.yaml": manifest("beta")})
    assert fetched(source) == newer


@pytest.mark.parametrize("kind", ["env", "file"])
@pytest.mark.parametrize(
    ("given", "user"), [(TOKEN, "x-access-token"), (f"robot:{TOKEN}", "robot"), (f"robot:{TOKEN}:x", "robot")]
)
def test_credentials_are_read_at_every_command(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, given: str, user: str
) -> None:
    """A token or a user with a password opens the repository; when it is rotated, the next look has the new one."""
    file = tmp_path / "token"
    ref = "env:FORGE_TOKEN" if kind == "env" else f"file:{file}"

    def put(value: str) -> None:
        file.write_text(f"{value}\n")
        monkeypatch.setenv("FORGE_TOKEN", value)

    put(given)
    password = given.removeprefix("robot:")
    with forge(repository.bare.parent, login=f"{user}:{password}") as it:
        source = source_of(it.url(), tmp_path / "cache", credentials_ref=ref)
        assert fetched(source) == repository.head()
        it.login = f"{user}:rotated"
        assert refusal(source).reason == "AuthenticationFailed"
        put(given.replace(password, "rotated"))
        assert fetched(source) == repository.head()
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes()
    config = source.mirror.with_suffix(".gitconfig")
    assert config.stat().st_mode & 0o777 == 0o600


def test_a_user_of_the_address_goes_with_a_token(repository: Repository, tmp_path: Path) -> None:
    """A forge that wants a certain user for tokens finds it in the address, without the token."""
    (tmp_path / "token").write_text(TOKEN)
    with forge(repository.bare.parent, login=f"oauth2:{TOKEN}") as it:
        url = it.url(login="oauth2")
        source = source_of(url, tmp_path / "cache", credentials_ref=f"file:{tmp_path / 'token'}")
        assert fetched(source) == repository.head()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("", "is not set, or is empty"),
        ("\n", "is not set, or is empty"),
        ("one\ntwo\n", "more than one line"),
        ("x" * (LONGEST + 1), f"more than {LONGEST} bytes"),
    ],
)
def test_credentials_that_are_not_to_be_had(
    plain: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, said: str
) -> None:
    """A variable that is not set, and a file that is not there, are AuthenticationFailed before anything is asked."""
    if content is not None:
        (tmp_path / "token").write_text(content)
    refused = refusal(source_of(plain.url(), tmp_path / "cache", credentials_ref=f"file:{tmp_path / 'token'}"))
    assert refused.reason == "AuthenticationFailed"
    assert said in refused.message
    monkeypatch.delenv("NO_TOKEN", raising=False)
    refused = refusal(source_of(plain.url(), tmp_path / "cache", credentials_ref="env:NO_TOKEN"))
    assert (refused.reason, refused.message) == (
        "AuthenticationFailed",
        "the secret env:NO_TOKEN is not set, or is empty",
    )
    assert plain.seen == []


def test_an_authority_is_named(repository: Repository, tmp_path: Path) -> None:
    """A certificate of our own authority is accepted when ca_file names it; no other, and none without it."""
    ours, other = Authority.make(tmp_path / "ours"), Authority.make(tmp_path / "other")
    with forge(repository.bare.parent, authority=ours) as it:
        named = tmp_path / "named.pem"
        named.write_bytes(other.file.read_bytes())
        source = source_of(it.url(), tmp_path / "cache", ca_file=named)
        assert refusal(source).reason == "CertificateRefused"
        named.write_bytes(ours.file.read_bytes())
        assert fetched(source) == repository.head()
        assert refusal(source_of(it.url(), tmp_path / "cache1")).reason == "CertificateRefused"
        missing = refusal(source_of(it.url(), tmp_path / "cache2", ca_file=tmp_path / "none.pem"))
        assert (missing.reason, missing.permanent) == ("CertificateRefused", True)
        assert "none.pem, which cannot be read" in missing.message
        named.write_bytes(b"no certificate")
        assert refusal(source).reason == "CertificateRefused"


#: What the server does, where, and the word for it.
FAULTS = [
    ("401", "", "AuthenticationFailed"),
    ("403", "", "AuthenticationFailed"),
    ("404", "", "RepositoryNotFound"),
    ("410", "", "RepositoryNotFound"),
    ("429", "", "Unreachable"),
    ("500", "", "Unreachable"),
    ("502", "upload-pack", "Unreachable"),
    ("503", "", "Unreachable"),
    ("page", "", "RepositoryNotFound"),
    ("garbage", "info/refs", "Unreachable"),
    ("garbage", "/git-upload-pack", "Unreachable"),
    ("reset:0", "info/refs", "Unreachable"),
    ("reset:100", "info/refs", "Unreachable"),
    ("reset:100", "/git-upload-pack", "Unreachable"),
    ("reset:0", "/git-upload-pack", "Unreachable"),
    ("403", "/git-upload-pack", "AuthenticationFailed"),
]


@pytest.mark.parametrize(("fault", "where", "reason"), FAULTS)
def test_every_trouble_has_its_word(
    repository: Repository, plain: Forge, tmp_path: Path, fault: str, where: str, reason: str
) -> None:
    """Whatever a server answers, the source says what it is; when the server is well again, so is the source."""
    source = source_of(plain.url(), tmp_path / "cache")
    plain.fails(fault, where)
    refused = refusal(source)
    assert refused.reason == reason, refused.message
    plain.fails(None)
    assert fetched(source) == repository.head()
    newer = repository.push({"b.yaml": manifest("beta")})
    plain.fails(fault, where)
    assert refusal(source).reason == reason
    plain.fails(None)
    assert fetched(source) == newer


@pytest.mark.parametrize("fault", ["hang", "drip", "stall:10", "stall:0"])
@pytest.mark.parametrize("where", ["info/refs", "/git-upload-pack"])
def test_whoever_is_slow_is_given_up(
    repository: Repository, plain: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, where: str
) -> None:
    """A server that hangs, drips or stalls costs no more than the bound of time, and nothing of it is left."""
    monkeypatch.setattr(remote, "LOOK_SECONDS", 1.0)
    monkeypatch.setattr(remote, "FETCH_SECONDS", 1.0)
    source = source_of(plain.url(), tmp_path / "cache")
    plain.fails(fault, where, (1, 0.1))
    began = time.monotonic()
    refused = refusal(source)
    assert refused.reason == "Timeout"
    assert not refused.permanent
    assert time.monotonic() - began < 25
    plain.fails(None)
    monkeypatch.undo()
    assert fetched(source) == repository.head()


def test_a_stall_ends_before_the_wall(
    repository: Repository, plain: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server from which next to nothing comes is given up by Git itself, long before the bound of the fetch."""
    monkeypatch.setattr(command, "LOW_SPEED_SECONDS", 1)
    source = source_of(plain.url(), tmp_path / "cache")
    plain.fails("stall:10", "/git-upload-pack")
    began = time.monotonic()
    refused = refusal(source)
    assert (refused.reason, refused.permanent) == ("Timeout", False), refused.message
    assert time.monotonic() - began < 60


def test_a_redirect_is_followed_but_takes_no_credentials_along(repository: Repository, tmp_path: Path) -> None:
    """A repository that has moved is found; a server elsewhere is shown no credentials of the first."""
    with forge(repository.bare.parent, login=f"robot:{TOKEN}") as it, forge(repository.bare.parent) as elsewhere:
        (tmp_path / "token").write_text(f"robot:{TOKEN}")
        source = source_of(it.url(), tmp_path / "cache", credentials_ref=f"file:{tmp_path / 'token'}")
        it.fails(f"redirect:http://127.0.0.1:{elsewhere.port}")
        assert fetched(source) == repository.head()
        elsewhere.login = f"robot:{TOKEN}"
        assert refusal(source).reason == "AuthenticationFailed"
        assert elsewhere.seen
        assert {given for _, given in elsewhere.seen} == {None}


@pytest.mark.parametrize("place", ["ftp://127.0.0.1/", "file:///srv/", "ext::sh -c id "])
def test_a_redirect_does_not_leave_the_protocol(plain: Forge, tmp_path: Path, place: str) -> None:
    """A server cannot send us to a file or to another protocol."""
    plain.fails(f"redirect:{place}")
    assert refusal(source_of(plain.url(), tmp_path / "cache")).reason in {"Unreachable", "FetchFailed"}


def test_a_server_that_repeats_credentials_does_not_get_them_into_a_message(
    repository: Repository, tmp_path: Path
) -> None:
    """What a server says about us is shown without our secrets, as they are and as HTTP writes them."""
    (tmp_path / "token").write_text(f"robot:{TOKEN}")
    with forge(repository.bare.parent, login=f"robot:{TOKEN}") as it:
        source = source_of(it.url(), tmp_path / "cache", credentials_ref=f"file:{tmp_path / 'token'}")
        assert fetched(source)
        it.login = "nobody:"
        fetched_again = refusal(source)
        it.fails("echo")
        echoed = refusal(source)
    for refused in (fetched_again, echoed):
        assert refused.reason == "AuthenticationFailed"
        assert TOKEN not in repr(refused) + refused.message + str(refused.hint)
        assert "cm9ib3Q6" not in refused.message


def large(repository: Repository, megabytes: int, name: str = "large.bin") -> str:
    """Push a file that cannot be compressed."""
    return repository.push({name: os.urandom(megabytes * 1024 * 1024)})


def test_a_repository_that_is_too_large_is_left(repository: Repository, plain: Forge, tmp_path: Path) -> None:
    """A fetch that would take more room than allowed is ended in its midst, and what it took is given back."""
    small = repository.head()
    source = source_of(plain.url(), tmp_path / "cache", max_bytes=1024 * 1024)
    assert fetched(source) == small
    large(repository, 6)
    plain.fails("drip", "/git-upload-pack", (128 * 1024, 0.05))
    refused = refusal(source)
    assert (refused.reason, refused.permanent) == ("TooLarge", True)
    assert remote.size(tmp_path / "cache") < 1024 * 1024
    asked = len(plain.seen)
    assert refusal(source).reason == "TooLarge"
    assert [path for path, _ in plain.seen[asked:] if path.endswith("/git-upload-pack")][1:] == [], "only a look"
    assert source.has(small)
    plain.fails(None)
    repository.git("reset", "--quiet", "--hard", small)
    again = repository.push({"b.yaml": manifest("beta")}, force=True)
    assert fetched(source) == again


def test_a_first_fetch_that_is_too_large_leaves_nothing(repository: Repository, plain: Forge, tmp_path: Path) -> None:
    """A fetch that was faster than whoever watches is judged when it ends."""
    large(repository, 3)
    source = source_of(plain.url(), tmp_path / "cache", max_bytes=1024 * 1024)
    assert refusal(source).reason == "TooLarge"
    assert remote.size(tmp_path / "cache") < 100_000
    assert not source.mirror.exists()


def test_endless_listings_are_cut(
    repository: Repository, plain: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that unfolds to more files than anybody has is TooLarge, whether it is listed or compared."""
    monkeypatch.setattr(command, "MOST_OUTPUT", 1024 * 1024)
    monkeypatch.setattr(command, "MOST_MEMORY", 64 * 1024 * 1024)
    repository.commit({f"d/{number}.yaml": "x" for number in range(10)})
    before = repository.push()
    tree = repository.git("rev-parse", "HEAD:d")
    for _ in range(9):
        entries = "".join(f"040000 tree {tree}\t{number}\n" for number in range(10))
        made = subprocess.run(["git", "mktree"], cwd=repository.work, input=entries.encode(), capture_output=True)
        tree = made.stdout.decode().strip()
    commit = repository.git("commit-tree", tree, "-p", before, "-m", "a billion files")
    repository.git("push", "--quiet", "origin", f"{commit}:refs/heads/main")
    source = source_of(plain.url(), tmp_path / "cache")
    target = source.fetch(source.resolve())
    for known, since in (({}, None), (None, before)):
        with pytest.raises(SourceError) as refused:
            source.changes(target, since, known)
        assert refused.value.reason == "TooLarge"
