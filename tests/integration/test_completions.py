"""Many last words in one request: each is taken or refused by itself."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

import cron_observer_sdk as co
from support.databases import Tenant
from support.rows import make_task, state
from support.worker import Worker, refused, working


def word(run: dict[str, Any], **said: Any) -> dict[str, Any]:
    """Return the last word on an execution."""
    return {"id": run["id"], "fence": run["fence"], "outcome": "finished"} | said


async def several(worker: Worker, number: int) -> list[dict[str, Any]]:
    """Make executions of one task and claim them."""
    task = make_task(worker.tenant, "busy", overlap="allow_all", catchup={"policy": "none"})
    for ago in range(number):
        worker.slot(task, 1.0 + ago / 100)
    return await worker.claim(max=number)


async def told(worker: Worker, *words: dict[str, Any]) -> list[dict[str, Any]]:
    """Say them and return the results."""
    reply = await worker.call("POST", "/completions", {"completions": list(words)})
    assert reply.status_code == 200, reply.text
    results: list[dict[str, Any]] = reply.json()["results"]
    return results


async def test_each_word_is_taken_or_refused_by_itself(tenant: Tenant) -> None:
    """What is wrong with one word is told beside its id, in the order of the request, and stops no other."""
    async with working(tenant) as worker:
        first, second, third = await several(worker, 3)
        results = await told(
            worker,
            word(first, result={"n": 1}, exit_code=0),
            word(second, fence=second["fence"] + 1),
            {"id": str(uuid4()), "fence": 1, "outcome": "finished"},
            word(third, outcome="failed", retryable=False, error={"message": "no"}),
        )
    assert [one["id"] for one in results[:2]] == [first["id"], second["id"]]
    assert [one["status"] for one in results] == ["FINISHED", None, None, "FAILED"]
    codes = [one["problem"] and one["problem"]["code"] for one in results]
    assert codes == [None, "lease_lost", "not_found", None]
    assert [state(tenant.database, one["id"])[0] for one in (first, second, third)] == ["FINISHED", "RUNNING", "FAILED"]


async def test_a_repeat_is_harmless_and_a_contradiction_is_refused(tenant: Tenant) -> None:
    """The same word says the same again, in one request as in two; another word is refused with the outcome that is."""
    async with working(tenant) as worker:
        run = await worker.running()
        once = await told(worker, word(run), word(run))
        again = await told(worker, word(run))
        (other,) = await told(worker, word(run, outcome="failed"))
    assert [one["status"] for one in (*once, *again)] == ["FINISHED"] * 3
    assert other["problem"]["code"] == "already_final"
    assert other["problem"]["execution"]["status"] == "FINISHED"


async def test_a_clients_own_id_is_known(tenant: Tenant) -> None:
    """A run that began by itself is ended under the id that its client gave it."""
    async with working(tenant) as worker:
        make_task(tenant, "export")
        mine = str(uuid4())
        begun = (await worker.call("POST", "/executions", {"id": mine, "task": "default/export", "worker": "w"})).json()
        (result,) = await told(worker, {"id": mine, "fence": begun["fence"], "outcome": "finished"})
    assert result == {"id": mine, "status": "FINISHED", "problem": None}


async def test_many_share_commits(tenant: Tenant) -> None:
    """A hundred words take far fewer commits than a hundred."""
    async with working(tenant) as worker:
        runs = await several(worker, 100)
        before = worker.api.app.state.writer.batches
        results = await told(worker, *map(word, runs))
        commits = worker.api.app.state.writer.batches - before
    assert {one["status"] for one in results} == {"FINISHED"}
    assert commits <= 2


async def test_the_client_ends_many(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """`complete_many` says all of them in as many calls as they need, hides what is to be hidden, tells each result."""
    monkeypatch.setattr("cron_observer_sdk.client.COMPLETIONS_MAX", 2)
    async with working(tenant) as worker:
        runs = await several(worker, 5)
        key = (await worker.api.key("report"))["Authorization"].removeprefix("Bearer ")
        with co.Client(str(worker.api.client.base_url), key, redact=["secret-[a-z]+"], spool=False) as client:
            words = [word(run, result={"n": "secret-x"}) for run in runs] + [word(runs[0], outcome="failed")]
            results = await asyncio.to_thread(client.complete_many, words)
        kept = (await worker.call("GET", f"/executions/{runs[0]['id']}")).json()
    assert [one["id"] for one in results] == [one["id"] for one in words]
    assert [one["status"] for one in results] == ["FINISHED"] * 5 + [None]
    assert results[-1]["problem"]["code"] == "already_final"
    assert kept["result"] == {"n": "***"}


def test_a_recording_client_takes_many() -> None:
    """What a test records of many last words is what it records of each."""
    with co.testing.recording() as events:
        client = events.client
        made = client.create("billing/export", "w")
        told = client.complete_many([word(made), word({"id": "odd", "fence": 1})])
    assert [(one["status"], one["problem"] and one["problem"]["code"]) for one in told] == [
        ("FINISHED", None),
        (None, "not_found"),
    ]
    assert [event.kind for event in events] == ["started", "finished"]


async def test_a_wrong_body_takes_nothing(tenant: Tenant) -> None:
    """A field that is not known, or more words than fit, is refused before any word is taken."""
    async with working(tenant) as worker:
        run = await worker.running()
        for words in ([], [word(run)] * 501, [word(run), word(run, odd=1)]):
            reply = await worker.call("POST", "/completions", {"completions": words})
            assert reply.status_code == 400, reply.text
        assert reply.json()["pointer"] == "/completions/1/odd"
        token = {"Authorization": f"Bearer {run['run_token']}"}
        path = "/api/v1/sdk/completions"
        reply = await worker.api.client.post(path, json={"completions": [word(run)]}, headers=token)
        refused(reply, 403, "forbidden")
    assert state(tenant.database, run["id"])[0] == "RUNNING"
