"""What fetches bring is counted in bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cron_observer.errors import SourceError
from support.api import api
from support.databases import Tenant
from support.git_servers import forge
from support.repositories import Repository, following, manifest, source_of

NOISE = random.Random(7)  # noqa: S311  what cannot be packed


async def test_each_source_tells_what_it_has_fetched(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counter grows by about what a push brings, by nothing while there is nothing new, and outlives a restart."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "noise.bin": NOISE.randbytes(100_000)})

    async def told() -> float:
        async with api(tenant) as it:
            lines = (await it.client.get("/metrics")).text.splitlines()
        (line,) = [one for one in lines if one.startswith("cron_observer_source_fetched_bytes_total{")]
        assert line.startswith('cron_observer_source_fetched_bytes_total{source="main"} ')
        return float(line.rpartition(" ")[2])

    async with following(tenant, repository.bare, tmp_path / "data") as it:
        await it.reconciler.tick()
        first = await told()
        assert 100_000 < first < 110_000

        async def gone(*_: object) -> None:
            raise OSError("somebody has taken the disk away")

        with monkeypatch.context() as broken:
            broken.setattr(it.reconciler, "_follow", gone)
            await it.poll()
        assert it.source()["failures"] == 1
        await it.sync()
        assert await told() == first, "what ends before it begins has fetched nothing, nor has what finds nothing new"
    async with following(tenant, repository.bare, tmp_path / "data") as it:
        repository.push({"b.yaml": manifest("beta"), "more.bin": NOISE.randbytes(50_000)})
        await it.sync()
        assert 50_000 < await told() - first < 55_000


async def test_a_folder_fetches_nothing(tenant: Tenant, tmp_path: Path) -> None:
    """What is read where it lies is not fetched."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.yaml").write_text(manifest("alpha"))
    async with following(tenant, tmp_path / "tasks", tmp_path / "data") as it:
        await it.reconciler.tick()
        assert it.source()["fetched_bytes"] == 0


def test_what_a_failed_fetch_brought_counts(tmp_path: Path) -> None:
    """A fetch that grows too large has cost its bytes, though nothing of it stays."""
    repository = Repository.make(tmp_path / "served")
    repository.push({"noise.bin": NOISE.randbytes(3_000_000)})
    with forge(tmp_path / "served") as server:
        source = source_of(server.url(), tmp_path / "cache", max_bytes=1_000_000)
        with pytest.raises(SourceError, match="MiB"):
            source.fetch(source.resolve())
        assert source.fetched > 1_000_000


def test_small_pushes_count_as_well(tmp_path: Path) -> None:
    """A push of a few bytes is counted, from a server and from a repository on this machine."""
    repository = Repository.make(tmp_path / "served")
    repository.push({"a.yaml": "first"})
    with forge(tmp_path / "served") as server:
        for number, url in enumerate((server.url(), repository.bare)):
            source = source_of(url, tmp_path / f"cache-{number}")
            source.fetch(source.resolve())
            before = source.fetched
            repository.push({"a.yaml": f"then {number}"})
            source.fetch(source.resolve())
            assert 100 < source.fetched - before < 5_000
