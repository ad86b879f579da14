"""Sources that ask for signatures: what is accepted is what Git accepts with the keys of the settings alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cron_observer.errors import SourceError
from cron_observer.source import Target
from support.repositories import Repository, git, source_of
from support.signing import Gpg, SshKey, gpg_home, signed
from support.tools import need

PLAIN: list[str] = []


@pytest.fixture
def key(tmp_path: Path) -> SshKey:
    """A key of ssh, allowed by the file ``allowed`` beside it."""
    need("ssh-keygen")
    made = SshKey.make(tmp_path / "key")
    (tmp_path / "allowed").write_text(made.allowed())
    return made


@pytest.fixture
def gpg() -> Iterator[Gpg]:
    """A home of gpg."""
    need("gpg", "gpgconf")
    with gpg_home() as made:
        yield made


def following(repository: Repository, folder: Path, **settings: Any) -> tuple[Any, Target]:
    """Fetch what the repository has; return the source and its target."""
    source = source_of(repository.bare, folder / "cache", **settings)
    return source, source.fetch(source.resolve())


def refusal(source: Any, target: Target, since: str | None = None) -> str:
    """Return why signatures are refused."""
    with pytest.raises(SourceError) as refused:
        source.verify(target, since)
    assert (refused.value.reason, refused.value.permanent) == ("SignatureRefused", True)
    nothing_left(source)
    return refused.value.message


def nothing_left(source: Any) -> None:
    """Assert that no keyring, and no process that uses one, outlives a verification."""
    assert list(source.mirror.parent.glob("*.keys-*")) == []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                assert f"{source.mirror.with_suffix('.keys-')}".encode() not in (folder / "environ").read_bytes()
            except OSError:
                continue


def test_the_head_is_verified(tmp_path: Path, key: SshKey) -> None:
    """Of `head` the newest commit alone counts: signed by an allowed key it passes, whatever was before."""
    repository = Repository.make(tmp_path)
    signed(repository, PLAIN)
    signed(repository, key.signs())
    source, target = following(repository, tmp_path, verify="head", allowed_signers=tmp_path / "allowed")
    source.verify(target, None)
    nothing_left(source)
    commit = signed(repository, PLAIN)
    target = source.fetch(source.resolve())
    assert refusal(source, target) == f"commit {commit[:12]}, committed by grace@example.org, is not signed"


def test_none_asks_for_nothing(tmp_path: Path) -> None:
    """Without `verify` nothing is looked at."""
    repository = Repository.make(tmp_path)
    signed(repository, PLAIN)
    source, target = following(repository, tmp_path)
    source.verify(target, None)


def test_a_foreign_key_is_refused_until_it_is_allowed(tmp_path: Path, key: SshKey) -> None:
    """A good signature of a key that nobody allowed is none; the file is read anew each time."""
    repository = Repository.make(tmp_path)
    other = SshKey.make(tmp_path / "other")
    commit = signed(repository, other.signs())
    source, target = following(repository, tmp_path, verify="head", allowed_signers=tmp_path / "allowed")
    said = refusal(source, target)
    assert commit[:12] in said
    assert "is signed with a key that may not sign (SHA256:" in said
    (tmp_path / "allowed").write_text(key.allowed() + other.allowed("bob@example.org"))
    source.verify(target, None)
    (tmp_path / "allowed").write_text("")
    assert "may not sign" in refusal(source, target)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_range_names_the_commit_that_is_bad(tmp_path: Path, key: SshKey, bad: int) -> None:
    """One commit that is not signed spoils the range, wherever it stands, and is named."""
    repository = Repository.make(tmp_path)
    since = signed(repository, PLAIN)
    commits = [signed(repository, PLAIN if number == bad else key.signs()) for number in range(3)]
    source, target = following(repository, tmp_path, verify="range", allowed_signers=tmp_path / "allowed")
    assert f"commit {commits[bad][:12]}," in refusal(source, target, since)
    source.verify(target, commits[bad])
    assert f"commit {since[:12]}," in refusal(source, target), "without a beginning the whole history counts"


def test_both_sides_of_a_merge_count(tmp_path: Path, key: SshKey) -> None:
    """A merge that is signed does not vouch for what it merges, and one that is not is named itself."""
    repository = Repository.make(tmp_path)
    since = signed(repository, key.signs())
    repository.git("checkout", "--quiet", "-b", "side")
    side = signed(repository, PLAIN)
    repository.git("checkout", "--quiet", "-B", "main", since)
    repository.write({"main.txt": "main"})
    repository.git("add", "--all")
    repository.git(*key.signs(), "commit", "--quiet", "--message", "main")
    repository.git(*key.signs(), "merge", "--quiet", "--no-ff", "--message", "merge", "side")
    repository.git("push", "--quiet", "--force", "origin", "HEAD:refs/heads/main")
    source, target = following(repository, tmp_path, verify="range", allowed_signers=tmp_path / "allowed")
    assert f"commit {side[:12]}," in refusal(source, target, since)
    source.verify(target, side)
    repository.git("checkout", "--quiet", "-B", "main", "HEAD^1")
    repository.git("merge", "--quiet", "--no-ff", "--message", "not signed", "side")
    repository.git("push", "--quiet", "--force", "origin", "HEAD:refs/heads/main")
    target = source.fetch(source.resolve())
    assert f"commit {repository.head()[:12]}," in refusal(source, target, side)


def test_a_rewritten_history_is_verified_whole(tmp_path: Path, key: SshKey) -> None:
    """After a push by force the range has no beginning: everything that is new to us counts, down to the root."""
    repository = Repository.make(tmp_path)
    since = signed(repository, key.signs())
    source, _ = following(repository, tmp_path, verify="range", allowed_signers=tmp_path / "allowed")
    repository.git("checkout", "--quiet", "--orphan", "anew")
    root = signed(repository, PLAIN, "root")
    signed(repository, key.signs())
    target = source.fetch(source.resolve())
    assert f"commit {root[:12]}," in refusal(source, target, since)
    assert f"commit {root[:12]}," in refusal(source, target, "0" * 40)


def test_a_signature_of_something_else_is_refused(tmp_path: Path, key: SshKey) -> None:
    """A signature that was taken from another commit does not fit."""
    repository = Repository.make(tmp_path)
    signed(repository, key.signs(), "said")
    text = repository.git("cat-file", "commit", "HEAD").replace("\n\nsaid", "\n\nunsaid") + "\n"
    done = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=repository.work,
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    forged = done.stdout.strip()
    repository.git("push", "--quiet", "--force", "origin", f"{forged}:refs/heads/main")
    source, target = following(repository, tmp_path, verify="head", allowed_signers=tmp_path / "allowed")
    assert target.id == forged
    assert "does not fit its content" in refusal(source, target)


def test_keys_may_be_allowed_for_a_time(tmp_path: Path, key: SshKey) -> None:
    """A key that was good when a commit was made signs it; one that was not, does not."""
    (tmp_path / "allowed").write_text(key.allowed(options='valid-after="20240101Z",valid-before="20250101Z"'))
    repository = Repository.make(tmp_path)
    within = signed(repository, key.signs(), date="2024-06-01T12:00:00Z")
    source, target = following(repository, tmp_path, verify="range", allowed_signers=tmp_path / "allowed")
    source.verify(target, None)
    for date in ("2025-06-01T12:00:00Z", "2023-06-01T12:00:00Z"):
        repository.git("reset", "--quiet", "--hard", within)
        late = signed(repository, key.signs(), date=date)
        target = source.fetch(source.resolve())
        assert f"commit {late[:12]}," in refusal(source, target, within), date


def test_committers_are_a_list(tmp_path: Path, key: SshKey) -> None:
    """With `committers` a signed commit of somebody else is refused; letters of either case are one address."""
    repository = Repository.make(tmp_path)
    first = signed(repository, key.signs())
    source, target = following(
        repository, tmp_path, verify="range", allowed_signers=tmp_path / "allowed", committers=("Grace@Example.org",)
    )
    source.verify(target, None)
    other = signed(repository, key.signs(), GIT_COMMITTER_EMAIL="eve@example.org")
    target = source.fetch(source.resolve())
    said = refusal(source, target, first)
    assert said == f"commit {other[:12]} was committed by eve@example.org, who is not in committers"
    odd = signed(repository, key.signs(), GIT_COMMITTER_EMAIL="\x1b[31meve\u202e@example.org")
    target = source.fetch(source.resolve())
    said = refusal(source, target, other)
    assert odd[:12] in said
    assert said.isprintable()
    assert "\u202e" not in said


def test_openpgp_keys_of_the_file_alone_count(
    tmp_path: Path, gpg: Gpg, key: SshKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key in the file signs; one that only the account knows does not, and an ssh key needs a file of its own."""
    ada, eve = gpg.make("ada"), gpg.make("eve")
    keys = tmp_path / "keys.asc"
    keys.write_text(gpg.export(ada))
    monkeypatch.setenv("GNUPGHOME", str(gpg.home))
    repository = Repository.make(tmp_path)
    first = signed(repository, gpg.signs(ada))
    source, target = following(repository, tmp_path, verify="range", gpg_keys=keys)
    source.verify(target, None)
    nothing_left(source)
    second = signed(repository, gpg.signs(eve))
    target = source.fetch(source.resolve())
    assert f"commit {second[:12]}," in refusal(source, target, first)
    keys.write_text(gpg.export(ada) + gpg.export(eve))
    source.verify(target, None)
    third = signed(repository, key.signs())
    target = source.fetch(source.resolve())
    assert f"commit {third[:12]}," in refusal(source, target, second)
    both, target = following(repository, tmp_path, verify="range", gpg_keys=keys, allowed_signers=tmp_path / "allowed")
    both.verify(target, None)


def test_openpgp_keys_expire_and_are_revoked(tmp_path: Path, gpg: Gpg) -> None:
    """A key that has expired or was revoked signs nothing; one whose life was prolonged signs what it signed."""
    old, lasting = gpg.make("old", "10d", at="20240101T000000"), gpg.make("new")
    keys = tmp_path / "keys.asc"
    keys.write_text(gpg.export(old))
    repository = Repository.make(tmp_path)
    first = signed(repository, gpg.signs(old, "20240105T000000"))
    source, target = following(repository, tmp_path, verify="range", gpg_keys=keys)
    said = refusal(source, target)
    assert first[:12] in said
    assert "key that has expired" in said
    gpg.run("--quick-set-expire", old, "0", at="20240106T000000")
    keys.write_text(gpg.export(old))
    source.verify(target, None)
    second = signed(repository, gpg.signs(lasting))
    keys.write_text(gpg.export(old, lasting))
    target = source.fetch(source.resolve())
    source.verify(target, None)
    gpg.revoke(lasting)
    keys.write_text(gpg.export(old, lasting))
    said = refusal(source, target)
    assert second[:12] in said
    assert "key that was revoked" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "no keys are named"),
        ({"allowed_signers": Path("/nowhere/allowed")}, "/nowhere/allowed, which cannot be read"),
        ({"gpg_keys": Path("/nowhere/keys.asc")}, "/nowhere/keys.asc, which cannot be read"),
        ({"gpg_keys": Path("/dev/null")}, "holds no public key"),
    ],
)
def test_keys_that_are_not_to_be_had_refuse(tmp_path: Path, settings: dict[str, Path], said: str) -> None:
    """Where there is nothing to verify with, nothing passes."""
    need("gpg", "ssh-keygen")
    repository = Repository.make(tmp_path)
    signed(repository, PLAIN)
    source, target = following(repository, tmp_path, verify="head", **settings)
    assert said in refusal(source, target)


def test_programs_that_are_missing_refuse(tmp_path: Path, key: SshKey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gpg or ssh-keygen nothing passes, and the package is named."""
    repository = Repository.make(tmp_path)
    signed(repository, key.signs())
    (tmp_path / "keys.asc").write_text("")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").symlink_to("/usr/bin/git")
    ssh, target = following(repository, tmp_path, verify="head", allowed_signers=tmp_path / "allowed")
    openpgp, _ = following(repository, tmp_path, verify="head", gpg_keys=tmp_path / "keys.asc")
    monkeypatch.setenv("PATH", str(programs))
    assert refusal(ssh, target) == "ssh-keygen is not installed"
    assert refusal(openpgp, target) == "gpg is not installed"


def test_a_folder_has_no_signatures(tmp_path: Path) -> None:
    """A plain folder cannot fulfil what is asked of it."""
    source = source_of(tmp_path, tmp_path / "cache", verify="head")
    with pytest.raises(SourceError) as refused:
        source.verify(source.resolve(), None)
    assert refused.value.reason == "SignatureRefused"
    source_of(tmp_path, tmp_path / "cache").verify(Target("x"), None)


def test_repositories_with_sha256_are_verified(tmp_path: Path, key: SshKey) -> None:
    """Long object ids make no difference."""
    repository = Repository.make(tmp_path, "--object-format=sha256")
    signed(repository, key.signs())
    source, target = following(repository, tmp_path, verify="range", allowed_signers=tmp_path / "allowed")
    source.verify(target, None)
    late = signed(repository, PLAIN)
    assert f"commit {late[:12]}," in refusal(source, source.fetch(source.resolve()), target.id)


def test_what_replaces_an_object_does_not_count(tmp_path: Path, key: SshKey) -> None:
    """Notes and replacements that somebody put into the mirror stand in for no commit."""
    repository = Repository.make(tmp_path)
    good = signed(repository, key.signs())
    bad = signed(repository, PLAIN)
    source, target = following(repository, tmp_path, verify="head", allowed_signers=tmp_path / "allowed")
    git(source.mirror, "replace", bad, good, GIT_DIR=str(source.mirror), HOME=os.devnull)
    assert f"commit {bad[:12]}," in refusal(source, target)
