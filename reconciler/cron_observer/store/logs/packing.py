"""Packing loose chunks of a claim into larger ones, by any process, beside whoever appends, reads or drops.

What is to be packed is read without a lock; what replaces it is written only if it is still what was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.engine import Database, fetch
from cron_observer.store.logs.chunks import CHUNK_BYTES, LOOSE_BYTES, Chunk, open_chunk, pack_one
from cron_observer.store.logs.lines import NO_STAMP, Lines

#: So many loose chunks of a claim are worth packing.
LOOSE_MAX: Final = 64

#: Chunks that are looked at in one go.
_GO: Final = 512

_LOOSE: Final = """
SELECT c.first_seq, c.lines, c.raw_bytes, c.received_at, c.codec,
    CASE WHEN c.raw_bytes < %(loose)s THEN c.data END
FROM log_chunks c
WHERE c.tenant_id = %(tenant)s AND c.execution_id = %(id)s AND c.fence = %(fence)s AND c.first_seq >= (
    SELECT a.log_packed FROM attempts a
    WHERE a.tenant_id = %(tenant)s AND a.execution_id = %(id)s AND a.fence = %(fence)s)
ORDER BY c.first_seq LIMIT %(limit)s
"""

_LOCK: Final = """
SELECT a.log_packed FROM attempts a
WHERE a.tenant_id = %(tenant)s AND a.execution_id = %(id)s AND a.fence = %(fence)s FOR UPDATE
"""

_TAKE_OUT: Final = """
DELETE FROM log_chunks c
USING unnest(%(firsts)s::int[], %(lines)s::int[]) AS v (first_seq, lines)
WHERE c.tenant_id = %(tenant)s AND c.execution_id = %(id)s AND c.fence = %(fence)s
  AND c.first_seq = v.first_seq AND c.lines = v.lines
RETURNING c.first_seq
"""

_PUT_IN: Final = """
INSERT INTO log_chunks (tenant_id, execution_id, fence, first_seq, lines, raw_bytes, levels, debugs, infos, warns,
    errors, received_at, codec, data)
SELECT %(tenant)s, %(id)s, %(fence)s, c.* FROM unnest(%(first)s::int[], %(many)s::int[], %(bytes)s::int[],
    %(levels)s::smallint[], %(debugs)s::int[], %(infos)s::int[], %(warns)s::int[], %(errors)s::int[],
    %(received)s::timestamptz[], %(codec)s::text[], %(data)s::bytea[]) AS c
"""

_NOTE: Final = """
UPDATE attempts a SET log_packed = %(packed)s, log_loose = GREATEST(a.log_loose - %(gone)s, 0)
WHERE a.tenant_id = %(tenant)s AND a.execution_id = %(id)s AND a.fence = %(fence)s
"""


class Read(NamedTuple):
    """One stored chunk; those that are large enough come without their data."""

    first_seq: int
    lines: int
    raw_bytes: int
    received: datetime
    codec: str
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Group:
    """Chunks that become one."""

    parts: Sequence[Read]
    chunk: Chunk


class Gone(Exception):  # noqa: N818  nobody's mistake
    """What was to be packed is not there any more."""


async def pack_loose(database: Database, tenant_id: UUID, execution_id: UUID, fence: int) -> int:
    """Pack the loose chunks of a claim; return how many went into others, 0 when somebody else was faster."""
    where = {"tenant": tenant_id, "id": execution_id, "fence": fence}
    async with database.transaction([tenant_id]) as conn:
        rows = await fetch(conn, _LOOSE, {**where, "loose": LOOSE_BYTES, "limit": _GO})
    read = [Read(*row) for row in rows]
    if not read:
        return 0
    groups, packed = await asyncio.to_thread(regroup, read)
    try:
        async with database.transaction([tenant_id]) as conn:
            await _replace(conn, where, read, groups, packed)
    except Gone:
        return 0
    return sum(len(group.parts) for group in groups)


def regroup(read: Sequence[Read]) -> tuple[list[Group], int]:
    """Make larger chunks of neighbours that are loose; say from which line on there may be more to do later."""
    runs: list[list[Read]] = []
    size = 0
    for one in read:
        follows = bool(runs) and runs[-1][-1].first_seq + runs[-1][-1].lines == one.first_seq
        loose = one.data is not None and one.codec == "lines"
        if follows and loose and runs[-1][-1].data is not None and size + one.raw_bytes <= CHUNK_BYTES:
            runs[-1].append(one)
            size += one.raw_bytes
        else:
            runs.append([one])
            size = one.raw_bytes if loose else CHUNK_BYTES
    last = runs[-1]
    end = last[-1].first_seq + last[-1].lines
    packed = last[0].first_seq if size < LOOSE_BYTES else end
    return [Group(run, _join(run)) for run in runs if len(run) > 1], packed


def _join(parts: Sequence[Read]) -> Chunk:
    """Make one chunk of several that follow each other, each line with the time at which it came."""
    opened = [open_chunk(one.codec, one.first_seq, one.received, one.data or b"") for one in parts]
    texts: list[bytes] = []
    levels: list[bytes] = []
    fields: dict[int, bytes] = {}
    flags: dict[int, int] = {}
    arrivals: list[tuple[int, datetime]] = []
    for one in opened:
        at = len(texts)
        texts += [one.raw(number) for number in range(one.lines)]
        levels.append(one.levels)
        fields |= {at + number: said for number, said in one.fields.items()}
        flags |= {at + number: flag for number, flag in one.flags.items()}
        for count, when in one.arrivals:
            if arrivals and arrivals[-1][1] == when:
                arrivals[-1] = (arrivals[-1][0] + count, when)
            else:
                arrivals.append((count, when))
    stamps: list[int] | None = None
    if any(one.stamps is not None for one in opened):
        stamps = [at for one in opened for at in (one.stamps or [NO_STAMP] * one.lines)]
    lines = Lines(texts=texts, levels=b"".join(levels), stamps=stamps, fields=fields, flags=flags)
    return pack_one(parts[0].first_seq, lines, arrivals)


async def _replace(
    conn: AsyncConnection, where: dict[str, object], read: Sequence[Read], groups: Sequence[Group], packed: int
) -> None:
    """Put packed chunks in the place of what they were made of, or raise `Gone`."""
    if not await fetch(conn, _LOCK, where):
        raise Gone
    parts = [part for group in groups for part in group.parts]
    if parts:
        taken = {"firsts": [part.first_seq for part in parts], "lines": [part.lines for part in parts]}
        if len(await fetch(conn, _TAKE_OUT, {**where, **taken})) != len(parts):
            raise Gone
        chunks = [group.chunk for group in groups]
        levels = zip(*(chunk.counts for chunk in chunks), strict=True)
        values = {
            "first": [chunk.first_seq for chunk in chunks],
            "many": [chunk.lines for chunk in chunks],
            "bytes": [chunk.raw_bytes for chunk in chunks],
            "levels": [chunk.levels for chunk in chunks],
            "received": [group.parts[0].received for group in groups],
            "codec": [chunk.codec for chunk in chunks],
            "data": [chunk.data for chunk in chunks],
            **{name: list(one) for name, one in zip(("debugs", "infos", "warns", "errors"), levels, strict=True)},
        }
        await fetch(conn, _PUT_IN, {**where, **values})
    loose = sum(one.data is not None for one in read)
    open_end = 1 if packed <= read[-1].first_seq else 0
    await fetch(conn, _NOTE, {**where, "packed": packed, "gone": loose - open_end})
