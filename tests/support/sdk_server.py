"""A small HTTP server that speaks the worker protocol from memory and can be told to misbehave.

It is for the faults that a real server cannot be asked for: lost replies, silence, drips, gaps, lost leases.
"""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "co_12345678_secretsecretsecretsecretsecretsecretsecret1"


@dataclass(frozen=True)
class Call:
    """One request as it arrived."""

    verb: str  #: claims, create, start, heartbeat, logs, complete, release, pending, get, patch, trigger
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float
    connection: int  #: which TCP connection it came on


@dataclass
class Fault:
    """What happens instead of (or after) the answer."""

    status: int = 0
    problem: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False  #: do the work, then close the connection without an answer
    hang: float = 0.0  #: say nothing for this long, then close
    drip: float = 0.0  #: answer one byte at a time, with this pause
    raw: bytes | None = None  #: answer 200 with this body
    cut: int = (
        0  #: do the work, then hang up so many bytes before the end of the answer; below 0: so many after its beginning
    )


class WireServer:
    """State and script of the server. `due` waits to be claimed; `stored` is what was reported."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.due: deque[dict[str, Any]] = deque()
        self.executions: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.claims: dict[str, list[str]] = {}
        self.cancel_requested = False
        self.pace = 10.0
        self.unknown_tasks: set[str] = set()
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.always: dict[str, Fault] = {}
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self.connections = 0
        self.malformed = 0
        self.url = ""

    def fail(self, verb: str, *faults: Fault) -> None:
        """Let the next calls of a kind meet these faults, in turn."""
        with self._lock:
            self._faults[verb].extend(faults)

    def add_due(self, task: str = "default/nightly", **facts: Any) -> dict[str, Any]:
        """Let a slot of a task fall due."""
        with self.changed:
            execution = self.new(f"01a1fd95-0000-8000-8000-{len(self.executions):012d}", task, trigger="schedule")
            execution.update({"status": "PENDING", "fence": 0, "attempt": 0, **facts})
            self.due.append(execution)
            self.changed.notify_all()
            return execution

    def new(self, key: str, task: str, **facts: Any) -> dict[str, Any]:
        """Make an execution."""
        project, _, name = task.partition("/")
        made: dict[str, Any] = {
            "id": key,
            "task": {"uid": "7c9e6679-7425-40de-944b-e07fc1f90ae7", "project": project, "name": name},
            "status": "RUNNING",
            "trigger": "api",
            "scheduled_for": "2026-03-29T01:30:00.000Z",
            "nominal_local": "2026-03-29T02:30:00",
            "timezone": "Europe/Berlin",
            "fire_at": "2026-03-29T01:31:00.000Z",
            "queue": "default",
            "attempt": 1,
            "fence": 1,
            "payload": None,
            "checkpoint": None,
            "result": None,
            "heartbeat_every_seconds": self.pace,
            "cancel_requested": False,
            **facts,
        }
        self.executions[key] = made
        return made

    def of(self, verb: str) -> list[Call]:
        """Return the calls of a kind, in order."""
        with self._lock:
            return [call for call in self.calls if call.verb == verb]

    def verbs(self) -> list[str]:
        """Return the kinds of all calls, in order."""
        with self._lock:
            return [call.verb for call in self.calls]

    def wait_for(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        """Wait until something holds; fail with what was called if it does not."""
        with self.changed:
            if not self.changed.wait_for(condition, seconds):
                raise AssertionError(f"not within {seconds} s; calls: {self.verbs()}")

    def messages(self, key: str | None = None) -> list[str]:
        """Return the messages of the only (or the named) execution's log."""
        with self._lock:
            if key is None:
                (key,) = self.logs or ("",)
            return [entry["message"] for entry in self.logs[key]]

    def only(self) -> dict[str, Any]:
        """Return the only execution."""
        with self._lock:
            (execution,) = self.executions.values()
            return execution

    def answer(self, call: Call) -> tuple[int, dict[str, Any]]:
        """Do what the wire says."""
        with self.changed:
            result: tuple[int, dict[str, Any]] = getattr(self, f"do_{call.verb}")(call)
            self.changed.notify_all()
            return result

    def take_fault(self, verb: str) -> Fault | None:
        """Return the fault that the next call of this kind meets."""
        with self._lock:
            return self._faults[verb].popleft() if self._faults[verb] else self.always.get(verb)

    def do_claims(self, call: Call) -> tuple[int, dict[str, Any]]:
        body = {"max": 1, "wait_seconds": 0, "claim_id": f"minted-{len(self.calls)}", **call.body}
        if body["claim_id"] not in self.claims:
            self.changed.wait_for(lambda: self._matching(body), body["wait_seconds"])
            taken = self._matching(body)[: body["max"]]
            for execution in taken:
                self.due.remove(execution)
                execution.update(status="RUNNING", worker=body["worker"])
                execution["fence"] += 1
                execution["attempt"] += 1
            self.claims[body["claim_id"]] = [execution["id"] for execution in taken]
        return 200, {"executions": [self.executions[key] for key in self.claims[body["claim_id"]]]}

    def _matching(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        wanted, queues = body.get("tasks"), body.get("queues")
        if queues is None and wanted is None:
            queues = ["default"]
        return [
            execution
            for execution in self.due
            if (queues is None or execution["queue"] in queues)
            and (wanted is None or f"{execution['task']['project']}/{execution['task']['name']}" in wanted)
        ]

    def do_create(self, call: Call) -> tuple[int, dict[str, Any]]:
        if call.body["task"] in self.unknown_tasks:
            return 404, {"code": "not_found", "detail": "there is no such task", "hint": "push its manifest"}
        if call.body["id"] in self.executions:
            return 200, self.executions[call.body["id"]]
        return 201, self.new(call.body["id"], call.body["task"], worker=call.body["worker"])

    def _current(self, call: Call) -> dict[str, Any]:
        return self.executions[call.path.split("/")[5]]

    def do_start(self, call: Call) -> tuple[int, dict[str, Any]]:
        return 200, self._current(call)

    def do_heartbeat(self, call: Call) -> tuple[int, dict[str, Any]]:
        return 200, {
            "lease_until": "2026-03-29T01:32:00.000Z",
            "cancel_requested": self.cancel_requested,
            "run_deadline": None,
            "heartbeat_every_seconds": self.pace,
        }

    def do_logs(self, call: Call) -> tuple[int, dict[str, Any]]:
        stored, first = self.logs[self._current(call)["id"]], call.body["first_seq"]
        if first > len(stored):
            return 409, {"code": "log_gap", "expected_seq": len(stored), "detail": "entries are missing"}
        stored.extend(call.body["entries"][len(stored) - first :])
        return 202, {"next_seq": len(stored), "cancel_requested": self.cancel_requested}

    def do_complete(self, call: Call) -> tuple[int, dict[str, Any]]:
        execution = self._current(call)
        status = {"finished": "FINISHED", "failed": "FAILED", "cancelled": "CANCELLED", "skipped": "SKIPPED"}
        execution.update(call.body, status=status[call.body["outcome"]])
        return 200, execution

    def do_release(self, call: Call) -> tuple[int, dict[str, Any]]:
        execution = self._current(call)
        execution.update(status="PENDING")
        return 200, execution

    def do_pending(self, call: Call) -> tuple[int, dict[str, Any]]:
        return 200, {"executions": list(self.due)}

    def do_get(self, call: Call) -> tuple[int, dict[str, Any]]:
        return 200, self._current(call)

    def do_patch(self, call: Call) -> tuple[int, dict[str, Any]]:
        execution = self._current(call)
        execution.update(call.body)
        return 200, execution

    def do_trigger(self, call: Call) -> tuple[int, dict[str, Any]]:
        _, _, _, _, project, _, name, _ = call.path.split("/")
        return 201, self.new(call.headers["idempotency-key"], f"{project}/{name}", trigger="manual")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        super().setup()
        state = self.server.state
        with state.changed:
            state.connections += 1
            self.number = state.connections
        self.server.sockets.append(self.connection)

    def send_error(self, *_: Any, **__: Any) -> None:
        """Count what is no HTTP."""
        with self.server.state.changed:
            self.server.state.malformed += 1
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Be quiet."""

    def do_POST(self) -> None:
        """Answer any request."""
        state = self.server.state
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            raw = gzip.decompress(raw)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.loads(raw) if raw else {}
        call = Call(self._verb(), self.path, headers, body, time.monotonic(), self.number)
        with state.changed:
            state.calls.append(call)
            fault = state.take_fault(call.verb)
            state.changed.notify_all()
        if headers.get("authorization") != f"Bearer {TOKEN}":
            self._send(401, {"code": "unauthenticated", "detail": "no", "hint": "make a token"}, {})
        elif fault is None:
            self._send(*state.answer(call), {})
        else:
            self._misbehave(call, fault)

    do_GET = do_PATCH = do_POST  # noqa: N815  the names that http.server looks for

    def _verb(self) -> str:
        path = self.path.partition("?")[0]
        last = path.rsplit("/", 1)[1]
        if last == "executions":
            return "create"
        if self.command == "PATCH":
            return "patch"
        return last if last in {"claims", "pending", "trigger"} or self.command == "POST" else "get"

    def _misbehave(self, call: Call, fault: Fault) -> None:
        if fault.hang:
            self.server.stopping.wait(fault.hang)
            self.close_connection = True
        elif fault.drop:
            self.server.state.answer(call)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.cut:
            status, answer = (fault.status, fault.problem) if fault.status else self.server.state.answer(call)
            body = json.dumps(answer).encode()
            whole = b"HTTP/1.1 %d OK\r\nServer: test\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
            self.connection.sendall(whole[: -fault.cut])
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.drip:
            status, answer = self.server.state.answer(call)
            self.connection.sendall(b"HTTP/1.1 %d OK\r\nContent-Length: 100000\r\n\r\n" % status)
            for byte in json.dumps(answer).encode():
                if self.server.stopping.wait(fault.drip):
                    break
                try:
                    self.connection.sendall(bytes([byte]))
                except OSError:
                    break
            self.close_connection = True
        else:
            self._send(fault.status or 200, fault.problem, fault.headers, fault.raw)

    def _send(self, status: int, answer: dict[str, Any], headers: dict[str, str], raw: bytes | None = None) -> None:
        body = json.dumps(answer).encode() if raw is None else raw
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:  # the client has gone
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, state: WireServer, port: int) -> None:
        self.state = state
        self.stopping = threading.Event()
        self.sockets: list[socket.socket] = []
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, *_: Any) -> None:
        """Clients that go away are part of the tests."""


@contextmanager
def serving(state: WireServer | None = None, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[WireServer]:
    """Serve on a free port (or the given one) until the end of the block."""
    state = state or WireServer()
    server = _Server(state, port)
    state.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.stopping.set()
        server.shutdown()
        for one in server.sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        server.server_close()
        thread.join()
