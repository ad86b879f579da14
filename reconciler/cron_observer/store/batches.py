"""Long lists, written in batches: the next one is made ready while the server works on the one before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
P = TypeVar("P")

#: Rows that are made ready at once: a thread would take longer to begin.
FEW: Final = 100


async def prepared(
    rows: Sequence[T], size: int, prepare: Callable[[Sequence[T]], P]
) -> AsyncIterator[tuple[Sequence[T], P]]:
    """Give `rows` in batches of `size`, each with what `prepare` makes of it in a thread; nothing for no rows.

    `prepare` of the next batch runs while the caller writes this one, so it must not need what that changes.
    """
    loop = asyncio.get_running_loop()
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    if len(rows) <= FEW:
        for batch in batches:
            yield batch, prepare(batch)
        return
    following = loop.run_in_executor(None, prepare, batches[0])
    try:
        for number, batch in enumerate(batches, 1):
            ready = await following
            if number < len(batches):
                following = loop.run_in_executor(None, prepare, batches[number])
            yield batch, ready
    finally:
        following.cancel()
