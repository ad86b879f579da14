"""Lines of a log before they are sent: cheap to take, cut to what the server stores, encoded late."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from cron_observer_sdk.text import JsonObject, clean, lenient_json, strict_json, timestamp

#: Longest line in bytes; a longer one becomes several.
LINE_BYTES = 16 * 1024
#: What a line costs beside its text.
OVERHEAD_BYTES = 64

_LEVELS = {
    "TRACE": "DEBUG",
    "DEBUG": "DEBUG",
    "INFO": "INFO",
    "NOTICE": "INFO",
    "WARN": "WARN",
    "WARNING": "WARN",
    "ERROR": "ERROR",
    "EXCEPTION": "ERROR",
    "CRITICAL": "ERROR",
    "FATAL": "ERROR",
}


class Line(NamedTuple):
    """One entry of a log."""

    at: float  #: Unix seconds
    level: str
    message: str | bytes  #: bytes are UTF-8, more or less
    fields: str | None  #: JSON
    size: int  #: bytes in memory, about
    is_note: bool = False  #: by the SDK itself
    encoded: bytes | None = None  #: as the wire wants it, where that is all that is left of it


def level_name(level: str | int) -> str:
    """Return DEBUG, INFO, WARN or ERROR for the names and numbers that are in use; INFO for others."""
    if isinstance(level, str):
        return _LEVELS.get(level.upper(), "INFO")
    if level >= 40:
        return "ERROR"
    if level >= 30:
        return "WARN"
    return "INFO" if level >= 20 else "DEBUG"


def note(message: str) -> Line:
    """Make a line by the SDK itself."""
    return Line(time.time(), "WARN", message, '{"by":"cron-observer-sdk"}', len(message), is_note=True)


def ready(encoded: bytes) -> Line:
    """Make a line of what was encoded before."""
    return Line(0.0, "", "", None, len(encoded), encoded=encoded)


def without_fields(line: Line) -> Line:
    """Return the line with its fields as a part of the text: numbers beyond 64 bits, say, are refused as JSON."""
    text = line.message if isinstance(line.message, str) else line.message.decode("utf-8", "replace")
    return line._replace(message=f"{text} {line.fields}"[:LINE_BYTES], fields=None)


def make_lines(at: float, level: str, message: str | bytes, fields: JsonObject | None) -> Iterator[Line]:
    """Make one line, or several from a message that is too long for one."""
    encoded = None
    if fields:
        encoded = lenient_json(fields)
        if len(encoded) > LINE_BYTES:
            encoded = strict_json({"too_large": encoded[: LINE_BYTES // 4]})
    extra = OVERHEAD_BYTES + (len(encoded) if encoded else 0)
    if isinstance(message, str) and len(message) * 4 > LINE_BYTES:
        message = clean(message).encode("utf-8")
    if isinstance(message, str) or len(message) <= LINE_BYTES:
        yield Line(at, level, message, encoded, len(message) + extra)
        return
    while message:
        cut = whole_characters(message, LINE_BYTES)
        yield Line(at, level, message[:cut], encoded, cut + extra)
        message = message[cut:]


def whole_characters(text: bytes, limit: int) -> int:
    """Return how many bytes, at most `limit`, can be taken without cutting a UTF-8 character."""
    if len(text) <= limit:
        return len(text)
    cut = limit
    while cut > limit - 4 and text[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut if text[cut] & 0xC0 != 0x80 else limit


def encode_line(line: Line) -> bytes:
    """Encode an entry as the wire wants it."""
    if line.encoded is not None:
        return line.encoded
    message = line.message
    if isinstance(message, bytes):
        message = message.decode("utf-8", "replace")
    fields = f',"fields":{line.fields}' if line.fields else ""
    text = f'{{"ts":"{timestamp(line.at)}","level":"{line.level}","message":{strict_json(message)}{fields}}}'
    return text.encode("utf-8")
