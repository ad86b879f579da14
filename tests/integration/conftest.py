"""Fixtures of the tests that launch servers of their own, and a mark on those that use the shared one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import worlds


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark, by which ./check runs these tests on another PostgreSQL as well."""
    config.addinivalue_line("markers", "database: uses the tests' PostgreSQL (set on its own, by the fixtures)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a database."""
    for item in items:
        if "server_url" in getattr(item, "fixturenames", ()):
            item.add_marker("database")


@pytest.fixture(scope="session", params=[worlds.ROOT, worlds.USER, worlds.BELOW_0700])
def ground(request: pytest.FixtureRequest) -> Iterator[worlds.Ground]:
    """What the worlds of each kind share."""
    with worlds.ground(request.param) as made:
        yield made


@pytest.fixture
def world(ground: worlds.Ground) -> Iterator[worlds.World]:
    """A place to launch servers from: as root, as an ordinary user, and as root below a folder of mode 0700."""
    with ground.world() as made:
        yield made
