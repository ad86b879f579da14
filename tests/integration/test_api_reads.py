"""What the API shows of executions, days, tasks and projects."""

from __future__ import annotations

from datetime import UTC, timedelta

from cron_observer.schedule import new_id
from cron_observer.store import shapes
from support.api import api
from support.databases import Tenant
from support.rows import database_now, make_slot, make_task

#: The members of an execution, as the wire contract lists them.
EXECUTION = {
    "id", "task", "status", "reason", "late", "trigger", "scheduled_for", "nominal_local", "nominal_fold",
    "timezone", "fire_at", "available_at", "queue", "priority", "attempt", "fence", "worker", "lease_until",
    "started_at", "finished_at", "duration_seconds", "run_deadline", "heartbeat_every_seconds", "cancel_requested",
    "progress", "checkpoint", "payload", "result", "exit_code", "error", "run_token", "definition",
    "repeats", "backfill_id",
}  # fmt: skip

TASK = {
    "uid", "name", "project", "status", "owner", "sync", "conditions", "spec", "generation", "labels", "schedule_text",
    "next_fire_at", "pause", "last_execution", "ping_url", "sentry_dsn",
}  # fmt: skip


async def test_an_execution_has_exactly_the_members_of_the_contract(tenant: Tenant) -> None:
    """One execution shows every member, a list leaves out the heavy ones."""
    task = make_task(tenant, payload={"format": "csv"})
    slot = make_slot(tenant, task, database_now(tenant.database) - timedelta(minutes=5))
    async with api(tenant) as it:
        one = (await it.call("GET", f"/executions/{slot}")).json()
        (item,) = (await it.call("GET", "/executions")).json()["items"]
    assert set(one) == EXECUTION
    assert set(item) == EXECUTION - {"payload", "result", "checkpoint", "fence"}
    assert one["payload"] == {"format": "csv"}
    assert one["task"] == {"uid": str(task), "project": "default", "name": "export"}
    assert one["fire_at"].endswith("Z")
    assert len(one["fire_at"]) == len("2026-01-01T00:00:00.000Z")
    assert one["definition"] == {"source": None, "commit": None, "path": None, "line": None, "generation": 1}


async def test_lists_show_history_and_forecasts_only_when_asked(tenant: Tenant) -> None:
    """A slot that is not due is hidden, unless upcoming ones are asked for."""
    now = database_now(tenant.database)
    task = make_task(tenant)
    due, later = (make_slot(tenant, task, now + timedelta(minutes=minutes)) for minutes in (-5, 30))
    async with api(tenant) as it:
        shown = (await it.call("GET", "/executions")).json()["items"]
        all_ = (await it.call("GET", "/executions?upcoming=true")).json()["items"]
        days = (await it.call("GET", "/days")).json()["items"]
        task_ = (await it.call("GET", "/projects/default/tasks/export")).json()
    assert [item["id"] for item in shown] == [str(due)]
    assert [item["id"] for item in all_] == [str(later), str(due)]
    assert sum(day["total"] for day in days) == 1
    assert task_["last_execution"]["id"] == str(due)
    assert task_["next_fire_at"] == all_[0]["fire_at"]


async def test_slots_of_a_replaced_plan_are_not_shown(tenant: Tenant) -> None:
    """A waiting slot of an older plan generation is neither in lists nor in days."""
    now = database_now(tenant.database)
    task = make_task(tenant)
    make_slot(tenant, task, now - timedelta(minutes=5), plan_generation=0)
    async with api(tenant) as it:
        assert (await it.call("GET", "/executions?upcoming=true")).json()["items"] == []
        assert (await it.call("GET", "/days")).json()["items"] == []


async def test_pages_of_a_list_give_every_execution_once_newest_first(tenant: Tenant) -> None:
    """Following next_cursor visits each execution exactly once, in order, while new ones arrive."""
    now = database_now(tenant.database)
    task = make_task(tenant)
    slots = [make_slot(tenant, task, now - timedelta(minutes=n)) for n in range(1, 26)]
    seen: list[str] = []
    async with api(tenant) as it:
        path = "/executions?limit=7"
        while path:
            page = (await it.call("GET", path)).json()
            seen += [item["id"] for item in page["items"]]
            make_slot(tenant, task, now - timedelta(seconds=len(seen)))
            path = f"/executions?limit=7&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert seen == [str(slot) for slot in slots]


#: Filters, and which of three executions each finds.
FILTERS: tuple[tuple[str, set[str]], ...] = (
    ("status=SKIPPED", {"skipped"}),
    ("status=SKIPPED,PENDING", {"skipped", "due", "other"}),
    ("reason=overlap", {"skipped"}),
    ("trigger=catchup", {"other"}),
    ("task=default/export", {"due", "skipped"}),
    ("task=export", {"due", "skipped"}),
    ("task=import&project=default", {"other"}),
    ("task=no-such", set()),
    ("project=no-such", set()),
    ("worker=w1", {"skipped"}),
    ("from=2026-01-05T00:00:00Z&to=2026-01-06T00:00:00Z", {"skipped"}),
    ("date=2026-01-05&timezone=Europe/Berlin", {"skipped"}),
    ("date=2026-01-05&timezone=America/New_York", {"due"}),
)


async def test_filters_of_the_list(tenant: Tenant) -> None:
    """Each filter of the list of executions shows what it names."""
    from datetime import datetime

    tenant.database.partitions(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 12, tzinfo=UTC))
    task, other = make_task(tenant), make_task(tenant, "import")
    first = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
    made = {
        str(make_slot(tenant, task, first + timedelta(days=1))): "due",
        str(make_slot(tenant, other, first + timedelta(days=3), trigger="catchup")): "other",
        str(
            make_slot(tenant, task, first, status="SKIPPED", reason="overlap", finished_at=first, worker="w1")
        ): "skipped",
    }
    async with api(tenant) as it:
        for query, found in FILTERS:
            answer = await it.call("GET", f"/executions?{query}")
            assert answer.status_code == 200, (query, answer.text)
            assert {made[item["id"]] for item in answer.json()["items"]} == found, query


async def test_a_task_has_exactly_the_members_of_the_contract(tenant: Tenant) -> None:
    """One task and the items of the list show the same members."""
    make_task(tenant)
    async with api(tenant) as it:
        one = (await it.call("GET", "/projects/default/tasks/export")).json()
        (item,) = (await it.call("GET", "/projects/default/tasks")).json()["items"]
        project = (await it.call("GET", "/projects/default")).json()
        (listed,) = (await it.call("GET", "/projects")).json()["items"]
    assert set(one) == TASK
    assert set(one["owner"]) == {"kind", "source", "path", "line", "commit", "author", "url"}
    assert item == one
    assert listed == project
    assert (project["name"], project["tasks"]) == ("default", 1)


async def test_an_execution_keeps_the_definition_that_its_claim_pinned(tenant: Tenant) -> None:
    """After a claim the definition and payload are those of that generation, whatever the task becomes."""
    task = make_task(tenant, payload={"v": 1})
    slot = make_slot(tenant, task, database_now(tenant.database) - timedelta(minutes=1))
    async with api(tenant) as it:
        await it.call("POST", "/sdk/claims", "report", json={"worker": "w"})
        body = {"schedule": {"every": "1h"}, "payload": {"v": 2}}
        await it.call("PUT", "/projects/default/tasks/export", "tasks:write", json=body)
        one = (await it.call("GET", f"/executions/{slot}")).json()
    assert (one["definition"]["generation"], one["payload"]) == (1, {"v": 1})


async def test_a_log_is_read_as_json_and_as_text(tenant: Tenant) -> None:
    """Lines are found by number, level and text; logs.txt is the whole of them, as one stream."""
    task = make_task(tenant)
    slot = make_slot(tenant, task, database_now(tenant.database) - timedelta(minutes=1))
    async with api(tenant) as it:
        (given,) = (await it.call("POST", "/sdk/claims", "report", json={"worker": "w"})).json()["executions"]
        levels = ("DEBUG", "INFO", "WARN", "ERROR")
        entries = [{"level": levels[number % 4], "message": f"Line <{number}>"} for number in range(2500)]
        lines = {"fence": given["fence"], "first_seq": 0, "entries": entries}
        stored = await it.call("POST", f"/sdk/executions/{slot}/logs", "report", json=lines)
        assert stored.status_code == 202, stored.text

        async def read(query: str) -> tuple[list[int], int | None]:
            page = (await it.call("GET", f"/executions/{slot}/logs?{query}")).json()
            return [item["seq"] for item in page["items"]], page["next_seq"]

        assert await read("limit=2") == ([0, 1], 2)
        assert await read("from_seq=2498") == ([2498, 2499], None)
        assert await read("level=ERROR&limit=2") == ([3, 7], 11)
        assert await read("q=line%20%3C249&limit=3") == ([249, 2490, 2491], 2492)
        assert await read("attempt=2") == ([], None)
        for wrong in ("limit=1001", "limit=0", "from_seq=-1", "level=LOUD", "from_seq=2147483648"):
            assert (await it.call("GET", f"/executions/{slot}/logs?{wrong}")).status_code == 400
        (item,) = (await it.call("GET", f"/executions/{slot}/logs?limit=1")).json()["items"]
        assert set(item) == {"seq", "attempt", "ts", "received_at", "level", "message", "fields", "flags"}
        text = await it.call("GET", f"/executions/{slot}/logs.txt")
        errors = await it.call("GET", f"/executions/{slot}/logs.txt?level=ERROR")
    assert text.headers["content-type"].startswith("text/plain")
    assert text.text.splitlines()[2499].endswith("ERROR Line <2499>")
    assert len(errors.text.splitlines()) == 625


async def test_a_source_shows_its_conditions_and_findings(tenant: Tenant) -> None:
    """Times inside conditions are those of the wire, credentials of the address are left out."""
    now = database_now(tenant.database)
    row = {"tenant_id": tenant.tenant_id, "source_id": tenant.project_id, "project_id": tenant.project_id}
    row |= {"name": "main", "kind": "git", "url": "https://u:p@github.com/a/b.git", "poll_seconds": 1}
    ready = {"status": "False", "reason": "InvalidManifests", "message": "1 error", "since": now.isoformat()}
    tenant.database.insert("sources", [row | {"next_poll_at": now, "created_at": now, "conditions": {"Ready": ready}}])
    common = {"tenant_id": tenant.tenant_id, "source_id": tenant.project_id, "path": "a.yaml"}
    finding = {"n": 0, "severity": "error", "code": "CO1301", "line": 3, "column": 5, "message": "unknown"}
    tenant.database.insert(
        "manifest_files", [common | {"blob": "-", "state": "invalid", "documents": 1, "commit": "c0ffee"}]
    )
    tenant.database.insert("sync_findings", [common | finding])
    run = new_id(now)
    told = {"trigger": "poll", "epoch": 1, "outcome": "applied", "started_at": now, "subject": "Add", "author": "Ada"}
    tenant.database.insert(
        "sync_runs", [{"tenant_id": tenant.tenant_id, "source_id": tenant.project_id, "run_id": run} | told]
    )
    tenant.database.do("UPDATE sync_findings SET run_id = %s", run)
    async with api(tenant) as it:
        one = (await it.call("GET", "/sources/main")).json()
        (listed,) = (await it.call("GET", "/sources")).json()["items"]
        (passed,) = (await it.call("GET", "/sources/main/runs")).json()["items"]
        alone = (await it.call("GET", f"/runs/{run}")).json()
    found = one.pop("findings")
    assert listed == one
    assert one["url"] == "https://github.com/a/b.git"
    assert one["conditions"] == {"Ready": ready | {"since": shapes.instant(now)}}
    assert [(each["code"], each["line"], each["column"]) for each in found] == [("CO1301", 3, 5)]
    assert found[0]["url"] == "https://github.com/a/b/blob/c0ffee/a.yaml#L3"
    assert passed == alone
    assert passed["commit"] == {"author": "Ada", "subject": "Add", "at": None}
    assert passed["findings"] == found
