"""A plain folder as a source: its scan, what is not followed, and what a change of it does."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from cron_observer.errors import SettingsError, SourceError
from cron_observer.source import Changes
from support.databases import Tenant
from support.repositories import following, manifest, source_of


def known(source: Any) -> dict[str, str]:
    """Return path and digest of everything that counts."""
    return {entry.path: entry.blob for entry in source.changes(source.resolve(), None, {}).added}


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    """The target changes with content, names and nothing else."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "a.yaml").write_text("one")
    source = source_of(folder, tmp_path)
    first = source.resolve()
    assert first.ref is None
    assert source.resolve() == first
    os.utime(folder / "a.yaml")
    (folder / "notes.txt").write_text("no manifest")
    assert source.resolve() == first
    (folder / "a.yaml").write_text("two")
    second = source.resolve()
    assert second != first
    (folder / "a.yaml").write_text("one")
    assert source.resolve() == first
    (folder / "a.yaml").rename(folder / "b.yaml")
    assert source.resolve() not in (first, second)


def test_a_scan_compares_with_what_is_known(tmp_path: Path) -> None:
    """Added, modified and deleted files are told apart by their digests."""
    folder = tmp_path / "tasks"
    (folder / "deep").mkdir(parents=True)
    for name in ("a", "b", "deep/c"):
        (folder / f"{name}.yaml").write_text(name)
    source = source_of(folder, tmp_path)
    before = known(source)
    (folder / "a.yaml").write_text("changed")
    (folder / "b.yaml").unlink()
    (folder / "d.yml").write_text("new")
    changes: Changes = source.changes(source.resolve(), None, before)
    assert [entry.path for entry in changes.added] == ["d.yml"]
    assert [entry.path for entry in changes.modified] == ["a.yaml"]
    assert list(changes.deleted) == ["b.yaml"]
    assert [(entry.path, data) for entry, data in source.read(changes.modified, 100)] == [("a.yaml", b"changed")]


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    """Links keep the mode of a link, pipes and sockets one that nobody reads, dot-folders are not entered."""
    folder = tmp_path / "tasks"
    (folder / ".hidden").mkdir(parents=True)
    (folder / ".hidden" / "x.yaml").write_text("x")
    (folder / ".x.yaml").write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.yaml").write_text("secret")
    (folder / "link.yaml").symlink_to(tmp_path / "outside" / "secret.yaml")
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    (folder / "elsewhere").symlink_to(tmp_path / "outside")
    os.mkfifo(folder / "pipe.yaml")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.yaml"))
    source = source_of(folder, tmp_path)
    entries = list(source.changes(source.resolve(), None, {}).added)
    modes = {entry.path: entry.mode for entry in entries}
    assert modes.keys() == {"link.yaml", "loop.yaml", "pipe.yaml", "socket.yaml"}
    assert modes["link.yaml"] == modes["loop.yaml"] == "120000"
    assert not modes["pipe.yaml"].startswith("100")
    assert [data for _, data in source.read(entries, 100)] == [b""] * 4


def test_a_file_that_goes_while_it_is_read_is_left_to_the_next_look(tmp_path: Path) -> None:
    """Between scan and reading a file may vanish, grow or become a link; none of it is an error."""
    for name in ("gone.yaml", "grown.yaml", "link.yaml", "stays.yaml"):
        (tmp_path / name).write_text("x")
    source = source_of(tmp_path, tmp_path)
    entries = source.changes(source.resolve(), None, {}).added
    (tmp_path / "gone.yaml").unlink()
    (tmp_path / "grown.yaml").write_text("y" * 200)
    (tmp_path / "link.yaml").unlink()
    (tmp_path / "link.yaml").symlink_to("stays.yaml")
    read = {entry.path: (entry.size, data) for entry, data in source.read(entries, 100)}
    assert read["stays.yaml"] == (1, b"x")
    assert read["grown.yaml"] == (101, b"")
    assert read.keys() == {"stays.yaml", "grown.yaml"}


def test_a_folder_that_is_gone_says_so(tmp_path: Path) -> None:
    """A missing folder is an error of the source, not an empty one."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    source = source_of(folder, tmp_path)
    folder.rmdir()
    with pytest.raises(SourceError) as refused:
        source.resolve()
    assert refused.value.reason == "FolderNotFound"


async def test_a_plain_folder_is_applied(tenant: Tenant, tmp_path: Path) -> None:
    """Tasks of a folder have path and line but no commit; edits, moves and removals are followed."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "a.yaml").write_text(manifest("alpha"))
    (folder / "b.yaml").write_text(manifest("beta"))
    async with following(tenant, folder, tmp_path / "data") as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        task = it.task("alpha")
        assert (task["path"], task["line"], task["commit"], task["author"]) == ("a.yaml", 4, None, None)
        source = it.source()
        assert (source["kind"], source["applied_commit"], source["observed_commit"]) == ("folder", None, None)
        assert it.conditions()["Ready"] == "True Ready"
        assert tenant.database.value("SELECT good_text FROM manifest_files WHERE path = 'a.yaml'") == manifest("alpha")
        assert await it.poll() == {"main": "unchanged"}
        (folder / "a.yaml").write_text(manifest("alpha", "1 1 * * *"))
        (folder / "b.yaml").rename(folder / "c.yaml")
        assert await it.sync() == "applied"
        assert it.task("alpha")["generation"] == 2
        assert (it.task("beta")["path"], it.task("beta")["generation"]) == ("c.yaml", 1)
        (folder / "c.yaml").unlink()
        await it.sync()
        assert it.names() == ["alpha"]
        folder.rename(tmp_path / "away")
        assert await it.sync() == "failed"
        assert it.conditions()["Fetched"] == "False FolderNotFound"
        assert it.names() == ["alpha"]
    assert not (tmp_path / "data" / "mirrors").exists()


async def test_a_restart_over_an_unchanged_folder_changes_nothing(tenant: Tenant, tmp_path: Path) -> None:
    """What was applied before a restart is recognised by its digests."""
    (tmp_path / "a.yaml").write_text(manifest("alpha"))
    async with following(tenant, tmp_path, tmp_path / ".data") as it:
        await it.reconciler.tick()
    async with following(tenant, tmp_path, tmp_path / ".data") as it:
        await it.reconciler.tick()
        assert it.task("alpha")["generation"] == 1
        assert [run["outcome"] for run in it.runs()] == ["unchanged", "applied"]
        assert await it.poll() == {"main": "unchanged"}
        assert len(it.runs()) == 2


async def test_a_folder_may_become_a_repository(tenant: Tenant, tmp_path: Path) -> None:
    """After `git init` and a commit, the next start follows commits; tasks stay the same tasks."""
    from support.repositories import git

    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "a.yaml").write_text(manifest("alpha"))
    async with following(tenant, folder, tmp_path) as it:
        await it.reconciler.tick()
        uid = it.task("alpha")["task_uid"]
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    async with following(tenant, folder, tmp_path) as it:
        await it.reconciler.tick()
        task = it.task("alpha")
        assert (task["task_uid"], task["generation"]) == (uid, 1)
        assert task["commit"] == git(folder, "rev-parse", "HEAD")
        assert it.source()["kind"] == "git"


async def test_a_folder_has_no_refs(tenant: Tenant, tmp_path: Path) -> None:
    """A ref for a plain folder is a mistake that is told at the start."""
    with pytest.raises(SettingsError, match="no refs"):
        async with following(tenant, tmp_path, tmp_path, ref="main"):
            pass
