"""A source whose commits are reported to a forge of the test's, and the loop that does it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cron_observer.reporter import Reporter
from cron_observer.settings import Settings, SourceSettings
from cron_observer.source import SourceSpec
from cron_observer.store import sources, statuses
from cron_observer.store.engine import clock
from cron_observer.store.sources import Lease
from support.databases import Tenant

TOKEN = "forge-token-0123456789"
COMMIT = "3f9c2ab0d1e2f3a4b5c6d7e8f90123456789abcd"
CONTEXT = "cron-observer/production/main"

#: Where each forge has the repository, and the path at which it is told of a commit.
PLACES = {
    "github": ("https://git.example.org/acme/tasks.git", "", f"/repos/acme/tasks/statuses/{COMMIT}"),
    "gitlab": (
        "https://git.example.org/acme/ops/tasks.git",
        "",
        f"/api/v4/projects/acme%2Fops%2Ftasks/statuses/{COMMIT}",
    ),
    "gitea": ("git@git.example.org:acme/tasks.git", "/api/v1", f"/api/v1/repos/acme/tasks/statuses/{COMMIT}"),
    "forgejo": ("https://git.example.org/acme/tasks", "", f"/api/v1/repos/acme/tasks/statuses/{COMMIT}"),
}

#: The header field in which each forge takes a token.
TOKENS = {
    "github": ("authorization", f"Bearer {TOKEN}"),
    "gitlab": ("private-token", TOKEN),
    "gitea": ("authorization", f"token {TOKEN}"),
    "forgejo": ("authorization", f"token {TOKEN}"),
}


@dataclass
class Reported:
    """A source whose commits are reported, and the loop that does it."""

    tenant: Tenant
    settings: Settings
    reporter: Reporter
    held: Lease

    async def put(self, state: str = "success", description: str = "3 applied", commit: str = COMMIT) -> None:
        """Put a state down as a pass does."""
        async with self.tenant.database.reconciler.transaction([self.tenant.tenant_id]) as conn:
            await statuses.put(
                conn,
                self.held,
                commit=commit,
                state=state,
                description=description,
                run_id=None,
                now=await clock(conn),
            )

    def row(self) -> dict[str, Any]:
        """Return the one row there is."""
        (found,) = self.tenant.database.rows("SELECT * FROM commit_statuses")
        return found

    def due(self) -> None:
        """Let what waits for another try be due."""
        self.tenant.database.do("UPDATE commit_statuses SET due_at = now() WHERE sent_at IS NULL")

    def waits(self) -> float:
        """Return the seconds until the next try."""
        return float(self.tenant.database.value("SELECT extract(epoch FROM due_at - now()) FROM commit_statuses"))


@asynccontextmanager
async def reported(
    tenant: Tenant, provider: str, forge_url: str | None, *, patience: float = 10.0, **more: Any
) -> AsyncIterator[Reported]:
    """Write down the source ``main`` of the environment ``production``, and report its commits to `forge_url`."""
    database, environment = tenant.database, more.pop("environment", "production")
    source = {"url": PLACES[provider][0], "status_ref": "env:FORGE_TOKEN", "environment": environment} | more
    one = SourceSettings(name="main", provider=provider, forge_url=forge_url, **source)
    settings = Settings(sources=(one,), base_url="https://cron.example.org", database_url=database.url)
    spec = SourceSpec(name="main", url=one.url, project=tenant.project, environment=environment, poll_seconds=3600)
    async with database.reconciler.transaction([tenant.tenant_id]) as conn:
        now = await clock(conn)
        source_id = await sources.ensure(conn, tenant.tenant_id, spec, "git", now)
        held = await sources.lease(conn, tenant.tenant_id, source_id, owner="test", now=now, ttl=timedelta(seconds=1))
    assert held is not None
    reporter = Reporter(database.reconciler, settings, patience=patience)
    try:
        yield Reported(tenant, settings, reporter, held)
    finally:
        await reporter.close()
