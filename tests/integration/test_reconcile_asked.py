"""Who asked for a look: the run says so, whoever else asked, and whatever became of the one who began."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from cron_observer.settings import SourceSettings
from cron_observer.store.engine import clock
from cron_observer.store.source_reads import AskedBy, request_sync
from cron_observer_api import wire
from support.api import api
from support.databases import Tenant
from support.forges import SECRET, body
from support.gates import gate_at, lease_runs_out
from support.hooked import deliver
from support.repositories import Following, Repository, following, manifest

WORDS: tuple[AskedBy, ...] = get_args(AskedBy)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with one task that asks before it goes."""
    made = Repository.make(tmp_path)
    made.push({"export.yaml": manifest("export"), "old.yaml": manifest("old", lifecycle="{prune: confirm}")})
    return made


async def ask(it: Following, *words: AskedBy) -> None:
    """Ask for a look at the source ``main``, as everybody does."""
    async with it.database.api.transaction([it.tenant.tenant_id]) as conn:
        for by in words:
            await request_sync(conn, it.tenant.tenant_id, "main", await clock(conn), by=by)


def triggers(it: Following) -> list[str]:
    """Return why each run was made, newest first."""
    return [run["trigger"] for run in it.runs()]


async def test_a_run_says_who_asked_for_it(
    tenant: Tenant, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook, an approval, the end of a suspension, a detached task, `sync` and a poll are told apart."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    one = SourceSettings(name="main", url=str(repository.bare), provider="github", secret_ref=("env:HOOK_SECRET",))
    async with following(tenant, repository.bare, tmp_path / "data") as it, api(tenant, sources=(one,)) as server:
        await it.reconciler.tick()
        assert triggers(it) == ["poll"]
        repository.push({"old.yaml": None})
        await deliver(server, "github", body("github"))
        await it.reconciler.tick()
        assert triggers(it)[0] == "push"
        approval = {"plan_hash": it.source()["plan_hash"]}
        assert (await server.call("POST", "/sources/main/approvals", "admin", json=approval)).status_code == 201
        await it.reconciler.tick()
        assert (it.names(), triggers(it)[0]) == (["export"], "approval")
        await server.call("POST", "/sources/main/suspend", "admin", json={"reason": "freeze"})
        await server.call("POST", "/sources/main/resume", "admin")
        await it.reconciler.tick()
        assert triggers(it)[0] == "resume", "who ends a suspension is told what came of it, also when it is nothing"
        await server.call("POST", "/sources/main/sync", "admin")
        await it.reconciler.tick()
        assert triggers(it)[0] == "manual"
        detached = await server.call("POST", "/projects/default/tasks/export/detach", "admin", json={"reason": "x"})
        assert detached.status_code == 200
        await it.reconciler.tick()
        assert triggers(it)[0] == "detach"
        repository.push({"new.yaml": manifest("new")})
        await it.poll()
        assert triggers(it)[0] == "poll", "nobody has asked any more"
        listed = (await server.call("GET", "/sources/main/runs")).json()["items"]
        assert [run["trigger"] for run in listed] == triggers(it)


async def test_the_words_are_a_closed_list(tenant: Tenant, repository: Repository, tmp_path: Path) -> None:
    """The wire and the database know the same words, and of two that ask the later one in the list is told."""
    assert get_args(get_type_hints(wire.Run)["trigger"]) == ("poll", *WORDS)
    stronger = "SELECT stronger_asker(%s, %s)"
    for place, word in enumerate(WORDS):
        assert tenant.database.value(stronger, word, None) == word
        for other in WORDS[: place + 1]:
            assert tenant.database.value(stronger, word, other) == word
            assert tenant.database.value(stronger, other, word) == word
    assert tenant.database.value(stronger, None, None) is None
    async with following(tenant, repository.bare, tmp_path / "data") as it:
        for number, word in enumerate(WORDS):
            await it.poll()
            repository.push({"export.yaml": manifest("export", f"{number} * * * *")})
            await ask(it, word)
            await it.reconciler.tick()
            assert triggers(it)[0] == word


async def test_of_several_that_ask_a_person_is_told(tenant: Tenant, repository: Repository, tmp_path: Path) -> None:
    """One run for all of them, under the word that counts for most, in whatever order they came."""
    async with following(tenant, repository.bare, tmp_path / "data") as it:
        await it.reconciler.tick()
        await ask(it, "push", "manual", "neighbour", "push")
        await it.reconciler.tick()
        assert await it.reconciler.tick() == {}
        assert triggers(it) == ["manual", "poll"]


async def test_who_asks_during_a_pass_is_told_of_the_next(
    tenant: Tenant, repository: Repository, tmp_path: Path
) -> None:
    """A push that comes while somebody's `sync` is served makes a run of its own, which is told as a push."""
    async with following(tenant, repository.bare, tmp_path / "data") as it:
        await it.reconciler.tick()
        await ask(it, "manual")
        gate = gate_at(it.reconciler, "resolve")
        ticking = asyncio.create_task(it.reconciler.tick())
        await asyncio.to_thread(gate.reached.wait, 30)
        await ask(it, "push")
        gate.opened.set()
        await ticking
        repository.push({"new.yaml": manifest("new")})
        await it.reconciler.tick()
        assert triggers(it) == ["push", "manual", "poll"]


async def test_what_somebody_left_undone_keeps_its_word(tenant: Tenant, repository: Repository, tmp_path: Path) -> None:
    """A reconciler that was lost in the middle of a `sync` hands it on as a `sync`."""
    async with following(tenant, repository.bare, tmp_path / "data") as it:
        await it.reconciler.tick()
        await ask(it, "manual")
        gate = gate_at(it.reconciler, "resolve")
        lost = asyncio.create_task(it.reconciler.tick())
        await asyncio.to_thread(gate.reached.wait, 30)
        lease_runs_out(it)
        await ask(it, "push")
        await it.another().tick()
        gate.opened.set()
        assert await lost == {"main": "overtaken"}
        assert triggers(it) == ["manual", "poll"]
