"""Lines on their way into a log: columns rather than rows, so that a thousand lines cost little more than one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR")

#: The place of a level in `LEVELS`.
NUMBER: Final = {name: number for number, name in enumerate(LEVELS)}

#: Bytes of one message in UTF-8, and of its fields as JSON; what is longer is cut and says so.
MESSAGE_MAX: Final = 16 * 1024

#: What a line weighs beside its text: its end, its level, its time.
LINE_COST: Final = 14

#: What is to be known of a line: bytes that were no UTF-8 have been replaced; it goes on from the line before,
#: which was too long for one; its end has been cut off.
REPLACED: Final = 1
CONTINUED: Final = 2
CUT: Final = 4

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(slots=True, kw_only=True)
class Lines:
    """Consecutive lines ready to be stored."""

    texts: Sequence[bytes]  #: UTF-8
    levels: bytes  #: places in `LEVELS`
    stamps: Sequence[int] | None = None  #: milliseconds since 1970 by the worker's clock; `NO_STAMP`; None: no line
    fields: Mapping[int, bytes] = field(default_factory=dict)  #: line -> JSON
    flags: Mapping[int, int] = field(default_factory=dict)  #: line -> `REPLACED` and the like
    size: int = -1  #: raw bytes, as caps count them

    def __post_init__(self) -> None:
        if self.size < 0:
            self.size = weigh(self.texts, self.fields)

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, first: int, last: int | None = None) -> Lines:
        """Return the lines from `first` to before `last`."""
        last = len(self) if last is None else min(last, len(self))
        if first == 0 and last == len(self):
            return self
        return Lines(
            texts=self.texts[first:last],
            levels=self.levels[first:last],
            stamps=None if self.stamps is None else self.stamps[first:last],
            fields={n - first: said for n, said in self.fields.items() if first <= n < last},
            flags={n - first: flag for n, flag in self.flags.items() if first <= n < last},
        )


#: Stands for a line without a time of its own.
NO_STAMP: Final = -(1 << 63)


def weigh(texts: Sequence[bytes], fields: Mapping[int, bytes]) -> int:
    """Return the raw bytes of lines, the same whether they are stored together or apart."""
    return sum(map(len, texts)) + LINE_COST * len(texts) + sum(map(len, fields.values()))


def stamp(at: datetime) -> int:
    """Return an instant as milliseconds since 1970."""
    return (at - _EPOCH) // _MILLISECOND


def make(
    messages: Sequence[str],
    levels: Iterable[str],
    stamps: Sequence[int] | None = None,
    fields: Mapping[int, bytes] | None = None,
) -> Lines:
    """Make lines of their columns; messages and fields that are too long are cut."""
    flags: dict[int, int] = {}
    if messages and 4 * max(map(len, messages)) > MESSAGE_MAX:
        texts = [_fitting(message, number, flags) for number, message in enumerate(messages)]
    else:
        texts = [message.encode() for message in messages]
    kept = {}
    for number, said in (fields or {}).items():
        if len(said) > MESSAGE_MAX:
            flags[number] = flags.get(number, 0) | CUT
            kept[number] = msgspec.json.encode({"cut": f"{len(said)} bytes of fields"})
        else:
            kept[number] = said
    return Lines(texts=texts, levels=bytes(map(NUMBER.__getitem__, levels)), stamps=stamps, fields=kept, flags=flags)


def _fitting(message: str, number: int, flags: dict[int, int]) -> bytes:
    raw = message.encode()
    if len(raw) <= MESSAGE_MAX:
        return raw
    flags[number] = CUT
    kept = raw[:MESSAGE_MAX].decode(errors="ignore").encode()
    return kept + f" … [cut: {len(raw) - MESSAGE_MAX} bytes more]".encode()


def encode(entries: Iterable[Mapping[str, Any]]) -> Lines:
    """Make lines of log entries (``ts`` as ISO text, ``level``, ``message``, ``fields``)."""
    given = list(entries)
    times = [entry.get("ts") for entry in given]
    return make(
        [entry["message"] for entry in given],
        [entry["level"] for entry in given],
        [NO_STAMP if ts is None else stamp(datetime.fromisoformat(ts)) for ts in times] if any(times) else None,
        {n: msgspec.json.encode(entry["fields"]) for n, entry in enumerate(given) if entry.get("fields") is not None},
    )


def split(raw: bytes, level: str = "INFO", *, continues: bool = False) -> Lines:
    """Make lines of plain text; it may go on in the middle of a line.

    Lines end with a newline, before which a carriage return goes; what is too long goes on in the next line, and
    what stands behind the last newline is a line as well. Bytes that are no UTF-8 are replaced, with a flag.
    """
    pieces = raw.split(b"\n")
    if pieces[-1] == b"":
        pieces.pop()
    flags = {0: CONTINUED} if continues and pieces else {}
    if raw.count(b"\r"):
        pieces = [piece[:-1] if piece.endswith(b"\r") else piece for piece in pieces]
    texts = pieces
    if pieces and max(map(len, pieces)) > MESSAGE_MAX:
        texts = []
        for piece in pieces:
            for first, last in _cuts(piece):
                if first:
                    flags[len(texts)] = CONTINUED
                texts.append(piece[first:last])
    if not raw.isascii():
        _replace(texts, flags)
    return Lines(texts=texts, levels=bytes([NUMBER[level]]) * len(texts), flags=flags)


def _cuts(text: bytes) -> Iterable[tuple[int, int]]:
    """Cut a long line where no character is torn apart."""
    if len(text) <= MESSAGE_MAX:
        yield 0, len(text)
        return
    first = 0
    while first < len(text):
        last = min(first + MESSAGE_MAX, len(text))
        if last < len(text):
            back = last
            while last - back < 3 and text[back] & 0xC0 == 0x80:
                back -= 1
            last = last if text[back] & 0xC0 == 0x80 else back
        yield first, last
        first = last


def _replace(texts: list[bytes], flags: dict[int, int]) -> None:
    for number, text in enumerate(texts):
        if text.isascii():
            continue
        try:
            text.decode()
        except UnicodeDecodeError:
            texts[number] = text.decode(errors="replace").encode()
            flags[number] = flags.get(number, 0) | REPLACED
