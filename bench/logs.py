"""Log lines: appended over HTTP in batches of 100 and 1,000, read, searched and downloaded when there are a million.

Goals: 150,000 lines a second in batches of 100, 300,000 in batches of 1,000, acknowledged after durable commits.
The limit of the same run: the same compressed chunks put into a table by as many connections, each its own commit.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
from common import Http, Product, arguments, manifest, product, show, until

from cron_observer.postgres.cluster import SUPERUSER
from cron_observer.store import logs

GOALS = {100: 150_000, 1000: 300_000}
MILLION = 1_000_000


def message(number: int) -> str:
    """Return a line as programs write them, of some 90 bytes."""
    rows, took = number * 7919 % 100_003, number % 997
    return f"worker-{number % 7} wrote part-{number % 9973}.parquet with {rows} rows in {took} ms to s3"


def entries(many: int) -> str:
    """Return the JSON of `many` lines, each with its time and level."""
    lines = [
        {"ts": f"2026-11-21T10:00:{n % 60:02}.{n % 1000:03}Z", "level": "INFO", "message": message(n)}
        for n in range(many)
    ]
    return json.dumps(lines, separators=(",", ":"))


class Sender(Http):
    """A connection that sends bodies which are JSON already."""

    async def post(self, path: str, raw: bytes) -> dict[str, Any]:
        """Send one body and return the parsed answer, which must be 202."""
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(*self._address)
        head = (
            f"POST {path} HTTP/1.1\r\n{self._head}Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        )
        self._writer.write(head.encode())
        self._writer.write(raw)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        body = await self._reader.readexactly(length)
        assert answer.split(b" ", 2)[1] == b"202", body
        parsed: dict[str, Any] = json.loads(body)
        return parsed


async def begin(running: Product) -> tuple[str, int]:
    """Begin an execution of its worker's own; return its id and fence."""
    http = Http(running)
    body = {"task": "default/busy", "worker": "bench", "lease_seconds": 3600}
    status, one = await http.ask("POST", "/api/v1/sdk/executions", body)
    assert status == 201, one
    http.close()
    return one["id"], one["fence"]


async def append(running: Product, batch: int, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Let `clients` append to logs of their own for so long; return lines a second, and the seconds of each reply."""
    said = entries(batch)
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> int:
        identity, fence = await begin(running)
        sender, path, seq = Sender(running), f"/api/v1/sdk/executions/{identity}/logs", 0
        while (at := time.perf_counter()) < end:
            raw = f'{{"fence":{fence},"first_seq":{seq},"entries":{said}}}'.encode()
            seq = (await sender.post(path, raw))["next_seq"]
            took.append(time.perf_counter() - at)
        sender.close()
        return seq

    began = time.perf_counter()
    lines = sum(await asyncio.gather(*(client() for _ in range(clients))))
    return lines / (time.perf_counter() - began), took


def address(running: Product) -> str:
    """Return how the embedded server is reached."""
    (pid,) = running.data_dir.glob("**/postmaster.pid")
    lines = pid.read_text(encoding="utf-8").splitlines()
    return f"host={lines[4]} port={lines[3]} user={SUPERUSER} dbname=cron_observer"


async def floor(running: Product, batch: int, clients: int, seconds: float) -> float:
    """Put the same chunks into a table, one commit each; return lines a second."""
    lines = logs.make(
        [message(n) for n in range(batch)], ["INFO"] * batch, [1_795_000_000_000 + n for n in range(batch)]
    )
    chunks = [chunk.data for chunk in logs.pack_lines(0, lines)]
    statement = "INSERT INTO bench_chunks (n, data) SELECT %s, unnest(%s::bytea[])"
    target = address(running)
    async with await psycopg.AsyncConnection.connect(target, autocommit=True) as conn:
        await conn.execute("CREATE TABLE IF NOT EXISTS bench_chunks (n int, data bytea)")
        await conn.execute("ALTER TABLE bench_chunks ALTER data SET STORAGE EXTERNAL")
    end = time.perf_counter() + seconds

    async def client(number: int) -> int:
        many = 0
        async with await psycopg.AsyncConnection.connect(target, autocommit=True) as conn:
            while time.perf_counter() < end:
                await conn.execute(statement, (number, chunks))
                many += batch
        return many

    began = time.perf_counter()
    return sum(await asyncio.gather(*(client(n) for n in range(clients)))) / (time.perf_counter() - began)


async def fill(running: Product) -> str:
    """Write a million lines into one log, with an error in every 100,000; return the execution."""
    identity, fence = await begin(running)
    sender, path = Sender(running), f"/api/v1/sdk/executions/{identity}/logs"
    for first in range(0, MILLION, 5000):
        many = [
            {"level": "ERROR" if n % 100_000 == 99_999 else "INFO", "message": f"line {n} {message(n)}"}
            for n in range(first, first + 5000)
        ]
        await sender.post(path, json.dumps({"fence": fence, "first_seq": first, "entries": many}).encode())
    sender.close()
    return identity


async def read(running: Product, identity: str) -> None:
    """Read pages, search and download, and print how long that takes."""
    http, path = Http(running), f"/api/v1/executions/{identity}"
    places = [n * 47_981 % (MILLION - 1000) for n in range(100)]
    show("a page of 1,000 lines anywhere", [(await http.timed("GET", f"{path}/logs?from_seq={n}"))[0] for n in places])
    show("the lines of level ERROR", [(await http.timed("GET", f"{path}/logs?level=ERROR"))[0] for _ in range(20)])
    whole = []
    for _ in range(5):
        at, following = time.perf_counter(), 0
        while following is not None:
            status, got = await http.ask("GET", f"{path}/logs/matches?q=LINE%20999999%20&from_seq={following}")
            assert status == 200, got
            following = got["next_seq"]
        assert got["items"] == [999_999]
        whole.append(time.perf_counter() - at)
    show("search of the whole log", whole)
    http.close()
    for name in ("logs.txt", "logs.txt.gz", "logs.ndjson"):
        print(f"{'download of ' + name:<44} {await download(running, f'{path}/{name}')}")


async def download(running: Product, path: str) -> str:
    """Read a whole file and say how long it took."""
    host, _, port = running.url.removeprefix("http://").partition(":")
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
    size = 0
    while raw := await reader.read(1 << 20):
        size += len(raw)
    writer.close()
    seconds = time.perf_counter() - began
    return f"{seconds:6.2f} s  {size / 1e6:7.1f} MB  {MILLION / seconds:12,.0f} lines/s"


def memory(running: Product) -> float:
    """Return the most MiB that the product's largest process has had."""
    most = 0.0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            said = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
            ours = str(running.data_dir).encode() in (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if ours and "VmHWM" in said and "postgres" not in said["Name"]:
            most = max(most, int(said["VmHWM"].split()[0]) / 1024)
    return most


async def measure(running: Product, clients: int, seconds: float) -> bool:
    """Print every figure; say whether the goals are met."""
    met = True
    await append(running, 100, clients, 2)  # warm
    for batch, goal in GOALS.items():
        limit = await floor(running, batch, clients, seconds / 2)
        figure, took = await append(running, batch, clients, seconds)
        show(f"append of {batch} lines, {clients} clients", took)
        ok = figure >= goal
        said = f"{figure:,.0f} lines/s (goal {goal:,}), limit {limit:,.0f}, ratio {figure / limit:.2f}"
        print(f"{said}: {'met' if ok else 'MISSED'}")
        met = met and ok
    await read(running, await fill(running))
    print(f"most memory of a process: {memory(running):.0f} MiB")
    return met


def main() -> None:
    """Append, then read a million lines."""
    asked = arguments(__doc__ or "", clients=64, seconds=10)
    with product() as (running, repository):
        repository.push("Add a task", {"busy.yaml": manifest("busy", "every: 1h", "  overlap: allow_all\n")})
        until(lambda: running.task("busy"), "task")
        if not asyncio.run(measure(running, asked.clients, asked.seconds)):
            sys.exit(1)


if __name__ == "__main__":
    main()
