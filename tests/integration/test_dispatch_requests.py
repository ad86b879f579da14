"""Webhook executions end as their destinations answer, and say who they are."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from cron_observer.lifecycle import Completion
from cron_observer.run_token import is_genuine, read_token
from cron_observer.store.executions import Complete, Heartbeat, process
from support.databases import FreshDatabase, Tenant, make_tenant
from support.receivers import Received, dispatching, due, ended, event, receiver, reply, row, signature, until
from support.rows import database_now, events

OLD, NEW = (f"whsec_{base64.b64encode(bytes([number]) * 32).decode()}" for number in (1, 2))


async def answered(database: FreshDatabase, tenant: Tenant, answer: bytes, **changes: Any) -> dict[str, Any]:
    """Send one execution to a receiver that answers so; return the row once it does not run any more."""
    async with receiver(answer) as there:
        identity = due(tenant, there.url, **changes)
        async with dispatching(database):
            await until(lambda: there.received and row(database, identity)["status"] != "RUNNING")
    return row(database, identity)


async def test_a_request_says_who_it_is(database: FreshDatabase, tenant: Tenant, tmp_path: Any) -> None:
    """Id, attempt, fence, deadline, task and trace stand in headers of ours; the signatures are by both secrets."""
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "signing").write_text(f"{NEW}\n{OLD}\n")
    (tmp_path / "token").write_text("s3cr3t-canary")
    http = {"signing": {"secretRef": "signing"}, "auth": {"secretRef": "token"}, "headers": {"X-Team": "billing"}}
    async with receiver(reply(200, b'{"rows": 3}', Content_Type="application/json")) as there:
        identity = due(tenant, there.url, http=http, payload={"format": "csv"})
        async with dispatching(database, secrets_dir=tmp_path):
            await until(lambda: ended(database, identity))
    (came,), done = there.received, row(database, identity)

    assert (done["status"], done["result"], done["attempt"]) == ("FINISHED", {"rows": 3}, 1)
    assert done["claimed_at"] <= done["started_at"] <= done["finished_at"]
    assert came.line == "POST /hook HTTP/1.1"
    for name in ("webhook-id", "idempotency-key"):
        assert came.header(name) == str(identity)
    assert came.header("X-Cron-Observer-Attempt") == came.header("X-Cron-Observer-Fence") == "1"
    assert came.header("X-Cron-Observer-Task") == "default/export"
    told = datetime.fromisoformat(came.header("X-Cron-Observer-Deadline"))
    assert abs(told - (done["claimed_at"] + timedelta(hours=1))) < timedelta(seconds=1)
    assert came.header("X-Cron-Observer-Scheduled-For") == json.loads(came.body)["scheduled_for"]
    assert came.header("traceparent").startswith(f"00-{identity.hex}-")
    assert came.header("authorization") == "Bearer s3cr3t-canary"
    assert came.header("accept-encoding") == "identity"
    assert came.header("x-team") == "billing"
    assert came.header("host") == f"127.0.0.1:{there.port}"
    stamp = came.header("webhook-timestamp")
    assert abs(int(stamp) - database_now(database).timestamp()) < 30
    wanted = {signature(secret, str(identity), stamp, came.body) for secret in (OLD, NEW)}
    assert set(came.header("webhook-signature").split()) == wanted
    body = json.loads(came.body)
    assert (body["id"], body["payload"], body["attempt"], "run_token" in body) == (
        str(identity),
        {"format": "csv"},
        1,
        False,
    )
    key = bytes(database.value("SELECT secret FROM signing_keys"))
    claimed = read_token(came.header("X-Cron-Observer-Run-Token"))
    assert claimed is not None
    assert is_genuine(claimed, key)
    assert (claimed.tenant_id, claimed.execution_id, claimed.fence) == (tenant.tenant_id, identity, 1)
    assert events(database, identity) == ["claimed", "started", "finished"]
    seen = event(database, identity, "finished")["http"]
    assert (seen["status"], seen["headers"]["content-type"], seen["body"]) == (200, "application/json", '{"rows": 3}')
    assert 0 <= seen["duration_seconds"] < 30  # its timeout


@pytest.mark.parametrize(
    ("answer", "status", "result"),
    [
        (reply(200), "FINISHED", None),
        (reply(204), "FINISHED", None),
        (reply(201, b"made", Content_Type="text/plain"), "FINISHED", "made"),
        (reply(200, b"{broken", Content_Type="application/json"), "FINISHED", "{broken"),
        (reply(200, b'"a\\u0000b"', Content_Type="application/json"), "FINISHED", '"a\\u0000b"'),
        (reply(200, b"a\x00b\xffc"), "FINISHED", "a\ufffdb\ufffdc"),
        (reply(301, Location="/elsewhere"), "FAILED", None),
        (reply(304), "FAILED", None),
        (reply(400, b"no such report"), "FAILED", None),
        (reply(404), "FAILED", None),
        (reply(410), "FAILED", None),
        (reply(500), "PENDING", None),
        (reply(408), "PENDING", None),
        (reply(425), "PENDING", None),
        (reply(429), "PENDING", None),
        (reply(503), "PENDING", None),
        (b"nonsense\r\n\r\n", "PENDING", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut", "PENDING", None),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else None,
)
async def test_the_answer_decides(
    database: FreshDatabase, tenant: Tenant, answer: bytes, status: str, result: Any
) -> None:
    """2xx is done; 408, 425, 429, 5xx and what is no answer are tried again; all else has failed for good."""
    done = await answered(database, tenant, answer, retries={"max": 3, "initial": "1h", "cap": "1h"})

    assert (done["status"], done["result"]) == (status, result)
    assert (done["error"] is None) == (status == "FINISHED")
    if status == "PENDING":
        assert database_now(database) - timedelta(minutes=1) < done["available_at"]
        assert done["available_at"] <= database_now(database) + timedelta(hours=1)
        assert events(database, done["id"])[-1] == "retry_scheduled"


@pytest.mark.parametrize(
    ("said", "low", "high"),
    [("120", 115, 121), ("86400", 3590, 3601), ("soon", -5, 1), ("-1", -5, 1)],
)
async def test_retry_after_is_heeded_up_to_an_hour(
    database: FreshDatabase, tenant: Tenant, said: str, low: float, high: float
) -> None:
    """What 429 and 503 say of the next try is kept to, an hour at most; nonsense says nothing."""
    answer = reply(429 if said != "120" else 503, Retry_After=said)
    done = await answered(database, tenant, answer, retries={"max": 1, "initial": "1s", "cap": "1s"})

    failed_at = database.value("SELECT max(at) FROM execution_events WHERE execution_id = %s", done["id"])
    wait = (done["available_at"] - failed_at).total_seconds()
    assert low <= wait <= high


async def test_retry_after_may_be_a_date(database: FreshDatabase, tenant: Tenant) -> None:
    """A date of HTTP is understood too."""
    at = datetime.now(UTC) + timedelta(minutes=5)
    done = await answered(
        database,
        tenant,
        reply(503, Retry_After=format_datetime(at, usegmt=True)),
        retries={"max": 1, "initial": "1s", "cap": "1s"},
    )

    assert abs(done["available_at"] - at) < timedelta(seconds=30)


async def test_retries_carry_the_same_id_and_end(database: FreshDatabase, tenant: Tenant) -> None:
    """Each try has the same id and trace, a higher attempt and fence; the last failure is the outcome."""
    async with receiver(reply(500, b"out of order")) as there:
        identity = due(tenant, there.url, retries={"max": 2, "initial": "1s", "cap": "1s"})
        async with dispatching(database):
            await until(lambda: ended(database, identity))
    done, came = row(database, identity), there.received

    assert (done["status"], done["attempt"], done["error"]["type"]) == ("FAILED", 3, "http_500")
    assert done["error"]["message"] == "HTTP 500: out of order"
    assert {one.header("webhook-id") for one in came} == {str(identity)}
    assert [one.header("X-Cron-Observer-Attempt") for one in came] == ["1", "2", "3"]
    assert [one.header("X-Cron-Observer-Fence") for one in came] == ["1", "2", "3"]
    assert len({one.header("traceparent")[:35] for one in came}) == 1
    assert events(database, identity) == [
        *["claimed", "started", "retry_scheduled"] * 2,
        "claimed",
        "started",
        "failed",
    ]
    assert event(database, identity, "retry_scheduled")["http"]["status"] == 500


async def test_202_goes_on_through_the_protocol(database: FreshDatabase, tenant: Tenant) -> None:
    """An accepted execution runs on under its fence until its receiver ends it, leased until the run deadline."""
    async with receiver(reply(202, b"queued")) as there:
        identity = due(tenant, there.url, timeout="10m")
        async with dispatching(database) as running:
            await until(lambda: "accepted" in events(database, identity) and not running.under_way)
    (came,), taken = there.received, row(database, identity)
    fence = int(came.header("X-Cron-Observer-Fence"))

    assert (taken["status"], taken["lease_until"]) == ("RUNNING", taken["run_deadline"])
    assert event(database, identity, "accepted")["http"] | {"duration_seconds": 0} == {
        "method": "POST",
        "status": 202,
        "duration_seconds": 0,
        "address": f"127.0.0.1:{there.port}",
        "headers": {"content-length": "6"},
        "body": "queued",
    }
    said = {"tenant_id": tenant.tenant_id, "id": identity}
    async with database.api.transaction([tenant.tenant_id]) as conn:
        (beat,) = await process(conn, [Heartbeat(**said, fence=fence, progress=0.5)])
        (done,) = await process(conn, [Complete(**said, done=Completion(outcome="finished", fence=fence, digest=b"x"))])
    assert (beat.refusal, done.refusal) == (None, None)
    assert row(database, identity)["status"] == "FINISHED"


@pytest.mark.parametrize(
    ("http", "line", "kind", "body"),
    [
        ({"body": {"a": [1, None]}}, "POST", "application/json", b'{"a":[1,null]}'),
        ({"body": "run it", "method": "PUT"}, "PUT", "text/plain; charset=utf-8", b"run it"),
        ({"body": "<x/>", "headers": {"Content-Type": "text/xml"}}, "POST", "text/xml", b"<x/>"),
        ({"method": "GET"}, "GET", None, b""),
        ({"method": "DELETE"}, "DELETE", None, b""),
    ],
)
async def test_the_body_is_the_manifests(
    database: FreshDatabase, tenant: Tenant, http: dict[str, Any], line: str, kind: str | None, body: bytes
) -> None:
    """A body is sent as JSON or as text; GET and DELETE have none."""
    async with receiver() as there:
        identity = due(tenant, there.url + "?x=%20y", http=http)
        async with dispatching(database):
            await until(lambda: ended(database, identity))
    (came,) = there.received

    assert came.line == f"{line} /hook?x=%20y HTTP/1.1"
    assert [value for name, value in came.headers if name.lower() == "content-type"] == ([kind] if kind else [])
    assert came.body == body


@pytest.mark.parametrize(
    ("http", "word"),
    [
        ({"headers": {"webhook-id": "mine"}}, "not_sendable"),
        ({"headers": {"X-A": "b\r\nX-C: d"}}, "not_sendable"),
        ({"url": "http://user:pw@127.0.0.1/"}, "not_sendable"),
        ({"auth": {"secretRef": "nowhere"}}, "secret"),
        ({"signing": {"secretRef": "short"}}, "secret"),
    ],
)
async def test_what_may_not_be_sent_is_not(
    database: FreshDatabase, tenant: Tenant, http: dict[str, Any], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stored definition that no validator of today would take, and a secret that is not there, send nothing."""
    monkeypatch.setenv("CRON_OBSERVER_SECRET_SHORT", "whsec_c2hvcnQ=")
    async with receiver() as there:
        identity = due(tenant, there.url, http=http)
        async with dispatching(database):
            done = await until(lambda: ended(database, identity))
    assert (done["status"], done["error"]["type"], there.received) == ("FAILED", word, [])
    assert "c2hvcnQ" not in json.dumps(done["error"])


async def test_nothing_secret_is_kept(database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that sends back all that it got leaves no token, secret or signature in any row."""
    monkeypatch.setenv("CRON_OBSERVER_SECRET_TOKEN", "canary-of-a-secret")
    monkeypatch.setenv("CRON_OBSERVER_SECRET_SIGNING", OLD)

    async def echo(came: Received, _: asyncio.StreamWriter) -> bytes:
        everything = json.dumps(came.headers)
        return reply(
            200 if len(there.received) > 1 else 500, everything.encode(), Location=came.header("authorization")
        )

    http = {"auth": {"secretRef": "token"}, "signing": {"secretRef": "signing"}}
    async with receiver(echo) as there:
        identity = due(tenant, there.url, http=http, retries={"max": 1, "initial": "1s", "cap": "1s"})
        async with dispatching(database):
            await until(lambda: ended(database, identity))
    kept = json.dumps(
        [
            database.rows("SELECT * FROM executions"),
            database.rows("SELECT * FROM execution_events"),
            database.rows("SELECT * FROM attempts"),
        ],
        default=str,
    )

    assert row(database, identity)["status"] == "FINISHED"
    assert "***" in kept
    for secret in ("canary-of-a-secret", OLD, "crt_", *(one.header("webhook-signature") for one in there.received)):
        assert secret not in kept


async def test_another_tenants_secrets_are_out_of_reach(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets of the machine belong to the tenant of its settings."""
    monkeypatch.setenv("CRON_OBSERVER_SECRET_TOKEN", "canary-of-a-secret")
    other = make_tenant(database, "other")
    async with receiver() as there:
        theirs = due(other, there.url, http={"auth": {"secretRef": "token"}})
        ours = due(tenant, there.url, http={"auth": {"secretRef": "token"}})
        async with dispatching(database):
            await until(lambda: ended(database, theirs) and ended(database, ours))

    assert row(database, theirs)["error"]["type"] == "secret"
    assert [one.header("webhook-id") for one in there.received] == [str(ours)]


async def test_a_cancelled_execution_hangs_up(database: FreshDatabase, tenant: Tenant) -> None:
    """Whoever asks a running webhook to stop ends the request; the execution is CANCELLED by that."""
    from cron_observer.dispatch import Dispatcher
    from cron_observer.store.executions import Cancel
    from support.receivers import settings

    async def hang(_: Received, writer: asyncio.StreamWriter) -> None:
        await writer.wait_closed()

    async with receiver(hang) as there:
        identity = due(tenant, there.url)
        quick = Dispatcher(database.scheduler, settings(), lease=timedelta(seconds=1))
        async with dispatching(database, quick) as running:
            await until(lambda: there.received)
            async with database.api.transaction([tenant.tenant_id]) as conn:
                asked = Cancel(tenant_id=tenant.tenant_id, id=identity, reason="enough", actor="ada")
                await process(conn, [asked])
            done = await until(lambda: ended(database, identity), 5)
            await until(lambda: not running.under_way)
    assert (done["status"], done["reason"]) == ("CANCELLED", "cancelled")


async def test_a_retry_of_a_worker_is_sent_once_its_task_is_a_webhook(database: FreshDatabase, tenant: Tenant) -> None:
    """What waits for another try when its task begins to be sent is sent as the task says now."""
    async with receiver() as there:
        identity = due(tenant, there.url)
        database.do("UPDATE task_revisions SET spec = jsonb_set(spec, '{run}', '{\"external\": {}}')")
        database.do("UPDATE executions SET generation = 1, fence = 1, attempt = 1 WHERE id = %s", identity)
        async with dispatching(database):
            done = await until(lambda: ended(database, identity))
    (came,) = there.received
    assert (done["status"], came.header("X-Cron-Observer-Fence")) == ("FINISHED", "2")


async def test_a_defect_of_ours_is_a_failed_attempt(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong inside, the attempt ends and is tried again, and the message says nothing of the inside."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("canary of the inside")

    monkeypatch.setattr("cron_observer.dispatch.sending.urlsplit", broken)
    identity = due(tenant, "http://127.0.0.1:9/", retries={"max": 1, "initial": "1h"})
    async with dispatching(database):
        await until(lambda: events(database, identity)[-1:] == ["retry_scheduled"])
    error = row(database, identity)["error"]
    assert (error["type"], "canary" in error["message"]) == ("defect", False)
