"""The API for tests: the real app on the test's database, and keys for it."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cron_observer.settings import Settings
from cron_observer.store import keys
from cron_observer.store.engine import clock
from cron_observer_api.app import App, create_app
from cron_observer_api.serve import listen, serve
from support.databases import Tenant

#: How the app is addressed: by a name that a server on loopback answers to.
BASE = "http://127.0.0.1"

#: No client speaks TLS here, and to read the certificates that each would trust takes longer than most requests.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class Api:
    """The app of one tenant, with a client that brings no key."""

    tenant: Tenant
    client: httpx.AsyncClient
    app: App | None = None
    tokens: dict[tuple[str, ...], str] = field(default_factory=dict)

    async def key(self, *scopes: str, tenant: Tenant | None = None) -> dict[str, str]:
        """Return the header of a key with these scopes, made when first asked for."""
        of = tenant or self.tenant
        place = (str(of.tenant_id), *scopes)
        if place not in self.tokens:
            self.tokens[place] = await make_key(of, *scopes)
        return {"Authorization": f"Bearer {self.tokens[place]}"}

    async def call(
        self, method: str, path: str, *scopes: str, tenant: Tenant | None = None, **more: Any
    ) -> httpx.Response:
        """Call ``/api/v1`` with a key of these scopes, or without any."""
        headers = dict(more.pop("headers", {}))
        if scopes:
            headers |= await self.key(*scopes, tenant=tenant)
        return await self.client.request(method, f"/api/v1{path}", headers=headers, **more)


async def make_key(tenant: Tenant, *scopes: str) -> str:
    """Make a key in the database and return it."""
    async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
        _, token = await keys.create(
            conn, tenant.tenant_id, name="test", scopes=scopes, created_by="test", now=await clock(conn)
        )
    return token


@asynccontextmanager
async def api(tenant: Tenant, **settings: Any) -> AsyncIterator[Api]:
    """Run the app inside this process, without a socket."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = Settings(**{"data_dir": Path(folder), "database_url": tenant.database.url, **settings})
        app = create_app(chosen, database=tenant.database.api)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            yield Api(tenant, client, app)


@asynccontextmanager
async def served(tenant: Tenant, **settings: Any) -> AsyncIterator[Api]:
    """Run the app behind a real server on a free port."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = Settings(**{"data_dir": Path(folder), "database_url": tenant.database.url, **settings})
        bound = listen(chosen.host, 0)
        stop, ready = asyncio.Event(), asyncio.Event()
        app = create_app(chosen, database=tenant.database.api)
        told = serve(chosen, stop=stop, app=app, bound=bound, on_listening=lambda _port: ready.set())
        serving = asyncio.ensure_future(told)
        waiting = asyncio.ensure_future(ready.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            if serving.done():
                serving.result()
            base = f"http://{chosen.host}:{bound.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=base, timeout=30, trust_env=False, verify=_NO_TLS) as client:
                yield Api(tenant, client, app)
        finally:
            stop.set()
            await serving
