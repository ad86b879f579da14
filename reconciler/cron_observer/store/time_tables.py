"""The tables of time beside plans and executions: calendars, task groups, pauses, backfills, and what was planned."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from cron_observer.model import OnResume
from cron_observer.store.columns import INSTANT, column, declared, metadata, tenant, words

calendars = Table(
    "calendars",
    metadata,
    tenant(),
    column("calendar_uid", UUID),
    *declared(),
    column("digest", Text),
    PrimaryKeyConstraint("tenant_id", "calendar_uid", name="a_calendar_is_its_uid"),
    UniqueConstraint("tenant_id", "project_id", "name", name="a_calendar_name_is_used_once"),
    ForeignKeyConstraint(
        ["tenant_id", "source_id"], ["sources.tenant_id", "sources.source_id"], name="a_calendar_has_a_source"
    ),
    CheckConstraint("sync IN ('SYNCED', 'KEPT_LAST_GOOD', 'HELD')", name="a_calendar_sync_is_known"),
    # reconcile: the calendars that a source owns, by file (calendars.inventory)
    Index("calendars_by_source", "tenant_id", "source_id", "path"),
)

calendar_contents = Table(
    "calendar_contents",
    metadata,
    tenant(),
    column("digest", Text),
    column("content", JSONB),
    column("created_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "digest", name="a_content_is_its_digest"),
)

task_groups = Table(
    "task_groups",
    metadata,
    tenant(),
    column("group_uid", UUID),
    *declared(),
    PrimaryKeyConstraint("tenant_id", "group_uid", name="a_group_is_its_uid"),
    UniqueConstraint("tenant_id", "project_id", "name", name="a_group_name_is_used_once"),
    ForeignKeyConstraint(
        ["tenant_id", "source_id"], ["sources.tenant_id", "sources.source_id"], name="a_group_has_a_source"
    ),
    CheckConstraint("sync IN ('SYNCED', 'KEPT_LAST_GOOD', 'HELD')", name="a_group_sync_is_known"),
    # reconcile: the groups that a source owns, by file (groups.inventory)
    Index("task_groups_by_source", "tenant_id", "source_id", "path"),
)

plan_history = Table(
    "plan_history",
    metadata,
    tenant(),
    column("task_uid", UUID),
    column("generation", BigInteger),
    column("active", Boolean),
    column("schedule", JSONB),
    column("effective_from", INSTANT),
    Column("tzdata_version", Text),
    Column("holidays_version", Text),
    column("created_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "task_uid", "generation", name="a_planned_generation_is_its_number"),
    ForeignKeyConstraint(
        ["tenant_id", "task_uid"], ["tasks.tenant_id", "tasks.task_uid"], name="a_planned_generation_has_a_task"
    ),
)

#: `followed_at` is null while the scheduler still has to look: after it began, and after it ended. `runs` counts the
#: executions that its end has made; null until that is done.
pauses = Table(
    "pauses",
    metadata,
    tenant(),
    column("pause_id", UUID),
    column("task_uid", UUID),
    column("since", INSTANT),
    Column("until", INSTANT),
    Column("reason", Text),
    column("author", Text),
    column("on_resume", Text),
    Column("ended_at", INSTANT),
    Column("ended_by", Text),
    Column("followed_at", INSTANT),
    Column("runs", Integer),
    column("created_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "pause_id", name="a_pause_is_its_id"),
    ForeignKeyConstraint(["tenant_id", "task_uid"], ["tasks.tenant_id", "tasks.task_uid"], name="a_pause_has_a_task"),
    CheckConstraint(f"on_resume IN ({words(OnResume)})", name="on_resume_is_known"),
    # at most one pause of a task is in force; planning and claims look it up (pauses.in_force)
    Index("one_pause_is_in_force", "tenant_id", "task_uid", unique=True, postgresql_where=text("ended_at IS NULL")),
    # scheduler: pauses whose slots are still to be written anew (pauses.follow); planning and claims (pauses.in_force)
    Index("pauses_to_follow", "tenant_id", "task_uid", postgresql_where=text("followed_at IS NULL")),
    # all pauses of a task: which of them hold a slot (pause_slots)
    Index("pauses_of_task", "tenant_id", "task_uid", "since"),
    # scheduler: pauses that run out by themselves (pauses.follow)
    Index("pauses_by_end", "tenant_id", "until", postgresql_where=text("ended_at IS NULL AND until IS NOT NULL")),
)

backfills = Table(
    "backfills",
    metadata,
    tenant(),
    column("backfill_id", UUID),
    column("task_uid", UUID),
    column("from_at", INSTANT),
    column("to_at", INSTANT),
    column("selected", Text),
    column("sorted", Text),
    column("max_parallel", Integer),
    column("runs", Integer),
    column("author", Text),
    column("created_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "backfill_id", name="a_backfill_is_its_id"),
    ForeignKeyConstraint(
        ["tenant_id", "task_uid"], ["tasks.tenant_id", "tasks.task_uid"], name="a_backfill_has_a_task"
    ),
    CheckConstraint("selected IN ('missing', 'failed', 'all')", name="a_selection_is_known"),
    CheckConstraint("sorted IN ('oldest_first', 'newest_first')", name="an_order_is_known"),
)

#: Many equal skips in a row as one: `slots` nominal slots from `first_at` to `last_at`, of one UTC day, counted by
#: quarter hours of that day, so that every time zone's day is a sum of quarters.
slot_ranges = Table(
    "slot_ranges",
    metadata,
    tenant(),
    column("task_uid", UUID),
    column("first_at", INSTANT),
    column("last_at", INSTANT),
    column("project_id", UUID),
    column("status", Text),
    column("reason", Text),
    column("slots", BigInteger),
    column("quarters", ARRAY(Integer)),
    column("timezone", Text),
    Column("tzdata_version", Text),
    Column("holidays_version", Text),
    column("plan_generation", BigInteger),
    column("created_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "task_uid", "first_at", name="a_range_is_its_first_slot"),
    ForeignKeyConstraint(["tenant_id", "task_uid"], ["tasks.tenant_id", "tasks.task_uid"], name="a_range_has_a_task"),
    CheckConstraint("status IN ('SKIPPED', 'MISSED')", name="a_range_never_ran"),
    CheckConstraint("slots > 0 AND first_at <= last_at", name="a_range_holds_slots"),
    CheckConstraint("cardinality(quarters) = 96", name="a_range_counts_the_quarters_of_a_day"),
    # days, lists and retention: ranges by time (views.days, upkeep)
    Index("slot_ranges_by_time", "tenant_id", "last_at"),
)
