"""Chunks: some 64 KiB of lines as compressed columns, with the place of every line, its level and its time.

Only as much of a chunk is inflated as the lines asked for need: what stands in front says where each line ends.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from struct import Struct
from typing import Any, Final

import msgspec

from cron_observer.errors import CronObserverError
from cron_observer.store.logs.lines import LEVELS, LINE_COST, NO_STAMP, Lines, encode

#: Raw bytes of a chunk, about: little enough to be read for one line, enough to compress well.
CHUNK_BYTES: Final = 64 * 1024

#: A chunk below this many raw bytes, some hundred lines, is loose: it is packed with its neighbours when there are
#: many. To pack larger ones as well would cost about as much as to have stored them, and save little.
LOOSE_BYTES: Final = CHUNK_BYTES // 8

#: Version, what is there, arrivals, lines, bytes of text, bytes of what only some lines have.
_HEAD: Final = Struct("<BBHIII")
_ARRIVAL: Final = Struct("<Iq")
_VERSION: Final = 1
_STAMPS, _ASCII, _MORE = 1, 2, 4

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ChunkError(CronObserverError):
    """A stored chunk cannot be read."""

    code = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Lines ready to be stored. `first_seq` is the worker's number of the first one."""

    first_seq: int
    lines: int
    raw_bytes: int
    levels: int  #: a bit for each level that occurs
    counts: tuple[int, int, int, int]  #: lines of each level
    data: bytes
    codec: str = "lines"

    @property
    def loose(self) -> bool:
        """Say whether it is too small to stay as it is."""
        return self.raw_bytes < LOOSE_BYTES


def _numbers(code: str, values: Iterable[int]) -> bytes:
    column = array(code, values)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _column(code: str, raw: bytes) -> array[int]:
    column = array(code)
    column.frombytes(raw)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def pack_one(first_seq: int, lines: Lines, arrivals: Sequence[tuple[int, datetime]] = ()) -> Chunk:
    """Compress lines into one chunk. `arrivals` are (lines, instant), where not all came at once."""
    text = b"\n".join(lines.texts)
    ends = accumulate((len(one) + 1 for one in lines.texts), initial=-1)
    next(ends)
    more = b""
    if lines.fields or lines.flags:
        kept = {str(n): msgspec.Raw(said) for n, said in lines.fields.items()}
        more = msgspec.json.encode([kept, {str(n): flag for n, flag in lines.flags.items()}])
    what = (_STAMPS if lines.stamps is not None else 0) | (_ASCII if text.isascii() else 0) | (_MORE if more else 0)
    parts = [_HEAD.pack(_VERSION, what, len(arrivals), len(lines), len(text), len(more))]
    parts += [_ARRIVAL.pack(n, (at - _EPOCH) // timedelta(microseconds=1)) for n, at in arrivals]
    parts += [_numbers("I", ends), lines.levels]
    if lines.stamps is not None:
        parts.append(_numbers("q", lines.stamps))
    parts += [text, more]
    counts = tuple(lines.levels.count(level) for level in range(len(LEVELS)))
    return Chunk(
        first_seq=first_seq,
        lines=len(lines),
        raw_bytes=lines.size,
        levels=sum(1 << level for level, count in enumerate(counts) if count),
        counts=counts,  # type: ignore[arg-type]  # as many as there are levels
        data=zlib.compress(b"".join(parts), 1),
    )


def pack_lines(first_seq: int, lines: Lines) -> list[Chunk]:
    """Compress lines into as many chunks as they need."""
    if lines.size <= CHUNK_BYTES:
        return [pack_one(first_seq, lines)]
    chunks, first, size = [], 0, 0
    for number, text in enumerate(lines.texts):
        cost = len(text) + LINE_COST + len(lines.fields.get(number, b""))
        if number > first and size + cost > CHUNK_BYTES:
            chunks.append(pack_one(first_seq + first, lines.part(first, number)))
            first, size = number, 0
        size += cost
    chunks.append(pack_one(first_seq + first, lines.part(first)))
    return chunks


def pack(first_seq: int, entries: Iterable[Mapping[str, Any]]) -> Chunk:
    """Compress log entries as `encode` takes them into one chunk."""
    return pack_one(first_seq, encode(entries))


@dataclass(slots=True)
class Opened:
    """The lines of a chunk, as far as they were asked for."""

    first_seq: int
    lines: int  #: how many it holds; texts may be there of the first ones only
    levels: bytes
    ends: Sequence[int]  #: behind the last byte of each text
    text: bytes
    ascii: bool
    stamps: Sequence[int] | None
    arrivals: Sequence[tuple[int, datetime]]
    fields: Mapping[int, bytes]
    flags: Mapping[int, int]

    def start(self, number: int) -> int:
        """Return where the text of a line begins."""
        return self.ends[number - 1] + 1 if number else 0

    def raw(self, number: int) -> bytes:
        """Return the text of a line."""
        return self.text[self.start(number) : self.ends[number]]

    def stamp(self, number: int) -> int | None:
        """Return the time of a line by the worker's clock, in milliseconds since 1970."""
        at = NO_STAMP if self.stamps is None else self.stamps[number]
        return None if at == NO_STAMP else at

    def arrived(self, number: int) -> datetime:
        """Return when a line came."""
        for count, at in self.arrivals:
            if number < count:
                return at
            number -= count
        return self.arrivals[-1][1]

    def lines_of(self) -> Lines:
        """Return all of it as lines, to be packed anew."""
        texts = [self.raw(number) for number in range(self.lines)]
        return Lines(texts=texts, levels=self.levels, stamps=self.stamps, fields=self.fields, flags=self.flags)

    def pick(self, first: int, lowest: int = 0, needle: str | None = None) -> Sequence[int]:
        """Return the lines from `first` on of at least the level `lowest` that contain `needle`, casefolded."""
        if needle:
            found: Iterable[int] = self._search(first, needle)
            return [number for number in found if self.levels[number] >= lowest] if lowest else list(found)
        if lowest and min(self.levels) < lowest:
            return [number for number in range(first, self.lines) if self.levels[number] >= lowest]
        return range(first, self.lines)

    def _search(self, first: int, needle: str) -> Iterator[int]:
        if not self.ascii:
            for number in range(first, self.lines):
                if needle in self.raw(number).decode(errors="replace").casefold():
                    yield number
            return
        if not needle.isascii():
            return
        wanted, text = needle.encode(), self.text.lower()
        at = text.find(wanted, self.start(first))
        while at >= 0:
            number = bisect_right(self.ends, at)
            if number < self.lines and at >= self.start(number) and at + len(wanted) <= self.ends[number]:
                yield number
                at = text.find(wanted, self.ends[number])
            else:  # it begins in one line and ends in another
                at = text.find(wanted, at + 1)


def open_chunk(codec: str, first_seq: int, received: datetime, data: bytes, upto: int | None = None) -> Opened:
    """Inflate a stored chunk; with `upto`, the texts of so many lines are enough."""
    if codec == "zlib":
        return _open_rows(first_seq, received, data)
    try:
        return _open_columns(first_seq, received, data, upto)
    except (zlib.error, ValueError, EOFError, msgspec.DecodeError) as error:
        raise ChunkError("a part of the log is damaged", hint="restore it from a backup") from error


def _open_columns(first_seq: int, received: datetime, data: bytes, upto: int | None) -> Opened:
    engine = zlib.decompressobj()
    rest = data

    def take(size: int) -> bytes:
        nonlocal rest
        if size == 0:
            return b""
        out = engine.decompress(rest, size)
        rest = engine.unconsumed_tail
        if len(out) != size:
            raise EOFError
        return out

    version, what, arrivals, lines, text_size, more_size = _HEAD.unpack(take(_HEAD.size))
    if version != _VERSION:
        raise ValueError(version)
    columns = _ARRIVAL.size * arrivals + 5 * lines + (8 * lines if what & _STAMPS else 0)
    raw = take(columns)
    at = _ARRIVAL.size * arrivals
    came = [(count, _EPOCH + timedelta(microseconds=micros)) for count, micros in _ARRIVAL.iter_unpack(raw[:at])] or [
        (lines, received)
    ]
    ends = _column("I", raw[at : at + 4 * lines])
    at += 4 * lines
    whole = upto is None or upto >= lines or bool(what & _MORE)
    text = take(text_size if whole or upto is None else ends[upto - 1] if upto else 0)
    fields, flags = _more(take(more_size)) if what & _MORE else ({}, {})
    return Opened(
        first_seq=first_seq,
        lines=lines,
        levels=raw[at : at + lines],
        ends=ends,
        text=text,
        ascii=bool(what & _ASCII),
        stamps=_column("q", raw[at + lines :]) if what & _STAMPS else None,
        arrivals=came,
        fields=fields,
        flags=flags,
    )


def _more(raw: bytes) -> tuple[dict[int, bytes], dict[int, int]]:
    said, flags = msgspec.json.decode(raw, type=tuple[dict[int, msgspec.Raw], dict[int, int]])
    return {number: bytes(one) for number, one in said.items()}, flags


def _open_rows(first_seq: int, received: datetime, data: bytes) -> Opened:
    """Read a chunk as earlier releases stored it: a JSON array of time, level, message and fields."""
    rows = msgspec.json.decode(zlib.decompress(data))
    lines = encode({"ts": ts, "level": level, "message": text, "fields": said} for ts, level, text, said in rows)
    chunk = pack_one(first_seq, lines)
    return _open_columns(first_seq, received, chunk.data, None)
