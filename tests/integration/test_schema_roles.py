"""Roles, grants and row policies: who may see and change which rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import Table, text

from cron_observer.schedule import new_id
from cron_observer.store.engine import Database
from cron_observer.store.migrate import ROLES
from cron_observer.store.tables import PARTITIONED, metadata
from support.databases import FreshDatabase, Tenant, make_tenant
from support.rows import database_now, make_slot, make_task

ACTORS = ROLES[1:]
TABLES = sorted(metadata.tables)
NOW = datetime.now(UTC)

#: What each role may do to each table beside reading. Anything else is refused by the server.
GRANTS: dict[str, dict[str, set[str]]] = {
    "cron_observer_api": {
        "executions": {"INSERT", "UPDATE", "DELETE"},
        "attempts": {"INSERT", "UPDATE"},
        "execution_events": {"INSERT"},
        "active_runs": {"INSERT", "DELETE"},
        "api_keys": {"INSERT", "UPDATE", "DELETE"},
        "claims": {"INSERT", "UPDATE", "DELETE"},
        "idempotency_keys": {"INSERT", "UPDATE", "DELETE"},
        "log_chunks": {"INSERT", "DELETE"},
        "audit_log": {"INSERT"},
        "tasks": {"INSERT", "UPDATE", "DELETE"},
        "task_revisions": {"INSERT", "UPDATE", "DELETE"},
        "task_plan": {"INSERT", "UPDATE", "DELETE"},
        "plan_history": {"INSERT"},
        "slot_ranges": {"INSERT", "UPDATE", "DELETE"},
        "pauses": {"INSERT", "UPDATE"},
        "backfills": {"INSERT"},
        "approvals": {"INSERT"},
        "hook_deliveries": {"INSERT"},
        "stats_marks": {"INSERT"},
        "ping_addresses": {"INSERT"},
        "ping_keys": {"INSERT"},
        "checkins": {"INSERT", "UPDATE"},
        "signing_keys": {"INSERT"},
    },
    "cron_observer_reconciler": {
        "executions": {"INSERT", "DELETE"},
        "calendars": {"INSERT", "UPDATE", "DELETE"},
        "task_groups": {"INSERT", "UPDATE", "DELETE"},
        "calendar_contents": {"INSERT"},
        "plan_history": {"INSERT"},
        "slot_ranges": {"INSERT", "UPDATE", "DELETE"},
        "tasks": {"INSERT", "UPDATE", "DELETE"},
        "task_plan": {"INSERT", "UPDATE", "DELETE"},
        "manifest_files": {"INSERT", "UPDATE", "DELETE"},
        "sync_findings": {"INSERT", "UPDATE", "DELETE"},
        "task_revisions": {"INSERT"},
        "audit_log": {"INSERT"},
        "sources": {"INSERT", "UPDATE"},
        "sync_runs": {"INSERT", "UPDATE", "DELETE"},
        "projects": {"INSERT", "UPDATE"},
        "layers": {"INSERT", "UPDATE", "DELETE"},
        "commit_statuses": {"INSERT", "UPDATE", "DELETE"},
        "hook_deliveries": {"DELETE"},
        "approvals": {"DELETE"},
        "stats_marks": {"INSERT"},
        "ping_addresses": {"INSERT"},
        "ping_keys": {"INSERT"},
    },
    "cron_observer_scheduler": {
        "executions": {"INSERT", "UPDATE", "DELETE"},
        "attempts": {"INSERT", "UPDATE"},
        "execution_events": {"INSERT"},
        "active_runs": {"INSERT", "DELETE"},
        "task_plan": {"UPDATE"},
        "claims": {"DELETE"},
        "idempotency_keys": {"DELETE"},
        "plan_history": {"INSERT"},
        "slot_ranges": {"INSERT", "UPDATE", "DELETE"},
        "audit_log": {"INSERT"},
        "stats_15m": {"INSERT", "DELETE"},
        "stats_marks": {"INSERT", "DELETE"},
        "stats_state": {"INSERT", "UPDATE"},
        "checkins": {"DELETE"},
        "outages": {"DELETE"},
        "signing_keys": {"INSERT"},
    },
}

#: Columns that a role may update though not the whole table.
COLUMN_GRANTS: dict[str, dict[str, set[str]]] = {
    "cron_observer_api": {
        "sources": {
            *("requested_seq", "next_poll_at", "asked_by"),
            *("suspended_at", "suspended_until", "suspended_by", "suspend_reason"),
        },
        "calendars": {"updated_at"},
        "task_groups": {"updated_at"},
        "ping_addresses": {"address", "created_at"},
        "ping_keys": {"key", "created_at"},
    },
    "cron_observer_reconciler": {
        "executions": {"queue", "priority", "plan_generation"},
        "approvals": {"used_at", "run_id"},
    },
    "cron_observer_scheduler": {
        "tasks": {"quarantine", "deleted_at", "updated_at"},
        "pauses": {"ended_at", "ended_by", "followed_at", "runs"},
    },
}


def test_roles_have_no_powers(database: FreshDatabase) -> None:
    """The roles can log in and nothing else: no superuser, no way past the policies, no member of another."""
    rows = database.rows("SELECT * FROM pg_roles WHERE rolname = ANY (%s)", list(ROLES))
    assert {row["rolname"] for row in rows} == set(ROLES)
    for power in ("rolsuper", "rolbypassrls", "rolcreaterole", "rolcreatedb", "rolreplication"):
        assert not any(row[power] for row in rows), power
    query = "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = ANY (%s)"
    assert database.value(query, list(ROLES)) == 0


def test_roles_have_limits(database: FreshDatabase) -> None:
    """A statement, a lock and an idle transaction of the running roles end by themselves."""
    rows = database.rows("SELECT rolname, rolconfig FROM pg_roles WHERE rolname = ANY (%s)", list(ACTORS))
    for row in rows:
        assert {setting.partition("=")[0] for setting in row["rolconfig"]} >= {
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
        }


def test_the_owner_owns_everything(database: FreshDatabase) -> None:
    """Tables and functions belong to the owner's role, whom the policies bind as well."""
    query = (
        "SELECT DISTINCT pg_get_userbyid(relowner) AS owner FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    )
    assert {row["owner"] for row in database.rows(query)} == {"cron_observer_owner"}


def test_row_security_is_forced_everywhere(database: FreshDatabase) -> None:
    """Row-level security is on and forced on every table and every partition."""
    rows = database.rows(
        "SELECT relname, relrowsecurity AND relforcerowsecurity AS forced FROM pg_class "
        "WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
    )
    assert len(rows) > len(TABLES) + 4 * len(PARTITIONED)
    assert {row["relname"] for row in rows if not row["forced"]} == set()


def test_every_table_has_its_tenant_policy(database: FreshDatabase) -> None:
    """One restrictive policy on every table shows the three roles their transaction's tenants only."""
    rows = database.rows("SELECT * FROM pg_policies WHERE policyname = 'only_own_tenants'")
    assert {row["tablename"] for row in rows} == set(TABLES)
    for row in rows:
        assert row["permissive"] == "RESTRICTIVE"
        assert row["cmd"] == "ALL"
        assert set(row["roles"]) == set(ACTORS)
        assert row["with_check"] == "(tenant_id = ANY (app_tenants()))"
        assert "tenant_id = ANY (app_tenants())" in row["qual"]


def test_partitions_have_no_grants(database: FreshDatabase) -> None:
    """A partition is reached through its parent: nobody but the owner may touch it directly."""
    rows = database.rows(
        "SELECT c.relname, c.relacl::text FROM pg_inherits i "
        "JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'r'"
    )
    assert len(rows) >= 4 * len(PARTITIONED)
    assert {row["relacl"] for row in rows} == {None}
    with (
        psycopg.connect(_as(database, "cron_observer_api")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(f"SELECT * FROM {rows[0]['relname']}")


def _as(database: FreshDatabase, role: str) -> str:
    from cron_observer.store.engine import role_url

    url, _ = role_url(database.url, role)
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.mark.parametrize("role", ACTORS)
def test_grants_are_exactly_these(database: FreshDatabase, role: str) -> None:
    """Each role may read everything of its tenants and write only what its work needs; history is append-only."""
    rows = database.rows(
        "SELECT table_name, privilege_type FROM information_schema.table_privileges "
        "WHERE grantee = %s AND table_schema = 'public'",
        role,
    )
    found: dict[str, set[str]] = {}
    for row in rows:
        if row["table_name"] in TABLES:
            found.setdefault(row["table_name"], set()).add(row["privilege_type"])
    assert found == {name: {"SELECT"} | GRANTS[role].get(name, set()) for name in TABLES}
    columns: dict[str, set[str]] = {}
    for row in database.rows(
        "SELECT table_name, column_name FROM information_schema.column_privileges "
        "WHERE grantee = %s AND table_schema = 'public' AND privilege_type = 'UPDATE'",
        role,
    ):
        if "UPDATE" not in GRANTS[role].get(row["table_name"], set()):
            columns.setdefault(row["table_name"], set()).add(row["column_name"])
    assert columns == COLUMN_GRANTS[role]


def filler(table: Table, tenant: Tenant, **given: Any) -> dict[str, Any]:
    """Return a row for `table` that every constraint takes."""
    fixed: dict[str, Any] = {
        "tenant_id": tenant.tenant_id,
        "project_id": tenant.project_id,
        "status": "SKIPPED" if table.name == "slot_ranges" else "PENDING",
        "trigger": "manual",
        "owner": "api",
        "kind": "Defaults" if table.name == "layers" else "git",
        "state": "success" if table.name == "commit_statuses" else "ok",
        "outcome": "applied",
        "severity": "error",
        "codec": "zlib",
        "sync": "SYNCED",
        "on_resume": "skip",
        "selected": "all",
        "sorted": "oldest_first",
        "quarters": [0] * 96,
        "slots": 1,
        "lines": 1,
        "id": new_id(NOW),
        "execution_id": new_id(NOW),
    } | given
    samples = {
        "UUID": uuid4(),
        "TEXT": "x",
        "TIMESTAMP": NOW,
        "JSONB": {},
        "BLOB": b"x",
        "BOOLEAN": False,
        "ARRAY": [],
        "TEXT[]": [],
        "UUID[]": [],
        "BIGINT[]": [],
    }
    row = {}
    for column in table.columns:
        if column.nullable or column.server_default is not None or column.computed is not None:
            continue
        if column.name in fixed:
            row[column.name] = fixed[column.name]
        else:
            kind = str(column.type)
            row[column.name] = samples.get(kind, samples.get(kind.partition(" ")[0], 0))
    return row


def fill(tenant: Tenant) -> None:
    """Put one row of `tenant` into every table."""
    database = tenant.database
    shared: dict[str, Any] = {"source_id": uuid4(), "task_uid": uuid4()}
    for table in metadata.sorted_tables:
        if table.name in ("tenants", "projects"):
            continue
        database.insert(table.name, [filler(table, tenant, **shared)])


async def seen(database: Database, tenants: list[UUID], table: str) -> set[UUID]:
    """Return whose rows of `table` a transaction of these tenants sees."""
    async with database.transaction(tenants) as conn:
        return set((await conn.execute(text(f"SELECT DISTINCT tenant_id FROM {table}"))).scalars())


@pytest.mark.parametrize("role", ["api", "reconciler", "scheduler"])
async def test_tenants_see_their_own_rows_only(database: FreshDatabase, role: str) -> None:
    """In every table: one tenant sees one, two see two, a stranger none, and without a tenant there are no rows."""
    one, two, three = (make_tenant(database, name) for name in ("one", "two", "three"))
    for home in (one, two, three):
        fill(home)
    pool: Database = getattr(database, role)
    mine = {one.tenant_id}
    for table in TABLES:
        if table == "tenants" and role != "api":
            # The loops look up which tenants there are before they serve them.
            assert len(await seen(pool, [], table)) == 3
            continue
        assert await seen(pool, [one.tenant_id], table) == mine, table
        assert await seen(pool, [one.tenant_id, two.tenant_id], table) == {one.tenant_id, two.tenant_id}, table
        assert await seen(pool, [uuid4()], table) == set(), table
        assert await seen(pool, [], table) == set(), table


@pytest.mark.parametrize("role", ACTORS)
def test_without_the_setting_there_are_no_rows(database: FreshDatabase, tenant: Tenant, role: str) -> None:
    """A connection that never said whose rows it wants gets none, nor may it write any."""
    fill(tenant)
    with psycopg.connect(_as(database, role), autocommit=True) as connection:
        for table in TABLES:
            if table != "tenants":
                row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
                assert row == (0,), table
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "INSERT INTO executions (tenant_id, id, project_id, task_uid, status, trigger, fire_at, "
                "available_at, queue, priority, created_at) "
                "VALUES (%s, %s, %s, %s, 'PENDING', 'manual', now(), now(), 'q', 0, now())",
                (tenant.tenant_id, new_id(NOW), tenant.project_id, uuid4()),
            )


def manifest_owned(tenant: Tenant) -> UUID:
    """Insert a task that a manifest owns."""
    database, uid, source = tenant.database, make_task(tenant, "owned"), uuid4()
    database.insert("sources", [filler(metadata.tables["sources"], tenant, source_id=source)])
    database.do(
        "UPDATE tasks SET owner = 'manifest', source_id = %s, path = 'tasks.yaml' WHERE task_uid = %s", source, uid
    )
    database.do("UPDATE task_plan SET owner = 'manifest' WHERE task_uid = %s", uid)
    database.do("UPDATE task_revisions SET owner = 'manifest' WHERE task_uid = %s", uid)
    return uid


@pytest.mark.parametrize("table", ["tasks", "task_plan", "task_revisions"])
async def test_the_api_cannot_touch_what_a_manifest_owns(database: FreshDatabase, tenant: Tenant, table: str) -> None:
    """The API's role reads a manifest's task, and changes or removes nothing of it; of its own it does."""
    theirs, mine = manifest_owned(tenant), make_task(tenant, "mine")
    where = f"FROM {table} WHERE tenant_id = :tenant AND task_uid = :uid"

    async def touched(statement: str, uid: UUID) -> int:
        async with database.api.transaction([tenant.tenant_id]) as conn:
            result = await conn.execute(text(statement), {"tenant": tenant.tenant_id, "uid": uid})
            return result.rowcount

    assert await touched(f"SELECT 1 {where}", theirs) == 1
    update = f"UPDATE {table} SET owner = owner WHERE tenant_id = :tenant AND task_uid = :uid"
    assert await touched(update, theirs) == 0
    assert await touched(update, mine) == 1
    assert await touched(f"DELETE {where}", theirs) == 0


async def test_the_api_cannot_take_a_task_over(database: FreshDatabase, tenant: Tenant) -> None:
    """The API's role can neither make a task that a manifest owns nor turn its own into one."""
    mine = make_task(tenant, "mine")
    with pytest.raises(Exception, match="row-level security"):
        async with database.api.transaction([tenant.tenant_id]) as conn:
            await conn.execute(
                text("UPDATE task_plan SET owner = 'manifest' WHERE tenant_id = :tenant AND task_uid = :uid"),
                {"tenant": tenant.tenant_id, "uid": mine},
            )


@pytest.mark.parametrize("role", ["api", "reconciler", "scheduler"])
@pytest.mark.parametrize(
    ("columns", "gone"),
    [
        ({}, True),
        ({"status": "SKIPPED", "reason": "coalesced", "finished_at": NOW}, True),
        ({"status": "SKIPPED", "reason": "overlap", "finished_at": NOW, "event_seq": 1}, False),
        ({"fence": 1}, False),
        ({"status": "FINISHED", "fence": 1, "finished_at": NOW}, False),
        ({"status": "MISSED", "finished_at": NOW, "event_seq": 1}, False),
    ],
    ids=["forecast", "planned skip", "skip", "released", "finished", "missed"],
)
async def test_forecasts_may_go_and_history_may_not(
    database: FreshDatabase, tenant: Tenant, role: str, columns: dict[str, Any], gone: bool
) -> None:
    """What was never offered may be deleted by those who plan; what has happened cannot be, by any of them."""
    slot = make_slot(tenant, make_task(tenant), database_now(database), **columns)
    async with getattr(database, role).transaction([tenant.tenant_id]) as conn:
        result = await conn.execute(
            text("DELETE FROM executions WHERE tenant_id = :tenant AND id = :id"),
            {"tenant": tenant.tenant_id, "id": slot},
        )
    assert result.rowcount == int(gone)


@pytest.mark.parametrize("role", ACTORS)
@pytest.mark.parametrize("statement", ["UPDATE execution_events SET type = 'x'", "DELETE FROM execution_events"])
def test_events_are_append_only(database: FreshDatabase, role: str, statement: str) -> None:
    """No role can change or remove an event."""
    with (
        psycopg.connect(_as(database, role)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


#: Functions that run with the owner's rights, and who may call each.
TRUSTED = {
    "ensure_partitions": {"cron_observer_scheduler"},
    "drop_partitions": {"cron_observer_scheduler"},
    "detach_task": {"cron_observer_api"},
    "analyze_applied": {"cron_observer_reconciler"},
    "pinged_task": {"cron_observer_api"},
    "ping_key_opens": {"cron_observer_api"},
    "receive_pings": {"cron_observer_api"},
}


def test_functions_of_the_owner_are_few_and_pinned(database: FreshDatabase) -> None:
    """What runs with the owner's rights is known, looks names up where the owner says, and serves one role each."""
    found = database.rows(
        "SELECT oid, proname, proconfig, pg_get_userbyid(proowner) AS owner FROM pg_proc WHERE prosecdef"
    )
    assert {row["proname"] for row in found} == set(TRUSTED)
    for row in found:
        assert row["owner"] == "cron_observer_owner", row
        assert row["proconfig"] == ["search_path=public, pg_temp"], row
        callers = database.rows(
            "SELECT r.rolname FROM pg_roles AS r WHERE NOT r.rolsuper AND r.rolname = ANY (%s) "
            "AND has_function_privilege(r.oid, %s::oid, 'EXECUTE')",
            list(ACTORS),
            row["oid"],
        )
        assert {caller["rolname"] for caller in callers} == TRUSTED[row["proname"]], row
