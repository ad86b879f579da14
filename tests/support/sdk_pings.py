"""A small server that takes pings as the Healthchecks protocol has them, and can be told to fail."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Ping:
    """One request as it arrived."""

    method: str
    path: str
    body: bytes


@dataclass
class PingServer:
    """What arrived, and the statuses of the next answers: 0 closes the connection, then it is 200."""

    url: str = ""
    got: list[Ping] = field(default_factory=list)
    script: deque[int] = field(default_factory=deque)


@contextmanager
def pinged() -> Iterator[PingServer]:
    """Serve on a free port until the end of the block."""
    state = PingServer()

    class Handler(BaseHTTPRequestHandler):
        """Answers pings."""

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

        def do_GET(self) -> None:
            """Take a ping."""
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.got.append(Ping(self.command, self.path, body))
            status = state.script.popleft() if state.script else 200
            if status:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"OK" if status == 200 else b"no")

        do_POST = do_GET  # noqa: N815  the name that http.server looks for

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
