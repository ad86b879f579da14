"""Several reconcilers, triggers that come together, and reconcilers that die between two steps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cron_observer.reconcile import Reconciler, passes
from cron_observer.store import calendars, groups, sources, sync, task_writes
from support.databases import Tenant
from support.gates import gate_at, lease_runs_out
from support.repositories import Following, Repository, following, manifest, until


async def test_two_reconcilers_make_one_pass(tenant: Tenant, tmp_path: Path) -> None:
    """Of several reconcilers that tick at once, one applies and the others find nothing to do."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        outcomes = await asyncio.gather(it.reconciler.tick(), it.another().tick(), it.another().tick())
        assert sorted(outcome.get("main", "-") for outcome in outcomes) == ["-", "-", "applied"]
        assert len(it.runs()) == 1
        assert it.source()["lease_epoch"] == 1


@pytest.mark.parametrize("step", ["fetch", "read", "changes"])
async def test_a_reconciler_that_was_overtaken_writes_nothing(tenant: Tenant, tmp_path: Path, step: str) -> None:
    """One that slept through its lease with an old commit in its hands changes nothing when it wakes up."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"a.yaml": manifest("alpha", "1 1 * * *"), "b.yaml": manifest("beta")})
        gate = gate_at(it.reconciler, step)
        it.database.do("UPDATE sources SET requested_seq = requested_seq + 1")
        sleeping = asyncio.create_task(it.reconciler.tick())
        await asyncio.to_thread(gate.reached.wait, 30)
        newest = repository.push({"a.yaml": manifest("alpha", "2 2 * * *"), "b.yaml": None})
        lease_runs_out(it)
        other = Reconciler(
            tenant.database.reconciler,
            it.settings.__class__(data_dir=tmp_path / "other", sources=it.settings.sources),
            patience=60,
            listen=False,
        )
        it.others.append(other)
        assert await other.tick() == {"main": "applied"}
        gate.opened.set()
        assert await sleeping == {"main": "overtaken"}
        assert it.names("true") == ["alpha"]
        assert it.task("alpha")["spec"]["schedule"]["cron"] == "2 2 * * *"
        assert it.source()["applied_commit"] == newest
        assert it.source()["lease_until"] is None
        assert [run["outcome"] for run in it.runs()] == ["applied", "abandoned", "applied"]


async def test_without_its_fence_the_overtaken_would_win(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: without the comparison of epoch and sequences, the old commit comes back."""
    from sqlalchemy import text

    unfenced = str(sources._END_PASS).replace("AND lease_epoch = :epoch AND applied_seq = :applied_seq", "")
    unfenced = unfenced.replace("AND observed_seq = :observed_seq", "")
    assert unfenced != str(sources._END_PASS)
    observe = str(sync._OBSERVE).replace("AND lease_epoch = :epoch", "")
    monkeypatch.setattr(sources, "_END_PASS", text(unfenced))
    monkeypatch.setattr(sync, "_OBSERVE", text(observe))
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"b.yaml": manifest("beta")})
        gate = gate_at(it.reconciler, "read")
        it.database.do("UPDATE sources SET requested_seq = requested_seq + 1")
        sleeping = asyncio.create_task(it.reconciler.tick())
        await asyncio.to_thread(gate.reached.wait, 30)
        newest = repository.push({"b.yaml": None})
        lease_runs_out(it)
        await it.another().tick()
        gate.opened.set()
        await sleeping
        assert it.names() == ["alpha", "beta"], "the twin is not broken any more: the test above proves nothing"
        assert it.source()["applied_commit"] != newest


async def test_triggers_that_come_together_make_one_pass(tenant: Tenant, tmp_path: Path) -> None:
    """However often a source is asked for, one pass follows; for what comes during it, exactly one more."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        epoch = it.source()["lease_epoch"]
        async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
            from cron_observer.store.engine import clock

            now = await clock(conn)
            asked = [await sources.request_sync(conn, tenant.tenant_id, "main", now, by="manual") for _ in range(5)]
        assert asked == [1, 2, 3, 4, 5]
        gate = gate_at(it.reconciler, "resolve")
        ticking = asyncio.create_task(it.reconciler.tick())
        await asyncio.to_thread(gate.reached.wait, 30)
        it.database.do("UPDATE sources SET requested_seq = requested_seq + 3")
        gate.opened.set()
        await ticking
        assert it.source()["lease_epoch"] == epoch + 1
        assert (it.source()["handled_seq"], it.source()["requested_seq"]) == (5, 8)
        await it.reconciler.tick()
        await it.reconciler.tick()
        assert it.source()["lease_epoch"] == epoch + 2
        assert it.source()["handled_seq"] == 8


class Died(BaseException):
    """Ends a pass as a kill would: no handler of ours runs."""


STEPS = [
    (sync, "begin_run"),
    (passes, "gather"),
    (task_writes, "inventory"),
    (calendars, "apply"),
    (groups, "apply"),
    (task_writes, "insert"),
    (task_writes, "change"),
    (task_writes, "follow_up"),
    (sync, "save_files"),
    (sync, "replace_findings"),
    (sync, "end_run"),
    (sources, "end_pass"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("module", "name"), STEPS, ids=[f"{module.__name__.rpartition('.')[2]}.{name}" for module, name in STEPS]
)
async def test_a_reconciler_that_dies_at_any_step_leaves_nothing_half_done(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, when: str
) -> None:
    """Before the commit nothing of the new state is seen; the next holder applies it and marks the dead run."""
    repository = Repository.make(tmp_path)
    first = repository.push({"a.yaml": manifest("alpha"), "gone.yaml": manifest("gone")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        second = repository.push(
            {"a.yaml": manifest("alpha", "1 1 * * *"), "b.yaml": manifest("beta"), "gone.yaml": None}
        )
        function = getattr(module, name)

        async def dying(*arguments: Any, **named: Any) -> Any:
            if when == "after":
                await function(*arguments, **named)
            raise Died

        with monkeypatch.context() as patch:
            patch.setattr(module, name, dying)
            work = await take(it)
            with pytest.raises(Died):
                await work._proceed()
        assert it.source()["applied_commit"] == first
        assert it.names() == ["alpha", "gone"]
        assert it.task("alpha")["generation"] == 1
        assert it.source()["lease_until"] is not None
        assert await it.another().tick() == {}, "the lease is held"
        lease_runs_out(it)
        assert await it.another().tick() == {"main": "applied"}
        assert it.names() == ["alpha", "beta"]
        assert it.task("alpha")["generation"] == 2
        assert it.source()["applied_commit"] == second
        outcomes = [run["outcome"] for run in it.runs()]
        if name == "begin_run":
            assert outcomes == ["applied", "applied"]
        else:
            assert outcomes == ["applied", "abandoned", "applied"]


async def take(it: Following) -> passes.Pass:
    """Lease the source as a tick does, and return the pass that it would make."""
    it.database.do("UPDATE sources SET requested_seq = requested_seq + 1")
    subject = it.reconciler._subjects["main"]
    async with it.database.reconciler.transaction([it.tenant.tenant_id]) as conn:
        from cron_observer.store.engine import clock

        held = await sources.lease(
            conn, it.tenant.tenant_id, subject.source_id, owner="x", now=await clock(conn), ttl=passes.LEASE
        )
    assert held is not None
    return passes.Pass(it.database.reconciler, subject, held, it.reconciler._reader, asyncio.Lock())


async def test_a_name_taken_while_planning_is_planned_again(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that the API creates between plan and apply is not run over: the plan is made anew."""
    from cron_observer.manifest import effective
    from cron_observer.store import plans, tasks
    from cron_observer.store.engine import clock

    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha"), "b.yaml": manifest("beta")})
    spec = effective({"schedule": {"cron": "0 1 * * *"}})

    async def create(conn: Any) -> Any:
        return await tasks.create_owned(
            conn, tenant.tenant_id, tenant.project_id, "alpha", spec, {}, "key", await clock(conn)
        )

    apply, calls = task_writes.apply, []

    async def later(*arguments: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            await plans.in_transaction_with_margin(tenant.database.api, [tenant.tenant_id], create)
        await apply(*arguments, **named)

    monkeypatch.setattr(task_writes, "apply", later)
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        assert len(calls) == 2
        assert it.task("alpha")["owner"] == "api"
        assert it.task("beta")["owner"] == "manifest"
        assert [finding["code"] for finding in it.findings()] == ["CO1501"]


async def test_an_unexpected_error_stays_with_its_source(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in one pass is logged and told, and the source is tried again."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:

        async def buggy(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(passes, "gather", buggy)
            assert await it.reconciler.tick() == {}
        assert it.conditions()["Ready"] == "False InternalError"
        assert it.runs()[0]["outcome"] == "failed"
        assert it.source()["lease_until"] is None
        assert await it.sync() == "applied"


async def test_a_long_pass_keeps_its_lease(tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a pass goes on its lease is renewed, so that nobody repeats its work."""
    monkeypatch.setattr(passes, "RENEW_SECONDS", 0.05)
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        gate = gate_at(it.reconciler, "fetch")
        ticking = asyncio.create_task(it.reconciler.tick())
        await asyncio.to_thread(gate.reached.wait, 30)
        first = it.source()["lease_until"]
        await until(lambda: it.source()["lease_until"] > first, "the lease is renewed")
        gate.opened.set()
        assert await ticking == {"main": "applied"}
        assert it.source()["lease_until"] is None


async def test_closing_gives_the_lease_back(tenant: Tenant, tmp_path: Path) -> None:
    """A reconciler that is stopped in a pass lets the next one begin at once."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        gate = gate_at(it.reconciler, "fetch")
        ticking = asyncio.create_task(it.reconciler.tick())
        await asyncio.to_thread(gate.reached.wait, 30)
        closing = asyncio.create_task(it.reconciler.close())
        await asyncio.sleep(0)
        gate.opened.set()
        await closing
        assert await ticking == {"main": "stopped"}
        source = it.source()
        assert (source["lease_until"], source["failures"], source["conditions"]) == (None, 0, {})
        assert it.runs()[0]["outcome"] == "abandoned"
        assert await it.another().tick() == {"main": "applied"}


async def test_a_deadlock_is_tried_again(tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that cannot be had in time is no failure of the source: the plan is made and written again."""
    from sqlalchemy import text

    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    apply, calls = task_writes.apply, []

    async def deadlocked(conn: Any, *arguments: Any) -> None:
        calls.append(1)
        await apply(conn, *arguments)
        if len(calls) == 1:
            raising = "DO $$ BEGIN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END $$"
            await conn.execute(text(raising))

    monkeypatch.setattr(task_writes, "apply", deadlocked)
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        assert len(calls) == 2
        assert it.names() == ["alpha"]


async def test_a_database_that_goes_away_postpones_the_pass(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that loses the database leaves the source as it was, and it is due again at once."""
    from cron_observer.errors import DatabaseError

    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:

        async def lost(*_: Any, **__: Any) -> None:
            raise DatabaseError("the database went away")

        with monkeypatch.context() as patch:
            patch.setattr(passes, "gather", lost)
            assert await it.reconciler.tick() == {}
        source = it.source()
        assert (source["failures"], source["conditions"], source["lease_until"]) == (0, {}, None)
        assert it.runs()[0]["outcome"] == "abandoned"
        assert await it.reconciler.tick() == {"main": "applied"}
