"""The tables beside a source: what others are made of, approvals, what the forge is told and has told us."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from cron_observer.store.columns import INSTANT, column, declared, metadata, tenant

_SOURCE = ["sources.tenant_id", "sources.source_id"]

#: Documents that say what others are made of: Defaults, and the Project of a source.
layers = Table(
    "layers",
    metadata,
    tenant(),
    column("layer_uid", UUID),
    column("kind", Text),
    *declared(),
    PrimaryKeyConstraint("tenant_id", "layer_uid", name="a_layer_is_its_uid"),
    UniqueConstraint("tenant_id", "project_id", "kind", "name", name="a_layer_name_is_used_once"),
    ForeignKeyConstraint(["tenant_id", "source_id"], _SOURCE, name="a_layer_has_a_source"),
    CheckConstraint("kind IN ('Defaults', 'Project')", name="a_layer_kind_is_known"),
    CheckConstraint("sync IN ('SYNCED', 'KEPT_LAST_GOOD', 'HELD')", name="a_layer_sync_is_known"),
    # reconcile: the layers of a source (layers.inventory)
    Index("layers_by_source", "tenant_id", "source_id", "path"),
)

#: Somebody's consent to the removals of one plan, and of no other.
approvals = Table(
    "approvals",
    metadata,
    tenant(),
    column("approval_id", UUID),
    column("source_id", UUID),
    column("plan_hash", Text),
    Column("reason", Text),
    column("actor", Text),
    column("created_at", INSTANT),
    Column("used_at", INSTANT),
    Column("run_id", UUID),
    PrimaryKeyConstraint("tenant_id", "approval_id", name="an_approval_is_its_id"),
    ForeignKeyConstraint(["tenant_id", "source_id"], _SOURCE, name="an_approval_has_a_source"),
    # reconcile: what may be carried out (approvals.approved); a plan is approved once, until it is carried out
    Index(
        "approvals_unused",
        "tenant_id",
        "source_id",
        "plan_hash",
        unique=True,
        postgresql_where=text("used_at IS NULL"),
    ),
)

#: What the forge is to show beside a commit. A newer state takes the place of the one before.
commit_statuses = Table(
    "commit_statuses",
    metadata,
    tenant(),
    column("source_id", UUID),
    column("commit", Text),
    column("context", Text),
    column("state", Text),
    column("description", Text),
    Column("run_id", UUID),
    column("due_at", INSTANT),
    column("created_at", INSTANT),
    Column("sent_at", INSTANT),
    Column("gave_up_at", INSTANT),
    column("attempts", Integer, "0"),
    Column("error", Text),
    PrimaryKeyConstraint("tenant_id", "source_id", "commit", "context", name="a_status_is_of_a_commit"),
    ForeignKeyConstraint(["tenant_id", "source_id"], _SOURCE, name="a_commit_status_has_a_source"),
    CheckConstraint("state IN ('pending', 'success', 'failure', 'error')", name="a_commit_state_is_known"),
    # reporting: what is to be sent (statuses.claim)
    Index(
        "commit_statuses_to_send",
        "tenant_id",
        "due_at",
        postgresql_where=text("sent_at IS NULL AND gave_up_at IS NULL"),
    ),
)

#: Deliveries of webhooks that were seen: the same one again wakes nobody.
hook_deliveries = Table(
    "hook_deliveries",
    metadata,
    tenant(),
    column("source_id", UUID),
    column("delivery", Text),
    column("received_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "source_id", "delivery", name="a_delivery_is_its_id"),
    ForeignKeyConstraint(["tenant_id", "source_id"], _SOURCE, name="a_delivery_has_a_source"),
    # upkeep: what is older than a day is forgotten (sync.forget_deliveries)
    Index("hook_deliveries_by_age", "tenant_id", "received_at"),
)
