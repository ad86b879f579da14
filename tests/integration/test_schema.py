"""The catalogue: keys, indexes, constraints and partitions as the foundations demand them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import CheckConstraint

from cron_observer.lifecycle import FINAL, Reason, Status, Trigger
from cron_observer.schedule import new_id
from cron_observer.store.migrate import differences
from cron_observer.store.tables import PARTITIONED, metadata
from support.databases import FreshDatabase

TABLES = sorted(metadata.tables)
NOW = datetime.now(UTC)

#: Indexes that do not begin with the tenant, and why.
OTHER_INDEXES = {
    "api_keys_by_secret": "a secret is looked up before its tenant is known",
    "ping_addresses_by_address": "an address is looked up before its tenant is known",
    "ping_keys_by_key": "a key is looked up before its tenant is known",
    "tasks_by_label": "a GIN index; the tenant is filtered by the row policy",
}


def test_migrations_and_metadata_agree(database: FreshDatabase) -> None:
    """The database that the migrations make is the one that the metadata describes."""
    assert differences(database.url) == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE tasks ADD COLUMN stray text",
        "ALTER TABLE tasks ALTER COLUMN path SET NOT NULL",
        "ALTER TABLE task_plan ALTER COLUMN generation TYPE integer",
        "DROP INDEX executions_to_claim",
        "ALTER TABLE sources ALTER COLUMN mode DROP DEFAULT",
    ],
)
def test_a_difference_is_seen(database: FreshDatabase, change: str) -> None:
    """The comparison finds a column, a type, a default or an index that has gone its own way."""
    database.do(change)
    assert len(differences(database.url)) == 1


def test_checks_are_declared(database: FreshDatabase) -> None:
    """Every CHECK of the database stands in the metadata and the other way round."""
    declared = {
        str(constraint.name)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert {row["conname"] for row in constraints(database, "c")} == declared


def test_every_table_is_declared(database: FreshDatabase) -> None:
    """There is no table beside those of the metadata, their partitions and Alembic's own."""
    query = (
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
        "AND relnamespace = 'public'::regnamespace"
    )
    assert {row["relname"] for row in database.rows(query)} == {*TABLES, "alembic_version"}


def constraints(database: FreshDatabase, kinds: str) -> list[dict[str, Any]]:
    """Return constraints of our tables with their first columns on both sides."""
    return database.rows(
        "SELECT c.conname, c.contype::text, t.relname, f.relname AS target, a.attname AS first, "
        "b.attname AS target_first "
        "FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid AND NOT t.relispartition "
        "LEFT JOIN pg_class f ON f.oid = c.confrelid "
        "LEFT JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1] "
        "LEFT JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = c.confkey[1] "
        "WHERE t.relnamespace = 'public'::regnamespace AND t.relname <> 'alembic_version' AND c.contype = ANY (%s)",
        list(kinds),
    )


def test_keys_begin_with_the_tenant(database: FreshDatabase) -> None:
    """Every primary, unique and foreign key begins with tenant_id, on both sides."""
    keys = constraints(database, "puf")
    assert len(keys) >= len(TABLES)
    assert {key["first"] for key in keys} == {"tenant_id"}
    assert {key["target_first"] for key in keys if key["contype"] == "f"} == {"tenant_id"}


def test_indexes_begin_with_the_tenant(database: FreshDatabase) -> None:
    """Every index begins with tenant_id, but for those with a reason."""
    rows = database.rows(
        "SELECT i.relname, a.attname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid "
        "JOIN pg_class t ON t.oid = x.indrelid AND NOT t.relispartition AND t.relname <> 'alembic_version' "
        "LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] "
        "WHERE t.relnamespace = 'public'::regnamespace"
    )
    assert {row["relname"] for row in rows if row["attname"] != "tenant_id"} == set(OTHER_INDEXES)


def test_constraints_are_sentences(database: FreshDatabase) -> None:
    """A violated constraint names itself in words: at least three, none of them made by a machine."""
    names = {row["conname"] for row in constraints(database, "pufc")}
    assert all(re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+){2,}", name) for name in names)
    assert not {name for name in names if name.endswith(("_pkey", "_key", "_fkey", "_check"))}


def test_nothing_points_into_executions(database: FreshDatabase) -> None:
    """No foreign key refers to a partitioned table, so that a week can be dropped whole."""
    assert not {row["target"] for row in constraints(database, "f")} & set(PARTITIONED)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a_status_is_known", Status),
        ("a_reason_is_known", Reason),
        ("a_trigger_is_known", Trigger),
        ("finished_iff_final", FINAL),
    ],
)
def test_checks_are_the_enums(database: FreshDatabase, name: str, words: Any) -> None:
    """The lists in the CHECKs are those of the life cycle."""
    (definition,) = database.rows(
        "SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint "
        "WHERE conname = %s AND conrelid = 'executions'::regclass",
        name,
    )
    found = set(re.findall(r"'([^']+)'", definition["text"]))
    assert found == {str(word) for word in words}
    assert all(isinstance(word, StrEnum) for word in words)


def test_partitions_share_one_scheme(database: FreshDatabase) -> None:
    """The partitioned tables have the same weeks, without a hole, for more than two weeks ahead, and no DEFAULT."""
    rows = database.rows(
        "SELECT p.relname AS parent, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i "
        "JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind = 'r' JOIN pg_class p ON p.oid = i.inhparent"
    )
    bounds = {name: sorted(row["bound"] for row in rows if row["parent"] == name) for name in PARTITIONED}
    assert len({tuple(one) for one in bounds.values()}) == 1
    edges = [tuple(re.findall(r"'([0-9a-f-]+)'", bound)) for bound in bounds["executions"]]
    assert all(len(edge) == 2 for edge in edges)
    assert all(end == start for (_, end), (start, _) in pairwise(edges))
    assert UUID(edges[-1][1]) > new_id(datetime.fromtimestamp(NOW.timestamp() + 15 * 86_400, UTC))
