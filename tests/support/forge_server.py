"""A real HTTP server of the test's that plays a forge's API: it keeps what it was sent, and answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Got:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]  #: names in lower case
    body: Any


#: Status, header fields and body of an answer.
Answer = tuple[int, dict[str, str], str]

CREATED: Answer = (201, {"Content-Type": "application/json"}, '{"id": 1, "state": "success"}')


@dataclass
class ForgeServer:
    """A forge on loopback. `answer` makes the answer to a request; it may block, as a slow forge does."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answer: Callable[[Got], Answer] = lambda _got: CREATED

    def told(self) -> list[tuple[str, str]]:
        """Return state and description of every request, in order."""
        return [(one.body["state"], one.body["description"]) for one in self.got]


@contextmanager
def forge_server() -> Iterator[ForgeServer]:
    """Serve a forge on a free port."""
    made = ForgeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            got = Got(self.command, self.path, headers, json.loads(raw) if raw else None)
            made.got.append(got)
            status, fields, text = made.answer(got)
            try:
                self.send_response(status)
                for name, value in fields.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())
            except OSError:
                self.close_connection = True  # who asked has gone

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    serving.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
