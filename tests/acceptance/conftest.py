"""What acceptance tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.postgres import short_folder


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that every account can enter, so that a server started by root finds its data where it was put."""
    with short_folder("co-accept-") as folder:
        yield folder
