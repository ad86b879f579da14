"""Connections, transactions and the clock: the only door to the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from cron_observer.errors import DatabaseError

#: Seconds that a caller waits for a connection of the pool before it is told 503.
POOL_WAIT: Final = 2.0


#: How long a transaction may do nothing. A process that was halted in the midst of one holds others up no longer.
IDLE_LIMIT: Final = "5min"

#: Our statements bound what they read by ids, which are compared with partitions anyhow: to compare every filter with
#: the checks of every partition too took a third of planning. And none of them is worth compiling.
_PLANNING: Final = "SET LOCAL constraint_exclusion = off; SET LOCAL jit = off"


def role_url(url: str, role: str) -> tuple[URL, bool]:
    """Return the URL that `role` connects with, and whether it still has to be assumed inside each transaction.

    A server on a private socket without a password is ours: the role logs in by itself. On any other server the
    credentials of `url` are used and every transaction says ``SET LOCAL ROLE``, unless they are the role's own.
    """
    parsed = make_url(url).set(drivername="postgresql+psycopg")
    host = parsed.query.get("host") or parsed.host or ""
    ours = parsed.password is None and str(host).startswith("/")
    if ours:
        return parsed.set(username=role), False
    return parsed, parsed.username != role


class Database:
    """A pool of connections that act as one role."""

    def __init__(self, url: str, role: str, *, pool_size: int = 4, application: str | None = None) -> None:
        """`url` is any PostgreSQL URL; `role` one of cron_observer_api, _reconciler, _scheduler."""
        target, assume = role_url(url, role)
        self.role = role
        self.connections = pool_size  #: how many transactions may be open at once
        self._prefix = f"SET LOCAL ROLE {role}; " if assume else ""
        self._target = target
        self._arguments: dict[str, Any] = {
            "application_name": application or role,
            # A transaction is begun together with its settings; by itself the driver would send BEGIN alone before.
            "autocommit": True,
            # Prepared statements are session state: a transaction pooler would mix them up.
            "prepare_threshold": None,
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "tcp_user_timeout": 10_000,
        }
        self.engine = create_async_engine(
            target,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_WAIT,
            pool_pre_ping=False,
            connect_args=self._arguments,
        )

    @asynccontextmanager
    async def transaction(self, tenants: Iterable[UUID], **settings: str) -> AsyncIterator[AsyncConnection]:
        """Open one transaction that sees exactly the rows of `tenants`; commit at the end, roll back on any error.

        `settings` are further ``app.*`` settings of the transaction (hexadecimal or plain words only). Raises
        `DatabaseError` when the server cannot be reached or no connection of the pool comes free in time.
        """
        names = ",".join(sorted(str(UUID(str(tenant))) for tenant in tenants))
        opening = f"BEGIN; {self._prefix}SET LOCAL app.tenant_ids = '{names}'"
        opening += f"; SET LOCAL idle_in_transaction_session_timeout = '{IDLE_LIMIT}'; {_PLANNING}"
        for name, value in settings.items():
            if not (name.isidentifier() and value.isalnum()):
                raise ValueError(f"app.{name} must be alphanumeric")
            opening += f"; SET LOCAL app.{name} = '{value}'"
        try:
            async with self.engine.begin() as connection:
                await _run(connection, opening)
                yield connection
        except PoolTimeout as error:
            raise DatabaseError("every database connection is busy", hint="try again in a moment") from error
        except OperationalError as error:
            if error.connection_invalidated or error.orig is None or getattr(error.orig, "sqlstate", None) is None:
                raise DatabaseError("the database cannot be reached", hint="try again in a moment") from error
            raise
        except DBAPIError as error:
            if error.connection_invalidated:
                raise DatabaseError("the database went away", hint="try again in a moment") from error
            raise

    @asynccontextmanager
    async def listening(self, statement: str) -> AsyncIterator[AsyncIterator[object]]:
        """Run `statement` on a connection beside the pool, and give the notices that come to it from then on."""
        engine = create_async_engine(self._target, poolclass=NullPool, connect_args=self._arguments)
        try:
            async with engine.connect() as connection:
                raw: Any = (await connection.get_raw_connection()).driver_connection
                await raw.set_autocommit(True)
                await raw.execute(statement)
                yield raw.notifies()
        finally:
            await engine.dispose()

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


async def clock(connection: AsyncConnection) -> datetime:
    """Return the database's clock at this moment, as aware UTC."""
    ((value,),) = await fetch(connection, "SELECT clock_timestamp()")
    assert isinstance(value, datetime)  # noqa: S101  PostgreSQL says so
    return value


async def fetch(connection: AsyncConnection, statement: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
    """Run one statement with ``%(name)s`` placeholders and return its rows, each a tuple; [] if it has none."""
    return await _run(connection, statement, dict(parameters or {}))


async def _run(connection: AsyncConnection, statement: str, parameters: dict[str, Any] | None = None) -> list[Any]:
    """Hand a statement to the driver itself, which takes a quarter of the time; fail as SQLAlchemy would."""
    opened: Any = connection.sync_connection
    raw = opened.connection.driver_connection
    cursor = raw.cursor()
    try:
        await cursor.execute(statement, parameters)
        return await cursor.fetchall() if cursor.description else []
    except psycopg.Error as error:
        gone = bool(raw.closed)
        if gone:
            await connection.invalidate(error)
        wrapped = DBAPIError.instance(
            statement, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=gone
        )
        raise wrapped from error


#: Deadlock, serialization failure, lock not to be had in time: the same statement may well succeed a moment later.
_TRANSIENT: Final = frozenset({"40P01", "40001", "55P03"})


def is_transient(error: BaseException) -> bool:
    """Say whether trying the transaction again is worth while."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _TRANSIENT
