"""Long lists that are made ready batch by batch, ahead of being written."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from cron_observer.store.batches import FEW, prepared


@pytest.mark.parametrize("count", [0, 1, FEW, FEW + 1, 1_000, 1_001])
async def test_every_row_comes_once_and_in_order(count: int) -> None:
    """Batches are of the size asked for, but for the last, each with what was made of it."""
    rows = list(range(count))
    found = [(list(batch), total) async for batch, total in prepared(rows, 250, sum)]
    assert [row for batch, _ in found for row in batch] == rows
    assert all(len(batch) == 250 for batch, _ in found[:-1])
    assert all(total == sum(batch) for batch, total in found)


async def test_the_next_batch_is_made_while_one_is_written() -> None:
    """Whoever writes a batch need not do anything for the next one to be made."""
    made = [threading.Event() for _ in range(3)]

    def make(batch: Sequence[int]) -> int:
        number = batch[0] // 1_000
        made[number].set()
        return number

    async for _, number in prepared(range(3_000), 1_000, make):
        assert number == 2 or made[number + 1].wait(60)


async def test_what_fails_fails_where_the_batch_is_taken() -> None:
    """An error in making the second batch is raised when the first has been taken, and not before."""

    def make(batch: Sequence[int]) -> int:
        if batch[0]:
            raise ValueError("the second")
        return len(batch)

    batches = prepared(range(2_000), 1_000, make)
    assert (await anext(batches))[1] == 1_000
    with pytest.raises(ValueError, match="the second"):
        await anext(batches)
