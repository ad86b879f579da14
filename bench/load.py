"""A server to be measured, and a generator of load that is not what is measured.

One API process on a database of its own, with durable commits. Beside its calls it answers
``POST /api/v1/sdk/nothing``: the same guard, the same reading of the body, no work; found by the framework's
routing. ``POST /api/v1/sdk/nothing-hot`` is the same at the workers' door, past that routing.
Requests are bytes that are made beforehand; each connection sends one, waits for the answer and sends the next.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from litestar import Request, Response, Router, post

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cron_observer.postgres.cluster import SUPERUSER
from cron_observer.postgres.launcher import launch
from cron_observer.store import bootstrap
from cron_observer.store.tenants import project_id, tenant_id
from support import databases
from support.databases import FreshDatabase, Tenant
from support.postgres import DISK, short_folder, test_provider
from support.processes import clean_environment, free_port, until

#: Due executions of one task, a millisecond apart, in one statement; ids are UUIDv8 of their instant.
_DUE = """
INSERT INTO executions (tenant_id, id, project_id, task_uid, status, trigger, fire_at, available_at, queue, priority,
    created_at)
SELECT %s, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '8'
        || substr(md5(n::text || %s::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid,
    %s, %s, 'PENDING', 'manual', at, at, %s, 0, at
FROM (SELECT n, clock_timestamp() - n * interval '1 ms' AS at FROM generate_series(1, %s) AS n) AS v
RETURNING id
"""

#: The same, running under fence 1 already.
_RUNNING = """
WITH begun AS (
    UPDATE executions SET status = 'RUNNING', attempt = 1, fence = 1, event_seq = 2, worker = 'bench', generation = 1,
        protocol = 'lease', claimed_at = clock_timestamp(), lease_until = clock_timestamp() + interval '1 hour',
        lease_seconds = 3600, run_deadline = clock_timestamp() + interval '1 hour',
        check_at = clock_timestamp() + interval '1 hour'
    WHERE tenant_id = %s AND id = ANY (%s)
    RETURNING tenant_id, id, claimed_at
)
INSERT INTO attempts (tenant_id, execution_id, fence, attempt, worker, claimed_at)
SELECT tenant_id, id, 1, 1, 'bench', claimed_at FROM begun
"""


@dataclass
class Server:
    """The server under load."""

    url: str
    token: str
    tenant: Tenant
    process: subprocess.Popen[bytes]

    @property
    def database(self) -> FreshDatabase:
        """Its database."""
        return self.tenant.database

    def request(self, path: str, body: bytes, method: str = "POST") -> bytes:
        """Make the bytes of one request under ``/api/v1``."""
        host = self.url.removeprefix("http://")
        kind = "Content-Type: application/json\r\n" if body else ""
        head = f"{method} /api/v1{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {self.token}\r\n{kind}"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def due(self, task: UUID, count: int, queue: str = "default") -> list[UUID]:
        """Make due executions."""
        home = self.tenant
        values = (home.tenant_id, queue, home.project_id, task, queue, count)
        return [row["id"] for row in self.database.rows(_DUE, *values)]

    def running(self, task: UUID, count: int) -> list[UUID]:
        """Make executions that run under fence 1, far from any deadline."""
        ids = self.due(task, count, "elsewhere")
        self.database.do(_RUNNING, self.tenant.tenant_id, ids)
        return ids

    def memory(self) -> float:
        """Return the resident memory of the API in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def seconds(self) -> float:
        """Return the processor time that the API has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(pool: int = 4) -> Iterator[Server]:
    """Serve the API alone until the block ends."""
    with (
        tempfile.TemporaryDirectory(prefix="co-load-") as folder,
        short_folder("co-load-pg-", DISK) as home,
        launch(home / "pg", provider=test_provider()) as postgres,
        databases.template(postgres.url(SUPERUSER, "postgres")) as template,
        databases.fresh(postgres.url(SUPERUSER, "postgres"), template) as database,
    ):
        assert database.value("SHOW fsync") == "on", "commits are not durable"
        assert database.value("SHOW synchronous_commit") == "on", "commits are not durable"
        token, _ = bootstrap.settle_in(database.url, database.url, tenant="default", projects=["default"], token=None)
        tenant = tenant_id("default")
        port = free_port()
        environment = clean_environment(CRON_OBSERVER_POOL_SIZE_API=str(pool))
        passed = {name: os.environ[name] for name in ("PYTHONPATH", "BENCH_PROFILE") if name in os.environ}
        command = [sys.executable, __file__, "serve", str(port), folder, database.url]
        process = subprocess.Popen(command, env=environment | passed)
        made = Server(
            f"http://127.0.0.1:{port}", token, Tenant(database, tenant, project_id(tenant, "default")), process
        )
        try:
            until(lambda: _answers(port, process), "the API")
            yield made
        finally:
            process.terminate()
            process.wait(30)


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    import urllib.request

    assert process.poll() is None, "the API has ended"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass
class Load:
    """What a run of load has shown."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0


#: Gives a connection its next request, or None when there is no more; it is told the answer to the one before.
Next = Callable[[int, bytes], bytes | None]


class _Connection(asyncio.Protocol):
    """One connection that always has one request under way."""

    def __init__(self, load: Load, following: Next, over: asyncio.Future[None]) -> None:
        self._load, self._next, self._over = load, following, over
        self._buffer = bytearray()
        self._sent = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send(self._next(0, b""))

    def _send(self, request: bytes | None) -> None:
        if request is None:
            self._transport.close()
            if not self._over.done():
                self._over.set_result(None)
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._buffer.lower().find(b"content-length:", 0, end)
        length = int(self._buffer[at + 15 : self._buffer.find(b"\r\n", at)]) if at >= 0 else 0
        if len(self._buffer) < end + 4 + length:
            return
        self._load.latencies.append(time.perf_counter() - self._sent)
        status = int(self._buffer[9:12])
        self._load.statuses[status] = self._load.statuses.get(status, 0) + 1
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        self._send(self._next(status, body))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._over.done():
            self._over.set_exception(error or ConnectionError("the server closed a connection"))


async def drive(server: Server, following: Sequence[Next]) -> Load:
    """Open one connection for each of `following`, keep each busy until it has no more; return what was seen."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    loop = asyncio.get_running_loop()
    load = Load()
    overs: list[asyncio.Future[None]] = [loop.create_future() for _ in following]
    began = time.perf_counter()
    for one, over in zip(following, overs, strict=True):
        await loop.create_connection(lambda one=one, over=over: _Connection(load, one, over), host, int(port))  # type: ignore[misc]
    await asyncio.gather(*overs)
    load.seconds = time.perf_counter() - began
    return load


def run(server: Server, requests: Sequence[bytes], connections: int) -> Load:
    """Send every one of `requests` over so many connections."""
    import uvloop

    left = iter(requests)

    async def work() -> Load:
        return await drive(server, [lambda _status, _body: next(left, None)] * connections)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


def _serve(port: int, folder: str, url: str) -> None:
    """Run the API in this process, with a call that does nothing."""
    from cron_observer.service import collect_seldom
    from cron_observer.settings import Settings
    from cron_observer_api import serve as serving_module
    from cron_observer_api.app import create_app
    from cron_observer_api.limits import Limiter
    from cron_observer_api.operation import PREFIX, answer, declare, read
    from cron_observer_api.reports import CompleteBody

    kept = {"id": "x" * 36, "filler": "y" * 1100}  # as long as an execution

    @post(
        "/sdk/nothing",
        status_code=200,
        opt=declare(summary="nothing", tag="worker", scopes=("report",), write=True, body=CompleteBody),
    )
    async def nothing(request: Request[Any, Any, Any]) -> Response[bytes]:
        await read(request, CompleteBody)
        return answer(kept)

    @post("/sdk/nothing-hot", status_code=200, opt=nothing.opt)
    async def hot(request: Request[Any, Any, Any]) -> Response[bytes]:
        await read(request, CompleteBody)
        return answer(kept)

    pool = int(os.environ.get("CRON_OBSERVER_POOL_SIZE_API", "4"))
    settings = Settings(data_dir=Path(folder), database_url=url, port=port, pool_size_api=pool)

    async def work() -> None:
        import signal

        collect_seldom()

        app = create_app(settings)
        app.register(Router(path=PREFIX, route_handlers=[nothing, hot]))
        app.state.door.open(PREFIX, hot)
        app.state.limiter = Limiter(rate=1e9, burst=1 << 40)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await serving_module.serve(settings, stop=stop, app=app)

    with asyncio.Runner(loop_factory=serving_module.loop_factory()) as runner:
        if os.environ.get("BENCH_PROFILE"):
            import cProfile

            with cProfile.Profile() as profile:
                runner.run(work())
            profile.dump_stats(os.environ["BENCH_PROFILE"])
        else:
            runner.run(work())


if __name__ == "__main__":
    _serve(int(sys.argv[2]), sys.argv[3], sys.argv[4])
