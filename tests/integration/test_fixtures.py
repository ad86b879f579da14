"""The fixtures themselves: what every other integration test stands on."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from support.databases import FreshDatabase, Tenant


def test_a_fresh_database_is_migrated_and_empty(database: FreshDatabase) -> None:
    """Each test starts from the schema at head and no rows."""
    assert database.value("SELECT version_num FROM alembic_version") == "0009"
    assert database.value("SELECT count(*) FROM tenants") == 0


@pytest.mark.parametrize("role", ["api", "reconciler", "scheduler"])
async def test_pools_act_as_their_role(database: FreshDatabase, tenant: Tenant, role: str) -> None:
    """A pool of the fixture connects as the role it is named after, never as the superuser."""
    async with getattr(database, role).transaction([tenant.tenant_id]) as conn:
        assert (await conn.execute(text("SELECT current_user"))).scalar_one() == f"cron_observer_{role}"
        assert (await conn.execute(text("SELECT name FROM tenants"))).scalars().all() == ["default"]
