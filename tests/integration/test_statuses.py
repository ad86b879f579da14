"""Commit statuses: each forge is told as it documents it, once for each change; its trouble is nobody else's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from cron_observer.reporter import CLAIM, Reporter
from cron_observer.service import run_roles
from cron_observer.settings import Settings, SourceSettings
from cron_observer.store import statuses
from cron_observer.store.engine import clock
from support.databases import Tenant
from support.forge_server import Answer, ForgeServer, forge_server
from support.forges import PROVIDERS
from support.reported import COMMIT, CONTEXT, PLACES, TOKEN, TOKENS, reported
from support.repositories import Repository, following, manifest, until


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token that the settings point to."""
    monkeypatch.setenv("FORGE_TOKEN", TOKEN)


@pytest.fixture
def server() -> Iterator[ForgeServer]:
    """A forge."""
    with forge_server() as made:
        yield made


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_each_forge_is_told_as_it_documents_it(tenant: Tenant, server: ForgeServer, provider: str) -> None:
    """Path, token, context, description and link are those of the forge; it is told once."""
    _, end, path = PLACES[provider]
    async with reported(tenant, provider, server.url + end) as it:
        await it.put(description="3 applied, 1 invalid: tasks/ops/etl.yaml:9", state="failure")
        assert await it.reporter.tick() == 1
        assert await it.reporter.tick() == 0
        assert it.row()["sent_at"] is not None
    (got,) = server.got
    name, value = TOKENS[provider]
    assert (got.method, got.path, got.headers[name]) == ("POST", path, value)
    assert got.headers["user-agent"] == "cron-observer"
    assert got.headers["content-type"] == "application/json"
    assert got.body == {
        "state": "failed" if provider == "gitlab" else "failure",
        "name" if provider == "gitlab" else "context": CONTEXT,
        "description": "3 applied, 1 invalid: tasks/ops/etl.yaml:9",
        "target_url": "https://cron.example.org/sync/main",
    }


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_every_state_has_the_forge_s_name(tenant: Tenant, server: ForgeServer, provider: str) -> None:
    """GitHub, Gitea and Forgejo know our four; GitLab runs, succeeds and fails."""
    async with reported(tenant, provider, server.url) as it:
        for state in ("pending", "success", "failure", "error"):
            await it.put(state)
            await it.reporter.tick()
    known = ["running", "success", "failed", "failed"] if provider == "gitlab" else None
    assert [state for state, _ in server.told()] == (known or ["pending", "success", "failure", "error"])


async def test_only_changes_are_sent(tenant: Tenant, server: ForgeServer) -> None:
    """The same state and words again are no news; other words are, and an unsent state gives way to a newer one."""
    async with reported(tenant, "github", server.url) as it:
        await it.put("pending", "being applied")
        await it.put("success", "3 applied")
        await it.reporter.tick()
        await it.put("success", "3 applied")
        await it.reporter.tick()
        await it.put("success", "4 applied")
        await it.put("success", "4 applied", commit="f" * 40)
        await it.reporter.tick()
    assert sorted(server.told()) == [("success", "3 applied"), ("success", "4 applied"), ("success", "4 applied")]


async def test_long_descriptions_are_cut_and_no_environment_is_the_default(tenant: Tenant, server: ForgeServer) -> None:
    """140 characters are what every forge takes; the context says `default` without an environment."""
    async with reported(tenant, "github", server.url, environment=None) as it:
        await it.put(description="é" * 200)
        await it.reporter.tick()
    (got,) = server.got
    assert got.body["description"] == "é" * 139 + "…"
    assert got.body["context"] == "cron-observer/default/main"


FAILURES: dict[str, tuple[Answer, str]] = {
    "401": ((401, {}, '{"message": "Bad credentials"}'), "HTTP 401: Bad credentials"),
    "403": ((403, {"Retry-After": "120"}, '{"message": "secondary rate limit"}'), "HTTP 403: secondary rate limit"),
    "404": ((404, {}, '{"message": "Not Found"}'), "HTTP 404: Not Found"),
    "429": ((429, {"Retry-After": "77"}, ""), "HTTP 429"),
    "500": ((500, {}, "<html><body>oops</body></html>"), "HTTP 500"),
    "503": ((503, {"Retry-After": "99999999"}, "maintenance\r\nuntil noon"), "HTTP 503: maintenance until noon"),
    "echo": ((401, {}, f'{{"message": "unknown token {TOKEN}"}}'), "HTTP 401: unknown token ***"),
    "redirect": ((302, {"Location": "/elsewhere"}, ""), "HTTP 302"),
    "long": ((500, {}, "x" * 100_000), "HTTP 500: " + "x" * 200),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_trouble_is_told_and_tried_again(tenant: Tenant, server: ForgeServer, name: str) -> None:
    """The row says what the forge said, without the token; it waits as long as asked, and the next try counts."""
    answer, error = FAILURES[name]
    good = server.answer
    server.answer = lambda _got: answer
    with structlog.testing.capture_logs() as logs:
        async with reported(tenant, "github", server.url) as it:
            await it.put()
            assert await it.reporter.tick() == 0
            row, waited = it.row(), it.waits()
            assert await it.reporter.tick() == 0
            server.answer = good
            it.due()
            assert await it.reporter.tick() == 1
            after = it.row()
    assert row["error"].startswith(error)
    assert (row["sent_at"], row["gave_up_at"], row["attempts"]) == (None, None, 1)
    low, high = {"403": (110, 121), "429": (70, 78), "503": (3500, 3601)}.get(name, (0, 6))
    assert low <= waited <= high
    assert (after["error"], after["attempts"]) == (None, 2)
    assert after["sent_at"] is not None
    assert len(server.got) == 2
    assert [one["event"] for one in logs] == ["status_not_sent"]
    assert TOKEN not in str(logs) + row["error"]


async def test_an_outage_is_tried_again(tenant: Tenant, server: ForgeServer) -> None:
    """A forge that cannot be reached, and one that answers with noise, are tried again."""
    with forge_server() as gone:
        nowhere = gone.url
    noise = await asyncio.start_server(lambda _r, writer: writer.close(), "127.0.0.1", 0)
    async with noise:
        port = noise.sockets[0].getsockname()[1]
        for number, url in enumerate((nowhere, f"http://127.0.0.1:{port}")):
            async with reported(tenant, "gitea", url) as it:
                await it.put(description=str(number))
                it.due()
                assert await it.reporter.tick() == 0
                row = it.row()
                assert row["error"].startswith("the forge cannot be reached")
                assert row["gave_up_at"] is None
                tenant.database.do("UPDATE sources SET lease_until = NULL, next_poll_at = now()")


async def test_waits_grow_and_end_after_a_day(tenant: Tenant, server: ForgeServer) -> None:
    """Each failure doubles the wait, to a quarter of an hour; a day after it was put down a state is given up."""
    server.answer = lambda _got: (500, {}, "")
    async with reported(tenant, "github", server.url) as it:
        await it.put()
        waits = []
        for _ in range(12):
            it.due()
            began = time.monotonic()
            await it.reporter.tick()
            waits.append((it.waits(), time.monotonic() - began))
        for seconds, tries in ((5, 0), (10, 1), (20, 2), (900, 11)):
            left, took = waits[tries]
            assert seconds * 0.4 - took <= left <= seconds
        tenant.database.do("UPDATE commit_statuses SET created_at = now() - interval '24 hours'")
        it.due()
        with structlog.testing.capture_logs() as logs:
            await it.reporter.tick()
        given_up = it.row()
        it.due()
        await it.reporter.tick()
    assert given_up["gave_up_at"] is not None
    assert [one["event"] for one in logs] == ["status_given_up"]
    assert len(server.got) == 13


@pytest.mark.parametrize("status", [400, 422])
async def test_what_the_forge_refuses_for_good_is_given_up(tenant: Tenant, server: ForgeServer, status: int) -> None:
    """Too many states of one commit, or a commit that is not there: no second try, until there is something new."""
    good = server.answer
    server.answer = lambda _got: (status, {}, '{"message": "No commit found for SHA"}')
    async with reported(tenant, "github", server.url) as it:
        await it.put()
        await it.reporter.tick()
        assert it.row()["gave_up_at"] is not None
        it.due()
        assert await it.reporter.tick() == 0
        server.answer = good
        await it.put()
        assert await it.reporter.tick() == 1
        assert (it.row()["gave_up_at"], it.row()["error"]) == (None, None)
    assert len(server.got) == 2


async def test_gitlab_s_refusal_of_the_same_state_is_no_failure(tenant: Tenant, server: ForgeServer) -> None:
    """GitLab answers 400 to a state that the commit has already: it is known, and that was the aim."""
    words = '{"message": "Cannot transition status via :run from :running"}'
    server.answer = lambda _got: (400, {}, words)
    async with reported(tenant, "gitlab", server.url) as it:
        await it.put("pending")
        assert await it.reporter.tick() == 1
        assert it.row()["sent_at"] is not None


async def test_a_token_or_place_that_is_not_there(
    tenant: Tenant, server: ForgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that cannot be read is tried again; an address that names no repository is not, and says what to do."""
    async with reported(tenant, "github", server.url) as it:
        monkeypatch.delenv("FORGE_TOKEN")
        await it.put()
        await it.reporter.tick()
        assert "env:FORGE_TOKEN" in it.row()["error"]
        monkeypatch.setenv("FORGE_TOKEN", TOKEN)
        it.due()
        assert await it.reporter.tick() == 1
    tenant.database.do("DELETE FROM commit_statuses")
    tenant.database.do("UPDATE sources SET lease_until = NULL, next_poll_at = now()")
    async with reported(tenant, "github", server.url, url="/srv/tasks.git") as it:
        await it.put()
        await it.reporter.tick()
        assert "set url to that" in it.row()["error"]
        assert it.row()["gave_up_at"] is not None


async def test_a_newer_state_is_told_after_the_one_on_its_way(tenant: Tenant, server: ForgeServer) -> None:
    """What is put down while an older state is being sent is not lost, not marked, and sent next."""
    arrived, release = threading.Event(), threading.Event()

    def slow(_got: Any) -> Answer:
        arrived.set()
        release.wait(60)
        return (201, {}, "{}")

    server.answer = slow
    async with reported(tenant, "github", server.url) as it:
        await it.put("pending", "being applied")
        sending = asyncio.create_task(it.reporter.tick())
        await asyncio.to_thread(arrived.wait, 60)
        await it.put("success", "3 applied")
        another = Reporter(tenant.database.reconciler, it.settings)
        assert await another.tick() == 0
        await another.close()
        release.set()
        assert await sending == 1
        assert it.row()["sent_at"] is None
        assert await it.reporter.tick() == 1
        assert it.row()["sent_at"] is not None
    assert server.told() == [("pending", "being applied"), ("success", "3 applied")]


async def test_two_reporters_send_each_state_once(tenant: Tenant, server: ForgeServer) -> None:
    """Whoever claims a state sends it; what a killed one had claimed is another's after a minute."""
    async with reported(tenant, "github", server.url) as it:
        others = [Reporter(tenant.database.reconciler, it.settings) for _ in range(2)]
        for number in range(8):
            await it.put(commit=f"{number:040d}")
        counts = await asyncio.gather(it.reporter.tick(), *(one.tick() for one in others))
        assert sum(counts) == 8
        assert len({got.path for got in server.got}) == len(server.got) == 8
        await it.put(commit="a" * 40)
        async with tenant.database.reconciler.transaction([tenant.tenant_id]) as conn:
            now = await clock(conn)
            taken = await statuses.claim(
                conn, tenant.tenant_id, [it.held.source_id], now=now, until=now + CLAIM, limit=10
            )
        assert len(taken) == 1
        assert await it.reporter.tick() == 0
        tenant.database.do("UPDATE commit_statuses SET due_at = due_at - interval '60 seconds' WHERE sent_at IS NULL")
        assert await it.reporter.tick() == 1
        for one in others:
            await one.close()


async def test_old_states_are_forgotten(tenant: Tenant, server: ForgeServer) -> None:
    """States are remembered for 90 days, so that the table ends somewhere."""
    async with reported(tenant, "github", server.url) as it:
        await it.put(commit="a" * 40)
        tenant.database.do("UPDATE commit_statuses SET created_at = now() - interval '91 days', sent_at = now()")
        await it.put()
        await it.reporter.tick()
        assert it.row()["commit"] == COMMIT


async def test_a_forge_that_hangs_holds_up_no_pass(tenant: Tenant, server: ForgeServer, tmp_path: Path) -> None:
    """While a request hangs, a push is applied; the request is given up in time and tried again."""
    release = threading.Event()
    arrived = threading.Event()

    def hang(_got: Any) -> Answer:
        arrived.set()
        release.wait(60)
        return (201, {}, "{}")

    server.answer = hang
    repository = Repository.make(tmp_path)
    repository.push({"export.yaml": manifest("export")})
    async with following(tenant, repository.bare, tmp_path / "data") as following_:
        await following_.sync()
        async with reported(tenant, "github", server.url, patience=0.5) as it:
            await it.put()
            sending = asyncio.create_task(it.reporter.tick())
            await asyncio.to_thread(arrived.wait, 60)
            tenant.database.do("UPDATE sources SET lease_until = NULL")
            repository.push({"second.yaml": manifest("second")})
            assert await following_.sync() == "applied"
            assert following_.names() == ["export", "second"]
            assert await sending == 0
            release.set()
            assert it.row()["error"] == "no answer within 0.5 s"


async def test_the_reconciler_s_role_reports_what_it_applied(
    tenant: Tenant, server: ForgeServer, tmp_path: Path
) -> None:
    """Push, applied, put down: the role's own loop looks after the state of the commit, and ends with the role."""
    repository = Repository.make(tmp_path)
    commit = repository.push({"export.yaml": manifest("export"), "broken.yaml": "kind: [\n"})
    one = SourceSettings(
        name="main",
        url=str(repository.bare),
        provider="gitea",
        status_ref="env:FORGE_TOKEN",
        forge_url=server.url,
        poll_seconds=3600,
    )
    settings = Settings(sources=(one,), data_dir=tmp_path / "data", database_url=tenant.database.url)
    stop = asyncio.Event()
    running = asyncio.create_task(run_roles(settings, {"reconciler"}, stop=stop, signals=False))
    try:
        rows = "SELECT * FROM commit_statuses WHERE commit = %s AND state = 'failure' AND gave_up_at IS NOT NULL"
        (row,) = await until(lambda: tenant.database.rows(rows, commit), "the state was put down and looked at")
    finally:
        stop.set()
        await running
    assert "broken.yaml:" in row["description"]
    assert row["context"] == "cron-observer/default/main"
    assert not server.got
