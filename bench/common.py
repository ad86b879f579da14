"""What the benchmarks share: a running product, a lean HTTP client, percentiles, and the verdict."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.processes import Product, Repository, manifest, running, until

__all__ = [
    "Http",
    "Product",
    "Repository",
    "arguments",
    "manifest",
    "percentile",
    "product",
    "show",
    "until",
    "verdict",
]


def arguments(doc: str, **numbers: int) -> argparse.Namespace:
    """Read the command line: one option for each of `numbers`, with its default."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default {default}")
    return parser.parse_args()


@contextmanager
def product(**environment: str) -> Iterator[tuple[Product, Repository]]:
    """Run the product on a fresh database, with commits durable, and a repository of its own."""
    with tempfile.TemporaryDirectory(prefix="co-bench-") as folder:
        here = Path(folder)
        here.chmod(0o755)
        repository = Repository(here)
        repository.push("Begin", {"README.md": "bench\n"})
        with running(here / "data", "--no-demo", "--repo", str(repository.bare), **environment) as started:
            yield started, repository


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of them lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(what: str, seconds: Sequence[float]) -> dict[str, float]:
    """Print N and percentiles in milliseconds, and return them by name."""
    figures = {name: percentile(seconds, share) * 1000 for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    shown = "  ".join(f"{name} {value:8.1f} ms" for name, value in figures.items())
    print(f"{what:<44} N {len(seconds):>6}  {shown}  max {max(seconds) * 1000:8.1f} ms")
    return figures


def verdict(what: str, figure: float, goal: float, limit: float, limit_name: str, unit: str = "ms") -> None:
    """Print figure, goal, the limit of the same run and the ratio; exit 1 when the goal is missed."""
    ratio = figure / limit if limit else float("inf")
    print(f"machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    print(f"{limit_name}: {limit:.2f} {unit}")
    print(f"{what}: {figure:.2f} {unit} (goal {goal:.2f} {unit}); ratio to the limit {ratio:.2f}")
    if figure > goal:
        print("MISSED")
        sys.exit(1)
    print("met")


class Http:
    """One keep-alive connection, and no more HTTP than that needs."""

    def __init__(self, product: Product) -> None:
        host, _, port = product.url.removeprefix("http://").partition(":")
        self._address = (host, int(port))
        self._head = f"Host: {host}:{port}\r\nAuthorization: Bearer {product.token}\r\n"
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send one request and return status and parsed JSON (None for an empty body)."""
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(*self._address)
        raw = b"" if body is None else json.dumps(body).encode()
        kind = "Content-Type: application/json\r\n" if body is not None else ""
        head = f"{method} {path} HTTP/1.1\r\n{self._head}{kind}Content-Length: {len(raw)}\r\n\r\n"
        self._writer.write(head.encode() + raw)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = next(
            (
                int(line.partition(":")[2])
                for line in answer.split("\r\n")
                if line.lower().startswith("content-length:")
            ),
            0,
        )
        data = await self._reader.readexactly(length) if length else b""
        return int(answer.split(" ", 2)[1]), json.loads(data) if data else None

    async def timed(self, method: str, path: str, body: Any = None) -> tuple[float, int, Any]:
        """Send one request and return how many seconds it took, with its answer."""
        began = time.perf_counter()
        status, parsed = await self.ask(method, path, body)
        return time.perf_counter() - began, status, parsed

    def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
