"""Real Git servers on loopback: ``git http-backend`` behind a web server of ours that can misbehave, and sshd."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.processes import free_port, until
from support.signing import SshKey
from support.tools import need

SSHD = "/usr/sbin/sshd"


@cache
def backend() -> str:
    """Return the path of ``git http-backend``."""
    folder = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{folder}/git-http-backend"


@dataclass
class Forge:
    """A web server over a folder of bare repositories. What is set here counts from the next request on."""

    folder: Path
    port: int = 0
    scheme: str = "http"
    login: str | None = None  #: ``user:password`` that requests must show
    #: A status, or: redirect:URL, hang, drip, stall:BYTES, reset:BYTES, garbage, page, echo
    fault: str | None = None
    where: str = ""  #: the fault is met where this is part of the path
    pace: tuple[int, float] = (1, 0.02)  #: bytes at once, and seconds between them, of a drip
    seen: list[tuple[str, str | None]] = field(default_factory=list)  #: paths, and the credentials that were shown
    release: threading.Event = field(default_factory=threading.Event)  #: lets go whoever hangs

    def url(self, name: str = "tasks.git", login: str = "") -> str:
        """Return the address of a repository."""
        return f"{self.scheme}://{login}{'@' if login else ''}127.0.0.1:{self.port}/{name}"

    def fails(self, fault: str | None, where: str = "", pace: tuple[int, float] = (1, 0.02)) -> None:
        """Misbehave like this from the next request on; None: no more."""
        self.release.set()
        self.release = threading.Event()
        self.fault, self.where, self.pace = fault, where, pace


class _Handler(BaseHTTPRequestHandler):
    forge: Forge

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def do_POST(self) -> None:
        """Answer."""
        self._answer()

    def _answer(self) -> None:
        """Answer, or misbehave."""
        self.close_connection = True
        forge, given = self.forge, self.headers.get("Authorization")
        forge.seen.append((self.path, given))
        fault = forge.fault if forge.fault and forge.where in self.path else None
        if fault == "hang":
            forge.release.wait(60)
        elif fault is not None and fault.isdigit():
            self.send_error(int(fault))
        elif fault is not None and fault.startswith("redirect:"):
            self._say(302, "text/plain", b"", Location=fault.removeprefix("redirect:") + self.path)
        elif fault == "page":
            self._say(200, "text/html", b"<html>\nPlease log in\n</html>\n")
        elif fault == "garbage":
            service = "upload-pack-result" if self.command == "POST" else "upload-pack-advertisement"
            self._say(200, f"application/x-git-{service}", bytes(range(256)) * 20)
        elif fault == "echo":
            self._say(403, "text/plain", f"no: {given} {_plain(given)}\n".encode())
        elif forge.login is not None and given != f"Basic {base64.b64encode(forge.login.encode()).decode()}":
            self._say(401, "text/plain", b"who are you?\n", WWW_Authenticate='Basic realm="forge"')
        else:
            self._serve(fault)

    def _say(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _serve(self, fault: str | None) -> None:
        """Let Git answer, and pass it on as the fault says."""
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.forge.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": self.headers.get("Content-Length", ""),
        }
        given = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run([backend()], env=environment, input=given, capture_output=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self.send_response(int(fields.pop("Status", "200").split(" ")[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._pass_on(body, fault)

    def _pass_on(self, body: bytes, fault: str | None) -> None:
        kind, _, number = (fault or "").partition(":")
        if kind == "drip":
            size, seconds = self.forge.pace
            for start in range(0, len(body), size):
                self.wfile.write(body[start : start + size])
                if self.forge.release.wait(seconds):
                    break
            return
        self.wfile.write(body[: int(number)] if number else body)
        self.wfile.flush()
        if kind == "stall":
            self.forge.release.wait(60)
        elif kind == "reset":
            # to linger for no time sends a reset instead of an end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def handle(self) -> None:
        """Survive those who go away."""
        with suppress(OSError, ValueError):
            super().handle()

    def finish(self) -> None:
        """Survive those who went away."""
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _plain(given: str | None) -> str:
    return base64.b64decode((given or "Basic ").removeprefix("Basic ")).decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    context: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection; TLS begins in the thread that serves it."""
        connection, address = super().get_request()
        if self.context is not None:
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, *_: Any) -> None:
        """Say nothing."""

    def shutdown_request(self, request: Any) -> None:
        """Close, whatever state it is in."""
        with suppress(OSError, ValueError):
            super().shutdown_request(request)


@contextmanager
def forge(folder: Path, *, login: str | None = None, authority: Authority | None = None) -> Iterator[Forge]:
    """Serve the bare repositories of `folder`, with TLS when there is an authority for its certificate."""
    need("git", backend())
    made = Forge(folder, login=login, scheme="https" if authority else "http")
    handler = type("Handler", (_Handler,), {"forge": made})
    with _Server(("127.0.0.1", 0), handler) as server:
        made.port = server.server_port
        if authority is not None:
            server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.context.load_cert_chain(authority.certificate, authority.certificate_key)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.release.set()
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the test, and a certificate for 127.0.0.1 that it has signed."""

    file: Path
    certificate: Path
    certificate_key: Path

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """Make all of it with openssl."""
        need("openssl")
        folder.mkdir(parents=True)
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        made = cls(folder / "ca.pem", folder / "server.pem", folder / "server.key")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        ca_key, request = folder / "ca.key", folder / "server.csr"
        for command in (
            ["req", "-x509", *curve, "-subj", f"/CN=Test {folder.name}", "-keyout", ca_key, "-out", made.file],
            ["req", "-new", *curve[:5], "-subj", "/CN=127.0.0.1", "-keyout", made.certificate_key, "-out", request],
            ["x509", "-req", "-in", request, "-CA", made.file, "-CAkey", ca_key, "-CAcreateserial", "-days", "2",
             "-extfile", folder / "names", "-out", made.certificate],
        ):  # fmt: skip
            subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
        return made


@dataclass(frozen=True)
class Sshd:
    """An sshd on a port of its own, and the file of its host key for clients."""

    port: int
    known_hosts: Path
    log: Path

    def url(self, path: Path) -> str:
        """Return the address of a repository for the account that runs the tests."""
        account = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        return f"ssh://{account}@127.0.0.1:{self.port}{path}"


_SSHD = """
ListenAddress 127.0.0.1
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
LogLevel VERBOSE
AcceptEnv GIT_PROTOCOL
"""


@contextmanager
def sshd(folder: Path, *allowed: SshKey) -> Iterator[Sshd]:
    """Run an sshd that lets these keys in."""
    need(SSHD, "ssh", "ssh-keygen")
    folder.mkdir()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    host = SshKey.make(folder / "host")
    (folder / "authorized").write_text("".join(f"{key.public}\n" for key in allowed))
    made = Sshd(free_port(), folder / "known_hosts", folder / "sshd.log")
    made.known_hosts.write_text(f"[127.0.0.1]:{made.port} {host.public}\n")
    (folder / "config").write_text(
        f"Port {made.port}\nHostKey {host.path}\nAuthorizedKeysFile {folder / 'authorized'}\n{_SSHD}"
    )
    with made.log.open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=log)
    try:
        until(lambda: _answers(made.port) or process.poll() is not None, "sshd")
        assert process.poll() is None, made.log.read_text()
        yield made
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
        return probe.recv(4) == b"SSH-"
    return False


def copy(repository: Path, target: Path) -> Path:
    """Copy a bare repository with everything in it."""
    shutil.copytree(repository, target)
    return target


@contextmanager
def watching(*secrets: str) -> Iterator[list[str]]:
    """Look at the command lines of every process while the block runs; give those that hold a secret."""
    found: list[str] = []
    stop = threading.Event()
    looks = 0

    def look() -> None:
        nonlocal looks
        while not stop.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    line = path.read_bytes().decode("utf-8", "replace")
                    if any(secret in line for secret in secrets):
                        found.append(line)
            looks += 1
            time.sleep(0.002)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        assert looks > 0
