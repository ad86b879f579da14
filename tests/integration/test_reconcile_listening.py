"""A change on this machine is applied at once, without waiting for a poll."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cron_observer.source.watch import Watcher
from support.databases import Tenant
from support.repositories import Following, Repository, following, git, manifest, until


@asynccontextmanager
async def running(tenant: Tenant, url: Path, data_dir: Path, **source: Any) -> AsyncIterator[Following]:
    """Run a reconciler that never polls by itself, and wait for its first pass."""
    async with following(tenant, url, data_dir, listen=True, **source) as it:
        stop = asyncio.Event()
        loop = asyncio.create_task(it.reconciler.run(stop))
        try:
            await until(
                lambda: tenant.database.rows("SELECT FROM sources WHERE first_pass_at IS NOT NULL"), "the first pass"
            )
            yield it
        finally:
            stop.set()
            await loop


async def test_a_push_is_heard(tenant: Tenant, tmp_path: Path) -> None:
    """A push to a local bare repository is applied by itself, and the run says why it was made."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with running(tenant, repository.bare, tmp_path) as it:
        await until(lambda: it.names() == ["alpha"], "the first apply")
        for number in range(3):
            repository.push({"a.yaml": manifest("alpha", f"{number} 9 * * *")})
            await until(lambda number=number: it.task("alpha")["generation"] == number + 2, "the push is applied")
        git(repository.bare, "pack-refs", "--all")
        repository.push({"b.yaml": manifest("beta")})
        await until(lambda: "beta" in it.names(), "a push after packing is applied")
        assert it.runs()[0]["trigger"] == "push"


async def test_a_switch_of_the_branch_is_heard(tenant: Tenant, tmp_path: Path) -> None:
    """In a checked-out repository a commit and a checkout are applied by themselves."""
    repository = Repository.make(tmp_path)
    repository.commit({"a.yaml": manifest("alpha")})
    async with running(tenant, repository.work, tmp_path / "data") as it:
        await until(lambda: it.names() == ["alpha"], "the first apply")
        repository.git("checkout", "--quiet", "-b", "other")
        repository.commit({"b.yaml": manifest("beta")})
        await until(lambda: it.names() == ["alpha", "beta"], "the commit is applied")
        repository.git("checkout", "--quiet", "main")
        await until(lambda: it.names() == ["alpha"], "the checkout is applied")
        assert it.source()["ref"] == "refs/heads/main"


async def test_a_folder_is_heard(tenant: Tenant, tmp_path: Path) -> None:
    """New, changed, moved and deleted files of a folder are applied by themselves, also in new subfolders."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    async with running(tenant, folder, tmp_path / "data") as it:
        (folder / "a.yaml").write_text(manifest("alpha"))
        await until(lambda: it.names() == ["alpha"], "a new file is applied")
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "b.yaml").write_text(manifest("beta"))
        await until(lambda: it.names() == ["alpha", "beta"], "a file in a new folder is applied")
        (folder / "deep" / "er" / "b.yaml").write_text(manifest("beta", "1 1 * * *"))
        await until(lambda: it.task("beta")["generation"] == 2, "a change is applied")
        (folder / "a.yaml").unlink()
        await until(lambda: it.names() == ["beta"], "a removal is applied")


async def test_a_folder_that_was_replaced_is_heard_again(tenant: Tenant, tmp_path: Path) -> None:
    """A folder that was moved away and put there anew is watched anew, once a look has seen it."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "a.yaml").write_text(manifest("alpha"))
    async with running(tenant, folder, tmp_path / "data") as it:
        await until(lambda: it.names() == ["alpha"], "the first apply")
        folder.rename(tmp_path / "away")
        folder.mkdir()
        (folder / "b.yaml").write_text(manifest("beta"))
        tenant.database.do("UPDATE sources SET requested_seq = requested_seq + 1")
        await until(lambda: it.names() == ["beta"], "the new folder is applied")
        (folder / "c.yaml").write_text(manifest("gamma"))
        await until(lambda: it.names() == ["beta", "gamma"], "a change of the new folder is heard")


async def test_a_request_from_elsewhere_is_served(tenant: Tenant, tmp_path: Path) -> None:
    """What another process asks for is found within the loop's interval."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with running(tenant, repository.bare, tmp_path) as it:
        await until(lambda: it.source()["applied_seq"] == 1, "the first apply")
        tenant.database.do("UPDATE sources SET requested_seq = requested_seq + 1, asked_by = 'manual'")
        await until(lambda: it.source()["handled_seq"] == it.source()["requested_seq"], "the request is handled")
        assert it.runs()[0]["trigger"] == "manual"


async def test_a_poll_finds_what_nobody_heard(tenant: Tenant, tmp_path: Path) -> None:
    """Without anything that tells of changes, a source is looked at every `poll_seconds`."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path, poll_seconds=0.2) as it:
        stop = asyncio.Event()
        loop = asyncio.create_task(it.reconciler.run(stop, every=0.05))
        await until(lambda: it.names() == ["alpha"], "the first apply")
        repository.push({"b.yaml": manifest("beta")})
        await until(lambda: it.names() == ["alpha", "beta"], "the push is found")
        assert it.runs()[0]["trigger"] == "poll"
        stop.set()
        await loop


async def test_folders_made_inside_each_other_are_heard(tmp_path: Path) -> None:
    """A tree that appears at once is told, and so is every later change in it."""
    calls: list[str] = []
    watcher = Watcher(calls.append, quiet=0.02)
    watcher.watch("key", [(tmp_path, True)])
    try:
        for number in range(40):
            folder = tmp_path / str(number) / "deep" / "er"
            folder.mkdir(parents=True)
            (folder / "a.yaml").write_text("x")
        await until(lambda: calls, "the tree is told")
        await asyncio.sleep(0.3)
        calls.clear()
        (tmp_path / "39" / "deep" / "er" / "a.yaml").write_text("y")
        await until(lambda: calls, "a change deep in it is told")
    finally:
        watcher.close()


@pytest.mark.parametrize("deep", [True, False])
async def test_a_burst_of_changes_is_one_call(tmp_path: Path, deep: bool) -> None:
    """Changes that come close together are told once, when it is quiet; a stream of them is told meanwhile."""
    calls: list[str] = []
    watcher = Watcher(calls.append, quiet=0.6, at_most=1.2)
    assert watcher.watch("key", [(tmp_path, deep)])
    assert not watcher.watch("key", [(tmp_path, deep)]), "watching the same again is cheap"
    try:
        for number in range(50):
            (tmp_path / f"{number}.yaml").write_text("x")
        await until(lambda: calls, "the change is told")
        assert calls == ["key"]
        (tmp_path / "0.yaml").read_text()
        os.listdir(tmp_path)  # noqa: PTH208  a listing is what is tried
        await asyncio.sleep(1.0)
        assert calls == ["key"], "reading is no change"
        changes = 0
        while len(calls) < 2:
            (tmp_path / "0.yaml").write_text("y")
            changes += 1
            await asyncio.sleep(0.02)
        assert changes > 5
    finally:
        watcher.close()


async def test_a_folder_that_cannot_be_watched_is_left_to_the_looks(tmp_path: Path) -> None:
    """Folders that are gone are passed over."""
    watcher = Watcher(lambda _: None)
    assert not watcher.watch("key", [(tmp_path / "missing", True)])
    assert watcher.watch("key", [(tmp_path / "missing", True), (tmp_path, False)])
    assert watcher.watch("key", [])
    watcher.close()


async def test_sources_that_hang_hold_up_no_other(tenant: Tenant, tmp_path: Path) -> None:
    """While many forges do not answer, a push to a repository on this machine is applied as ever."""
    import socket

    from cron_observer.reconcile import Reconciler
    from cron_observer.settings import Settings, SourceSettings

    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hanging = [SourceSettings(name=f"hang-{number}", url=f"{address}/{number}.git") for number in range(12)]
        sources = (*hanging, SourceSettings(name="main", url=str(repository.bare)))
        reconciler = Reconciler(tenant.database.reconciler, Settings(data_dir=tmp_path, sources=sources), patience=0.2)
        stop = asyncio.Event()
        loop = asyncio.create_task(reconciler.run(stop, every=0.1))
        applied = "SELECT FROM sources WHERE name = 'main' AND applied_seq = %s"
        await until(lambda: tenant.database.rows(applied, 1), "the first apply")
        repository.push({"b.yaml": manifest("beta")})
        await until(lambda: tenant.database.rows(applied, 2), "the push is applied")
        stop.set()
        await asyncio.wait_for(loop, 15)
        leases = tenant.database.rows("SELECT name FROM sources WHERE lease_until IS NOT NULL")
        assert leases == [], "whoever stops gives its leases back"
