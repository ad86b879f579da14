"""Tenants and projects: whose rows these are. Their ids follow from their names, so that every process knows them."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: Where the ids of tenants come from. Changing it would make strangers of everybody.
_NAMESPACE: Final = UUID("5b0c5f2e-6f0d-5c39-9d0b-0e6a4e0c1f57")

_ADD_TENANT: Final = text("""
    INSERT INTO tenants (tenant_id, name, created_at) VALUES (:tenant_id, :name, :now)
    ON CONFLICT (tenant_id) DO NOTHING""")

_ADD_PROJECT: Final = text("""
    INSERT INTO projects (tenant_id, project_id, name, created_at) VALUES (:tenant_id, :project_id, :name, :now)
    ON CONFLICT DO NOTHING""")

_ALL_IDS: Final = text("SELECT tenant_id FROM tenants ORDER BY tenant_id")


def tenant_id(name: str) -> UUID:
    """Return the id of the tenant `name`."""
    return uuid5(_NAMESPACE, name)


def project_id(tenant: UUID, name: str) -> UUID:
    """Return the id of the project `name` of a tenant."""
    return uuid5(tenant, f"project/{name}")


def source_id(tenant: UUID, name: str) -> UUID:
    """Return the id of the source `name` of a tenant."""
    return uuid5(tenant, f"source/{name}")


async def ensure(conn: AsyncConnection, name: str, now: datetime) -> UUID:
    """Add the tenant `name` unless it is there, and return its id. Only the owner's role may add one."""
    tenant = tenant_id(name)
    await conn.execute(_ADD_TENANT, {"tenant_id": tenant, "name": name, "now": now})
    return tenant


async def ensure_project(conn: AsyncConnection, tenant_id: UUID, name: str, now: datetime) -> UUID:
    """Add the project `name` to a tenant unless it is there, and return its id."""
    project = project_id(tenant_id, name)
    await conn.execute(_ADD_PROJECT, {"tenant_id": tenant_id, "project_id": project, "name": name, "now": now})
    return project


async def all_ids(conn: AsyncConnection) -> list[UUID]:
    """Return the ids of all tenants. Only the roles of the loops see more than the transaction's own."""
    return list((await conn.execute(_ALL_IDS)).scalars())
