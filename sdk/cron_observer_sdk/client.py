"""The worker protocol as methods. Every call has a deadline and may be repeated without harm."""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from cron_observer_sdk.errors import ApiError, NotConfigured
from cron_observer_sdk.ids import uuid7
from cron_observer_sdk.redact import PLAIN, Redactor
from cron_observer_sdk.text import JsonObject, encode
from cron_observer_sdk.transport import Abort, Endpoint, Request, Transport

#: Seconds that a call may take in all, its retries included, unless the caller says otherwise.
TIMEOUT_SECONDS = 10.0
#: Tries of one call within its deadline.
TRIES = 5
#: Bodies below this are not worth compressing.
GZIP_FROM_BYTES = 1024

#: Last words that go in one call, and their bytes.
COMPLETIONS_MAX = 500
COMPLETIONS_BYTES = 900_000
#: A body that shrinks more than this goes as it is: servers take extreme ratios for an attack.
GZIP_RATIO = 15


class Client:
    """Speaks to one Cron Observer server.

    `url` and `token` default to CRON_OBSERVER_URL and CRON_OBSERVER_TOKEN; nothing else is read.
    `timeout` is the deadline of each call in seconds, retries included (a claim adds its wait).
    `redact`: regular expressions; what matches them in messages, errors, results and checkpoints becomes ``***``
    before it leaves the process. `spool`: whether runs reported through this client are kept on the disk while the
    server is away.
    A client without URL or token can be made, so that tests need no server; its calls raise `NotConfigured`.
    Executions go in and out as the JSON objects of the API. Threads may share a client.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
        *,
        tries: int = TRIES,
        redact: Iterable[str] = (),
        spool: bool = True,
    ) -> None:
        url = os.environ.get("CRON_OBSERVER_URL", "") if url is None else url
        token = os.environ.get("CRON_OBSERVER_TOKEN", "") if token is None else token
        url, token = url.strip(), token.strip()
        if not all("!" <= letter <= "~" for letter in token):
            raise NotConfigured("CRON_OBSERVER_TOKEN holds characters that no token has")
        self.url = url
        self.timeout = timeout
        self.spool = spool
        self.redactor = Redactor(redact) if redact else PLAIN
        #: the part of the token that is no secret, by which the spool tells the keys of a host apart
        self.key_id = token[: len("co_") + 8] if token.startswith("co_") else ""
        self._tries = tries
        self._missing = _missing(url, token)
        self._transport = Transport(Endpoint.read(url), token) if url else None

    def __repr__(self) -> str:
        """Show the address, never the token."""
        return f"Client({self.url!r})"

    @property
    def configured(self) -> bool:
        """Say whether there are a URL and a token."""
        return self._missing is None

    @property
    def missing(self) -> str | None:
        """Say what is not set, in words; None if nothing is."""
        return self._missing

    def close(self) -> None:
        """Close the idle connections. The client can still be used."""
        if self._transport is not None:
            self._transport.close()

    def __enter__(self) -> Client:
        """Return the client, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the idle connections."""
        self.close()

    def noted(self, task: str, kind: str, said: JsonObject) -> None:
        """Hear of what a run says and what travels with its next heartbeat only. For clients that record."""

    def claim(
        self,
        worker: str,
        queues: Sequence[str] | None = None,
        tasks: Iterable[str] | None = None,
        limit: int = 1,
        *,
        wait_seconds: float = 0,
        lease_seconds: float = 30,
        claim_id: str | None = None,
        timeout: float | None = None,
        tries: int | None = None,
        abort: Abort | None = None,
    ) -> list[JsonObject]:
        """Claim up to `limit` due executions; wait up to `wait_seconds` (0..30) for the first.

        `tasks` (uids or ``project/name``) narrows the claim to these. Without `queues` the server decides: the
        queue ``default``, or wherever the named tasks are. A repeat with the same `claim_id`
        within the lease returns the same executions; one is minted for each call, so a retry is harmless.
        """
        body: JsonObject = {
            "worker": worker,
            "max": limit,
            "wait_seconds": wait_seconds,
            "lease_seconds": lease_seconds,
            "claim_id": claim_id or uuid7(),
        }
        if queues is not None:
            body["queues"] = list(queues)
        if tasks is not None:
            body["tasks"] = list(tasks)
        timeout = (self.timeout if timeout is None else timeout) + wait_seconds
        reply = self._post("/sdk/claims", body, timeout=timeout, tries=tries, abort=abort)
        return _executions(reply)

    def start(self, execution_id: str, fence: int, *, timeout: float | None = None) -> JsonObject:
        """Say that the work begins now; return the execution."""
        return self._post(_path(execution_id, "start"), {"fence": fence}, timeout=timeout)

    def heartbeat(
        self,
        execution_id: str,
        fence: int,
        *,
        progress: float | None = None,
        message: str | None = None,
        lease_seconds: float | None = None,
        checkpoint: Any = None,
        timeout: float | None = None,
    ) -> JsonObject:
        """Renew the lease, and say how far the work is.

        Return ``lease_until, cancel_requested, run_deadline, heartbeat_every_seconds``.
        """
        said = {
            "progress": progress,
            "message": self.redactor.value(message),
            "lease_seconds": lease_seconds,
            "checkpoint": self.redactor.value(checkpoint),
        }
        return self._post(_path(execution_id, "heartbeat"), _body(fence=fence, **said), timeout=timeout)

    def logs(
        self,
        execution_id: str,
        fence: int,
        first_seq: int,
        entries: Sequence[Mapping[str, Any]],
        *,
        timeout: float | None = None,
    ) -> JsonObject:
        """Append log entries, numbered from `first_seq`; return ``next_seq`` and ``cancel_requested``.

        Entries that are already stored are dropped by the server. Raise `LogGap` if earlier ones are missing.
        """
        hide = self.redactor.value
        encoded = [
            encode({key: hide(value) if key in {"message", "fields"} else value for key, value in entry.items()})
            for entry in entries
        ]
        return self.logs_encoded(execution_id, fence, first_seq, encoded, timeout=timeout)

    def logs_encoded(
        self,
        execution_id: str,
        fence: int,
        first_seq: int,
        entries: Sequence[bytes],
        *,
        timeout: float | None = None,
        tries: int | None = None,
    ) -> JsonObject:
        """Do as `logs` with entries that are JSON already, with nothing left in them to hide."""
        plain = b'{"fence":%d,"first_seq":%d,"entries":[%s]}' % (fence, first_seq, b",".join(entries))
        path, squeezed = _path(execution_id, "logs"), _gzip(plain)
        if squeezed is not None:
            packed = Request("POST", path, squeezed, {"Content-Encoding": "gzip"})
            try:
                return self._call(packed, timeout=timeout, tries=tries)
            except ApiError as error:
                if error.status not in {413, 415}:
                    raise
        return self._call(Request("POST", path, plain), timeout=timeout, tries=tries)

    def complete(
        self,
        execution_id: str,
        fence: int,
        outcome: str,
        *,
        exit_code: int | None = None,
        error: Mapping[str, str] | None = None,
        result: Any = None,
        retryable: bool = True,
        timeout: float | None = None,
    ) -> JsonObject:
        """End the attempt with `outcome`: ``finished``, ``failed``, ``cancelled`` or ``skipped``."""
        error, result = self.redactor.value(error), self.redactor.value(result)
        body = _body(fence=fence, outcome=outcome, exit_code=exit_code, error=error, result=result)
        if not retryable:
            body["retryable"] = False
        return self._post(_path(execution_id, "complete"), body, timeout=timeout)

    def complete_many(
        self, completions: Iterable[Mapping[str, Any]], *, timeout: float | None = None
    ) -> list[JsonObject]:
        """End many attempts, each given as ``id, fence, outcome`` and what else `complete` takes.

        Return ``id, status, problem`` of each in that order: a refusal is told there, not raised. They go in as many
        calls as they need; `timeout` is that of one of them.
        """
        told: list[JsonObject] = []
        words: list[JsonObject] = []
        size = 0
        for one in completions:
            hidden = {name: self.redactor.value(one[name]) for name in ("error", "result") if name in one}
            word = _body(**{**one, **hidden})
            weight = len(json.dumps(word))
            if words and (len(words) == COMPLETIONS_MAX or size + weight > COMPLETIONS_BYTES):
                told += self._post("/sdk/completions", {"completions": words}, timeout=timeout)["results"]
                words, size = [], 0
            words.append(word)
            size += weight
        if words:
            told += self._post("/sdk/completions", {"completions": words}, timeout=timeout)["results"]
        return told

    def release(self, execution_id: str, fence: int, reason: str, *, timeout: float | None = None) -> JsonObject:
        """Give the execution back; it is offered again and no attempt is consumed."""
        return self._post(
            _path(execution_id, "release"), _body(fence=fence, reason=self.redactor.text(reason)), timeout=timeout
        )

    def create(
        self,
        task: str,
        worker: str,
        *,
        id: str | None = None,  # noqa: A002  the word of the wire
        scheduled_for: str | None = None,
        started_at: str | None = None,
        lease_seconds: float = 30,
        timeout: float | None = None,
        tries: int | None = None,
    ) -> JsonObject:
        """Record a run that begins now, or began at `started_at`; it is RUNNING and leased.

        The id is minted here (UUIDv7, sorted by time) unless given; creating the same id again is harmless.
        """
        body = _body(
            id=id or uuid7(),
            task=task,
            worker=worker,
            scheduled_for=scheduled_for,
            started_at=started_at,
            lease_seconds=lease_seconds,
        )
        return self._post("/sdk/executions", body, timeout=timeout, tries=tries)

    def pending(self, limit: int = 50, task: str | None = None) -> list[JsonObject]:
        """List what is due and unclaimed, oldest first; at most 200."""
        query = urlencode(_body(limit=limit, task=task))
        return _executions(self._call(Request("GET", f"/sdk/executions/pending?{query}")))

    def get(self, execution_id: str) -> JsonObject:
        """Return the execution."""
        return self._call(Request("GET", _path(execution_id)))

    def patch(
        self,
        execution_id: str,
        status: str,
        *,
        error_message: str | None = None,
        result: Any = None,
        worker: str | None = None,
    ) -> JsonObject:
        """Set ``RUNNING``, ``FINISHED`` or ``FAILED``: the simple form, without a lease. Not retried."""
        error_message, result = self.redactor.value(error_message), self.redactor.value(result)
        body = _body(status=status, error_message=error_message, result=result, worker=worker)
        return self._call(Request("PATCH", _path(execution_id), encode(body), repeatable=False))

    def trigger(self, task: str, payload: Any = None, *, force: bool = False) -> JsonObject:
        """Ask for a run of ``project/name`` now; return the execution that waits for a worker."""
        project, _, name = task.partition("/")
        body = _body(payload=payload)
        if force:
            body["force"] = True
        path = f"/projects/{quote(project, safe='')}/tasks/{quote(name, safe='')}/trigger"
        return self._call(Request("POST", path, encode(body), {"Idempotency-Key": uuid7()}))

    def _post(
        self,
        path: str,
        body: JsonObject,
        *,
        timeout: float | None = None,
        tries: int | None = None,
        abort: Abort | None = None,
    ) -> JsonObject:
        """Send a body that the server recognises when it comes twice."""
        return self._call(Request("POST", path, encode(body)), timeout=timeout, tries=tries, abort=abort)

    def _call(
        self,
        request: Request,
        *,
        timeout: float | None = None,
        tries: int | None = None,
        abort: Abort | None = None,
    ) -> JsonObject:
        """Make the call before its deadline."""
        if self._transport is None or self._missing is not None:
            raise NotConfigured(self._missing or "the client has no URL")
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        reply: JsonObject = self._transport.call(request, deadline, tries=tries or self._tries, abort=abort)
        return reply


def _missing(url: str, token: str) -> str | None:
    """Say which of the two settings is missing."""
    names = [name for name, value in (("CRON_OBSERVER_URL", url), ("CRON_OBSERVER_TOKEN", token)) if not value]
    return f"{' and '.join(names)} not set" if names else None


def _body(**members: Any) -> JsonObject:
    """Return the members that are known."""
    return {name: value for name, value in members.items() if value is not None}


def _path(execution_id: str, verb: str = "") -> str:
    """Return the path of an execution."""
    return f"/sdk/executions/{quote(execution_id, safe='')}" + (f"/{verb}" if verb else "")


def _executions(reply: JsonObject) -> list[JsonObject]:
    """Return the executions of a list."""
    return list(reply.get("executions") or ())


def _gzip(plain: bytes) -> bytes | None:
    """Compress a body; None where it is not worth it."""
    if len(plain) < GZIP_FROM_BYTES:
        return None
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)  # 31: with the gzip frame
    packed = packer.compress(plain) + packer.flush()
    return packed if len(packed) * GZIP_RATIO >= len(plain) else None


#: The clients that stand in for that of the environment, the innermost last.
stand_ins: list[Client] = []

_default: dict[tuple[str, str], Client] = {}
_default_lock = threading.Lock()


def default_client() -> Client:
    """Return the client of the environment, shared by the process."""
    if stand_ins:
        return stand_ins[-1]
    key = (os.environ.get("CRON_OBSERVER_URL", ""), os.environ.get("CRON_OBSERVER_TOKEN", ""))
    with _default_lock:
        if key not in _default:
            _default.clear()
            _default[key] = Client()
        return _default[key]
