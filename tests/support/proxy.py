"""A TCP proxy that does to connections what networks do: slow, cut in the middle, half closed, answers swallowed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

#: What may happen to a connection: nothing, a delay, an end after some bytes of the request or of the answer, an end
#: of the client's half before the answer, an answer that the server gave and nobody hears.
FAULTS = ("none", "delay", "cut_request", "cut_answer", "half_close", "swallow")


@dataclass
class Proxy:
    """Where to connect to, and what has been done so far. Every choice comes from `chance`, so that a run repeats."""

    target: tuple[str, int]
    chance: random.Random
    faults: tuple[str, ...] = FAULTS
    done: Counter[str] = field(default_factory=Counter)
    port: int = 0

    @property
    def url(self) -> str:
        """The address that stands for the server's."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to the server and back, with one fault at most."""
        fault = self.chance.choice(self.faults)
        self.done[fault] += 1
        after = self.chance.randrange(1, 2_000)
        if fault == "delay":
            await asyncio.sleep(self.chance.uniform(0.001, 0.03))
        try:
            there_reader, there_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        there = asyncio.create_task(_carry(reader, there_writer, after if fault == "cut_request" else None))
        if fault == "swallow":
            back = asyncio.create_task(_hear(there_reader))
        else:
            back = asyncio.create_task(_carry(there_reader, writer, after // 4 if fault == "cut_answer" else None))
        if fault == "half_close":
            there_writer.write(await reader.read(65_536))
            with contextlib.suppress(OSError):
                there_writer.write_eof()
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        for one in (there, back):
            one.cancel()
        await asyncio.gather(there, back, return_exceptions=True)
        for side in (writer, there_writer):
            side.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None) -> None:
    """Pass bytes on until their end, or until `most` have passed."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data if most is None else data[:most])
            await writer.drain()
            if most is not None:
                most -= len(data)
                if most <= 0:
                    return


async def _hear(reader: asyncio.StreamReader) -> None:
    """Wait for an answer, which means that what was asked for is committed, and keep it."""
    await reader.read(65_536)


@asynccontextmanager
async def proxied(url: str, seed: int, faults: tuple[str, ...] = FAULTS) -> AsyncIterator[Proxy]:
    """Stand between clients and the server at `url`."""
    host, _, port = url.removeprefix("http://").partition(":")
    proxy = Proxy((host, int(port)), random.Random(seed), faults)  # noqa: S311  a run that repeats
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
