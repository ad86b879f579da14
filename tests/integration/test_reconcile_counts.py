"""The counts of a source run along with what changes, and are those that a count of everything would give."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from cron_observer.plan import OUTSIDE
from cron_observer.reconcile import passes
from cron_observer.reconcile.steps import spared
from cron_observer.store import counting
from support.databases import Tenant
from support.repositories import Following, Repository, following, manifest


async def counted(follow: Following) -> dict[str, int]:
    """Count everything, as a pass does that compares everything."""
    source = follow.source()
    held: Any = type("Held", (), {"tenant_id": source["tenant_id"], "source_id": source["source_id"]})
    async with follow.database.reconciler.transaction([source["tenant_id"]]) as conn:
        return await counting.after(conn, held, OUTSIDE, None, ())


async def test_counts_are_those_of_everything(tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that come, go, break, move, double and hold several documents: nothing is counted twice or left out."""
    repository = Repository.make(tmp_path)
    several = manifest("d") + "---\n" + manifest("e") + "---\n" + manifest("f")
    pushes: list[dict[str, str | bytes | None]] = [
        {f"{name}.yaml": manifest(name) for name in "abc"},
        {"many/def.yaml": several},
        {"a.yaml": "broken: ["},
        {"b.yaml": manifest("b", cron="1 1 * * *"), "notes.yaml": manifest("b")},
        {"c.yaml": None, "moved/c.yaml": manifest("c")},
        {"a.yaml": manifest("a"), "notes.yaml": None},
        {"many/def.yaml": manifest("d") + "---\n" + manifest("g").replace("name: g", "name: g\n  renamedFrom: e")},
        {"many/def.yaml": None, "days.ics": "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n"},
        {"b.yaml": manifest("b").replace("cron:", "corn:")},
        {"c2.yaml": manifest("c2")},
    ]
    async with following(tenant, repository.bare, tmp_path / "data", max_deletes=100) as follow:
        for files in pushes:
            repository.push(files)
            assert await follow.sync() == "applied"
            counts = follow.source()["counts"]
            assert counts == await counted(follow)
        assert counts["files"] == 5
        assert counts["errors"] > 0
        # nothing of it is a count of everything
        monkeypatch.setattr(counting, "_WHOLE", None)
        repository.push({"c3.yaml": manifest("c3")})
        assert await follow.sync() == "applied"
        monkeypatch.undo()
        assert follow.source()["counts"] == await counted(follow)


async def test_a_count_that_went_astray_is_put_right(tenant: Tenant, tmp_path: Path) -> None:
    """A pass that compares everything counts everything anew."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("a")})
    async with following(tenant, repository.bare, tmp_path / "data") as follow:
        assert await follow.sync() == "applied"
        follow.database.do("""UPDATE sources SET counts = counts || '{"tasks": 7}'""")
        repository.push({"b.yaml": manifest("b")})
        assert await follow.sync() == "applied"
        assert follow.source()["counts"]["tasks"] == 8
        follow.database.do("UPDATE sources SET checked_at = NULL")
        assert await follow.sync() == "applied"
        assert follow.source()["counts"]["tasks"] == 2


async def test_what_is_taken_out_of_a_manifest_is_counted_no_more(tenant: Tenant, tmp_path: Path) -> None:
    """A task that is detached leaves the counts of its source at once, and stays out of them."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("a"), "b.yaml": manifest("b")})
    async with following(tenant, repository.bare, tmp_path / "data") as follow:
        assert await follow.sync() == "applied"
        with follow.database.admin.transaction():
            follow.database.do(f"SET LOCAL app.tenant_ids = '{tenant.tenant_id}'")
            follow.database.do(
                "SELECT detach_task(%s, %s, 'why', 'who', gen_random_uuid(), now())",
                tenant.tenant_id,
                follow.task("a")["task_uid"],
            )
        assert follow.source()["counts"]["tasks"] == 1
        await follow.sync()
        assert follow.source()["counts"] == await counted(follow)
        assert follow.source()["counts"]["tasks"] == 1


async def test_statistics_are_taken_after_a_large_apply(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first sync of many tasks leaves the database with figures to go by; a small one leaves that to the database."""
    monkeypatch.setattr(passes, "MANY", 20)
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": "---\n".join(manifest(f"a{number}") for number in range(19))})
    query = "SELECT reltuples FROM pg_class WHERE oid = 'tasks'::regclass"
    async with following(tenant, repository.bare, tmp_path / "data") as follow:
        assert await follow.sync() == "applied"
        assert follow.database.value(query) <= 0
        repository.push({"b.yaml": "---\n".join(manifest(f"b{number}") for number in range(20))})
        assert await follow.sync() == "applied"
        assert follow.database.value(query) == 39


def test_the_collector_is_spared_until_the_last_has_ended() -> None:
    """While passes make much, nobody looks for garbage; afterwards somebody does, also when one of them failed."""
    assert gc.isenabled()
    with spared(much=False):
        assert gc.isenabled()
    seen = []

    def fail() -> None:
        with spared(much=True):
            with spared(much=True):
                seen.append(gc.isenabled())
            seen.append(gc.isenabled())
            raise ValueError("of it")

    with pytest.raises(ValueError, match="of it"):
        fail()
    assert seen == [False, False]
    assert gc.isenabled()
