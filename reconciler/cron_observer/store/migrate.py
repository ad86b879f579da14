"""Bring a database to the schema of this version. Runs as the administrator; everything is owned by the owner role."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from cron_observer.errors import DatabaseError
from cron_observer.store.tables import metadata

#: Nobody logs in with a password of ours: an embedded server trusts its private socket, and on a server of yours
#: you choose (docs/how-to/use-your-own-postgresql.md).
ROLES: Final = (
    "cron_observer_owner",
    "cron_observer_api",
    "cron_observer_reconciler",
    "cron_observer_scheduler",
)

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('cron_observer.migrate', 0))"

_MAKE_ROLES: Final = "\n".join(
    f"""DO $$ BEGIN CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;"""
    for role in ROLES
)

_LIMITS: Final = "\n".join(
    f"ALTER ROLE {role} SET {setting};"
    for role in ROLES[1:]
    for setting in (
        "statement_timeout = '60s'",
        "lock_timeout = '5s'",
        "idle_in_transaction_session_timeout = '60s'",
        "timezone = 'UTC'",
    )
)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(str(resources.files("cron_observer"))) / "store" / "migrations"))
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """Return the revision that this version needs."""
    revision = ScriptDirectory(
        str(Path(str(resources.files("cron_observer"))) / "store" / "migrations")
    ).get_current_head()
    assert revision is not None  # noqa: S101  the package carries its migrations
    return revision


def migrate(url: str, to: str = "head") -> list[str]:
    """Upgrade the database at `url` to a revision, in one transaction, and return the revisions applied.

    `url` belongs to a role that may create roles and tables: a superuser, or a member of the owner role with
    CREATEROLE. Safe to run from several processes at once. Raises `DatabaseError` when the server says no.
    """
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(_LOCK)
            if connection.dialect.server_version_info and connection.dialect.server_version_info < (15,):
                raise DatabaseError("PostgreSQL 15 or newer is needed", hint="use a newer server or the embedded one")
            connection.exec_driver_sql(_MAKE_ROLES)
            connection.exec_driver_sql(_LIMITS)
            _become_owner(connection)
            before = MigrationContext.configure(connection).get_current_revision()
            command.upgrade(_config(connection), to)
            script = ScriptDirectory.from_config(_config(connection))
            return [step.revision for step in script.iterate_revisions(to, before) if step.revision != before][::-1]
    except SQLAlchemyError as error:
        raise DatabaseError(
            f"the schema cannot be brought up to date: {str(error).splitlines()[0]}",
            hint="its user must be able to create roles and tables: docs/how-to/use-your-own-postgresql.md",
        ) from error
    finally:
        engine.dispose()


def _become_owner(connection: Connection) -> None:
    """Make the rest of the transaction run as the owner role, with the right to create in the schema."""
    name = connection.exec_driver_sql("SELECT quote_ident(current_user)").scalar_one()
    database = connection.exec_driver_sql("SELECT quote_ident(current_database())").scalar_one()
    superuser = connection.exec_driver_sql("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").scalar_one()
    if not superuser:
        connection.exec_driver_sql(f"GRANT {', '.join(ROLES)} TO {name}")
    connection.exec_driver_sql(f"GRANT CREATE, TEMPORARY ON DATABASE {database} TO cron_observer_owner")
    connection.exec_driver_sql("GRANT USAGE, CREATE ON SCHEMA public TO cron_observer_owner")
    connection.exec_driver_sql("SET LOCAL ROLE cron_observer_owner")


def differences(url: str) -> list[str]:
    """Return what the database's tables and the metadata disagree on, as text; empty when they agree."""
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection,
                opts={
                    "compare_type": True,
                    "compare_server_default": True,
                    "include_name": lambda name, kind, _parents: kind != "table" or name in metadata.tables,
                },
            )
            return [str(difference) for difference in compare_metadata(context, metadata)]
    finally:
        engine.dispose()
