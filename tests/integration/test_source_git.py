"""The Git source by itself: refs, HEADs, foreign owners, credentials, stopping."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cron_observer.errors import SourceError
from cron_observer.source import Target
from support.repositories import Repository, git, manifest, source_of

SECRET = "s3cret/t0ken@x"


def content(source: Any, target: Target) -> dict[str, bytes]:
    """Return path and content of everything that a source holds."""
    entries = source.changes(target, None, {}).added
    return {entry.path: data for entry, data in source.read(entries, 1 << 20)}


def fetched(source: Any) -> Target:
    """Look and fetch."""
    found: Target = source.fetch(source.resolve())
    return found


def test_a_checked_out_repository_follows_what_is_checked_out(tmp_path: Path) -> None:
    """Of a work tree the commits of the current branch count, not the files; a switch of branch is followed."""
    repository = Repository.make(tmp_path)
    first = repository.commit({"a.yaml": "one"})
    source = source_of(repository.work, tmp_path / "cache")
    assert source.resolve() == Target(first, "refs/heads/main")
    repository.write({"a.yaml": "not committed"})
    assert content(source, fetched(source)) == {"a.yaml": b"one"}
    repository.git("checkout", "--quiet", "-f", "-b", "other")
    second = repository.commit({"a.yaml": "two"})
    assert fetched(source) == Target(second, "refs/heads/other")
    repository.git("checkout", "--quiet", "--detach", first)
    assert fetched(source) == Target(first, "HEAD")
    linked = tmp_path / "linked"
    repository.git("worktree", "add", "--quiet", str(linked), "other")
    other = source_of(linked, tmp_path / "cache2")
    assert fetched(other) == Target(second, "refs/heads/other")
    assert any(path.name == "refs" for path, _ in other.watched())


def test_many_objects_are_fetched_at_once_and_stay_unlocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push of many files to a local repository takes one command, which leaves no lock in the mirror's packs."""
    repository = Repository.make(tmp_path)
    repository.commit({"a.yaml": "one"})
    source = source_of(repository.work, tmp_path / "cache")
    fetched(source)
    repository.commit({f"{number}.yaml": f"{number}" for number in range(150)})
    monkeypatch.setattr(source._remote, "_fetch", lambda *_: pytest.fail("the objects were fetched twice"))
    assert len(content(source, fetched(source))) == 151
    assert not list((source.mirror / "objects" / "pack").glob("*.keep"))


@pytest.mark.parametrize("ref", ["v1", "refs/tags/v1", "light", "release/1.0", "refs/heads/release/1.0", "ünï-cödé"])
def test_a_ref_may_be_a_branch_or_a_tag(tmp_path: Path, ref: str) -> None:
    """Branches, annotated and light tags and full names lead to their commit, and are reported in full."""
    repository = Repository.make(tmp_path)
    commit = repository.push({"a.yaml": "one"})
    repository.git("tag", "--annotate", "--message", "first", "v1")
    repository.git("tag", "light")
    repository.git("branch", "release/1.0")
    repository.git("branch", "ünï-cödé")
    repository.git("push", "--quiet", "--all", "origin")
    repository.git("push", "--quiet", "--tags", "origin")
    repository.push({"a.yaml": "two"})
    source = source_of(repository.bare, tmp_path / "cache", ref=ref)
    target = source.resolve()
    assert target.id == commit
    assert target.ref is not None
    assert target.ref.startswith("refs/")
    assert target.ref.endswith(ref)
    assert fetched(source) == target


def test_a_ref_may_be_a_commit(tmp_path: Path) -> None:
    """A whole commit id pins the source; one that is not there is RefNotFound."""
    repository = Repository.make(tmp_path)
    commit = repository.push({"a.yaml": "one"})
    repository.push({"a.yaml": "two"})
    source = source_of(repository.bare, tmp_path / "cache", ref=commit)
    assert content(source, fetched(source)) == {"a.yaml": b"one"}
    missing = source_of(repository.bare, tmp_path / "cache2", ref="0123456789" * 4)
    with pytest.raises(SourceError) as refused:
        missing.fetch(missing.resolve())
    assert refused.value.reason == "RefNotFound"


def test_a_tag_of_no_commit_is_refused(tmp_path: Path) -> None:
    """A ref that leads to a blob has no tree to read."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": "one"})
    repository.git("tag", "blob", repository.git("rev-parse", "HEAD:a.yaml"))
    repository.git("push", "--quiet", "--tags", "origin")
    source = source_of(repository.bare, tmp_path / "cache", ref="blob")
    with pytest.raises(SourceError) as refused:
        source.fetch(source.resolve())
    assert refused.value.reason == "RefNotFound"


def test_a_file_address_is_a_path(tmp_path: Path) -> None:
    """file:// addresses are decoded, and lead to the same as the path."""
    repository = Repository.make(tmp_path / "with space")
    commit = repository.push({"a.yaml": "one"})
    source = source_of(f"file://{tmp_path}/with%20space/tasks.git", tmp_path / "cache")
    assert fetched(source).id == commit
    assert source.address.local


def test_repositories_with_sha256_are_read(tmp_path: Path) -> None:
    """A repository with long object ids is a repository like any other."""
    repository = Repository.make(tmp_path, "--object-format=sha256")
    commit = repository.push({"a.yaml": "one"})
    source = source_of(repository.bare, tmp_path / "cache")
    target = fetched(source)
    assert target.id == commit
    assert len(commit) == 64
    assert content(source, target) == {"a.yaml": b"one"}
    assert source.commits_touching({"a.yaml": source.changes(target, None, {}).added[0].blob}, None, target)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files to somebody else")
@pytest.mark.parametrize("checked_out", [False, True])
def test_a_repository_of_another_account_is_read(tmp_path: Path, checked_out: bool) -> None:
    """A repository that belongs to somebody else is read all the same: the operator named it."""
    repository = Repository.make(tmp_path)
    commit = repository.push({"a.yaml": "one"})
    folder = repository.work if checked_out else repository.bare
    subprocess.run(["chown", "--recursive", "65534:65534", str(folder)], check=True)
    link = tmp_path / "link"
    link.symlink_to(folder)
    for number, path in enumerate((folder, link)):
        source = source_of(path, tmp_path / f"cache{number}")
        assert content(source, fetched(source)) == {"a.yaml": b"one"}
        assert source.resolve().id == commit


def test_nothing_of_the_repository_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither hooks nor configuration of the repository, of the user or of the environment have a say."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": "one", ".gitattributes": "*.yaml filter=evil"})
    canary = tmp_path / "canary"
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {canary}\n")
    evil.chmod(0o755)
    for hook in ("post-update", "pre-receive", "reference-transaction", "post-checkout"):
        (repository.bare / "hooks" / hook).unlink(missing_ok=True)
    for key in ("uploadpack.packObjectsHook", "core.fsmonitor", "core.sshCommand", "filter.evil.smudge"):
        git(repository.bare, "config", key, str(evil))
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[uploadpack]\n packObjectsHook = {evil}\n[core]\n hooksPath = {tmp_path / "hooks"}\n[url "/nowhere"]\n'
        f" insteadOf = {repository.bare}\n"
    )
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "reference-transaction").symlink_to(evil)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", "/nowhere")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(evil))
    monkeypatch.setenv("GIT_UPLOAD_PACK", str(evil))
    source = source_of(repository.bare, tmp_path / "cache")
    assert content(source, fetched(source)) == {"a.yaml": b"one"}
    source.applied(source.resolve())
    assert not canary.exists()


def test_a_hostile_submodule_file_refuses_the_fetch(tmp_path: Path) -> None:
    """Objects that Git's own checks call an attack do not come in."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": "one"})
    modules = '[submodule "x"]\n path = x\n url = -u./payload\n'
    repository.push({".gitmodules": modules})
    source = source_of(repository.bare, tmp_path / "cache")
    with pytest.raises(SourceError) as refused:
        source.fetch(source.resolve())
    assert refused.value.reason == "ObjectsRefused"


class _Forge(SimpleHTTPRequestHandler):
    """Serves bare repositories over Git's plain HTTP protocol, for those who know the secret."""

    seen: list[str | None]
    moved_to: str | None = None

    def do_GET(self) -> None:
        given = self.headers.get("Authorization")
        self.seen.append(given)
        if self.moved_to is not None:
            self.send_response(302)
            self.send_header("Location", self.moved_to + self.path)
            self.end_headers()
        elif self.path.startswith("/missing"):
            self.send_error(404)
        elif given != "Basic " + base64.b64encode(f"robot:{SECRET}".encode()).decode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="forge"')
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def forge(folder: Path, moved_to: str | None = None) -> Iterator[tuple[str, list[str | None]]]:
    """Serve `folder`; give the host and the credentials that were shown."""
    seen: list[str | None] = []
    handler = type("Handler", (_Forge,), {"seen": seen, "moved_to": moved_to})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def served(tmp_path: Path) -> tuple[Repository, str]:
    """Make a repository that the plain HTTP protocol can serve."""
    repository = Repository.make(tmp_path)
    commit = repository.push({"a.yaml": manifest("alpha")})
    git(repository.bare, "update-server-info")
    return repository, commit


def test_credentials_reach_their_host_and_nothing_else(tmp_path: Path) -> None:
    """User and password of the address open the repository; they are in no file, and no process shows them."""
    _, commit = served(tmp_path)
    quoted = SECRET.replace("/", "%2F").replace("@", "%40")
    with forge(tmp_path) as (host, seen):
        source = source_of(f"http://robot:{quoted}@{host}/tasks.git", tmp_path / "cache")
        assert fetched(source).id == commit
        assert seen[-1] is not None
        assert SECRET not in source.address.url
        assert quoted not in source.address.url
        assert SECRET not in repr(source.spec) + repr(source.address)
        for path in (tmp_path / "cache").rglob("*"):
            if path.is_file():
                assert SECRET.encode() not in path.read_bytes()


def test_wrong_credentials_are_told_without_them(tmp_path: Path) -> None:
    """A refused password is AuthenticationFailed, and the message holds none of it."""
    served(tmp_path)
    with forge(tmp_path) as (host, _):
        for login in ("robot:canary-password", "canary-password", ""):
            url = f"http://{login}{'@' if login else ''}{host}/tasks.git"
            source = source_of(url, tmp_path / "cache")
            with pytest.raises(SourceError) as refused:
                source.resolve()
            assert (refused.value.reason, refused.value.permanent) == ("AuthenticationFailed", True)
            assert "canary" not in refused.value.message
        source = source_of(f"http://robot:canary-password@{host}/missing.git", tmp_path / "cache")
        with pytest.raises(SourceError) as missing:
            source.resolve()
        assert missing.value.reason == "RepositoryNotFound"
        assert "canary" not in missing.value.message


def test_credentials_do_not_follow_a_redirect(tmp_path: Path) -> None:
    """A forge that sends us elsewhere does not get our credentials sent there."""
    served(tmp_path)
    quoted = SECRET.replace("/", "%2F").replace("@", "%40")
    with forge(tmp_path) as (elsewhere, seen), forge(tmp_path, moved_to=f"http://{elsewhere}") as (host, _):
        source = source_of(f"http://robot:{quoted}@{host}/tasks.git", tmp_path / "cache")
        with pytest.raises(SourceError) as refused:
            source.resolve()
        assert refused.value.reason == "AuthenticationFailed"
        assert seen
        assert set(seen) == {None}


def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    """A refused connection is transient."""
    with forge(tmp_path) as (host, _):
        pass
    source = source_of(f"http://{host}/tasks.git", tmp_path / "cache")
    with pytest.raises(SourceError) as refused:
        source.resolve()
    assert (refused.value.reason, refused.value.permanent) == ("Unreachable", False)


def test_a_server_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that does not end is a Timeout, and no process of it is left."""
    import socket

    from cron_observer.source import remote as module

    monkeypatch.setattr(module, "LOOK_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = source_of(f"http://127.0.0.1:{silent.getsockname()[1]}/tasks.git", tmp_path / "cache")
        with pytest.raises(SourceError) as refused:
            source.resolve()
        assert (refused.value.reason, refused.value.permanent) == ("Timeout", False)
        eventually_nobody(silent.getsockname()[1])


def test_closing_ends_what_runs(tmp_path: Path) -> None:
    """A source that is closed while it waits for a server comes back at once, and asks nothing any more."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        source = source_of(f"http://127.0.0.1:{port}/tasks.git", tmp_path / "cache")
        failures: list[SourceError] = []

        def look() -> None:
            try:
                source.resolve()
            except SourceError as error:
                failures.append(error)

        thread = threading.Thread(target=look)
        thread.start()
        connection, _ = silent.accept()  # git is waiting for an answer now
        source.close()
        thread.join(60)
        connection.close()
        assert not thread.is_alive()
        assert [error.reason for error in failures] == ["Stopped"]
        eventually_nobody(port)
        with pytest.raises(SourceError):
            source.resolve()


def eventually_nobody(port: int) -> None:
    """Wait until no process talks to a port of the test: a killed one takes a moment to go."""
    deadline = time.monotonic() + 60
    while found := children_of_git(port):
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def children_of_git(port: int) -> list[str]:
    """Return the command lines of processes that talk to a port of the test."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if f":{port}/" in line:
                found.append(line)
    return found


def test_a_mirror_is_tidied_without_losing_what_is_applied(tmp_path: Path) -> None:
    """After many pushes the mirror is packed, and a difference to the applied commit can still be taken."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": "0"})
    source = source_of(repository.bare, tmp_path / "cache")
    target = fetched(source)
    packs = source.mirror / "objects" / "pack"

    def litter(word: str) -> None:
        for number in range(45):
            commit = git(source.mirror, "commit-tree", f"{target.id}^{{tree}}", "-m", f"{word} {number}")
            git(source.mirror, "update-ref", f"refs/heads/{word}{number}", commit)
            git(source.mirror, "repack", "--quiet")
        assert len(list(packs.glob("*.pack"))) > 40

    litter("new")
    source.applied(target)
    assert len(list(packs.glob("*.pack"))) < 10
    assert not (source.mirror / "tidied").exists()
    litter("old")
    os.utime(source.mirror / "HEAD", (1, 1))  # it has been a while since everything was tidied
    source.applied(target)
    assert len(list(packs.glob("*.pack"))) == 1
    assert (source.mirror / "tidied").exists()
    new = repository.push({"b.yaml": "1"})
    after = fetched(source)
    assert after.id == new
    assert [entry.path for entry in source.changes(after, target.id).added] == ["b.yaml"]


def stand_in_for_git(folder: Path, says: str) -> None:
    """Put a program called git there that only says which version it is."""
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / "git").chmod(0o755)


def test_git_is_asked_for_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No git, or one too old to leave foreign configuration alone, is said at once with what to do."""
    from cron_observer.errors import SettingsError
    from cron_observer.source.command import git_version

    assert git_version()[0].isdigit()
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="not installed") as missing:
        git_version()
    assert missing.value.hint == "install it: apt-get install git"
    stand_in_for_git(tmp_path / "old", "git version 2.20.1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'old'}:/bin:/usr/bin")
    with pytest.raises(SettingsError, match=r"2\.20\.1"):
        git_version()
    stand_in_for_git(tmp_path / "new", "git version 3.0.0.rc1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'new'}:/bin:/usr/bin")
    assert git_version() == "3.0.0.rc1"


def test_git_that_vanishes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the program goes while we run, the source says so instead of crashing."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": "one"})
    source = source_of(repository.bare, tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(SourceError) as refused:
        source.fetch(source.resolve())
    assert refused.value.reason == "GitMissing"


def test_a_mirror_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A data folder in the way is a condition of the source."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": "one"})
    (tmp_path / "cache").write_text("a file where the folder should be")
    source = source_of(repository.bare, tmp_path / "cache")
    with pytest.raises(SourceError) as refused:
        source.resolve()
    assert refused.value.reason == "MirrorNotWritable"
