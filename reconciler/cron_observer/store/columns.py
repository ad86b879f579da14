"""What all tables are made of: one metadata, and the few kinds of column."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import TIMESTAMP, BigInteger, Column, Integer, LargeBinary, MetaData, Text, text
from sqlalchemy.dialects.postgresql import JSONB, UUID
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


def declared() -> list[Column[Any]]:
    """Make the columns of what a manifest declares: where it stands, and what it says."""
    return [
        column("project_id", UUID),
        column("name", Text),
        column("source_id", UUID),
        column("path", Text),
        column("document", Integer),
        column("line", Integer),
        Column("commit", Text),
        Column("author", Text),
        Column("subject", Text),
        Column("committed_at", INSTANT),
        column("spec", JSONB),
        column("spec_hash", LargeBinary),
        column("version", BigInteger),
        column("sync", Text),
        Column("removed_at", INSTANT),
        column("created_at", INSTANT),
        column("updated_at", INSTANT),
    ]
