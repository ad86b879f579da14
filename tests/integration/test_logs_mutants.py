"""The checks of logs can fail: each line below breaks packing or the cap in one place, and a check must see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from integration import test_logs_kept as kept
from support.databases import FreshDatabase, Tenant
from support.mutants import Mutant

Check = Callable[[FreshDatabase, Tenant], Awaitable[None]]


async def packed(database: FreshDatabase, tenant: Tenant) -> None:
    """Pack what came line by line."""
    await kept.test_single_lines_are_packed_and_stay_what_they_were(database, tenant)


async def beside(database: FreshDatabase, tenant: Tenant) -> None:
    """Pack, append and drop at once."""
    await kept.test_packing_beside_appends_and_drops(database, tenant)


async def capped(_database: FreshDatabase, tenant: Tenant) -> None:
    """Write more than a cap allows."""
    await kept.test_beyond_the_cap_head_and_tail_stay(tenant)


async def chosen(_database: FreshDatabase, _tenant: Tenant) -> None:
    """Choose what goes, of many logs."""
    kept.test_the_newest_stays_however_large()
    for seed in range(46):
        kept.test_what_goes_is_in_one_piece_and_never_the_newest(seed)


async def grouped(_database: FreshDatabase, _tenant: Tenant) -> None:
    """Choose what is packed together."""
    kept.test_neighbours_are_packed_up_to_a_size()


_LOST = "if len(await fetch(conn, _TAKE_OUT, {**where, **taken})) != len(parts):\n            raise Gone"

#: What is broken, and the check that sees it.
MUTANTS: dict[str, tuple[Mutant, Check]] = {
    "what somebody else has packed is packed again": (
        Mutant("store.logs.packing", "_replace", _LOST, "await fetch(conn, _TAKE_OUT, {**where, **taken})"), packed,
    ),
    "lines are packed over a gap": (
        Mutant("store.logs.packing", "regroup", "if follows and loose", "if runs and loose"), grouped,
    ),
    "all lines came when the first did": (
        Mutant("store.logs.packing", "_join", "in one.arrivals:", "in [(one.lines, opened[0].arrivals[0][1])]:"),
        packed,
    ),
    "fields stay behind": (
        Mutant("store.logs.packing", "_join", "{at + number: said for", "{number: said for"), packed,
    ),
    "nobody counts what is loose": (
        Mutant("store.logs.packing", "_NOTE", "GREATEST(a.log_loose - %(gone)s, 0)", "a.log_loose"), packed,
    ),
    "a chunk without measure": (
        Mutant("store.logs.packing", "regroup", "size + one.raw_bytes <= CHUNK_BYTES", "True"), grouped,
    ),
    "a loose end that is never packed": (
        Mutant("store.logs.packing", "regroup", "last[0].first_seq if size < LOOSE_BYTES else end", "end"), grouped,
    ),
    "the newest goes": (
        Mutant("store.logs.storing", "_excess", "zip(weights[:-1], sizes[:-1],", "zip(weights, sizes,"), chosen,
    ),
    "a second hole": (
        Mutant("store.logs.storing", "middle", "if firsts and min(firsts) < begin:", "if False:"), chosen,
    ),
    "a hole that is not gone on with": (
        Mutant(
            "store.logs.storing", "_excess",
            "head < 0 or (first is not None and (weight.fence, weight.first_seq) >= first)", "head < 0",
        ),
        chosen,
    ),
    "no head": (Mutant("store.logs.storing", "_excess", "cap // 4", "0"), capped),
    "a cap that nobody heeds": (
        Mutant("store.logs.storing", "append", "if kept > allowed.raw_bytes or lines > allowed.lines:", "if False:"),
        capped,
    ),
    "a hole that is told too small": (
        Mutant("store.logs.storing", "_CUT", "LEAST(a.log_cut_from, cut.low)", "cut.low"), beside,
    ),
    "what went before is forgotten": (
        Mutant("store.logs.storing", "_CUT", "a.log_cut_bytes + cut.raw_bytes", "cut.raw_bytes"), beside,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_mutant_is_caught(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With logs broken in this place, the check fails."""
    mutant, sees = MUTANTS[name]
    mutant.apply(monkeypatch)
    with pytest.raises(Exception):  # noqa: B017, PT011  by an assertion, or because the database refuses it
        await sees(database, tenant)
