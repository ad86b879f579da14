"""Who may call what: keys, scopes, loopback, revocation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from litestar.routes import HTTPRoute

from cron_observer_api import auth
from cron_observer_api.app import App
from cron_observer_api.operation import Operation, operation_of
from support.api import api, make_key
from support.databases import Tenant

NOBODY = "00000000-0000-8000-8000-000000000000"

#: What is opened by an address that nobody can guess, or by a key of the project in it, in place of a key of the API.
PINGS = {
    *("/ping/{address}", "/ping/{address}/{action}", "/ping/{key}/{task}/{action}"),
    *("/api/{number}/cron/{task}/{key}", "/api/{number}/envelope"),
}

#: What asks for a signature, or for such an address, in place of a key.
SIGNED = {"/hooks/git/{provider}/{source}"} | PINGS

#: What anybody may ask for, wherever the server listens.
PUBLIC = {"/livez", "/readyz", "/schemas/v1/{file}"} | SIGNED

#: Every interface of the machine.
EVERYWHERE = "0.0.0.0"  # noqa: S104  nothing listens in these tests

SCOPES = ("read", "report", "trigger", "tasks:write", "admin")


def calls(app: App) -> Iterator[tuple[str, str, Operation]]:
    """Yield method, path and declaration of every call that the API describes."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                declared = operation_of(handler)
                if declared is not None:
                    for method in handler.http_methods:
                        yield str(method), route.path_format, declared


def target(path: str) -> str:
    """Return a path with ids that exist nowhere."""
    path = re.sub(r"\{(execution_id|run_id)(:str)?\}", NOBODY, path)
    path = re.sub(r"\{key_id(:str)?\}", "abcdefgh", path)
    return re.sub(r"\{[a-z_]+(:str)?\}", "nothing", path)


async def test_every_call_asks_for_its_scope_and_every_write_for_a_key(tenant: Tenant) -> None:
    """On loopback reading needs no key; a write without one is 401, with another scope 403, with its own neither."""
    async with api(tenant) as it:
        assert it.app is not None
        found = list(calls(it.app))
        assert len(found) > 30
        for method, path, declared in found:
            if path.endswith("/stream"):
                continue
            where = target(path)

            async def status(scope: str | None, method: str = method, where: str = where) -> int:
                headers = await it.key(scope) if scope else {}
                return (await it.client.request(method, where, headers=headers)).status_code

            without = await status(None)
            assert (without == 401) == declared.write, (method, path, without)
            assert method == "GET" or declared.write or path in SIGNED, (method, path)
            for scope in SCOPES if declared.scopes else ():
                allowed = scope in declared.scopes or scope == "admin"
                assert ((await status(scope)) == 403) != allowed, (method, path, scope)


async def test_elsewhere_than_on_loopback_everything_needs_a_key(tenant: Tenant) -> None:
    """Bound to another address, only health, schemas, signed webhooks and pings are answered without a key."""
    async with api(tenant, host=EVERYWHERE) as it:
        assert it.app is not None
        for method, path, _ in list(calls(it.app)):
            answer = await it.client.request(method, target(path))
            assert (answer.status_code == 401) == (path not in PUBLIC), (method, path, answer.status_code)
        for page in ("/", "/tasks", "/sync"):
            assert (await it.client.get(page)).status_code == 401
        assert (await it.call("GET", "/projects", "read")).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {"Authorization": "Bearer co_abcdefgh_" + "a" * 43},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YTpi"},
        {"Authorization": ""},
        {"X-API-Key": "co_abcdefgh_" + "é" * 20},
        {"X-API-Key": "co_abcdefgh_" + "a" * 43, "Authorization": "Bearer co_abcdefgh_" + "a" * 43},
    ],
)
async def test_a_credential_that_is_no_key_is_refused_even_where_none_is_needed(
    tenant: Tenant, header: dict[str, str]
) -> None:
    """A wrong key, another scheme or two credentials answer 401 with a challenge, never the anonymous view."""
    async with api(tenant) as it:
        answer = await it.client.get(
            "/api/v1/projects", headers={name: value.encode() for name, value in header.items()}
        )
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "aaaa" not in answer.text


async def test_both_headers_carry_a_key(tenant: Tenant) -> None:
    """Authorization: Bearer and X-API-Key are equal."""
    token = await make_key(tenant, "read")
    async with api(tenant, host=EVERYWHERE) as it:
        for header in ({"Authorization": f"bearer {token}"}, {"X-API-Key": token}):
            assert (await it.client.get("/api/v1/projects", headers=header)).status_code == 200


async def test_a_key_is_made_shown_once_and_revoked(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """POST keys shows the key, lists never do, a revoked one is refused at once, and elsewhere within 5 s."""
    assert auth.TRUSTED_FOR < 5
    async with api(tenant) as it, api(tenant) as other:
        made = await it.call("POST", "/keys", "admin", json={"name": "ci", "scopes": ["report", "read"]})
        body = made.json()
        header = {"X-API-Key": body["key"]}
        listed = await it.call("GET", "/keys", "admin")
        works = [(await app.client.get("/api/v1/sdk/executions/pending", headers=header)) for app in (it, other)]
        revoked = await it.call("DELETE", f"/keys/{body['id']}", "admin")
        missing = await it.call("DELETE", "/keys/zzzzzzzz", "admin")
        refused = await it.client.get("/api/v1/projects", headers=header)
        trusted = await other.client.get("/api/v1/projects", headers=header)
        monkeypatch.setattr(auth.time, "monotonic", later(auth.TRUSTED_FOR))
        forgotten = await other.client.get("/api/v1/projects", headers=header)
        shown = (await it.call("GET", "/keys", "admin")).json()["items"]

    assert made.status_code == 201
    assert re.fullmatch(r"co_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", body["key"])
    assert body["key"].split("_")[1] == body["id"]
    assert body["scopes"] == ["read", "report"]
    assert body["key"] not in listed.text
    assert [answer.status_code for answer in works] == [200, 200]
    assert (revoked.status_code, revoked.content, missing.status_code) == (204, b"", 404)
    assert (refused.status_code, trusted.status_code, forgotten.status_code) == (401, 200, 401)
    assert next(key for key in shown if key["id"] == body["id"])["revoked_at"] is not None
    hashes = [row["secret_hash"] for row in tenant.database.rows("SELECT secret_hash FROM api_keys")]
    assert all(len(bytes(one)) == 32 for one in hashes)
    assert tenant.database.value("SELECT count(*) FROM audit_log WHERE action LIKE 'key.%%'") == 2


def later(seconds: float) -> Any:
    """Return a clock that is ahead."""
    real = auth.time.monotonic
    return lambda: real() + seconds


async def test_the_use_of_keys_is_noted_now_and_then(tenant: Tenant) -> None:
    """last_used_at is written when the process ends, not with each request."""
    async with api(tenant) as it:
        await it.call("GET", "/projects", "read")
        assert tenant.database.value("SELECT last_used_at FROM api_keys") is None
    assert tenant.database.value("SELECT last_used_at FROM api_keys") is not None


async def test_scopes_of_a_new_key_are_checked(tenant: Tenant) -> None:
    """Unknown and missing scopes are refused, and so is an empty name."""
    async with api(tenant) as it:
        for body in (
            {"name": "a", "scopes": []},
            {"name": "a", "scopes": ["root"]},
            {"name": "", "scopes": ["read"]},
            {"name": "a"},
            {"name": "a", "scopes": ["read"], "is_admin": True},
        ):
            assert (await it.call("POST", "/keys", "admin", json=body)).status_code == 400, body


async def test_too_many_requests_are_told_when_to_come_back(tenant: Tenant) -> None:
    """Past its bucket a key gets 429 with Retry-After; another key is not touched by it."""
    from cron_observer_api.limits import Limiter

    async with api(tenant) as it:
        assert it.app is not None
        it.app.state.limiter = Limiter(rate=0.1, burst=3)
        answers = [await it.call("GET", "/projects", "read") for _ in range(4)]
        other = await it.call("GET", "/projects", "report")
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert answers[3].json()["code"] == "rate_limited"
    assert 1 <= int(answers[3].headers["retry-after"]) <= 10
    assert other.status_code == 403
