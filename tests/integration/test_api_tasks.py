"""Tasks that the API owns: created, read, changed, triggered and deleted."""

from __future__ import annotations

import asyncio
from typing import Any

from support.api import api
from support.databases import Tenant

TASKS = "/projects/default/tasks"
BODY = {"name": "export", "labels": {"team": "billing"}, "schedule": {"cron": "*/5 * * * *"}, "timeout": "10m"}
#: The same, of which nothing falls due while a test looks at it.
QUIET = BODY | {"schedule": {"cron": "*/5 * * * *", "startAt": "2200-01-01T00:00:00"}}


async def test_the_life_of_a_task(tenant: Tenant) -> None:
    """POST makes it, GET shows it, PUT replaces it, PATCH changes it, DELETE marks it."""
    async with api(tenant) as it:
        made = await it.call("POST", TASKS, "tasks:write", json=QUIET)
        shown = await it.call("GET", f"{TASKS}/export")
        again = await it.call("POST", TASKS, "tasks:write", json=QUIET)
        replaced = await it.call("PUT", f"{TASKS}/export", "tasks:write", json={"schedule": {"every": "1h"}})
        same = await it.call("PUT", f"{TASKS}/export", "tasks:write", json={"schedule": {"every": "1h"}})
        patched = await it.call("PATCH", f"{TASKS}/export", "tasks:write", json={"suspend": True, "priority": 3})
        deleted = await it.call("DELETE", f"{TASKS}/export", "tasks:write")
        twice = await it.call("DELETE", f"{TASKS}/export", "tasks:write")
        late = await it.call("PUT", f"{TASKS}/export", "tasks:write", json={"schedule": {"every": "2h"}})
        listed = (await it.call("GET", TASKS)).json()["items"]

    assert made.status_code == 201
    task = made.json()
    assert shown.json() == task
    assert task["owner"]["kind"] == "api"
    assert (task["status"], task["generation"], task["sync"]) == ("ACTIVE", 1, None)
    assert task["schedule_text"] == "Every 5 minutes, from 2200-01-01 00:00:00"
    assert task["spec"]["retries"] == {"max": 0, "backoff": "exponential", "initial": "10s", "cap": "10m"}
    assert task["next_fire_at"] is not None
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")
    assert (replaced.status_code, replaced.json()["generation"]) == (200, 2)
    assert (replaced.json()["labels"], replaced.json()["spec"]["timeout"]) == ({}, "1h")
    assert (same.status_code, same.json()["generation"]) == (200, 2)
    assert (patched.json()["status"], patched.json()["spec"]["priority"]) == ("DISABLED", 3)
    assert patched.json()["next_fire_at"] is None
    assert (deleted.status_code, deleted.json()["status"]) == (202, "DELETING")
    assert (twice.status_code, twice.json()["status"]) == (202, "DELETING")
    assert late.status_code == 409
    assert [one["status"] for one in listed] == ["DELETING"]
    actions = [row["action"] for row in tenant.database.rows("SELECT action FROM audit_log ORDER BY audit_id")]
    assert actions == ["task.create", "task.update", "task.update", "task.delete"]


async def test_put_makes_a_task_that_is_not_there(tenant: Tenant) -> None:
    """PUT on a free name answers 201, on a project that is not there 404."""
    async with api(tenant) as it:
        made = await it.call("PUT", f"{TASKS}/export", "tasks:write", json={"schedule": {"every": "1h"}})
        lost = await it.call("PUT", "/projects/none/tasks/export", "tasks:write", json={"schedule": {"every": "1h"}})
    assert made.status_code == 201
    assert lost.status_code == 404


#: Bodies of a task, what each is answered, and which place is named.
WRONG: tuple[tuple[Any, int, str, str], ...] = (
    ({"schedule": {"cron": "61 * * * *"}}, 422, "invalid_spec", "/schedule/cron"),
    ({"schedule": {"cron": "0 0 31 2 *"}}, 422, "invalid_spec", "/schedule/cron"),
    ({"schedule": {"every": "1h", "timezone": "Europe/Berlni"}}, 422, "invalid_spec", "/schedule/timezone"),
    ({"schedule": {}}, 422, "invalid_spec", "/schedule"),
    ({}, 422, "invalid_spec", "/schedule"),
    ({"schedule": {"every": "1h"}, "priority": 10}, 422, "invalid_spec", "/priority"),
    ({"schedule": {"every": "1h"}, "labels": {"team": 7}}, 422, "invalid_spec", "/labels/team"),
    ({"schedule": {"every": "1h"}, "labels": []}, 422, "invalid_spec", "/labels"),
    ({"schedule": {"every": "1h"}, "shedule": 1}, 400, "unknown_field", "/shedule"),
    ({"schedule": {"every": "1h", "crom": "* * * * *"}}, 400, "unknown_field", "/schedule/crom"),
    ({"schedule": {"every": "1h"}, "annotations": {}}, 400, "unknown_field", "/annotations"),
    ({"schedule": {"every": "1h"}, "name": "other"}, 400, "bad_request", "/name"),
    ({"schedule": {"every": "1h"}, "name": 7}, 400, "bad_request", "/name"),
    ([], 400, "bad_request", ""),
    ("x", 400, "bad_request", ""),
)


async def test_a_wrong_body_is_refused_with_its_place(tenant: Tenant) -> None:
    """A spec that is wrong answers 422 with findings, an unknown field 400; both name the pointer."""
    async with api(tenant) as it:
        for body, status, code, pointer in WRONG:
            told = await it.call("PUT", f"{TASKS}/export", "tasks:write", json=body)
            assert (told.status_code, told.json()["code"]) == (status, code), (body, told.text)
            if code == "invalid_spec":
                assert pointer in [finding["pointer"] for finding in told.json()["findings"]], (body, told.text)
            else:
                assert told.json()["pointer"] == pointer, body
            assert told.json()["hint"], body
            assert tenant.database.value("SELECT count(*) FROM tasks") == 0, body


async def test_a_trigger_makes_a_run_that_a_worker_gets(tenant: Tenant) -> None:
    """POST trigger answers the waiting execution, with the payload that was asked for; a claim hands it out."""
    async with api(tenant) as it:
        await it.call("POST", TASKS, "tasks:write", json=QUIET | {"payload": {"a": 1}})
        plain = await it.call("POST", f"{TASKS}/export/trigger", "trigger")
        own = await it.call("POST", f"{TASKS}/export/trigger", "trigger", json={"payload": [1], "force": True})
        claim = {"worker": "w", "max": 10, "tasks": ["default/export"]}
        given = await it.call("POST", "/sdk/claims", "report", json=claim)
        missing = await it.call("POST", f"{TASKS}/none/trigger", "trigger")
    assert (plain.status_code, own.status_code, missing.status_code) == (201, 201, 404)
    assert (plain.json()["trigger"], plain.json()["status"]) == ("manual", "PENDING")
    assert (plain.json()["payload"], own.json()["payload"]) == ({"a": 1}, [1])
    got = {one["id"] for one in given.json()["executions"]}
    assert plain.json()["id"] in got


async def test_a_waiting_execution_is_cancelled_at_once(tenant: Tenant) -> None:
    """POST cancel ends what waits, answers 409 for what has ended and 404 for what is not there."""
    async with api(tenant) as it:
        await it.call("POST", TASKS, "tasks:write", json=BODY)
        made = (await it.call("POST", f"{TASKS}/export/trigger", "trigger")).json()
        path = f"/executions/{made['id']}"
        cancelled = await it.call("POST", f"{path}/cancel", "trigger", json={"reason": "not needed"})
        again = await it.call("POST", f"{path}/cancel", "trigger")
        events = (await it.call("GET", f"{path}/events")).json()
        first = (await it.call("GET", f"{path}/events?limit=1")).json()
        second = (await it.call("GET", f"{path}/events?limit=1&cursor={first['next_cursor']}")).json()
        nobody = await it.call("POST", "/executions/00000000-0000-8000-8000-000000000000/cancel", "trigger")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELLED")
    assert cancelled.json()["reason"] == "cancelled"
    assert (again.status_code, again.json()["code"]) == (409, "already_final")
    assert [event["type"] for event in events["items"]] == ["created", "cancelled"]
    assert events["items"] == [*first["items"], *second["items"]]
    assert second["next_cursor"] is None
    assert events["items"][1]["actor"].startswith("key:")
    assert nobody.status_code == 404


async def test_lists_of_tasks_are_filtered_and_paged(tenant: Tenant) -> None:
    """q, label, owner and status narrow the list; pages visit each task once by name."""
    async with api(tenant) as it:
        for number in range(7):
            body = BODY | {
                "name": f"t{number}",
                "labels": {"n": str(number % 2)},
                "description": "100% odd_" if number % 2 else "even",
                "suspend": number == 6,
            }
            assert (await it.call("POST", TASKS, "tasks:write", json=body)).status_code == 201

        async def names(query: str) -> list[str]:
            found: list[str] = []
            cursor: str | None = ""
            while cursor is not None:
                more = f"&cursor={cursor}" if cursor else ""
                page = (await it.call("GET", f"{TASKS}?limit=2&{query}{more}")).json()
                found += [item["name"] for item in page["items"]]
                cursor = page["next_cursor"]
            return found

        assert await names("q=T") == [f"t{number}" for number in range(7)]
        assert await names("q=100%25") == ["t1", "t3", "t5"]
        assert await names("q=d_") == ["t1", "t3", "t5"]
        assert await names("label=n=1") == ["t1", "t3", "t5"]
        assert await names("label=n") == [f"t{number}" for number in range(7)]
        assert await names("label=x") == []
        assert await names("status=DISABLED") == ["t6"]
        assert await names("owner=manifest") == []
        bad = await it.call("GET", f"{TASKS}?status=GONE")
    assert (bad.status_code, bad.json()["pointer"]) == (400, "/status")


async def test_two_who_create_the_same_task_at_once_make_one(tenant: Tenant) -> None:
    """Of concurrent POSTs of one name exactly one is answered 201, the others name_taken."""
    async with api(tenant) as it:
        await it.key("tasks:write")
        answers = await asyncio.gather(*(it.call("POST", TASKS, "tasks:write", json=BODY) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"name_taken"}


async def test_a_created_task_is_planned(tenant: Tenant) -> None:
    """A task of the API gets slots like one of a manifest, and loses its forecasts when it is deleted."""
    async with api(tenant) as it:
        await it.call("POST", TASKS, "tasks:write", json=BODY)
        planned = (await it.call("GET", "/executions?upcoming=true&limit=200")).json()["items"]
        await it.call("DELETE", f"{TASKS}/export", "tasks:write")
        shown = (await it.call("GET", "/executions?upcoming=true&limit=200")).json()["items"]
    assert len(planned) >= 10
    # what falls due within the margin of the edit keeps its slot
    assert len(shown) <= 1
