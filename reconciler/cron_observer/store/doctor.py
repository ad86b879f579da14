"""What `cron-observer doctor` asks a database, as whoever its URL names: it must work before the schema is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from alembic.runtime.migration import MigrationContext
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from cron_observer.errors import DatabaseError
from cron_observer.store.engine import Database, clock

#: Seconds that a connection may take.
PATIENCE: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a database says of itself."""

    version: tuple[int, ...]  #: such as (18, 6)
    revision: str | None  #: of the schema; None when there is none
    ahead: timedelta  #: how far its clock is ahead of ours
    unsure: timedelta  #: by how much that may be wrong: half of the time that the question took


async def look(url: str, wall: Callable[[], datetime]) -> Facts:
    """Ask the database at `url`; `wall` is this machine's clock. Raises `DatabaseError` when it does not answer."""
    try:
        engine = create_async_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            poolclass=NullPool,
            connect_args={"connect_timeout": PATIENCE, "prepare_threshold": None},
        )
    except (ArgumentError, ValueError):
        raise DatabaseError("its URL cannot be read", hint="write postgresql://user:password@host/database") from None
    try:
        async with engine.connect() as conn:
            await clock(conn)  # the first question pays for what the next ones do not
            before = wall()
            theirs = await clock(conn)
            after = wall()
            revision = await conn.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())
            version = tuple(part for part in conn.dialect.server_version_info or () if isinstance(part, int))
    except SQLAlchemyError as error:
        raise DatabaseError(said(error), hint="is it up, and are address, user and password right?") from error
    finally:
        await engine.dispose()
    half = (after - before) / 2
    return Facts(version=version, revision=revision, ahead=theirs - (before + half), unsure=half)


async def refusal(url: str, role: str) -> str | None:
    """Return why the product could not act as `role` with this URL; None when it can."""
    database = Database(url, role, pool_size=1)
    try:
        async with database.transaction([]) as conn:
            await clock(conn)
    except DatabaseError as error:
        return said(error.__cause__) if isinstance(error.__cause__, SQLAlchemyError) else error.message
    except SQLAlchemyError as error:
        return said(error)
    finally:
        await database.close()
    return None


def said(error: SQLAlchemyError) -> str:
    """Return the last line of what the server or the driver said, which names the trouble and no secret."""
    lines = [line.strip() for line in str(getattr(error, "orig", None) or error).splitlines() if line.strip()]
    telling = [line for line in lines if "failed: " in line or "FATAL" in line or "ERROR" in line] or lines
    return telling[0].rpartition("FATAL: ")[2].strip() if telling else type(error).__name__
