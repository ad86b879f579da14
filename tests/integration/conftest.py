"""Fixtures of the tests that launch servers of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import worlds


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
