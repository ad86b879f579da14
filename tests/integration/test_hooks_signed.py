"""Who may wake a source: deliveries that its forge signed with the secret of the webhook, and nobody else."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from support.databases import Tenant
from support.forges import PROVIDERS, SECRET, body, digest, payload, signed
from support.hooked import deliver, hooked, woken


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret that the settings point to."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_push_wakes_its_source(tenant: Tenant, provider: str) -> None:
    """A delivery as the forge sends and signs it answers 202 without a key, and the source is due at once."""
    async with hooked(tenant, provider) as it:
        tenant.database.do("UPDATE sources SET next_poll_at = now() + interval '1 hour'")
        answer = await deliver(it, provider, body(provider))
        waits = tenant.database.value("SELECT next_poll_at > now() FROM sources WHERE name = 'main'")
        metrics = (await it.client.get("/metrics")).text
    assert (answer.status_code, answer.json()) == (202, {"accepted": True})
    assert woken(tenant) == 1
    assert waits is False
    assert f'cron_observer_hook_deliveries_total{{provider="{provider}",result="woken"}}' in metrics


@pytest.mark.parametrize("provider", ["github", "gitea", "forgejo"])
async def test_a_push_may_come_as_a_form(tenant: Tenant, provider: str) -> None:
    """The signature covers the form as it came; its field ``payload`` is the JSON."""
    raw = urlencode({"payload": body(provider).decode()}).encode()
    headers = signed(provider, raw) | {"Content-Type": "application/x-www-form-urlencoded"}
    broken = b"payload=1&payload=2"
    async with hooked(tenant, provider) as it:
        answer = await deliver(it, provider, raw, headers)
        refused = await deliver(
            it, provider, broken, signed(provider, broken) | {"Content-Type": "application/x-www-form-urlencoded"}
        )
    assert (answer.status_code, woken(tenant)) == (202, 1)
    assert refused.status_code == 400


def _w1(provider: str, raw: bytes) -> list[dict[str, str]]:
    """Return header fields without a good signature."""
    good = signed(provider, raw)
    names = [name for name in good if "Signature" in name or "Token" in name]
    bare = {name: value for name, value in good.items() if name not in names}
    told = [
        bare,
        bare | dict.fromkeys(names, ""),
        signed(provider, raw, secret="another"),
        bare | {name: good[name].upper() for name in names},
        bare | {name: good[name] + "0" for name in names},
    ]
    if provider != "gitlab":
        told.append(bare | {"X-Hub-Signature": good["X-Hub-Signature"]})
        told.append(bare | {"X-Hub-Signature-256": good["X-Hub-Signature"]})
        told.append(bare | {"X-Hub-Signature-256": digest(raw)})
    return told


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_w1_what_is_not_signed_is_refused_unread(tenant: Tenant, provider: str) -> None:
    """No, an empty, a wrong and an upper-case signature, and SHA-1 alone: 401, before the body is parsed."""
    raw = b"this is no JSON"
    async with hooked(tenant, provider) as it:
        answers = [await deliver(it, provider, raw, headers) for headers in _w1(provider, raw)]
        good = await deliver(it, provider, raw)
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["code"] for answer in answers} == {"unauthenticated"}
    assert good.status_code == 400
    assert woken(tenant) == 0


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_w2_a_signature_beyond_ascii_is_refused(tenant: Tenant, provider: str) -> None:
    """Bytes that are no ASCII in a signature are a wrong signature, not a crash."""
    raw = body(provider)
    headers: dict[str, Any] = {
        name: b"sha256=\xc3\xa9\xff" if "Signature" in name or "Token" in name else value
        for name, value in signed(provider, raw).items()
    }
    async with hooked(tenant, provider) as it:
        answer = await deliver(it, provider, raw, headers)
    assert (answer.status_code, woken(tenant)) == (401, 0)


@pytest.mark.parametrize("provider", ["github", "gitea", "forgejo"])
async def test_w3_the_signature_is_that_of_the_bytes(tenant: Tenant, provider: str) -> None:
    """The HMAC of the same JSON written otherwise is refused."""
    raw = json.dumps(payload(provider), indent=1).encode()
    async with hooked(tenant, provider) as it:
        answer = await deliver(it, provider, raw, signed(provider, body(provider)))
        good = await deliver(it, provider, raw)
    assert (answer.status_code, good.status_code, woken(tenant)) == (401, 202, 1)


async def test_w4_the_address_says_which_forge_it_is(tenant: Tenant) -> None:
    """GitLab's token counts on GitLab's address alone, whatever else comes; another forge's address is not there."""
    raw = body("gitlab")
    both = signed("github", raw) | {name: v for name, v in signed("gitlab", raw).items() if name != "X-Gitlab-Token"}
    async with hooked(tenant, "gitlab") as it:
        answers = [
            await deliver(it, "gitlab", raw, both),
            await deliver(it, "gitlab", raw, both | {"X-Gitlab-Token": "wrong"}),
            await deliver(it, "gitlab", raw, both | {"X-Gitlab-Token": digest(raw)}),
        ]
        elsewhere = [
            await it.client.post(f"/hooks/git/{name}/main", content=raw, headers=both)
            for name in ("github", "gitea", "forgejo", "bitbucket")
        ]
    assert [answer.status_code for answer in answers] == [401] * 3
    assert [answer.status_code for answer in elsewhere] == [404] * 4
    assert woken(tenant) == 0


async def test_w4_on_forgejo_its_own_signature_decides(tenant: Tenant) -> None:
    """A wrong X-Forgejo-Signature is not saved by a good older one; without it the older ones count."""
    raw = body("forgejo")
    good = signed("forgejo", raw)
    without = {name: value for name, value in good.items() if name != "X-Forgejo-Signature"}
    gitea = {name: value for name, value in without.items() if name != "X-Hub-Signature-256"}
    async with hooked(tenant, "forgejo") as it:
        answers = [
            await deliver(it, "forgejo", raw, good | {"X-Forgejo-Signature": digest(raw, "wrong")}),
            await deliver(it, "forgejo", raw, without | {"X-Gitea-Signature": ""}),
            await deliver(it, "forgejo", raw, without),
            await deliver(it, "forgejo", raw, gitea),
        ]
    assert [answer.status_code for answer in answers] == [401, 401, 202, 202]
