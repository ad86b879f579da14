"""What all tables are made of: one metadata, and the few kinds of column."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import TIMESTAMP, Column, MetaData, text
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.types import TypeEngine

metadata: Final = MetaData()

INSTANT: Final = TIMESTAMP(timezone=True)
LABEL: Final = TIMESTAMP(timezone=False)


def column(name: str, kind: TypeEngine[Any] | type[TypeEngine[Any]], default: str | None = None) -> Column[Any]:
    """Make a column that is never null."""
    return Column(name, kind, nullable=False, server_default=None if default is None else text(default))


def tenant() -> Column[Any]:
    """Make the column that every key begins with."""
    return column("tenant_id", UUID)


def words(values: Any) -> str:
    """Write `values` as a list for a CHECK."""
    return ", ".join(f"'{value}'" for value in values)
