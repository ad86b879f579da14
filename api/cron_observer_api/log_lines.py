"""Batches of log lines, read strictly but fast: what is plainly in order is not looked at twice.

`body.decode` walks through every key in Python, to refuse what comes twice. Here the keys are counted instead: in a
batch whose keys are written plainly and occur exactly as often as its lines have values for them, none comes twice.
Whatever is not so plain is read by `body.decode`, which accepts it or says what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from cron_observer.errors import BadRequest
from cron_observer.store import logs
from cron_observer_api import body as bodies
from cron_observer_api import wire

#: Times of clients lie between these; what lies outside cannot be stored, or read again.
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_END: Final = logs.stamp(LATEST)

#: Escapes by which a key could be written in another way; NUL, and halves of characters.
_ESCAPES: Final = (rb"\u005", rb"\u006", rb"\u007", rb"\u0000", rb"\ud", rb"\uD")


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    message: str
    level: wire.Level
    ts: wire.GivenInstant | None = None
    fields: msgspec.Raw = msgspec.Raw(b"")


class _TextLine(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    message: str
    level: wire.Level = "INFO"
    ts: wire.GivenInstant | None = None
    fields: msgspec.Raw = msgspec.Raw(b"")


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    fence: wire.Fence
    first_seq: wire.Sequence
    entries: list[_Line]


class LogLine(wire.In):
    """One line."""

    level: wire.Level
    message: str
    ts: wire.GivenInstant | None = None
    fields: dict[str, Any] | None = None


class TextLine(wire.In):
    """One line of NDJSON: INFO unless it says otherwise."""

    message: str
    level: wire.Level = "INFO"
    ts: wire.GivenInstant | None = None
    fields: dict[str, Any] | None = None


_BATCH: Final = msgspec.json.Decoder(_Batch)
_LINE: Final = msgspec.json.Decoder(_TextLine)

#: The keys of a batch itself.
_ONCE: Final = (b'"fence"', b'"first_seq"', b'"entries"')


def batch(raw: bytes, shape: type[Any], most: int) -> tuple[int, int, logs.Lines]:
    """Return fence, first number and lines of a batch; `shape` is what it is declared as, with at most `most` lines."""
    try:
        plain = _BATCH.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        plain = None
    if plain is not None and 0 < len(plain.entries) <= most and _sound(raw, plain.entries):
        return plain.fence, plain.first_seq, _lines(plain.entries, "/entries/{}/ts")
    asked = bodies.decode(raw, shape)
    return asked.fence, asked.first_seq, _slowly(asked.entries, "/entries/{}/ts")


def ndjson(raw: bytes) -> logs.Lines:
    """Return the lines of NDJSON, an object each; empty lines count for nothing.

    Raises `BadRequest` whose pointer begins with the number of the line in `raw`, from 0.
    """
    kept = [(number, piece) for number, piece in enumerate(raw.split(b"\n")) if piece.strip()]
    try:
        plain = [_LINE.decode(piece) for _, piece in kept]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        plain = []
    said = raw.count(b'"level"')
    if plain and said in (0, len(plain)) and _in_order(raw, plain, (), levels=said):
        return _lines(plain, "/{}/ts")
    return _slowly([_decoded(piece, number) for number, piece in kept], "/{}/ts")


def _decoded(piece: bytes, number: int) -> TextLine:
    try:
        return bodies.decode(piece, TextLine)
    except BadRequest as error:
        error.facts["pointer"] = f"/{number}{error.facts.get('pointer', '')}"
        raise


def _sound(raw: bytes, entries: Sequence[_Line]) -> bool:
    """Say whether no key of a batch comes twice, and nothing is in it that would have to be refused."""
    if b"\\" in raw or not raw.isascii():
        return _in_order(raw, entries, _ONCE, levels=len(entries))
    # Without escapes each text is between two quotes. What comes twice, or is null, makes more of them than this.
    texts = len(_ONCE) + 4 * len(entries) + 2 * sum(entry.ts is not None for entry in entries)
    texts += sum(1 + bytes(entry.fields).count(b'"') // 2 for entry in entries if entry.fields)
    return raw.count(b'"') == 2 * texts


def _in_order(raw: bytes, entries: Sequence[_Line | _TextLine], once: Sequence[bytes], *, levels: int) -> bool:
    """Say whether no key can come twice, and nothing is in it that would have to be refused."""
    if any(escape in raw for escape in _ESCAPES):
        return False
    if not raw.isascii():
        try:
            raw.decode()
        except UnicodeDecodeError:
            return False
    many = len(entries)
    if any(raw.count(key) != 1 for key in once):
        return False
    if raw.count(b'"message"') != many or raw.count(b'"level"') != levels:
        return False
    if raw.count(b'"ts"') != sum(entry.ts is not None for entry in entries):
        return False
    return raw.count(b'"fields"') == sum(bool(entry.fields) for entry in entries)


def _lines(entries: Sequence[_Line | _TextLine], pointer: str) -> logs.Lines:
    given = {
        number: bytes(entry.fields)
        for number, entry in enumerate(entries)
        if entry.fields and bytes(entry.fields) != b"null"
    }
    for said in given.values():
        bodies.decode(said, dict[str, Any])
    return logs.make(
        [entry.message for entry in entries],
        [entry.level for entry in entries],
        _stamps([entry.ts for entry in entries], pointer),
        given,
    )


def _slowly(entries: Sequence[Any], pointer: str) -> logs.Lines:
    return logs.make(
        [entry.message for entry in entries],
        [entry.level for entry in entries],
        _stamps([entry.ts for entry in entries], pointer),
        {number: msgspec.json.encode(entry.fields) for number, entry in enumerate(entries) if entry.fields is not None},
    )


def _stamps(times: Sequence[datetime | None], pointer: str) -> list[int] | None:
    """Return times in milliseconds, None when no line has one. Raises `BadRequest` for one that is out of range."""
    whole = [at for at in times if at is not None]
    if not whole:
        return None
    stamps = [round(seconds * 1_000_000) // 1000 for seconds in map(datetime.timestamp, whole)]
    if min(stamps) < 0 or max(stamps) >= _END:
        for number, at in enumerate(times):
            sane(at, pointer.format(number))
    if len(whole) == len(times):
        return stamps
    following = iter(stamps)
    return [logs.NO_STAMP if at is None else next(following) for at in times]


def sane(at: datetime | None, pointer: str) -> datetime | None:
    """Return a time that a client gave, or raise `BadRequest` where no work of ours can have been."""
    if at is not None and not EARLIEST <= at < LATEST:
        raise BadRequest("the time is out of range", hint="send the time of now, in UTC", pointer=pointer)
    return at
