"""A migrated template per test process, and a fresh copy of it for each test that asks."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import DictRow, dict_row
from sqlalchemy import make_url

from cron_observer.store.engine import Database
from cron_observer.store.migrate import migrate
from cron_observer.store.tables import metadata
from cron_observer.store.tenants import project_id, tenant_id

#: Names a running server to test against: the URL of an administrator of it. Without it, one is started.
SERVER_VARIABLE = "CRON_OBSERVER_TEST_DATABASE_URL"


@contextmanager
def server() -> Iterator[str]:
    """Give the URL of an administrator of a server; stop the server afterwards if it was started here."""
    given = os.environ.get(SERVER_VARIABLE)
    if given:
        yield make_url(given).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        return
    from cron_observer.postgres.cluster import SUPERUSER
    from support.postgres import test_server

    with test_server() as started:
        yield started.url(SUPERUSER, "postgres")


def named(url: str, database: str) -> str:
    """Return `url` with another database."""
    return make_url(url).set(database=database).render_as_string(hide_password=False)


def connect(url: str) -> psycopg.Connection[DictRow]:
    """Open a plain synchronous connection that commits each statement and gives rows as dicts."""
    conninfo = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.Connection[DictRow].connect(conninfo, autocommit=True, row_factory=dict_row)


@contextmanager
def template(server_url: str) -> Iterator[str]:
    """Make a migrated database that others are copied from; give its name, drop it afterwards."""
    name = f"template_{secrets.token_hex(6)}"
    with connect(named(server_url, "postgres")) as admin:
        # Roles belong to the server: two processes that test on one must not alter them at once.
        admin.execute("SELECT pg_advisory_lock(hashtext('cron_observer.tests'))")
        try:
            admin.execute(f"CREATE DATABASE {name}")
            migrate(named(server_url, name))
        finally:
            admin.execute("SELECT pg_advisory_unlock(hashtext('cron_observer.tests'))")
        try:
            yield name
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


class FreshDatabase:
    """A migrated database of one test. The pools of the roles are made when first asked for."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def api(self) -> Database:
        """The pool of the API's role."""
        return Database(self.url, "cron_observer_api")

    @cached_property
    def reconciler(self) -> Database:
        """The pool of the reconciler's role."""
        return Database(self.url, "cron_observer_reconciler")

    @cached_property
    def scheduler(self) -> Database:
        """The pool of the scheduler's role."""
        return Database(self.url, "cron_observer_scheduler")

    @cached_property
    def admin(self) -> psycopg.Connection[DictRow]:
        """A synchronous connection of the superuser, past every policy; commits each statement."""
        return connect(self.url)

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Run `query` (placeholders ``%s``) as the superuser and return its rows."""
        return self.admin.execute(query, values).fetchall()

    def value(self, query: str, *values: Any) -> Any:
        """Run `query` as the superuser and return the first column of its only row."""
        (row,) = self.rows(query, *values)
        return next(iter(row.values()))

    def do(self, statement: str, *values: Any) -> int:
        """Run `statement` as the superuser and return how many rows it touched."""
        return self.admin.execute(statement, values).rowcount

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put `rows` into `table` as the superuser; dicts become JSON where the column is JSON."""
        from psycopg import sql
        from psycopg.types.json import Jsonb

        kinds = {column.name: str(column.type) for column in metadata.tables[table].columns}
        for row in rows:
            names = sql.SQL(", ").join(map(sql.Identifier, row))
            holes = sql.SQL(", ").join([sql.Placeholder()] * len(row))
            self.admin.execute(
                sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(sql.Identifier(table), names, holes),
                [Jsonb(value) if kinds[name] == "JSONB" else value for name, value in row.items()],
            )

    def partitions(self, first: datetime, last: datetime) -> None:
        """Make the weekly partitions from `first` to `last`, for tests that live in another time."""
        self.admin.execute("SELECT ensure_partitions(%s, %s)", (first, last))

    async def aclose(self) -> None:
        """Close the pools of the roles, in the loop that used them."""
        for role in ("api", "reconciler", "scheduler"):
            pool = self.__dict__.pop(role, None)
            if pool is not None:
                await pool.close()

    def close(self) -> None:
        """Close the superuser's connection."""
        admin = self.__dict__.pop("admin", None)
        if admin is not None:
            admin.close()


@contextmanager
def fresh(server_url: str, template_name: str) -> Iterator[FreshDatabase]:
    """Copy the template, give the copy, drop it afterwards whoever is still connected."""
    name = f"test_{secrets.token_hex(6)}"
    with connect(named(server_url, "postgres")) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template_name} STRATEGY WAL_LOG")
        database = FreshDatabase(named(server_url, name))
        try:
            yield database
        finally:
            database.close()
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass(frozen=True)
class Tenant:
    """A tenant with one project, as rows of `database`."""

    database: FreshDatabase
    tenant_id: UUID
    project_id: UUID
    name: str = "default"
    project: str = "default"


def make_tenant(database: FreshDatabase, name: str = "default", project: str = "default") -> Tenant:
    """Insert a tenant and its project, with the ids that the product would give them."""
    tenant = tenant_id(name)
    place = project_id(tenant, project)
    database.do("INSERT INTO tenants VALUES (%s, %s, now()) ON CONFLICT DO NOTHING", tenant, name)
    database.do("INSERT INTO projects VALUES (%s, %s, %s, now())", tenant, place, project)
    return Tenant(database, tenant, place, name, project)
