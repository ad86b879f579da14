"""Databases of earlier versions: what they hold outlives the migration, and is in force as it was."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from cron_observer.plan.actions import LATER_FIELDS
from cron_observer.store import statistics
from cron_observer.store.migrate import differences, migrate
from cron_observer.store.statistics_reads import Reading, Scope
from support.databases import FreshDatabase, Tenant, connect, make_tenant, named
from support.repositories import Repository, following, manifest
from support.rows import database_now, make_slot, make_task

#: The revisions that databases out there may be at.
EARLIER = ("0001", "0002", "0003")


@pytest.fixture
def empty_database(server_url: str, template_database: str) -> Iterator[FreshDatabase]:
    """A database without any schema, on a server that has the roles."""
    name = f"old_{secrets.token_hex(6)}"
    with connect(named(server_url, "postgres")) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        database = FreshDatabase(named(server_url, name))
        try:
            yield database
        finally:
            database.close()
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def furnish(database: FreshDatabase) -> Tenant:
    """Leave the rows of a tenant at work: a source and its runs, tasks, slots of every age, a run that goes on."""
    tenant = make_tenant(database)
    now, source = database_now(database), uuid4()
    database.do(
        "INSERT INTO sources (tenant_id, source_id, project_id, name, kind, url, poll_seconds, next_poll_at, "
        "created_at) VALUES (%s, %s, %s, 'main', 'git', 'https://git.example.org/a.git', 30, now(), now())",
        *(tenant.tenant_id, source, tenant.project_id),
    )
    for outcome in ("applied", "unchanged", "failed"):
        database.do(
            "INSERT INTO sync_runs (tenant_id, run_id, source_id, trigger, epoch, outcome, started_at) "
            "VALUES (%s, %s, %s, 'poll', 1, %s, now())",
            *(tenant.tenant_id, uuid4(), source, outcome),
        )
    database.partitions(now - timedelta(days=1), now + timedelta(days=1))
    for name in ("alpha", "beta"):
        task = make_task(tenant, name)
        for hours in (-2, -1, 1, 2):
            make_slot(tenant, task, now + timedelta(hours=hours))
        running = {
            "status": "RUNNING",
            "fence": 1,
            "worker": "me",
            "lease_until": now + timedelta(hours=1),
            "check_at": now,
        }
        make_slot(tenant, task, now - timedelta(minutes=1), generation=1, attempt=1, claimed_at=now, **running)
    return tenant


def rows(database: FreshDatabase) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table, as JSON."""
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    tables = [row["relname"] for row in database.rows(f"{query} AND NOT relispartition ORDER BY relname")]
    return {
        table: [row["row"] for row in database.rows(f"SELECT to_jsonb(t) AS row FROM {table} AS t ORDER BY t::text")]
        for table in tables
        if table != "alembic_version"
    }


@pytest.mark.parametrize("revision", EARLIER)
def test_rows_outlive_the_migration(empty_database: FreshDatabase, revision: str) -> None:
    """Every row of an earlier schema is there afterwards, with the same values in the same columns."""
    migrate(empty_database.url, to=revision)
    furnish(empty_database)
    before = rows(empty_database)
    assert migrate(empty_database.url)[-1] == "0009"
    after = rows(empty_database)
    assert len(before["executions"]) == 10
    for table, olds in before.items():
        news = [{name: row[name] for name in olds[0]} for row in after[table]] if olds else after[table]
        assert sorted(map(json.dumps, news)) == sorted(map(json.dumps, olds)), table
    assert differences(empty_database.url) == []


async def test_what_ended_before_statistics_is_counted(empty_database: FreshDatabase) -> None:
    """Outcomes from before are read right at once, and told the same when schedulers have counted them in steps."""
    migrate(empty_database.url, to="0003")
    tenant = furnish(empty_database)
    now = database_now(empty_database)
    empty_database.partitions(now - timedelta(days=20), now)
    task = make_task(tenant, "gamma")
    for hours in range(1, 400, 3):
        at = now - timedelta(hours=hours)
        make_slot(tenant, task, at, status="SKIPPED", reason="overlap", finished_at=at)
    migrate(empty_database.url)
    starts, readings, steps = [now - timedelta(days=20), now - timedelta(days=9), now], [], []
    try:
        for limit in (0, 50, 50, 50):
            async with empty_database.scheduler.transaction([tenant.tenant_id]) as conn:
                steps.append(await statistics.roll_up(conn, tenant.tenant_id, now, limit))
            async with empty_database.api.transaction([tenant.tenant_id]) as conn:
                reading = await Reading.begin(conn, tenant.tenant_id, now)
                readings.append((len(reading.marked), await reading.count(Scope(tasks=[task]), starts)))
    finally:
        await empty_database.aclose()
    assert steps == [0, 50, 50, 33]
    assert [marked for marked, _ in readings] == [133, 83, 33, 0]
    first = readings[0][1]
    assert sum(one.counts["skipped"] for one in first.values()) == 133
    assert all(found == first for _, found in readings)


async def test_specs_of_an_earlier_version_keep_their_generation(tenant: Tenant, tmp_path: Path) -> None:
    """A task whose manifest says nothing of a field that came later is what it was: nothing of it is written anew."""
    repository = Repository.make(tmp_path)
    repository.push({"alpha.yaml": manifest("alpha"), "beta.yaml": manifest("beta", lifecycle={"prune": "confirm"})})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        for name in ("alpha", "beta"):
            task = it.task(name)
            spec = {key: value for key, value in task["spec"].items() if key not in LATER_FIELDS}
            whole = [spec, task["labels"], task["annotations"]]
            written = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
            it.database.do(
                "UPDATE tasks SET spec = %s, spec_hash = %s WHERE name = %s",
                *(json.dumps(spec), sha256(written).digest(), name),
            )
        it.database.do("UPDATE sources SET validator_version = 'an older one'")
        plans = it.database.rows("SELECT * FROM task_plan ORDER BY task_uid")
        await it.sync()
        alpha, beta = it.task("alpha"), it.task("beta")
        assert (alpha["generation"], alpha["sync"]) == (1, "SYNCED")
        assert (beta["generation"], beta["spec"]["lifecycle"]) == (2, {"prune": "confirm"})
        assert it.database.rows("SELECT * FROM task_plan ORDER BY task_uid") == plans
        repository.push({"alpha.yaml": manifest("alpha", lifecycle={"prune": "disabled"})})
        await it.sync()
        repository.push({"alpha.yaml": manifest("alpha", lifecycle={"prune": "allow"})})
        await it.sync()
        assert (it.task("alpha")["generation"], it.task("alpha")["spec"]["lifecycle"]) == (3, {"prune": "allow"})
