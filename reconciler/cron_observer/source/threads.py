"""Threads for what blocks: Git, folders, parsing. Of their own, so that a forge that hangs holds up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: Sources that may block at once; they mostly wait for a server.
THREADS: Final = 32


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="source")


async def in_thread(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Call a function that blocks in a worker thread, and return what it returns."""
    return await asyncio.get_running_loop().run_in_executor(_pool(), partial(function, *arguments, **named))
