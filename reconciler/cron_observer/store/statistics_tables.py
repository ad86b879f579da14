"""The tables of statistics: quarters as they were counted last, and marks on those that have changed since."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, PrimaryKeyConstraint, SmallInteger, Table
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from cron_observer.store.columns import INSTANT, column, metadata, tenant

#: Final outcomes of a task, or of all of a project, that fired in a quarter hour; times in microseconds.
stats_15m = Table(
    "stats_15m",
    metadata,
    tenant(),
    column("scope", UUID),
    column("at", INSTANT),
    *(column(name, Integer) for name in ("finished", "failed", "cancelled", "skipped", "missed", "late")),
    Column("reasons", JSONB),
    Column("duration_sum", BigInteger),
    Column("duration_min", BigInteger),
    Column("duration_max", BigInteger),
    Column("duration_buckets", ARRAY(SmallInteger)),
    Column("duration_counts", ARRAY(Integer)),
    Column("delay_sum", BigInteger),
    Column("delay_min", BigInteger),
    Column("delay_max", BigInteger),
    Column("delay_buckets", ARRAY(SmallInteger)),
    Column("delay_counts", ARRAY(Integer)),
    PrimaryKeyConstraint("tenant_id", "scope", "at", name="a_quarter_is_counted_once"),
    # count: a quarter anew (statistics._FORGET); sweep: what is older than statistics are kept
    Index("stats_15m_by_quarter", "tenant_id", "at"),
)

#: A quarter whose outcomes have changed since it was counted; a row of each transaction that changed them.
stats_marks = Table(
    "stats_marks",
    metadata,
    tenant(),
    column("at", INSTANT),
    column("marked_by", BigInteger),
    column("marked_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "at", "marked_by", "marked_at", name="a_mark_is_of_a_transaction"),
)

#: Before which quarter nothing is counted anew, because executions may be gone. Whoever counts locks the row.
stats_state = Table(
    "stats_state",
    metadata,
    tenant(),
    column("frozen_before", INSTANT),
    PrimaryKeyConstraint("tenant_id", name="statistics_have_a_state"),
)
