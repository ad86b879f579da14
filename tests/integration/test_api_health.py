"""Liveness, readiness, metrics, and the documents about the API itself."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from cron_observer.service import Heartbeats
from cron_observer.settings import SourceSettings
from cron_observer_api.app import create_app
from support.api import api
from support.databases import Tenant
from support.rows import database_now, make_slot, make_task


def add_source(tenant: Tenant, *, passed: bool) -> None:
    """Insert a source that has, or has not, been looked at."""
    now = database_now(tenant.database)
    row = {"tenant_id": tenant.tenant_id, "source_id": tenant.project_id, "project_id": tenant.project_id}
    row |= {"name": "main", "kind": "git", "url": "https://x.example/r", "poll_seconds": 1, "next_poll_at": now}
    tenant.database.insert("sources", [row | {"created_at": now, "first_pass_at": now if passed else None}])


async def test_readiness_waits_for_the_first_pass_of_each_source(tenant: Tenant) -> None:
    """A source of the settings that is not there yet, or has not been looked at, keeps the process from being ready."""
    settings: dict[str, Any] = {"sources": (SourceSettings(name="main", url="https://x.example/r"),)}
    async with api(tenant, **settings) as it:
        absent = await it.client.get("/readyz")
        add_source(tenant, passed=False)
        waiting = await it.client.get("/readyz")
        tenant.database.do("UPDATE sources SET first_pass_at = now(), failures = 3")
        ready = await it.client.get("/readyz")
    for told in (absent, waiting):
        assert told.status_code == 503
        assert told.json() == {"failing": ["source main has not been looked at yet"]}
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


async def test_readiness_does_not_wait_for_a_suspended_source(tenant: Tenant) -> None:
    """A source that was suspended before anybody looked at it is not waited for, until its suspension is over."""
    add_source(tenant, passed=False)
    suspend = "UPDATE sources SET suspended_at = now(), suspended_by = 'ada', suspended_until = "
    async with api(tenant) as it:
        told = []
        for until in ("NULL", "now() + interval '1 hour'", "now() - interval '1 second'"):
            tenant.database.do(suspend + until)
            told.append((await it.client.get("/readyz")).status_code)
    assert told == [200, 200, 503]


async def test_readiness_wants_the_schema_and_the_roles(tenant: Tenant, tmp_path: Path) -> None:
    """Another revision of the schema, or a role that does not tick, is told."""
    heartbeats = Heartbeats()
    async with api(tenant) as it:
        assert it.app is not None
        other = create_app(it.app.state.settings, database=tenant.database.api, late_roles=heartbeats.failing)
        assert await other.state.readiness.failing() == []
        heartbeats.expect("scheduler", 1.0)
        assert await other.state.readiness.failing() == ["role scheduler has not ticked lately"]
        heartbeats.beat("scheduler")
        tenant.database.do("UPDATE alembic_version SET version_num = '0000'")
        told = await it.client.get("/readyz")
    assert told.json()["failing"][0].startswith("schema is at 0000")


async def test_metrics_count_what_is_going_on(tenant: Tenant) -> None:
    """Due and running executions, statuses, sources and requests are there in Prometheus' format."""
    now = database_now(tenant.database)
    task = make_task(tenant)
    make_slot(tenant, task, now - timedelta(minutes=5))
    make_slot(tenant, task, now - timedelta(minutes=4), status="SKIPPED", reason="overlap", finished_at=now)
    make_slot(tenant, task, now + timedelta(minutes=4))
    make_slot(tenant, task, now - timedelta(minutes=3), plan_generation=0)
    add_source(tenant, passed=True)
    async with api(tenant) as it:
        await it.call("GET", "/projects/default")
        told = await it.client.get("/metrics")
    assert told.headers["content-type"].startswith("text/plain; version=")
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(told.text):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    assert found["cron_observer_executions_due", ()] == 1
    assert 290 < found["cron_observer_executions_due_oldest_seconds", ()] < 400
    assert found["cron_observer_executions_running", ()] == 0
    assert found["cron_observer_executions", (("status", "PENDING"),)] == 1
    assert found["cron_observer_executions", (("status", "SKIPPED"),)] == 1
    of_main = ("source", "main")
    assert found["cron_observer_source_findings", (("severity", "error"), of_main)] == 0
    assert found["cron_observer_source_behind", (of_main,)] == 0
    route = (("method", "GET"), ("route", "/api/v1/projects/{project}"), ("status", "200"))
    assert found["cron_observer_http_requests_total", route] >= 1


async def test_metrics_tell_workers_dispatchers_and_check_ins_apart(tenant: Tenant) -> None:
    """What a dispatcher has to send is counted on its own, and what waits for a ping accuses no worker."""
    now = database_now(tenant.database)
    task = make_task(tenant)
    make_slot(tenant, task, now - timedelta(minutes=9), queue="@checkin")
    make_slot(tenant, task, now - timedelta(minutes=7), queue="@http")
    make_slot(tenant, task, now - timedelta(minutes=3))
    async with api(tenant) as it:
        told = (await it.client.get("/metrics")).text
    found = {sample.name: sample.value for family in text_string_to_metric_families(told) for sample in family.samples}
    assert found["cron_observer_executions_due"] == found["cron_observer_webhooks_due"] == 1
    assert 170 < found["cron_observer_executions_due_oldest_seconds"] < 300
    assert 410 < found["cron_observer_webhooks_due_oldest_seconds"] < 500
    assert found["cron_observer_webhooks_running"] == 0


async def test_metrics_tell_how_sources_stand(tenant: Tenant) -> None:
    """What waits, since when a source is behind or suspended, and what the steps of its last run took."""
    add_source(tenant, passed=True)
    applied = {"status": "False", "reason": "ValidationFailed", "since": "2020-01-01T00:00:00+00:00"}
    tenant.database.do(
        "UPDATE sources SET observed_at = now(), observed_commit = 'b', applied_commit = 'a', failures = 2, "
        "counts = '{\"held\": 7, \"errors\": 3}', suspended_at = now() - interval '1 hour', suspended_by = 'ada', "
        "conditions = jsonb_build_object('Applied', %s::jsonb)",
        json.dumps(applied),
    )
    for n, outcome in enumerate(("applied", "refused", "running")):
        tenant.database.do(
            "INSERT INTO sync_runs (tenant_id, run_id, source_id, trigger, epoch, outcome, started_at, strategy, "
            "timings) "
            "SELECT tenant_id, ('00000000-0000-7000-8000-00000000000' || %s)::uuid, source_id, 'poll', 1, %s, now(), "
            "'tree', jsonb_build_object('fetch', %s::float) FROM sources",
            str(n),
            outcome,
            n / 2,
        )
    async with api(tenant) as it:
        told = await it.client.get("/metrics")
    lines = [line for line in told.text.splitlines() if line.startswith("cron_observer_source_")]
    assert 'cron_observer_source_held{source="main"} 7.0' in lines
    assert 'cron_observer_source_behind{source="main"} 1.0' in lines
    assert 'cron_observer_source_failures{source="main"} 2.0' in lines
    assert 'cron_observer_source_findings{severity="error",source="main"} 3.0' in lines
    step = 'cron_observer_source_run_seconds{outcome="refused",source="main",step="fetch",strategy="tree"} 0.5'
    assert [line for line in lines if "run_seconds" in line] == [step]
    values = dict(line.rsplit(" ", 1) for line in lines)
    assert 3600 <= float(values['cron_observer_source_suspended_seconds{source="main"}']) < 3700
    years = float(values['cron_observer_source_stale_seconds{source="main"}']) / 86_400 / 365
    assert years > 5, "a fresh look at what is not applied does not make it fresh"


async def test_the_documents_are_served(tenant: Tenant) -> None:
    """The description, the schema of a manifest and the meaning of each problem can be read."""
    async with api(tenant) as it:
        description = await it.client.get("/api/v1/openapi.json")
        schema = await it.client.get("/schemas/v1/task.json")
        problem = await it.client.get("/problems/manifest_owned")
    assert description.json()["openapi"] == "3.1.0"
    assert schema.headers["content-type"] == "application/schema+json"
    assert schema.json()["title"] == "Task"
    assert "409" in problem.text
