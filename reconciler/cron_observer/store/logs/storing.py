"""Appending to logs: each line once, in chunks, up to a cap beyond which the middle goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.store.engine import fetch
from cron_observer.store.logs.chunks import LOOSE_BYTES, Chunk

#: Lines may still arrive this long after the end, from a worker that flushes last.
AFTER_END: Final = timedelta(minutes=15)

_APPEND: Final = """
WITH v AS (
    SELECT * FROM unnest(%(tenant)s::uuid[], %(id)s::uuid[], %(fence)s::bigint[], %(first)s::int[], %(lines)s::int[],
        %(bytes)s::bigint[], %(loose)s::int[], %(stream)s::bigint[])
        AS v (tenant_id, execution_id, fence, first_seq, lines, raw_bytes, loose, stream)
), counted AS (
    UPDATE attempts a SET log_lines = v.first_seq + v.lines, log_bytes = a.log_bytes + v.raw_bytes,
        log_loose = a.log_loose + v.loose, log_stream = a.log_stream + v.stream
    FROM v
    WHERE a.tenant_id = v.tenant_id AND a.execution_id = v.execution_id AND a.fence = v.fence
      AND a.log_lines = v.first_seq AND a.execution_id BETWEEN %(low)s AND %(high)s
    RETURNING a.tenant_id, a.execution_id, a.fence, v.raw_bytes, a.log_loose AS loose,
        a.log_lines - COALESCE(a.log_cut_to - a.log_cut_from, 0) AS kept_lines
), stored AS (
    INSERT INTO log_chunks (tenant_id, execution_id, fence, first_seq, lines, raw_bytes, levels, debugs, infos, warns,
        errors, received_at, codec, data)
    SELECT n.tenant_id, n.execution_id, n.fence, c.first_seq, c.lines, c.raw_bytes, c.levels, c.debugs, c.infos,
        c.warns, c.errors, %(now)s, c.codec, c.data
    FROM unnest(%(c_id)s::uuid[], %(c_first)s::int[], %(c_lines)s::int[], %(c_bytes)s::int[], %(c_levels)s::smallint[],
        %(c_debugs)s::int[], %(c_infos)s::int[], %(c_warns)s::int[], %(c_errors)s::int[], %(c_codec)s::text[],
        %(c_data)s::bytea[])
        AS c (execution_id, first_seq, lines, raw_bytes, levels, debugs, infos, warns, errors, codec, data)
    JOIN counted n ON n.execution_id = c.execution_id
)
SELECT n.tenant_id, n.execution_id, n.fence, n.loose, n.kept_lines, n.raw_bytes + (
    SELECT sum(b.log_bytes - b.log_cut_bytes) FROM attempts b
    WHERE b.tenant_id = n.tenant_id AND b.execution_id = n.execution_id AND b.execution_id BETWEEN %(low)s AND %(high)s
)::bigint AS kept_bytes
FROM counted n
"""

_COUNTS: Final = """
SELECT a.execution_id, a.fence, a.log_lines, a.digest, a.ended_at, a.late_outcome IS NOT NULL, a.log_stream
FROM attempts a
JOIN unnest(%(ids)s::uuid[], %(fences)s::bigint[]) AS v (execution_id, fence)
  ON a.execution_id = v.execution_id AND a.fence = v.fence
WHERE a.tenant_id = %(tenant)s AND a.execution_id = ANY (%(ids)s::uuid[])
"""

_LOCK_ALL: Final = """
SELECT a.fence, a.log_cut_from FROM attempts a
WHERE a.tenant_id = %(tenant)s AND a.execution_id = %(id)s ORDER BY a.fence FOR UPDATE
"""

_WEIGHTS: Final = """
SELECT c.fence, c.first_seq, c.lines, c.raw_bytes FROM log_chunks c
WHERE c.tenant_id = %(tenant)s AND c.execution_id = %(id)s ORDER BY c.fence, c.first_seq
"""

_CUT: Final = """
WITH gone AS (
    DELETE FROM log_chunks c
    USING unnest(%(fences)s::bigint[], %(firsts)s::int[]) AS v (fence, first_seq)
    WHERE c.tenant_id = %(tenant)s AND c.execution_id = %(id)s AND c.fence = v.fence AND c.first_seq = v.first_seq
    RETURNING c.fence, c.first_seq, c.lines, c.raw_bytes
), cut AS (
    SELECT g.fence, min(g.first_seq) AS low, max(g.first_seq + g.lines) AS high, sum(g.raw_bytes) AS raw_bytes,
        count(*) FILTER (WHERE g.raw_bytes < %(loose)s AND g.first_seq >= a.log_packed) AS loose
    FROM gone g
    JOIN attempts a ON a.tenant_id = %(tenant)s AND a.execution_id = %(id)s AND a.fence = g.fence
    GROUP BY g.fence
)
UPDATE attempts a SET log_cut_from = LEAST(a.log_cut_from, cut.low), log_cut_to = GREATEST(a.log_cut_to, cut.high),
    log_cut_bytes = a.log_cut_bytes + cut.raw_bytes, log_loose = GREATEST(a.log_loose - cut.loose, 0)
FROM cut WHERE a.tenant_id = %(tenant)s AND a.execution_id = %(id)s AND a.fence = cut.fence
"""


class Caps(NamedTuple):
    """How much of a log is kept: its head and its latest lines; what goes is the middle."""

    raw_bytes: int = 256 * 1024 * 1024  #: of an execution, all its attempts together
    lines: int = 10_000_000  #: under one claim


class Stored(NamedTuple):
    """What is known of one attempt: its lines, the digest it was completed with, its end, whether a late word, and
    how many bytes of plain text have become lines."""

    lines: int
    digest: bytes | None
    ended_at: datetime | None
    recorded: bool
    stream: int = 0


class Weight(NamedTuple):
    """One stored chunk, as far as caps need to know it."""

    fence: int
    first_seq: int
    lines: int
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class Appended:
    """What has been appended to: under which claim, and how many of its chunks are loose."""

    fence: int
    loose: int


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
    conn: AsyncConnection,
    chunks: Sequence[tuple[UUID, UUID, int, Chunk]],
    now: datetime,
    *,
    streams: Mapping[tuple[UUID, UUID], int] | None = None,
    caps: Caps | None = None,
) -> dict[tuple[UUID, UUID], Appended]:
    """Store chunks given as (tenant, execution, fence, chunk), those of an execution one behind the other.

    `streams` says how many bytes of plain text became lines. What does not continue exactly where the stored lines
    of a claim end is left out of the answer. What is more than `caps` allow makes room in the middle of the log.
    """
    if not chunks:
        return {}
    runs: dict[tuple[UUID, UUID], list[Chunk]] = {}
    fences: dict[tuple[UUID, UUID], int] = {}
    for tenant, identity, fence, chunk in chunks:
        runs.setdefault((tenant, identity), []).append(chunk)
        fences[tenant, identity] = fence
    ids = sorted(identity for _, identity in runs)
    read = streams or {}
    values = {
        "tenant": [tenant for tenant, _ in runs],
        "id": [identity for _, identity in runs],
        "fence": list(fences.values()),
        "first": [run[0].first_seq for run in runs.values()],
        "lines": [sum(chunk.lines for chunk in run) for run in runs.values()],
        "bytes": [sum(chunk.raw_bytes for chunk in run) for run in runs.values()],
        "loose": [sum(chunk.loose for chunk in run) for run in runs.values()],
        "stream": [read.get(key, 0) for key in runs],
        "now": now,
        "low": ids[0],
        "high": ids[-1],
    }
    done = {}
    allowed = caps or Caps()
    for tenant, identity, fence, loose, lines, kept in await fetch(conn, _APPEND, values | _columns(chunks)):
        done[tenant, identity] = Appended(fence, loose)
        if kept > allowed.raw_bytes or lines > allowed.lines:
            await _make_room(conn, tenant, identity, fence, allowed)
    return done


def _columns(chunks: Sequence[tuple[UUID, UUID, int, Chunk]]) -> dict[str, object]:
    packed = [one[3] for one in chunks]
    levels = zip(*(chunk.counts for chunk in packed), strict=True)
    return {
        "c_id": [one[1] for one in chunks],
        "c_first": [chunk.first_seq for chunk in packed],
        "c_lines": [chunk.lines for chunk in packed],
        "c_bytes": [chunk.raw_bytes for chunk in packed],
        "c_levels": [chunk.levels for chunk in packed],
        "c_codec": [chunk.codec for chunk in packed],
        "c_data": [chunk.data for chunk in packed],
        **{
            name: list(column)
            for name, column in zip(("c_debugs", "c_infos", "c_warns", "c_errors"), levels, strict=True)
        },
    }


async def _make_room(conn: AsyncConnection, tenant_id: UUID, execution_id: UUID, fence: int, caps: Caps) -> None:
    """Drop whole chunks out of the middle of an execution's log until it is below the caps."""
    parameters = {"tenant": tenant_id, "id": execution_id}
    # First the attempts, then their chunks: the order in which chunks are packed as well.
    cuts = {one: cut for one, cut in await fetch(conn, _LOCK_ALL, parameters) if cut is not None}
    weights = [Weight(*row) for row in await fetch(conn, _WEIGHTS, parameters)]
    chosen = middle(weights, fence, cuts, caps)
    if chosen:
        where = {"fences": [one.fence for one in chosen], "firsts": [one.first_seq for one in chosen]}
        await fetch(conn, _CUT, {**parameters, **where, "loose": LOOSE_BYTES})


def middle(weights: Sequence[Weight], fence: int, cuts: Mapping[int, int], caps: Caps) -> list[Weight]:
    """Choose what goes of an execution's chunks, given oldest first, so that it is well below the caps.

    Kept are the first quarter of what a cap allows, and the latest; the newest chunk always. `cuts` says of claims
    of which a part has gone already where that begins: what is missing of a claim stays in one piece.
    """
    chosen = set(_excess(weights, [one.raw_bytes for one in weights], caps.raw_bytes, cuts))
    left = [one for one in weights if one.fence == fence and one not in chosen]
    chosen |= set(_excess(left, [one.lines for one in left], caps.lines, cuts))
    for one, begin in cuts.items():
        firsts = [weight.first_seq for weight in chosen if weight.fence == one]
        if firsts and min(firsts) < begin:
            chosen |= {w for w in weights if w.fence == one and min(firsts) < w.first_seq < begin}
    return [one for one in weights if one in chosen]


def _excess(weights: Sequence[Weight], sizes: Sequence[int], cap: int, cuts: Mapping[int, int]) -> list[Weight]:
    """Choose the oldest chunks behind the head. That ends where something is missing already, if not before."""
    total, head, gone = sum(sizes), cap // 4, []
    if total <= cap:
        return []
    first = min(cuts.items(), default=None)
    for weight, size in zip(weights[:-1], sizes[:-1], strict=True):
        if total <= cap - cap // 16:
            break
        head -= size
        if head < 0 or (first is not None and (weight.fence, weight.first_seq) >= first):
            gone.append(weight)
            total -= size
            head = -1
    return gone
