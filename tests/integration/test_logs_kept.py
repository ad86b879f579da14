"""What is kept of logs: small chunks packed without a line lost, and head and tail beyond a cap."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from cron_observer.store import logs
from cron_observer.store.logs import packing, storing
from cron_observer.store.logs.storing import Weight
from support import long_logs
from support.api import api
from support.claims import claimed
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, make_slot, make_task


async def running(database: FreshDatabase, tenant: Tenant) -> UUID:
    """Return an execution that is claimed."""
    execution = make_slot(tenant, make_task(tenant), database_now(database) - timedelta(seconds=1))
    await claimed(database.api, tenant)
    return execution


async def everything(tenant: Tenant, execution: UUID) -> list[tuple[int, str]]:
    """Read a whole log back, page by page."""
    found: list[tuple[int, str]] = []
    seq: int | None = 0
    while seq is not None:
        async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
            items, seq = await logs.read(conn, tenant.tenant_id, execution, from_seq=seq, limit=700)
        found += [(item["seq"], item["message"]) for item in items]
    return found


async def test_single_lines_are_packed_and_stay_what_they_were(database: FreshDatabase, tenant: Tenant) -> None:
    """Lines that came one by one become few chunks; each keeps its number, level, time, fields and arrival."""
    execution = await running(database, tenant)
    now = database_now(database)
    before = []
    for n in range(130):
        entry = {"level": logs.LEVELS[n % 4], "message": f"line {n}", "fields": {"n": n} if n % 3 else None}
        chunk = logs.pack(n, [entry | {"ts": f"2026-11-21T10:00:{n % 60:02}.125Z"}])
        async with database.api.transaction([tenant.tenant_id]) as conn:
            at = now + timedelta(seconds=n)
            assert await logs.append(conn, [(tenant.tenant_id, execution, 1, chunk)], at)
    async with database.api.transaction([tenant.tenant_id]) as conn:
        before, _ = await logs.read(conn, tenant.tenant_id, execution)
    assert database.value("SELECT log_loose FROM attempts WHERE execution_id = %s", execution) == 130
    packed = await asyncio.gather(*(logs.pack_loose(database.api, tenant.tenant_id, execution, 1) for _ in range(3)))
    assert sorted(packed) == [0, 0, 130]
    assert await logs.pack_loose(database.api, tenant.tenant_id, execution, 1) == 0
    async with database.api.transaction([tenant.tenant_id]) as conn:
        after, _ = await logs.read(conn, tenant.tenant_id, execution)
        again = logs.pack(0, [{"level": "INFO", "message": "again"}])
        assert await logs.append(conn, [(tenant.tenant_id, execution, 1, again)], now) == {}
    assert after == before
    (row,) = database.rows("SELECT lines, raw_bytes, debugs, infos, warns, errors FROM log_chunks")
    assert list(row.values())[2:] == [33, 33, 32, 32]
    (kept,) = database.rows("SELECT log_bytes, log_loose, log_packed FROM attempts WHERE execution_id = %s", execution)
    assert (kept["log_bytes"], kept["log_loose"], kept["log_packed"]) == (row["raw_bytes"], 1, 0)


async def test_packing_beside_appends_and_drops(database: FreshDatabase, tenant: Tenant) -> None:
    """While several processes pack, append and drop the same log, every line that is kept is there once."""
    execution = await running(database, tenant)
    now = database_now(database)
    caps = logs.Caps(raw_bytes=256 * 1024, lines=10_000_000)
    done = asyncio.Event()

    async def pack() -> None:
        while not done.is_set():
            await logs.pack_loose(database.api, tenant.tenant_id, execution, 1)

    async def append() -> int:
        seq, chosen = 0, random.Random(7)  # noqa: S311
        while seq < 12_000:
            many = chosen.choice((1, 3, 40, 200))
            numbers = range(seq, seq + many)
            lines = logs.make([long_logs.message(n) for n in numbers], ["INFO"] * many)
            parts = [(tenant.tenant_id, execution, 1, chunk) for chunk in logs.pack_lines(seq, lines)]
            async with database.api.transaction([tenant.tenant_id]) as conn:
                assert await logs.append(conn, parts, now, caps=caps)
            seq += many
        done.set()
        return seq

    *_, lines = await asyncio.gather(pack(), pack(), append())
    (row,) = database.rows("SELECT * FROM attempts WHERE execution_id = %s", execution)
    gone = range(row["log_cut_from"], row["log_cut_to"])
    kept = [n for n in range(lines) if n not in gone]
    assert await everything(tenant, execution) == [(n, long_logs.message(n)) for n in kept]
    stored = database.value("SELECT sum(raw_bytes) FROM log_chunks")
    assert stored == row["log_bytes"] - row["log_cut_bytes"] <= caps.raw_bytes
    assert gone.start > 500  # the head: a quarter of the cap


async def test_beyond_the_cap_head_and_tail_stay(tenant: Tenant) -> None:
    """The middle goes, numbers stay true, a repeat of a dropped line is dropped, and every reader is told."""
    task = make_task(tenant)
    slot = make_slot(tenant, task, database_now(tenant.database) - timedelta(seconds=1))
    async with api(tenant, log_cap_mib=1) as it:
        await it.call("POST", "/sdk/claims", "report", json={"worker": "w"})

        async def send(first: int, many: int) -> int:
            entries = [{"level": "INFO", "message": f"{n} " + "x" * 500} for n in range(first, first + many)]
            body = {"fence": 1, "first_seq": first, "entries": entries}
            answer = await it.call("POST", f"/sdk/executions/{slot}/logs", "report", json=body)
            assert answer.status_code == 202, answer.text
            following: int = answer.json()["next_seq"]
            return following

        for first in range(0, 8000, 1000):
            assert await send(first, 1000) == first + 1000
        assert await send(3000, 1000) == 8000
        page = (await it.call("GET", f"/executions/{slot}/logs?limit=1000", "read")).json()
        (cut,) = page["cuts"]
        end = cut["from_seq"] + cut["lines"]
        assert 400 < cut["from_seq"] < 560
        assert 8000 - end > 1200
        numbers = [item["seq"] for item in page["items"]]
        assert numbers == [*range(cut["from_seq"]), *range(end, end + 1000 - cut["from_seq"])]
        inside = (await it.call("GET", f"/executions/{slot}/logs?from_seq=3000&limit=1", "read")).json()
        assert [item["seq"] for item in inside["items"]] == [end]
        text = (await it.call("GET", f"/executions/{slot}/logs.txt", "read")).text.splitlines()
        assert text[cut["from_seq"]] == f"… {cut['lines']} lines ({cut['bytes']} bytes) are not kept …"
        assert len(text) == 8000 - cut["lines"] + 1
        objects = (await it.call("GET", f"/executions/{slot}/logs.ndjson", "read")).text.splitlines()
        assert sum('"cut"' in line[:8] for line in objects) == 1
        shown = (await it.client.get(f"/executions/{slot}?from=0")).text
    assert f"{cut['lines']:,} of them not kept" in shown


@pytest.mark.parametrize("seed", range(46))
def test_what_goes_is_in_one_piece_and_never_the_newest(seed: int) -> None:
    """Whatever was written under how many claims, and was cut before: below the cap, one gap a claim, newest kept."""
    chosen = random.Random(seed)  # noqa: S311
    uneven = seed >= 20  # lines of very different lengths, so that now the one cap and now the other is reached
    most = chosen.randint(200, 1000)
    caps = storing.Caps(raw_bytes=most, lines=chosen.choice((8, 12, 20, 40) if uneven else (40, 10_000)))
    rows: list[Weight] = []
    missing: dict[int, set[int]] = {}
    for fence in range(1, 4):
        for first in range(chosen.randint(1, 120)):
            size = chosen.choice((1, 1, 1, chosen.randint(1, 80))) if uneven else chosen.randint(1, 40)
            rows.append(Weight(fence, first, 1, size))
            cuts = {one: min(gone) for one, gone in missing.items()}
            for one in storing.middle(rows, fence, cuts, caps):
                assert one != rows[-1]
                rows.remove(one)
                missing.setdefault(one.fence, set()).add(one.first_seq)
            assert sum(one.raw_bytes for one in rows) <= caps.raw_bytes
            assert sum(one.fence == fence for one in rows) <= caps.lines
            for gone in missing.values():
                assert gone == set(range(min(gone), max(gone) + 1))


def test_the_newest_stays_however_large() -> None:
    """A chunk that is more than the cap allows is kept until there is a newer one."""
    rows = [Weight(1, first, 1, 50) for first in range(4)] + [Weight(1, 4, 1, 5000)]
    assert storing.middle(rows, 1, {}, storing.Caps(raw_bytes=400)) == rows[2:4]
    later = [*rows[:2], rows[4], Weight(1, 5, 1, 50)]
    assert storing.middle(later, 1, {1: 2}, storing.Caps(raw_bytes=400)) == rows[4:]


def test_neighbours_are_packed_up_to_a_size() -> None:
    """What is large enough stays; what is loose joins its neighbours but not over a gap, and a loose end waits."""
    made = [long_logs.made(first, 50) for first in range(0, 2000, 50)]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    read = [
        packing.Read(chunk.first_seq, chunk.lines, chunk.raw_bytes, now, "lines", chunk.data)
        for chunks in made
        for chunk in chunks
    ]
    groups, packed = packing.regroup(read)
    assert all(group.chunk.raw_bytes > 50 * 1024 for group in groups[:-1])
    assert all(group.chunk.raw_bytes <= 64 * 1024 for group in groups)
    assert sum(len(group.parts) for group in groups) == 40
    assert groups[0].chunk.first_seq == 0
    assert packed == 2000
    assert packing.regroup(read[:2])[1] == 0
    around, _ = packing.regroup(read[:3] + read[4:7])
    assert [[part.first_seq for part in group.parts] for group in around] == [[0, 50, 100], [200, 250, 300]]
