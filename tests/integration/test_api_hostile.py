"""Hostile requests: every call answers them with a problem of the 4xx kind, none with a crash."""

from __future__ import annotations

import gzip
import re
from itertools import product
from typing import Any

import pytest
from litestar.routes import HTTPRoute

from cron_observer_api.app import App
from cron_observer_api.operation import Operation, operation_of
from support.api import Api, api, served
from support.databases import Tenant
from support.rows import database_now, make_slot, make_task

JSON = {"Content-Type": "application/json"}

#: Bodies that no call takes, and what each may be answered.
BODIES: dict[str, tuple[bytes, dict[str, str], set[int]]] = {
    "deep": (b'{"payload": ' + b"[" * 100_000, JSON, {400, 413}),
    "NaN": (b'{"payload": NaN}', JSON, {400}),
    "NUL": (b'{"reason": "\\u0000", "worker": "\\u0000", "payload": "\\u0000", "name": "\\u0000"}', JSON, {400}),
    "no UTF-8": (b'{"reason": "\xff\xfe"}', JSON, {400}),
    "lone surrogate": (b'{"reason": "\\udead"}', JSON, {400}),
    "huge number": (b'{"fence": 1180591620717411303424}', JSON, {400}),
    "5,000 digits": (b'{"fence": ' + b"9" * 5000 + b"}", JSON, {400}),
    "a key twice": (b'{"fence": 1, "fence": 2}', JSON, {400}),
    "an unknown field": (b'{"is_admin": true}', JSON, {400}),
    "an array": (b"[]", JSON, {400}),
    "a text": (b'"x"', JSON, {400}),
    "null": (b"null", JSON, {400}),
    "cut off": (b'{"reason": "x', JSON, {400}),
    "plain text": (b"{}", {"Content-Type": "text/plain"}, {415}),
    "no label": (b"{}", {}, {415}),
    "charset=nope": (b"{}", {"Content-Type": "application/json; charset=nope"}, {415}),
    "XML": (b"<a/>", {"Content-Type": "application/xml"}, {415}),
    "a form": (b"a=1", {"Content-Type": "application/x-www-form-urlencoded"}, {415}),
    "brotli": (b"{}", JSON | {"Content-Encoding": "br"}, {415}),
    "a gzip bomb": (gzip.compress(b"0" * 20_000_000), JSON | {"Content-Encoding": "gzip"}, {413, 415}),
    "2 MB": (b'{"reason": "' + b"x" * 2_000_000 + b'"}', JSON, {413}),
}


def writes(app: App) -> list[tuple[str, str, Operation]]:
    """Return every call that takes a body."""
    found = []
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                declared = operation_of(handler)
                if declared is not None and declared.body is not None:
                    (method,) = handler.http_methods
                    found.append((str(method), route.path_format, declared))
    return found


async def test_every_body_is_read_strictly(tenant: Tenant) -> None:
    """Whatever comes to whichever call that takes a body, the answer is a problem with code and hint."""
    task = make_task(tenant)
    slot = make_slot(tenant, task, database_now(tenant.database))
    async with api(tenant) as it:
        assert it.app is not None
        # a webhook reads nothing before it knows who signed it
        found = [one for one in writes(it.app) if not one[1].startswith("/hooks/")]
        assert len(found) > 12
        key = await it.key("admin")
        for method, path, _ in found:
            where = (
                path.replace("{execution_id}", str(slot)).replace("{project}", "default").replace("{name}", "export")
            )
            for name, (raw, headers, allowed) in BODIES.items():
                told = await it.client.request(method, where, content=raw, headers=key | headers)
                assert told.status_code in allowed, (method, path, name, told.status_code, told.text[:300])
                assert_problem(told)
                assert "9999" not in told.text
                assert len(told.text) < 3000


def assert_problem(told: Any) -> None:
    """The answer is a problem as the contract words it."""
    assert told.headers["content-type"] == "application/problem+json"
    body = told.json()
    assert {"type", "title", "status", "detail", "code", "hint"} <= set(body)
    assert body["status"] == told.status_code
    assert body["hint"]
    assert body["type"] == f"/problems/{body['code']}"


#: Addresses of nothing.
NOWHERE = (
    "/api/v1/executions/1",
    "/api/v1/executions/١",
    "/api/v1/executions/00000000000080008000000000000000",
    "/api/v1/executions/{00000000-0000-8000-8000-000000000000}",
    "/api/v1/executions/urn:uuid:00000000-0000-8000-8000-000000000000",
    "/api/v1/executions/00000000-0000-8000-8000-00000000000%30x",
    "/api/v1/executions/%252e%252e%252f",
    "/api/v1/executions/..%2f..%2fkeys",
    "/api/v1/executions/a%00b",
    "/api/v1/executions/%FF",
    "/api/v1/projects/%00",
    "/api/v1/projects/none",
    "/api/v1/projects/default%2Ftasks",
    "/api/v1/projects/default/tasks/NAME",
    "/api/v1/projects/default/tasks/a_b",
    "/api/v1/projects/default/tasks/" + "a" * 129,
    "/api/v1/projects/default/tasks/'; DROP TABLE tasks --",
    "/api/v1/projects/default/tasks/export\n",
    "/api/v1/sources/none",
    "/api/v1/sources/none/runs",
    "/api/v1/runs/00000000-0000-8000-8000-000000000000",
    "/schemas/v1/none.json",
    "/schemas/v1/..%2f..%2fpyproject.toml",
    "/schemas/v1/task",
    "/problems/none",
    "/nothing",
    "/api/v2/projects",
)


async def test_what_is_not_there_is_404(tenant: Tenant) -> None:
    """Ids and names are read strictly: anything else is not there."""
    async with api(tenant) as it:
        for path in NOWHERE:
            told = await it.client.get(path.replace("\n", "%0A"))
            assert told.status_code == 404, (path, told.text)
            assert_problem(told)


async def test_a_reader_who_is_lost_gets_a_page(tenant: Tenant) -> None:
    """A browser is answered with a page, below /api with a problem like everybody else."""
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    async with api(tenant) as it:
        page = await it.client.get("/nothing", headers=browser)
        problem = await it.client.get("/api/v1/nothing", headers=browser)
    assert (page.status_code, problem.status_code) == (404, 404)
    assert page.headers["content-type"].startswith("text/html")
    assert_problem(problem)


async def test_methods_that_an_address_does_not_take(tenant: Tenant) -> None:
    """Another method is 405 with Allow; overriding it by a header does nothing."""
    async with api(tenant) as it:
        for method in ("POST", "DELETE", "PATCH", "PUT"):
            told = await it.client.request(method, "/api/v1/executions", headers=await it.key("admin"))
            assert (told.status_code, told.headers["allow"]) == (405, "GET, HEAD, OPTIONS"), method
            assert_problem(told)
        for method in ("TRACE", "CONNECT", "BREW"):
            assert (await it.client.request(method, "/api/v1/executions")).status_code == 405
        over = await it.client.get("/api/v1/projects", headers={"X-HTTP-Method-Override": "DELETE"})
        headed = await it.client.head("/api/v1/projects")
    assert over.status_code == 200
    assert (headed.status_code, headed.content) == (200, b"")


async def test_a_foreign_host_is_refused_on_loopback(tenant: Tenant) -> None:
    """Only our own names are answered, against DNS rebinding; elsewhere only if names are set."""
    async with api(tenant, allowed_hosts=("cron.example",), base_url="https://base.example/x") as it:
        for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "[::1].evil", "127.0.0.2"):
            told = await it.client.get("/livez", headers={"Host": host})
            assert (told.status_code, told.json()["code"]) == (400, "bad_host"), host
            assert_problem(told)
        for host in ("localhost", "LOCALHOST:8475", "127.0.0.1:1", "[::1]:80", "cron.example", "base.example:443"):
            assert (await it.client.get("/livez", headers={"Host": host})).status_code == 200, host
    async with api(tenant, host="192.0.2.1") as it:
        assert (await it.client.get("/livez", headers={"Host": "any.example"})).status_code == 200
    async with api(tenant, host="192.0.2.1", allowed_hosts=("cron.example",)) as it:
        assert (await it.client.get("/livez", headers={"Host": "any.example"})).status_code == 400


async def test_headers_and_addresses_have_limits(tenant: Tenant) -> None:
    """Many or long header fields are 431, a long address 414, also through a real server."""
    async with served(tenant) as it:
        many = await it.client.get("/livez", headers={f"x-{number}": "1" for number in range(150)})
        long = await it.client.get("/livez", headers={"x-long": "x" * 20_000})
        far = await it.client.get("/livez?" + "x" * 9000)
    assert (many.status_code, long.status_code, far.status_code) == (431, 431, 414)
    for told in (many, long, far):
        assert_problem(told)


async def test_every_answer_carries_the_security_headers(tenant: Tenant) -> None:
    """Good answers and refusals alike; and no answer invites another origin."""
    async with api(tenant) as it:
        answers = [
            await it.client.get("/livez", headers={"Origin": "https://evil.example"}),
            await it.client.get("/nothing"),
            await it.client.get("/livez", headers={"Host": "evil.example"}),
            await it.client.options(
                "/api/v1/keys",
                headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
            ),
            await it.call("GET", "/projects", headers={"Origin": "null"}),
        ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "set-cookie" not in answer.headers
        assert not re.search(r"uvicorn|litestar|python", answer.headers.get("server", ""), re.IGNORECASE)


#: Filters at the edges of the calendar and of the language.
ODD = (
    "from=0001-01-01T00:00:00%2B14:00&to=9999-12-31T23:59:59-14:00",
    "from=9999-12-31T23:59:59-14:00",
    "to=0001-01-01T00:00:00%2B14:00",
    "date=0001-01-01&timezone=Asia/Tokyo",
    "date=9999-12-31&timezone=America/New_York",
    "date=2026-02-30",
    "timezone=..%2F..%2Fetc%2Fpasswd&date=2026-01-01",
    "timezone=&date=2026-01-01",
    "timezone=Europe/Berlni",
    "task=%25",
    "task=" + "a" * 301,
    "status=pending",
    "status=",
    "reason=nothing",
    "upcoming=maybe",
    "sort=secret_hash",
    "worker=%27%20OR%201=1--",
    "from=2026-01-01T00:00:00",
    "limit=1e9",
)


async def test_odd_filters_are_answered_or_refused(tenant: Tenant) -> None:
    """The edges of the calendar and of the language end in a list or in a 400."""
    async with api(tenant) as it:
        for path, query in product(("/executions", "/days"), ODD):
            told = await it.call("GET", f"{path}?{query}")
            assert told.status_code in {200, 400}, (path, query, told.text)
            if told.status_code == 400:
                assert_problem(told)


async def test_days_have_limits(tenant: Tenant) -> None:
    """400 days at most, in order, within the calendar."""
    async with api(tenant) as it:

        async def status(query: str) -> int:
            return (await it.call("GET", f"/days?{query}")).status_code

        assert await status("from=2025-01-01&to=2026-02-04") == 200
        assert await status("from=2025-01-01&to=2026-02-05") == 400
        assert await status("from=2026-01-02&to=2026-01-01") == 400
        assert await status("from=9999-12-20") == 400
        assert await status("to=0001-01-01") == 400
        assert await status("from=2011-12-29&to=2012-01-01&timezone=Pacific/Apia") == 200


async def test_a_broken_database_is_told_as_unavailable(tenant: Tenant) -> None:
    """When the database is away the API answers 503 with Retry-After, and /readyz says so; it lives on."""
    async with api(tenant) as it:
        await it.call("GET", "/projects", "read")
        database = tenant.database.api
        real = database.engine
        await real.dispose()
        from cron_observer.store.engine import Database

        broken = Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing", "cron_observer_api")
        try:
            database.engine = broken.engine
            told = await it.call("GET", "/executions", "read")
            ready = await it.client.get("/readyz")
            live = await it.client.get("/livez")
        finally:
            database.engine = real
            await broken.close()
        again = await it.call("GET", "/executions", "read")
    assert (told.status_code, told.json()["code"]) == (503, "unavailable")
    assert told.headers["retry-after"] == "1"
    assert_problem(told)
    assert ready.status_code == 503
    assert "database" in ready.json()["failing"][0]
    assert live.status_code == 200
    assert again.status_code == 200


async def test_a_bug_is_told_without_its_details(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw is a 500 problem that says nothing of the inside."""
    from cron_observer_api import projects

    async def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(projects.task_reads, "list_projects", fails)
    async with api(tenant) as it:
        told = await it.call("GET", "/projects")
    assert (told.status_code, told.json()["code"]) == (500, "internal")
    assert "secret" not in told.text
    assert_problem(told)


async def test_idempotency_keys_have_a_form(tenant: Tenant) -> None:
    """An empty, long or unprintable key is 400, on every call that takes one."""
    make_task(tenant)
    async with api(tenant) as it:
        await _refuses_keys(it)


async def _refuses_keys(it: Api) -> None:
    for path in ("/projects/default/tasks/export/trigger", "/keys", "/projects/default/tasks"):
        body: Any = {"name": "x", "scopes": ["read"]} if path == "/keys" else {}
        if path.endswith("/tasks"):
            body = {"name": "x", "schedule": {"every": "1h"}}
        for key in (b"", b"x" * 256, "é".encode(), b"a\x01b"):
            told = await it.call("POST", path, "admin", json=body, headers={"Idempotency-Key": key})
            assert told.status_code == 400, (path, key, told.text)
