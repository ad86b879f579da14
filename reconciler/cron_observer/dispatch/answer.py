"""What a destination's answer means: how the execution ended, when to try again, and what is shown of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

#: Bytes of an answer's body that are read and kept.
BODY_MAX: Final = 64 * 1024

#: Bytes of a result as JSON.
RESULT_MAX: Final = 64 * 1024

#: Characters of a body that the event of an attempt shows.
_START: Final = 1_024

#: The longest that a destination may make us wait.
RETRY_AFTER_MAX: Final = timedelta(hours=1)

#: Statuses after which the same request may fare better, beside 5xx.
_AGAIN: Final = frozenset({408, 425, 429})

#: Statuses whose Retry-After is heeded.
_TELLS_WHEN: Final = frozenset({429, 503})

#: Headers of an answer that its event shows, and how much of each.
_SHOWN: Final = ("content-type", "content-length", "date", "location", "retry-after", "server", "x-request-id")
_HEADER_MAX: Final = 256

#: How HTML writes some characters.
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;", " ": r"\+"}

#: What neither a JSON column nor a page can hold.
_UNFIT: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came back for a request, or why nothing did.

    `failure` is a word for what went wrong on the way; then there is no status, or one whose answer broke off.
    """

    status: int | None = None
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    cut: bool = False  #: the body went on beyond `BODY_MAX`
    failure: str | None = None
    detail: str = ""
    final: bool = False  #: the same request would fare no better
    address: str | None = None  #: where the request went
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What an answer means. `outcome` is finished, failed or accepted."""

    outcome: str
    retryable: bool = False
    wait: timedelta | None = None
    error: Mapping[str, Any] | None = None
    result: Any = None


def judge(answered: Answered, secrets: Collection[str], now: datetime) -> Judged:
    """Say what an answer means; `now` is for a Retry-After that names a date. No secret is in what is returned."""
    status = answered.status
    if answered.failure is not None or status is None:
        detail, kind = _without(answered.detail, secrets), answered.failure or "no_answer"
        return Judged(outcome="failed", retryable=not answered.final, error=_error(kind, detail))
    if status == 202:
        return Judged(outcome="accepted")
    if 200 <= status < 300:
        return Judged(outcome="finished", result=_result(answered, secrets))
    said = " ".join(_text(answered, secrets)[:200].split())
    message = f"HTTP {status}{': ' if said else ''}{said}"
    if 300 <= status < 400:
        message = f"HTTP {status}: redirects are not followed; write the address that answers into the manifest"
    again = status in _AGAIN or status >= 500
    wait = _retry_after(answered.headers, now) if status in _TELLS_WHEN else None
    return Judged(outcome="failed", retryable=again, wait=wait, error=_error(f"http_{status}", message))


def shown(answered: Answered, secrets: Collection[str]) -> dict[str, Any]:
    """Return what the event of an attempt says of its answer, without any of the secrets."""
    headers = {}
    for name, value in answered.headers:
        if name.lower() in _SHOWN and name.lower() not in headers:
            headers[name.lower()] = _UNFIT.sub("\ufffd", _without(value, secrets))[:_HEADER_MAX]
    told: dict[str, Any] = {
        "status": answered.status,
        "duration_seconds": round(answered.seconds, 3),
        "address": answered.address,
        "headers": headers,
        "body": _text(answered, secrets)[:_START],
        "body_cut": answered.cut,
    }
    if answered.failure is not None:
        told |= {"failure": answered.failure, "detail": _without(answered.detail, secrets)}
    return {name: value for name, value in told.items() if value not in (None, "", {}, False)}


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": kind, "message": _UNFIT.sub("\ufffd", message), "traceback": None}


def _without(text: str, secrets: Collection[str]) -> str:
    # the longest first: one may hold another
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = re.sub("".join(map(_forms, secret)), "***", text)
    return text


def _forms(character: str) -> str:
    """Return a pattern for all the ways in which JSON, URLs and HTML write a character."""
    plain = re.escape(character)
    if character.isalnum():
        return plain
    code = ord(character)
    forms = [plain, rf"\\{plain}", rf"(?i:\\u{code:04x})", rf"(?i:&#0*{code};|&#x0*{code:x};)"]
    forms.append("".join(f"(?i:%{byte:02x})" for byte in character.encode()))
    forms += [_ENTITIES[character]] if character in _ENTITIES else []
    return f"(?:{'|'.join(forms)})"


def _is_encoded(answered: Answered) -> bool:
    coded = next((value for name, value in answered.headers if name.lower() == "content-encoding"), "identity")
    return coded.strip().lower() not in ("", "identity")


def _text(answered: Answered, secrets: Collection[str]) -> str:
    """Return the body as text; one that is compressed in spite of what we asked for is not unpacked."""
    if _is_encoded(answered):
        return ""
    return _UNFIT.sub("\ufffd", _without(answered.body.decode("utf-8", "replace"), secrets))


def _result(answered: Answered, secrets: Collection[str]) -> Any:
    """Return the body as JSON if it says that it is, whole and fit to be stored; else as text, None if empty."""
    kind = next((value for name, value in answered.headers if name.lower() == "content-type"), "")
    text = _text(answered, secrets)
    if "json" in kind.partition(";")[0].lower() and not answered.cut:
        try:
            value = msgspec.json.decode(text)
            plain = msgspec.json.encode(value)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            pass
        else:
            if len(plain) <= RESULT_MAX and b"\\u0000" not in plain and _is_shallow(value):
                return value
    while len(msgspec.json.encode(text)) > RESULT_MAX:
        text = text[: len(text) * 9 // 10]
    return text or None


def _is_shallow(value: Any) -> bool:
    """Tell whether a value is nested no deeper than other results may be."""
    layer = [value]
    for _ in range(64):
        layer = [
            inner
            for one in layer
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not layer:
            return True
    return False


def _retry_after(headers: Sequence[tuple[str, str]], now: datetime) -> timedelta | None:
    """Return how long a destination wants to be left alone, at most an hour; None if it does not say."""
    said = next((value.strip() for name, value in headers if name.lower() == "retry-after"), "")
    if said.isascii() and said.isdigit():
        return min(timedelta(seconds=int(said[:9])), RETRY_AFTER_MAX)
    try:
        at = parsedate_to_datetime(said)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return min(max(at - now, timedelta(0)), RETRY_AFTER_MAX)
