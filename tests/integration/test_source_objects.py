"""What is read of a mirror without starting Git for each question: objects, differences, histories, refs."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cron_observer.errors import SourceError
from cron_observer.source import Target, objects, refs, trees, walks
from cron_observer.source.spec import MirrorBroken
from support.processes import until
from support.repositories import Repository, git, source_of

COMMITS = 40


def children() -> set[int]:
    """Return the ids of this process's children."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # the thread has ended meanwhile
            found.update(int(pid) for pid in (task / "children").read_text().split())
    return found


def answering(source: Any) -> set[int]:
    """Return the ids of the children that read the mirror of `source`; other tests may have left some of theirs."""
    mirror = os.fsencode(source.mirror)
    found: set[int] = set()
    for pid in children():
        with suppress(OSError):  # the child has gone meanwhile
            if mirror in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Any]:
    """A source of a repository with two files, fetched."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": "one", "deep/er/b.yaml": b"\x00\nbinary\n\xff"})
    made = source_of(repository.bare, tmp_path / "cache")
    made.fetch(made.resolve())
    made.repository = repository
    yield made
    made.close()


def content(source: Any) -> dict[str, bytes]:
    """Return path and content of everything in the newest commit."""
    target = source.fetch(source.resolve())
    entries = source.changes(target, None, {}).added
    return {entry.path: data for entry, data in source.read(entries, 1 << 20)}


def test_contents_are_those_of_git(source: Any) -> None:
    """Texts, bytes and nothing come back as they are, however many; of what is too large only the size is told."""
    many = {f"many/{number}.yaml": f"{number}\n" * (number % 7) for number in range(450)}
    source.repository.push({**many, "large.yaml": "x" * 5000})
    found = content(source)
    assert found["deep/er/b.yaml"] == b"\x00\nbinary\n\xff"
    assert {path: found[path].decode() for path in many} == many
    entries = source.changes(source.resolve(), None, {}).added
    short = {entry.path: (entry.size, data) for entry, data in source.read(entries, 4999)}
    assert short["large.yaml"] == (5000, b"")
    assert {path: short[path][1].decode() for path in many} == many


def test_a_process_that_has_died_is_replaced(source: Any) -> None:
    """Killing what answers costs nothing but another start; it is one process, however much is asked."""
    assert source.has(source.resolve().id)
    (first,) = answering(source)
    content(source)
    assert answering(source) == {first}
    os.kill(first, 9)
    assert content(source)["a.yaml"] == b"one"
    (second,) = answering(source)
    assert second != first


def test_no_child_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is closed has no process any more, and of many sources only a few keep one."""
    monkeypatch.setattr(objects, "MOST_KEPT", 2)
    begun = len(children())
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": "one"})
    several = [source_of(repository.bare, tmp_path / f"cache{number}") for number in range(5)]
    for one in several * 2:
        assert content(one) == {"a.yaml": b"one"}
        assert len(children()) <= begun + 2
    for one in several:
        one.close()
    until(lambda: len(children()) <= begun, "every child has gone")
    with pytest.raises(SourceError):
        several[0].has("0" * 40)


def test_a_mirror_that_is_replaced_is_read_anew(source: Any, tmp_path: Path) -> None:
    """The process that reads a mirror that somebody took away, or replaced, answers no more."""
    commit = source.resolve().id
    assert source.has(commit)
    aside = tmp_path / "aside"
    source.mirror.rename(aside)
    assert not source.has(commit)
    git(tmp_path, "init", "--quiet", "--bare", str(source.mirror))
    assert not source.has(commit)
    shutil.rmtree(source.mirror)
    aside.rename(source.mirror)
    assert source.has(commit)
    source.rebuild()
    assert not source.has(commit)
    assert content(source)["a.yaml"] == b"one"


def test_a_missing_object_means_a_broken_mirror(source: Any) -> None:
    """What Git cannot give is no empty file."""
    (entry, *_) = source.changes(source.resolve(), None, {}).added
    with pytest.raises(MirrorBroken):
        list(source.read([entry, replace(entry, blob="1" * 40)], 1 << 20))
    assert [data for _, data in source.read([entry], 1 << 20)] == [b"one"]


def test_a_repository_that_lacks_an_object_is_refused(source: Any) -> None:
    """A commit of which something is missing does not come into the mirror, and what was there stays readable."""
    before = source.resolve()
    source.repository.push({"c.yaml": "three"})
    blob = git(source.repository.bare, "rev-parse", "main:c.yaml")
    (source.repository.bare / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(SourceError):
        source.fetch(source.resolve())
    assert source.has(before.id)


@pytest.mark.parametrize("how", ["shallow", "grafts"])
def test_a_history_that_was_cut_off_is_refused(source: Any, tmp_path: Path, how: str) -> None:
    """A repository that holds its commits back, as shallow clones do, leaves no mirror in which they are missing."""
    source.repository.push({"c.yaml": "three"})
    head = source.repository.push({"d.yaml": "four"})
    cut = tmp_path / "cut"
    if how == "shallow":
        git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{source.repository.bare}", str(cut))
    else:
        git(tmp_path, "clone", "--quiet", str(source.repository.bare), str(cut))
        (cut / ".git" / "info" / "grafts").write_text(f"{head}\n")
    other = source_of(cut, tmp_path / "other")
    with pytest.raises(SourceError):
        other.fetch(other.resolve())
    other.close()


def step(rng: random.Random, work: Path) -> None:
    """Change a few things of a work tree: contents, modes, links, files that become folders and back."""
    for _ in range(rng.randint(1, 4)):
        place = work / rng.choice(["a", "b", "c", "d/e", "d/f", "d/g/h", "i.yaml", "j j.yml", "é/ü.yaml"])
        for above in place.relative_to(work).parents:
            if (work / above).is_symlink() or (work / above).is_file():
                (work / above).unlink()
        kind = rng.randrange(5)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        elif place.is_symlink() or place.exists():
            place.unlink()
        place.parent.mkdir(parents=True, exist_ok=True)
        if kind == 0:
            place.symlink_to("nowhere")
        elif kind == 1:
            place.mkdir()
            (place / "inner.yaml").write_text(str(rng.random()))
        elif kind < 4:
            place.write_text(str(rng.randrange(3)))
            place.chmod(0o755 if kind == 3 else 0o644)


def test_differences_and_histories_are_those_of_git(tmp_path: Path) -> None:
    """Between any two commits of a tangled history, the short walks say what ``diff-tree`` and ``merge-base`` say."""
    rng = random.Random(7)  # noqa: S311  it makes trees
    repository = Repository.make(tmp_path)
    commits = [repository.commit({"a": "first"})]
    for _ in range(COMMITS):
        repository.git("checkout", "--quiet", "--force", "--detach", rng.choice(commits[-6:]))
        step(rng, repository.work)
        commits.append(repository.commit())
        if rng.random() < 0.3:
            repository.git("merge", "--quiet", "--strategy=ours", "--no-edit", rng.choice(commits))
            commits.append(repository.head())
    for number, commit in enumerate(commits):
        repository.git("update-ref", f"refs/heads/c{number}", commit)
    source = source_of(repository.work, tmp_path / "cache", ref="c0")
    source.fetch(source.resolve())
    git(source.mirror, "fetch", "--quiet", str(repository.work), "+refs/heads/*:refs/heads/*")
    for _ in range(150):
        old, new = rng.choice(commits), rng.choice(commits)
        raw = git(source.mirror, "diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", old, new)
        found = walks.difference(source._objects, old, new)
        assert found is not None
        assert found == sorted(trees.differing(raw.encode("utf-8", "surrogateescape")))
        ancestor = subprocess.run(
            ["git", "-C", source.mirror, "merge-base", "--is-ancestor", old, new], check=False
        ).returncode
        assert walks.follows(source._objects, old, new) is (ancestor == 0)
        assert source.rewritten(old, Target(new)) is (ancestor != 0)
    source.close()


def test_long_walks_are_left_to_git(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much for a short walk has the same answer, from the program."""
    first = source.resolve()
    source.repository.push({f"{number}/a.yaml": "one" for number in range(60)})
    target = source.fetch(source.resolve())
    assert walks.difference(source._objects, first.id, target.id) is None
    assert len(source.changes(target, first.id).added) == 60
    with monkeypatch.context() as patched:
        patched.setattr(objects, "MOST_READ", 100)
        assert walks.difference(source._objects, target.id, target.id) == []
        assert walks.follows(source._objects, first.id, target.id) is None
        assert not source.rewritten(first.id, target)
    monkeypatch.setattr(walks, "MOST_COMMITS", 1)
    for number in range(3):
        source.repository.push({"a.yaml": f"more {number}"})
    target = source.fetch(source.resolve())
    assert walks.follows(source._objects, first.id, target.id) is None
    assert not source.rewritten(first.id, target)
    assert source.rewritten(target.id, first)


@pytest.mark.parametrize(
    ("author", "message", "encoding"),
    [
        ("Ada Lovelace", "Change a thing\n\nand say why", None),
        ("Zoë Ünïcode", "ä subject\nof two lines  \nor three\n\nbody", None),
        ("Zoe", "ö in latin", "ISO-8859-1"),
        ("a", "\n\n  leading lines\n\nbody", None),
        ("no <angle> brackets", "x" * 700, None),
        ("Ada", "", None),
    ],
)
def test_commits_are_told_as_git_tells_them(
    source: Any, tmp_path: Path, author: str, message: str, encoding: str | None
) -> None:
    """Author, subject and time are those of ``git log``, whatever encoding a commit is written in."""
    work = source.repository.work
    text = tmp_path / "message"
    text.write_bytes(message.encode(encoding or "utf-8"))
    options = ["-c", f"i18n.commitEncoding={encoding}"] if encoding else []
    git(work, *options, "commit", "--quiet", "--allow-empty", "--allow-empty-message", "--cleanup=verbatim",
        f"--file={text}", GIT_AUTHOR_NAME=author, GIT_AUTHOR_DATE="@86400 +0100")  # fmt: skip
    git(work, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    target = source.fetch(source.resolve())
    told = git(work, "log", "-1", "--encoding=UTF-8", "--format=%an|%ct|%s").split("|")
    found = source.describe([target.id, "0" * 40])[target.id]
    assert (found.author, str(int(found.at.timestamp())), found.subject or "") == (
        told[0],
        told[1],
        told[2].strip()[:500],
    )
    assert source.commits_touching({"a.yaml": "0" * 40}, None, target) == {}


def test_the_only_commit_is_credited_without_a_walk(source: Any) -> None:
    """After one commit its files are credited to it; after several each to the one that gave it its content."""
    first = source.resolve()
    one = source.repository.push({"a.yaml": "two"}, subject="only")
    target = source.fetch(source.resolve())
    found = source.changes(target, first.id).modified
    blobs = {entry.path: entry.blob for entry in found}
    assert {path: commit.id for path, commit in source.commits_touching(blobs, first.id, target).items()} == {
        "a.yaml": one
    }
    two = source.repository.push({"deep/er/b.yaml": "more"})
    target = source.fetch(source.resolve())
    blobs = {entry.path: entry.blob for entry in source.changes(target, first.id).modified}
    assert {path: commit.id for path, commit in source.commits_touching(blobs, first.id, target).items()} == {
        "a.yaml": one,
        "deep/er/b.yaml": two,
    }


def test_branches_are_where_git_says(tmp_path: Path) -> None:
    """Loose and packed branches, HEAD and a linked work tree are read as files; everything else is left to Git."""
    repository = Repository.make(tmp_path)
    first = repository.commit({"a.yaml": "one"})
    repository.git("branch", "side/way")
    repository.git("tag", "v1")
    work = repository.work
    assert refs.branch(work, None) == Target(first, "refs/heads/main")
    assert refs.branch(work, "refs/heads/side/way") == Target(first, "refs/heads/side/way")
    repository.git("pack-refs", "--all")
    second = repository.commit({"a.yaml": "two"})
    assert refs.branch(work, "refs/heads/main") == Target(second, "refs/heads/main")
    assert refs.branch(work, "refs/heads/side/way") == Target(first, "refs/heads/side/way")
    repository.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "side/way")
    assert refs.branch(tmp_path / "linked", None) == Target(first, "refs/heads/side/way")
    repository.git("checkout", "--quiet", "--detach", first)
    assert refs.branch(work, None) == Target(first, "HEAD")
    for name in ("refs/tags/v1", "refs/heads/side", "refs/heads/none", "refs/heads/../../config"):
        assert refs.branch(work, name) is None
    repository.git("symbolic-ref", "refs/heads/alias", "refs/heads/main")
    assert refs.branch(work, "refs/heads/alias") is None
    os.mkfifo(work / ".git" / "refs" / "heads" / "pipe")
    assert refs.branch(work, "refs/heads/pipe") is None
    assert refs.branch(tmp_path / "nothing", None) is None
