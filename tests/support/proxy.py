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
    #: Bytes that clients send, at most, before the fault of a connection: for clients that keep theirs.
    calm: int = 0
    port: int = 0
    under_way: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """The address that stands for the server's."""
        return f"http://127.0.0.1:{self.port}"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        one = asyncio.ensure_future(self.serve(reader, writer))
        self.under_way.add(one)
        one.add_done_callback(self.under_way.discard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to the server and back, with one fault at most."""
        fault = self.chance.choice(self.faults)
        self.done[fault] += 1
        pause = self.chance.uniform(0.001, 0.03) if fault == "delay" else 0.0
        asked, answered = (self.chance.randrange(1 + self.calm // part) for part in (1, 5))
        after = self.chance.randrange(1, 2_000)
        try:
            there_reader, there_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        there = _carry(reader, there_writer, asked + after if fault == "cut_request" else None, pause)
        back = _carry(there_reader, writer, answered + after // 4 if fault == "cut_answer" else None, pause)
        if fault == "half_close":
            there = _carry(reader, there_writer, asked + after, pause, half=True)
        elif fault == "swallow":
            back = _swallow(there_reader, writer, answered)
        elif fault == "delay" and self.calm:  # or this client would keep a connection that no longer fails
            back = _carry(there_reader, writer, answered + after, pause)
        both = [asyncio.ensure_future(there), asyncio.ensure_future(back)]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for side in (writer, there_writer):
                side.close()


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None, pause: float, *, half: bool = False
) -> None:
    """Pass bytes on until their end, or until `most` have passed; `half`: end this direction then, not the other."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            await asyncio.sleep(pause)
            writer.write(data if most is None else data[:most])
            await writer.drain()
            if most is not None:
                most -= len(data)
                if most <= 0:
                    break
        if half:
            writer.write_eof()
            await asyncio.sleep(0.5)  # the server has this long to answer who says no more


async def _swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: int) -> None:
    """Pass on `first` bytes of answers, then wait for one, which means that what was asked for is committed, and keep
    it."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            if first <= 0:
                return
            writer.write(data)
            await writer.drain()
            first -= len(data)


@asynccontextmanager
async def proxied(url: str, seed: int, faults: tuple[str, ...] = FAULTS, calm: int = 0) -> AsyncIterator[Proxy]:
    """Stand between clients and the server at `url`."""
    host, _, port = url.removeprefix("http://").partition(":")
    proxy = Proxy((host, int(port)), random.Random(seed), faults, calm=calm)  # noqa: S311  a run that repeats
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for one in proxy.under_way:
            one.cancel()
        await asyncio.gather(*proxy.under_way, return_exceptions=True)
