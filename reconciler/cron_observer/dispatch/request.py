"""The request that carries one attempt of an execution. Pure.

Our headers are set after the task's own, which cannot take their place: what they say is what a receiver relies on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from cron_observer.dispatch.signature import sign
from cron_observer.errors import InvalidSpec
from cron_observer.manifest.webhooks import header_fault, url_fault

_USER_AGENT: Final = "cron-observer"

#: Methods whose request has no body unless the task gives one.
_BARE: Final = frozenset({"GET", "DELETE"})

#: What of an execution is not sent: the token has a header of its own.
_LEFT_OUT: Final = frozenset({"run_token"})


@dataclass(frozen=True, slots=True)
class Destination:
    """Where requests of a tenant go: what bears on one has nothing to do with another."""

    tenant_id: UUID
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request as it is sent. `secrets` are the texts in it that nobody else may see."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]] = field(repr=False)
    body: bytes = field(repr=False)
    secrets: Sequence[str] = field(repr=False, default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a request proves itself with: the run token, what `auth` names, and the keys that sign."""

    token: str = field(repr=False)
    auth: str | None = field(repr=False, default=None)
    keys: Sequence[bytes] = field(repr=False, default=())


def destination(tenant_id: UUID, url: str) -> Destination:
    """Return where a URL leads; one that cannot be read leads nowhere, together with all others of its kind."""
    if url_fault(url) is not None:
        return Destination(tenant_id, "", 0)
    parts = urlsplit(url)
    return Destination(
        tenant_id, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)
    )


def message(
    http: Mapping[str, Any],
    execution: Mapping[str, Any],
    credentials: Credentials,
    *,
    deadline: datetime,
    now: datetime,
) -> Message:
    """Make the request for an execution, which is in its wire shape, of a task's ``run.http``.

    Raises `InvalidSpec` when what is stored may not be sent.
    """
    url, method = str(http["url"]), str(http.get("method") or "POST")
    why = url_fault(url)
    if why is not None:
        raise InvalidSpec(f"the URL {why}", hint="mend run.http.url of the task")
    body, kind = _body(http, method, execution)
    headers = _own(http.get("headers") or {})
    if kind is not None:
        headers.setdefault("content-type", ("Content-Type", kind))
    headers.setdefault("user-agent", ("User-Agent", _USER_AGENT))
    headers.setdefault("accept", ("Accept", "application/json, text/plain, */*"))
    name, value = _authorization(http, credentials.auth)
    if value is not None:
        headers[name.lower()] = (name, value)
    ours = _ours(execution, credentials, body, deadline=deadline, now=now)
    headers |= {name.lower(): (name, value) for name, value in ours.items()}
    secrets = [credentials.token, credentials.auth, value, *ours.get("webhook-signature", "").split()]
    return Message(
        method=method,
        url=url,
        headers=list(headers.values()),
        body=body,
        secrets=[one for one in secrets if one],
    )


def _own(given: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    headers: dict[str, tuple[str, str]] = {}
    for name, value in given.items():
        why = header_fault(name, str(value))
        if why is not None:
            raise InvalidSpec(f"the header {name[:64]!r} {why}", hint="mend run.http.headers of the task")
        headers[name.lower()] = (name, str(value))
    return headers


def _body(http: Mapping[str, Any], method: str, execution: Mapping[str, Any]) -> tuple[bytes, str | None]:
    given = http.get("body")
    if given is None:
        if method in _BARE:
            return b"", None
        shown = {name: value for name, value in execution.items() if name not in _LEFT_OUT}
        return msgspec.json.encode(shown), "application/json"
    if isinstance(given, str):
        return given.encode(), "text/plain; charset=utf-8"
    return msgspec.json.encode(given), "application/json"


def _authorization(http: Mapping[str, Any], secret: str | None) -> tuple[str, str | None]:
    header = str((http.get("auth") or {}).get("header") or "Authorization")
    if secret is None:
        return header, None
    if not (secret.isascii() and secret.isprintable()):
        raise InvalidSpec("the secret of run.http.auth is no text that a header can carry", hint="mend the secret")
    bearer = header.lower() == "authorization" and " " not in secret
    return header, f"Bearer {secret}" if bearer else secret


def _ours(
    execution: Mapping[str, Any], credentials: Credentials, body: bytes, *, deadline: datetime, now: datetime
) -> dict[str, str]:
    identity = UUID(str(execution["id"]))
    task, timestamp = execution["task"], int(now.timestamp())
    headers = {
        "webhook-id": str(identity),
        "webhook-timestamp": str(timestamp),
        "Idempotency-Key": str(identity),
        "X-Cron-Observer-Task": f"{task['project']}/{task['name']}",
        "X-Cron-Observer-Attempt": str(execution["attempt"]),
        "X-Cron-Observer-Fence": str(execution["fence"]),
        "X-Cron-Observer-Deadline": _instant(deadline),
        "X-Cron-Observer-Run-Token": credentials.token,
        "traceparent": _trace(identity, execution["fence"]),
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    if execution.get("scheduled_for") is not None:
        headers["X-Cron-Observer-Scheduled-For"] = str(execution["scheduled_for"])
    if credentials.keys:
        headers["webhook-signature"] = sign(credentials.keys, str(identity), timestamp, body)
    return headers


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace(identity: UUID, fence: int) -> str:
    """Return a trace for the execution, with a span for the attempt."""
    span = hashlib.sha256(identity.bytes + fence.to_bytes(8)).hexdigest()[:16]
    return f"00-{identity.hex}-{span}-01"
