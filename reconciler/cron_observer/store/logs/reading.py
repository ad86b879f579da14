"""Reading logs: lines by number, by level, by text, and what is missing in the middle.

A reading looks at few chunks at a time, so that a log of any length can be read in constant memory; what inflates
and searches a lot of them does so in a worker thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.engine import fetch
from cron_observer.store.logs.chunks import Opened, open_chunk
from cron_observer.store.logs.lines import CONTINUED, CUT, LEVELS, REPLACED

#: Raw bytes that one reading looks through, about; a search that has found less by then says where to go on.
SCAN_MAX: Final = 32 * 1024 * 1024

#: Chunks that are fetched at a time: to read on, and to search.
_FEW: Final = 4
_MANY: Final = 64

#: Stored bytes from which on a worker thread inflates them.
_THREAD_FROM: Final = 64 * 1024

_FLAGS: Final = ((REPLACED, "replaced"), (CONTINUED, "continued"), (CUT, "cut"))

_PARTS: Final = """
SELECT a.fence, a.attempt, a.log_base, a.log_lines, a.log_cut_from, a.log_cut_to, a.log_cut_bytes, a.log_loose
FROM attempts a
WHERE a.tenant_id = %(tenant)s AND a.execution_id = %(id)s
  AND a.attempt = COALESCE(%(attempt)s::int, (
      SELECT max(b.attempt) FROM attempts b WHERE b.tenant_id = %(tenant)s AND b.execution_id = %(id)s))
ORDER BY a.fence
"""

_CHUNKS: Final = """
SELECT c.first_seq, c.lines, c.raw_bytes, c.received_at, c.codec, c.data
FROM log_chunks c
WHERE c.tenant_id = %(tenant)s AND c.execution_id = %(id)s AND c.fence = %(fence)s
  AND c.first_seq >= COALESCE((
      SELECT max(f.first_seq) FROM log_chunks f
      WHERE f.tenant_id = %(tenant)s AND f.execution_id = %(id)s AND f.fence = %(fence)s AND f.first_seq <= %(seq)s
  ), %(seq)s)
  AND c.first_seq + c.lines > %(seq)s AND (c.levels & %(mask)s) <> 0
ORDER BY c.first_seq
LIMIT %(limit)s
"""

_AMOUNTS: Final = """
SELECT c.fence, sum(COALESCE(c.debugs, 0)), sum(COALESCE(c.infos, c.lines)), sum(COALESCE(c.warns, 0)),
    sum(COALESCE(c.errors, 0))
FROM log_chunks c
WHERE c.tenant_id = %(tenant)s AND c.execution_id = %(id)s AND c.fence = ANY (%(fences)s::bigint[])
GROUP BY c.fence
"""

_RANK: Final = """
SELECT w.first_seq, w.before FROM (
    SELECT c.first_seq, m.many, sum(m.many) OVER (ORDER BY c.first_seq) - m.many AS before
    FROM log_chunks c
    CROSS JOIN LATERAL (SELECT
        CASE WHEN %(lowest)s <= 0 THEN COALESCE(c.debugs, 0) ELSE 0 END
        + CASE WHEN %(lowest)s <= 1 THEN COALESCE(c.infos, c.lines) ELSE 0 END
        + CASE WHEN %(lowest)s <= 2 THEN COALESCE(c.warns, 0) ELSE 0 END + COALESCE(c.errors, 0) AS many) AS m
    WHERE c.tenant_id = %(tenant)s AND c.execution_id = %(id)s AND c.fence = %(fence)s
) AS w
WHERE w.before <= %(rank)s AND w.before + w.many > %(rank)s
"""


class Part(NamedTuple):
    """The lines of one claim inside its attempt's log."""

    fence: int
    attempt: int
    base: int  #: number in the attempt of the claim's first line
    lines: int
    cut_from: int | None  #: the claim's first line that is not kept, if there is any
    cut_to: int | None
    cut_bytes: int
    loose: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Lines that are missing in the middle, as an attempt numbers them."""

    from_seq: int
    lines: int
    raw_bytes: int

    def shown(self) -> dict[str, int]:
        """Return it as the API does."""
        return {"from_seq": self.from_seq, "lines": self.lines, "bytes": self.raw_bytes}


@dataclass(frozen=True, slots=True)
class Found:
    """Lines of one chunk: which of it, and of which claim it is."""

    part: Part
    chunk: Opened
    numbers: Sequence[int]

    def seq(self, number: int) -> int:
        """Return what an attempt calls a line."""
        return self.part.base + self.chunk.first_seq + number


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are asked for: of at least a level (place in `LEVELS`), with a text in them, casefolded."""

    lowest: int = 0
    needle: str | None = None

    @staticmethod
    def of(level: str | None, q: str | None) -> Wanted:
        """Read a question as the API puts it."""
        return Wanted(LEVELS.index(level) if level else 0, q.casefold() if q else None)

    @property
    def narrowed(self) -> bool:
        """Say whether it leaves any line out."""
        return self.lowest > 0 or self.needle is not None


async def parts(conn: AsyncConnection, tenant_id: UUID, execution_id: UUID, attempt: int | None) -> list[Part]:
    """Return the claims of one attempt, the latest by default, oldest first."""
    parameters = {"tenant": tenant_id, "id": execution_id, "attempt": attempt}
    return [Part(*row) for row in await fetch(conn, _PARTS, parameters)]


def cuts(of: Sequence[Part]) -> list[Cut]:
    """Return what is missing of an attempt."""
    return [
        Cut(part.base + part.cut_from, part.cut_to - part.cut_from, part.cut_bytes)
        for part in of
        if part.cut_from is not None and part.cut_to is not None
    ]


async def look(
    conn: AsyncConnection,
    tenant_id: UUID,
    execution_id: UUID,
    of: Sequence[Part],
    *,
    from_seq: int = 0,
    limit: int = 1000,
    wanted: Wanted | None = None,
    scan: int | None = None,
) -> tuple[list[Found], int | None]:
    """Return at most `limit` lines of an attempt from number `from_seq` on, and the number to go on from.

    That is None at the end of what is stored. After `scan` raw bytes (`SCAN_MAX`) it stops with less than `limit`.
    """
    wanted, budget = wanted or Wanted(), SCAN_MAX if scan is None else scan
    found: list[Found] = []
    have = scanned = 0
    for part in of:
        if part.base + part.lines <= from_seq:
            continue
        start = max(0, from_seq - part.base)
        async for chunk, numbers, size in _chunks(conn, tenant_id, execution_id, part, start, wanted, limit):
            if scanned >= budget:
                return found, part.base + max(chunk.first_seq, start)
            scanned += size
            left = limit - have
            if len(numbers) > left:
                if left:
                    found.append(Found(part, chunk, numbers[:left]))
                return found, part.base + chunk.first_seq + numbers[left]
            if len(numbers):
                found.append(Found(part, chunk, numbers))
                have += len(numbers)
    return found, None


async def _chunks(
    conn: AsyncConnection, tenant_id: UUID, execution_id: UUID, part: Part, seq: int, wanted: Wanted, limit: int
) -> AsyncIterator[tuple[Opened, Sequence[int], int]]:
    """Yield (chunk, its lines that are wanted, raw bytes) of one claim from its line `seq` on."""
    batch = _MANY if wanted.narrowed else _FEW
    where = {"tenant": tenant_id, "id": execution_id, "fence": part.fence}
    mask = sum(1 << number for number in range(wanted.lowest, len(LEVELS)))
    while True:
        rows = await fetch(conn, _CHUNKS, {**where, "mask": mask, "seq": seq, "limit": batch})

        def inflate(rows: Sequence[Any] = rows, seq: int = seq) -> list[tuple[Opened, Sequence[int], int]]:
            out = []
            for first, _, size, received, codec, data in rows:
                skip = max(0, seq - first)
                upto = None if wanted.needle else skip + limit + 1
                chunk = open_chunk(codec, first, received, data, upto)
                out.append((chunk, chunk.pick(skip, wanted.lowest, wanted.needle), size))
            return out

        heavy = sum(len(row[5]) for row in rows) >= _THREAD_FROM
        for one in await asyncio.to_thread(inflate) if heavy else inflate():
            yield one
        if len(rows) < batch:
            return
        seq = rows[-1][0] + rows[-1][1]
        batch = _MANY


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock_text(millis: int) -> str:
    """Write milliseconds since 1970 as RFC 3339 in UTC."""
    at = datetime.fromtimestamp(millis // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{millis % 1000:03}Z"


def items(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return lines as the API shows them."""
    out = []
    for one in found:
        chunk = one.chunk
        for number in one.numbers:
            at = chunk.stamp(number)
            said = chunk.fields.get(number)
            flag = chunk.flags.get(number, 0)
            out.append(
                {
                    "seq": one.seq(number),
                    "attempt": one.part.attempt,
                    "ts": None if at is None else clock_text(at),
                    "received_at": _iso(chunk.arrived(number)),
                    "level": LEVELS[chunk.levels[number]],
                    "message": chunk.raw(number).decode(errors="replace"),
                    "fields": None if said is None else msgspec.json.decode(said),
                    "flags": [name for bit, name in _FLAGS if flag & bit],
                }
            )
    return out


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
    of = await parts(conn, tenant_id, execution_id, attempt)
    found, following = await look(
        conn, tenant_id, execution_id, of, from_seq=from_seq, limit=limit, wanted=Wanted.of(level, q)
    )
    return items(found), following


async def amounts(
    conn: AsyncConnection, tenant_id: UUID, execution_id: UUID, of: Sequence[Part]
) -> list[tuple[int, int, int, int]]:
    """Return how many lines of each level are kept of each claim."""
    parameters = {"tenant": tenant_id, "id": execution_id, "fences": [part.fence for part in of]}
    rows = {row[0]: tuple(int(one) for one in row[1:]) for row in await fetch(conn, _AMOUNTS, parameters)}
    return [rows.get(part.fence, (0, 0, 0, 0)) for part in of]  # type: ignore[misc]  # one for each level


async def place(
    conn: AsyncConnection, tenant_id: UUID, execution_id: UUID, of: Sequence[Part], lowest: int, rank: int
) -> int | None:
    """Return which line is the one with `rank` others of at least the level `lowest` before it; None past the end."""
    kept = await amounts(conn, tenant_id, execution_id, of)
    for part, counts in zip(of, kept, strict=True):
        many = sum(counts[lowest:])
        if rank >= many:
            rank -= many
            continue
        where = {"tenant": tenant_id, "id": execution_id, "fence": part.fence}
        rows = await fetch(conn, _RANK, {**where, "lowest": lowest, "rank": rank})
        if not rows:
            return None
        first, before = rows[0]
        found, _ = await look(
            conn, tenant_id, execution_id, [part], from_seq=part.base + first, limit=1000, wanted=Wanted(lowest)
        )
        left = rank - int(before)
        for one in found:
            if left < len(one.numbers):
                return one.seq(one.numbers[left])
            left -= len(one.numbers)
    return None
