"""What of a task that is sent as an HTTP request the schema cannot say. Pure.

The dispatcher asks `url_fault` and `header_fault` again before each request: what is stored may be older than a rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from cron_observer.manifest import rules
from cron_observer.manifest.values import Fault, Path
from cron_observer.model import parse_duration

#: Characters of a URL.
URL_MAX: Final = 2048

#: Headers that the request gets from us, or that would change how it is sent; in lower case.
_OURS: Final = frozenset({"idempotency-key", "traceparent", "tracestate", "webhook-id", "webhook-timestamp"})
_TRANSPORT: Final = frozenset(
    {
        *("host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect"),
        *("accept-encoding", "keep-alive"),
    }
)
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "x-api-key", "x-auth-token"})
_OUR_PREFIXES: Final = ("webhook-", "x-cron-observer-", "proxy-")

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_URL: Final = re.compile(r"[\x21-\x7e]+")
_HOST: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,251}[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]+\]")


def url_fault(url: str) -> str | None:
    """Say why a URL is none that an execution is sent to; None if nothing is wrong with it."""
    if len(url) > URL_MAX:
        return f"is longer than {URL_MAX} characters"
    if not _URL.fullmatch(url):
        return "holds a blank, a control character or another one that has to be percent-encoded"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "has no host and port that can be read"
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc.rstrip(":")
    wrong = {
        "does not begin with https:// or http://": parts.scheme not in ("http", "https"),
        "holds a user or a password": "@" in parts.netloc,
        "holds a fragment, which is never sent": "#" in url,
        "names no host: letters, digits, '-' and '.', an international name as xn--…": not _HOST.fullmatch(host),
        "holds a backslash": "\\" in url,
        "has port 0": port == 0,
    }
    return next((why for why, so in wrong.items() if so), None)


def header_fault(name: str, value: str) -> str | None:
    """Say why a task may not set a header; None if it may."""
    lower = name.lower()
    if not _TOKEN.fullmatch(name):
        return "is no name of a header"
    if lower in _OURS or lower.startswith(_OUR_PREFIXES):
        return "is set by the dispatcher"
    if lower in _TRANSPORT:
        return "belongs to the connection"
    if lower in _CREDENTIALS:
        return "carries a secret"
    if not _VALUE.fullmatch(value) or value != value.strip():
        return "has a value with a line break, a blank at an end, or a character that is not ASCII"
    return None


def check(spec: Mapping[str, Any], *, partial: bool = False) -> Iterator[Fault]:
    """Yield what is wrong with ``run.http``, and with what stands beside it if the spec is a whole one."""
    run = spec.get("run")
    http = run.get("http") if isinstance(run, Mapping) else None
    if not isinstance(http, Mapping):
        return
    at: Path = ("spec", "run", "http")
    yield from _url(http, at)
    yield from _headers(http, at)
    if partial:
        return
    if http.get("method") == "GET" and http.get("body") is not None:
        message = "a GET request has no body"
        yield Fault(rules.CONTRADICTION, (*at, "body"), message, "write method: POST, or remove it")
    if isinstance(spec.get("queue"), str) and spec["queue"] != "default":
        message = "has no effect: no worker claims what is sent as a webhook"
        yield Fault(rules.NO_EFFECT, ("spec", "queue"), message, "remove it, or write run: {external: {}}")
    patience, deadline = _duration(http, "timeout"), _duration(spec, "timeout")
    if patience is not None and patience > (deadline or timedelta(hours=1)):
        message = "is never reached: the run deadline, spec.timeout, ends the attempt before"
        yield Fault(rules.NO_EFFECT, (*at, "timeout"), message, "lengthen spec.timeout, or remove it")


def _url(http: Mapping[str, Any], at: Path) -> Iterator[Fault]:
    url = http.get("url")
    why = url_fault(url) if isinstance(url, str) else None
    if why is not None:
        hint = "for example https://jobs.example.org/export; a secret goes into auth.secretRef"
        yield Fault(rules.BAD_URL, (*at, "url"), f"the URL {why}", hint)


def _headers(http: Mapping[str, Any], at: Path) -> Iterator[Fault]:
    headers, seen = http.get("headers"), set[str]()
    for name, value in headers.items() if isinstance(headers, Mapping) else ():
        if not isinstance(name, str) or not isinstance(value, str):
            continue
        why = header_fault(name, value) or ("stands there twice" if name.lower() in seen else None)
        seen.add(name.lower())
        if why is not None:
            hint = "remove it" if why != "carries a secret" else "name the secret in auth: {secretRef, header}"
            yield Fault(rules.HEADER_NOT_ALLOWED, (*at, "headers", name), f"the header {why}", hint)
    auth = http.get("auth")
    header = auth.get("header") if isinstance(auth, Mapping) else None
    if isinstance(header, str) and header.lower() not in _CREDENTIALS:
        why = header_fault(header, "") or ("is set by headers too" if header.lower() in seen else None)
        if why is not None:
            yield Fault(rules.HEADER_NOT_ALLOWED, (*at, "auth", "header"), f"the header {why}", "name another one")


def _duration(block: Mapping[str, Any], name: str) -> timedelta | None:
    value = block.get(name)
    try:
        return parse_duration(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
