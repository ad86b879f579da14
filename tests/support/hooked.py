"""An app with a source that takes webhooks, and deliveries to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cron_observer.settings import SourceSettings
from cron_observer.source import SourceSpec
from cron_observer.store import sources
from cron_observer.store.engine import clock
from support.api import Api, api, served
from support.databases import Tenant
from support.forges import ADDRESSES, signed


async def add_source(tenant: Tenant, name: str, url: str, ref: str | None = "refs/heads/main") -> None:
    """Write a source down as the reconciler does."""
    spec = SourceSpec(name=name, url=url, ref=ref, project=tenant.project, poll_seconds=3600)
    async with tenant.database.reconciler.transaction([tenant.tenant_id]) as conn:
        await sources.ensure(conn, tenant.tenant_id, spec, "git", await clock(conn))


@asynccontextmanager
async def hooked(tenant: Tenant, provider: str = "github", *, serve: bool = False, **more: Any) -> AsyncIterator[Api]:
    """Run the app with a source ``main`` that takes webhooks of `provider`."""
    url, secret_ref = more.pop("url", ADDRESSES[provider]), more.pop("secret_ref", ("env:HOOK_SECRET",))
    ref = more.pop("ref", "refs/heads/main")
    await add_source(tenant, "main", url, ref)
    one = SourceSettings(name="main", url=url, provider=provider, secret_ref=secret_ref)
    plain = SourceSettings(name="plain", url=url, provider=provider)
    async with (served if serve else api)(tenant, sources=(one, plain), **more) as it:
        yield it


async def deliver(
    it: Api, provider: str, raw: bytes, headers: dict[str, Any] | None = None, *, source: str = "main"
) -> Any:
    """Send a delivery, signed well unless `headers` say otherwise."""
    given = signed(provider, raw) if headers is None else headers
    return await it.client.post(f"/hooks/git/{provider}/{source}", content=raw, headers=given)


def woken(tenant: Tenant, name: str = "main") -> int:
    """Return how often the source was asked to be looked at."""
    return int(tenant.database.value("SELECT requested_seq FROM sources WHERE name = %s", name))
