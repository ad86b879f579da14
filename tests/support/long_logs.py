"""A long log: a million lines in one execution, written as the API would have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import UUID

from cron_observer.store import logs
from support.databases import Tenant

#: Lines that are made at a time.
_STRIDE = 10_000


def message(number: int) -> str:
    """Return the text of a line."""
    return f"line {number} worker-{number % 7} wrote part-{number % 9973}.parquet with {number * 7919 % 100_003} rows"


def level(number: int) -> str:
    """Return the level of a line: one in 1,000 is a warning, one in 100,000 an error."""
    return "ERROR" if number % 100_000 == 99_999 else "WARN" if number % 1000 == 500 else "INFO"


def made(first: int, many: int) -> Iterator[logs.Chunk]:
    """Make the chunks of `many` lines from number `first` on."""
    for begin in range(first, first + many, _STRIDE):
        numbers = range(begin, min(begin + _STRIDE, first + many))
        lines = logs.make(
            [message(n) for n in numbers], [level(n) for n in numbers], [1_750_000_000_000 + n for n in numbers]
        )
        yield from logs.pack_lines(begin, lines)


async def append(
    tenant: Tenant, execution: UUID, messages: Sequence[str], now: datetime, *, first: int = 0, fence: int = 1
) -> None:
    """Append lines with these texts to the log of a claimed execution, as one batch."""
    lines = logs.make(messages, ["INFO"] * len(messages))
    parts = [(tenant.tenant_id, execution, fence, chunk) for chunk in logs.pack_lines(first, lines)]
    async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
        assert len(await logs.append(conn, parts, now)) == 1


async def write(tenant: Tenant, execution: UUID, lines: int, now: datetime, *, first: int = 0, fence: int = 1) -> None:
    """Append `lines` lines to the log of a claimed execution."""
    waiting: list[logs.Chunk] = []

    async def flush() -> None:
        async with tenant.database.api.transaction([tenant.tenant_id]) as conn:
            parts = [(tenant.tenant_id, execution, fence, chunk) for chunk in waiting]
            assert len(await logs.append(conn, parts, now)) == 1
        waiting.clear()

    for chunk in made(first, lines):
        waiting.append(chunk)
        if len(waiting) >= 100:
            await flush()
    if waiting:
        await flush()
