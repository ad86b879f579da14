"""The server: where it listens, what it says when it cannot, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx
import pytest

from cron_observer.errors import SettingsError
from cron_observer.settings import Settings
from cron_observer_api.app import create_app
from cron_observer_api.serve import listen, loop_factory, serve
from support.api import served
from support.databases import Tenant, connect


def test_a_busy_port_is_said() -> None:
    """An address that is taken, or none at all, is a setting to mend."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(SettingsError, match=f"port {port}"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()
    with pytest.raises(SettingsError, match="no address"):
        listen("no-such-host.invalid", 0)


def test_loopback_of_ipv6_is_listened_on() -> None:
    """Brackets around an IPv6 address are allowed."""
    with listen("[::1]", 0) as bound:
        assert bound.family is socket.AF_INET6


def test_the_quickest_loop_is_taken() -> None:
    """uvloop is installed and used."""
    loop = loop_factory()()
    try:
        assert type(loop).__module__.startswith("uvloop")
    finally:
        loop.close()


async def test_a_server_without_a_database_does_not_start(tmp_path: Path) -> None:
    """The API role needs its database to be set."""
    with pytest.raises(SettingsError, match="no database"):
        await serve(Settings(data_dir=tmp_path), stop=asyncio.Event())


async def test_a_server_opens_and_closes_its_own_pool(tenant: Tenant, tmp_path: Path) -> None:
    """Without an app it makes its own from the settings; when it has stopped the port is free and nothing is open."""
    stop, ready = asyncio.Event(), asyncio.Event()
    bound = listen("127.0.0.1", 0)
    port = bound.getsockname()[1]
    settings = Settings(data_dir=tmp_path, database_url=tenant.database.url)
    serving = asyncio.ensure_future(serve(settings, stop=stop, bound=bound, on_listening=lambda _port: ready.set()))
    await asyncio.wait_for(ready.wait(), 60)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert "server" not in (await client.get("/livez")).headers
    stop.set()
    await asyncio.wait_for(serving, 60)
    listen("127.0.0.1", port).close()
    open_ = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'cron_observer_api'"
    async with asyncio.timeout(60):
        while tenant.database.value(open_):  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.02)


async def test_a_cancelled_server_ends_too(tenant: Tenant, tmp_path: Path) -> None:
    """Cancelling the caller, as a second Ctrl-C does, ends the server without its grace."""
    ready = asyncio.Event()
    app = create_app(Settings(data_dir=tmp_path, database_url=tenant.database.url), database=tenant.database.api)
    bound = listen("127.0.0.1", 0)
    told = serve(app.state.settings, stop=asyncio.Event(), app=app, bound=bound, on_listening=lambda _port: ready.set())
    serving = asyncio.ensure_future(told)
    await asyncio.wait_for(ready.wait(), 60)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(serving, 60)
    assert app.state.draining.is_set()


async def test_a_request_under_way_is_finished(tenant: Tenant, tmp_path: Path) -> None:
    """A request that has begun when the server is told to stop gets its answer; a later one finds nobody."""
    stop, ready = asyncio.Event(), asyncio.Event()
    app = create_app(Settings(data_dir=tmp_path, database_url=tenant.database.url), database=tenant.database.api)
    bound = listen("127.0.0.1", 0)
    told = serve(app.state.settings, stop=stop, app=app, bound=bound, on_listening=lambda _port: ready.set())
    serving = asyncio.ensure_future(told)
    await asyncio.wait_for(ready.wait(), 60)
    base = f"http://127.0.0.1:{bound.getsockname()[1]}"
    waits = (
        "SELECT count(*) FROM pg_locks JOIN pg_class c ON c.oid = relation WHERE relname = 'sources' AND NOT granted"
    )
    async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
        with connect(tenant.database.url) as other, other.transaction():
            other.execute("LOCK TABLE sources IN ACCESS EXCLUSIVE MODE")
            asked = asyncio.ensure_future(client.get("/api/v1/sources"))
            async with asyncio.timeout(60):
                while not tenant.database.value(waits):  # noqa: ASYNC110  nothing tells
                    await asyncio.sleep(0.02)
            stop.set()
            await asyncio.sleep(0)
        assert (await asked).status_code == 200
        await asyncio.wait_for(serving, 60)
        with pytest.raises(httpx.ConnectError):
            await client.get("/livez")


async def test_a_head_request_is_no_error(tenant: Tenant, caplog: pytest.LogCaptureFixture) -> None:
    """Only the header fields of what GET answers come, and the server has nothing to complain of."""
    async with served(tenant) as it:
        key = await it.key("read")
        headed = await it.client.head("/api/v1/projects", headers=key)
        got = await it.client.get("/api/v1/projects", headers=key)
    assert (headed.status_code, headed.content) == (200, b"")
    assert headed.headers["content-length"] == str(len(got.content))
    assert headed.headers["ratelimit-limit"] == got.headers["ratelimit-limit"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
