"""The workers' door: what it serves is answered as the framework's routes answer it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from cron_observer_api import work
from cron_observer_api.app import App
from cron_observer_api.door import Door
from cron_observer_api.edge import Edge, Hosts
from support.api import BASE, api
from support.databases import Tenant
from support.worker import Worker

JSON = {"Content-Type": "application/json"}

#: What is said wrongly, or of what is not there: path, header fields beside the key's, body.
WRONG: dict[str, tuple[str, dict[str, str], bytes]] = {
    "no body": ("claims", JSON, b""),
    "no JSON": ("claims", JSON, b"{"),
    "an unknown field": ("claims", JSON, b'{"worker": "w", "odd": 1}'),
    "a key twice": ("claims", JSON, b'{"worker": "w", "worker": "v"}'),
    "a wrong type": ("executions/{id}/heartbeat", JSON, b'{"fence": "x"}'),
    "another media type": ("executions/{id}/complete", {"Content-Type": "text/plain"}, b"{}"),
    "too much": ("executions/{id}/release", JSON, b'{"fence": 1, "reason": "' + b"x" * 100_000 + b'"}'),
    "an id that is none": ("executions/odd/complete", JSON, b'{"fence": 1, "outcome": "finished"}'),
    "an id that is unknown": ("executions/{id}/complete", JSON, b'{"fence": 1, "outcome": "finished"}'),
    "a path that is unknown": ("executions/{id}/odd", JSON, b"{}"),
    "an address below it": ("executions/{id}/complete/more", JSON, b"{}"),
    "a slash behind it": ("executions/{id}/complete/", JSON, b'{"fence": 1, "outcome": "finished"}'),
    "an escape in it": ("executions/%61{id}/complete", JSON, b'{"fence": 1, "outcome": "finished"}'),
    "another encoding": ("executions/{id}/logs", JSON | {"Content-Encoding": "br"}, b"{}"),
    "no words": ("completions", JSON, b'{"completions": []}'),
}

#: Fields that differ from one answer to the next.
MOVING = ("date", "ratelimit-remaining", "ratelimit-reset")


def routed(app: App) -> httpx.AsyncClient:
    """Return a client of the same app that comes past the door."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(Edge(app.routed, Hosts(None))), base_url=BASE)


def told(reply: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """Return what two answers have to have in common."""
    return reply.status_code, {name: text for name, text in reply.headers.items() if name not in MOVING}, reply.content


@pytest.mark.parametrize("case", WRONG)
async def test_a_refusal_is_the_same_on_both_ways(tenant: Tenant, case: str) -> None:
    """Status, header fields and problem do not tell which way a request has taken, with a key, a wrong one or none."""
    path, headers, body = WRONG[case]
    url = "/api/v1/sdk/" + path.replace("{id}", str(uuid4()))
    async with api(tenant) as it:
        assert it.app is not None
        async with routed(it.app) as beside:
            for key in (await it.key("report"), await it.key("read"), {"Authorization": "Bearer co_wrong"}, {}):
                here = await it.client.post(url, headers=headers | key, content=body)
                there = await beside.post(url, headers=headers | key, content=body)
                assert told(here) == told(there)
                assert here.status_code >= 400
            for method in ("GET", "PUT", "OPTIONS"):
                key = await it.key("report")
                here = await it.client.request(method, url, headers=headers | key)
                there = await beside.request(method, url, headers=headers | key)
                assert told(here) == told(there)


async def test_a_run_is_the_same_on_both_ways(tenant: Tenant) -> None:
    """From the claim to the last word each call gives what the other way would have given; a repeat shows it."""
    async with api(tenant) as it:
        assert it.app is not None
        run = await Worker(it, tenant).running()
        about = f"/api/v1/sdk/executions/{run['id']}"
        entries = [{"level": "INFO", "message": "x"}]
        said: list[tuple[str, dict[str, Any]]] = [
            ("start", {}),
            ("logs", {"first_seq": 0, "entries": entries}),
            ("complete", {"outcome": "finished", "result": {"n": 1.5}}),
        ]
        async with routed(it.app) as beside:
            for what, body in said:
                key = await it.key("report")
                here = await it.client.post(f"{about}/{what}", headers=key, json={"fence": 1, **body})
                there = await beside.post(f"{about}/{what}", headers=key, json={"fence": 1, **body})
                assert here.status_code < 300
                assert told(here) == told(there)


async def test_metrics_name_the_same_route(tenant: Tenant) -> None:
    """What the door serves is counted under its route's template."""
    async with api(tenant) as it:
        await it.call("POST", f"/sdk/executions/{uuid4()}/heartbeat", "report", json={"fence": 1})
        metrics = (await it.client.get("/metrics", headers=await it.key("read"))).text
    assert 'route="/api/v1/sdk/executions/{execution_id}/heartbeat",status="404"' in metrics.replace('", ', '",')


def test_only_calls_about_executions_are_opened() -> None:
    """A route with its parameter elsewhere would be found wrongly: it is refused when the app is made."""
    handler = next(one for one in work.hot if "{" in next(iter(one.paths)))
    with pytest.raises(ValueError, match="not about an execution"):
        Door(None, "/api/v1/other", (), lambda _request, _error: None).open("/api/v1/sdk", handler)  # type: ignore[arg-type, return-value]
