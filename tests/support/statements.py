"""Which statements go to the database, through whichever library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import psycopg
import pytest

_collecting: ContextVar[bool] = ContextVar("collecting", default=False)


@contextmanager
def executed() -> Iterator[list[tuple[str, Any]]]:
    """Collect what the block runs by asynchronous cursors, with its parameters; not what runs beside it."""
    seen: list[tuple[str, Any]] = []
    here = _collecting.set(True)
    real = psycopg.AsyncCursor.execute

    async def noted(cursor: Any, statement: Any, parameters: Any = None, **more: Any) -> Any:
        if _collecting.get():
            seen.append((str(statement), parameters))
        return await real(cursor, statement, parameters, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.AsyncCursor, "execute", noted)
        try:
            yield seen
        finally:
            _collecting.reset(here)
