"""What names of hosts resolve to, looked up beside the event loop, each name once at a time.

Threads of its own, so that a name server that hangs keeps nobody waiting but those who want that name.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Final

#: Names that are looked up at once.
THREADS: Final = 32

#: Returns the addresses of a host, the preferred first; raises `OSError` if there are none.
Lookup = Callable[[str], Sequence[str]]


def system(host: str) -> list[str]:
    """Ask the system's resolver. It blocks."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Names:
    """Looks names up for one dispatcher."""

    def __init__(self, lookup: Lookup = system) -> None:
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="names")
        self._under_way: dict[str, asyncio.Future[Sequence[str]]] = {}

    async def addresses(self, host: str) -> Sequence[str]:
        """Return the addresses of a host; raises `OSError` if there are none."""
        try:
            return [str(ip_address(host))]
        except ValueError:
            pass
        asked = self._under_way.get(host)
        if asked is None:
            asked = asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, host)
            self._under_way[host] = asked
            asked.add_done_callback(lambda _: self._under_way.pop(host, None))
        try:
            return await asyncio.shield(asked)
        except UnicodeError:
            raise OSError(f"{host} is no name of a host") from None

    def close(self) -> None:
        """Take nothing more; what is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
