"""JSON and text as the wire wants them. Nothing here raises on what it is handed."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import Any

JsonObject = dict[str, Any]

#: Largest result that the server stores.
RESULT_BYTES = 64 * 1024


def clean(text: str) -> str:
    """Return text that UTF-8 and the database can hold: no NUL, no lone surrogate."""
    if "\x00" in text:
        text = text.replace("\x00", "\u2400")
    return text if _encodable(text) else text.encode("utf-8", "replace").decode("utf-8")


def _dumps(value: Any) -> str:
    """Encode compactly. Raise `TypeError` or `ValueError` for what JSON cannot hold (NaN included)."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def encode(value: Any) -> bytes:
    """Encode a request body. Raise `TypeError` or `ValueError` for what JSON cannot hold (NaN included)."""
    return strict_json(value).encode("utf-8")


def _cleaned(value: Any) -> Any:
    """Copy a JSON value with every text in it cleaned."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): _cleaned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(item) for item in value]
    return value


def strict_json(value: Any) -> str:
    """Encode a value as JSON that the server takes. Raise `TypeError` or `ValueError` where none can be."""
    try:
        dumped = _dumps(value)
        if "\\u0000" in dumped or not _encodable(dumped):
            dumped = _dumps(_cleaned(value))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return dumped


def _encodable(text: str) -> bool:
    """Say whether UTF-8 can hold the text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _speakable(value: Any) -> str:
    """Say a value that JSON does not know in words."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001  somebody else's __str__ must not end the work
        return f"<{type(value).__name__}>"


def lenient_json(fields: JsonObject) -> str:
    """Encode the fields of a log line: what JSON cannot hold becomes its text."""
    try:
        return strict_json(fields)
    except (TypeError, ValueError):
        return strict_json({str(key): _lenient(value) for key, value in fields.items()})


def _lenient(value: Any) -> Any:
    """Return the value as JSON knows it, else its text."""
    try:
        return json.loads(strict_json(value))
    except (TypeError, ValueError):
        return _speakable(value)


def result_json(value: Any) -> tuple[Any, str | None]:
    """Return (the result as JSON, None), or (None, why it cannot be stored)."""
    try:
        dumped = strict_json(value)
    except (TypeError, ValueError) as error:
        return None, f"the result cannot be stored: {error}; return JSON values only"
    size = len(dumped.encode("utf-8"))
    if size > RESULT_BYTES:
        return None, f"the result cannot be stored: {size} bytes of JSON, {RESULT_BYTES} are allowed"
    return json.loads(dumped), None


def decode_json(body: bytes) -> Any:
    """Decode a body. Raise `ValueError` where it is no JSON."""
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def timestamp(seconds: float) -> str:
    """Write Unix seconds as RFC 3339 UTC with milliseconds."""
    whole, rest = divmod(round(seconds * 1000), 1000)
    parts = time.gmtime(whole)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', parts)}.{rest:03d}Z"


def moment(text: str | None) -> datetime | None:
    """Read an RFC 3339 instant of the server; None stays None."""
    if text is None:
        return None
    text = text[:-1] + "+00:00" if text.endswith("Z") else text
    return datetime.fromisoformat(text).astimezone(timezone.utc)


def headline(text: str, limit: int = 4096) -> str:
    """Cut a message to what is worth sending, cleaned."""
    text = clean(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
