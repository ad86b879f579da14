"""The tables of check-ins: where their pings go, the runs that pings speak of, and when none could be received."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from cron_observer.store.columns import INSTANT, column, metadata, tenant

#: Where the pings of a task go. Whoever knows the address may ping; it is shown to whoever may read the task.
ping_addresses = Table(
    "ping_addresses",
    metadata,
    tenant(),
    column("task_uid", UUID),
    column("address", UUID),
    column("created_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "task_uid", name="a_task_has_one_address"),
    ForeignKeyConstraint(
        ["tenant_id", "task_uid"], ["tasks.tenant_id", "tasks.task_uid"], name="an_address_has_a_task"
    ),
    # whose an address is, before its tenant is known (pinged_task)
    Index("ping_addresses_by_address", "address"),
)

#: One key for all tasks of a project, which are then named.
ping_keys = Table(
    "ping_keys",
    metadata,
    tenant(),
    column("project_id", UUID),
    column("number", BigInteger),
    column("key", Text),
    column("created_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "project_id", name="a_project_is_pinged_by_one_key_only"),
    ForeignKeyConstraint(
        ["tenant_id", "project_id"], ["projects.tenant_id", "projects.project_id"], name="a_ping_key_has_a_project"
    ),
    # whose a key is, before its tenant is known (pinged_task)
    Index("ping_keys_by_key", "key"),
)

#: The runs that pings have begun or ended.
checkins = Table(
    "checkins",
    metadata,
    tenant(),
    column("task_uid", UUID),
    column("execution_id", UUID),
    Column("rid", UUID),
    column("opened_at", INSTANT),
    Column("closed_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "task_uid", "execution_id", name="a_checkin_is_its_execution"),
    # pings: the run that a ping names (checkins)
    Index("checkins_by_rid", "tenant_id", "task_uid", "rid", unique=True, postgresql_where=text("rid IS NOT NULL")),
    # pings: the newest run whose end was not told (checkins)
    Index("checkins_open", "tenant_id", "task_uid", "opened_at", postgresql_where=text("closed_at IS NULL")),
    # house-keeping: the oldest first
    Index("checkins_by_age", "tenant_id", "opened_at"),
)

#: Up to when pings could be received, as far as anybody knows.
receiving = Table(
    "receiving",
    metadata,
    tenant(),
    column("until", INSTANT),
    PrimaryKeyConstraint("tenant_id", name="a_tenant_is_received_once"),
)

#: When they could not.
outages = Table(
    "outages",
    metadata,
    tenant(),
    column("since", INSTANT),
    column("until", INSTANT),
    PrimaryKeyConstraint("tenant_id", "since", name="an_outage_is_its_start"),
)
