"""Hints: who asks for a look wakes the reconciler at once, and nothing is lost when hints do not come through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cron_observer.store import source_reads
from cron_observer.store.engine import clock
from support.databases import Tenant
from support.repositories import Following, Repository, following, manifest, until

LISTENERS = (
    "SELECT pid FROM pg_stat_activity WHERE query = 'LISTEN cron_observer_sync' AND datname = current_database()"
)


@asynccontextmanager
async def running(it: Following) -> AsyncIterator[None]:
    """Let the reconciler tick by itself once an hour, so that only what wakes it can make a pass."""
    stop = asyncio.Event()
    loop = asyncio.create_task(it.reconciler.run(stop, every=3600))
    try:
        yield
    finally:
        stop.set()
        await loop


async def ask(it: Following) -> None:
    """Ask for a look at the source ``main``, as the API does for `sync` and for webhooks."""
    async with it.database.api.transaction([it.tenant.tenant_id]) as conn:
        await source_reads.request_sync(conn, it.tenant.tenant_id, "main", await clock(conn), by="manual")


async def test_who_asks_is_heard_at_once(tenant: Tenant, tmp_path: Path) -> None:
    """A request in another process makes a pass without waiting for a tick, also after a lost connection."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path, listen=True) as it:
        it.reconciler._watch = lambda _: None  # type: ignore[method-assign]  pushes are not to be heard of by watching
        async with running(it):
            await until(lambda: it.names() == ["alpha"], "the first pass")
            (before,) = await until(lambda: it.database.rows(LISTENERS), "it listens")
            repository.push({"b.yaml": manifest("beta")})
            await ask(it)
            await until(lambda: it.names() == ["alpha", "beta"], "the request is heard")
            it.database.do("SELECT pg_terminate_backend(%s)", before["pid"])
            await until(lambda: it.database.rows(LISTENERS) not in ([], [before]), "it listens again")
            repository.push({"c.yaml": manifest("gamma")})
            await ask(it)
            await until(lambda: len(it.names()) == 3, "the request is heard on the new connection")


async def test_without_hints_the_tick_finds_it(tenant: Tenant, tmp_path: Path) -> None:
    """Nothing depends on a hint: a reconciler that hears none does the same at its next tick."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert it.database.rows(LISTENERS) == []
        repository.push({"b.yaml": manifest("beta")})
        await ask(it)
        assert await it.reconciler.tick() == {"main": "applied"}
        assert it.names() == ["alpha", "beta"]
