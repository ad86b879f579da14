"""The rows of the sample company, and the ids that tests ask for by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from support.databases import Tenant

SECOND: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)


@dataclass
class Company:
    """The rows to insert, by table, and the ids that tests ask for by name."""

    tenant: Tenant
    now: datetime
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    uids: dict[str, UUID] = field(default_factory=dict)
    #: one execution of each kind that a page must be able to show
    known: dict[str, UUID] = field(default_factory=dict)
    #: fences of executions that have logs
    logged: list[tuple[UUID, int, str]] = field(default_factory=list)

    def add(self, table: str, **row: Any) -> None:
        """Remember one row of the tenant."""
        self.rows.setdefault(table, []).append({"tenant_id": self.tenant.tenant_id, **row})
