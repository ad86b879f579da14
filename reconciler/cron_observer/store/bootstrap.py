"""The first steps in a new database: the database itself, the first tenant and projects, a key for this machine.

These run as the administrator; everything after them runs in a role of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from cron_observer.store import keys, tenants
from cron_observer.store.engine import Database, clock, fetch

_EXISTS: Final = "SELECT 1 FROM pg_database WHERE datname = %(name)s"

#: The administrator may be no superuser: then row-level security holds for it too, but for what the owner may do.
_AS_OWNER: Final = "SET LOCAL ROLE cron_observer_owner"


def libpq(url: str) -> tuple[str, dict[str, str]]:
    """Return the URL as PostgreSQL's own programs read it, and the environment that takes its password to them.

    What stands on a command line can be read by every user of the machine.
    """
    parsed = make_url(url).set(drivername="postgresql")
    secret = {"PGPASSWORD": str(parsed.password)} if parsed.password else {}
    return parsed._replace(password=None).render_as_string(hide_password=False), secret


def create_database(url: str, name: str) -> None:
    """Make the database `name` on the server at `url` unless it is there."""
    asyncio.run(_create_database(url, name))


async def _create_database(url: str, name: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as conn:
            if not await fetch(conn, _EXISTS, {"name": name}):
                await fetch(conn, f'CREATE DATABASE "{name}"')
    finally:
        await engine.dispose()


def settle_in(
    admin_url: str, api_url: str, *, tenant: str, projects: Iterable[str], token: str | None
) -> tuple[str, bool]:
    """Make the tenant and its projects unless they are there, and a key with every scope unless `token` is valid.

    Returns the key, and whether it is new.
    """
    return asyncio.run(_settle_in(admin_url, api_url, tenant, list(projects), token))


def make_places(admin_url: str, *, tenant: str, projects: Iterable[str]) -> None:
    """Make the tenant and its projects unless they are there. The schema must be up to date."""
    asyncio.run(_make_places(admin_url, tenant, list(projects)))


async def _make_places(admin_url: str, tenant: str, projects: list[str]) -> None:
    engine = create_async_engine(admin_url)
    try:
        async with engine.begin() as conn:
            await conn.exec_driver_sql(_AS_OWNER)
            now = await clock(conn)
            identity = await tenants.ensure(conn, tenant, now)
            for project in projects:
                await tenants.ensure_project(conn, identity, project, now)
    finally:
        await engine.dispose()


async def _settle_in(
    admin_url: str, api_url: str, tenant: str, projects: list[str], token: str | None
) -> tuple[str, bool]:
    await _make_places(admin_url, tenant, projects)
    identity = tenants.tenant_id(tenant)
    database = Database(api_url, "cron_observer_api", pool_size=1)
    try:
        if token is not None and await keys.find(database, token) is not None:
            return token, False
        async with database.transaction([identity]) as conn:
            now = await clock(conn)
            _, made = await keys.create(
                conn, identity, name="this machine (dev.env)", scopes=keys.SCOPES, created_by="up", now=now
            )
        return made, True
    finally:
        await database.close()
