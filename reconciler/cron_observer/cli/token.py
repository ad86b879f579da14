"""``cron-observer token``: create, list and revoke API keys, straight in the database.

It needs no key itself: whoever may write the database may make one. That is how the first key comes to be.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import rich_click as click

from cron_observer.cli import _http, options
from cron_observer.errors import NotFound

T = TypeVar("T")

_COLUMNS: Final = (
    ("ID", "id"),
    ("NAME", "name"),
    ("SCOPES", "scopes"),
    ("CREATED", "created_at"),
    ("LAST USED", "last_used_at"),
    ("REVOKED", "revoked_at"),
)

#: How the audit log calls whoever sits at the machine.
_ACTOR: Final = "command line"

_config = click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Settings file.")


@click.group()
def token() -> None:
    """Create, list and revoke API keys."""


def _in_database(data_dir: Path | None, config: Path | None, work: Callable[[Any, UUID, Any], Awaitable[T]]) -> T:
    """Do `work` with a connection, the tenant's id and the database's clock."""
    from cron_observer.store.engine import Database, clock
    from cron_observer.store.tenants import tenant_id

    settings = options.load({"data_dir": data_dir}, config)
    tenant = tenant_id(settings.tenant)

    async def run() -> T:
        database = Database(options.database_url(settings), "cron_observer_api", pool_size=1)
        try:
            async with database.transaction([tenant]) as conn:
                return await work(conn, tenant, await clock(conn))
        finally:
            await database.close()

    return asyncio.run(run())


@token.command()
@click.option("--name", required=True, help="What it is for; shown in lists and in the audit log.")
@click.option(
    "--scope",
    "scopes",
    required=True,
    multiple=True,
    type=click.Choice(("read", "report", "trigger", "tasks:write", "admin")),
    help="What it may do; may be repeated. admin may do everything.",
)
@_http.output
@_http.place
@_config
def create(name: str, scopes: tuple[str, ...], style: str, data_dir: Path | None, config: Path | None) -> None:
    """Make a key and print it. It is shown this once."""
    from cron_observer.store import audit, keys

    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise click.BadParameter("must be 1 to 200 printable characters", param_hint="--name")

    async def work(conn: Any, tenant: UUID, now: Any) -> tuple[dict[str, Any], str]:
        made, secret = await keys.create(conn, tenant, name=name, scopes=scopes, created_by=_ACTOR, now=now)
        data = {"name": name, "scopes": made["scopes"]}
        target = f"key:{made['id']}"
        await audit.record(conn, tenant, actor=_ACTOR, action="key.create", target=target, now=now, data=data)
        return made, secret

    made, secret = _in_database(data_dir, config, work)
    click.echo(json.dumps(made | {"key": secret}, indent=2) if style == "json" else secret)


@token.command("list")
@_http.output
@_http.place
@_config
def list_(style: str, data_dir: Path | None, config: Path | None) -> None:
    """List keys by id, revoked ones included; never a secret."""
    from cron_observer.store import keys

    async def work(conn: Any, tenant: UUID, _now: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = None
        while True:
            page, after = await keys.list_keys(conn, tenant, limit=200, after=after)
            found += page
            if after is None:
                return found

    _http.show(_in_database(data_dir, config, work), _COLUMNS, style)


@token.command()
@click.argument("key_id")
@_http.place
@_config
def revoke(key_id: str, data_dir: Path | None, config: Path | None) -> None:
    """Make the key KEY_ID (the eight characters behind co_) worthless within 5 seconds."""
    from cron_observer.store import audit, keys

    async def work(conn: Any, tenant: UUID, now: Any) -> None:
        if not await keys.revoke(conn, tenant, key_id, now):
            raise NotFound(f"there is no key {key_id[:20]!r}", hint="`cron-observer token list` lists them")
        await audit.record(conn, tenant, actor=_ACTOR, action="key.revoke", target=f"key:{key_id}", now=now)

    _in_database(data_dir, config, work)
    click.echo(f"{key_id} is revoked")
