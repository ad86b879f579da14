"""Requests go where they may go, and to nowhere else."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cron_observer.dispatch import Dispatcher
from support.databases import FreshDatabase, Tenant
from support.receivers import dispatching, due, ended, receiver, reply, row, settings, until


async def failed(database: FreshDatabase, tenant: Tenant, url: str, **changes: Any) -> dict[str, Any]:
    """Send an execution to a place; return the row once it has ended."""
    identity = due(tenant, url, **changes.pop("task", {}))
    lookup = changes.pop("lookup", None)
    chosen = settings(**changes)
    made = Dispatcher(database.scheduler, chosen, **({"lookup": lookup} if lookup else {}))
    async with dispatching(database, made):
        await until(lambda: ended(database, identity))
    return row(database, identity)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_loopback_is_out_of_reach(database: FreshDatabase, tenant: Tenant, host: str) -> None:
    """However it is written, what a name resolves to is judged; it fails at once, without a retry."""
    async with receiver() as there:
        url = f"http://{host}:{there.port}/"
        open_port = {"webhook_networks": (), "webhook_ports": (there.port,)}
        done = await failed(database, tenant, url, **open_port, task={"retries": {"max": 3}})

    assert (done["status"], done["error"]["type"], done["attempt"], there.received) == ("FAILED", "refused", 1, [])


async def test_one_closed_address_taints_the_others(database: FreshDatabase, tenant: Tenant) -> None:
    """A name with a public and a private address is not reached at either."""
    async with receiver() as there:
        both = ["127.0.0.1", "10.0.0.1"]
        done = await failed(database, tenant, f"http://jobs.test:{there.port}/", lookup=lambda _: both)

    assert (done["error"]["type"], there.received) == ("refused", [])


async def test_only_ports_of_http_are_reached_outside(database: FreshDatabase, tenant: Tenant) -> None:
    """On the open Internet another port is refused."""
    done = await failed(database, tenant, "http://jobs.test:25/", lookup=lambda _: ["93.184.215.14"])

    assert done["error"]["type"] == "refused"
    assert "port 25" in done["error"]["message"]


async def test_the_address_that_was_judged_is_the_one_that_is_reached(database: FreshDatabase, tenant: Tenant) -> None:
    """A name that means something else a moment later leads nowhere else: it is looked up once for an attempt."""
    asked: list[str] = []

    def rebinding(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    async with receiver(reply(404)) as there:
        await failed(database, tenant, f"http://Jobs.test:{there.port}/x", lookup=rebinding)
    (came,) = there.received

    assert asked == ["jobs.test"]
    assert came.header("host").lower() == f"jobs.test:{there.port}"


async def test_the_next_address_is_tried_when_one_does_not_answer(database: FreshDatabase, tenant: Tenant) -> None:
    """A host with several addresses is reached at the first that takes the connection."""
    async with receiver() as there:
        both = ["127.0.0.9", "127.0.0.1"]
        done = await failed(database, tenant, f"http://jobs.test:{there.port}/", lookup=lambda _: both)

    assert (done["status"], len(there.received)) == ("FINISHED", 1)


async def test_redirects_are_not_followed(database: FreshDatabase, tenant: Tenant) -> None:
    """A redirect is a failure for good, wherever it leads."""
    async with receiver() as there, receiver(reply(302, Location=there.url)) as first:
        done = await failed(database, tenant, first.url, task={"retries": {"max": 3}})

    assert (done["status"], done["error"]["type"], done["attempt"]) == ("FAILED", "http_302", 1)
    assert there.received == []


async def test_proxies_of_the_environment_are_not_used(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would be asked for addresses that nobody has judged."""
    async with receiver() as proxy, receiver() as there:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        done = await failed(database, tenant, there.url)

    assert (done["status"], proxy.received, len(there.received)) == ("FINISHED", [], 1)


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate for a name; return a server's context with it, and its file."""
    key, made = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-keyout", key, "-out", made, "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name}"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    return context, made


async def test_certificates_are_those_of_the_name(database: FreshDatabase, tenant: Tenant, tmp_path: Path) -> None:
    """The name is asked for and verified, though the connection goes to an address; a stranger's is refused."""
    context, authority = certificate(tmp_path, "jobs.test")
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with receiver(ssl=context) as there:
        for name in ("jobs.test", "other.test"):
            identity = due(tenant, f"https://{name}:{there.port}/", name.partition(".")[0])
            made = Dispatcher(database.scheduler, settings(webhook_ca_file=authority), lookup=lambda _: ["127.0.0.1"])
            async with dispatching(database, made):
                done = await until(lambda one=identity: ended(database, one))
            wanted = "FINISHED" if name == "jobs.test" else "FAILED"
            assert (done["status"], (done["error"] or {"type": None})["type"]) == (
                wanted,
                None if wanted == "FINISHED" else "connect",
            )
    assert asked == ["jobs.test", "other.test"]
    assert len(there.received) == 1


async def test_a_name_server_that_hangs_keeps_nobody_else_waiting(database: FreshDatabase, tenant: Tenant) -> None:
    """Forty executions whose names cannot be resolved do not hold up one whose name can."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hanging(host: str) -> list[str]:
        if host == "jobs.test":
            return ["127.0.0.1"]
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        raise OSError(host)

    async with receiver() as there:
        for number in range(25):
            due(tenant, f"http://dead{number}.test/", f"dead{number}")
        made = Dispatcher(database.scheduler, settings(), lookup=hanging)
        async with dispatching(database, made) as running:
            await until(lambda: running.under_way == 25)
            alive = due(tenant, f"http://jobs.test:{there.port}/", "alive")
            done = await until(lambda: ended(database, alive), 5)
            release.set()
            await until(lambda: not running.under_way)
    assert done["status"] == "FINISHED"
