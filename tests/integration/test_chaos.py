"""Through a network that cuts, delays and swallows: no line and no completion is lost, and none is there twice."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from cron_observer import lifecycle
from cron_observer.store.logs import Lines
from support.backlogs import EVERY, make_backlog
from support.databases import Tenant
from support.proxy import FAULTS, proxied
from support.rows import database_now, make_task
from support.worker import Worker, working

#: How many executions, and how many lines each writes. The full size is 200 and 5,000.
EXECUTIONS = int(os.environ.get("CRON_OBSERVER_CHAOS_EXECUTIONS", "8"))
LINES = int(os.environ.get("CRON_OBSERVER_CHAOS_LINES", "400"))

#: Lines of one append.
BATCH = max(20, LINES // 10)

#: Times that a client asks again before it gives up; half of all connections fail.
PATIENCE = 60


class Stubborn:
    """A client that asks again, with the same words, until it has an answer."""

    def __init__(self, url: str, token: str) -> None:
        self.failures = 0
        self._headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
        self._client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=20)

    async def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Return the answer to a request, however often it takes."""
        for _ in range(PATIENCE):
            try:
                return await self._client.request(method, f"/api/v1/sdk{path}", json=body, headers=self._headers)
            except httpx.TransportError:
                self.failures += 1
        raise AssertionError("nothing comes through")

    async def work(self) -> UUID:
        """Claim one execution, write its log and complete it."""
        async with self._client:
            return await self._work()

    async def _work(self) -> UUID:
        claim = {"worker": "w", "claim_id": str(uuid4()), "lease_seconds": 600, "wait_seconds": 5}
        given = (await self.ask("POST", "/claims", claim)).json()["executions"]
        assert len(given) == 1
        path, fence = f"/executions/{given[0]['id']}", given[0]["fence"]
        self._headers["Authorization"] = f"Bearer {given[0]['run_token']}"
        seq = 0
        while seq < LINES:
            entries = [{"level": "INFO", "message": f"line {n}"} for n in range(seq, min(LINES, seq + BATCH))]
            reply = await self.ask("POST", f"{path}/logs", {"fence": fence, "first_seq": seq, "entries": entries})
            assert reply.status_code == 202, reply.text
            seq = reply.json()["next_seq"]
        done = {"fence": fence, "outcome": "finished", "result": {"lines": seq}}
        reply = await self.ask("POST", f"{path}/complete", done)
        assert (reply.status_code, reply.json()["status"]) == (200, "FINISHED")
        return UUID(given[0]["id"])


async def written(worker: Worker, identity: UUID) -> list[str]:
    """Read a log back, past the proxy."""
    found: list[str] = []
    while True:
        path = f"/executions/{identity}/logs?limit=1000&from_seq={len(found)}"
        reply = (await worker.api.call("GET", path, "read")).json()
        page = reply.get("items", reply.get("entries"))
        found += [one["message"] for one in page]
        if reply["next_seq"] is None or not page:
            return found


async def everything_arrives_once(tenant: Tenant, *, executions: int = EXECUTIONS, seed: int = 1) -> None:
    """Let clients work through the proxy, and compare what is stored with what they wrote."""
    async with working(tenant) as worker:
        made = make_backlog(tenant, make_task(tenant, **EVERY), database_now(tenant.database), executions)
        token = (await worker.api.key("report"))["Authorization"].removeprefix("Bearer ")
        async with proxied(str(worker.api.client.base_url).rstrip("/"), seed) as proxy:
            clients = [Stubborn(proxy.url, token) for _ in range(executions)]
            done: list[UUID] = []
            for first in range(0, executions, 8):
                done += await asyncio.gather(*(one.work() for one in clients[first : first + 8]))
        assert sorted(done) == sorted(made), "each is claimed once"
        assert sum(one.failures for one in clients) >= executions, "the network was bad"
        assert set(FAULTS) == proxy.done.keys()
        for identity in done:
            assert await written(worker, identity) == [f"line {n}" for n in range(LINES)]
    database = tenant.database
    rows = database.rows("SELECT type, count(*) AS n FROM execution_events GROUP BY 1")
    told = {row["type"]: row["n"] for row in rows}
    assert told["claimed"] == told["finished"] == executions
    assert database.value("SELECT count(*) FROM attempts") == executions


async def test_no_line_and_no_completion_is_lost_or_doubled(tenant: Tenant) -> None:
    """Half of all connections are cut, half closed, or lose their answer; what is stored is what was written."""
    await everything_arrives_once(tenant)


def _forgetful(*_given: Any, **_more: Any) -> Any:
    async def nothing() -> dict[UUID, list[UUID]]:
        return {}

    return nothing()


def _deaf(run: Any, done: Any, policy: Any, now: Any, *, real: Any = lifecycle.complete, **more: Any) -> Any:
    return real(run, done, policy, now, **{**more, "seen_digest": None})


def _all_of_them(self: Lines, _first: int, *, real: Any = Lines.part) -> Any:
    return real(self, 0)


#: What is broken of the server, and how: each loses or doubles something when an answer is lost.
MUTANTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "a claim is not remembered": lambda patch: patch.setattr("cron_observer_api.claimer.repeated", _forgetful),
    "a line that is stored is taken again": lambda patch: patch.setattr(Lines, "part", _all_of_them),
    "a repeated completion is another one": lambda patch: patch.setattr(lifecycle, "complete", _deaf),
}


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_mutant_is_caught(tenant: Tenant, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With the server broken in this place, something is lost or doubled."""
    MUTANTS[name](monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        await everything_arrives_once(tenant)
