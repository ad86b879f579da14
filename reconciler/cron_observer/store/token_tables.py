"""The table of the keys that sign run tokens."""

from __future__ import annotations

from sqlalchemy import ForeignKeyConstraint, LargeBinary, PrimaryKeyConstraint, Table

from cron_observer.store.columns import INSTANT, column, metadata, tenant

signing_keys = Table(
    "signing_keys",
    metadata,
    tenant(),
    column("secret", LargeBinary),
    column("created_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", name="a_tenant_signs_with_one_secret"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="a_signing_key_has_a_tenant"),
)
