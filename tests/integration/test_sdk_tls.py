"""Over TLS the client does what it does without, and trusts only whom the host trusts."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import cron_observer_sdk as co
from support.sdk_cli import cli
from support.sdk_server import TOKEN, Fault, WireServer, serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fresh certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def server(certificate: Path) -> Iterator[WireServer]:
    """A server that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with serving(tls=context) as state:
        yield state


@pytest.fixture
def trusting(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host trusts the certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))


def test_calls_share_a_connection_and_large_bodies_pass(server: WireServer, trusting: None) -> None:
    """A claim, a megabyte of log and a completion go over one connection."""
    server.add_due("a/b", payload={"big": "x" * 300_000})
    with co.Client(server.url, TOKEN) as client:
        (execution,) = client.claim("w")
        assert len(execution["payload"]["big"]) == 300_000
        entries = [{"level": "INFO", "message": os.urandom(1000).hex()} for _ in range(300)]
        client.logs(execution["id"], 1, 0, entries)
        assert client.complete(execution["id"], 1, "finished")["status"] == "FINISHED"
    assert server.logs[execution["id"]] == entries
    assert server.connections == 1


def test_a_stranger_gets_no_token(server: WireServer) -> None:
    """A certificate that the host does not trust ends the call before the token is sent."""
    with pytest.raises(co.Unavailable, match=r"(?i)certificate verify failed"):
        co.Client(server.url, TOKEN, tries=1).pending()
    assert server.calls == []


@pytest.mark.parametrize("fault", [Fault(hang=30), Fault(drip=0.05)], ids=["silence", "drip"])
def test_deadlines_hold(server: WireServer, trusting: None, fault: Fault) -> None:
    """Silence and drips end at the deadline."""
    server.always["pending"] = fault
    begun = time.monotonic()
    with co.Client(server.url, TOKEN, timeout=0.7) as hasty, pytest.raises(co.Unavailable):
        hasty.pending()
    assert 0.5 < time.monotonic() - begun < 10


def test_a_handshake_that_never_comes_ends_at_the_deadline() -> None:
    """A port that accepts and says nothing holds no call."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begun = time.monotonic()
        with pytest.raises(co.Unavailable):
            co.Client(f"https://127.0.0.1:{mute.getsockname()[1]}", TOKEN, timeout=0.7).pending()
        assert 0.5 < time.monotonic() - begun < 10


def test_a_command_is_reported_over_tls(server: WireServer, certificate: Path) -> None:
    """``run`` leaves nothing open and says nothing."""
    env = {"SSL_CERT_FILE": str(certificate / "cert.pem")}
    done = cli("run", "a/b", "--", "echo", "hello", server=server, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")
    assert server.messages() == ["hello"]
