"""Fixtures and the hook that runs ``async def`` tests."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, settings

from support import databases
from support.databases import FreshDatabase, Tenant, make_tenant

# How long an example takes to draw and to try is a matter of the machine's load, so no test fails of that.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# In CI the same commit draws the same examples, so that a failure is the commit's; elsewhere every run draws anew.
settings.register_profile("ci", settings.get_profile("tests"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "tests")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an ``async def`` test in a loop of its own, and close the pools that it used before that ends."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def run() -> None:
        try:
            await pyfuncitem.obj(**arguments)
        finally:
            for value in pyfuncitem.funcargs.values():
                if isinstance(value, FreshDatabase):
                    await value.aclose()

    with asyncio.Runner() as runner:
        runner.run(run())
    return True


_STATES = count()


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give each test, and the processes that it starts, a spool of its own, which nothing makes before it is needed."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.getbasetemp() / "states" / str(next(_STATES)))


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """URL of the administrator of this process's PostgreSQL server."""
    with databases.server() as url:
        yield url


@pytest.fixture(scope="session")
def template_database(server_url: str) -> Iterator[str]:
    """Name of a migrated database that each test's database is copied from."""
    with databases.template(server_url) as name:
        yield name


@pytest.fixture
def database(server_url: str, template_database: str) -> Iterator[FreshDatabase]:
    """A fresh migrated database, dropped after the test."""
    with databases.fresh(server_url, template_database) as made:
        yield made


@pytest.fixture
def tenant(database: FreshDatabase) -> Tenant:
    """The tenant ``default`` with the project ``default``."""
    return make_tenant(database)
