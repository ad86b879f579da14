"""HTTP to one server: keep-alive connections, a deadline over everything, bounded retries.

A connection is used by one thread at a time and goes back to a small pool; a forked child starts its own.
"""

from __future__ import annotations

import http.client
import os
import random
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from cron_observer_sdk import __version__
from cron_observer_sdk.errors import ApiError, NotConfigured, Unavailable, from_problem
from cron_observer_sdk.text import decode_json
from cron_observer_sdk.wires import Connection

if TYPE_CHECKING:
    import ssl

#: A connection that was idle longer is not trusted: servers and firewalls drop it in silence after a while.
IDLE_SECONDS = 4.0
#: Idle connections kept; more are closed.
IDLE_CONNECTIONS = 8
#: First and largest pause between tries; the pause is drawn between 0 and the current value (full jitter).
PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
#: Largest reply that is read: a claim of a hundred executions with their payloads.
REPLY_BYTES = 64 * 1024 * 1024

_RETRIED = frozenset({429, 502, 503, 504})


class Reply(NamedTuple):
    """What came back for one try."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Request(NamedTuple):
    """One call, made as often as needed."""

    method: str
    path: str  #: below ``/api/v1``
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    #: The server knows a repeat: it may be sent again although the first may have arrived.
    repeatable: bool = True


class Abort:
    """Ends a waiting call from another thread."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def watch(self, connection: Connection | None) -> None:
        """Name the connection that is in use now; None when it is not any more."""
        with self._lock:
            self._connection = connection
            if connection is not None and self.requested.is_set():
                connection.interrupt()

    def now(self) -> None:
        """End the call that runs, and each one after it."""
        with self._lock:
            self.requested.set()
            if self._connection is not None:
                self._connection.interrupt()


class Endpoint(NamedTuple):
    """Where the server is."""

    secure: bool
    host: str
    port: int
    prefix: str  #: path before ``/api/v1``; empty or starting with a slash

    @classmethod
    def read(cls, url: str) -> Endpoint:
        """Take a URL apart. Raise `NotConfigured` where it cannot be used."""
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise NotConfigured(f"CRON_OBSERVER_URL cannot be read: {error}") from None
        if parts.scheme not in {"http", "https"} or not host or not url.strip().isprintable() or " " in url.strip():
            raise NotConfigured("CRON_OBSERVER_URL must look like https://cron.example:8475")
        if parts.username is not None or parts.query or parts.fragment:
            raise NotConfigured("CRON_OBSERVER_URL takes no user, query or fragment")
        secure = parts.scheme == "https"
        return cls(secure, host, port or (443 if secure else 80), parts.path.rstrip("/"))


class Transport:
    """Sends requests to one server, with one credential. Safe to share between threads and over a fork."""

    def __init__(self, endpoint: Endpoint, token: str | None) -> None:
        self._endpoint = endpoint
        self._headers = {"User-Agent": f"cron-observer-sdk/{__version__}", "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._pid = os.getpid()
        self._tls: ssl.SSLContext | None = None

    def call(self, request: Request, deadline: float, *, tries: int, abort: Abort | None = None) -> Any:
        """Return the decoded reply. `deadline` is on the monotonic clock and covers every try and pause.

        Raise `ApiError` for a refusal, `Unavailable` when no usable answer came in time.
        """
        pause, free_try = PAUSE_SECONDS, True
        while True:
            tries -= 1
            fresh = not request.repeatable or not free_try
            answer, reused = self._try(request, deadline, fresh=fresh, abort=abort)
            if not isinstance(answer, Unavailable):
                return answer
            if reused and answer.status == 0:  # the server had closed it: nothing was wrong with the server
                tries, free_try = tries + 1, False
                delay = 0.0
            else:
                delay = random.uniform(0, pause)  # noqa: S311  spreading retries is no secret
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            delay = max(delay, answer.retry_after or 0.0)
            unsafe = not request.repeatable and answer.status not in {429, 503}
            aborted = abort is not None and abort.requested.is_set()
            if tries <= 0 or unsafe or aborted or time.monotonic() + delay >= deadline:
                raise answer
            if abort is None:
                time.sleep(delay)
            else:
                abort.requested.wait(delay)

    def close(self) -> None:
        """Close the idle connections. The transport can still be used."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _try(self, request: Request, deadline: float, *, fresh: bool, abort: Abort | None) -> Any:
        """Return (decoded reply or `Unavailable`, whether the connection had been used before)."""
        connection = None if fresh else self._take()
        reused = connection is not None
        try:
            if connection is None:
                connection = Connection(self._endpoint, self._context())
            if abort is not None:
                abort.watch(connection)
            connection.deadline = deadline
            reply = self._exchange(connection, request)
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            if connection is not None:
                connection.close()
            return self._unreachable(error), reused
        finally:
            if abort is not None:
                abort.watch(None)
        return self._read(reply), False

    def _exchange(self, connection: Connection, request: Request) -> Reply:
        """Send the request and read the whole reply; keep the connection if it may be used again."""
        headers = dict(self._headers, **request.headers)
        if request.body is not None:
            headers.setdefault("Content-Type", "application/json")
        path = f"{self._endpoint.prefix}/api/v1{request.path}"
        connection.request(request.method, path, body=request.body, headers=headers)
        answer = connection.getresponse()
        body = _whole(answer)
        if answer.will_close or not answer.isclosed():
            connection.close()
        else:
            self._give_back(connection)
        return Reply(answer.status, answer.headers, body)

    def _read(self, reply: Reply) -> Any:
        """Return the decoded reply, or `Unavailable` if it may be tried again; raise `ApiError` else."""
        try:
            decoded = decode_json(reply.body) if reply.body else {}
        except ValueError:
            decoded = None
        if 200 <= reply.status < 300:
            if not isinstance(decoded, dict):
                raise ApiError(
                    "the answer is not from Cron Observer: it is no JSON object",
                    status=reply.status,
                    code="bad_reply",
                    hint="does CRON_OBSERVER_URL point at the server?",
                )
            return decoded
        problem = decoded if isinstance(decoded, dict) else {}
        error = from_problem(reply.status, problem, f"the server answered {reply.status}")
        if 300 <= reply.status < 400:
            error.hint = "the server redirects: set CRON_OBSERVER_URL to its final address"
        if reply.status in _RETRIED or error.code == "in_progress":
            return _retryable(error, reply.headers.get("Retry-After"))
        raise error

    def _unreachable(self, error: Exception) -> Unavailable:
        """Say a failure of the connection without the token in it."""
        where = f"{self._endpoint.host}:{self._endpoint.port}"
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unavailable(f"cannot reach Cron Observer at {where}: {what}")

    def _context(self) -> ssl.SSLContext | None:
        """Return the TLS settings: the host's certificates, or none for plain HTTP."""
        if not self._endpoint.secure:
            return None
        if self._tls is None:
            import ssl

            self._tls = ssl.create_default_context()
        return self._tls

    def _take(self) -> Connection | None:
        """Return a connection that was in use a moment ago, or None."""
        if os.getpid() != self._pid:
            # A forked child: the parent's connections are not ours, and the lock may have been held.
            self._lock, self._idle, self._pid = threading.Lock(), [], os.getpid()
        stale: list[Connection] = []
        found = None
        with self._lock:
            while self._idle and found is None:
                connection = self._idle.pop()
                fresh_enough = time.monotonic() - connection.idle_since < IDLE_SECONDS
                if fresh_enough:
                    found = connection
                else:
                    stale.append(connection)
        for connection in stale:
            connection.close()
        return found

    def _give_back(self, connection: Connection) -> None:
        """Keep the connection for the next call."""
        connection.idle_since = time.monotonic()
        with self._lock:
            if len(self._idle) < IDLE_CONNECTIONS and os.getpid() == self._pid:
                self._idle.append(connection)
                return
        connection.close()


def _whole(answer: http.client.HTTPResponse) -> bytes:
    """Read a reply to its end; refuse one without measure, and one that is not whole."""
    parts: list[bytes] = []
    size = 0
    while True:
        part = answer.read(65536)
        if not part:
            # Nobody else notices: a reply that ends before its length, or within its headers, reads as a short one.
            if answer.length or (not parts and answer.length is None and not answer.chunked):
                raise http.client.HTTPException("the reply was cut")
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > REPLY_BYTES:
            raise http.client.HTTPException(f"the reply is larger than {REPLY_BYTES} bytes")


def _retryable(error: ApiError, retry_after: str | None) -> Unavailable:
    """Return the refusal as something that a later try may mend."""
    if not isinstance(error, Unavailable):
        error = Unavailable(error.message, status=error.status, code=error.code, hint=error.hint, problem=error.problem)
    if retry_after and retry_after.strip().isdigit():
        error.retry_after = float(retry_after)
    return error
