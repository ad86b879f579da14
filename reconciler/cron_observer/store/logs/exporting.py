"""Whole logs as text and as NDJSON, a piece at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.logs.lines import LEVELS
from cron_observer.store.logs.reading import Cut, Found, Part, Wanted, clock_text, cuts, items, look

#: Raw bytes of one piece, about.
PIECE: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Export:
    """One piece of a log, and where the next one begins; None at the end."""

    data: bytes
    following: int | None


async def export(
    conn: AsyncConnection,
    tenant_id: UUID,
    execution_id: UUID,
    of: Sequence[Part],
    *,
    from_seq: int,
    wanted: Wanted,
    ndjson: bool = False,
) -> Export:
    """Return a piece of an attempt's log from line `from_seq` on, with a word on what is missing where it is."""
    found, following = await look(
        conn, tenant_id, execution_id, of, from_seq=from_seq, limit=1 << 31, wanted=wanted, scan=PIECE
    )
    last = following if following is not None else 1 << 62
    gaps = [cut for cut in cuts(of) if from_seq <= cut.from_seq < last]
    return Export(await asyncio.to_thread(_write, found, gaps, ndjson), following)


def _write(found: Sequence[Found], gaps: Sequence[Cut], ndjson: bool) -> bytes:
    out: list[bytes] = []
    waiting = list(gaps)
    for one in found:
        while waiting and one.seq(0) > waiting[0].from_seq:
            out.append(_gap(waiting.pop(0), ndjson))
        out.append(_objects(one) if ndjson else _text(one))
    return b"".join([*out, *(_gap(cut, ndjson) for cut in waiting)])


def _gap(cut: Cut, ndjson: bool) -> bytes:
    if ndjson:
        return msgspec.json.encode({"cut": cut.shown()}) + b"\n"
    return f"… {cut.lines} lines ({cut.raw_bytes} bytes) are not kept …\n".encode()


def _objects(one: Found) -> bytes:
    return b"".join(msgspec.json.encode(item) + b"\n" for item in items([one]))


def _text(one: Found) -> bytes:
    """Write lines as time, level and message; the seconds of neighbours are mostly the same."""
    chunk, out, before, second = one.chunk, [], -1, ""
    names = [f" {name} " for name in LEVELS]
    for number in one.numbers:
        at = chunk.stamp(number)
        if at is None:
            at = round(chunk.arrived(number).timestamp() * 1000)
        if at // 1000 != before:
            before = at // 1000
            second = clock_text(at)[:20]
        out.append(f"{second}{at % 1000:03}Z{names[chunk.levels[number]]}".encode() + chunk.raw(number) + b"\n")
    return b"".join(out)
