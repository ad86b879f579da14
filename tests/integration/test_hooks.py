"""Webhooks of forges: what they may do, which is to wake their source, and what changes nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from cron_observer.settings import SourceSettings
from cron_observer_api import hooks as module
from support.api import api
from support.databases import Tenant, make_tenant
from support.forges import ADDRESSES, AFTER, DELIVERY, PROVIDERS, SECRET, body, payload, signed
from support.hooked import add_source, deliver, hooked, woken
from support.repositories import Repository, following, manifest

OTHER = "the-secret-before"


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret that the settings point to."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_w5_a_repeat_wakes_nobody(tenant: Tenant, provider: str) -> None:
    """The same delivery again answers the same and does nothing, for as long as it is remembered."""
    raw = body(provider)
    async with hooked(tenant, provider) as it:
        answers = [await deliver(it, provider, raw) for _ in range(3)]
        assert woken(tenant) == 1
        another = await deliver(it, provider, raw, signed(provider, raw, delivery=str(uuid4())))
        assert woken(tenant) == 2
        assert tenant.database.do("DELETE FROM hook_deliveries") == 2
        await deliver(it, provider, raw)
    assert {answer.content for answer in (*answers, another)} == {b'{"accepted":true}'}
    assert tenant.database.value("SELECT delivery FROM hook_deliveries") == DELIVERY
    assert woken(tenant) == 3


@pytest.mark.parametrize("delivery", ["", "x" * 201, "two words"])
async def test_w5_a_strange_delivery_id_is_not_remembered(tenant: Tenant, delivery: str) -> None:
    """What cannot be an id leaves no row; the push counts."""
    raw = body("github")
    async with hooked(tenant) as it:
        answer = await deliver(it, "github", raw, signed("github", raw, delivery=delivery))
    assert (answer.status_code, woken(tenant)) == (202, 1)
    assert tenant.database.value("SELECT count(*) FROM hook_deliveries") == 0


async def test_w6_too_much_is_refused_before_it_is_read(tenant: Tenant) -> None:
    """Beyond 1 MiB it is 413, signed or not, announced or not; 1 MiB itself is read."""
    size = module.LIMIT
    padded = body("github")[:-1] + b', "padding": "'
    padded += b"x" * (size - len(padded) - 2) + b'"}'

    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 65_536

    async with hooked(tenant) as it:
        whole = await deliver(it, "github", padded)
        over = await deliver(it, "github", padded + b" ")
        unsigned = await deliver(it, "github", b"x" * 26_000_000, {"Content-Type": "application/json"})
        lying = {"Content-Type": "application/json", "Content-Length": str(26_000_000)}
        announced = await it.client.post("/hooks/git/github/main", content=b"{}", headers=lying)
        streamed = await it.client.post(
            "/hooks/git/github/main", content=chunks(17), headers={"Content-Type": "application/json"}
        )
        small = await deliver(it, "github", b"x" * 1_000_000, {"Content-Type": "application/json"})
    assert len(padded) == size
    assert (whole.status_code, small.status_code) == (202, 401)
    assert {one.status_code for one in (over, unsigned, announced, streamed)} == {413}
    assert woken(tenant) == 1


async def test_w6_a_slow_body_is_given_up(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come within the deadline is answered 400, while other deliveries are taken."""
    usual = module.DEADLINE
    monkeypatch.setattr(module, "DEADLINE", 0.5)
    async with hooked(tenant, serve=True) as it:
        reader, writer = await asyncio.open_connection(it.client.base_url.host, it.client.base_url.port)
        head = "POST /hooks/git/github/main HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        await writer.drain()
        began = time.monotonic()
        meanwhile = await deliver(it, "github", body("github"))
        line = await asyncio.wait_for(reader.readline(), 60)
        waited = time.monotonic() - began
        writer.close()
    assert meanwhile.status_code == 202
    assert line.startswith(b"HTTP/1.1 400")
    assert waited < usual


BROKEN: dict[str, bytes] = {
    "no JSON": b"{",
    "a list": b"[]",
    "null": b"null",
    "a number": b"1",
    "no ref": json.dumps({k: v for k, v in payload("github").items() if k != "ref"}).encode(),
    "no repository": json.dumps({k: v for k, v in payload("github").items() if k != "repository"}).encode(),
    "ref is a number": json.dumps(payload("github") | {"ref": 1}).encode(),
    "after is null": json.dumps(payload("github") | {"after": None}).encode(),
    "repository is a text": json.dumps(payload("github") | {"repository": "acme/tasks"}).encode(),
    "full_name is a list": json.dumps(payload("github") | {"repository": {"full_name": []}}).encode(),
    "commits is an object": json.dumps(payload("github") | {"commits": {}}).encode(),
    "deep": json.dumps(payload("github"))[:-1].encode() + b', "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "no UTF-8": body("github")[:-1] + b', "x": "\xff"}',
    "ref twice": body("github")[:-1] + b', "ref": "refs/heads/main"}',
    "NaN": body("github")[:-1] + b', "x": NaN}',
    "empty": b"",
}


async def test_w7_a_payload_that_does_not_fit_is_refused(tenant: Tenant) -> None:
    """Signed well and malformed: 400, nobody is woken, and the next delivery is taken."""
    async with hooked(tenant) as it:
        for name, raw in BROKEN.items():
            answer = await deliver(it, "github", raw)
            assert (answer.status_code, woken(tenant)) == (400, 0), (name, answer.text)
        for name, raw in BROKEN.items():
            await deliver(it, "github", raw)
            after = await deliver(it, "github", body("github"))
            assert (after.status_code, woken(tenant)) == (202, 1), name


@pytest.mark.parametrize("changes", [{"project": None}, {"project": {}}, {"commits": {}}, {"ref": []}])
async def test_w7_gitlab_s_payload_is_read_as_strictly(tenant: Tenant, changes: dict[str, Any]) -> None:
    """GitLab's own members are needed in their own types."""
    async with hooked(tenant, "gitlab") as it:
        answer = await deliver(it, "gitlab", json.dumps(payload("gitlab") | changes).encode())
    assert (answer.status_code, woken(tenant)) == (400, 0)


def _named(provider: str, name: str) -> bytes:
    told = payload(provider)
    if provider == "gitlab":
        told["project"]["path_with_namespace"] = name
    else:
        told["repository"]["full_name"] = name
    return json.dumps(told).encode()


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_w8_other_repositories_change_nothing(tenant: Tenant, provider: str) -> None:
    """Unknown, renamed, another tenant's: the same 202, no pass, and nothing of the payload is fetched."""
    stranger = make_tenant(tenant.database, "other")
    await add_source(stranger, "main", "https://github.com/other/tasks.git")
    reached: list[bytes] = []

    async def trap(reader: Any, writer: Any) -> None:
        reached.append(await reader.read(1_000))
        writer.close()

    server = await asyncio.start_server(trap, "127.0.0.1", 0)
    where = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/acme/tasks.git"
    elsewhere = payload(provider)
    told = elsewhere["project" if provider == "gitlab" else "repository"]
    told |= {"clone_url": where, "git_http_url": where, "html_url": where, "web_url": where, "url": where}
    told["full_name" if provider != "gitlab" else "path_with_namespace"] = "evil/tasks"
    names = ("other/tasks", "acme/renamed", "tasks", "acme/tasks2", "x-acme/tasks", "")
    async with server, hooked(tenant, provider) as it:
        answers = [await deliver(it, provider, _named(provider, name)) for name in names]
        answers.append(await deliver(it, provider, json.dumps(elsewhere).encode()))
        assert tenant.database.value("SELECT sum(requested_seq) FROM sources") == 0
        good = await deliver(it, provider, body(provider))
    assert {(one.status_code, one.content) for one in answers} == {(202, good.content)}
    # a port may have been somebody else's a moment ago, who still calls
    assert not [request for request in reached if b"acme/tasks" in request]
    asked = "SELECT sum(requested_seq) FROM sources WHERE tenant_id = %s"
    assert tenant.database.value(asked, tenant.tenant_id) == 1
    assert tenant.database.value(asked, stranger.tenant_id) == 0


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_w9_other_refs_and_events_change_nothing(tenant: Tenant, provider: str) -> None:
    """Another branch, a tag, a deletion, a ping and unknown events: the same 202 and no pass."""
    ping = json.dumps({"zen": "Keep it logically awesome.", "hook_id": 30}).encode()
    async with hooked(tenant, provider) as it:
        answers = [
            await deliver(it, provider, body(provider, ref="refs/heads/other")),
            await deliver(it, provider, body(provider, ref="refs/heads/mainline")),
            await deliver(it, provider, body(provider, ref="refs/tags/main")),
            await deliver(it, provider, body(provider, after="0" * 40)),
            await deliver(it, provider, body(provider, after="0" * 64)),
            await deliver(it, provider, ping, signed(provider, ping, event="ping")),
            await deliver(it, provider, ping, signed(provider, ping, event="Merge Request Hook")),
            await deliver(it, provider, ping, signed(provider, ping, event="")),
            await deliver(it, provider, b"", signed(provider, b"", event="issues")),
        ]
        assert woken(tenant) == 0
        good = await deliver(it, provider, body(provider))
    assert {(one.status_code, one.content) for one in answers} == {(202, good.content)}


@pytest.mark.parametrize(
    ("ref", "moved", "wakes"),
    [
        (None, "refs/heads/anything", 1),
        (None, "refs/tags/v1", 0),
        ("main", "refs/heads/main", 1),
        ("v1", "refs/tags/v1", 1),
        ("refs/tags/v1", "refs/tags/v1", 1),
        ("refs/heads/feature/x", "refs/heads/feature/x", 1),
    ],
)
async def test_the_followed_ref_counts(tenant: Tenant, ref: str | None, moved: str, wakes: int) -> None:
    """Short and full names mean the same; before the first look any branch may be the repository's own."""
    async with hooked(tenant, ref=ref) as it:
        answer = await deliver(it, "github", body("github", ref=moved))
    assert (answer.status_code, woken(tenant)) == (202, wakes)


async def test_a_mirror_on_this_machine_goes_by_the_signature(tenant: Tenant, tmp_path: Path) -> None:
    """A path says nothing about owner and name on the forge: what is signed well wakes it."""
    async with hooked(tenant, url=str(tmp_path / "tasks.git")) as it:
        answer = await deliver(it, "github", body("github"))
    assert (answer.status_code, woken(tenant)) == (202, 1)


async def test_w10_many_deliveries_make_one_pass(tenant: Tenant, tmp_path: Path) -> None:
    """However many pushes are told of, one pass follows, and one more for those that come during it."""
    repository = Repository.make(tmp_path)
    repository.push({"export.yaml": manifest("export")})
    async with following(tenant, repository.bare, tmp_path / "data") as it:
        await it.sync()
        one = SourceSettings(name="main", url=str(repository.bare), provider="github", secret_ref=("env:HOOK_SECRET",))
        raw = body("github")
        async with api(tenant, sources=(one,)) as server:
            repository.push({"second.yaml": manifest("second")})
            for number in range(30):
                answer = await deliver(server, "github", raw, signed("github", raw, delivery=str(number)))
                assert answer.status_code == 202
            assert await it.reconciler.tick() == {"main": "applied"}
            assert it.names() == ["export", "second"]
            assert await it.reconciler.tick() == {}
            assert len(it.runs()) == 2


async def test_w10_a_thousand_a_minute_and_no_more(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bucket of a source deliveries are told 429 with Retry-After; other sources are taken."""
    assert (module.BURST, round(module.RATE * 60)) == (1000, 1000)
    monkeypatch.setattr(module, "BURST", 20)
    monkeypatch.setattr(module, "RATE", 0.01)
    await add_source(tenant, "second", ADDRESSES["github"])
    raw = body("github")
    async with hooked(tenant) as it:
        assert it.app is not None
        second = SourceSettings(
            name="second", url=ADDRESSES["github"], provider="github", secret_ref=("env:HOOK_SECRET",)
        )
        settings = it.app.state.settings
        object.__setattr__(settings, "sources", (*settings.sources, second))
        answers = [await deliver(it, "github", raw, signed("github", raw, delivery=str(n))) for n in range(25)]
        unsigned = await deliver(it, "github", raw, {"Content-Type": "application/json"})
        elsewhere = await deliver(it, "github", raw, source="second")
    statuses = [answer.status_code for answer in answers]
    assert statuses[:20] == [202] * 20
    assert statuses[20:] == [429] * 5
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].json()["code"] == "rate_limited"
    assert (unsigned.status_code, elsewhere.status_code) == (401, 202)
    assert woken(tenant) == 20


async def test_w11_without_a_secret_there_is_no_webhook(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret_ref and unknown sources: 404, signed or not. A secret that cannot be read or is empty: 503."""
    raw = body("github")
    async with hooked(tenant) as it:
        answers = [
            await deliver(it, "github", raw, source="plain"),
            await deliver(it, "github", raw, source="unknown"),
            await deliver(it, "github", raw, signed("github", raw, secret=""), source="plain"),
            await deliver(it, "github", raw, {"Content-Type": "application/json"}, source="plain"),
        ]
        for value in ("", "   ", None):
            monkeypatch.delenv("HOOK_SECRET")
            if value is not None:
                monkeypatch.setenv("HOOK_SECRET", value)
            unreadable = await deliver(it, "github", raw, signed("github", raw, secret=""))
            assert unreadable.status_code == 503
            monkeypatch.setenv("HOOK_SECRET", SECRET)
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert woken(tenant) == 0


async def test_w12_two_secrets_count_while_one_replaces_the_other(tenant: Tenant, tmp_path: Path) -> None:
    """Both are taken while both are named, wherever they are; one of them being gone does not stop the other."""
    raw = body("github")
    file = tmp_path / "secret"
    file.write_text(f"{OTHER}\n")
    async with hooked(tenant, secret_ref=("env:HOOK_SECRET", f"file:{file}")) as it:
        for number, (secret, status) in enumerate([(SECRET, 202), (OTHER, 202), ("third", 401)]):
            headers = signed("github", raw, secret=secret, delivery=str(number))
            assert (await deliver(it, "github", raw, headers)).status_code == status
        file.unlink()
        headers = signed("github", raw, secret=OTHER, delivery="later")
        assert (await deliver(it, "github", raw, headers)).status_code == 401
        assert (await deliver(it, "github", raw, signed("github", raw, delivery="last"))).status_code == 202
    assert woken(tenant) == 3


async def test_w13_forged_addresses_help_nobody(tenant: Tenant) -> None:
    """X-Forwarded-For and Host neither replace a signature nor reach past the check of the Host."""
    raw = body("github")
    forged = {"Content-Type": "application/json", "X-Forwarded-For": "192.30.252.1", "X-Real-IP": "192.30.252.1"}
    async with hooked(tenant) as it:
        unsigned = await deliver(it, "github", raw, forged)
        foreign = await deliver(it, "github", raw, signed("github", raw) | {"Host": "github.com"})
        forwarded = await deliver(it, "github", raw, signed("github", raw) | {"X-Forwarded-Host": "github.com"})
    assert [unsigned.status_code, foreign.status_code, forwarded.status_code] == [401, 400, 202]


async def test_no_key_is_needed_when_the_server_is_bound_to_the_network(tenant: Tenant) -> None:
    """Where every reading call needs a credential, a webhook needs its signature alone."""
    async with hooked(tenant, host="0.0.0.0") as it:  # noqa: S104  nothing listens
        reading = await it.client.get("/api/v1/sources")
        answer = await deliver(it, "github", body("github"))
        unsigned = await deliver(it, "github", body("github"), {"Content-Type": "application/json"})
    assert [reading.status_code, answer.status_code, unsigned.status_code] == [401, 202, 401]


async def test_other_forms_and_methods_are_refused(tenant: Tenant) -> None:
    """XML, compressed bodies and other methods are not taken."""
    raw = body("github")
    async with hooked(tenant) as it:
        xml = await deliver(it, "github", raw, signed("github", raw) | {"Content-Type": "application/xml"})
        packed = await deliver(it, "github", raw, signed("github", raw) | {"Content-Encoding": "gzip"})
        got = await it.client.get("/hooks/git/github/main")
    assert [xml.status_code, packed.status_code, got.status_code] == [415, 415, 405]
    assert woken(tenant) == 0
    assert AFTER not in xml.text
