"""Logs: compressed chunks of lines, appended by sequence, read by line.

A worker numbers its lines from 0 under each claim. Read back, lines are numbered from 0 in each attempt: when an
attempt was offered again after a lost lease, the lines of the second claim follow those of the first (`log_base`).
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.engine import fetch

LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR")

#: Bytes of one message in UTF-8; what is longer is cut and says so.
MESSAGE_MAX: Final = 16 * 1024

#: Bytes of lines that one reading looks through, about; a search that has found less by then says where to go on.
SCAN_MAX: Final = 4 * 1024 * 1024

#: Lines may still arrive this long after the end, from a worker that flushes last.
AFTER_END: Final = timedelta(minutes=15)

_APPEND: Final = """
WITH v AS (
    SELECT * FROM unnest(%(tenant)s::uuid[], %(id)s::uuid[], %(fence)s::bigint[], %(first)s::int[], %(lines)s::int[],
        %(bytes)s::int[], %(levels)s::smallint[], %(data)s::bytea[])
        AS v (tenant_id, execution_id, fence, first_seq, lines, raw_bytes, levels, data)
), counted AS (
    UPDATE attempts a SET log_lines = v.first_seq + v.lines, log_bytes = a.log_bytes + v.raw_bytes
    FROM v
    WHERE a.tenant_id = v.tenant_id AND a.execution_id = v.execution_id AND a.fence = v.fence
      AND a.log_lines = v.first_seq AND a.execution_id BETWEEN %(low)s AND %(high)s
    RETURNING v.*
)
INSERT INTO log_chunks
    (tenant_id, execution_id, fence, first_seq, lines, raw_bytes, levels, received_at, codec, data)
SELECT tenant_id, execution_id, fence, first_seq, lines, raw_bytes, levels, %(now)s, 'zlib', data FROM counted
RETURNING tenant_id, execution_id
"""

_COUNTS: Final = """
SELECT a.execution_id, a.fence, a.log_lines, a.digest, a.ended_at, a.late_outcome IS NOT NULL
FROM attempts a
JOIN unnest(%(ids)s::uuid[], %(fences)s::bigint[]) AS v (execution_id, fence)
  ON a.execution_id = v.execution_id AND a.fence = v.fence
WHERE a.tenant_id = %(tenant)s AND a.execution_id = ANY (%(ids)s::uuid[])
"""

_ATTEMPTS: Final = """
SELECT a.fence, a.attempt, a.log_base, a.log_lines
FROM attempts a
WHERE a.tenant_id = %(tenant)s AND a.execution_id = %(id)s
  AND a.attempt = COALESCE(%(attempt)s::int, (
      SELECT max(b.attempt) FROM attempts b WHERE b.tenant_id = %(tenant)s AND b.execution_id = %(id)s))
ORDER BY a.fence
"""

_CHUNKS: Final = """
SELECT c.first_seq, c.received_at, c.data
FROM log_chunks c
WHERE c.tenant_id = %(tenant)s AND c.execution_id = %(id)s AND c.fence = %(fence)s
  AND c.first_seq + c.lines > %(seq)s AND (c.levels & %(mask)s) <> 0
ORDER BY c.first_seq
LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Lines ready to be stored. `first_seq` is the worker's number of the first one."""

    first_seq: int
    lines: int
    raw_bytes: int
    levels: int
    data: bytes


class Line(NamedTuple):
    """One line ready to be stored."""

    level: int  #: place in `LEVELS`
    row: bytes  #: JSON: time, level, message, fields


class Stored(NamedTuple):
    """What is known of one attempt: its lines, the digest it was completed with, its end, and whether a late word."""

    lines: int
    digest: bytes | None
    ended_at: datetime | None
    recorded: bool


def encode(entries: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Make lines of log entries (``ts``, ``level``, ``message``, ``fields``; instants as ISO text)."""
    lines = []
    for entry in entries:
        message = entry["message"]
        if len(message) * 4 > MESSAGE_MAX and len(raw := message.encode()) > MESSAGE_MAX:
            message = f"{raw[:MESSAGE_MAX].decode(errors='ignore')} … [cut: {len(raw) - MESSAGE_MAX} bytes more]"
        row = [entry.get("ts"), entry["level"], message, entry.get("fields")]
        lines.append(Line(LEVELS.index(entry["level"]), msgspec.json.encode(row)))
    return lines


def pack_lines(first_seq: int, lines: Sequence[Line]) -> Chunk:
    """Compress lines into one chunk."""
    levels = 0
    for line in lines:
        levels |= 1 << line.level
    raw = b"[" + b",".join(line.row for line in lines) + b"]"
    return Chunk(first_seq=first_seq, lines=len(lines), raw_bytes=len(raw), levels=levels, data=zlib.compress(raw, 1))


def pack(first_seq: int, entries: Iterable[Mapping[str, Any]]) -> Chunk:
    """Compress log entries as `encode` takes them into one chunk."""
    return pack_lines(first_seq, encode(entries))


async def counts(
    conn: AsyncConnection, tenant_id: UUID, wanted: Sequence[tuple[UUID, int]]
) -> dict[tuple[UUID, int], Stored]:
    """Return what is known of each (execution, fence) that there is."""
    if not wanted:
        return {}
    parameters = {
        "tenant": tenant_id,
        "ids": [one for one, _ in wanted],
        "fences": [fence for _, fence in wanted],
    }
    rows = await fetch(conn, _COUNTS, parameters)
    return {(identity, fence): Stored(*rest) for identity, fence, *rest in rows}


async def append(
    conn: AsyncConnection, chunks: Sequence[tuple[UUID, UUID, int, Chunk]], now: datetime
) -> set[tuple[UUID, UUID]]:
    """Store chunks given as (tenant, execution, fence, chunk), at most one for an execution.

    A chunk that does not continue exactly where the stored lines end is left out of the returned set.
    """
    if not chunks:
        return set()
    ids = sorted(one[1] for one in chunks)
    rows = await fetch(
        conn,
        _APPEND,
        {
            "tenant": [one[0] for one in chunks],
            "id": [one[1] for one in chunks],
            "fence": [one[2] for one in chunks],
            "first": [one[3].first_seq for one in chunks],
            "lines": [one[3].lines for one in chunks],
            "bytes": [one[3].raw_bytes for one in chunks],
            "levels": [one[3].levels for one in chunks],
            "data": [one[3].data for one in chunks],
            "now": now,
            "low": ids[0],
            "high": ids[-1],
        },
    )
    return {(tenant, identity) for tenant, identity in rows}


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def read(
    conn: AsyncConnection,
    tenant_id: UUID,
    execution_id: UUID,
    *,
    attempt: int | None = None,
    from_seq: int = 0,
    limit: int = 1000,
    level: str | None = None,
    q: str | None = None,
) -> tuple[list[dict[str, Any]], int | None]:
    """Return at most `limit` lines of one attempt (the latest by default) from number `from_seq` on.

    `level` means at least, `q` is searched for in the message without regard to case. The second part is the
    number to go on from, None at the end of what is stored; a long search stops there with less than `limit`.
    """
    lowest = LEVELS.index(level) if level else 0
    mask = sum(1 << number for number in range(lowest, len(LEVELS)))
    wanted = set(LEVELS[lowest:])
    needle = q.casefold() if q else None
    items: list[dict[str, Any]] = []
    scanned = 0
    parameters = {"tenant": tenant_id, "id": execution_id, "attempt": attempt}
    for fence, number, base, lines in await fetch(conn, _ATTEMPTS, parameters):
        if base + lines <= from_seq:
            continue
        start = max(0, from_seq - base)
        async for first, received, size, rows in _chunks(conn, tenant_id, execution_id, fence, start, mask):
            if scanned >= SCAN_MAX:
                return items, base + max(first, start)
            scanned += size
            for seq, (ts, entry_level, message, fields) in enumerate(rows, start=first):
                if seq < start or entry_level not in wanted:
                    continue
                if needle is not None and needle not in message.casefold():
                    continue
                if len(items) == limit:
                    return items, base + seq
                items.append(
                    {
                        "seq": base + seq,
                        "attempt": number,
                        "ts": ts,
                        "received_at": _iso(received),
                        "level": entry_level,
                        "message": message,
                        "fields": fields,
                    }
                )
    return items, None


async def _chunks(
    conn: AsyncConnection, tenant_id: UUID, execution_id: UUID, fence: int, seq: int, mask: int
) -> AsyncIterator[tuple[int, datetime, int, list[Any]]]:
    """Yield (number of the first line, arrival, bytes, lines) of one claim's chunks from line `seq` on."""
    batch = 16
    parameters = {"tenant": tenant_id, "id": execution_id, "fence": fence, "mask": mask, "limit": batch}
    while True:
        chunks = await fetch(conn, _CHUNKS, {**parameters, "seq": seq})
        for first, received, data in chunks:
            raw = zlib.decompress(data)
            rows = msgspec.json.decode(raw)
            yield first, received, len(raw), rows
            seq = first + len(rows)
        if len(chunks) < batch:
            return
